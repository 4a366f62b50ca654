from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cosine_similarity

from streamvlm.compressors.fastvid import FastVID
from streamvlm.errors import BadOption, ConfigError
from streamvlm.types import VisualTokens

CUES = FastVID.needs


def official_by_loops(tokens: VisualTokens, method: FastVID) -> tuple[list[int], torch.Tensor]:
    """The published algorithm, one token at a time, in float64: indices and features."""
    steps, rows, columns = tokens.grid
    places = rows * columns
    x = tokens.features.double().view(steps, places, -1)
    attention = tokens.cues["attention"].view(steps, places)
    g = tokens.frame_cues["frame_vector"]

    similar = [float(cosine_similarity(g[t], g[t + 1], dim=0)) for t in range(steps - 1)]
    forced = sorted(range(steps - 1), key=lambda t: similar[t])[: method.segments - 1]
    cuts = [t for t in range(steps - 1) if t in forced or similar[t] < method.threshold]
    starts, ends = [0, *(t + 1 for t in cuts)], [*(t + 1 for t in cuts), steps]

    kept = int(places * method.keep)
    wanted = int(kept * method.context)
    salient = [
        sorted(range(places), key=lambda n: -attention[t, n])[: kept - wanted] for t in range(steps)
    ]
    others = [[n for n in range(places) if n not in salient[t]] for t in range(steps)]
    noise = torch.rand(steps, len(others[0]), generator=torch.Generator().manual_seed(0)) * 1e-6
    result = {t * places + n: x[t, n] for t in range(steps) for n in salient[t]}
    for start, end in zip(starts, ends, strict=True):
        length = end - start
        anchors = [t for t in range(start, end) if (end - 1 - t) % method.anchor_every == 0]
        assert len(anchors) == math.ceil(length / method.anchor_every)
        q = wanted * length // len(anchors)
        for t in anchors:
            merged_steps = [t] if q == wanted else range(start, end)
            pool = [x[u, n] for u in merged_steps for n in others[u]]
            targets = peaks(x[t, others[t]], noise[t], q)
            heads = x[t, [others[t][i] for i in targets]]
            members = [[] for _ in targets]
            for one in pool:
                members[int(cosine_similarity(one[None], heads).argmax())].append(one)
            for i, head, joined in zip(targets, heads, members, strict=True):
                own = max(1 / (len(joined) + 1), method.mix)
                mean = torch.stack(joined).mean(0)
                result[t * places + others[t][i]] = own * head + (1 - own) * mean
    return sorted(result), torch.stack([result[index] for index in sorted(result)])


def peaks(points: torch.Tensor, noise: torch.Tensor, q: int) -> list[int]:
    """The q best cluster centres, in index order."""
    distance = [[float((a - b).norm()) / len(a) ** 0.5 for b in points] for a in points]
    near = [sum(d * d for d in sorted(row)[:4]) / 4 for row in distance]
    density = [math.exp(-mean) + float(extra) for mean, extra in zip(near, noise, strict=True)]
    farthest = max(max(row) for row in distance)
    score = []
    for row, own in zip(distance, density, strict=True):
        denser = [d for d, other in zip(row, density, strict=True) if other > own]
        score.append(own * min(denser, default=farthest))
    return sorted(sorted(range(len(points)), key=lambda i: -score[i])[:q])


@pytest.mark.parametrize("kind", ["noise", "scenes", "still"])
@pytest.mark.parametrize(
    ("steps", "every", "keep", "mix"),
    [
        (8, 4, 0.1, 0.6),
        (9, 4, 0.25, 0.6),
        (33, 4, 0.1, 0.6),
        (33, 4, 0.25, 0.1),
        (16, 4, 0.4, 0.0),
        (16, 2, 0.1, 0.6),
        (16, 1, 0.2, 0.6),
    ],
)
def test_official_equals_the_published_algorithm_by_loops(clip, kind, steps, every, keep, mix):
    tokens = clip((steps, 5, 7), kind, cues=CUES)
    method = FastVID(keep=keep, anchor_every=every, mix=mix, compat="official")
    indices, features = official_by_loops(tokens, method)
    out = method(tokens)
    assert out.flat_index.tolist() == indices
    torch.testing.assert_close(out.features.double(), features, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["noise", "scenes", "still"])
