from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cosine_similarity

from streamvlm.compressors import _prunevid
from streamvlm.compressors.prunevid import PruneVid, _mean_cosines
from streamvlm.errors import BadOption
from streamvlm.types import VisualTokens


def official_by_loops(tokens: VisualTokens, method: PruneVid) -> tuple[list[int], torch.Tensor]:
    """The published algorithm, one place at a time, in float64: indices and features."""
    steps, rows, columns = tokens.grid
    places = rows * columns
    x = tokens.features.double().view(steps, places, -1)
    dice = torch.Generator().manual_seed(0)
    _, labels = clustered(x.mean(1), int(steps * method.segments), dice)
    labels = refined(labels)
    ends = [t for t in range(1, steps) if labels[t] != labels[t - 1]]
    result = {}

    def merge(points: torch.Tensor, where: list[int]) -> None:
        heads, label = list(range(len(points))), list(range(len(points)))
        if len(points) > 14:
            heads, label = clustered(points, int(len(points) * method.clusters), dice)
        for head in heads:
            mine = [i for i in range(len(points)) if label[i] == head]
            result[where[head]] = points[mine].mean(0)

    for start, end in zip([0, *ends], [*ends, steps], strict=True):
        static = []
        for n in range(places if end - start > 1 else 0):
            pairs = cosine_similarity(x[start:end, None, n], x[None, start:end, n], dim=-1)
            length = end - start
            if (pairs.sum() - length) / (length * (length - 1)) > method.threshold:
                static.append(n)
        merge(x[start:end, static].mean(0), [start * places + n for n in static])
        others = [n for n in range(places) if n not in static]
        for t in range(start, end):
            merge(x[t, others], [t * places + n for n in others])
    return sorted(result), torch.stack([result[index] for index in sorted(result)])


def clustered(
    points: torch.Tensor, count: int, dice: torch.Generator
) -> tuple[list[int], list[int]]:
    """The best cluster centres, and the centre of each point."""
    distance = ((points[:, None] - points).norm(dim=-1) / points.shape[1] ** 0.5).tolist()
    near = [sum(d * d for d in sorted(row)[:7]) / 7 for row in distance]
    noise = (torch.rand(len(points), generator=dice) * 1e-6).tolist()
    density = [math.exp(-mean) + extra for mean, extra in zip(near, noise, strict=True)]
    farthest = max(max(row) for row in distance)
    score = []
    for row, own in zip(distance, density, strict=True):
        denser = [d for d, other in zip(row, density, strict=True) if other > own]
        score.append(own * min(denser, default=farthest))
    heads = sorted(range(len(points)), key=lambda i: -score[i])[:count]
    nearest = [min(heads, key=lambda head, row=row: row[head]) for row in distance]
    return heads, [i if i in heads else nearest[i] for i in range(len(points))]


def refined(labels: list[int]) -> list[int]:
    """Only the longest runs of each label, over whose gaps the longer neighbour spreads."""
    runs, start = [], 0
    for end in range(1, len(labels) + 1):
        if end == len(labels) or labels[end] != labels[start]:
            runs.append((start, end))
            start = end
    longest = {}
    for start, end in runs:
        longest[labels[start]] = max(end - start, longest.get(labels[start], 0))
    kept = [r for r in runs if r[1] - r[0] == longest[labels[r[0]]] > 1]
    new = list(labels)
    for start, end in runs:
        if kept and (start, end) not in kept:
            left = [r for r in kept if r[1] <= start][-1:]
            right = [r for r in kept if r[0] >= end][:1]
            winner = max(left + right, key=lambda r: r[1] - r[0])
            new[start:end] = [labels[winner[0]]] * (end - start)
    return new


def check_official(tokens: VisualTokens, method: PruneVid) -> None:
    indices, features = official_by_loops(tokens, method)
    out = method(tokens)
    assert out.flat_index.tolist() == indices
    torch.testing.assert_close(out.features.double(), features, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["noise", "scenes", "still"])
@pytest.mark.parametrize(
    ("steps", "options"),
    [
        (8, {}),
        (9, {"threshold": 0.87}),
        (32, {"segments": 0.1, "threshold": 0.9}),
        (33, {"clusters": 0.3}),
    ],
)
def test_official_equals_the_published_algorithm_by_loops(clip, kind, steps, options):
    check_official(clip((steps, 4, 5), kind), PruneVid(**options, compat="official"))


@pytest.mark.parametrize("kind", ["noise", "scenes"])
def test_official_equals_the_published_algorithm_on_a_long_clip(clip, kind):
    check_official(clip((128, 4, 4), kind), PruneVid(compat="official"))


def test_official_does_not_look_at_keep(clip):
    tokens = clip((33, 5, 7), "noise")
    few, all_of_it = (PruneVid(keep=keep, compat="official")(tokens) for keep in (0.02, 1))
    assert torch.equal(few.features, all_of_it.features)
    assert len(few) == 33 * 17  # ⌊35 / 2⌋ of each step


