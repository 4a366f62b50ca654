from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cosine_similarity

from streamvlm.compressors import _holitom
from streamvlm.compressors.holitom import HoliTom
from streamvlm.errors import BadOption, ConfigError
from streamvlm.types import VisualTokens

CUES = HoliTom.needs


def official_by_loops(tokens: VisualTokens, method: HoliTom) -> tuple[list[int], torch.Tensor]:
    """The published algorithm, one place at a time, in float64: indices and features."""
    steps, rows, columns = tokens.grid
    places = rows * columns
    x = tokens.features.double().view(steps, places, -1)
    attention = tokens.cues["attention"].view(steps, places)
    same = [
        (cosine_similarity(x[t], x[t + 1], dim=-1) > method.threshold).tolist()
        for t in range(steps - 1)
    ]

    def static_places(start: int, last: int) -> list[int]:
        return [n for n in range(places) if all(same[t][n] for t in range(start, last))]

    best, start_of = [0], []
    for last in range(steps):
        best.append(best[last])
        start_of.append(last)
        for width in range(2, min(last + 1, method.longest) + 1):
            start = last + 1 - width
            gain = len(static_places(start, last)) * (width - 1)
            if best[start] + gain > best[last + 1]:
                best[last + 1], start_of[last] = best[start] + gain, start
    ratio = min(method.keep / ((steps * places - best[steps]) / (steps * places)), 1)

    windows, end = [], steps
    while end:
        windows.insert(0, (start_of[end - 1], end))
        end = start_of[end - 1]
    dice = torch.Generator().manual_seed(0)
    result = {}
    for start, end in windows:
        static = static_places(start, end - 1) if end - start > 1 else []
        others = [n for n in range(places) if n not in static]
        for t in range(start, end):
            order = sorted(others, key=lambda n: -attention[t, n])
            for n in order[: math.ceil(len(others) * ratio)]:
                result[t * places + n] = x[t, n]
        if count := round(len(static) * ratio):
            means = x[start:end, static].mean(0)
            noise = torch.rand(len(static), generator=dice) * 1e-6
            heads = peaks(means, noise, count, min(7, count))
            members = [[] for _ in heads]
            for i, one in enumerate(means):
                if i not in heads:
                    members[int((one - means[heads]).norm(dim=1).argmin())].append(one)
            for i, joined in zip(heads, members, strict=True):
                own = method.mix if joined else 1
                mean = torch.stack(joined or [means[i]]).mean(0)
                result[start * places + static[i]] = own * means[i] + (1 - own) * mean
    return sorted(result), torch.stack([result[index] for index in sorted(result)])


def peaks(points: torch.Tensor, noise: torch.Tensor, count: int, neighbours: int) -> list[int]:
    """The best cluster centres, in index order."""
    distance = ((points[:, None] - points).norm(dim=-1) / points.shape[1] ** 0.5).tolist()
    near = [sum(d * d for d in sorted(row)[:neighbours]) / neighbours for row in distance]
    density = [math.exp(-mean) + float(extra) for mean, extra in zip(near, noise, strict=True)]
    farthest = max(max(row) for row in distance)
    score = []
    for row, own in zip(distance, density, strict=True):
        denser = [d for d, other in zip(row, density, strict=True) if other > own]
        score.append(own * min(denser, default=farthest))
    return sorted(sorted(range(len(points)), key=lambda i: -score[i])[:count])


@pytest.mark.parametrize("kind", ["noise", "scenes", "still"])
@pytest.mark.parametrize(
    ("steps", "options"),
    [
        (8, {"keep": 0.1}),
        (9, {"keep": 0.15, "threshold": 0.85}),
        (32, {"keep": 0.1, "mix": 0.2}),
        (33, {"keep": 0.3, "threshold": 0.9, "longest": 4}),
        (33, {"keep": 0.9}),
    ],
)
def test_official_equals_the_published_algorithm_by_loops(clip, kind, steps, options):
    tokens = clip((steps, 4, 6), kind, cues=CUES)
    method = HoliTom(**options, compat="official")
    indices, features = official_by_loops(tokens, method)
    out = method(tokens)
    assert out.flat_index.tolist() == indices
    torch.testing.assert_close(out.features.double(), features, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["noise", "scenes"])
def test_official_equals_the_published_algorithm_on_a_long_clip(clip, kind):
    tokens = clip((128, 3, 4), kind, cues=CUES)
    method = HoliTom(keep=0.2, compat="official")
    indices, features = official_by_loops(tokens, method)
    out = method(tokens)
    assert out.flat_index.tolist() == indices
    torch.testing.assert_close(out.features.double(), features, atol=1e-5, rtol=0)


