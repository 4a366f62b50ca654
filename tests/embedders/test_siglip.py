"""SigLIP keys against stock transformers, on tiny random models."""

import json
import shutil
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, Siglip2Model, SiglipModel
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from streamvlm.embedders._naflex import patch_batches
from streamvlm.embedders.siglip import Siglip
from streamvlm.errors import ModelError
from streamvlm.pixels import normalise, read_preprocessing, resize
from streamvlm.plugins import Recipe, summary
from streamvlm.protocols import Embedder


def unit(vectors):
    return torch.nn.functional.normalize(vectors, dim=-1).numpy()


def test_frame_keys_equal_those_of_the_stock_model(fixed, clip):
    network = SiglipModel.from_pretrained(fixed, local_files_only=True).eval()
    how = read_preprocessing(fixed, "image")
    video = clip()
    pictures = [resize(frame.image, how.size, how.resample) for frame in video.frames]
    with torch.no_grad():
        out = network.get_image_features(pixel_values=normalise(torch.stack(pictures), how))
    keys = Siglip(weights=str(fixed)).embed_clip(video)
    difference = np.abs(keys - unit(out.pooler_output)).max()
    print(f"max abs difference of the keys {difference}")  # noqa: T201
    assert difference <= 1e-6
    assert np.abs(keys - unit(out.pooler_output)[::-1]).max() > 0.05


@pytest.mark.parametrize("kind", ["fixed", "naflex"])
def test_text_keys_equal_those_of_the_stock_model_padded_to_full_length(kind, request):
    folder = request.getfixturevalue(kind)
    stock = {"fixed": SiglipModel, "naflex": Siglip2Model}[kind]
    network = stock.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    words = tokenizer("where is the red lift ?", padding="max_length", max_length=12)
    with torch.no_grad():
        out = network.get_text_features(input_ids=torch.tensor([words["input_ids"]]))
        short = network.get_text_features(input_ids=torch.tensor([words["input_ids"][:6]]))
    key = Siglip(weights=str(folder)).embed_text("where is the red lift ?")
    assert np.abs(key - unit(out.pooler_output)[0]).max() <= 1e-6
    assert np.abs(key - unit(short.pooler_output)[0]).max() > 0.05


def test_naflex_frame_keys_equal_those_of_the_stock_model(naflex, clip):
    network = Siglip2Model.from_pretrained(naflex, local_files_only=True).eval()
    how, video = read_preprocessing(naflex, "image"), clip()
    images = [frame.image for frame in video.frames]
    inputs, count = next(patch_batches(images, how, 4, len(images)))
    with torch.no_grad():
        out = network.get_image_features(**inputs)
    keys = Siglip(weights=str(naflex)).embed_clip(video)
    difference = np.abs(keys - unit(out.pooler_output)).max()
    print(f"max abs difference of the keys {difference}")  # noqa: T201
    assert count == len(keys) == 5
    assert difference <= 1e-6
    assert np.abs(keys - unit(out.pooler_output)[::-1]).max() > 0.05


@pytest.mark.parametrize(("height", "width"), [(31, 47), (90, 30), (16, 16), (1, 1), (200, 5)])
def test_naflex_patches_are_those_of_the_stock_pil_processor(naflex, clip, height, width):
    how = read_preprocessing(naflex, "image")
    image = clip(frames=1, height=height, width=width).frames[0].image
    processor = Siglip2ImageProcessorPil.from_pretrained(naflex)
    stock = processor(image, input_data_format="channels_last", return_tensors="pt")
    found, _ = next(patch_batches([image], how, 4, 1))
    assert torch.equal(found["spatial_shapes"], stock["spatial_shapes"])
    assert torch.equal(found["pixel_attention_mask"], stock["pixel_attention_mask"])
    levels = (found["pixel_values"] - stock["pixel_values"]).abs() * 0.5 * 255
    assert levels.max() <= 1.001


@pytest.mark.parametrize("kind", ["fixed", "naflex"])
def test_a_key_does_not_depend_on_the_other_frames(kind, request, clip):
    embedder = Siglip(weights=str(request.getfixturevalue(kind)), batch=3)
    video = clip(frames=7)
    together = embedder.embed_clip(video)
    alone = [embedder.embed_clip(replace(video, frames=(frame,)))[0] for frame in video.frames]
    # Not bit-equal: matrix kernels may round the last rows of a batch differently from the first.
    assert np.abs(together - np.stack(alone)).max() <= 1e-6
    assert np.abs(together - np.stack(alone)[::-1]).max() > 0.05


