"""The whole flow in one process: ingest, search, ask."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self, cast

from streamvlm.focus import Asked, focused, widened
from streamvlm.illustrate import illustrate, tokens_read
from streamvlm.ingest import Ingested, Progress, Stages, ingest_each
from streamvlm.memory.folder import is_memory
from streamvlm.memory.store import Identity, Memory
from streamvlm.recall import Limits, match_stream, recall
from streamvlm.stopwatch import Stopwatch
from streamvlm.types import Answer, Coverage, Evidence, Query, Usage, Word
from streamvlm.verify import Verdict, verify

MOMENTS = 8
"""How many moments a search gives, where the query does not say."""

NOTHING_FOUND = "Nothing in the memory lies within those limits."
"""The answer when no record is allowed by the query's streams and times."""


@dataclass(frozen=True, slots=True)
class Storage:
    """How a new memory folder is written."""

    payload: Literal["int8", "raw"] = "int8"
    """`int8` halves the size; `raw` keeps tokens bit for bit."""
    sync: Literal["power", "process"] = "power"
    """What a stored record survives: a power cut, or only the end of the process."""


class StreamVLM:
    """Ask hours of video: `ingest` once, `search` and `ask` as often as you like.

    Use it as a context manager, or call `close` when done.

    Args:
        stages: the parts of the flow.
        folder: where the memory is kept; None for a temporary one that goes with this object.
        storage: how a new memory is written.
        limits: how much a question may read by default.
    """

    def __init__(
        self,
        stages: Stages,
        folder: str | Path | None = None,
        *,
        storage: Storage | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.stages = stages
        self._storage, self._limits = storage or Storage(), limits or Limits()
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
        text: str,
        *,
        streams: Sequence[str] = (),
        since: float | None = None,
        until: float | None = None,
        max_records: int | None = None,
    ) -> Query:
        """A question with this object's default budget.

        Args:
            text: the question.
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
        if isinstance(question, str):
            question = self.query(question, max_records=MOMENTS)
        whole = replace(self._as_query(question), max_tokens=sys.maxsize)
        return self._retrieve(whole, Stopwatch())

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
        query, watch = self._as_query(question), Stopwatch()
        evidence = self._read(query, watch)
        words: list[Word] = []
        for word in self._speak(query, evidence, watch):
            words.append(word)
            if on_word is not None:
                on_word(word)
        sure = sum(math.log(max(word.probability, 1e-12)) for word in words) / max(len(words), 1)
        return Answer(
            query=query,
            text="".join(word.text for word in words).strip(),
            confidence=math.exp(sure) if evidence and words else 0.0,
            evidence=evidence,
            coverage=self.coverage(query.streams),
            usage=Usage(
                tokens_read=tokens_read(evidence, self.stages),
                milliseconds=watch.milliseconds,
            ),
        )

    def ask_stream(self, question: str | Query) -> Iterator[Word]:
        """The words of the answer as they come; closing the iterator stops the model.

        Args:
            question: words, or a query with limits.
        """
        query, watch = self._as_query(question), Stopwatch()
        return self._speak(query, self._read(query, watch), watch)

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

    def _speak(
        self, query: Query, evidence: tuple[Evidence, ...], watch: Stopwatch
    ) -> Iterator[Word]:
        if not evidence:
            yield Word(NOTHING_FOUND, 1.0)
            return
        with watch.stage("load"):
            answerer, memory = self.stages.answerer, self._memory()
        with watch.stage("first_word"):
            allow_local = self.stages.sampling.allow_local
            shown = illustrate(evidence, answerer, memory, watch, allow_local=allow_local)
            words = answerer.answer(query, shown)
            first = next(words, None)
        if first is not None:
            yield first
            yield from watch.items("more_words", words)

    def _read(self, query: Query, watch: Stopwatch) -> tuple[Evidence, ...]:
        """What the answerer reads: what was found, cut down by the focus if there is one."""
        focus = self.stages.focus
        if focus is None:
            return self._retrieve(query, watch)
        found = self._retrieve(widened(query, focus), watch)
        if not found:
            return ()
        with watch.stage("load"):
            answerer = cast(Asked, self.stages.answerer)
        with watch.stage("focus"):
            return focused(found, focus, answerer, query)

    def _retrieve(self, query: Query, watch: Stopwatch) -> tuple[Evidence, ...]:
        with watch.stage("load"):
            memory, embedder = self._memory(), self.stages.embedder
        return recall(memory, embedder, query, watch)

    def _as_query(self, question: str | Query) -> Query:
        query = self.query(question) if isinstance(question, str) else question
        if not query.streams:
            return query
        known = self.streams()
        return replace(query, streams=tuple(match_stream(name, known) for name in query.streams))

    def _memory(self) -> Memory:
        if self._reader is None:
            self._reader = Memory.open(self.folder, writable=False)
        return self._reader

    def _forget_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _writer(self) -> Memory:
        self._forget_reader()
        model, embedder = self.stages.model, self.stages.embedder
        identity = Identity(model.model, embedder.model, embedder.width)
        if is_memory(self.folder):
            return Memory.open(self.folder, identity, sync=self._storage.sync)
        return Memory.create(
            self.folder, identity, payload=self._storage.payload, sync=self._storage.sync
        )
