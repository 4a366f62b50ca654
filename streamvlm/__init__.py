"""StreamVLM: put hours of video behind a question.

                   ONE STREAM, IN ORDER                       ONE CLIP, ANY PROCESS
             (generators; state = local variables)          (pure functions; no state)
            ┌──────────────────────────────────────┐  ┌──────────────────────────────────┐
 file.mp4 ─▶│ video/sources  video/dedupe   clips  │  │ models/<m>       compressors/<c> │
 folder/  ─▶│ Iterator[Frame] ─▶ [Frame] ─▶ Clip ──┼─▶│ VisualTokens  ─▶  VisualTokens   │
 https:// ─▶│                                      │  │ embedders/<e>: search keys       │
            └──────────────────────────────────────┘  └────────────────┬─────────────────┘
                                                                       ▼ MemoryRecord
 "When did the red car leave?"                  memory/  shards · catalogue · FAISS index
      │ Query                                                          │
      ▼                                                                ▼
 memory/retrieve ─────────────── Evidence (time order, within a token budget) ─┐
                                                                               ▼
 Answer (text · evidence · coverage · usage) ◀── words, as they come ──── models/<m>

In five lines:

    import streamvlm
    vlm = streamvlm.load(memory="lobby/")
    vlm.ingest("video.mp4")
    answer = vlm.ask("When does the red square appear?")
    print(answer, [(found.record.start, found.record.end) for found in answer.evidence])

Importing this package loads neither torch nor ray; names are loaded when first used.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamvlm.config import Config as Config
    from streamvlm.engine import StreamVLM as StreamVLM
    from streamvlm.errors import StreamVLMError as StreamVLMError
    from streamvlm.plugins import Recipe as Recipe
    from streamvlm.types import Answer as Answer
    from streamvlm.types import Coverage as Coverage
    from streamvlm.types import Evidence as Evidence
    from streamvlm.types import Query as Query

__version__ = "0.1.0"

_HOME = {
    "Answer": "types",
    "Config": "config",
    "Coverage": "types",
    "Evidence": "types",
    "Query": "types",
    "Recipe": "plugins",
    "StreamVLM": "engine",
    "StreamVLMError": "errors",
}

__all__ = [
    "Answer",
    "Config",
    "Coverage",
    "Evidence",
    "Query",
    "Recipe",
    "StreamVLM",
    "StreamVLMError",
    "load",
]


def load(
    config: str | Path = "default",
    *,
    memory: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> StreamVLM:
    """A StreamVLM, ready to ingest and to be asked.

    Args:
        config: the name of a shipped configuration (`default`, `gpu`) or a YAML file.
        memory: the folder that keeps what is ingested, made if it is not there; None for a
            temporary one that goes away with the object.
        overrides: assignments such as `compressor.keep=0.2`.

    Raises:
        ConfigError: the configuration cannot work as written.
        MemoryStoreError: the folder cannot be used.
    """
    from streamvlm.config import load as read

    return read(config, overrides).build(memory)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'streamvlm' has no attribute {name!r}")
    return getattr(importlib.import_module(f"streamvlm.{_HOME[name]}"), name)
