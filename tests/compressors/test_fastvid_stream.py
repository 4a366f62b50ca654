from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from streamvlm.compressors import _fastvid_causal
from streamvlm.compressors.fastvid_stream import RECENT, UNSEEN, FastVIDStream
from streamvlm.errors import ConfigError
from streamvlm.types import VisualTokens

CUES = FastVIDStream.needs


def turning(clip, turns: list[float], kind: str = "noise") -> VisualTokens:
    """A clip whose frame vectors turn by so much from step to step, in radians."""
    tokens = clip((len(turns) + 1, 5, 7), kind, cues=CUES)
    angle = torch.tensor([0, *turns]).cumsum(0)
    vectors = torch.stack((angle.cos(), angle.sin()), 1)
    return replace(tokens, frame_cues={"frame_vector": vectors})


def frozen(clip, steps: int) -> VisualTokens:
    return turning(clip, [0] * (steps - 1), "still")


def first_steps(tokens: VisualTokens, steps: int) -> VisualTokens:
    """The same clip, had it ended sooner."""
    chosen = tokens.select(tokens.position[:, 0] < steps)
    cues = {name: cue[:steps] for name, cue in tokens.frame_cues.items()}
    return replace(chosen, grid=(steps, *tokens.grid[1:]), frame_cues=cues)


def merged_steps(out: VisualTokens) -> list[int]:
    return out.position[out.weight > 1, 0].unique().tolist()


def starts_of_segments(out: VisualTokens) -> list[int]:
    """If the first step of a segment alone is an anchor."""
    return merged_steps(out)


@pytest.mark.parametrize("kind", ["noise", "scenes", "still"])
@pytest.mark.parametrize("keep", [0.1, 0.25, 0.8])
def test_what_a_segment_becomes_does_not_depend_on_what_follows(clip, kind, keep):
    tokens = clip((33, 5, 7), kind, cues=CUES)
    method = FastVIDStream(keep=keep, longest=7)
    out = method(tokens)
    starts = starts_of_segments(FastVIDStream(keep=0.25, longest=7, anchor_every=99)(tokens))
    assert len(starts) > 4
    for ended in starts[1:]:
        whole = out.select(out.position[:, 0] < ended)
        for steps in range(ended, min(ended + 3, 33)):
            sooner = method(first_steps(tokens, steps))
            same = sooner.select(sooner.position[:, 0] < ended)
            assert torch.equal(same.position, whole.position)
            assert torch.equal(same.weight, whole.weight)
            torch.testing.assert_close(same.features, whole.features)


