"""From what a user names to a source of frames: files, folders, http(s) URLs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from streamvlm.errors import SourceError
from streamvlm.types import Frame
from streamvlm.video.decode import Decoding, Reader
from streamvlm.video.identity import SourceIdentity, identify
from streamvlm.video.opening import opened
from streamvlm.video.pictures import Painter
from streamvlm.video.remote import is_url, without_credentials
from streamvlm.video.sampling import Sampling
from streamvlm.video.survey import survey

__all__ = ["Sampling", "SourceIdentity", "VideoFile", "expand", "identify", "open_source"]

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg"}
    | {".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
)
"""File endings that count as video when a folder is read."""


def expand(uri: str) -> list[str]:
    """The single sources behind what a user named.

    Args:
        uri: a file or URL stands for itself, a folder for its video files at any depth, sorted.

    Raises:
        SourceError: nothing is there, or the folder has no video file.
    """
    _check_scheme(uri)
    if is_url(uri):
        return [uri]
    path = Path(uri)
    if not os.path.exists(path):
        raise SourceError(f"{path}: there is no such file or folder; check the spelling")
    if not path.is_dir():
        return [uri]
    found = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(path)
        for name in names
        if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".")
    ]
    if not found:
        raise SourceError(
            f"{path}: has no video files in it (endings such as .mp4, .mkv, .webm); "
            "name another folder or the files themselves"
        )
    return sorted(found)


def open_source(uri: str, sampling: Sampling) -> VideoFile:
    """Open one video and make sure that it can be decoded.

    Args:
        uri: path of a file or http(s) URL.
        sampling: which pictures to hand on.

    Raises:
        SourceError: with what is wrong with it and what to do.
    """
    _check_scheme(uri)
    try:
        uri.encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"{uri!a}: the name is not valid UTF-8; rename it") from error
    return VideoFile(uri, sampling)


def _check_scheme(uri: str) -> None:
    name = without_credentials(uri)
    if uri[:5].lower() == "file:":
        raise SourceError(f"{name}: file: URLs are not read; give the plain path instead")
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", uri) and not is_url(uri):
        raise SourceError(
            f"{name}: this kind of URL is not read; give a file, a folder or an http(s) URL"
        )


class VideoFile:
    """A video file or URL as a `Source`; every iteration decodes it from the start.

    Args:
        uri: path or http(s) URL.
        sampling: which pictures to hand on.

    Raises:
        SourceError: when made, if it cannot be read or has no picture.
    """

    def __init__(self, uri: str, sampling: Sampling) -> None:
        self._uri = uri
        self._sampling = sampling
        self._stream = without_credentials(uri) if is_url(uri) else os.path.abspath(uri)
        self._duration = survey(uri, self._stream, allow_local=sampling.allow_local)
        self._ended_at: float | None = None

    def __repr__(self) -> str:
        return f"VideoFile({self._stream!r}, {self._duration:.3f} s)"

    @property
    def stream(self) -> str:
        """Absolute path, or URL without user and password."""
        return self._stream

    @property
    def live(self) -> bool:
        """False: a file ends."""
        return False

    @property
    def duration(self) -> float:
        """Seconds from the first picture to the end that the file promises."""
        return self._duration

    @property
    def ended_at(self) -> float | None:
        """Where the last picture really ended, in seconds; None until an iteration has ended."""
        return self._ended_at

    def __iter__(self) -> Iterator[Frame]:
        """Decode, in time order.

        Raises:
            SourceError: the file is gone or the connection broke.
        """
        self._ended_at = None
        sampling = self._sampling
        with opened(self._uri, self._stream, allow_local=sampling.allow_local) as source:
            reader = Reader(*source)
            decoding = Decoding(
                reader,
                Painter(sampling.max_side, reader.traits.aspect),
                step=sampling.step_seconds(self._duration),
                max_frames=sampling.max_frames,
            )
            for index, sample in enumerate(decoding):
                yield Frame(self._stream, index, sample.seconds, sample.image, sample.lost)
        self._ended_at = decoding.ended_at
