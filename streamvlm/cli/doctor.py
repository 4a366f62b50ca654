"""`streamvlm doctor`: does everything work here? Asks a question through the real path."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import typer

from streamvlm import plugins as registry
from streamvlm.cli import show
from streamvlm.cli.options import AsJson
from streamvlm.cli.pairing import facts, sentence
from streamvlm.errors import MissingDependency

_WIDTH = 24
"""Characters of the column of names."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


def doctor(as_json: AsJson = False) -> None:
    """Say what works here, and ask a canary question through the real path."""
    fine = True
    for finding in _findings():
        fine &= finding.ok
        if as_json:
            show.line(asdict(finding))
        else:
            mark = "ok  " if finding.ok else "FAIL"
            style = None if finding.ok else "red"
            text = f"{mark} {finding.name:<{_WIDTH}} {finding.detail}"
            show.out.print(text, style=style, markup=False)
    if not fine:
        raise typer.Exit(1)


def _findings() -> Iterator[Finding]:
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("python", lambda: f"{platform.python_version()} on {platform.machine()}"),
        ("torch", _torch),
        ("decoding", _decoding),
        ("index", _index),
        ("libraries", _libraries),
        ("configurations", _configurations),
        *_pairings(),
        ("canary", _canary),
    )
    for name, check in checks:
        try:
            yield Finding(name, ok=True, detail=check())
        except Exception as error:  # whatever is broken here is what the user asked to be told
            yield Finding(name, ok=False, detail=f"{type(error).__name__}: {error}")


def _torch() -> str:
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return (
        f"{torch.__version__}, {torch.get_num_threads()} threads, GPU: {', '.join(gpus) or 'none'}"
    )


def _decoding() -> str:
    import av

    wanted = ("h264", "hevc", "vp9", "av1", "mpeg4")
    missing = [codec for codec in wanted if codec not in av.codecs_available]
    return f"PyAV {av.__version__}, " + (f"no {', '.join(missing)}" if missing else "all codecs")


def _index() -> str:
    try:
        import faiss
    except ImportError:
        raise MissingDependency('install FAISS: pip install "streamvlm[cpu]"') from None
    return f"FAISS {faiss.__version__}"


def _libraries() -> str:
    names = ("transformers", "numpy", "ray")
    return ", ".join(f"{name} {version(name)}" for name in names)


def _pairings() -> Iterator[tuple[str, Callable[[], str]]]:
    """A check for each model and compressor: that it can be imported, and with whom it goes."""
    for kind in ("models", "compressors"):
        for name in registry.names(kind):
            yield f"{kind}/{name}", partial(_pairing, kind, name)


def _pairing(kind: str, name: str) -> str:
    return sentence(facts(kind, name))


def _configurations() -> str:
    from streamvlm.config import load, shipped

    return ", ".join(name for name in shipped() if load(name))


def _canary() -> str:
    from streamvlm.bench.canary import canary

    with tempfile.TemporaryDirectory(prefix="streamvlm-doctor-") as folder:
        return canary(Path(folder))
