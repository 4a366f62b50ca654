"""One answer as it grows: what may be said already, and when it has ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from streamvlm.types import Word


@dataclass(slots=True, eq=False)
class Speech:
    """The tokens of one answer, turned into pieces of text that never have to be taken back."""

    tokenizer: Any
    """A Hugging Face tokenizer."""
    end_ids: frozenset[int]
    """The ids that end an answer; they are not said."""
    stop: tuple[str, ...]
    """The words that end an answer; they are not said."""
    max_tokens: int
    """It ends after this many tokens."""
    said: list[int] = field(default_factory=list, init=False)
    """The tokens so far."""
    ended: bool = field(default=False, init=False)
    """True if nothing more is to come from the model."""
    text: str = field(default="", init=False)
    """The answer so far, without what is held back."""
    _whole: str = field(default="", init=False)
    _chance: float = field(default=1.0, init=False)

    def hear(self, token: int, chance: float) -> Word | None:
        """Take the next token.

        Args:
            token: its id; ignored once the answer has ended.
            chance: the probability that the model gave it, 0 to 1.

        Returns:
            What can be said now that could not before, or None.
        """
        if self.ended:
            return None
        if token in self.end_ids:
            self.ended = True
            return None
        self.said.append(token)
        self._chance *= chance
        self._whole = self._decode()
        self.ended = len(self.said) >= self.max_tokens
        cuts = [at for word in self.stop if (at := self._whole.find(word)) >= 0]
        if cuts:
            self.ended = True
            self._whole = self._whole[: min(cuts)]
        # Half a character decodes to U+FFFD; hold it back until the rest has come.
        if self._whole.endswith("\ufffd"):
            return None
        held = 0 if cuts else self._beginning_of_stop()
        return self._hand_out(len(self._whole) - held)

    def rest(self) -> Word | None:
        """What was held back, when the answer has ended; None if there is nothing."""
        return self._hand_out(len(self._whole))

    def _hand_out(self, end: int) -> Word | None:
        start = len(self.text)
        if end <= start:
            return None
        self.text = self._whole[:end]
        word, self._chance = Word(self.text[start:], self._chance), 1.0
        return word

    def _beginning_of_stop(self) -> int:
        """How many of the last characters may be the beginning of a stop word."""
        lengths = range(max(map(len, self.stop), default=0) - 1, 0, -1)
        ends = (n for n in lengths if any(w.startswith(self._whole[-n:]) for w in self.stop))
        return next(ends, 0)

    def _decode(self) -> str:
        text: str = self.tokenizer.decode(
            self.said, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text
