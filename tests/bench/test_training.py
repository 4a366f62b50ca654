"""The demo model can be made again: every step of its training runs, and its card says all."""

import json

import pytest

from scripts.train_demo import schedule, train
from scripts.training.card import Training, card
from streamvlm.bench.report import Table, here
from streamvlm.bench.world import UNSEEN_PAIRS
from streamvlm.bench.world.planning import plan_film
from streamvlm.bench.world.questions import PHRASINGS
from streamvlm.embedders.siglip import Siglip
from streamvlm.models.llava_onevision import LlavaOneVision

FACTS = Training(2, 30, 10, 11, 12, "Made up for a test.")


def test_the_card_says_what_can_be_asked_what_was_measured_and_how_it_was_trained():
    table = Table("Right answers", ("kind", "right"), (("where", 0.5),))
    text = card([table], here(7, "weights"), FACTS)
    assert table.markdown() in text
    assert "seed 7" in text
    assert FACTS.conditions in text
    for ways in PHRASINGS.values():
        assert all(way in text for way in ways)
    assert all(pair in text for pair in UNSEEN_PAIRS)


def test_more_minutes_mean_more_of_everything():
    short, long = schedule(10), schedule(100)
    assert short.films < long.films
    assert short.tower < long.tower
    assert short.language < long.language
    assert short.retriever < long.retriever


def test_held_out_films_are_not_training_films():
    trained = {plan_film(seed, 3, split="training").scenes for seed in range(100)}
    for split in ("seeds", "backgrounds", "pairs"):
        assert not trained & {plan_film(seed, 3, split=split).scenes for seed in range(100)}


@pytest.mark.slow
def test_every_step_of_the_training_runs_and_goes_on_where_it_was_interrupted(tmp_path):
    train(schedule(0), tmp_path / "demo", tmp_path / "work", "cpu")
    facts = Training(**json.loads((tmp_path / "demo" / "training.json").read_text()))
    assert facts.language_steps == 10
    again = tmp_path / "again"
    train(schedule(0), again, tmp_path / "work", "cpu")
    for weights in ("model.safetensors", "retriever/model.safetensors"):
        assert (again / weights).read_bytes() == (tmp_path / "demo" / weights).read_bytes()
    assert LlavaOneVision(weights=str(again)).network is not None
    assert Siglip(weights=str(again / "retriever")).width == 128
