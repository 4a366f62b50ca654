"""Open a file or URL with FFmpeg's libraries, or say in one sentence why that cannot be done."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from streamvlm.errors import SourceError
from streamvlm.video.remote import RemoteFile, is_url

_URL_BUFFER_BYTES = 2**18
_LISTS = frozenset({"concat", "hls", "dash", "image2", "sdp", "imf"})
"""Formats that name other files, which nobody asked to be read."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What is known of an open video stream, copied: touching a closed one can crash Python."""

    format: str
    """FFmpeg's name of the container, such as `mov,mp4,m4a`."""
    codec: str
    """FFmpeg's name of the decoder."""
    time_base: float
    """Seconds per tick of the timestamps."""
    period: float
    """Usual time between two pictures in seconds, as far as the container says."""
    aspect: Fraction
    """Width of a pixel divided by its height."""
    promised_end: float | None
    """Timestamp in seconds at which the container says the video ends, None if it does not."""

    @property
    def is_avi(self) -> bool:
        """AVI stores no display times: the decoder's order counts."""
        return self.format == "avi"

    @property
    def is_matroska(self) -> bool:
        """Matroska and WebM promise one length for all streams together."""
        return "matroska" in self.format


def read_traits(container: InputContainer, video: VideoStream) -> Traits:
    """Copy what is needed of an open stream to plain values.

    Args:
        container: open.
        video: one of its streams.
    """
    assert video.time_base is not None
    time_base = float(video.time_base)
    rate = video.guessed_rate or video.average_rate
    name = container.format.name
    end: float | None = None
    if name.startswith("mov") and video.duration:
        end = ((video.start_time or 0) + video.duration) * time_base
    elif "matroska" in name and container.duration:
        end = container.duration / av.time_base
    return Traits(
        format=name,
        codec=video.codec_context.codec.name,
        time_base=time_base,
        period=1.0 / float(rate) if rate else 0.04,
        aspect=video.sample_aspect_ratio or Fraction(1),
        promised_end=end,
    )


@contextmanager
def opened(
    uri: str, stream: str, *, allow_local: bool
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a source and choose its best video stream.

    Args:
        uri: path or http(s) URL.
        stream: what to call it in messages.
        allow_local: see `Sampling`.

    Returns:
        The container and the stream; neither may be touched after the `with` block.

    Raises:
        SourceError: with what is wrong and what to do.
    """
    with ExitStack() as stack:
        target: Any = str(local_file(uri)) if not is_url(uri) else None
        # A playlist inside a file must not make FFmpeg open anything that was not checked.
        protocols = "file" if target else "none"
        if target is None:
            target = stack.enter_context(RemoteFile(uri, allow_local=allow_local))
        try:
            container = av.open(
                target,
                metadata_errors="replace",
                options={"protocol_whitelist": protocols},
                buffer_size=_URL_BUFFER_BYTES,
            )
        except av.error.FFmpegError as error:
            raise SourceError(f"{stream}: {_why_not(uri)}") from error
        stack.enter_context(container)
        if (kind := container.format.name) in _LISTS:
            raise SourceError(f"{stream}: is a list of other files ({kind}); give those files")
        yield container, _best_video(container, stream)


def local_file(uri: str) -> Path:
    """The path of a readable, non-empty, regular file.

    Raises:
        SourceError: if it is not one.
    """
    path = Path(uri).absolute()
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode) and found.st_size:
            with path.open("rb"):
                return path
    except FileNotFoundError:
        raise SourceError(f"{path}: there is no such file; check the spelling") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise SourceError(f"{path}: cannot be read ({why}); check its permissions") from None
    if stat.S_ISDIR(found.st_mode):
        raise SourceError(f"{path}: is a folder; name the video files in it")
    if not stat.S_ISREG(found.st_mode):
        raise SourceError(f"{path}: is not a regular file; give a video file")
    raise SourceError(f"{path}: is empty (0 bytes); copy or download it again")


def _why_not(uri: str) -> str:
    if is_url(uri):
        return "does not lead to a video that can be read; check that it opens in a player"
    with open(uri, "rb") as file:
        head = file.read(12)
    if head[4:8] in (b"ftyp", b"moov", b"mdat"):
        return (
            "its index (moov) is missing or damaged, as in a recording or copy that was cut off; "
            "copy it again or repair it with a tool such as untrunc"
        )
    return "is not a video (no known video format was found in it); give a video file"


def _best_video(container: InputContainer, stream: str) -> VideoStream:
    video = container.streams.best("video")
    # The cover picture of a song counts as a video stream in FFmpeg.
    if isinstance(video, VideoStream) and not video.disposition & Disposition.attached_pic:
        if not getattr(video, "codec_context", None):
            raise SourceError(
                f"{stream}: its video codec is not known to this FFmpeg; convert it to H.264"
            )
        return video
    found = ", ".join(sorted({each.type for each in container.streams if each is not video}))
    raise SourceError(
        f"{stream}: no video stream (found: {found or 'nothing'}); give a file with a picture"
    )
