from __future__ import annotations

import pytest
import torch

from streamvlm.bench.features import video_like
from streamvlm.bench.published.holitom import compress
from streamvlm.compressors.holitom import HoliTom


@pytest.mark.parametrize("steps", [8, 33])
@pytest.mark.parametrize("keep", [0.1, 0.3])
def test_the_published_form_gives_what_ours_gives_in_official_mode(steps, keep):
    tokens = video_like(steps, side=7, width=32)
    ours = HoliTom(keep=keep, compat="official")(tokens)
    assert (ours.weight > 1).any()
    torch.testing.assert_close(compress(tokens, keep), ours.features, atol=1e-5, rtol=0)
