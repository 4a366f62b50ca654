"""Models and layers from which no visual token can leave."""

import pytest

from streamvlm.errors import ModelError
from streamvlm.plugins import Recipe, names
from streamvlm.reducers.fastv import FastV
from streamvlm.reducers.visiondrop import VisionDrop
from tests.models.tiny import FAMILIES

BY_NAME = {family.plugin: family for family in FAMILIES}


@pytest.fixture
def model(request, tmp_path):
    family = BY_NAME[request.param]
    options = {"weights": str(family.save(tmp_path / "tiny")), **family.options}
    return Recipe("models", family.plugin, options).build()


@pytest.mark.parametrize("model", ["qwen3_5"], indirect=True)
@pytest.mark.parametrize("name", names("reducers"))
def test_layers_that_keep_a_running_state_let_nothing_leave(model, name):
    with pytest.raises(ModelError, match="qwen3_5_text has layers that keep a running state or a"):
        model.reduce_with(Recipe("reducers", name).build())
    assert list(model.answer_all([], [])) == []


@pytest.mark.parametrize("model", ["qwen3_vl"], indirect=True)
def test_where_deeper_features_are_added_no_row_may_be_missing(model):
    for reducer in (FastV(), FastV(layer=1), VisionDrop()):
        with pytest.raises(ModelError, match=r"this model has 2, and rows may leave from 2 on"):
            model.reduce_with(reducer)


@pytest.mark.parametrize("model", ["llava_onevision"], indirect=True)
def test_a_layer_that_is_not_there_is_one_sentence(model):
    with pytest.raises(ModelError, match="FastV cannot take rows out at layer 6: this model has 2"):
        model.reduce_with(FastV(layer=6))


def test_another_kernel_is_one_sentence(load):
    with pytest.raises(ModelError, match="the model runs eager; set attention: sdpa"):
        load(attention="eager").reduce_with(FastV())


def test_a_refused_reducer_leaves_the_model_as_it_was(load, clip, evidence, question):
    model, video = load(), clip()
    items = [evidence(model.encode(video), video)]
    expected = list(model.answer(question, items))
    with pytest.raises(ModelError):
        model.reduce_with(FastV(layer=6))
    assert list(model.answer(question, items)) == expected
