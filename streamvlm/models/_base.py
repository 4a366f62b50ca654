"""What all video-LLM families share: loading, encoding, prompts, answers. A family adds its facts.

Tokens go back into the model by one way only: `input_ids` with as many placeholders as there are
tokens left, explicit `position_ids`, an `attention_mask`, and the stored tokens as
`mm_encoder_outputs`. It is the way that transformers itself takes inside `generate`, so an answer
from all tokens equals the answer from pixels, and any subset of tokens can be read.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any, ClassVar, Literal

import torch

from streamvlm.errors import ModelError
from streamvlm.models._evidence import Step, steps
from streamvlm.models._eye import Eye
from streamvlm.models._loading import loading
from streamvlm.models._places import Dense, Raster, Rule
from streamvlm.models._prompt import Piece, Template, check_room, stored
from streamvlm.models._question import compared
from streamvlm.models._seats import Seats, seats
from streamvlm.models._speak import Voice
from streamvlm.protocols import Reducer
from streamvlm.types import Evidence, Query, VisualTokens, Word
from streamvlm.weights import Checkpoint, enough_memory, open_checkpoint


@dataclass(eq=False, kw_only=True)
class VideoLM(Eye):
    """The eye and the mouth of one family. A family overrides the facts and the hooks.

    Raises:
        ModelError: the weights cannot be found, read or run.
        ValueError: an option is out of range.
    """

    network: Any = field(init=False, repr=False)
    """The Hugging Face model itself, for those who measure it."""

    families: ClassVar[tuple[str, ...]]
    """The `model_type`s of the checkpoints it runs."""
    modality: ClassVar[Literal["video", "image"]] = "video"
    """Under which name transformers takes the tokens back."""
    wrap: ClassVar[tuple[str, str]] = ("", "")
    """What its chat template writes right around a video, and `layout` writes anew."""
    video: ClassVar[str] = ""
    """How its chat template spells a video, if not as one placeholder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        found = open_checkpoint(
            self.weights,
            "answerer",
            self.families,
            device=self.device,
            dtype=self.dtype,
            download=self.download,
        )
        architecture = self.architecture()
        _check_way_in(architecture)
        self._how = self.preprocessing(found.folder)
        tokenizer = found.tokenizer()
        more = loading(found, self.attention, self.quantisation)
        self.network = found.load(architecture, more)
        self._budget = self.budget()
        self.check(found)
        plugin = type(self).__module__.rpartition(".")[2]
        self._model = found.fingerprint(plugin, self._how, self._budget)
        config = self.network.config
        slot: int = getattr(config, f"{self.modality}_token_id")
        self._template = Template(tokenizer, slot, self.weights, video=self.video, wrap=self.wrap)
        slots = {slot, config.image_token_id, getattr(config, "video_token_id", slot)}
        manner = (self.max_new_tokens, self.temperature, self.stop)
        self._voice = Voice(self.network, tokenizer, tuple(sorted(slots)), *manner)
        tapped = set(self.with_cues) - {"frame_vector"}
        self._taps = self.taps() if tapped else None

    # What a family says of itself.

    @staticmethod
    def architecture() -> Any:
        """The class of transformers that runs these checkpoints; imported when asked for."""
        raise NotImplementedError

    def container(self, features: torch.Tensor, deepstack: torch.Tensor | None) -> Any:
        """What `mm_encoder_outputs` holds for the modality; a new object at each call.

        Args:
            features: (n, D), all slots of the prompt in order.
            deepstack: (n, L, D), for models that feed deeper layers.
        """
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        return BaseModelOutputWithPooling(pooler_output=[features])

    def layout(self, evidence: Sequence[Step]) -> Iterator[Piece]:
        """What stands between the beginning of the user's turn and the question.

        Args:
            evidence: the time steps to read, in order; may be empty.
        """
        raise NotImplementedError

    def rule(self) -> Rule:
        """Where the tokens go with positions `full`; by default on one axis."""
        return Raster()

    def check(self, found: Checkpoint) -> None:
        """Refuse a checkpoint whose files do not fit one another; by default none.

        Raises:
            ModelError: they do not.
        """

    # What a user of the model calls.

    def prompt(self, query: Query, evidence: Sequence[Evidence]) -> dict[str, Any]:
        """What the language model is given: the arguments of the stock model's `forward`.

        Args:
            query: the question; its limits are the retriever's business.
            evidence: what to read, in any order; none leaves only the question.

        Raises:
            ModelError: the tokens are of other weights, or do not fit into the context.
        """
        return self._prompts([query], evidence)[0]

    def _prompts(
        self, queries: Sequence[Query], evidence: Sequence[Evidence]
    ) -> list[dict[str, Any]]:
        """Prompts about the same evidence; only the first holds its visual features."""
        for item in evidence:
            if item.record.tokens.model != self.model:
                raise ModelError(
                    f"the stored tokens are of {item.record.tokens.model}, but the model that "
                    f"should read them is {self.model}; load those weights or ingest again"
                )
        pieces = list(self.layout(list(steps(evidence))))
        prompts = [self._words(query, pieces) for query in queries]
        with enough_memory("bringing back stored tokens", "ask with a smaller max_tokens"):
            features, deepstack = stored(pieces, self.network)
        if prompts and features is not None:
            container = self.container(features, deepstack)
            prompts[0]["mm_encoder_outputs"] = {self.modality: container}
        return prompts

    def with_question(self, tokens: VisualTokens, text: str) -> VisualTokens:
        """Say of stored tokens how near they are to the words of a question.

        Args:
            tokens: N tokens of this model.
            text: the question; L words as the tokenizer cuts it.

        Returns:
            The same tokens with the cue `question`, (N, L) float32 cosines of their features with
            the words' input embeddings.

        Raises:
            ModelError: the device has not enough memory.
        """
        with enough_memory("comparing tokens with the question", "ask with a smaller max_tokens"):
            return compared(tokens, self._template.ids(text), self.network.get_input_embeddings())

    def _words(self, query: Query, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Ids, places and mask of one prompt."""
        rule = self.rule() if self.positions == "full" else Dense(self.axes)
        prompt = self._template.write(pieces, query.text, rule)
        context = self.network.config.get_text_config().max_position_embeddings
        check_room(prompt, context - self.max_new_tokens, self.weights)
        device = self.network.device
        return {
            "input_ids": prompt.input_ids.to(device),
            "position_ids": prompt.position_ids.to(device),
            # Without a mask or a cache, transformers reads holes in the positions as the seams of
            # packed sequences and cuts attention there.
            "attention_mask": torch.ones_like(prompt.input_ids, device=device),
        }

    def answer(self, query: Query, evidence: Sequence[Evidence]) -> Iterator[Word]:
        """Answer from the evidence; each word is computed when it is asked for.

        Args:
            query: the question.
            evidence: what to read, in any order.

        Returns:
            The words; closing the iterator stops the work.

        Raises:
            ModelError: at the call, if the tokens are of other weights or do not fit; while
                listening, if the device has not enough memory.
        """
        return self._voice.speak(self.prompt(query, evidence), self._seats(evidence))

    def answer_all(self, queries: Sequence[Query], evidence: Sequence[Evidence]) -> list[str]:
        """Answer several questions about the same evidence at once.

        Args:
            queries: the questions.
            evidence: what to read for all of them, in any order; read once.

        Returns:
            The answers in order; greedy ones are those that `answer` gives.

        Raises:
            ModelError: the tokens are of other weights, do not fit, or the device has not enough
                memory.
        """
        return self._voice.speak_all(self._prompts(queries, evidence), self._seats(evidence))

    def reduce_with(self, reducer: Reducer | None) -> None:
        """From the next answer on, drop or merge visual tokens inside the language model.

        A reducer that asks the question reads the evidence anew for each; `answer_all` then
        answers one by one.

        Args:
            reducer: what decides; None for nothing.

        Raises:
            ModelError: this model cannot let go of tokens between its layers, or not there.
        """
        self._voice = replace(self._voice, reducer=reducer)

    def _seats(self, evidence: Sequence[Evidence]) -> Seats | None:
        """What stands in the slots of a prompt, if somebody is there to choose among them."""
        if self._voice.reducer is None:
            return None
        order = list(steps(evidence))
        return seats(order, list(self.layout(order)))


def _check_way_in(architecture: Any) -> None:
    if "mm_encoder_outputs" not in inspect.signature(architecture.forward).parameters:
        raise ModelError(
            f"{architecture.__name__} of transformers {version('transformers')} takes no stored "
            "tokens (mm_encoder_outputs); install transformers 5.23 or newer"
        )