def tiny(clip, degrees: list[list[float]]) -> VisualTokens:
    """(T, places) angles as unit vectors; attention is higher at later places."""
    angles = torch.tensor(degrees) * math.pi / 180
    tokens = clip((*angles.shape, 1), width=2, cues=CUES)
    features = torch.stack((angles.cos(), angles.sin()), -1).flatten(0, 1)
    attention = torch.arange(angles.shape[1]).float().repeat(len(angles))
    return replace(tokens, features=features, cues={"attention": attention})


def test_a_case_computed_by_hand(clip):
    # Steps 0–2: places 0, 1, 2 do not turn, place 3 does; at step 3 everything turns by 90 degrees
    # and then stays. Merging saves 3·2 tokens in steps 0–2 and 4·1 in steps 3–4. The 10 of 20 that
    # are left fit the budget, so that all stay, each static place by itself.
    tokens = tiny(clip, [[0, 0, 40, 0], [0, 0, 40, 90], [0, 0, 40, 180], [90] * 4, [90] * 4])
    out = HoliTom(keep=0.5)(tokens)
    assert len(out) == 10
    assert out.flat_index.tolist() == [0, 1, 2, 3, 7, 11, 12, 13, 14, 15]
    assert out.weight.tolist() == [3, 3, 3, 1, 1, 1, 2, 2, 2, 2]
    # One cluster of three static places: the densest is place 0 (place 1 ties and is later); it
    # becomes 0.6·itself + 0.4·(mean of 0, 0, 40 degrees over three steps).
    first = tokens.select(tokens.position[:, 0] < 3)
    first = replace(first, grid=(3, 4, 1))
    out = HoliTom(keep=1 / 12)(first)
    assert out.flat_index.tolist() == [0]
    assert out.weight.tolist() == [9]
    turned = torch.tensor([2 + math.cos(math.radians(40)), math.sin(math.radians(40))]) / 3
    torch.testing.assert_close(out.features[0], 0.6 * torch.tensor([1.0, 0]) + 0.4 * turned)


def test_windows_save_the_most_tokens():
    # Two places: one static throughout, one static in transitions 0→1 and 2→3 only. One window of
    # four steps saves 3; two of two steps save 2·1 each, 4 in all.
    runs = torch.tensor([[0, 0], [1, 1], [2, 0], [3, 1]])
    assert _holitom.cut(runs, 1024) == ([0, 2], [2, 2])
    # Only the first place: one window; of windows that are allowed, the last is the shortest.
    assert _holitom.cut(runs[:, :1], 1024) == ([0], [1])
    assert _holitom.cut(runs[:, :1], 3) == ([0, 3], [1, 0])
    # Nothing static: every step by itself.
    assert _holitom.cut(runs[:, :1] * 0, 1024) == ([0, 1, 2, 3], [0, 0, 0, 0])


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 9, 33])
@pytest.mark.parametrize("keep", [0.02, 0.05, 0.1, 0.46])
def test_the_budget_is_met_exactly_where_little_is_static(clip, steps, keep):
    tokens = clip((steps, 5, 7), "noise", cues=CUES)
    assert len(HoliTom(keep=keep)(tokens)) == max(1, round(keep * len(tokens)))


def test_the_budget_is_met_exactly_where_merging_leaves_enough(clip):
    for keep in (0.02, 0.1, 0.15):
        tokens = clip((33, 5, 7), "scenes", cues=CUES)
        assert len(HoliTom(keep=keep)(tokens)) == round(keep * len(tokens))


def test_a_frozen_clip_gives_at_most_one_frame(clip):
    frame = clip((1, 5, 7)).features
    tokens = replace(clip((32, 5, 7), cues=CUES), features=frame.repeat(32, 1))
    out = HoliTom(keep=0.5)(tokens)
    assert out.flat_index.tolist() == list(range(35))
    torch.testing.assert_close(out.features, frame)
    assert (out.weight == 32).all()
    assert len(HoliTom(keep=0.01)(tokens)) == 11


def test_a_place_that_no_other_joins_is_the_mean_over_its_window(clip):
    tokens = clip((4, 5, 7), "still", width=64, cues=CUES)
    out = HoliTom(keep=0.9, threshold=-1)(tokens)
    torch.testing.assert_close(out.features, tokens.features.view(4, 35, 64).mean(0))


def test_others_kept_are_those_attended_most_in_their_step(clip):
    tokens = clip((33, 5, 7), "noise", cues=CUES)
    out = HoliTom(keep=0.2)(tokens)
    attention = tokens.cues["attention"].view(33, 35)
    for step in range(33):
        mine = out.position[:, 0] == step
        best = attention[step].topk(int(mine.sum())).indices.sort().values
        assert torch.equal(out.flat_index[mine] - step * 35, best)
    assert torch.equal(out.features, tokens.features[out.flat_index])


