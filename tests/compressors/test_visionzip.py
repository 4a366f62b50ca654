from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cosine_similarity

from streamvlm.compressors.visionzip import VisionZip
from streamvlm.errors import BadOption, ConfigError
from streamvlm.types import VisualTokens

CUES = VisionZip.needs


def official_by_loops(
    tokens: VisualTokens, keep: float, context: float
) -> tuple[list[int], torch.Tensor]:
    """The published algorithm, one token at a time, in float64: indices and features."""
    steps, rows, columns = tokens.grid
    places = rows * columns
    x = tokens.features.double().view(steps, places, -1)
    keys = tokens.cues["keys"].double().view(steps, places, -1)
    attention = tokens.cues["attention"].view(steps, places).tolist()
    budget = int(places * keep)
    wanted = round(budget * context)
    result = {}
    for step in range(steps):
        ranked = sorted(range(places), key=lambda n: -attention[step][n])
        dominant, rest = ranked[: budget - wanted], sorted(ranked[budget - wanted :])
        targets = rest[:: max(1, len(rest) // wanted)][:wanted]
        members: list[list[torch.Tensor]] = [[] for _ in targets]
        for place in rest:
            if place not in targets:
                similar = cosine_similarity(keys[step, place][None], keys[step, targets])
                members[int(similar.argmax())].append(x[step, place])
        result |= {step * places + place: x[step, place] for place in dominant}
        for target, joined in zip(targets, members, strict=True):
            mean = torch.stack(joined).mean(0) if joined else torch.zeros_like(x[0, 0])
            result[step * places + target] = x[step, target] + mean
    return sorted(result), torch.stack([result[index] for index in sorted(result)])


@pytest.mark.parametrize("kind", ["noise", "scenes"])
@pytest.mark.parametrize("steps", [8, 9, 32, 33, 128])
@pytest.mark.parametrize(("keep", "context"), [(0.25, 0.2), (0.6, 0.3), (0.45, 0.9)])
def test_official_equals_the_published_algorithm_by_loops(clip, kind, steps, keep, context):
    tokens = clip((steps, 4, 6), kind, cues=CUES)
    indices, features = official_by_loops(tokens, keep, context)
    out = VisionZip(keep=keep, context=context, compat="official")(tokens)
    assert out.flat_index.tolist() == indices
    torch.testing.assert_close(out.features.double(), features, atol=1e-5, rtol=0)


def row(clip) -> VisualTokens:
    """One row of seven; the features are 1 to 7, the keys say which are alike."""
    tokens = clip((1, 1, 7), width=1)
    keys = [[1, 0], [0, 1], [1, 0.1], [9, 0], [0, 5], [0.2, 1], [1, 0.3]]
    attention = [0.1, 0.9, 0.2, 0.3, 0.2, 0.1, 0.1]
    return replace(
        tokens,
        features=torch.arange(1.0, 8)[:, None],
        cues={"attention": torch.tensor(attention), "keys": torch.tensor(keys)},
    )


def test_a_case_computed_by_hand(clip):
    # 3 of 7, 2 of them contextual. Place 1 is dominant. Left are 0 2 3 4 5 6; the middles of two
    # halves are 2 and 5. To 2, along the first axis, come 0, 3 and 6; to 5 comes 4.
    out = VisionZip(keep=3 / 7, context=2 / 3)(row(clip))
    assert out.flat_index.tolist() == [1, 2, 5]
    assert out.weight.tolist() == [1, 4, 2]
    # (1 + 3 + 4 + 7) / 4, (5 + 6) / 2
    torch.testing.assert_close(out.features.flatten(), torch.tensor([2, 3.75, 5.5]))


def test_official_adds_the_mean_to_the_target(clip):
    # Targets are the first and the fourth of what is left: 0 and 4. To 0 come 2, 3 and 6, to 4
    # comes 5: 1 + (3 + 4 + 7) / 3, 5 + 6.
    out = VisionZip(keep=3 / 7, context=2 / 3, compat="official")(row(clip))
    assert out.flat_index.tolist() == [0, 1, 4]
    assert out.weight.tolist() == [4, 1, 2]
    torch.testing.assert_close(out.features.flatten(), torch.tensor([1 + 14 / 3, 2, 11]))


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 9, 33])
@pytest.mark.parametrize("keep", [0.01, 0.05, 0.1, 0.46, 0.8, 0.99])
@pytest.mark.parametrize("context", [0, 10 / 64, 1])
def test_the_budget_is_met_exactly(clip, steps, keep, context):
    tokens = clip((steps, 5, 7), "scenes", cues=CUES)
    out = VisionZip(keep=keep, context=context)(tokens)
    assert len(out) == max(1, round(keep * len(tokens)))


