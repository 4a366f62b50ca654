from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from streamvlm.compressors.fastvid import FastVID
from streamvlm.compressors.fastvid_stream import FastVIDStream

# Narrow features, so that what grows with pairs of tokens and targets is not hidden behind them.
ONE_SEGMENT = [
    FastVID(keep=0.25, segments=1, threshold=-1),
    FastVID(keep=0.25, segments=1, threshold=-1, variant="llava_video"),
    FastVID(keep=0.25, segments=1, threshold=-1, variant="qwen2_5_vl", ignore_above=2),
    FastVIDStream(keep=0.25, quantile=0),
]


def peak_bytes(compress, tokens) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        compress(tokens)
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = torch.tensor([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return int(live.cumsum(0).max())


@pytest.mark.parametrize("method", ONE_SEGMENT, ids=lambda m: getattr(m, "variant", "stream"))
def test_memory_is_linear_in_one_long_still_segment(clip, method):
    short, long = (clip((t, 6, 6), "constant", cues=method.needs) for t in (32, 128))
    growth = peak_bytes(method, long) / peak_bytes(method, short)
    assert growth < 4.5, f"4 times the clip takes {growth:.1f} times the memory"
