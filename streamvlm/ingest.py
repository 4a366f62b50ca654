"""The left half of the picture: one source → frames → clips → tokens → memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from streamvlm.errors import SourceError, StreamVLMError
from streamvlm.memory.age import naming
from streamvlm.memory.sitting import Sitting, check_known
from streamvlm.memory.store import Memory, StreamInfo
from streamvlm.plugins import Recipe, complete_options
from streamvlm.stopwatch import Stopwatch
from streamvlm.types import Clip, Coverage, MemoryRecord, Span, Usage, VisualTokens
from streamvlm.video.coverage import CoverageLog
from streamvlm.video.pictures import frame_hash, thumbnail
from streamvlm.video.sources import (
    Sampling,
    VideoFile,
    expand,
    identify,
    open_source,
)

if TYPE_CHECKING:
    from streamvlm.protocols import Answerer, Clipper, Compressor, Embedder, Encoder, FrameFilter

    class VideoLLM(Encoder, Answerer):
        """The eye and the mouth of one family."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of one source."""

    stream: str
    """The stream's id, or the URI as given if it could not be opened."""
    coverage: Coverage | None = None
    """What of it was watched; None if it failed."""
    usage: Usage = field(default_factory=Usage)
    """What it cost; all zero if it was in the memory already."""
    error: StreamVLMError | None = None
    """Why it failed, else None."""


Progress = Callable[[VideoFile, float], None]
"""Is told which source is read and how many of its seconds are in the memory."""


class Stages:
    """The parts of the flow, each built when it is first used.

    So `search` loads no language model and `verify` loads no weights at all.

    Args:
        sampling: the section `source`.
        recipes: the plug-in of each other section, as in `Config`.
    """

    def __init__(self, sampling: Sampling, recipes: Mapping[str, Recipe]) -> None:
        self.sampling, self._recipes = sampling, recipes

    @cached_property
    def dedupe(self) -> FrameFilter:
        """Drops frames that show nothing new."""
        built: FrameFilter = self._recipes["dedupe"].build()
        return built

    @cached_property
    def clips(self) -> Clipper:
        """Groups frames into clips."""
        built: Clipper = self._recipes["clips"].build()
        return built

    @cached_property
    def compressor(self) -> Compressor:
        """Gives fewer tokens."""
        built: Compressor = self._recipes["compressor"].build()
        return built

    @cached_property
    def embedder(self) -> Embedder:
        """Makes search keys."""
        built: Embedder = self._recipes["embedder"].build()
        return built

    @cached_property
    def model(self) -> VideoLLM:
        """Encodes clips with the cues that the compressor needs, and answers."""
        model = self._recipes["model"]
        cues = tuple(sorted(self._recipes["compressor"].plugin.needs))
        built: VideoLLM = replace(model, options={**model.options, "with_cues": cues}).build()
        if "answerer" not in self._recipes:
            self._reduce(built)
        return built

    @property
    def focus(self) -> Recipe | None:
        """Compresses what was found once more, with the question in hand; None for not at all."""
        return self._recipes.get("focus")

    @cached_property
    def answerer(self) -> Answerer:
        """Reads evidence and speaks: the model itself, unless another part is named for it."""
        if "answerer" not in self._recipes:
            return self.model
        built: Answerer = self._recipes["answerer"].build()
        self._reduce(built)
        return built

    def _reduce(self, speaker: Any) -> None:
        if "reducer" in self._recipes:
            speaker.reduce_with(self._recipes["reducer"].build())

    @property
    def uses_demo_model(self) -> bool:
        """True if answers come from the checkpoint that ships."""
        speaker = self._recipes.get("answerer", self._recipes["model"])
        return complete_options(speaker.plugin, speaker.options).get("weights") == "demo"

    @property
    def settings(self) -> str:
        """What decides the content of a record, as canonical JSON."""
        parts = [self._recipes[section] for section in ("dedupe", "clips", "compressor")]
        chosen = {
            part.kind: {"name": part.name, **complete_options(part.plugin, part.options)}
            for part in parts
        }
        source = asdict(self.sampling)
        del source["allow_local"]  # says where pictures may come from, not which
        return json.dumps({"source": source, **chosen}, sort_keys=True)