def test_what_is_kept_up_to_the_end_of_a_segment_is_its_share(clip):
    out = FastVIDStream(keep=0.13, longest=6)(frozen(clip, 33))
    starts = [6, 12, 18, 24, 30]
    kept = [int((out.position[:, 0] < start).sum()) for start in starts]
    assert kept == [round(0.13 * 35 * start) for start in starts]


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 9, 33])
@pytest.mark.parametrize("keep", [0.02, 0.05, 0.1, 0.46, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("context", [0, 0.4, 0.75, 1])
def test_the_budget_is_met_exactly(clip, steps, keep, context):
    tokens = clip((steps, 5, 7), "scenes", cues=CUES)
    out = FastVIDStream(keep=keep, context=context)(tokens)
    assert len(out) == max(1, round(keep * len(tokens)))


@pytest.mark.parametrize("kind", ["noise", "scenes", "still"])
def test_every_token_counts_once(clip, kind):
    tokens = clip((33, 5, 7), kind, cues=CUES)
    tokens = replace(tokens, weight=torch.arange(len(tokens)) % 3 + 1.0)
    out = FastVIDStream(keep=0.25, mix=0)(tokens)
    assert out.weight.sum() == tokens.weight.sum()
    total = tokens.weight @ tokens.features
    torch.testing.assert_close(out.weight @ out.features, total, atol=1e-2, rtol=1e-4)


def test_mixing_all_of_the_target_leaves_features_as_they_were(clip):
    tokens = clip((33, 5, 7), "scenes", cues=CUES)
    out = FastVIDStream(keep=0.25, mix=1)(tokens)
    torch.testing.assert_close(out.features, tokens.features[out.flat_index])


def test_anchors_are_counted_from_the_start_of_a_segment(clip):
    out = FastVIDStream(keep=0.25, longest=6)(frozen(clip, 13))
    assert merged_steps(out) == [0, 4, 6, 10, 12]


def test_steps_without_tokens_are_no_anchors(clip):
    tokens = frozen(clip, 10)
    step = tokens.position[:, 0]
    left = tokens.select((step != 0) & (step != 4))
    out = FastVIDStream(keep=0.25, context=0.5)(left)
    assert merged_steps(out) == [1, 6]


def test_a_token_joins_no_target_of_a_later_step(clip):
    # The identity as deepstack comes out as each source token's share.
    tokens = frozen(clip, 12)
    tokens = replace(tokens, deepstack=torch.eye(len(tokens))[:, None])
    out = FastVIDStream(keep=0.25)(tokens)
    is_member = out.deepstack[:, 0] > 0
    steps = tokens.position[:, 0].expand(len(out), -1)
    earliest = steps.where(is_member, 99).amin(1)
    assert torch.equal(earliest, out.position[:, 0])
    latest = steps.where(is_member, -1).amax(1)
    assert (latest[out.position[:, 0] == 0] > 8).any()


def test_a_case_computed_by_hand(clip):
    # Two steps of five places, 6 of 10 tokens kept: 3 each, of which each step saves 1 for
    # targets. Step 0, an anchor, keeps places 3 and 4, attended most, and its density peak. Of
    # A, B, C that is B (see test_fastvid.py). Step 1 has no anchor after it: it keeps its three
    # attended most, places 2, 3 and 4.
    step = torch.tensor([[0.6, 0], [0, 0.2], [0, 0.22], [1, 1], [2, 2]])
    tokens = replace(
        clip((2, 1, 5), width=2, cues=CUES),
        features=step.repeat(2, 1),
        cues={"attention": torch.tensor([1.0, 2, 3, 8, 9] * 2)},
        frame_cues={"frame_vector": torch.ones(2, 3)},
    )
    out = FastVIDStream(keep=0.6, context=1 / 3, mix=0.6)(tokens)
    assert out.flat_index.tolist() == [1, 3, 4, 7, 8, 9]
    # A, B and C of step 0 join B, and A and B of step 1.
    assert out.weight.tolist() == [5, 1, 1, 1, 1, 1]
    mean = torch.tensor([2 * 0.6, 0.2 + 0.22 + 0.2]) / 5
    torch.testing.assert_close(out.features[0], 0.6 * step[1] + 0.4 * mean)


def test_an_anchor_spends_what_was_saved_since_the_last_one():
    # Per step: 10 of 20 tokens, 4 of them saved. The anchors are steps 0 and 4.
    plan = _fastvid_causal.causal_plan([20] * 6, [0], 4, 0.5, 0.4)
    assert plan.context == [4, 0, 0, 0, 14, 0]
    # The last anchor has room for 14: 2 of the 16 saved buy attended tokens where they were saved.
    assert sum(plan.salient[:5]) == 50 - 18
    assert plan.salient[0] == plan.salient[4] == 6
    assert plan.salient[5] == 10


def test_segments_end_where_similarity_is_unusually_low(clip):
    turns = [0.2, 0.2, 0.2, 0.2, 0.3, 0.2, 0.2, 0.2, 0.2]
    out = FastVIDStream(keep=0.25, anchor_every=99)(turning(clip, turns))
    assert starts_of_segments(out) == [0, 5]


def test_quantile_zero_cuts_where_similarity_is_lower_than_ever(clip):
    turns = [0.2, 0.2, 0.3, 0.25, 0.4, 0.4]
    out = FastVIDStream(keep=0.25, quantile=0, anchor_every=99)(turning(clip, turns))
    assert starts_of_segments(out) == [0, 3, 5]


def test_small_and_large_similarities_are_judged_by_what_is_usual(clip):
    for scale in (0.05, 1):
        turns = [scale * turn for turn in (0.2, 0.25, 0.2, 0.25, 0.2, 0.5, 0.2, 0.25)]
        out = FastVIDStream(keep=0.25, anchor_every=99)(turning(clip, turns))
        assert 6 in starts_of_segments(out)
        assert 8 not in starts_of_segments(out)


def test_rounding_in_a_frozen_clip_ends_no_segment(clip):
    tokens = clip((33, 5, 7), "still", cues=CUES)
    vectors = torch.randn(1, 64, generator=torch.Generator().manual_seed(1)).expand(33, -1)
    vectors = vectors * (1 + torch.arange(33)[:, None] / 7)
    tokens = replace(tokens, frame_cues={"frame_vector": vectors})
    assert starts_of_segments(FastVIDStream(keep=0.25, anchor_every=99)(tokens)) == [0, 32]


def test_what_is_usual_is_remembered_from_the_clip_before(clip):
    method = FastVIDStream(keep=0.25, anchor_every=99)
    restless = method(turning(clip, [0.5] * 9))
    tokens = turning(clip, [0.1, 0.1, 0.2, 0.1])
    assert starts_of_segments(method(tokens)) == [0, 3]
    assert starts_of_segments(method(tokens, restless)) == [0]


def test_two_halves_remember_what_the_whole_does(clip):
    method = FastVIDStream(keep=0.25, window=6)
    turns = [0.1, 0.2, 0.3, 0.4, 0.5]
    first = method(turning(clip, turns[:3]))
    second = method(turning(clip, turns[3:]), first)
    whole = method(turning(clip, turns))
    torch.testing.assert_close(second.frame_cues[RECENT][-1], whole.frame_cues[RECENT][-1])
    expected = torch.tensor(turns).cos()
    torch.testing.assert_close(second.frame_cues[RECENT][-1, 1:], expected)


def test_what_is_remembered_is_bounded(clip):
    method, out = FastVIDStream(keep=0.25, window=5), None
    for _ in range(3):
        out = method(turning(clip, [0.3] * 8), out)
        assert out.frame_cues[RECENT].shape == (9, 5)
    assert (out.frame_cues[RECENT] > UNSEEN).all()


def test_another_window_takes_over_what_fits(clip):
    out = FastVIDStream(keep=0.25, window=4)(turning(clip, [0.1, 0.2, 0.3]))
    tokens = turning(clip, [0.4])
    seen = FastVIDStream(keep=0.25, window=2)(tokens, out).frame_cues[RECENT][-1]
    torch.testing.assert_close(seen, torch.tensor([0.3, 0.4]).cos())
    seen = FastVIDStream(keep=0.25, window=9)(tokens, out).frame_cues[RECENT][-1]
    torch.testing.assert_close(seen[-4:], torch.tensor([0.1, 0.2, 0.3, 0.4]).cos())
    assert (seen[:-4] == UNSEEN).all()


def test_a_clip_before_of_another_method_or_of_no_steps_starts_anew(clip):
    method, tokens = FastVIDStream(keep=0.25), turning(clip, [0.1, 0.5, 0.1])
    fresh = method(tokens).frame_cues[RECENT]
    for previous in (tokens, clip((0, 5, 7), cues={*CUES, f"frame_{RECENT}"})):
        assert torch.equal(method(tokens, previous).frame_cues[RECENT], fresh)


def test_a_known_clip_gives_known_tokens(clip):
    tokens = clip((12, 3, 4), "scenes", width=4, cues=CUES, seed=3)
    out = FastVIDStream(keep=0.08)(tokens)
    assert out.flat_index.tolist() == [5, 27, 57, 58, 59, 66, 80, 84, 113, 122, 130, 136]
    assert out.weight.tolist() == [1, 1, 13, 9, 1, 1, 57, 1, 1, 1, 11, 1]
    sums = out.features[out.weight > 1].sum(1).tolist()
    assert sums == pytest.approx([0.9318, -0.7016, -0.6623, -1.1913], abs=1e-3)


def test_missing_cues_are_named(clip):
    for cue in CUES:
        with pytest.raises(ConfigError, match=f"'{cue}'"):
            FastVIDStream()(clip(cues=CUES - {cue}))


@pytest.mark.parametrize(
    "options",
    [
        {"quantile": -0.1},
        {"context": 1.1},
        {"mix": 2},
        {"window": 0},
        {"longest": 0},
        {"anchor_every": 0},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        FastVIDStream(**options)
