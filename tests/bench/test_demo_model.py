"""The checkpoint that ships is a normal one, is small, and sees."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlavaOnevisionForConditionalGeneration

from scripts.training.lessons import Difficulty, Teacher
from scripts.training.pool import GRID, make_pool
from scripts.training.tower import pixels, word_accuracy
from streamvlm.bench.exam import papers, shown, sit
from streamvlm.bench.world import COLOURS, HEADINGS, NUMBERS, SHAPES
from streamvlm.bench.world.planning import plan_film
from streamvlm.bench.world.questions import ABSTENTIONS, KINDS, NOTHING, PHRASINGS
from streamvlm.demo import checkpoint
from streamvlm.embedders.siglip import Siglip
from streamvlm.models.llava_onevision import LlavaOneVision
from streamvlm.pixels import normalise, read_preprocessing
from streamvlm.types import Clip, Frame, Query, VisualTokens

FOLDER = Path(checkpoint("demo", "answerer"))


@pytest.fixture(scope="module")
def model():
    return LlavaOneVision()


@pytest.fixture(scope="module")
def pool():
    return make_pool(range(500, 512), "seeds", workers=1)


@pytest.fixture(scope="module")
def marks(model):
    """(seeing, blind) marks on clips of up to four frames."""
    asked = list(papers(900, 24, split="seeds", frames=4))
    seeing = [mark for paper in asked for mark in sit(model, model.encode(paper.clip), paper)]
    return seeing, [mark for paper in asked for mark in sit(model, None, paper)]


def test_both_checkpoints_together_are_at_most_25_mb():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 25e6


def test_the_tokenizer_knows_every_word_of_the_world():
    tokenizer = AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)
    words = (*COLOURS, *SHAPES, *NUMBERS, *HEADINGS, *ABSTENTIONS, NOTHING, "top left", "01:02:03")
    asked = [
        way.format(
            thing="red square", other="blue circle", shape="ring", colour="red", time="00:12"
        )
        for ways in PHRASINGS.values()
        for way in ways
    ]
    for text in (*words, *asked):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text.lower()


def test_pictures_are_normalised_as_in_training(pool):
    how = read_preprocessing(FOLDER, "video")
    image = pool.images[:1]
    ours = normalise(torch.from_numpy(image).permute(0, 3, 1, 2), how)
    assert how.size == (96, 96)
    assert torch.allclose(ours, pixels(image), atol=1e-5)


def test_prompts_are_laid_out_as_in_training(model, pool):
    teacher = Teacher(pool)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)
    for seed in range(8):
        views = teacher.views(np.random.default_rng(seed), 6)
        lesson = teacher.lesson(np.random.default_rng(seed), Difficulty(frames=6, drops=False))
        begin = next(index for index, target in enumerate(lesson.target) if target >= 0) + 1
        asked = [i for i, block in zip(lesson.ids, lesson.block, strict=True) if block == 1]
        text = tokenizer.decode(asked).partition("?")[0] + "?"
        prompt = model.prompt(Query(text), [_evidence(model, view) for _, view in views])
        assert prompt["input_ids"][0].tolist() == lesson.ids[:begin]
        assert prompt["position_ids"][0].tolist() == lesson.position[:begin]


def _evidence(model, view):
    seconds = [float(moment + view.shift) for moment in view.moments]
    grid = (len(seconds), GRID, GRID)
    count = len(seconds) * GRID * GRID
    tokens = VisualTokens(
        model=model.model,
        features=torch.zeros(count, 192),
        position=torch.cartesian_prod(*[torch.arange(length) for length in grid]),
        seconds=torch.tensor(seconds, dtype=torch.float64).repeat_interleave(GRID * GRID),
        grid=grid,
        weight=torch.ones(count),
    )
    blank = np.zeros((8, 8, 3), np.uint8)
    frames = tuple(Frame("film", index, s, blank) for index, s in enumerate(seconds))
    return shown(tokens, Clip("film", seconds[0], seconds[-1] + 1, frames))


def test_each_token_names_what_it_shows(pool):
    network = LlavaOnevisionForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32)
    accuracy = word_accuracy(network, pool)
    assert accuracy.colour >= 0.95
    assert accuracy.shape >= 0.9


def test_it_plainly_beats_blindness(marks):
    seeing, blind = (np.mean([mark.right for mark in some]) for some in marks)
    assert seeing > blind + 0.3


def test_it_does_not_say_the_same_thing_to_every_question_of_a_kind(marks):
    for kind in set(KINDS) - {"absent", "number", "change"}:
        said = [mark.said for mark in marks[0] if mark.kind == kind]
        assert len(said) < 8 or len(set(said)) > 1, kind


def test_the_retriever_finds_the_right_scene(pool):
    embedder, right, asked = Siglip(), 0, 0
    film = plan_film(500, 3, split="seeds")
    assert film == pool.films[0]
    keys = [embedder.embed_clip(_clip(pool, scene.start, scene.end)) for scene in film.scenes]
    for wanted, scene in enumerate(film.scenes):
        for thing in scene.things:
            key = embedder.embed_text(f"Where is the {thing.name}?")
            right += int(np.argmax([np.max(some @ key) for some in keys])) == wanted
            asked += 1
    assert right >= asked - 1


def _clip(pool, start, end):
    frames = tuple(Frame("film", s, float(s), pool.images[s]) for s in range(start, end))
    return Clip("film", float(start), float(end), frames)
