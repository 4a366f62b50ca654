from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cosine_similarity

from streamvlm.compressors.longvu import LongVU
from streamvlm.errors import BadOption
from streamvlm.types import VisualTokens


def official_by_loops(tokens: VisualTokens, method: LongVU) -> list[int]:
    """The published window cut, one token at a time, in float64."""
    steps, rows, columns = tokens.grid
    places = rows * columns
    x = tokens.features.double().view(steps, places, -1)
    budget = round(method.keep * len(tokens))
    windows = []
    for start in range(0, steps, method.window):
        kept = [start * places + n for n in range(places)]
        for t in range(start + 1, min(start + method.window, steps)):
            similar = [float(cosine_similarity(x[t, n], x[start, n], dim=0)) for n in range(places)]
            kept += [t * places + n for n in range(places) if similar[n] < method.threshold]
        windows.append(kept)
    excess = sum(map(len, windows)) - budget
    if excess > 0:
        cut = excess // len(windows)
        windows = [kept[: max(0, len(kept) - cut)] for kept in windows]
    return [index for kept in windows for index in kept][:budget]


@pytest.mark.parametrize("kind", ["noise", "scenes"])
@pytest.mark.parametrize("steps", [8, 9, 32, 33, 128])
@pytest.mark.parametrize("keep", [0.05, 0.25, 0.8])
def test_official_equals_the_published_algorithm_by_loops(clip, kind, steps, keep):
    tokens = clip((steps, 3, 3), kind)
    method = LongVU(keep=keep, threshold=0.8, compat="official")
    assert method(tokens).flat_index.tolist() == official_by_loops(tokens, method)


def turned(clip, degrees: list[list[float]]) -> VisualTokens:
    """Steps of places at these angles."""
    angle = torch.tensor(degrees).deg2rad()
    features = torch.stack((angle.cos(), angle.sin()), -1).flatten(0, 1)
    return replace(clip((len(degrees), 1, len(degrees[0])), width=2), features=features)


TURNS = [[0, 0, 0, 0], [0, 70, 55, 9], [0, 60, 80, 9], [0, 0, 0, 0], [90, 0, 0, 0], [0, 0, 0, 0]]


def test_a_case_computed_by_hand(clip):
    tokens = turned(clip, TURNS)
    # Windows of 3: of the first, 0–3 are whole, and turned by more than 53 degrees (cos 0.6) are 5,
    # 6, 9 and 10; of the second, 12–15 are whole, and 16 has turned.
    method = LongVU(keep=0.6, window=3)
    # 14 may be kept, 7 of each window: the first wants 8 and gets 4·7/8 = 3.5 first ones, rounded
    # to 4, and 3 others: those turned by 80, 70 and 60 degrees, 55 is left out. The second wants 5.
    assert method(tokens).flat_index.tolist() == [0, 1, 2, 3, 5, 9, 10, 12, 13, 14, 15, 16]
    # Officially 13 ≤ 14 is enough. Of 10 each window loses one off its end, then the clip one.
    official = replace(method, compat="official")
    whole = [0, 1, 2, 3, 5, 6, 9, 10, 12, 13, 14, 15, 16]
    assert official(tokens).flat_index.tolist() == whole
    less = replace(official, keep=10 / 24)(tokens)
    assert less.flat_index.tolist() == [0, 1, 2, 3, 5, 6, 9, 12, 13, 14]


def test_golden(clip):
    tokens = clip((9, 5, 7), "scenes", seed=3)
    method = LongVU(keep=0.06, window=3, threshold=0.85)
    fixed = [2, 8, 14, 20, 26, 32, 72, 108, 115, 122, 129, 136, 159, 212, 218, 224, 230, 236, 242]
    assert method(tokens).flat_index.tolist() == fixed
    official = [*range(7), *range(105, 112), *range(210, 215)]
    assert replace(method, compat="official")(tokens).flat_index.tolist() == official


