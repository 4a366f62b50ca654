"""What an hour of a stream takes on disk, at one frame a second, as it is stored for real."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from streamvlm.bench.memory_data import unit
from streamvlm.bench.memory_plan import Plan
from streamvlm.bench.memory_report import Hour
from streamvlm.memory.age.naming import record_id
from streamvlm.memory.disk.codec import Head, keys_bytes
from streamvlm.memory.store import Identity, Memory
from streamvlm.types import Clip, Frame, MemoryRecord, VisualTokens
from streamvlm.video.clips.fixed import Fixed
from streamvlm.video.dedupe.still import Still
from streamvlm.video.pictures import frame_hash, thumbnail

_SIZE = (252, 448)
"""Rows and columns of a picture, in pixels."""
_CLIP_SECONDS = 8.0
_KEEP = 0.1
_NOISE = 4.0
"""Levels of 255: of a small camera indoors."""
_LIKE_THE_NEXT = 0.98
"""Cosine of the keys of neighbouring frames."""
_STREAM = "rtsp://192.168.178.20:554/stream1"
_ENCODER = "llava_onevision/llava-onevision-qwen2-7b-ov-hf 0123456789ab float16 384px"
"""As long as a fingerprint is: every record carries it."""


@dataclass(frozen=True, slots=True)
class Model:
    """What of a model decides how much is stored."""

    name: str
    tokens: int
    """N of a frame, before compression."""
    width: int
    """D of a token."""
    key_width: int
    """E of the embedder's keys, one a frame."""


MODELS = (
    Model("the demo model", 36, 192, 128),
    Model("LLaVA-OneVision-7B, SigLIP so400m", 196, 3584, 1152),
)
"""The one that is shipped, and one of the size that people use."""
MOVING, STILL = "moving, no frame dropped", "still, frames dropped by `still`"
PROMISED = {MOVING: 0.25, STILL: 0.1}
"""GiB an hour at the most."""


def hours(plan: Plan, folder: Path) -> Iterator[Hour]:
    """An hour of each camera, as stored with each model."""
    seconds = range(plan.hour)
    seen = {
        MOVING: list(_clips(_moving(seconds))),
        STILL: list(_clips(Still()(_noisy(seconds)))),
    }
    for model in MODELS:
        for camera, clips in seen.items():
            yield _hour(folder / "hour", model, camera, clips, plan.hour)


