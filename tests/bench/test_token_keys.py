"""Keys of parts of a picture, from the pooling head of a tower for whole pictures."""

import numpy as np
import pytest
import torch

from streamvlm.bench.token_keys import TokenKeys, windows
from streamvlm.bench.world import Film, Scene, Thing
from streamvlm.bench.world.drawing import picture
from streamvlm.embedders.siglip import Siglip
from streamvlm.errors import BadOption
from streamvlm.types import Clip, Frame

SECONDS = 3


@pytest.fixture(scope="module")
def embedder():
    # Fewer frames a pass than the clip has, so that the last pass is filled up.
    return Siglip(batch=2)


@pytest.fixture(scope="module")
def clip():
    """A red square on the left, and a blue circle on the right."""
    things = (
        Thing("red", "square", 0.14, 0.25, 0.5, None, 0.0, 0, SECONDS),
        Thing("blue", "circle", 0.14, 0.75, 0.5, None, 0.0, 0, SECONDS),
    )
    film = Film(1, "seeds", (Scene(0, SECONDS, "still", "clouds", 1, things),))
    frames = tuple(Frame("s", at, float(at), picture(film, at, 96)) for at in range(SECONDS))
    return Clip("s", 0.0, float(SECONDS), frames)


def test_windows_hold_neighbours_and_go_row_by_row():
    patches = torch.arange(16.0).view(1, 16, 1)
    found = windows(patches)[0, :, :, 0]
    assert found.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_a_frame_has_36_keys_beside_its_own(embedder, clip):
    eye = TokenKeys(embedder)
    whole, parts = eye(clip)
    assert eye.per_frame == 36
    assert parts.shape == (SECONDS, 36, 128)
    assert np.linalg.norm(parts, axis=2) == pytest.approx(1, abs=1e-5)
    assert whole == pytest.approx(embedder.embed_clip(clip), abs=1e-6)


def test_a_thing_is_found_where_it_is(embedder, clip):
    _, parts = TokenKeys(embedder)(clip)
    columns = {
        name: (parts[0] @ embedder.embed_text(name)).reshape(6, 6).max(0)
        for name in ("red square", "blue circle")
    }
    assert columns["red square"].argmax() < 3 <= columns["blue circle"].argmax()


@torch.no_grad()
def test_the_windows_weighted_by_the_attention_on_each_add_up_to_the_picture(embedder, clip):
    vision = embedder.network.vision_model
    seen = []
    hook = vision.post_layernorm.register_forward_hook(lambda *step: seen.append(step[2]))
    whole = embedder.embed_clip(clip)
    hook.remove()
    patches, head = seen[0][:1], vision.head
    heads, width = head.attention.num_heads, patches.shape[-1]
    among = windows(patches)[0]

    def pooled_by_head(keys):
        """(n, heads, width / heads) what each head pools, and how it weighs the keys."""
        probe = head.probe.expand(len(keys), -1, -1)
        z, weights = head.attention(probe, keys, keys, average_attn_weights=False)
        value = torch.nn.functional.linear(
            keys, head.attention.in_proj_weight[-width:], head.attention.in_proj_bias[-width:]
        ).view(*keys.shape[:2], heads, -1)
        found = torch.einsum("nhp,nphd->nhd", weights[:, :, 0], value)
        # So much for the formula: it is what the head does.
        assert torch.allclose(head.attention.out_proj(found.flatten(1)), z[:, 0], atol=1e-5)
        return found, weights[:, :, 0]

    parts, _ = pooled_by_head(among)
    _, weights = pooled_by_head(patches)
    mass = windows(weights[0].T[None])[0].sum(1)
    z = head.attention.out_proj((mass[:, :, None] * parts).sum(0).flatten())
    key = z + head.mlp(head.layernorm(z))
    assert torch.nn.functional.normalize(key, dim=0).numpy() == pytest.approx(whole[0], abs=1e-5)
    assert mass.sum(0).numpy() == pytest.approx(1, abs=1e-5)


def test_another_embedder_is_refused_in_words():
    with pytest.raises(BadOption, match=r"found object; set embedder\.name=siglip"):
        TokenKeys(object())
