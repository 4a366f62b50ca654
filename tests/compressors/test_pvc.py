from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from streamvlm.compressors.pvc import PVC
from streamvlm.compressors.uniform import Uniform


def turned(degrees: list[list[float]]):
    """(T·places, 2) unit vectors at these angles."""
    angles = torch.tensor(degrees).flatten() * math.pi / 180
    return torch.stack((angles.cos(), angles.sin()), 1)


def per_step(tokens) -> list[int]:
    return tokens.position[:, 0].bincount(minlength=tokens.grid[0]).tolist()


def places(tokens) -> list[int]:
    return (tokens.flat_index % (tokens.grid[1] * tokens.grid[2])).tolist()


def camera(clip, grid, *, noise: float, seconds: int = 0, width: int = 64):
    """A still scene whose every picture has its own noise; `seconds` is the number of the clip."""
    scene = clip((1, *grid[1:]), width=width, seed=77).features.repeat(grid[0], 1)
    return replace(
        clip(grid, width=width, seed=seconds),
        features=scene + noise * clip(grid, width=width, seed=1000 + seconds).features,
    )


def test_a_case_by_hand(clip):
    # Two tokens a step. The order of the places is 0 3 1 2 (Bayer); so 0 and 3 are sent first.
    # In step 1 nothing moves: 1 and 2. In step 2 all is sent: none. In step 3 two places turn, and
    # four tokens are allowed that were not used.
    degrees = [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [90, 0, 0, 30]]
    tokens = replace(clip((4, 2, 2), width=2), features=turned(degrees))
    assert PVC(keep=0.5)(tokens).flat_index.tolist() == [0, 3, 5, 6, 12, 15]
    # One a step: the fourth place would still be missing, but what turned most comes first.
    assert PVC(keep=0.25)(tokens).flat_index.tolist() == [0, 7, 9, 12]


def test_a_still_scene_gains_detail_until_all_of_it_is_sent(clip):
    tokens = camera(clip, (32, 4, 4), noise=0)
    out = PVC(keep=0.25)(tokens)
    assert per_step(out) == [4, 4, 4, 4] + [0] * 28
    assert sorted(places(out)) == list(range(16))
    # Each part of it covers the picture evenly: the first four have one in each quarter.
    rows, columns = out.position[:4, 1] // 2, out.position[:4, 2] // 2
    assert sorted((rows * 2 + columns).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["noise", "scenes", "still"])
def test_no_step_depends_on_a_later_one(clip, kind):
    tokens = clip((17, 5, 7), kind)
    previous = PVC(keep=0.2)(clip((5, 5, 7), kind, seed=9))
    whole = PVC(keep=0.2)(tokens, previous)
    for steps in (1, 2, 7, 16):
        part = tokens.select(tokens.position[:, 0] < steps)
        expected = whole.flat_index[whole.position[:, 0] < steps]
        out = PVC(keep=0.2)(replace(part, grid=(steps, 5, 7)), previous)
        assert torch.equal(out.flat_index, expected)


@pytest.mark.parametrize("keep", [0.02, 0.1, 0.37, 0.8])
def test_the_budget_holds_after_every_step(clip, keep):
    for kind in ("noise", "scenes", "still"):
        spent = torch.tensor(per_step(PVC(keep=keep)(clip((33, 5, 7), kind)))).cumsum(0)
        for step in range(33):
            assert spent[step] <= max(1, round(keep * 35 * (step + 1)))


def test_where_everything_moves_the_whole_budget_is_used(clip):
    tokens = clip((16, 5, 7), "noise", width=64)
    assert len(PVC(keep=0.3)(tokens)) == round(0.3 * 560)
    # And no place is forgotten, although those once sent are new each time.
    assert set(places(PVC(keep=0.3)(tokens))) == set(range(35))


def test_what_still_steps_leave_is_spent_when_something_happens(clip):
    before, after = camera(clip, (16, 4, 4), noise=0), clip((1, 4, 4), width=64, seed=5)
    tokens = replace(
        clip((17, 4, 4), width=64), features=torch.cat([before.features, after.features])
    )
    assert per_step(PVC(keep=0.25)(tokens)) == [4] * 4 + [0] * 12 + [16]


def test_what_the_clip_before_sent_is_not_sent_again(clip):
    compress = PVC(keep=0.25)
    first = compress(camera(clip, (2, 4, 4), noise=0))
    second = compress(camera(clip, (2, 4, 4), noise=0), first)
    assert sorted(places(first) + places(second)) == list(range(16))
    # Only the clip right before counts, and each clip has at least one token.
    third = compress(camera(clip, (2, 4, 4), noise=0), second)
    assert sorted(places(third)) == sorted(places(first))
    everything = compress(camera(clip, (8, 4, 4), noise=0))
    assert per_step(compress(camera(clip, (8, 4, 4), noise=0), everything)) == [1] + [0] * 7


def test_the_last_that_the_clip_before_sent_of_a_place_counts(clip):
    still = replace(clip((1, 1, 2), width=2), features=turned([[90, 0]]))
    before = replace(clip((2, 1, 2), width=2), features=turned([[0, 0], [90, 0]]))
    assert PVC(keep=0.5)(still, before).position[:, 2].tolist() == [0]
    turned_back = replace(still, features=turned([[0, 0]]))
    moved = replace(before, features=turned([[0, 0], [0, 90]]))
    assert PVC(keep=0.5)(turned_back, moved).position[:, 2].tolist() == [1]


