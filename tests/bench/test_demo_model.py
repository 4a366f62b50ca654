"""The checkpoint that ships is a normal one, is small, and sees."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlavaOnevisionForConditionalGeneration, SiglipModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from scripts.training.language import cache_tokens
from scripts.training.lessons import NEWLINE, Difficulty
from scripts.training.measure import find, lessons_like, score
from scripts.training.pool import make_pool
from scripts.training.tower import pixels
from streamvlm.bench.world import HELD_OUT
from streamvlm.demo import checkpoint
from streamvlm.pixels import normalise, read_preprocessing

FOLDER = checkpoint("demo", "answerer")


@pytest.fixture(scope="module")
def model():
    found = LlavaOnevisionForConditionalGeneration.from_pretrained(
        FOLDER, dtype=torch.float32, local_files_only=True
    )
    return found.eval()


@pytest.fixture(scope="module")
def pool():
    return make_pool(range(HELD_OUT + 500, HELD_OUT + 512), workers=1)


@pytest.fixture(scope="module")
def tokens(model, pool):
    return cache_tokens(model, pool)


@pytest.fixture(scope="module")
def lessons(pool):
    return lessons_like(pool, Difficulty(frames=4, drops=False), 40, seed=1)


def test_both_checkpoints_together_are_at_most_25_mb():
    size = sum(path.stat().st_size for path in Path(FOLDER).rglob("*") if path.is_file())
    assert size <= 25e6


def test_the_tokenizer_writes_times_and_answers_as_they_are_read():
    tokenizer = AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)
    for text in ("00:12", "01:02:03", "top left", "red square"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text


def test_pictures_are_normalised_as_in_training(pool):
    how = read_preprocessing(Path(FOLDER), "video")
    image = pool.images[:1]
    ours = normalise(torch.from_numpy(image).permute(0, 3, 1, 2), how)
    assert how.size == (96, 96)
    assert torch.allclose(ours, pixels(image), atol=1e-5)


def test_it_beats_blindness_and_the_best_constant(model, tokens, lessons):
    scores = score(model, tokens, lessons)
    right, blind, majority = (
        np.mean([getattr(row, name) for row in scores]) for name in ("right", "blind", "majority")
    )
    assert right > blind + 0.2
    assert right > majority + 0.2


def test_stock_generate_says_what_was_scored(model, tokens, lessons):
    agreed = asked = 0
    for lesson in lessons[:12]:
        begin = lesson.target.index(next(t for t in lesson.target if t >= 0)) + 1
        source = torch.tensor(lesson.source[:begin])
        features = torch.where(
            (source == NEWLINE)[:, None],
            model.model.image_newline,
            tokens[source.clamp(min=0)].float(),
        )[source != -1]
        ids = torch.tensor([lesson.ids[:begin]])
        said = model.generate(
            input_ids=ids,
            position_ids=torch.tensor([lesson.position[:begin]]),
            attention_mask=torch.ones_like(ids),
            mm_encoder_outputs={"video": BaseModelOutputWithPooling(pooler_output=features[None])},
            max_new_tokens=8,
            do_sample=False,
        )[0, begin:]
        only = score(model, tokens, [_first_question_of(lesson)])
        right = [t for t in lesson.target[begin - 1 :] if t >= 0]
        right = right[: right.index(model.generation_config.eos_token_id) + 1]
        agreed += (said.tolist() == right) == (only[0].right == 1.0)
        asked += 1
    assert agreed == asked


def _first_question_of(lesson):
    kept = [index for index, block in enumerate(lesson.block) if block <= 1]
    columns = ("ids", "position", "block", "target", "source", "hints")
    cut = {name: [getattr(lesson, name)[index] for index in kept] for name in columns}
    return replace(lesson, kinds=lesson.kinds[:1], **cut)


def test_the_retriever_finds_the_right_scene(pool):
    retriever = SiglipModel.from_pretrained(
        checkpoint("demo", "retriever"), dtype=torch.float32, local_files_only=True
    ).eval()
    for row in find(retriever, pool):
        assert row.first > 0.7 > 3 * row.chance
