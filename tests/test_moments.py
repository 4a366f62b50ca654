"""Which words of a question are times of the stream, and which only look like them."""

import math

import pytest

from streamvlm.moments import Moment, moments

NAMED = {
    "What is there at 00:40?": (40, 41),
    "Where is the red square at 1:02:05?": (3725, 3726),
    "What do you see at 01:02:05": (3725, 3726),
    "00:40: what do you see?": (40, 41),
    "Who is there (00:40)?": (40, 41),
    "What is there at 00:03.5?": (3, 4),
    "What is there at 99:59?": (5999, 6000),
    "What is there at 40 s?": (40, 41),
    "WHAT IS THERE AT 40S?": (40, 41),
    "What is there at about 40 seconds?": (40, 41),
    "What is there at two seconds?": (2, 3),
    "What is there at 1.5 minutes?": (90, 91),
    "What is there at 2 minutes and 30 seconds?": (150, 151),
    "What is there at the 40-second mark?": (40, 41),
    "What is there 30 seconds into the video?": (30, 31),
    "What is there at second 40?": (40, 41),
    "What happens at minute 3?": (180, 240),
    "What happens in hour 2?": (7200, 10800),
    "What happened between 01:00 and 02:00?": (60, 120),
    "What happened from 1:00 to 1:30?": (60, 90),
    "What happened from 1:30 to 1:00?": (60, 90),
    "What happened in 1:00–1:30?": (60, 90),
    "What happened between 10 and 20 seconds?": (10, 20),
    "What happened between 1 and 2 minutes?": (60, 120),
    "What happened between minute 2 and minute 4?": (120, 240),
    "What was there before 00:30?": (0, 30),
    "What was there before 00:00?": (0, 1),
    "Was there a dog until one minute?": (0, 60),
    "What was there just before 00:30?": (29, 30),
    "What was there right after 00:30?": (30, 31),
    "What is there after 2 minutes?": (120, math.inf),
    "What is there from 00:40 on?": (40, math.inf),
    "What is there after 5 seconds of the video?": (5, math.inf),
    "What happens in the first minute?": (0, 60),
    "What happens in the first two minutes?": (0, 120),
    "What happens in the first 30 seconds of this film?": (0, 30),
    "What happened in the last 5 minutes?": (-300, math.inf),
    "What happened in the last hour?": (-3600, math.inf),
}

NOT_NAMED = (
    "What is there?",
    "Are there 3 cars?",
    "Is it shirt number 40?",
    "Is the picture 16:9?",
    "Is the ratio 16:10?",
    "What is there at 12:75?",
    "What happens when the clock shows 12:30?",
    "Does the sign say 10:00?",
    'Where is the sign "10:00"?',
    "Who comes at 12:30 pm?",
    "Who comes at 12:30 a.m.?",
    "Who comes at 12:30 o'clock?",
    "Is it 2026-05-01T12:30:00?",
    "Is its address 00:1b:44:11:3a:b7?",
    "Does it drive at 40 km/h?",
    "Is it drawn at 30 frames per second?",
    "Is it at 3 m?",
    "Does it flash at 5 second intervals?",
    "Does it flash for 5 seconds?",
    "Does it take between 10 and 20 seconds?",
    "Does he wait 5 seconds?",
    "Is it gone in 3 seconds?",
    "Does it turn green after 5 seconds of waiting?",
    "What happens at 5 seconds after the goal?",
    "Does he look at a second car?",
    "What colour is the first second car?",
    "Where are the first 3 cars?",
    "Is this music of the 90s?",
    "What happens in the first minute after the goal?",
)


@pytest.mark.parametrize("question", NAMED)
def test_a_time_that_a_question_names_is_found(question):
    assert moments(question) == (Moment(*NAMED[question]),)


@pytest.mark.parametrize("question", NOT_NAMED)
def test_what_only_looks_like_a_time_of_the_stream_is_not_one(question):
    assert moments(question) == ()


def test_several_times_are_found_each_once():
    found = moments("Is it there at 00:10, at 01:30 and at 10 s, or after 2 minutes?")
    assert set(found) == {Moment(10, 11), Moment(90, 91), Moment(120, math.inf)}
    assert len(found) == 3


def test_the_end_of_a_stream_shorter_than_what_is_asked_about_is_all_of_it():
    (last,) = moments("What happened in the last 5 minutes?")
    assert last.begin(400.0) == 100.0
    assert last.begin(200.0) == 0.0