def test_fixed_equals_official_where_no_share_is_rounded_and_no_anchor_shared(clip, kind):
    # 40 places: 4 kept, 1 of them merged; segments of at most 4 steps have one anchor.
    tokens = clip((8, 5, 8), kind, cues=CUES)
    turn = torch.tensor([1.0, 1, 1, 1, -1, -1, -1, -1])[:, None].expand(8, 3)
    tokens = replace(tokens, frame_cues={"frame_vector": turn})
    options = {"keep": 0.1, "context": 0.25, "segments": 2, "threshold": -1}
    fixed, official = FastVID(**options)(tokens), FastVID(**options, compat="official")(tokens)
    assert torch.equal(fixed.position, official.position)
    torch.testing.assert_close(fixed.features, official.features)
    torch.testing.assert_close(fixed.weight, official.weight)


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 9, 33])
@pytest.mark.parametrize("keep", [0.02, 0.05, 0.1, 0.46, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("kind", ["noise", "scenes", "still", "constant"])
def test_the_budget_is_met_exactly(clip, steps, keep, kind):
    tokens = clip((steps, 5, 7), kind, cues=CUES)
    assert len(FastVID(keep=keep)(tokens)) == max(1, round(keep * len(tokens)))


@pytest.mark.parametrize("context", [0, 0.4, 1])
def test_any_share_of_context_meets_the_budget(clip, context):
    tokens = clip((33, 5, 7), "scenes", cues=CUES)
    assert len(FastVID(keep=0.3, context=context)(tokens)) == round(0.3 * len(tokens))


def tiny(clip, features: list[list[float]], attention: list[float]) -> VisualTokens:
    """Two still steps of five places."""
    tokens = clip((2, 1, 5), width=2, cues=CUES)
    return replace(
        tokens,
        features=torch.tensor(features),
        cues={"attention": torch.tensor(attention)},
        frame_cues={"frame_vector": torch.ones(2, 3)},
    )


def test_a_case_computed_by_hand(clip):
    # 6 of 10 are kept: in each step the two attended most (places 3, 4), and two targets in the
    # last step, the anchor. Among its other tokens A, B, C the squared distances / D are AB 0.2,
    # AC 0.2042, BC 0.0002; means over the neighbours (itself included) A 0.1347, B 0.0667,
    # C 0.0681; distances to a denser one A 0.447, C 0.014, and for B, the densest, the largest,
    # 0.452. Scores are A 0.391, B 0.423, C 0.013: A and B are targets.
    step = [[0.6, 0], [0, 0.2], [0, 0.22], [1, 1], [2, 2]]
    tokens = tiny(clip, step * 2, [1, 2, 3, 8, 9] * 2)
    out = FastVID(keep=0.6, context=1 / 3, segments=1, mix=0.6)(tokens)
    assert out.flat_index.tolist() == [3, 4, 5, 6, 8, 9]
    # A takes in the A of step 0; B takes in C and the B and C of step 0, whose mean is 0.21.
    assert out.weight.tolist() == [1, 1, 2, 4, 1, 1]
    torch.testing.assert_close(out.features[2], torch.tensor([0.6, 0]))
    torch.testing.assert_close(out.features[3], torch.tensor([0, 0.6 * 0.2 + 0.4 * 0.21]))


def test_salient_tokens_are_those_attended_most_in_their_step(clip):
    tokens = clip((33, 5, 7), "scenes", cues=CUES)
    out = FastVID(keep=0.2, context=0)(tokens)
    attention = tokens.cues["attention"].view(33, 35)
    for step in range(33):
        mine = out.position[:, 0] == step
        best = attention[step].topk(int(mine.sum())).indices.sort().values
        assert torch.equal(out.flat_index[mine] - step * 35, best)


def test_segments_are_cut_where_the_frame_vectors_change(clip):
    # Scenes of 6 steps; only the last step of each segment can hold merged tokens.
    tokens = clip((18, 5, 7), "scenes", cues=CUES)
    out = FastVID(keep=0.1, segments=1, anchor_every=99)(tokens)
    assert out.position[out.weight > 1, 0].unique().tolist() == [5, 11, 17]


def test_anchors_are_counted_back_from_the_end_of_a_segment(clip):
    tokens = clip((11, 5, 7), "still", cues=CUES)
    out = FastVID(keep=0.1, segments=1)(tokens)
    assert out.position[out.weight > 1, 0].unique().tolist() == [2, 6, 10]


def test_a_small_number_of_segments_is_forced_at_the_least_similar_steps(clip):
    tokens = clip((8, 5, 7), "still", cues=CUES)
    vectors = torch.eye(8)[torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])] + 5
    tokens = replace(tokens, frame_cues={"frame_vector": vectors})
    out = FastVID(keep=0.2, segments=2, threshold=-1, anchor_every=99)(tokens)
    assert out.position[out.weight > 1, 0].unique().tolist() == [5, 7]


