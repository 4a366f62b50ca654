"""From a question to its evidence: what its times, its streams and its limits do."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from streamvlm.cli import app
from streamvlm.focus import focused, widened
from streamvlm.memory.store import Identity, Memory, StreamInfo
from streamvlm.plugins import Recipe
from streamvlm.recall import recall
from streamvlm.stopwatch import Stopwatch
from streamvlm.types import Coverage, Evidence, MemoryRecord, Query, Span, VisualTokens

WIDTH = 64
HALL, YARD = "/videos/hall.mp4", "/videos/yard.mp4"


class Ear:
    """Hears every question as the same direction, so that closeness is what a record says it is."""

    model = "ear@1"
    width = WIDTH

    def embed_text(self, text):
        return np.eye(1, WIDTH, dtype=np.float32)[0]

    def embed_clip(self, clip):
        raise NotImplementedError


def record(
    number: int, span: tuple[float, float], frames: tuple[float, ...], close: float, stream=HALL
) -> MemoryRecord:
    """A record with one token a frame and a cosine with every question."""
    key = np.zeros((1, WIDTH), np.float32)
    key[0, 0], key[0, number + 1] = close, np.sqrt(1 - close**2)
    steps = len(frames)
    position = torch.zeros(steps, 3, dtype=torch.int64)
    position[:, 0] = torch.arange(steps)
    return MemoryRecord(
        id=f"{number:016x}",
        stream=stream,
        start=span[0],
        end=span[1],
        keys=key,
        tokens=VisualTokens(
            model="eye@1",
            features=torch.ones(steps, 4),
            position=position,
            seconds=torch.tensor(frames, dtype=torch.float64),
            grid=(steps, 1, 1),
            weight=torch.ones(steps),
        ),
        frame_seconds=np.array(frames),
        frame_hash=np.arange(steps, dtype=np.uint64),
        thumbnail=b"\xff\xd8\xff\xd9",
    )


def watched(stream: str, *spans: Span) -> StreamInfo:
    coverage = Coverage(stream, spans)
    return StreamInfo(stream, 1, "digest", "recipe", coverage.seconds, coverage, complete=True)


def moving(number: int, close: float, stream=HALL) -> MemoryRecord:
    """Eight seconds in which something changes every second."""
    start = 8.0 * (number % 10)
    return record(number, (start, start + 8), tuple(start + n for n in range(8)), close, stream)


@pytest.fixture
def memory(tmp_path):
    identity = Identity("eye@1", Ear.model, WIDTH)
    with Memory.create(tmp_path / "memory", identity, sync="process") as memory:
        yield memory


@pytest.fixture
def hall(memory):
    """Ten records of 8 seconds; the later one is the nearer it is in meaning."""
    memory.append([moving(n, 0.05 * n) for n in range(10)])
    memory.put_stream(watched(HALL, Span(0, 80, "sampled")))
    return memory


@pytest.fixture
def still(memory):
    """Something moves until 0:04, at 0:28 and at the end; nothing does in between."""
    memory.append(
        [
            record(0, (0, 8), (0.0, 1.0, 2.0, 3.0), 0.1),
            record(3, (24, 32), (28.0, 29.0, 30.0), 0.5),
            record(9, (72, 80), (72.0, 73.0), 0.9),
        ]
    )
    spans = ((0, 4), (4, 28), (28, 31), (31, 72), (72, 74), (74, 80))
    kinds = ("sampled", "still") * 3
    memory.put_stream(
        watched(HALL, *(Span(*s, kind) for s, kind in zip(spans, kinds, strict=True)))
    )
    return memory


def found(memory, text, **limits):
    """The numbers of the records that are read for a question."""
    evidence = recall(memory, Ear(), Query(text, **{"max_records": 1} | limits), Stopwatch())
    return [int(each.record.id, 16) for each in evidence]


@pytest.mark.parametrize(("time", "number"), [("00:03", 0), ("00:08", 1), ("00:40", 5)])
def test_the_one_record_read_shows_the_time_that_the_question_names(hall, time, number):
    assert found(hall, "What is there?") == [9]
    assert found(hall, f"What is there at {time}?") == [number]


def test_the_rest_of_the_room_is_filled_by_meaning_and_all_is_in_time_order(hall):
    assert found(hall, "What is there at 00:40?", max_records=3) == [5, 8, 9]
    assert found(hall, "What is there at 00:40?", max_records=3, max_tokens=16) == [5, 9]
    assert len(found(hall, "What is there at 00:40?", max_records=10)) == 10


def test_several_times_each_have_their_record(hall):
    assert found(hall, "Is it the same at 00:03 and 00:40?", max_records=2) == [0, 5]
    text = "Is what is there at 00:03 there again between 00:10 and 01:00?"
    assert found(hall, text, max_records=2) == [0, 7]


def test_of_a_stretch_the_nearest_in_meaning_come_first(hall):
    assert found(hall, "What happened between 00:10 and 00:30?", max_records=2) == [2, 3]
    assert found(hall, "What happened before 00:30?") == [3]
    assert found(hall, "What happened after 00:30?") == [9]


def test_a_time_that_the_stream_does_not_have_changes_nothing(hall):
    assert found(hall, "What is there at 10:00?", max_records=3) == [7, 8, 9]


def test_limits_that_the_user_gave_win_over_the_words_of_the_question(hall):
    assert found(hall, "What is there at 00:03?", since=40.0) == [9]
    assert found(hall, "What is there at 00:40?", until=24.0) == [2]


def test_a_record_is_read_whole_although_a_time_within_it_is_named(hall):
    (evidence,) = recall(hall, Ear(), Query("What is there at 00:40?", max_records=1), Stopwatch())
    assert evidence.record.tokens.seconds.tolist() == list(range(40, 48))
    assert evidence.score == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize(
    ("time", "number"),
    [("00:06", 0), ("00:15", 0), ("00:25", 0), ("00:28", 3), ("00:50", 3), ("01:19", 9)],
)
def test_at_a_time_when_nothing_changed_it_is_the_still_scene_that_is_read(still, time, number):
    assert found(still, f"What is there at {time}?") == [number]


def test_a_stretch_begins_with_what_stood_there(still):
    text = "What was there between 00:10 and 00:40?"
    assert found(still, text) == [3]
    assert found(still, text, max_records=2) == [0, 3]


def test_a_change_within_the_second_that_is_named_is_what_is_read(memory):
    """Two pictures a second, and the scene changes halfway through the ninth."""
    memory.append(
        [record(0, (0, 8), (0.0, 0.5), 0.9), record(1, (8, 16), (8.5, 9.0), 0.1)],
    )
    spans = Span(0, 1, "sampled"), Span(1, 8.5, "still"), Span(8.5, 16, "sampled")
    memory.put_stream(watched(HALL, *spans))
    assert found(memory, "What is there at 00:07?") == [0]
    assert found(memory, "What is there at 00:08?") == [1]


def test_the_end_of_each_stream_is_its_own(memory):
    memory.append([moving(n, 0.5 - 0.05 * n) for n in range(10)])
    memory.append([moving(n, 0.9 - 0.05 * (n - 10), YARD) for n in range(10, 14)])
    memory.put_stream(watched(HALL, Span(0, 80, "sampled")))
    memory.put_stream(watched(YARD, Span(0, 32, "sampled")))
    text = "What happened in the last 6 seconds?"
    assert found(memory, text) == [13]
    assert found(memory, text, max_records=2) == [9, 13]
    assert found(memory, text, streams=(HALL,)) == [9]


def test_a_time_is_looked_up_in_every_stream_the_nearest_in_meaning_first(memory):
    memory.append([moving(n, 0.5) for n in range(4)])
    memory.append([moving(10 + n, 0.9 if n == 3 else 0.6, YARD) for n in range(4)])
    memory.put_stream(watched(HALL, Span(0, 32, "sampled")))
    memory.put_stream(watched(YARD, Span(0, 32, "sampled")))
    assert found(memory, "What is there at 00:12?") == [11]
    assert found(memory, "What is there at 00:12?", max_records=2) == [1, 11]
    assert found(memory, "What is there at 00:12?", streams=(HALL,)) == [1]


def test_records_that_begin_with_a_later_picture_do_not_hide_what_another_stream_shows(memory):
    """At 0:09 eight streams are about to change, and nearer in meaning."""
    for n in range(8):
        stream = f"/videos/{n}.mp4"
        memory.append([record(20 + n, (8, 16), (12.0,), 0.9, stream)])
        memory.put_stream(watched(stream, Span(0, 12, "still"), Span(12, 16, "sampled")))
    memory.append([moving(1, 0.1)])
    memory.put_stream(watched(HALL, Span(0, 16, "sampled")))
    assert found(memory, "What is there at 00:09?") == [1]


def test_a_stream_whose_ingest_was_interrupted_is_looked_into_all_the_same(memory):
    memory.append([moving(n, 0.05 * n) for n in range(4)])
    memory.put_stream(replace(watched(HALL), complete=False))
    assert found(memory, "What is there at 00:12?") == [1]


def test_a_still_scene_stays_within_the_budget_of_a_query_about_several_streams(memory):
    for n in range(3):
        stream = f"/videos/{n}.mp4"
        memory.append([record(n, (0, 8), (0.0, 1.0, 2.0), 0.5, stream)])
        memory.put_stream(watched(stream, Span(0, 3, "sampled"), Span(3, 60, "still")))
    assert found(memory, "What is there?", since=20.0, max_records=8) == [0, 1, 2]
    evidence = recall(memory, Ear(), Query("What is there?", since=20.0, max_tokens=2), Stopwatch())
    assert sum(len(each.record.tokens) for each in evidence) <= 2


def compressed(memory: Memory, recipe: str) -> Memory:
    """The same records, as if they had been made with those settings."""
    info = watched(HALL, Span(0, 80, "sampled"))
    memory.put_stream(replace(info, recipe=recipe))
    return memory


PVC = json.dumps({"compressors": {"name": "pvc", "keep": 0.1}})


def test_a_record_that_continues_another_is_read_with_it(hall):
    assert found(compressed(hall, PVC), "What is there?", max_records=1) == [8, 9]
    assert found(hall, "What is there at 00:33?", max_records=1) == [3, 4]
    assert found(hall, "What is there at 00:03?", max_records=1) == [0]


def test_what_a_record_continues_may_lie_before_a_still_time(still):
    (info,) = still.streams()
    still.put_stream(replace(info, recipe=PVC))
    assert found(still, "What is there at 00:29?", max_records=1) == [0, 3]
    assert found(still, "What is there?", max_records=1) == [3, 9]


def test_what_a_record_continues_may_lie_before_a_gap(memory):
    memory.append([moving(0, 0.1), moving(2, 0.5)])
    spans = Span(0, 8, "sampled"), Span(8, 16, "gap"), Span(16, 24, "sampled")
    memory.put_stream(replace(watched(HALL, *spans), recipe=PVC))
    assert found(memory, "What is there?", max_records=1) == [0, 2]


def test_of_a_record_that_sends_changes_only_the_last_token_of_each_place_stands(memory):
    position = torch.tensor([[0, 0, 0], [0, 0, 1], [2, 0, 1], [3, 0, 0], [6, 0, 0]])
    whole = moving(0, 0.5)
    tokens = replace(
        whole.tokens.select(position[:, 0]),
        position=position,
        grid=(8, 1, 2),
        features=torch.arange(5.0)[:, None].expand(5, 4),
    )
    memory.append([replace(whole, tokens=tokens)])
    query = Query("What is there?", since=4.0)
    for recipe, read in ((PVC, [2, 3, 4]), ("recipe", [3, 4])):
        (each,) = recall(compressed(memory, recipe), Ear(), query, Stopwatch())
        assert each.record.tokens.features[:, 0].round().tolist() == read


def test_a_record_that_is_read_anyway_is_not_read_twice(hall):
    assert found(compressed(hall, PVC), "What is there?", max_records=2) == [7, 8, 9]


def test_what_a_record_continues_is_left_out_if_there_is_no_room(hall):
    query = Query("What is there?", max_records=1, max_tokens=15)
    assert counts(recall(compressed(hall, PVC), Ear(), query, Stopwatch())) == [8]
    query = replace(query, max_tokens=16)
    assert counts(recall(hall, Ear(), query, Stopwatch())) == [8, 8]


@pytest.mark.parametrize(
    "recipe", ["recipe", "[]", "{}", '{"compressors": {"name": "gone"}}', PVC.replace("pvc", "evs")]
)
def test_other_records_are_whole_by_themselves(hall, recipe):
    assert found(compressed(hall, recipe), "What is there?", max_records=1) == [9]


class Reader:
    """Its only word is like a token's number: the last is the most alike."""

    def with_question(self, tokens, text):
        alike = torch.linspace(-1, 1, len(tokens))[:, None]
        return replace(tokens, cues={"question": alike})


