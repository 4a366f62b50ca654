"""Camera-like test films of any length, for measuring speed and memory."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FPS = 25
KEYFRAME_EVERY = 50


def camera_film(path: Path, *, seconds: int, width: int = 1280, height: int = 720) -> Path:
    """Encode a slowly panning textured scene with moving objects, as a fixed-GOP camera would.

    Args:
        path: where to write the mp4.
        seconds: its length.
        width: in pixels.
        height: in pixels.

    Returns:
        The same path.
    """
    random = np.random.default_rng(0)
    coarse = random.integers(40, 200, (height // 40 + 4, width // 40 + 8, 3), dtype=np.uint8)
    scene = coarse.repeat(40, axis=0).repeat(40, axis=1)
    scene = np.clip(scene + random.normal(0, 6, scene.shape), 0, 255).astype(np.uint8)
    options = {"preset": "veryfast", "crf": "25", "bf": "0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = KEYFRAME_EVERY
        for index in range(seconds * FPS):
            picture = scene[:height, index % 160 : index % 160 + width].copy()
            left = (index * 7) % (width - 120)
            picture[height // 2 : height // 2 + 90, left : left + 120] = (220, 40, 40)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def repeat(source: Path, target: Path, *, times: int) -> Path:
    """Join a film to itself without encoding again.

    Args:
        source: an mp4 with one video stream.
        target: where to write.
        times: how often.

    Returns:
        The target.
    """
    with av.open(str(target), "w") as writer:
        offset, out = 0, None
        for _ in range(times):
            with av.open(str(source)) as reader:
                stream = reader.streams.video[0]
                out = out or writer.add_stream_from_template(stream)
                base = stream.time_base or Fraction(1, FPS)
                for packet in reader.demux(stream):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts += offset
                    packet.dts += offset
                    packet.stream = out
                    writer.mux(packet)
                offset += int(Fraction(stream.frames, FPS) / base)
    return target