@pytest.mark.parametrize("kind", ["noise", "scenes", "still"])
def test_every_source_token_counts_once(clip, kind):
    tokens = clip((33, 5, 7), kind, cues=CUES)
    tokens = replace(tokens, weight=torch.arange(len(tokens)) % 3 + 1.0)
    out = FastVID(keep=0.25)(tokens)
    torch.testing.assert_close(out.weight.sum(), tokens.weight.sum())
    assert (out.weight >= 1).all()


def test_without_mixing_the_weighted_total_is_preserved(clip):
    tokens = clip((33, 5, 7), "still", cues=CUES)
    tokens = replace(tokens, weight=torch.arange(len(tokens)) % 3 + 1.0)
    out = FastVID(keep=0.25, mix=0)(tokens)
    total = tokens.weight @ tokens.features
    torch.testing.assert_close(out.weight @ out.features, total, atol=1e-2, rtol=1e-4)
    mixed = FastVID(keep=0.25, mix=0.6)(tokens)
    assert (mixed.weight @ mixed.features - total).abs().max() > 1


def test_mixing_all_of_the_target_leaves_features_as_they_were(clip):
    tokens = clip((33, 5, 7), "still", cues=CUES)
    out = FastVID(keep=0.25, mix=1)(tokens)
    torch.testing.assert_close(out.features, tokens.features[out.flat_index])


def test_half_precision_chooses_nearly_the_same_tokens(clip):
    full = FastVID(keep=0.25)(clip((33, 6, 6), "scenes", width=64, cues=CUES))
    tokens = clip((33, 6, 6), "scenes", width=64, cues=CUES, dtype=torch.float16)
    half = FastVID(keep=0.25)(tokens)
    same = torch.isin(full.flat_index, half.flat_index)
    assert same.float().mean() >= 0.99


@pytest.mark.parametrize(
    ("grid", "options", "reason"),
    [
        ((7, 5, 7), {"keep": 0.1}, "at least 8 steps"),
        ((32, 5, 7), {"keep": 0.8}, "no more targets than an anchor has tokens"),
        ((32, 5, 7), {"keep": 0.02}, "at least one token kept"),
    ],
)
def test_official_is_refused_where_the_published_code_crashes(clip, grid, options, reason):
    tokens = clip(grid, "still", cues=CUES)
    with pytest.raises(BadOption, match=reason):
        FastVID(**options, compat="official")(tokens)


def test_official_is_refused_for_compressed_tokens(clip):
    tokens = clip((16, 5, 7), "scenes", cues=CUES).select(torch.arange(500))
    with pytest.raises(BadOption, match="dense tokens"):
        FastVID(compat="official")(tokens)


def test_missing_cues_are_named(clip):
    with pytest.raises(ConfigError, match="'attention'"):
        FastVID()(clip(cues={"frame_vector"}))
    with pytest.raises(ConfigError, match="'frame_vector'"):
        FastVID()(clip(cues={"attention"}))


@pytest.mark.parametrize(
    "options",
    [
        {"context": -0.1},
        {"context": 1.1},
        {"mix": 2},
        {"segments": 0},
        {"anchor_every": 0},
        {"compat": "letter"},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        FastVID(**options)


def test_golden(clip):
    # Made by this code; a change of any number is a change of the method.
    out = FastVID(keep=0.05)(clip((4, 5, 7), "scenes", cues=CUES))
    assert out.flat_index.tolist() == [10, 34, 64, 67, 86, 93, 105]
    torch.testing.assert_close(
        out.features[:, 0],
        torch.tensor([0.4152, 1.3811, 0.243, -0.3574, 0.2555, 0.3861, -0.9755]),
        atol=1e-4,
        rtol=0,
    )
