"""Evidence as the parts of a chat message: pictures, or stored tokens, each after its time."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from streamvlm.errors import ModelError
from streamvlm.models._evidence import Step, clock, labels, steps
from streamvlm.types import Evidence, MemoryRecord, Query

logger = logging.getLogger(__name__)

_QUALITY = 90
_SUBSETS = frozenset({"llava_onevision", "internvl"})
"""Families of which vLLM takes any number of tokens as one image."""
_GRIDS = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5"})
"""Families of which vLLM takes whole grids only, since their places are counted from the grid."""
_TIMED = frozenset({"qwen3_vl", "qwen3_5"})
"""Of those, the ones that are told the time of each unit."""
_MERGE = 2
"""Patches a side of one token, in all families of `_GRIDS`."""


@dataclass(frozen=True, slots=True, eq=False)
class _Moment:
    """One thing to show."""

    stream: str
    seconds: float
    part: dict[str, Any]


def picture_parts(
    query: Query,
    evidence: Sequence[Evidence],
    *,
    most: int,
    side: int,
    detail: Literal["auto", "low", "high"],
) -> list[dict[str, Any]]:
    """The pictures of some evidence, or its thumbnails where it has none.

    Args:
        query: the question; thumbnails from outside its time are not shown.
        evidence: what to show, in any order.
        most: show at most this many pictures; of more, the evidence with the best scores is shown.
        side: longest side in pixels; smaller pictures are not enlarged.
        detail: how closely the server should look, where it can choose.

    Returns:
        Parts of a chat message in order of stream and time, each picture after its caption.

    Raises:
        ModelError: there is no picture at all.
    """
    shown: list[_Moment] = []
    hint = {} if detail == "auto" else {"detail": detail}
    for item in sorted(evidence, key=lambda each: -each.score):
        for seconds, jpeg in _pictures(query, item, side):
            url = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
            part = {"type": "image_url", "image_url": {"url": url, **hint}}
            shown.append(_Moment(item.record.stream, seconds, part))
    if not shown:
        raise ModelError(
            "there is no picture of the evidence to send; put the video back where it was when it "
            "was ingested, or set answerer.send to tokens"
        )
    return _captioned(shown[:most])


def _pictures(query: Query, item: Evidence, side: int) -> Iterator[tuple[float, bytes]]:
    """Second and JPEG of each picture of one piece of evidence."""
    if item.pictures:
        for seconds, image in sorted(item.pictures.items()):
            yield seconds, _jpeg(image, side)
        return
    record = item.record
    seconds = float(record.frame_seconds[len(record.frame_seconds) // 2])
    if _is_asked_about(query, record, seconds):
        logger.warning("%s at %s: only its thumbnail is shown", record.stream, clock(seconds))
        yield seconds, record.thumbnail


def _is_asked_about(query: Query, record: MemoryRecord, seconds: float) -> bool:
    """Whether a frame of a record is of the query's time, or was still to be seen in it."""
    if query.until is not None and seconds >= query.until:
        return False
    if query.since is None or seconds >= query.since:
        return True
    if not len(record.tokens):
        return False
    # Of what was seen before, the record has only the step that was still to be seen; its time may
    # lie between those of its frames.
    began = record.frame_seconds <= float(record.tokens.seconds[0])
    return seconds >= float(record.frame_seconds[began].max(initial=0.0))


def _jpeg(image: NDArray[np.uint8], side: int) -> bytes:
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=_QUALITY)
    return buffer.getvalue()


def token_parts(evidence: Sequence[Evidence], dtype: torch.dtype) -> list[dict[str, Any]]:
    """The stored tokens of some evidence, for a vLLM server started with `--enable-mm-embeds`.

    Each time step is an item of its own: an image of as many rows as tokens were kept, or, in the
    Qwen line, a video of one unit. What vLLM 0.33 takes was read from its source. A tensor travels
    as the base64 of what `torch.save` writes.

    Args:
        evidence: what to read, in any order.
        dtype: the precision to send.

    Returns:
        Parts of a chat message in order of stream and time, each step after its caption.

    Raises:
        ModelError: the server could not take these tokens at their places.
    """
    return _captioned(
        [
            _Moment(item.record.stream, step.seconds, _token_part(step, dtype))
            for item in evidence
            for step in steps([item])
        ]
    )


def refusal(family: str, keep: float = 1.0) -> str:
    """Why no server could take some tokens; empty if one could.

    Args:
        family: the model that makes them, as their fingerprint begins.
        keep: share of them that is kept, 0–1; below 1 they are taken to be of all steps.
    """
    if family not in _SUBSETS | _GRIDS:
        able = ", ".join(sorted(_SUBSETS | _GRIDS))
        return (
            f"stored tokens of {family} cannot go to a server (those of {able} can); set "
            "answerer.send to images"
        )
    if family in _GRIDS and keep < 1:
        return (
            f"a server takes only whole steps of {family}, but the compressor keeps {keep:g} of "
            "the tokens; set answerer.send to images, or compressor.keep to 1"
        )
    return ""


def _token_part(step: Step, dtype: torch.dtype) -> dict[str, Any]:
    tokens = step.tokens
    family = tokens.model.partition("/")[0]
    if reason := refusal(family):
        raise ModelError(reason)
    if family in _SUBSETS:
        return {"type": "image_embeds", "image_embeds": _saved(tokens.features.to(dtype))}
    _, rows, columns = tokens.grid
    if len(tokens) != rows * columns:
        raise ModelError(
            f"of the step at {clock(step.seconds)}, {len(tokens)} of {rows * columns} tokens are "
            f"left, but a server takes only whole steps of {family}, whose places it counts from "
            "the grid; set answerer.send to images, or ingest with a compressor that keeps all"
        )
    features = tokens.features
    if tokens.deepstack is not None:
        features = torch.cat([features, tokens.deepstack.flatten(1)], dim=1)
    video: dict[str, Any] = {
        "video_embeds": _saved(features.to(dtype)),
        "video_grid_thw": _saved(torch.tensor([1, rows * _MERGE, columns * _MERGE])),
    }
    if family in _TIMED:
        video["timestamps"] = [step.seconds]
    return {"type": "video_embeds", "video_embeds": video}


def _saved(tensor: torch.Tensor) -> str:
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise ModelError(
            f"the stored tokens do not fit into {tensor.dtype}; set answerer.dtype to bfloat16"
        )
    buffer = io.BytesIO()
    # A view would be saved with everything that it is a view of.
    torch.save(tensor.detach().cpu().clone(memory_format=torch.contiguous_format), buffer)
    return base64.b64encode(buffer.getvalue()).decode()


def _captioned(moments: Sequence[_Moment]) -> list[dict[str, Any]]:
    """Parts in order of stream and time, with a line of text before each.

    They are numbered, because some servers put all pictures before all text.
    """
    ordered = sorted(moments, key=lambda moment: (moment.stream, moment.seconds))
    names = labels([moment.stream for moment in ordered])
    parts: list[dict[str, Any]] = []
    for number, moment in enumerate(ordered, start=1):
        source = f" of {names[moment.stream]}" if len(names) > 1 else ""
        caption = f"Picture {number}{source} at {clock(moment.seconds)}:"
        parts += [{"type": "text", "text": caption}, moment.part]
    return parts