def test_the_head_counts_mix_beside_the_mean_of_all(clip):
    tokens = clip((6, 5, 7), "still", width=64, cues=CUES)
    tokens = replace(tokens, deepstack=torch.eye(len(tokens))[:, None])
    for mix in (0, 0.3, 1):
        out = HoliTom(keep=0.02, threshold=-1, mix=mix)(tokens)
        share, rows = out.deepstack[:, 0], torch.arange(len(out))
        merged = out.weight > 6  # several places
        assert merged.any()
        expected = mix + (1 - mix) / out.weight
        torch.testing.assert_close(share[rows, out.flat_index][merged], expected[merged])


def test_merged_tokens_sit_at_the_first_step_of_their_window(clip):
    # Scenes of 6 steps.
    tokens = clip((18, 5, 7), "scenes", width=64, cues=CUES)
    out = HoliTom(keep=0.1)(tokens)
    assert out.position[out.weight > 1, 0].unique().tolist() == [0, 6, 12]


def test_every_source_token_that_is_merged_counts_by_its_weight(clip):
    tokens = clip((6, 5, 7), "still", width=64, cues=CUES)
    tokens = replace(tokens, weight=torch.arange(len(tokens)) % 3 + 1.0)
    out = HoliTom(keep=0.1, threshold=-1, mix=0)(tokens)
    torch.testing.assert_close(out.weight.sum(), tokens.weight.sum())
    total = tokens.weight @ tokens.features
    torch.testing.assert_close(out.weight @ out.features, total, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("compat", ["fixed", "official"])
def test_weights_of_a_still_clip_sum_to_all_of_it(clip, compat):
    tokens = clip((6, 5, 7), "still", width=64, cues=CUES)
    out = HoliTom(keep=0.05, threshold=-1, compat=compat)(tokens)
    assert out.weight.sum() == len(tokens)


def test_a_place_that_misses_a_step_is_not_static_there(clip):
    tokens = tiny(clip, [[0, 0], [0, 0], [0, 0]])
    left = tokens.select(torch.tensor([0, 1, 2, 4, 5]))  # the second place lacks step 1
    out = HoliTom(keep=0.9)(left)
    assert out.flat_index.tolist() == [0, 1, 5]
    assert out.weight.tolist() == [3, 1, 1]
    # Where the step is empty altogether, its neighbours are compared.
    out = HoliTom(keep=0.75)(tokens.select(torch.tensor([0, 1, 4, 5])))
    assert out.flat_index.tolist() == [0, 1]


def test_half_precision_chooses_nearly_the_same_tokens(clip):
    full = HoliTom(keep=0.1)(clip((33, 6, 6), "scenes", width=64, cues=CUES))
    half = HoliTom(keep=0.1)(clip((33, 6, 6), "scenes", width=64, cues=CUES, dtype=torch.float16))
    assert torch.isin(full.flat_index, half.flat_index).float().mean() >= 0.99


def test_official_is_refused_for_compressed_tokens(clip):
    tokens = clip((16, 5, 7), "scenes", cues=CUES).select(torch.arange(500))
    with pytest.raises(BadOption, match="dense tokens"):
        HoliTom(compat="official")(tokens)


def test_a_missing_cue_is_named(clip):
    with pytest.raises(ConfigError, match="'attention'"):
        HoliTom()(clip())


@pytest.mark.parametrize("options", [{"mix": 2}, {"longest": 0}, {"compat": "letter"}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        HoliTom(**options)


def test_golden_tokens_of_a_seeded_clip(clip):
    out = HoliTom(keep=0.05)(clip((9, 5, 7), "scenes", cues=CUES))
    assert out.flat_index[:9].tolist() == [0, 8, 10, 14, 15, 26, 114, 210, 221]
    assert out.flat_index[9:].tolist() == [227, 234, 238, 243, 244, 259, 304]
    assert out.weight.tolist() == [6, 30, 66, 36, 36, 24, 1, 12, 21, 12, 1, 9, 15, 27, 1, 1]
    golden = torch.tensor(
        [[-1.1023, -1.0614, -0.3741], [-0.8696, -0.5483, -0.8459], [1.0200, -0.5989, -0.0940]]
    )
    torch.testing.assert_close(out.features[:3, :3], golden, atol=1e-4, rtol=0)


def test_official_refuses_a_clip_of_which_it_would_keep_nothing(clip):
    tokens = clip((6, 1, 1), "constant", cues=HoliTom.needs)
    with pytest.raises(BadOption, match="needs at least one token kept"):
        HoliTom(keep=0.02, compat="official")(tokens)