@pytest.mark.parametrize("compat", ["fixed", "official"])
def test_a_still_window_keeps_its_first_step_only(clip, compat):
    one = clip((1, 3, 3)).features
    tokens = replace(clip((16, 3, 3)), features=one.repeat(16, 1))
    out = LongVU(keep=0.5, compat=compat)(tokens)
    assert out.flat_index.tolist() == [*range(9), *range(72, 81)]


@pytest.mark.parametrize("compat", ["fixed", "official"])
@pytest.mark.parametrize("steps", [1, 2, 7, 8, 9, 33])
def test_the_budget_is_met_exactly_where_all_is_new(clip, compat, steps):
    tokens = clip((steps, 5, 7), "noise")
    for keep in (0.02, 0.1, 0.46, 0.9):
        out = LongVU(keep=keep, threshold=1.1, compat=compat)(tokens)
        assert len(out) == max(1, round(keep * len(tokens)))


def test_the_cut_is_spread_over_the_window(clip):
    tokens = clip((8, 5, 7), "noise")
    steps = LongVU(keep=0.1)(tokens).position[:, 0].unique()
    assert len(steps) >= 6
    official = LongVU(keep=0.1, compat="official")(tokens).position[:, 0].unique()
    assert official.tolist() == [0]


def test_what_differs_most_is_kept(clip):
    tokens = clip((8, 5, 7), "noise")
    out = LongVU(keep=0.5, threshold=2)(tokens)
    similar = cosine_similarity(tokens.features[:35].repeat(8, 1), tokens.features, dim=1)
    is_kept = torch.zeros(280, dtype=torch.bool).index_fill(0, out.flat_index, True)
    assert similar[35:][is_kept[35:]].max() <= similar[35:][~is_kept[35:]].min()


def test_what_a_window_leaves_over_later_ones_may_spend_but_no_earlier_one(clip):
    still, busy = clip((1, 5, 7)).features.repeat(8, 1), clip((8, 5, 7)).features
    for features, sizes in (((still, busy), [35, 105]), ((busy, still), [70, 35])):
        tokens = replace(clip((16, 5, 7)), features=torch.cat(features))
        out = LongVU(keep=0.25, threshold=0.99)(tokens)
        assert (out.position[:, 0] // 8).bincount().tolist() == sizes


def test_a_window_does_not_depend_on_later_ones_but_for_the_budget(clip):
    tokens, other = (clip((32, 5, 7), "noise", seed=seed) for seed in (1, 2))
    mixed = replace(tokens, features=torch.cat((tokens.features[:560], other.features[560:])))
    one, two = LongVU(keep=0.3)(tokens), LongVU(keep=0.3)(mixed)
    assert torch.equal(one.flat_index[one.flat_index < 560], two.flat_index[two.flat_index < 560])


def test_after_another_compressor_places_are_compared_with_the_first_that_is_left(clip):
    tokens = turned(clip, TURNS)
    # Places 1 and 2 of step 0 are gone, so tokens 5 (70 degrees) and 6 (55) are first of their
    # places: 9 (60) is like 5, and 10 (80) is like 6.
    left = tokens.select(torch.tensor([0, 3, 4, 5, 6, 8, 9, 10]))
    assert LongVU(keep=0.9, window=3)(left).flat_index.tolist() == [0, 3, 5, 6]


def test_the_dense_case_is_a_special_one_of_the_sparse(clip):
    dense = clip((9, 5, 7), "scenes")
    sparse = replace(dense, grid=(10, 5, 7))
    assert not sparse.is_dense
    method = LongVU(keep=0.3, threshold=0.9)
    assert torch.equal(method(dense).position, method(sparse).position)


def test_official_is_refused_for_compressed_tokens(clip):
    tokens = clip((16, 5, 7), "scenes").select(torch.arange(500))
    with pytest.raises(BadOption, match="dense tokens"):
        LongVU(compat="official")(tokens)


@pytest.mark.parametrize("options", [{"window": 0}, {"compat": "letter"}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        LongVU(**options)
