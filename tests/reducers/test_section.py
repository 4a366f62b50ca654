"""The section `reducer` of a configuration."""

import pytest

from streamvlm.config import load
from streamvlm.errors import BadOption, ConfigError, ModelError, UnknownPlugin
from streamvlm.plugins import summary
from streamvlm.reducers.fastv import FastV

SERVER = ["answerer.name=openai", "answerer.url=http://localhost:1/v1", "answerer.model=a"]


def test_by_default_there_is_none():
    assert "reducer" not in load().recipes


def test_it_reaches_the_model_that_answers():
    with load(overrides=["reducer.name=fastv", "reducer.keep=0.5"]).build() as engine:
        assert engine.stages.answerer._voice.reducer == FastV(keep=0.5)


def test_a_model_that_only_encodes_is_spared():
    own = ["answerer.name=llava_onevision", "answerer.max_new_tokens=5"]
    with load(overrides=["reducer.name=fastv", *own]).build() as engine:
        assert engine.stages.model._voice.reducer is None
        assert engine.stages.answerer._voice.reducer == FastV()


def test_a_server_has_no_layers_to_reach():
    with pytest.raises(ConfigError, match="openai runs its language model where the section redu"):
        load(overrides=["reducer.name=fastv", *SERVER])


def test_it_does_not_change_what_is_stored():
    with (
        load(overrides=["reducer.name=prunevid"]).build() as one,
        load().build() as other,
    ):
        assert one.stages.settings == other.stages.settings


def test_a_layer_beyond_the_model_is_known_when_it_is_loaded():
    with (
        load(overrides=["reducer.name=fastv", "reducer.layer=9"]).build() as engine,
        pytest.raises(ModelError, match="this model has 5"),
    ):
        engine.stages.model  # noqa: B018


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("reducer.name=fastw", UnknownPlugin, "did you mean 'fastv'"),
        ("reducer.keep=0.5", ConfigError, "needs a name"),
    ],
)
def test_a_mistake_is_one_sentence(override, error, message):
    with pytest.raises(error, match=message):
        load(overrides=[override])


def test_an_option_out_of_range_is_known_at_once():
    with pytest.raises(BadOption, match="keep must be more than 0 and at most 1"):
        load(overrides=["reducer.name=fastv", "reducer.keep=2"])


def test_every_reducer_can_be_listed():
    assert "FastV" in summary("reducers", "fastv")
