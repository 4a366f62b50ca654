"""The cues of every family stand at the places of its tokens, and cost nothing unless asked for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from streamvlm import plugins
from streamvlm.types import Clip, Frame
from tests.models.tiny import FAMILIES

HEIGHT, WIDTH = 31, 47


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def clip_of(pictures) -> Clip:
    frames = tuple(Frame("a.mp4", at, float(at), image) for at, image in enumerate(pictures))
    return Clip("a.mp4", 0.0, float(len(frames)), frames)


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.plugin)
def family(request, tmp_path_factory):
    """A family, and the folder of its tiny checkpoint."""
    tiny = request.param
    return tiny, str(tiny.save(tmp_path_factory.mktemp("cues") / tiny.plugin))


@pytest.fixture(scope="module")
def model(family):
    """With every cue that the family gives."""
    tiny, folder = family
    plugin = plugins.find("models", tiny.plugin)
    return plugin(weights=folder, with_cues=tuple(sorted(plugin.cues)), batch=2, **tiny.options)


def test_every_cue_that_is_offered_comes_at_every_token(family, model):
    tokens = model.encode(clip_of([picture(seed) for seed in range(4)]))
    assert tokens.is_dense
    assert {*tokens.cues, *tokens.frame_cues} == model.cues
    for name, cue in tokens.cues.items():
        assert cue.dtype is torch.float32
        assert cue.shape[1:] == (() if name != "keys" else cue.shape[1:2]), name
        assert cue.isfinite().all()
        assert cue.std() > 1e-5, name
    assert tokens.frame_cues["frame_vector"].shape[0] == tokens.grid[0]


def test_the_tokens_are_the_same_to_the_last_bit_without_cues(family, model):
    tiny, folder = family
    clip = clip_of([picture(seed) for seed in range(4)])
    plain = plugins.find("models", tiny.plugin)(weights=folder, batch=2, **tiny.options)
    without, with_all = plain.encode(clip), model.encode(clip)
    assert torch.equal(without.features, with_all.features)
    if without.deepstack is not None:
        assert torch.equal(without.deepstack, with_all.deepstack)
    assert dict(without.cues) == dict(without.frame_cues) == {}


def test_a_poked_pixel_changes_the_keys_of_the_tokens_it_lies_in(model, monkeypatch):
    """In the tower's first layer, where nothing has been mixed yet: the map from patch to token."""
    monkeypatch.setattr(model, "_taps", replace(model._taps, layer=0))
    images = [picture(seed) for seed in range(4)]
    before = model.encode(clip_of(images))
    steps, rows, columns = before.grid
    random = np.random.default_rng(0)
    for _ in range(4):
        at, y, x = (int(random.integers(size)) for size in (len(images), HEIGHT, WIDTH))
        poked = [image.copy() for image in images]
        poked[at][y, x] ^= 255
        after = model.encode(clip_of(poked))
        changed = (before.cues["keys"] != after.cues["keys"]).any(1)
        step, row, column = before.position[changed].T
        assert len(step)
        assert set(step.tolist()) == {at * steps // len(images)}
        # The pixel as a place on the grid of tokens; resizing and pooling blur it a little.
        assert (row - (y + 0.5) * rows / HEIGHT + 0.5).abs().max() <= 1.3
        assert (column - (x + 0.5) * columns / WIDTH + 0.5).abs().max() <= 1.3