def ingest_each(
    uris: Iterable[str],
    stages: Stages,
    open_memory: Callable[[], Memory],
    progress: Progress | None = None,
) -> Iterator[Ingested]:
    """Read files, URLs and folders one after the other; one that fails never stops the others.

    Args:
        uris: what to read.
        stages: the parts to use.
        open_memory: opens where records go; called once, when the first source is there.
        progress: called after each stored clip.

    Yields:
        What became of each source as soon as it is done; a failed one carries its `error`.

    Raises:
        MemoryStoreError: the memory cannot be opened.
        ModelError: the weights that it is opened with cannot be loaded.
    """
    with ExitStack() as stack:
        memory: Memory | None = None
        for uri in uris:
            try:
                sources = expand(uri)
            except StreamVLMError as error:
                yield Ingested(uri, error=error)
                continue
            for source in sources:
                if memory is None:
                    memory = stack.enter_context(open_memory())
                try:
                    result = ingest(source, stages, memory, progress)
                except StreamVLMError as error:
                    result = Ingested(source, error=error)
                yield result


def ingest(uri: str, stages: Stages, memory: Memory, progress: Progress | None = None) -> Ingested:
    """Read one source to its end and store its clips.

    Repeating it adds nothing; after a crash, repeating it completes the memory.

    Args:
        uri: a file or URL.
        stages: the parts to use.
        memory: where records go; must be writable.
        progress: called after each stored clip.

    Returns:
        What was watched and what it cost.

    Raises:
        SourceError: the source cannot be read, or is not the one that was ingested before.
        MemoryStoreError: the memory cannot be written, or holds the source with other settings, or
            the stream was forgotten meanwhile.
    """
    source = open_source(uri, stages.sampling)
    identity = identify(uri, allow_local=stages.sampling.allow_local)
    info = StreamInfo(
        stream=source.stream,
        size=identity.size,
        digest=identity.digest,
        recipe=stages.settings,
        seconds=0.0,
        coverage=Coverage(source.stream, ()),
        complete=False,
    )
    known = memory.stream(source.stream)
    if known is not None and known.complete:
        check_known(memory, known, info)
        return Ingested(source.stream, known.coverage)
    sitting = Sitting(memory, info)
    watch, log = Stopwatch(), CoverageLog(source.stream)
    frames = log.saw(watch.items("decode", source))
    kept = log.kept(watch.items("dedupe", stages.dedupe(frames)))
    clips = watch.items("clips", stages.clips(kept))
    stored = 0
    try:
        for record in records(clips, stages, watch):
            with watch.stage("store"):
                sitting.append(record)
            stored += len(record.tokens)
            if progress is not None:
                progress(source, record.end)
    except KeyboardInterrupt:
        seen = log.close(None, None)
        if (whole := source.duration or 0.0) > seen.seconds:
            rest = Span(seen.seconds, whole, "gap", "its ingest was interrupted; run it again")
            seen = replace(seen, spans=(*seen.spans, rest))
        sitting.pause(seen)
        raise
    coverage = log.close(source.duration, source.ended_at)
    if not stored:
        raise SourceError(f"{uri}: no picture could be decoded; check that the file is complete")
    with watch.stage("store"):
        coverage = sitting.finish(coverage)
    usage = Usage(
        frames_decoded=watch.counts["decode"],
        frames_kept=watch.counts["dedupe"],
        tokens_stored=stored,
        milliseconds=watch.milliseconds,
    )
    return Ingested(source.stream, coverage, usage)


def records(clips: Iterable[Clip], stages: Stages, watch: Stopwatch) -> Iterator[MemoryRecord]:
    """What is remembered of each clip of one stream.

    Args:
        clips: in the order of time.
        stages: whose model, compressor and embedder look at them.
        watch: is charged for the stages `encode`, `compress`, `embed` and `picture`.
    """
    previous: VisualTokens | None = None
    for clip in clips:
        with watch.stage("encode"):
            tokens = stages.model.encode(clip)
        with watch.stage("compress"):
            # What comes next may read what this one remembers in its cues.
            previous = stages.compressor(tokens, previous)
            tokens = previous.without_cues()
        with watch.stage("embed"):
            keys = stages.embedder.embed_clip(clip)
        with watch.stage("picture"):
            record = MemoryRecord(
                id=record_id(clip),
                stream=clip.stream,
                start=clip.start,
                end=clip.end,
                keys=keys,
                tokens=tokens,
                frame_seconds=np.array([frame.seconds for frame in clip.frames]),
                frame_hash=np.array([frame_hash(f.image) for f in clip.frames], dtype=np.uint64),
                thumbnail=thumbnail(clip.frames[len(clip.frames) // 2].image),
            )
        yield record


def record_id(clip: Clip) -> str:
    """The id of a clip's record: the same for the same stretch of the same stream.

    Returns:
        16 hexadecimal digits.
    """
    return naming.record_id(clip.stream, clip.start, clip.end)