@pytest.mark.parametrize("kind", ["fixed", "naflex"])
def test_frames_of_changing_size_make_one_clip(kind, request, clip):
    video = clip(frames=2)
    cropped = replace(video.frames[1], image=video.frames[1].image[:20, ::-1])
    embedder = Siglip(weights=str(request.getfixturevalue(kind)))
    keys = embedder.embed_clip(replace(video, frames=(video.frames[0], cropped)))
    assert np.array_equal(keys[0], embedder.embed_clip(video)[0])
    assert not np.allclose(keys[1], embedder.embed_clip(video)[1], atol=0.01)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["fixed", "naflex"])
def test_keys_are_float32_unit_vectors(kind, dtype, request, clip):
    embedder = Siglip(weights=str(request.getfixturevalue(kind)), dtype=dtype)
    keys, key = embedder.embed_clip(clip(frames=3)), embedder.embed_text("a red star")
    assert keys.shape == (3, embedder.width)
    assert key.shape == (embedder.width,)
    assert keys.dtype == key.dtype == np.float32
    assert np.allclose(np.linalg.norm(np.vstack([keys, key]), axis=1), 1, atol=1e-6)


def test_keys_are_the_same_on_every_run(fixed, clip):
    first, second = Siglip(weights=str(fixed)), Siglip(weights=str(fixed))
    assert first.model == second.model
    assert np.array_equal(first.embed_clip(clip()), second.embed_clip(clip()))
    assert np.array_equal(first.embed_text("a star"), second.embed_text("a star"))


def test_different_words_have_different_keys(fixed):
    embedder = Siglip(weights=str(fixed))
    assert not np.allclose(
        embedder.embed_text("a star"), embedder.embed_text("the door"), atol=0.02
    )


def test_words_beyond_the_models_length_are_cut_off(fixed):
    embedder = Siglip(weights=str(fixed))
    long = "red star " * 6
    assert np.array_equal(embedder.embed_text(long), embedder.embed_text(long + "door"))


def test_special_tokens_in_a_question_are_only_text(fixed):
    embedder = Siglip(weights=str(fixed))
    assert not np.allclose(
        embedder.embed_text("a </s> star"), embedder.embed_text("a star"), atol=1e-3
    )
    padded = embedder.embed_text("a <pad> star")
    assert np.array_equal(padded, embedder.embed_text("a <foo> star"))


def test_a_model_without_a_pooling_head_is_refused(fixed, tmp_path):
    copy = shutil.copytree(fixed, tmp_path / "headless")
    settings = json.loads((copy / "config.json").read_text())
    settings["vision_config"]["vision_use_head"] = False
    (copy / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="has no pooling head, so it makes no keys"):
        Siglip(weights=str(copy))


def test_a_preprocessor_for_another_tower_is_refused(fixed, naflex, tmp_path):
    for folder, other in ((fixed, naflex), (naflex, fixed)):
        copy = shutil.copytree(folder, tmp_path / folder.name)
        shutil.copy(other / "preprocessor_config.json", copy)
        with pytest.raises(ModelError, match=r"the tower needs .*; correct that file"):
            Siglip(weights=str(copy))


def test_a_tokenizer_without_padding_is_refused(fixed, tmp_path):
    copy = shutil.copytree(fixed, tmp_path / "unpadded")
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    settings.pop("pad_token")
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="the tokenizer has no padding token; add pad_token"):
        Siglip(weights=str(copy))


def test_another_family_is_refused(fixed, tmp_path):
    copy = shutil.copytree(fixed, tmp_path / "clip")
    settings = json.loads((copy / "config.json").read_text()) | {"model_type": "clip"}
    (copy / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="family clip, needed is siglip or siglip2"):
        Siglip(weights=str(copy))


def test_loading_and_embedding_reach_no_network(fixed, clip, monkeypatch):
    def no_network(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    embedder = Siglip(weights=str(fixed))
    assert embedder.embed_clip(clip()).shape == (5, 16)
    assert embedder.embed_text("a star").shape == (16,)


def test_a_batch_of_no_frames_is_refused(fixed):
    with pytest.raises(ValueError, match="batch must be at least 1, found 0"):
        Siglip(weights=str(fixed), batch=0)


def test_it_is_found_and_built_by_name(naflex):
    embedder = Recipe("embedders", "siglip", {"weights": str(naflex), "batch": 2}).build()
    assert embedder.model.startswith("siglip/tiny2 ")
    assert embedder.model.endswith(" float32 20p")
    assert "2303.15343" in summary("embedders", "siglip")


def test_it_is_an_embedder(fixed):
    assert isinstance(Siglip(weights=str(fixed)), Embedder)
