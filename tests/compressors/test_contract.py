"""The contract of every compressor, run against every file in the folder.

A check takes a compressor class and the clip factory of conftest.py, and asserts. Nothing here
names a compressor: one more file in the folder is checked without a change here.
test_contract_can_fail.py breaks each rule on purpose.
"""

from __future__ import annotations

import dataclasses
import pickle
import re
from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from streamvlm import plugins
from streamvlm.protocols import Compressor
from streamvlm.types import VisualTokens

STEPS = (1, 2, 7, 8, 9, 33)
FRAMES = ((5, 7), (6, 6), (1, 9))
KEEPS = (0.02, 0.1, 0.25, 0.46, 0.5, 0.8, 1)


def subset(tokens: VisualTokens, share: float = 0.4, seed: int = 1) -> VisualTokens:
    """What another compressor may leave: some tokens, of unequal weights, some steps empty."""
    dice = torch.Generator().manual_seed(seed)
    chosen = torch.rand(len(tokens), generator=dice) < share
    chosen &= (tokens.position[:, 0] % 5 != 3) | (tokens.grid[0] < 5)
    chosen[0] = True
    left = tokens.select(chosen)
    weight = torch.randint(1, 4, (len(left),), generator=dice).float()
    return replace(left, weight=weight, rank=torch.randperm(len(left), generator=dice))


def fields(tokens: VisualTokens) -> dict[str, torch.Tensor]:
    named = {name: getattr(tokens, name) for name in ("features", "position", "seconds", "weight")}
    named |= {f"cue {name}": cue for name, cue in tokens.cues.items()}
    named |= {f"frame cue {name}": cue for name, cue in tokens.frame_cues.items()}
    optional = {name: getattr(tokens, name) for name in ("deepstack", "rank")}
    return named | {name: part for name, part in optional.items() if part is not None}


def assert_equal(one: VisualTokens, other: VisualTokens) -> None:
    assert (one.model, one.grid) == (other.model, other.grid), "another model or grid"
    assert fields(one).keys() == fields(other).keys(), "fields were lost"
    assert len(one) == len(other), f"{len(one)} tokens, expected {len(other)}"
    for name, value in fields(one).items():
        assert torch.equal(value, fields(other)[name]), f"{name} differs"


def assert_well_formed(out: VisualTokens, tokens: VisualTokens, keep: float) -> None:
    """Within budget, in order, and every field that of the source token at the same place."""
    most = max(1, round(keep * len(tokens)))
    assert 1 <= len(out) <= most, f"{len(out)} tokens, allowed are 1 to {most}"
    assert (out.model, out.grid) == (tokens.model, tokens.grid), "another model or grid"
    assert (out.flat_index.diff() > 0).all(), "not in time-then-place order"
    assert out.rank is None or len(out.rank.unique()) == len(out), "two tokens of one rank"
    head = torch.searchsorted(tokens.flat_index, out.flat_index).clamp(max=len(tokens) - 1)
    source = tokens.select(head)
    assert torch.equal(out.position, source.position), "a position that no source token has"
    # A frame cue that the input has not is what a progressive method remembers.
    # What it ranked itself need not be as it was ranked before.
    known = [name for name in fields(out) if name in fields(tokens) and name != "rank"]
    assert fields(tokens).keys() <= fields(out).keys(), "fields were lost"
    for name in known:
        value = fields(out)[name]
        assert value.dtype == fields(tokens)[name].dtype, f"{name} changed its dtype"
        assert value.isfinite().all(), f"{name} is not finite"
        if name not in ("features", "weight", "deepstack"):
            assert torch.equal(value, fields(source)[name]), f"{name} is not that of its position"


def check_any_clip_any_keep(plugin: type, clip) -> None:
    for steps in STEPS:
        for frame in FRAMES:
            tokens = clip((steps, *frame), "scenes", cues=plugin.needs)
            for keep in KEEPS:
                assert_well_formed(plugin(keep=keep)(tokens), tokens, keep)


def check_keeping_all_changes_nothing(plugin: type, clip) -> None:
    dense = clip((9, 5, 7), cues=plugin.needs)
    for tokens in (dense, subset(dense)):
        assert_equal(plugin(keep=1)(tokens), tokens)


def check_input_unchanged(plugin: type, clip) -> None:
    tokens = clip((9, 5, 7), "scenes", cues=plugin.needs)
    tokens = replace(tokens, deepstack=torch.rand(len(tokens), 2, 4))
    before = pickle.loads(pickle.dumps(tokens))
    plugin(keep=0.25)(tokens)
    assert_equal(tokens, before)


def check_weighted_means(plugin: type, clip) -> None:
    """Reads the mean off: the identity as deepstack comes out as each source token's share."""
    for grid, kind in (((33, 5, 7), "scenes"), ((9, 6, 6), "noise"), ((12, 1, 9), "still")):
        dense = clip(grid, kind, cues=plugin.needs)
        for tokens in (dense, subset(dense)):
            tokens = replace(tokens, deepstack=torch.eye(len(tokens))[:, None])
            for keep in (0.05, 0.25, 0.8):
                assert_means(plugin(keep=keep)(tokens), tokens)


