"""The whole flow in one process: ingest, search, ask."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from streamvlm.answering import Inquiry
from streamvlm.ingest import Ingested, Progress, Stages, ingest_each
from streamvlm.likeness import match_stream
from streamvlm.memory.disk.folder import is_memory
from streamvlm.memory.storage import Storage
from streamvlm.memory.store import Identity, Memory
from streamvlm.recall import Limits, Sighting, around, recall, sight
from streamvlm.rerank import Rerank
from streamvlm.stopwatch import Stopwatch
from streamvlm.types import Answer, Coverage, Evidence, Query, Word
from streamvlm.verify import Verdict, verify

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOMENTS = 8
"""How many moments a search gives, where the query does not say."""


class StreamVLM:
    """Ask hours of video: `ingest` once, `search` and `ask` as often as you like.

    Use it as a context manager, or call `close` when done.

    Args:
        stages: the parts of the flow.
        folder: where the memory is kept; None for a temporary one that goes with this object.
        storage: how the memory is kept.
        limits: how much a question may read by default.
        rerank: whether the model looks at candidates one by one before it answers.
    """

    def __init__(
        self,
        stages: Stages,
        folder: str | Path | None = None,
        *,
        storage: Storage | None = None,
        limits: Limits | None = None,
        rerank: Rerank | None = None,
    ) -> None:
        self.stages = stages
        self._storage, self._limits = storage or Storage(), limits or Limits()
        self._rerank = rerank or Rerank()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="streamvlm-")
            folder = Path(self._temporary.name) / "memory"
            self._storage = replace(self._storage, sync="process")
        self.folder = Path(folder)
        self._reader: Memory | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the memory, and delete it if it was a temporary one."""
        self._forget_reader()
        if self._temporary is not None:
            self._temporary.cleanup()

    def ingest(self, uri: str | Path, progress: Progress | None = None) -> list[Ingested]:
        """Watch a file, a URL, or every video of a folder, and remember it.

        What is in the memory already is not watched again. One bad file never stops a folder.

        Args:
            uri: what to watch.
            progress: called after each stored clip.

        Returns:
            What became of each source, in order; a failed one carries its `error`.

        Raises:
            StreamVLMError: nothing at all could be ingested; the first reason.
        """
        found = list(self.ingest_each([uri], progress))
        errors = [result.error for result in found if result.error is not None]
        if errors and len(errors) == len(found):
            raise errors[0]
        return found

    def ingest_each(
        self, uris: Iterable[str | Path], progress: Progress | None = None
    ) -> Iterator[Ingested]:
        """Watch files, URLs and folders one after the other; the memory is opened once for all.

        Args:
            uris: what to watch.
            progress: called after each stored clip.

        Returns:
            What became of each source as soon as it is done; a failed one carries its `error`.

        Raises:
            MemoryStoreError: when iterated, if the memory cannot be written.
            ModelError: when iterated, if the weights cannot be loaded.
        """
        return ingest_each(map(str, uris), self.stages, self._writer, progress)

    def query(
        self,
        text: str = "",
        *,
        like: Sequence[str | Path | NDArray[np.uint8]] = (),
        streams: Sequence[str] = (),
        since: float | None = None,
        until: float | None = None,
        max_records: int | None = None,
    ) -> Query:
        """A question with this object's default budget.

        Args:
            text: the question; for a search it may be empty if there is something to be like.
            like: pictures that what is sought looks like (files, or (H, W, 3) uint8 RGB), and
                moments of the memory that do, such as `video.mp4@00:40`. Words and all of these
                count the same.
            streams: only these streams, each by its path, URL or the end of either.
            since: only what was seen after this second.
            until: only what was seen before this second.
            max_records: read at most so many; None for the configuration's number.
        """
        return Query(
            text,
            streams=tuple(streams),
            since=since,
            until=until,
            max_records=max_records or self._limits.max_records,
            max_tokens=self._limits.max_tokens,
            like=tuple(str(each) if isinstance(each, Path) else each for each in like),
        )

    def search(self, question: str | Query) -> tuple[Evidence, ...]:
        """The moments that bear on a question; no language model is loaded.

        Args:
            question: words, for the best `MOMENTS`, or a query with limits. Nothing is read by a
                model, so the budget of tokens does not count.

        Returns:
            Evidence in time order.

        Raises:
            MemoryStoreError: there is no memory yet, or it was made by another embedder.
        """
        query = replace(self._as_query(question, MOMENTS), max_tokens=sys.maxsize)
        return recall(self._memory(), self.stages.embedder, query, Stopwatch())

    def sightings(self, question: str | Query) -> tuple[Sighting, ...]:
        """The stretches of time in which what is asked about is to be seen.

        Neighbours in time that answer nearly as well are one sighting; no language model is loaded.

        Args:
            question: as for `search`; `max_records` is how many sightings at the most.

        Returns:
            Those at times that the question names, then the others, the best first.
        """
        query = self._as_query(question, MOMENTS)
        return sight(self._memory(), self.stages.embedder, query, Stopwatch())

    def around(self, stream: str, seconds: float, width: float = 60.0) -> tuple[Evidence, ...]:
        """What was seen around a moment; no weights are loaded.

        Args:
            stream: its path or URL, or the end of either.
            seconds: the moment, in seconds of the stream.
            width: so many seconds before and after it, at most an hour.

        Returns:
            Evidence in time order; a score says how much it looks like the moment itself.
        """
        return around(self._memory(), stream, seconds, width)

    def ask(self, question: str | Query, on_word: Callable[[Word], None] | None = None) -> Answer:
        """Answer from the memory. Nothing is decoded or encoded again.

        Args:
            question: words, or a query with limits.
            on_word: called with each piece of the answer as it comes.

        Returns:
            The answer with its evidence, the coverage of every stream it could reach, and usage.

        Raises:
            MemoryStoreError: there is no memory yet, or other weights made it.
            ModelError: the weights cannot be loaded.
        """
        inquiry = self._inquiry(question)
        evidence = inquiry.read()
        words: list[Word] = []
        for word in inquiry.speak(evidence):
            words.append(word)
            if on_word is not None:
                on_word(word)
        return Answer(
            query=inquiry.query,
            text="".join(word.text for word in words).strip(),
            confidence=inquiry.confidence(evidence, words),
            evidence=evidence,
            coverage=self.coverage(inquiry.query.streams),
            usage=inquiry.usage(evidence),
        )

    def ask_stream(self, question: str | Query) -> Iterator[Word]:
        """The words of the answer as they come; closing the iterator stops the model.

        Args:
            question: words, or a query with limits.
        """
        inquiry = self._inquiry(question)
        return inquiry.speak(inquiry.read())

    def streams(self) -> list[str]:
        """The ids of the streams in the memory; none if there is no memory yet."""
        if self._reader is None and not is_memory(self.folder):
            return []
        return [info.stream for info in self._memory().streams()]

    def coverage(self, streams: Sequence[str] = ()) -> tuple[Coverage, ...]:
        """What was watched of each stream; of all streams if none is named."""
        known = self._memory().streams()
        return tuple(info.coverage for info in known if not streams or info.stream in streams)

    def verify(self) -> Iterator[Verdict]:
        """Open every source again and compare each cited frame; loads no weights."""
        return verify(self._memory(), allow_local=self.stages.sampling.allow_local)

    def forget(self, stream: str) -> None:
        """Take a stream out of the memory: its records are never found again.

        Args:
            stream: its path or URL, or the end of either.

        Raises:
            MemoryStoreError: it is not in the memory, or the memory cannot be written.
        """
        found = match_stream(stream, self.streams())
        self._forget_reader()
        with Memory.open(self.folder, sync=self._storage.sync) as memory:
            memory.forget(found)

    def _inquiry(self, question: str | Query) -> Inquiry:
        query, watch = self._as_query(question), Stopwatch()
        with watch.stage("load"):
            memory = self._memory()
        return Inquiry(query, memory, self.stages, self._rerank, watch)

    def _as_query(self, question: str | Query, most: int | None = None) -> Query:
        if isinstance(question, str):
            question = self.query(question, max_records=most)
        known = self.streams() if question.streams else []
        streams = tuple(match_stream(name, known) for name in question.streams)
        return replace(question, streams=streams)

    def _memory(self) -> Memory:
        if self._reader is None:
            self._reader = self._storage.reader(self.folder)
        return self._reader

    def _forget_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _writer(self) -> Memory:
        self._forget_reader()
        model, embedder = self.stages.model, self.stages.embedder
        identity = Identity(model.model, embedder.model, embedder.width)
        return self._storage.writer(self.folder, identity)
