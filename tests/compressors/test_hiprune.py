from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from streamvlm.compressors.hiprune import HiPrune
from streamvlm.errors import BadOption, ConfigError
from streamvlm.types import VisualTokens

CUES = HiPrune.needs


def seen(tokens: VisualTokens, seed: int = 7) -> VisualTokens:
    """The same with another attention in the middle layer than in the last."""
    dice = torch.Generator().manual_seed(seed)
    middle = torch.rand(len(tokens), generator=dice)
    return replace(tokens, cues={**tokens.cues, "attention_middle": middle})


def official_by_loops(tokens: VisualTokens, keep: float, alpha: float) -> list[int]:
    """The published algorithm, one token at a time."""
    steps, rows, columns = tokens.grid
    places = rows * columns
    last = tokens.cues["attention"].view(steps, places).tolist()
    middle = tokens.cues["attention_middle"].view(steps, places).tolist()
    budget = int(places * keep)
    kept = []
    for step in range(steps):
        anchors = sorted(range(places), key=lambda n: -middle[step][n])[: round(budget * alpha / 5)]
        chosen = set(anchors)
        for anchor in anchors:
            for offset in (-1, 1, -columns, columns):
                chosen.add(min(max(anchor + offset, 0), places - 1))
        for place in sorted(range(places), key=lambda n: -last[step][n]):
            if len(chosen) < budget:
                chosen.add(place)
        kept += [step * places + place for place in sorted(chosen)]
    return kept


@pytest.mark.parametrize("kind", ["noise", "scenes"])
@pytest.mark.parametrize("steps", [8, 9, 32, 33, 128])
@pytest.mark.parametrize(("keep", "alpha"), [(0.25, 0.1), (0.5, 0.3), (0.4, 1.0)])
def test_official_equals_the_published_algorithm_by_loops(clip, kind, steps, keep, alpha):
    tokens = seen(clip((steps, 5, 8), kind, cues=CUES))
    out = HiPrune(keep=keep, anchors=alpha, compat="official")(tokens)
    assert out.flat_index.tolist() == official_by_loops(tokens, keep, alpha)
    assert torch.equal(out.features, tokens.features[out.flat_index])


def corner(clip) -> VisualTokens:
    """Three rows of four places; a middle layer looks at the last place of the first row."""
    tokens = clip((1, 3, 4))
    middle = torch.zeros(12).index_fill(0, torch.tensor([3]), 1)
    return replace(tokens, cues={"attention": torch.arange(12.0), "attention_middle": middle})


def test_a_case_computed_by_hand(clip):
    # 6 of 12, one anchor: place 3, whose neighbours are 2 and 7. Registers: 11, 10, 9.
    out = HiPrune(keep=0.5, anchors=5 / 6)(corner(clip))
    assert out.flat_index.tolist() == [2, 3, 7, 9, 10, 11]


def test_official_neighbours_wrap_round_rows_and_are_held_in_the_frame(clip):
    # 3 + 1 is the start of the next row, and 3 − 4 is held at 0: one register is left, 11.
    out = HiPrune(keep=0.5, anchors=5 / 6, compat="official")(corner(clip))
    assert out.flat_index.tolist() == [0, 2, 3, 4, 7, 11]


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 9, 33])
@pytest.mark.parametrize("keep", [0.01, 0.05, 0.1, 0.46, 0.8, 0.99])
@pytest.mark.parametrize("anchors", [0, 0.1, 1])
def test_the_budget_is_met_exactly(clip, steps, keep, anchors):
    tokens = seen(clip((steps, 5, 7), cues=CUES))
    out = HiPrune(keep=keep, anchors=anchors)(tokens)
    assert len(out) == max(1, round(keep * len(tokens)))


def test_a_small_budget_has_anchors_in_some_steps(clip):
    # 9 tokens in each of 20 steps: a tenth of 180, in fives, are 4 anchors, and no step has two.
    tokens = clip((20, 6, 6), cues=CUES)
    place = tokens.flat_index % 36
    cues = {"attention": place.float(), "attention_middle": -(place - 8.0).abs()}
    out = HiPrune(keep=0.25)(replace(tokens, cues=cues))
    at = out.position[out.flat_index % 36 == 8, 0].tolist()
    assert len(at) == 4
    crosses = [(out.position[:, 0] == step).nonzero().flatten().tolist() for step in at]
    for rows in crosses:
        assert (out.flat_index[rows] % 36).tolist() == [2, 7, 8, 9, 14, 32, 33, 34, 35]