def sized(*sizes: int) -> list[Evidence]:
    """Records of so many tokens each, the first the least relevant."""
    return [
        Evidence(
            record(n, (n * 9.0, n * 9.0 + 9), tuple(float(i) for i in range(size)), 0.1), 0.1 * n
        )
        for n, size in enumerate(sizes)
    ]


UNIFORM = Recipe("compressors", "uniform", {"keep": 0.25})


def counts(evidence) -> list[int]:
    return [len(each.record.tokens) for each in evidence]


def test_a_focus_lets_more_be_found_than_is_read(hall):
    query = Query("What is there?", max_records=10, max_tokens=8)
    assert widened(query, UNIFORM).max_tokens == 32
    found = recall(hall, Ear(), widened(query, UNIFORM), Stopwatch())
    assert counts(found) == [8, 8, 8, 8]
    read = focused(found, UNIFORM, Reader(), query)
    assert counts(read) == [2, 2, 2, 2]
    assert [each.record.id for each in read] == [each.record.id for each in found]
    assert [each.score for each in read] == [each.score for each in found]
    assert len(recall(hall, Ear(), query, Stopwatch())) == 1


def test_records_share_one_budget_by_their_size():
    # A quarter of 100 tokens; one for each record and 22 of 97 by largest remainders:
    # 4/97·22 = 0.9, 33/97·22 = 7.5, 60/97·22 = 13.6.
    query = Query("where?", max_tokens=1000)
    assert counts(focused(sized(5, 34, 61), UNIFORM, Reader(), query)) == [2, 8, 15]