def _clips(frames: Iterable[Frame]) -> Iterator[tuple[Clip, bytes]]:
    """Clips with the thumbnail of their middle frame; pictures are not held."""
    for clip in Fixed(seconds=_CLIP_SECONDS)(frames):
        middle = clip.frames[len(clip.frames) // 2].image
        picture = thumbnail(middle)
        hashes = [frame_hash(frame.image) for frame in clip.frames]
        blank = np.zeros((1, 1, 3), np.uint8)
        light = tuple(
            Frame(each.stream, number, each.seconds, blank)
            for each, number in zip(clip.frames, hashes, strict=True)
        )
        yield Clip(clip.stream, clip.start, clip.end, light), picture


def _scene(dice: np.random.Generator) -> NDArray[np.float32]:
    """A room: smooth light, edges of things, texture; wider than a picture."""
    rows, columns = _SIZE[0], 2 * _SIZE[1]
    light = np.linspace(60, 150, columns, dtype=np.float32)[None, :, None]
    scene = np.broadcast_to(light, (rows, columns, 3)).copy()
    for _ in range(60):
        top, left = dice.integers(0, rows - 20), dice.integers(0, columns - 20)
        high, wide = dice.integers(10, 90, 2)
        scene[top : top + high, left : left + wide] = dice.integers(20, 230, 3)
    return scene + dice.normal(0, 6, scene.shape).astype(np.float32)


def _moving(seconds: Iterable[int]) -> Iterator[Frame]:
    """A camera that pans to and fro."""
    dice = np.random.default_rng(0)
    scene, columns = _scene(dice), _SIZE[1]
    for second in seconds:
        left = abs(second * 5 % (2 * columns) - columns)
        yield _frame(second, scene[:, left : left + columns], dice)


def _noisy(seconds: Iterable[int]) -> Iterator[Frame]:
    """A camera that stands, in light that changes slowly."""
    dice = np.random.default_rng(1)
    scene = _scene(dice)[:, : _SIZE[1]]
    for second in seconds:
        yield _frame(second, scene * (1 + 0.1 * np.sin(second / 600)), dice)


def _frame(second: int, picture: NDArray[np.float32], dice: np.random.Generator) -> Frame:
    noise = dice.standard_normal(picture.shape, np.float32)
    image = np.clip(picture + _NOISE * noise, 0, 255).astype(np.uint8)
    return Frame(_STREAM, second, float(second), image)


def _hour(
    path: Path, model: Model, camera: str, clips: list[tuple[Clip, bytes]], seconds: int
) -> Hour:
    """Write all records of a camera into a memory, and look at the folder."""
    stored = frames = pictures = features = 0
    with Memory.create(
        path, Identity(_ENCODER, _ENCODER, model.key_width), sync="process"
    ) as memory:
        for record in _records(model, clips):
            memory.append([record])
            stored += len(record.tokens)
            frames += len(record.frame_seconds)
            pictures += len(record.thumbnail)
    blocks = -(-model.width // 64)
    features = stored * (model.width + 2 * blocks)
    keys = _key_bytes(path, model.key_width)
    total = _bytes(path)
    shutil.rmtree(path)
    whole = 3600 / seconds
    parts = {"features": features, "keys": keys, "thumbnails": pictures}
    parts["the rest"] = total - sum(parts.values())
    return Hour(
        model=model.name,
        camera=camera,
        frames=round(frames * whole),
        records=round(len(clips) * whole),
        tokens=round(stored * whole),
        bytes=round(total * whole),
        parts=tuple((name, round(size * whole)) for name, size in parts.items()),
        wanted=PROMISED[camera],
    )


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _key_bytes(path: Path, width: int) -> int:
    """Of all keys in the shards."""
    total = 0
    for shard in (path / "shards").iterdir():
        content, at = shard.read_bytes(), 0
        while at < len(content):
            head = Head.parse(content[at : at + 64], str(at))
            total += keys_bytes(head.num_keys, head.num_indexed, width) - 64
            at += head.packed_bytes
    return total


def _records(model: Model, clips: list[tuple[Clip, bytes]]) -> Iterator[MemoryRecord]:
    dice = np.random.default_rng(2)
    torch_dice = torch.Generator().manual_seed(2)
    key = unit(dice.standard_normal(model.key_width, np.float32))
    for clip, picture in clips:
        seconds = np.array([frame.seconds for frame in clip.frames])
        keys = []
        for _ in clip.frames:
            other = unit(dice.standard_normal(model.key_width, np.float32))
            key = unit(_LIKE_THE_NEXT * key + np.sqrt(1 - _LIKE_THE_NEXT**2) * other)
            keys.append(key.astype(np.float32))
        yield MemoryRecord(
            id=record_id(clip.stream, clip.start, clip.end),
            stream=clip.stream,
            start=clip.start,
            end=clip.end,
            keys=np.stack(keys),
            tokens=_tokens(model, seconds, torch_dice),
            frame_seconds=seconds,
            frame_hash=np.array([frame.index for frame in clip.frames], np.uint64),
            thumbnail=picture,
        )


def _tokens(model: Model, seconds: NDArray[np.float64], dice: torch.Generator) -> VisualTokens:
    """A tenth of a clip's tokens, as a method leaves them that merges what it drops."""
    steps, side = len(seconds), round(model.tokens**0.5)
    dense = steps * model.tokens
    count = max(1, round(_KEEP * dense))
    place = torch.randperm(dense, generator=dice)[:count].sort().values
    merged = torch.randint(count, (dense - count,), generator=dice)
    step = place // model.tokens
    position = torch.stack([step, place % model.tokens // side, place % side], dim=1)
    return VisualTokens(
        model=_ENCODER,
        features=torch.randn(count, model.width, generator=dice).half(),
        position=position,
        seconds=torch.from_numpy(seconds)[step],
        grid=(steps, side, side),
        weight=torch.bincount(merged, minlength=count).float() + 1,
    )