@pytest.mark.parametrize(
    ("labels", "starts"),
    [
        ([5], [0]),
        ([5, 5, 5], [0]),
        ([0, 0, 1, 1, 2, 2, 2], [0, 2, 4]),
        # The single 1 goes to the longer run beside it, or to the left one of equals.
        ([0, 0, 1, 2, 2, 2], [0, 2]),
        ([0, 0, 0, 1, 2, 2], [0, 4]),
        ([0, 0, 1, 2, 2], [0, 3]),
        # A shorter run of a label that has a longer one is freed too; at an end one side is all.
        ([0, 0, 1, 1, 1, 0, 0, 0], [0, 5]),
        # Runs of equal length are all kept, and meet when what is between them is freed.
        ([0, 0, 1, 0, 0], [0]),
        # Several freed runs in a row go the same way.
        ([0, 0, 1, 2, 1, 3, 3, 3], [0, 2]),
        # Nothing to keep: every step by itself.
        ([0, 1, 0, 2], [0, 1, 2, 3]),
    ],
)
def test_windows_are_the_longest_runs_of_each_cluster(labels, starts):
    assert _prunevid.window_starts(labels) == starts


def turned(clip, degrees: list[list[float]]) -> VisualTokens:
    """(T, places) angles as unit vectors."""
    angles = torch.tensor(degrees) * math.pi / 180
    features = torch.stack((angles.cos(), angles.sin()), -1).flatten(0, 1)
    return replace(clip((*angles.shape, 1), width=2), features=features)


def test_a_case_computed_by_hand(clip):
    # Three steps are one window. Mean cosines over the pairs: place 0 has (1 + 1 + 1)/3, place 1
    # (cos 30 + cos 30 + cos 60)/3 = 0.744, place 2 (cos 30 + cos 30 + 1)/3 = 0.911: 0 and 2 are
    # static at 0.8. With the three tokens of place 1 that makes 5, which are few enough to stay.
    tokens = turned(clip, [[0, 0, 90], [0, 30, 120], [0, 60, 90]])
    out = PruneVid(keep=0.6)(tokens)
    assert out.flat_index.tolist() == [0, 1, 2, 4, 7]
    assert out.weight.tolist() == [3, 1, 3, 1, 1]
    expected = torch.tensor([-math.sin(math.radians(30)) / 3, (2 + math.cos(math.radians(30))) / 3])
    torch.testing.assert_close(out.features[2], expected)
    # Four of them: 2, 1, 1, 1 scaled by 4/5 are 1, 0, 0, 0 and the largest remainders 0.8, 0.8,
    # 0.8, so that the two static places become one, at the first of two equally good ones.
    out = PruneVid(keep=4 / 9)(tokens)
    assert out.flat_index.tolist() == [0, 1, 4, 7]
    assert out.weight.tolist() == [6, 1, 1, 1]


def test_the_pairs_of_a_place_count_and_not_its_neighbouring_steps(clip):
    # Each turns by 20 degrees only, but the first and the last step are 100 degrees apart.
    tokens = turned(clip, [[0], [20], [40], [60], [80], [100]])
    mean = (
        sum(math.cos(math.radians(20 * abs(t - u))) for t in range(6) for u in range(6) if t != u)
        / 30
    )
    above, below = (PruneVid(keep=0.9, threshold=mean + by)(tokens) for by in (-0.01, 0.01))
    assert (len(above), len(below)) == (1, 5)


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 9, 33])
@pytest.mark.parametrize("keep", [0.02, 0.05, 0.1, 0.46])
def test_the_budget_is_met_exactly_where_little_is_alike(clip, steps, keep):
    tokens = clip((steps, 5, 7), "noise")
    assert len(PruneVid(keep=keep)(tokens)) == max(1, round(keep * len(tokens)))


@pytest.mark.parametrize("kind", ["noise", "scenes", "still"])
def test_fixed_equals_official_where_the_budget_allows_it(clip, kind):
    tokens = clip((33, 5, 7), kind)
    fixed, official = PruneVid(keep=0.99)(tokens), PruneVid(compat="official")(tokens)
    assert torch.equal(fixed.position, official.position)
    torch.testing.assert_close(fixed.features, official.features)
    torch.testing.assert_close(fixed.weight, official.weight)


def test_a_frozen_clip_gives_half_a_frame_at_most(clip):
    frame = clip((1, 5, 7)).features
    tokens = replace(clip((32, 5, 7)), features=frame.repeat(32, 1))
    out = PruneVid(keep=0.5)(tokens)
    assert len(out) == 17
    assert out.position[:, 0].unique().tolist() == [0]
    assert len(PruneVid(keep=0.01)(tokens)) == 11


