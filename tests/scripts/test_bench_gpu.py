"""The GPU bench, rehearsed on the CPU with tiny models of the same kinds."""

import gc
import json
import weakref

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, DynamicCache

from scripts import bench_gpu
from scripts.gpu import measuring
from scripts.gpu.measuring import Cell, Eye, Plan, answer, film, look
from scripts.gpu.published import PUBLISHED, Found, beside
from scripts.gpu.random_weights import make_model
from scripts.gpu.sizes import LLAVA_ONEVISION_7B, SIZES, VIDEO, tiny
from streamvlm.bench.exam import shown
from streamvlm.types import Query

SMALL = ["--device", "cpu", "--size", "tiny", "--dtype", "float32", "--rounds", "1"]


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    words = [*SMALL, "--frames", "4", "--keep", "0.5", "--compressor", "fastvid"]
    bench_gpu.main([*words, "--out", str(folder)])
    return folder


def test_a_rehearsal_measures_every_model_at_every_budget(rehearsed):
    eye, answer = json.loads((rehearsed / "gpu.json").read_text())["tables"]
    names = [tiny(size).name for size in SIZES]
    assert [row["model"] for row in eye["rows"]] == names
    assert all(row["encode, frames/s"] > 0 for row in eye["rows"])
    assert [(row["model"], row["keep"]) for row in answer["rows"]] == [
        (name, keep) for name in names for keep in (1.0, 0.5)
    ]
    for whole, half in zip(answer["rows"][::2], answer["rows"][1::2], strict=True):
        assert half["tokens"] == round(whole["tokens"] / 2)
    for row in answer["rows"]:
        for figure in ("compress", "prefill", "next question"):
            assert row[f"{figure}, ms"] > 0
        first, pixels = (row[f"first word from {at}, ms"] for at in ("stored tokens", "pixels"))
        assert 0 < first < pixels


def test_a_rehearsal_says_that_it_is_one_and_is_put_beside_nothing(rehearsed):
    text = (rehearsed / "gpu.md").read_text()
    assert text.count("A rehearsal with tiny models") == 2
    assert "published" not in text
    for condition in ("float32", "640×360", "compressor fastvid", "median of 1", "torch "):
        assert condition in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("wrong", [("--frames", "0"), ("--keep", "2"), ("--rounds", "few")])
def test_a_number_that_cannot_be_is_refused_by_name(wrong, capsys):
    with pytest.raises(SystemExit) as ended:
        bench_gpu.main([*wrong])
    assert ended.value.code == 2
    assert f"argument {wrong[0]}: must be" in capsys.readouterr().err


def test_without_a_gpu_one_sentence_says_so(capsys):
    bench_gpu.main(["--models", "qwen3_vl"])
    said = capsys.readouterr().out
    assert said.startswith("skipped: torch ")
    assert said.count("\n") == 1
    assert "--device cpu --size tiny" in said


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="2"):
        bench_gpu.main([*SMALL, "--out", str(tmp_path / "file")])
    assert str(tmp_path / "file") in capsys.readouterr().err


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.plugin)
def test_the_stand_in_is_the_adapter_around_a_network_of_that_size(size, tmp_path):
    options = {"device": "cpu", "dtype": "bfloat16", "max_new_tokens": 1}
    model = make_model(tiny(size), tmp_path, options)
    assert model.model.startswith(f"{size.plugin}/")
    assert {at.dtype for at in model.network.parameters()} == {torch.bfloat16}
    clip = film(4, (56, 56))
    tokens = model.encode(clip)
    assert tokens.features.isfinite().all()
    assert tokens.features.std() > 0
    inputs = model.prompt(Query("Where?"), [shown(tokens, clip)])
    slots = inputs["input_ids"] == VIDEO
    assert int(slots.sum()) - len(tokens) == (size.plugin == "llava_onevision")  # its newline
    list(model.answer(Query("Where?"), [shown(tokens, clip)]))