def test_dominant_tokens_are_those_attended_most_and_stay_as_they_were(clip):
    tokens = clip((8, 6, 6), "scenes", cues=CUES)
    out = VisionZip(keep=0.25, context=2 / 9)(tokens)
    for step in range(8):
        attention = tokens.cues["attention"][step * 36 : (step + 1) * 36]
        dominant = attention.topk(7).indices + step * 36
        at = torch.searchsorted(out.flat_index, dominant)
        assert torch.equal(out.flat_index[at], dominant)
        assert torch.equal(out.features[at], tokens.features[dominant])
        assert out.weight[at].eq(1).all()


def test_targets_are_spread_evenly_over_the_rest(clip):
    # Equal attention: the first two are dominant, the rest has 18, and six targets.
    tokens = clip((2, 4, 5), "constant", cues=CUES)
    out = VisionZip(keep=0.4, context=0.75)(tokens)
    first = [0, 1, 3, 6, 9, 12, 15, 18]
    assert out.flat_index.tolist() == first + [20 + place for place in first]


def test_tokens_join_by_their_keys_within_their_step(clip):
    tokens = clip((4, 5, 7), "scenes", cues=CUES)
    marked = replace(tokens, deepstack=torch.eye(len(tokens))[:, None])
    out = VisionZip(keep=0.2, context=0.5)(marked)
    share = out.deepstack[:, 0]
    keys = tokens.cues["keys"]
    merged = (out.weight > 1).nonzero().flatten()
    joined = 0
    for token in range(len(tokens)):
        mine = (share[:, token] > 0).nonzero().flatten()
        assert len(mine) == 1
        if out.weight[mine] == 1 or out.flat_index[mine] == token:
            continue
        targets = merged[out.position[merged, 0] == tokens.position[token, 0]]
        similar = cosine_similarity(keys[token][None], keys[out.flat_index[targets]])
        assert mine == targets[similar.argmax()]
        joined += 1
    assert joined > 50


def test_every_token_counts_once_and_the_total_is_preserved(clip):
    tokens = clip((9, 5, 7), "scenes", cues=CUES)
    tokens = replace(tokens, weight=torch.arange(len(tokens)) % 3 + 1.0)
    out = VisionZip(keep=0.25)(tokens)
    assert out.weight.sum() == tokens.weight.sum()
    total = tokens.weight @ tokens.features
    torch.testing.assert_close(out.weight @ out.features, total, atol=1e-3, rtol=1e-4)


def test_the_rest_of_a_step_without_a_contextual_token_is_dropped(clip):
    # 28 tokens in 8 steps, 4 of them contextual: four steps are merged, of the others 3 or 4 stay.
    tokens = clip((8, 5, 7), cues=CUES)
    out = VisionZip(keep=0.1)(tokens)
    step = out.position[:, 0]
    weight = torch.zeros(8).index_add(0, step, out.weight)
    merged = weight == 35
    assert merged.sum() == 4
    assert torch.equal(weight[~merged], step.bincount()[~merged].float())


def test_attention_of_a_summary_changes_nothing(clip):
    tokens = clip((8, 5, 7), cues=CUES)
    more = {**tokens.cues, "cls_attention": -tokens.cues["attention"]}
    out, other = VisionZip()(tokens), VisionZip()(replace(tokens, cues=more))
    assert torch.equal(out.features, other.features)


def test_golden_numbers(clip):
    tokens = clip((2, 3, 4), "scenes", width=2, cues=CUES)
    out = VisionZip(keep=0.25, context=1 / 3)(tokens)
    assert out.flat_index.tolist() == [5, 6, 11, 12, 14, 19]
    assert out.weight.tolist() == [10, 1, 1, 1, 1, 10]
    merged = torch.tensor([[-0.0367, -0.5122], [0.0551, -0.3976]])
    torch.testing.assert_close(out.features[[0, 5]], merged, atol=1e-4, rtol=0)


@pytest.mark.parametrize("keep", [0.02, 0.06])
def test_official_is_refused_without_a_contextual_token(clip, keep):
    with pytest.raises(BadOption, match="a contextual token of each step"):
        VisionZip(keep=keep, compat="official")(clip((8, 5, 7), cues=CUES))


def test_official_is_refused_for_compressed_tokens(clip):
    tokens = clip((16, 5, 7), cues=CUES).select(torch.arange(500))
    with pytest.raises(BadOption, match="dense tokens"):
        VisionZip(compat="official")(tokens)


@pytest.mark.parametrize("missing", sorted(CUES))
def test_a_missing_cue_is_named(clip, missing):
    with pytest.raises(ConfigError, match=f"'{missing}'"):
        VisionZip()(clip(cues=CUES - {missing}))


@pytest.mark.parametrize("options", [{"context": -0.1}, {"context": 1.1}, {"compat": "letter"}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        VisionZip(**options)
