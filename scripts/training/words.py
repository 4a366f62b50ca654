"""The demo's tokenizer: every word of its world is one token."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from streamvlm.bench.world import COLOURS, HEADINGS, NUMBERS, SHAPES
from streamvlm.bench.world.questions import ABSTENTIONS, NOTHING, PHRASINGS

SPECIAL = ("<pad>", "<unk>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<video>\n{% elif part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)


def vocabulary() -> list[str]:
    """Special tokens, then words; a word that follows a space starts with ▁."""
    phrases = [phrase for ways in PHRASINGS.values() for phrase in ways]
    said = " ".join(phrases).lower().replace("?", " ").replace(",", " ").split()
    words = [word for word in said if not word.startswith("{")]
    words += [word for answer in ABSTENTIONS for word in answer.split()]
    words += [
        NOTHING,
        *COLOURS,
        *SHAPES,
        *HEADINGS,
        *NUMBERS,
        "yes",
        "no",
        "centre",
        "top",
        "bottom",
    ]
    words += ["user", "assistant", "system", "an", "and", "at", "of", "with", "video"]
    numbers = [f"{number:02d}" for number in range(100)]
    spaced = sorted({f"▁{word}" for word in words}) + [f"▁{number}" for number in numbers]
    return [*SPECIAL, *spaced, *numbers, ":", "?", ",", "."]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that gives `00:12` back as it was: spaces belong to the words after them."""
    words = {word: index for index, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            pre_tokenizers.Split(Regex(r"[:?,.]"), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<image>", "<video>"],
        chat_template=_TEMPLATE,
        model_max_length=8192,
    )