def assert_means(out: VisualTokens, tokens: VisualTokens) -> None:
    share = out.deepstack[:, 0]
    heads = torch.searchsorted(tokens.flat_index, out.flat_index)
    rows = torch.arange(len(out))
    assert (share >= 0).all(), "negative shares"
    torch.testing.assert_close(share.sum(1), torch.ones(len(out)), msg="shares do not sum to 1")
    torch.testing.assert_close(share @ tokens.features, out.features, atol=1e-5, rtol=1e-4)

    fair = tokens.weight[heads] / out.weight
    assert (share[rows, heads] >= fair - 1e-5).all(), "a head counts less than its weight"
    per_weight = share / tokens.weight
    per_weight[rows, heads] = 0
    is_even = (per_weight == 0) | ((per_weight - per_weight.amax(1, keepdim=True)).abs() < 1e-5)
    assert is_even.all(), "tokens that joined do not count by their weight"

    assert out.weight.sum() <= tokens.weight.sum() * (1 + 1e-5), "weights stand for too much"
    counted = out.weight @ share
    counted[heads] = 0
    assert (counted <= tokens.weight + 1e-4).all(), "a source token counts twice"


def check_same_input_same_output(plugin: type, clip) -> None:
    tokens = clip((9, 5, 7), "scenes", cues=plugin.needs)
    compress = plugin(keep=0.25)
    first = compress(tokens)
    torch.manual_seed(torch.initial_seed() + 1)
    assert_equal(compress(tokens), first)
    assert_equal(pickle.loads(pickle.dumps(compress))(tokens), first)


def check_constant_input(plugin: type, clip) -> None:
    for value in (0, 1):
        tokens = clip((9, 5, 7), "constant", cues=plugin.needs)
        tokens = replace(tokens, features=tokens.features * value)
        for keep in (0.02, 0.3, 0.8):
            out = plugin(keep=keep)(tokens)
            assert_well_formed(out, tokens, keep)
            torch.testing.assert_close(out.features, tokens.features[: len(out)])


def check_other_precisions(plugin: type, clip) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        dense = clip((9, 5, 7), "scenes", cues=plugin.needs, dtype=dtype)
        dense = replace(dense, deepstack=dense.features[:, None])
        for tokens in (dense, subset(dense)):
            out = plugin(keep=0.25)(tokens)
            assert_well_formed(out, tokens, 0.25)
            torch.testing.assert_close(out.features, out.deepstack[:, 0])
            assert out.features.abs().max() <= tokens.features.abs().max()


def check_already_compressed(plugin: type, clip) -> None:
    for steps in STEPS:
        tokens = subset(clip((steps, 5, 7), "scenes", cues=plugin.needs))
        for keep in KEEPS:
            out = plugin(keep=keep)(tokens)
            assert_well_formed(out, tokens, keep)
            assert_well_formed(plugin(keep=0.5)(out), out, 0.5)


def check_previous_clip(plugin: type, clip) -> None:
    previous = None
    for steps, seed in ((7, 5), (8, 6), (1, 7), (9, 7)):
        tokens = clip((steps, 5, 7), "scenes", cues=plugin.needs, seed=seed)
        before = pickle.loads(pickle.dumps(previous))
        out = plugin(keep=0.25)(tokens, previous)
        assert_well_formed(out, tokens, 0.25)
        if previous is not None:
            assert_equal(previous, before)
            assert_equal(plugin(keep=0.25)(tokens, before), out)
        previous = out


def check_empty_clip(plugin: type, clip) -> None:
    out = plugin(keep=0.25)(clip((0, 5, 7), cues=plugin.needs))
    assert len(out) == 0, "tokens out of nothing"


def peak_bytes(compress: Compressor, tokens: VisualTokens) -> int:
    """The most memory that PyTorch's allocator held for the call, beside the input."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        compress(tokens)
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    assert events, "the profiler saw no allocation: this measurement no longer works"
    live = torch.tensor([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return int(live.cumsum(0).max())


def check_linear_memory(plugin: type, clip) -> None:
    for kind in ("noise", "still"):
        short, long = (clip((t, 6, 6), kind, width=64, cues=plugin.needs) for t in (32, 128))
        compress = plugin(keep=0.25)
        growth = peak_bytes(compress, long) / peak_bytes(compress, short)
        # Linear is 4, or a little more where rounds add up; quadratic is 16.
        assert growth < 5.5, f"4 times the clip takes {growth:.1f} times the memory"


def check_names_its_paper(plugin: type, clip) -> None:
    summary = (plugin.__doc__ or "").strip().splitlines()[0]
    assert re.search(r"\(.*\b(20\d\d|\d{4}\.\d{5})\b.*\)|\bbaseline\b", summary), (
        f"no paper: {summary}"
    )


def check_options(plugin: type, clip) -> None:
    assert plugin.__dataclass_params__.frozen
    assert dataclasses.fields(plugin)[0].name == "keep"
    assert isinstance(plugin.needs, frozenset)
    assert isinstance(plugin(keep=1), Compressor)
    for keep in (0, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="keep must be"):
            plugin(keep=keep)


CHECKS = {name: check for name, check in globals().items() if name.startswith("check_")}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", plugins.names("compressors"))
def test_every_compressor_keeps_the_contract(name, check, clip):
    CHECKS[check](plugins.find("compressors", name), clip)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", plugins.names("compressors"))
def test_every_compressor_stays_on_the_device(name, clip):
    plugin = plugins.find("compressors", name)
    tokens = clip((33, 5, 7), "scenes", cues=plugin.needs)
    moved = replace(
        tokens,
        **{n: getattr(tokens, n).cuda() for n in ("features", "position", "seconds", "weight")},
        cues={name: cue.cuda() for name, cue in tokens.cues.items()},
        frame_cues={name: cue.cuda() for name, cue in tokens.frame_cues.items()},
    )
    out, expected = plugin(keep=0.25)(moved), plugin(keep=0.25)(tokens)
    assert all(value.is_cuda for value in fields(out).values())
    assert_equal(plugin(keep=0.25)(moved), out)
    assert torch.equal(out.position.cpu(), expected.position)
    torch.testing.assert_close(out.features.cpu(), expected.features, atol=1e-4, rtol=1e-4)
