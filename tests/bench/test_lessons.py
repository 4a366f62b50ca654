"""What the language model is taught: views with times, questions, and what it must not infer."""

import re
from itertools import pairwise

import numpy as np
import pytest
import torch

from scripts.training.language import possible
from scripts.training.lessons import CELLS, IGNORE, Difficulty, Teacher
from scripts.training.pool import make_pool
from scripts.training.tower import WIDTH, Heads, loss_of
from scripts.training.words import make_tokenizer
from streamvlm.bench.world import COLOURS, SHAPES, UNSEEN_PAIRS

FULL = Difficulty(frames=8, drops=False)


@pytest.fixture(scope="module")
def teacher():
    return Teacher(make_pool(range(6), workers=1))


@pytest.fixture(scope="module")
def lessons(teacher):
    random = np.random.default_rng(0)
    return [teacher.lesson(random, FULL) for _ in range(150)]


def words(ids):
    return re.findall(r"[a-z]+", make_tokenizer().decode(ids))


def test_what_is_barred_makes_an_unseen_pair_and_is_never_the_answer(lessons):
    partners = {frozenset(pair.split()) for pair in UNSEEN_PAIRS}
    barred = 0
    for lesson in lessons:
        for block in range(1, max(lesson.block) + 1):
            places = [i for i, of in enumerate(lesson.block) if of == block]
            asked = [i for i in places if lesson.target[i] != IGNORE]
            said = words([lesson.ids[i] for i in places] + [lesson.target[i] for i in asked])
            for away in {word for i in asked for word in lesson.barred[i] if word != IGNORE}:
                (name,) = words([away])
                assert any({name, other} in partners for other in said)
                assert away not in [lesson.target[i] for i in asked]
                barred += 1
    assert barred > 500


def test_barred_words_get_no_chance_and_leave_the_rest_as_it_was():
    logits = torch.randn(3, 7)
    barred = torch.tensor([[1, 2], [IGNORE, 4], [IGNORE, IGNORE]])
    left = possible(logits, barred, torch.tensor([0, 4, 6]))
    assert left[0].isinf().tolist() == [False, True, True, *[False] * 4]
    # The right word always stays possible.
    assert torch.equal(left[1:], logits[1:])
    assert torch.equal(left[0, 3:], logits[0, 3:])


def test_the_eye_is_not_taught_that_an_unseen_pair_cannot_be():
    heads, colours = Heads(), list(COLOURS)
    tokens = torch.randn(1, CELLS, WIDTH)
    # One red square: nothing may be learned about stars from it.
    colour, shape = torch.full((1, CELLS), -1), torch.full((1, CELLS), -1)
    colour[0, 7], shape[0, 7] = colours.index("red"), SHAPES.index("square")
    vectors = torch.randn(len(make_tokenizer()), WIDTH)

    def loss(change):
        moved = vectors.clone()
        moved[change] += 1
        return loss_of(heads(tokens, moved), colour, shape)[0]

    shapes = dict(zip(SHAPES, heads.shapes[: len(SHAPES)].tolist(), strict=True))
    same = loss([])
    assert torch.equal(loss([shapes["star"]]), same)
    assert not torch.equal(loss([shapes["ring"]]), same)


def test_views_follow_one_another_after_seconds_or_up_to_an_hour(teacher):
    random, gaps = np.random.default_rng(1), []
    for _ in range(400):
        views = [view for _, view in teacher.views(random, 8)]
        gaps += [
            later.moments[0] + later.shift - view.moments[-1] - view.shift
            for view, later in pairwise(views)
        ]
    assert min(gaps) >= 1
    assert max(gaps) <= 3601
    assert np.mean([gap < 60 for gap in gaps]) > 0.4
    assert np.mean([gap > 600 for gap in gaps]) > 0.1


def test_no_question_is_asked_twice_in_a_lesson(lessons):
    for lesson in lessons:
        asked = [
            tuple(i for i, of in zip(lesson.ids, lesson.block, strict=True) if of == block)
            for block in range(1, max(lesson.block) + 1)
        ]
        assert len(asked) == len(set(asked))
        assert 1 <= len(asked) <= 16


def test_every_part_of_a_lesson_has_one_entry_for_each_token(lessons):
    for lesson in lessons:
        lengths = {
            len(part)
            for part in (
                lesson.ids,
                lesson.position,
                lesson.block,
                lesson.target,
                lesson.source,
                lesson.hints,
                lesson.barred,
            )
        }
        assert len(lengths) == 1
