from __future__ import annotations

import pytest
import torch

from streamvlm.bench.features import video_like
from streamvlm.bench.published.prunevid import compress
from streamvlm.compressors.prunevid import PruneVid


@pytest.mark.parametrize(("steps", "side"), [(8, 7), (33, 7), (33, 5)])
def test_the_published_form_gives_what_ours_gives_in_official_mode(steps, side):
    tokens = video_like(steps, side=side, width=32)
    ours = PruneVid(compat="official")(tokens)
    assert (ours.weight > 1).any()
    torch.testing.assert_close(compress(tokens, 0.1), ours.features, atol=1e-5, rtol=0)