def test_groups_of_at_most_14_stay_as_they_are(clip):
    tokens = clip((8, 2, 7), "noise")
    assert torch.equal(PruneVid(compat="official")(tokens).features, tokens.features)
    tokens = clip((8, 3, 5), "noise")
    assert len(PruneVid(keep=0.9)(tokens)) == len(PruneVid(compat="official")(tokens)) == 8 * 7


def test_noise_is_drawn_window_by_window_where_there_are_clusters():
    dice, again = (torch.Generator().manual_seed(3) for _ in range(2))
    static, others = _prunevid.noise_in_turn(dice, [0, 2], [20, 3], [15, 2, 16])
    first, second, third = (torch.rand(size, generator=again) * 1e-6 for size in (20, 15, 16))
    assert torch.equal(static, torch.cat((first, torch.zeros(3))))
    assert torch.equal(others, torch.cat((second, torch.zeros(2), third)))


def test_clusters_are_plain_means_of_all_that_joined(clip):
    tokens = clip((18, 5, 7), "scenes", width=64)
    tokens = replace(tokens, weight=torch.arange(len(tokens)) % 3 + 1.0)
    out = PruneVid(keep=0.3)(tokens)
    torch.testing.assert_close(out.weight.sum(), tokens.weight.sum())
    total = tokens.weight @ tokens.features
    torch.testing.assert_close(out.weight @ out.features, total, atol=1e-2, rtol=1e-4)


def test_static_tokens_sit_at_the_first_step_of_their_window(clip):
    # One scene for each six steps; a cluster of steps for each scene.
    tokens = clip((18, 5, 7), "scenes", width=64)
    out = PruneVid(keep=0.3, segments=3 / 18)(tokens)
    assert out.position[:, 0].unique().tolist() == [0, 6, 12]


def test_a_static_place_sits_where_its_window_first_shows_it(clip):
    tokens = turned(clip, [[0, 0], [0, 0], [0, 0]])
    out = PruneVid(keep=0.9)(tokens.select(torch.tensor([0, 2, 3, 4, 5])))
    assert out.flat_index.tolist() == [0, 3]
    assert out.weight.tolist() == [3, 2]


def test_a_place_that_a_window_shows_once_is_not_static(clip):
    tokens = turned(clip, [[0, 0], [0, 0], [0, 0]])
    out = PruneVid(keep=0.75)(tokens.select(torch.tensor([0, 2, 4, 5])))
    assert out.flat_index.tolist() == [0, 5]
    assert out.weight.tolist() == [3, 1]
    noise = clip((1, 9, 9)).features
    assert (_mean_cosines(noise, torch.arange(81), 82) == -math.inf).all()


def test_a_large_group_becomes_at_least_one_token(clip):
    assert len(PruneVid(keep=0.5, clusters=0.02)(clip((8, 5, 7), "noise"))) == 8


def test_half_precision_chooses_nearly_the_same_tokens(clip):
    full = PruneVid(keep=0.1)(clip((33, 6, 6), "scenes", width=64))
    half = PruneVid(keep=0.1)(clip((33, 6, 6), "scenes", width=64, dtype=torch.float16))
    assert torch.isin(full.flat_index, half.flat_index).float().mean() >= 0.99


def test_golden_tokens_of_a_seeded_clip(clip):
    out = PruneVid(keep=0.05)(clip((9, 5, 7), "scenes"))
    assert out.flat_index[:9].tolist() == [8, 10, 12, 15, 19, 23, 26, 210, 221]
    assert out.flat_index[9:].tolist() == [224, 227, 238, 243, 244, 269, 304]
    assert out.weight.tolist() == [18, 18, 18, 42, 24, 60, 30, 12, 21, 18, 12, 6, 15, 18, 1, 1]
    golden = torch.tensor(
        [[-0.5733, -0.1239, -0.6052], [0.9112, -1.3087, 0.0753], [-0.3579, 0.2070, -0.1807]]
    )
    torch.testing.assert_close(out.features[:3, :3], golden, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("grid", "options", "reason"),
    [
        ((6, 5, 7), {}, "at least 7 steps"),
        ((8, 5, 7), {"segments": 0.1}, "at least one cluster of steps"),
        ((8, 5, 7), {"clusters": 0.02}, "at least one cluster of each group"),
    ],
)
def test_official_is_refused_where_the_published_code_crashes(clip, grid, options, reason):
    with pytest.raises(BadOption, match=reason):
        PruneVid(**options, compat="official")(clip(grid))


def test_official_is_refused_for_compressed_tokens(clip):
    tokens = clip((16, 5, 7), "scenes").select(torch.arange(500))
    with pytest.raises(BadOption, match="dense tokens"):
        PruneVid(compat="official")(tokens)


@pytest.mark.parametrize("options", [{"segments": 0}, {"clusters": 1.1}, {"compat": "letter"}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        PruneVid(**options)