BRIEF = Plan(keeps=(1.0, 0.5), rounds=1)


@pytest.fixture
def small(tmp_path):
    """A tiny model with the cues that the compressor needs, a frame a pass, and a clip."""
    options = {"device": "cpu", "dtype": "float32", "max_new_tokens": 1, "batch": 1}
    cues = ("attention", "frame_vector")
    model = make_model(tiny(LLAVA_ONEVISION_7B), tmp_path, {**options, "with_cues": cues})
    return model, film(8, (56, 56))


def test_the_eyes_peak_is_that_of_encoding_a_batch_at_a_time(small, monkeypatch):
    model, clip = small
    made, alive = weakref.WeakSet(), []

    def recorded(images, pixels=model.pixels):
        for batch, count in pixels(images):
            made.add(batch)
            yield batch, count

    monkeypatch.setattr(model, "pixels", recorded)
    model.network.model.vision_tower.register_forward_pre_hook(lambda *_: alive.append(len(made)))
    monkeypatch.setattr(measuring, "_forget_peak", lambda _: alive.append("reset"))
    look("small", model, clip, BRIEF)
    reset = alive.index("reset")
    assert max(alive[:reset]) == 8
    assert max(alive[reset + 1 :]) <= 2


def test_a_cells_peak_does_not_hold_what_was_read_for_the_one_before(small, monkeypatch):
    model, clip = small
    eye, dense = look("small", model, clip, BRIEF)

    def kept():
        gc.collect()
        caches = [one for one in gc.get_objects() if type(one) is DynamicCache]
        return sum(cache.get_seq_length() for cache in caches)

    before, held = kept(), []
    monkeypatch.setattr(measuring, "_forget_peak", lambda _: held.append(kept() - before))
    assert len(list(answer(model, clip, dense, BRIEF, eye))) == 2
    assert len(held) == 2
    assert max(*held, kept() - before) < len(dense) / 2


KEYS_AND_VALUES = {"llava_onevision": 57_344, "qwen2_5_vl": 57_344, "qwen3_vl": 147_456}
"""Bytes a token in half precision, worked out from the public configurations in another study."""
PARAMETERS = {"llava_onevision": 8.0e9, "qwen2_5_vl": 8.3e9, "qwen3_vl": 8.8e9}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.plugin)
def test_the_sizes_are_those_of_the_public_checkpoints(size):
    config = AutoConfig.for_model(
        size.architecture, vision_config=dict(size.vision), text_config=dict(size.text), **size.more
    )
    text = config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    each = 2 * 2 * text.num_hidden_layers * text.num_key_value_heads * width
    assert each == KEYS_AND_VALUES[size.plugin]
    with torch.device("meta"):
        network = AutoModelForImageTextToText.from_config(config)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == pytest.approx(PARAMETERS[size.plugin], rel=0.02)


def cell(model, frames, keep, spent):
    return Cell(model, frames, keep, 1, spent, spent, spent, spent, spent)


def test_published_figures_stand_beside_ours():
    names = [size.name for size in SIZES]
    cells = [
        cell(name, frames, keep, 100 * keep)
        for name in names
        for frames in Plan.frames
        for keep in Plan.keeps
    ]
    found = Found([Eye(name, 32, 1, 20.0, 30.0, 20.0, None) for name in names], cells)
    rows = {row[0]: row for row in beside(found).rows}
    assert len(rows) == len(PUBLISHED)
    ours = [row[2] for row in rows.values()]
    assert ours == pytest.approx([10, 10, 10, 4, 4, 100, 20, 20])
    assert all(row[1] and row[4] for row in rows.values())


def test_what_was_not_measured_or_did_not_fit_is_left_open():
    found = Found([], [Cell(LLAVA_ONEVISION_7B.name, 32, 1.0, 1), cell("other", 32, 0.1, 1.0)])
    assert {row[2] for row in beside(found).rows} == {None}
