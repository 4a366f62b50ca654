"""A tiny random LLaVA-OneVision, saved as the normal Hugging Face folder that a user would have."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from streamvlm.types import Clip, Evidence, Frame, MemoryRecord, Query
from tests.models.tiny import FAMILIES


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return FAMILIES[0].save(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture
def clip():
    def make(frames=3, start=0.0, stream="/videos/a.mp4", seed=0):
        rng = np.random.default_rng(seed)
        pictures = rng.integers(0, 256, (frames, 31, 47, 3), dtype=np.uint8)
        return Clip(
            stream,
            start,
            start + frames,
            tuple(Frame(stream, i, start + i, p) for i, p in enumerate(pictures)),
        )

    return make


@pytest.fixture
def evidence():
    def make(tokens, clip):
        seconds = np.array([frame.seconds for frame in clip.frames])
        record = MemoryRecord(
            id="r",
            stream=clip.stream,
            start=clip.start,
            end=clip.end,
            keys=np.eye(1, 4, dtype=np.float32),
            tokens=tokens.without_cues(),
            frame_seconds=seconds,
            frame_hash=np.zeros(len(seconds), np.uint64),
            thumbnail=b"",
        )
        return Evidence(record, 1.0)

    return make


@pytest.fixture
def load(folder):
    from streamvlm.models.llava_onevision import LlavaOneVision

    def make(**options):
        return LlavaOneVision(weights=str(folder), **options)

    return make


@pytest.fixture
def question():
    return Query("what colour is the star ?")


@pytest.fixture
def damaged(folder, tmp_path):
    """A copy of the checkpoint to break."""
    return Path(shutil.copytree(folder, tmp_path / "damaged"))


@pytest.fixture(params=[1.0, 0.2])
def demo(evidence, request):
    """The model that ships, and eight frames of which all or some tokens were kept."""
    from streamvlm.models.llava_onevision import LlavaOneVision

    rng = np.random.default_rng(2)
    pictures = rng.integers(0, 256, (8, 12, 12, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    clip = Clip("/v/a.mp4", 0, 8, tuple(Frame("a", i, i, p) for i, p in enumerate(pictures)))
    model = LlavaOneVision()
    tokens = model.encode(clip)
    kept = torch.from_numpy(rng.random(len(tokens))) < request.param
    return model, evidence(tokens.select(kept), clip)
