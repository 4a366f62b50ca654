"""How fast and how small: decoding, stages, memory, compressors, the second question."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from streamvlm.bench.films import camera_film, repeat
from streamvlm.config import load
from streamvlm.plugins import Recipe, names
from streamvlm.types import VisualTokens
from streamvlm.video.sources import Sampling, open_source

_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number."""

    name: str
    """What was measured."""
    value: float | None
    """The number; None if it could not be measured here."""
    unit: str
    how: str = ""
    """Under which conditions, and what it is compared with."""


def conditions() -> dict[str, str]:
    """What the figures depend on: commit, machine, load, versions."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    packages = ("torch", "transformers", "av", "numpy")
    return {
        "commit": commit or "unknown",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": f"{os.getloadavg()[0]:.1f}",
        "versions": ", ".join(f"{name} {version(name)}" for name in packages),
    }


def measure(seconds: int = 60) -> Iterator[Figure]:
    """Measure everything, one figure after the other.

    Args:
        seconds: length of the 720p25 film that is made for it.

    Yields:
        Figures as they are known.
    """
    with tempfile.TemporaryDirectory(prefix="streamvlm-bench-") as folder:
        film = camera_film(Path(folder) / "film.mp4", seconds=seconds)
        yield from decoding(film)
        yield from stages(film)
        yield from peak_memory(film, repeat(film, Path(folder) / "long.mp4", times=4))
    yield from compressors()


def decoding(film: Path) -> Iterator[Figure]:
    """CPU seconds to sample one frame a second, beside the ffmpeg command line.

    Args:
        film: an H.264 file.
    """
    ours, theirs = [], []
    ffmpeg = _ffmpeg()
    for _ in range(_ROUNDS):
        before = time.process_time()
        frames = sum(1 for _ in open_source(str(film), Sampling(fps=1.0, max_side=448)))
        ours.append(time.process_time() - before)
        if ffmpeg:
            theirs.append(_ffmpeg_seconds(ffmpeg, film))
    spent = statistics.median(ours)
    how = f"{frames} frames of 720p25, 1 fps, one thread, median of {_ROUNDS}"
    yield Figure("decode", spent, "CPU s", how)
    if theirs:
        ratio = statistics.median(theirs) / spent
        command = "ffmpeg -threads 1 -vf fps=1,scale=448:252:flags=area -pix_fmt rgb24"
        yield Figure("decode, speed over ffmpeg", ratio, "×", f"against {command}")
    else:
        yield Figure("decode, speed over ffmpeg", None, "×", "ffmpeg is not installed")


def _ffmpeg() -> str | None:
    try:
        import imageio_ffmpeg
    except ImportError:
        return shutil.which("ffmpeg")
    found: str = imageio_ffmpeg.get_ffmpeg_exe()
    return found


def _ffmpeg_seconds(ffmpeg: str, film: Path) -> float:
    wanted = ["-vf", "fps=1,scale=448:252:flags=area", "-pix_fmt", "rgb24", "-f", "rawvideo"]
    command = [ffmpeg, "-v", "error", "-threads", "1", "-i", str(film), *wanted, "-y", os.devnull]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def stages(film: Path) -> Iterator[Figure]:
    """Share of wall time of each stage of an ingest, and what a second question costs.

    Args:
        film: what to ingest.
    """
    with load().build() as vlm:
        (result,) = vlm.ingest(film)
        total = sum(result.usage.milliseconds.values())
        for stage, spent in result.usage.milliseconds.items():
            yield Figure(f"ingest, share of {stage}", 100 * spent / total, "%", "default.yaml")
        assert result.coverage is not None
        speed = result.coverage.seconds / (total / 1000)
        yield Figure("ingest", speed, "video-s/s", "720p25 file, default.yaml")
        vlm.ask("Is there a red square?")
        second = vlm.ask("What colour is the square?").usage
        spent = sum(second.milliseconds.values()) - second.milliseconds.get("more_words", 0.0)
        how = f"{second.frames_decoded} frames decoded, {second.tokens_read} tokens read"
        yield Figure("second question, to the first word", spent, "ms", how)


def peak_memory(film: Path, longer: Path) -> Iterator[Figure]:
    """Peak memory of an ingest in a process of its own, for a film and a longer one.

    Args:
        film: a file.
        longer: the same, several times over.
    """
    short, long = _peak_mib(film), _peak_mib(longer)
    more = 100 * (long / short - 1)
    yield Figure("ingest, peak memory", short, "MiB", "resident set of the whole process")
    yield Figure("ingest, peak memory, 4× the length", more, "% more", f"{long:.0f} MiB")


def _peak_mib(film: Path) -> float:
    code = (
        "import resource, sys, streamvlm\n"
        "with streamvlm.load() as vlm: vlm.ingest(sys.argv[1])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    command = [sys.executable, "-c", code, str(film)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def compressors(steps: int = 32, side: int = 14, width: int = 1024) -> Iterator[Figure]:
    """Milliseconds of each compressor on one clip of random tokens.

    Args:
        steps: T.
        side: rows and columns of a step.
        width: D.
    """
    tokens = _random_tokens(steps, side, width)
    how = f"T={steps}, N={side * side}, D={width}, float32, keep 0.1, median of {_ROUNDS}"
    for name in names("compressors"):
        compress = Recipe("compressors", name, {"keep": 0.1}).build()
        compress(tokens)
        spent = []
        for _ in range(_ROUNDS):
            before = time.perf_counter()
            compress(tokens)
            spent.append(1000 * (time.perf_counter() - before))
        yield Figure(f"compress, {name}", statistics.median(spent), "ms", how)


def _random_tokens(steps: int, side: int, width: int) -> VisualTokens:
    generator = torch.Generator().manual_seed(0)
    grid = torch.meshgrid(
        torch.arange(steps), torch.arange(side), torch.arange(side), indexing="ij"
    )
    position = torch.stack(grid, dim=-1).reshape(-1, 3)
    return VisualTokens(
        model="random",
        features=torch.randn(len(position), width, generator=generator),
        position=position,
        seconds=position[:, 0].double(),
        grid=(steps, side, side),
        weight=torch.ones(len(position)),
        cues={"attention": torch.rand(len(position), generator=generator)},
        frame_cues={"frame_vector": torch.randn(steps, width, generator=generator)},
    )