@pytest.mark.parametrize("most", [1, 2, 3, 4, 10, 23, 24, 25, 26, 100])
def test_what_is_read_never_exceeds_the_budget_of_the_query(most):
    read = focused(sized(1, 1, 34, 64), UNIFORM, Reader(), Query("where?", max_tokens=most))
    assert sum(counts(read)) == min(most, 25)
    assert min(counts(read)) >= 1


def test_of_more_records_than_tokens_the_best_are_read():
    read = focused(sized(4, 4, 4), UNIFORM, Reader(), Query("where?", max_tokens=2))
    assert [each.score for each in read] == [0.1, 0.2]
    assert counts(read) == [1, 1]


def test_records_of_one_token_are_all_read():
    assert counts(focused(sized(1, 1, 1), UNIFORM, Reader(), Query("where?"))) == [1, 1, 1]


def test_the_question_decides_what_is_kept_of_a_record():
    recipe = Recipe("compressors", "mmtok", {"keep": 0.125})
    (read,) = focused(sized(8), recipe, Reader(), Query("where?"))
    assert read.record.tokens.position[:, 0].tolist() == [7]
    assert read.record.tokens.cues == {}
    (whole,) = focused(sized(8), Recipe("compressors", "mmtok", {"keep": 1}), Reader(), Query("a"))
    assert len(whole.record.tokens) == 8


def test_a_film_is_read_at_the_time_that_is_asked_about(tmp_path, shapes_film: Path):
    times = ("00:03", "00:13", "00:20", "00:25", "00:36")
    words = [f"What is there at {time}?" for time in times]
    folder = tmp_path / "memory"
    ran = CliRunner().invoke(app, ["ask", str(shapes_film), *words, "-m", str(folder), "--json"])
    assert ran.exit_code == 0, ran.stderr
    _, *answers = map(json.loads, ran.stdout.splitlines())
    read = [[found["start"] for found in answer["evidence"]] for answer in answers]
    assert read == [[0.0], [8.0], [16.0], [24.0], [32.0]]
    ran = CliRunner().invoke(
        app, ["ask", *words[:1], "-m", str(folder), "--json", "--since", "24", "--until", "32"]
    )
    (answer,) = map(json.loads, ran.stdout.splitlines())
    assert [found["start"] for found in answer["evidence"]] == [24.0]