def test_a_token_near_two_anchors_counts_once(clip):
    # Anchors 1 and 2 of a row of 10, the budget 8: 0, 1, 2, 3 and four registers.
    tokens = clip((1, 1, 10), cues=CUES)
    middle = torch.tensor([0, 9, 8, 0, 0, 0, 0, 0, 0, 0.0])
    tokens = replace(tokens, cues={"attention": torch.arange(10.0), "attention_middle": middle})
    out = HiPrune(keep=0.8, anchors=1)(tokens)
    assert out.flat_index.tolist() == [0, 1, 2, 3, 6, 7, 8, 9]


def centre(clip) -> VisualTokens:
    """Nine tokens, of which a middle layer looks at the middle one, and the last layer never."""
    tokens = clip((1, 3, 3), cues=CUES)
    middle = torch.zeros(9).index_fill(0, torch.tensor([4]), 1)
    last = torch.arange(9.0) * (1 - middle)
    return replace(tokens, cues={"attention": last, "attention_middle": middle})


def test_without_room_for_all_buffers_those_most_attended_come_first(clip):
    assert HiPrune(keep=3 / 9, anchors=1)(centre(clip)).flat_index.tolist() == [4, 5, 7]


def test_neighbours_that_were_dropped_before_are_not_replaced(clip):
    # Without 1 and 5 the middle one has two neighbours left; registers are 8 and 6.
    left = centre(clip).select(torch.tensor([0, 2, 3, 4, 6, 7, 8]))
    assert HiPrune(keep=5 / 7, anchors=1)(left).flat_index.tolist() == [3, 4, 6, 7, 8]


def test_neighbours_are_of_the_same_frame(clip):
    tokens = clip((2, 2, 2), cues=CUES)
    middle = torch.tensor([0, 0, 0, 9, 9, 0, 0, 0.0])
    tokens = replace(tokens, cues={"attention": torch.zeros(8), "attention_middle": middle})
    assert HiPrune(keep=6 / 8, anchors=1)(tokens).flat_index.tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("keep", [0.1, 0.25, 0.6])
def test_without_anchors_the_last_layer_alone_decides(clip, keep):
    tokens = seen(clip((9, 5, 7), "scenes", cues=CUES))
    out = HiPrune(keep=keep, anchors=0)(tokens)
    for step in range(9):
        mine = out.flat_index[out.position[:, 0] == step] - step * 35
        attention = tokens.cues["attention"][step * 35 : (step + 1) * 35]
        assert torch.equal(mine, attention.topk(len(mine)).indices.sort().values)


def test_equal_attention_goes_to_the_earlier_token(clip):
    tokens = clip((1, 1, 20), "constant", cues=CUES)
    # One anchor, place 0, and its neighbour 1; the first of the others are registers.
    assert HiPrune(keep=0.2, anchors=1)(tokens).flat_index.tolist() == [0, 1, 2, 3]


def test_golden_numbers(clip):
    tokens = seen(clip((3, 4, 5), "scenes", cues=CUES))
    fixed = HiPrune(keep=0.3, anchors=0.6)(tokens)
    official = HiPrune(keep=0.3, anchors=0.6, compat="official")(tokens)
    chosen = [9, 13, 14, 17, 18, 19, 26, 29, 31, 35, 36, 38, 43, 47, 51, 52, 53, 57]
    assert fixed.flat_index.tolist() == chosen
    chosen[6:12] = [30, 31, 34, 35, 36, 39]
    assert official.flat_index.tolist() == chosen


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"keep": 0.02}, "at least one token kept"),
        ({"keep": 3 / 35, "anchors": 1}, "room for the neighbours"),
    ],
)
def test_official_is_refused_where_the_published_code_crashes(clip, options, reason):
    with pytest.raises(BadOption, match=reason):
        HiPrune(**options, compat="official")(clip((8, 5, 7), cues=CUES))


def test_official_is_refused_for_compressed_tokens(clip):
    tokens = clip((16, 5, 7), cues=CUES).select(torch.arange(500))
    with pytest.raises(BadOption, match="dense tokens"):
        HiPrune(compat="official")(tokens)


@pytest.mark.parametrize("missing", sorted(CUES))
def test_a_missing_cue_is_named(clip, missing):
    with pytest.raises(ConfigError, match=f"'{missing}'"):
        HiPrune()(clip(cues=CUES - {missing}))


@pytest.mark.parametrize("options", [{"anchors": -0.1}, {"anchors": 1.1}, {"compat": "letter"}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        HiPrune(**options)
