"""How fast and how small: decoding, stages, memory, compressors, the second question."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from streamvlm.bench.exam import examinee, fingerprint, shown
from streamvlm.bench.features import video_like
from streamvlm.bench.films import camera_film, repeat
from streamvlm.bench.report import Conditions, Progress, Table, here, silent
from streamvlm.config import Config
from streamvlm.plugins import Recipe, names
from streamvlm.types import Clip, Query
from streamvlm.video.clips.fixed import Fixed
from streamvlm.video.sources import Sampling, open_source

if TYPE_CHECKING:
    from streamvlm.ingest import VideoLLM

_ROUNDS = 3
_SEED = 0
_CLIP, _CLIPS = 8.0, 7
"""Seconds of a clip that is encoded and asked about, and how many of them."""
_QUESTION = "What colour is the square?"


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


ENCODED, FIRST_WORD = "encode, frames a second", "first word from stored tokens, ms"
"""Names of two figures that the model was to reach."""


def conditions(config: Config) -> Conditions:
    """What the figures depend on; the films are the same for every seed."""
    return here(_SEED, fingerprint(config, examinee(config)))


def table(figures: Sequence[Figure]) -> Table:
    """Figures as a table, in the order given."""
    rows = tuple((figure.name, figure.value, figure.unit, figure.how) for figure in figures)
    return Table("Speed", ("figure", "value", "unit", "how"), rows)


def measure(config: Config, seconds: int = 60, progress: Progress = silent) -> Iterator[Figure]:
    """Measure everything, one figure after the other.

    Args:
        config: the parts that ingest, see and answer.
        seconds: length of the 720p25 film that is made for it.
        progress: is told which part is measured.

    Yields:
        Figures as they are known.
    """
    with tempfile.TemporaryDirectory(prefix="streamvlm-bench-") as folder:
        progress("drawing", 0, 1)
        film = camera_film(Path(folder) / "film.mp4", seconds=seconds)
        progress("drawing", 1, 1)
        clips = Fixed(seconds=_CLIP)(open_source(str(film), config.sampling))
        longer = Path(folder) / "long.mp4"
        parts: dict[str, Callable[[], Iterator[Figure]]] = {
            "decoding": lambda: decoding(film),
            "ingest": lambda: stages(film, config),
            "answering": lambda: answering(examinee(config), list(islice(clips, _CLIPS))),
            "memory": lambda: peak_memory(film, repeat(film, longer, times=4), config),
            "compressors": compressors,
        }
        for part, measured in parts.items():
            progress(part, 0, 1)
            yield from measured()
            progress(part, 1, 1)


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


def stages(film: Path, config: Config) -> Iterator[Figure]:
    """Share of wall time of each stage of an ingest, and what a second question costs.

    Args:
        film: what to ingest.
        config: with which parts.
    """
    with config.build() as vlm:
        (result,) = vlm.ingest(film)
        total = sum(result.usage.milliseconds.values())
        for stage, spent in result.usage.milliseconds.items():
            yield Figure(f"ingest, share of {stage}", 100 * spent / total, "%")
        assert result.coverage is not None
        speed = result.coverage.seconds / (total / 1000)
        yield Figure("ingest", speed, "video-s/s", "720p25 file")
        vlm.ask("Is there a red square?")
        second = vlm.ask(_QUESTION).usage
        spent = sum(second.milliseconds.values()) - second.milliseconds.get("more_words", 0.0)
        how = f"{second.frames_decoded} frames decoded, {second.tokens_read} tokens read"
        yield Figure("second question, to the first word", spent, "ms", how)


def answering(model: VideoLLM, clips: Sequence[Clip]) -> Iterator[Figure]:
    """How fast a model sees, and speaks from tokens that it has not read before.

    Args:
        model: what encodes and answers.
        clips: what to look at; the first only warms up.

    Yields:
        `ENCODED` and `FIRST_WORD`; nothing if there are fewer than two clips.
    """
    if len(clips) < 2:
        return
    dense, rates, waited = [], [], []
    for clip in clips:
        before = time.perf_counter()
        dense.append(model.encode(clip))
        rates.append(len(clip.frames) / (time.perf_counter() - before))
    how = f"clips of {len(clips[-1].frames)} frames, median of {len(clips) - 1}"
    yield Figure(ENCODED, statistics.median(rates[1:]), "frames/s", how)
    for clip, tokens in zip(clips, dense, strict=True):
        evidence = (shown(tokens, clip),)
        before = time.perf_counter()
        next(model.answer(Query(_QUESTION), evidence), None)
        waited.append(1000 * (time.perf_counter() - before))
    how = f"{len(dense[-1])} tokens, each time others, median of {len(clips) - 1}"
    yield Figure(FIRST_WORD, statistics.median(waited[1:]), "ms", how)


def peak_memory(film: Path, longer: Path, config: Config) -> Iterator[Figure]:
    """Peak memory of an ingest in a process of its own, for a film and a longer one.

    Args:
        film: a file.
        longer: the same, several times over.
        config: with which parts.
    """
    short, long = _peak_mib(film, config), _peak_mib(longer, config)
    more = 100 * (long / short - 1)
    yield Figure("ingest, peak memory", short, "MiB", "resident set of the whole process")
    yield Figure("ingest, peak memory, 4× the length", more, "% more", f"{long:.0f} MiB")


def _peak_mib(film: Path, config: Config) -> float:
    code = (
        "import pickle, resource, sys\n"
        "with pickle.load(sys.stdin.buffer).build() as vlm: vlm.ingest(sys.argv[1])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    command = [sys.executable, "-c", code, str(film)]
    ran = subprocess.run(command, input=pickle.dumps(config), capture_output=True, check=True)
    return float(ran.stdout)


def compressors(steps: int = 32, side: int = 14, width: int = 1024) -> Iterator[Figure]:
    """Milliseconds of each compressor on one clip of made-up video-like features.

    Args:
        steps: T.
        side: rows and columns of a step.
        width: D.
    """
    tokens = video_like(steps, side, width)
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
