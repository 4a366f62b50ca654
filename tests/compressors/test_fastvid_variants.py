from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.nn.functional import cosine_similarity

from streamvlm.compressors.fastvid import FastVID
from streamvlm.errors import BadOption
from streamvlm.types import VisualTokens

CUES = FastVID.needs
VARIANTS = ("llava_onevision", "llava_video", "qwen2_5_vl")


def segments_by_loops(vectors: torch.Tensor, method: FastVID) -> list[list[int]]:
    """The steps that may hold tokens, segment by segment."""
    steps = len(vectors)
    similar = [
        float(cosine_similarity(vectors[t], vectors[t + 1], dim=0)) for t in range(steps - 1)
    ]
    forced = sorted(range(steps - 1), key=lambda t: similar[t])[: method.segments - 1]
    cuts = [t + 1 for t in range(steps - 1) if t in forced or similar[t] < method.threshold]
    whole = [list(range(a, b)) for a, b in pairwise([0, *cuts, steps])]
    if method.variant != "qwen2_5_vl":
        return whole
    return [
        [t for t in some if t == some[-1] or similar[t] < method.ignore_above] for some in whole
    ]


def shares_by_loops(
    segment: list[int], anchors: list[int], places: int, method: FastVID
) -> tuple[list[int], list[int]]:
    """Salient tokens of each step of a segment, targets of each anchor."""
    length, a, kept = len(segment), len(anchors), int(places * method.keep)
    if method.variant == "llava_video":
        wanted = int(kept * length * method.context)
        salient = kept * length - wanted
        return (
            [salient // length + (i < salient % length) for i in range(length)],
            [wanted // a + (i < wanted % a) for i in range(a)],
        )
    wanted = int(kept * method.context)
    return [kept - wanted] * length, [wanted * length // a] * a


def official_by_loops(tokens: VisualTokens, method: FastVID) -> dict[int, torch.Tensor]:
    """The published algorithm, one token at a time, in float64: features by index."""
    steps, rows, columns = tokens.grid
    places = rows * columns
    x = tokens.features.double().view(steps, places, -1)
    attention = tokens.cues["attention"].view(steps, places)
    result, others, jobs = {}, {}, []
    for segment in segments_by_loops(tokens.frame_cues["frame_vector"], method):
        anchors = sorted(segment[::-1][:: method.anchor_every])
        salient, sizes = shares_by_loops(segment, anchors, places, method)
        for t, count in zip(segment, salient, strict=True):
            best = sorted(range(places), key=lambda n: -attention[t, n])
            result |= {t * places + n: x[t, n] for n in best[:count]}
            others[t] = sorted(best[count:])
        jobs += [(t, size, segment) for t, size in zip(anchors, sizes, strict=True)]
    draw = torch.rand(sum(map(len, others.values())), generator=torch.Generator().manual_seed(0))
    noise = dict(zip(others, (draw * 1e-6).split([len(o) for o in others.values()]), strict=True))
    for t, size, segment in jobs:
        targets = [others[t][i] for i in peaks(x[t, others[t]], noise[t], size)]
        heads = x[t, targets]
        pool = [(u, n) for u in segment for n in others[u]]
        if method.variant == "llava_video":
            pool = [(u, n) for u, n in pool if not (u == t and n in targets)]
        members = [[] for _ in targets]
        for u, n in pool if targets else []:
            members[int(cosine_similarity(x[u, n][None], heads).argmax())].append(x[u, n])
        for n, head, joined in zip(targets, heads, members, strict=True):
            own = max(1 / (len(joined) + 1), method.mix)
            mean = torch.stack(joined).mean(0) if joined else torch.zeros_like(head)
            result[t * places + n] = own * head + (1 - own) * mean
    return dict(sorted(result.items()))


def peaks(points: torch.Tensor, noise: torch.Tensor, q: int) -> list[int]:
    """The q best cluster centres."""
    distance = [
        ((points - one).square().sum(1) / points.shape[1]).sqrt().tolist() for one in points
    ]
    near = [sum(d * d for d in sorted(row)[:4]) / 4 for row in distance]
    density = [math.exp(-mean) + float(extra) for mean, extra in zip(near, noise, strict=True)]
    farthest = max(map(max, distance))
    score = []
    for row, own in zip(distance, density, strict=True):
        denser = [d for d, other in zip(row, density, strict=True) if other > own]
        score.append(own * min(denser, default=farthest))
    return sorted(range(len(points)), key=lambda i: -score[i])[:q]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["noise", "scenes"])
@pytest.mark.parametrize(
    ("steps", "mix"), [(8, 0.6), (9, 0.6), (9, 0.1), (32, 0.6), (33, 0.6), (33, 0), (128, 0.6)]
)
def test_official_equals_the_published_algorithm_by_loops(clip, variant, kind, steps, mix):
    tokens = clip((steps, 4, 5), kind, width=8, cues=CUES)
    method = FastVID(
        keep=0.3, context=0.45, mix=mix, segments=4, variant=variant, compat="official"
    )
    expected = official_by_loops(tokens, method)
    out = method(tokens)
    assert out.flat_index.tolist() == list(expected)
    features = torch.stack(list(expected.values()))
    torch.testing.assert_close(out.features.double(), features, atol=1e-5, rtol=0)


def drifting(clip, turns: list[float]) -> VisualTokens:
    """A still clip whose frame vectors turn by so much from step to step."""
    tokens = clip((len(turns) + 1, 5, 7), "still", cues=CUES)
    angle = torch.tensor([0, *turns]).cumsum(0)
    vectors = torch.stack((angle.cos(), angle.sin()), 1)
    return replace(tokens, frame_cues={"frame_vector": vectors})


def small_and_large_turns(clip) -> VisualTokens:
    # Cosines 1, 0.92 and 0: the same picture, another one of the segment, another segment.
    return drifting(clip, [0, 0, 0.4, 0, 1.57, 0, 0, 0.4, 0])


QWEN = {"variant": "qwen2_5_vl", "segments": 1}


# At 0.35 the one anchor cannot hold all that is to be merged.
@pytest.mark.parametrize(("compat", "keep"), [("fixed", 0.27), ("fixed", 0.35), ("official", 0.27)])
def test_qwen_keeps_only_the_last_of_steps_that_are_alike(clip, compat, keep):
    out = FastVID(keep=keep, compat=compat, **QWEN)(small_and_large_turns(clip))
    assert out.position[:, 0].unique().tolist() == [2, 4, 7, 9]


def test_qwen_meets_the_budget_though_official_counts_steps_that_are_alike_as_one(clip):
    tokens = small_and_large_turns(clip)
    assert len(FastVID(keep=0.27, **QWEN)(tokens)) == round(0.27 * 350)
    # ⌊0.27 · 35⌋ = 9 each of 4 steps: 6 salient ones, and 3 · 2 targets of the last of 2.
    assert len(FastVID(keep=0.27, compat="official", **QWEN)(tokens)) == 36


def test_qwen_gives_to_other_steps_what_the_last_ones_cannot_hold(clip):
    tokens = small_and_large_turns(clip)
    out = FastVID(keep=0.7, **QWEN)(tokens)
    count = out.position[:, 0].bincount(minlength=10)
    assert count.sum() == 245
    assert count[[2, 4, 7, 9]].tolist() == [35] * 4


def test_qwen_merges_steps_that_are_alike_unless_official_drops_them(clip):
    tokens = small_and_large_turns(clip)
    out = FastVID(keep=0.27, **QWEN)(tokens)
    torch.testing.assert_close(out.weight.sum(), torch.tensor(350.0))
    out = FastVID(keep=0.27, compat="official", **QWEN)(tokens)
    torch.testing.assert_close(out.weight.sum(), torch.tensor(4 * 35.0))


def test_nothing_is_ignored_above_a_similarity_that_is_never_reached(clip):
    tokens = clip((18, 5, 7), "scenes", cues=CUES)
    plain = FastVID()(tokens)
    out = FastVID(variant="qwen2_5_vl", ignore_above=2)(tokens)
    assert torch.equal(out.features, plain.features)


def test_official_llava_video_spreads_what_does_not_divide(clip):
    # 11 steps in one segment, 3 of 35 kept each: 33, of them 13 merged by 3 anchors.
    tokens = clip((11, 5, 7), "still", cues=CUES)
    out = FastVID(keep=0.1, segments=1, variant="llava_video", compat="official")(tokens)
    assert len(out) == 33
    is_merged = out.weight > 1
    assert out.position[is_merged, 0].bincount(minlength=11)[[2, 6, 10]].tolist() == [5, 4, 4]
    # 20 salient ones: two for each of the first 9 steps, one for the last 2.
    whole = out.position[:, 0].bincount() - torch.tensor([0, 0, 5, 0, 0, 0, 4, 0, 0, 0, 4])
    assert whole.tolist() == [2] * 9 + [1] * 2


def test_llava_video_leaves_the_target_out_of_the_mean(clip):
    # One step of A, B and B': one target A that nothing joins, one target B that B' joins.
    tokens = clip((1, 1, 3), width=2, cues=CUES)
    features = torch.tensor([[1.0, 0], [0, 1], [0, 2]])
    tokens = replace(tokens, features=features)
    out = FastVID(keep=0.67, context=1, mix=0.2, variant="llava_video")(tokens)
    assert out.weight.tolist() == [1, 2]
    torch.testing.assert_close(out.features[0], features[0])
    # A mean of one other weighs half, more than `mix`, so that neither counts more than it should.
    torch.testing.assert_close(out.features[1], torch.tensor([0, 1.5]))
    out = FastVID(keep=0.67, context=1, mix=0.8, variant="llava_video")(tokens)
    torch.testing.assert_close(out.features[1], 0.8 * features[1] + 0.2 * features[2])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["noise", "scenes", "still", "constant"])
@pytest.mark.parametrize("steps", [1, 33])
@pytest.mark.parametrize("keep", [0.02, 0.1, 0.46, 0.8])
def test_every_variant_meets_the_budget_and_counts_every_token_once(
    clip, variant, kind, steps, keep
):
    tokens = clip((steps, 5, 7), kind, cues=CUES)
    out = FastVID(keep=keep, variant=variant)(tokens)
    assert len(out) == max(1, round(keep * len(tokens)))
    assert out.weight.sum() <= len(tokens) * (1 + 1e-5)
    assert (out.weight >= 1 - 1e-5).all()


GOLDEN = {
    # The merged tokens: index, sum of the features, weight.
    "llava_onevision": [
        (22, -0.1061, 13),
        (23, 1.2621, 21.5),
        (70, 0.0229, 33.5),
        (92, -0.5539, 34.5),
        (142, -0.5235, 34.5),
    ],
    "llava_video": [
        (22, -0.1147, 13),
        (23, 1.2640, 21.5),
        (70, 0.0367, 33.5),
        (92, -0.5534, 34.5),
        (142, -0.5236, 34.5),
    ],
    "qwen2_5_vl": [
        (60, -0.7487, 22),
        (62, -0.2556, 14),
        (65, 1.5324, 32),
        (132, 0.8876, 21),
        (143, -0.3663, 48),
    ],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_known_clip_gives_known_tokens(clip, variant):
    tokens = clip((12, 3, 4), "scenes", width=4, cues=CUES, seed=3)
    out = FastVID(keep=0.08, segments=2, variant=variant)(tokens)
    merged = out.select(out.weight > 1)
    indices, sums, weights = zip(*GOLDEN[variant], strict=True)
    assert tuple(merged.flat_index.tolist()) == indices
    assert merged.features.sum(1).tolist() == pytest.approx(sums, abs=1e-3)
    assert merged.weight.tolist() == pytest.approx(weights)


@pytest.mark.parametrize("variant", ["llava_video", "qwen2_5_vl"])
def test_official_variants_are_refused_where_they_cannot_work(clip, variant):
    options = {"variant": variant, "compat": "official"}
    with pytest.raises(BadOption, match="at least 8 steps"):
        FastVID(**options)(clip((7, 5, 7), "noise", cues=CUES))
    with pytest.raises(BadOption, match="no more targets than an anchor has tokens"):
        FastVID(keep=0.8, ignore_above=2, **options)(clip((32, 5, 7), "still", cues=CUES))
    with pytest.raises(BadOption, match="at least one token kept"):
        FastVID(keep=0.02, **options)(clip((32, 5, 7), "still", cues=CUES))


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="variant must be one of llava_onevision"):
        FastVID(variant="llava")