def test_a_clip_of_another_size_or_model_before_is_nothing(clip):
    tokens = camera(clip, (4, 4, 4), noise=0)
    alone = PVC(keep=0.25)(tokens).flat_index
    same = PVC(keep=0.25)(tokens)
    others = (
        replace(same, model="another"),
        PVC(keep=0.25)(clip((4, 3, 3), width=64)),
        PVC(keep=0.25)(clip((4, 4, 4), width=16)),
    )
    for previous in others:
        assert torch.equal(PVC(keep=0.25)(tokens, previous).flat_index, alone)
    assert not torch.equal(PVC(keep=0.25)(tokens, same).flat_index, alone)


@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_a_still_camera_stores_a_tenth_of_uniform_within_an_hour(clip, noise):
    """3600 pictures in clips of 128, each with noise of its own."""
    compress, previous, stored, even = PVC(keep=0.1), None, 0, 0
    for number in range(28):
        tokens = camera(clip, (128, 4, 4), noise=noise, seconds=number)
        previous = compress(tokens, previous)
        stored, even = stored + len(previous), even + len(Uniform(keep=0.1)(tokens))
        assert len(previous) <= 16 + 2  # about one picture a clip
    assert stored * 10 <= even


def test_something_that_happens_in_the_noise_is_seen_at_once(clip):
    tokens = camera(clip, (20, 4, 4), noise=0.2)
    visitor = clip((1, 1, 1), width=64, seed=3).features
    features = tokens.features.clone()
    at = 12 * 16 + 6
    features[at] = visitor
    out = PVC(keep=0.25)(replace(tokens, features=features))
    assert at in out.flat_index
    assert at + 16 in out.flat_index  # and that it is gone


def test_movement_is_seen_where_nothing_was_sent_yet(clip):
    # One token a step; place 3 is the last in the order of places, and turns in step 1.
    degrees = [[0, 0, 0, 0], [0, 0, 90, 0], [0, 0, 90, 0]]
    tokens = replace(clip((3, 2, 2), width=2), features=turned(degrees))
    assert PVC(keep=0.25)(tokens).flat_index.tolist() == [0, 6, 11]


def test_slow_drift_is_sent_again_once_it_has_come_far_enough(clip):
    # A degree a step is 0.00015, never a change to the step before; 0.05 is reached at 18.2.
    tokens = replace(clip((40, 1, 1), width=2), features=turned([[d] for d in range(40)]))
    assert PVC(keep=0.5)(tokens).position[:, 0].tolist() == [0, 19, 38]


def test_a_repeated_picture_says_nothing_of_the_noise(clip):
    tokens = camera(clip, (30, 4, 4), noise=0.3)
    steps = torch.arange(30) // 2 * 2  # every picture twice
    doubled = tokens.features.view(30, 16, -1)[steps].flatten(0, 1)
    assert len(PVC(keep=0.25)(replace(tokens, features=doubled))) == 16


def test_whole_steps_and_steps_with_holes_are_treated_alike(clip):
    """A last column whose tokens another compressor dropped changes nothing for the others."""
    left = camera(clip, (9, 4, 4), noise=0.1)
    wide = clip((9, 8, 8), width=64)
    features = wide.features.clone().view(9, 8, 8, 64)
    features[:, :4, :4] = left.features.view(9, 4, 4, 64)
    wide = replace(wide, features=features.flatten(0, 2))
    holes = wide.select((wide.position[:, 1] < 4) & (wide.position[:, 2] < 4))
    assert torch.equal(PVC(keep=0.25)(holes).position, PVC(keep=0.25)(left).position)


def test_a_threshold_out_of_range_is_refused():
    with pytest.raises(ValueError, match="threshold must be"):
        PVC(threshold=0)


def test_golden(clip):
    tokens = clip((8, 3, 4), "scenes", seed=3)
    assert PVC(keep=0.25)(tokens).flat_index.tolist() == GOLDEN


GOLDEN = [
    0,
    2,
    10,
    14,
    17,
    20,
    25,
    26,
    31,
    38,
    39,
    47,
    50,
    54,
    57,
    62,
    64,
    74,
    75,
    78,
    79,
    84,
    88,
    94,
]


def test_a_clip_that_begins_with_what_was_sent_is_not_free_of_noise_for_that(clip):
    # Its first step is what the clip before sent; all others flicker by more than the least change.
    dense = clip((8, 5, 7), "still", width=64)
    look = dense.features.view(8, 35, 64)
    noisy = look[:1] + 2 * torch.cat((torch.zeros_like(look[:1]), look[1:] - look.mean(0)))
    first = replace(dense, features=look[:1].expand(8, 35, 64).reshape(-1, 64))
    then = replace(dense, features=noisy.reshape(-1, 64))
    previous = PVC(keep=0.5)(first)
    assert len(previous) == 35
    assert len(PVC(keep=0.5)(then, previous)) < 35
