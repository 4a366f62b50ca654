"""A model of our own adapters with random weights, made where it runs and never written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast

from scripts.gpu.sizes import IM_END, IMAGE, VIDEO, VISION_END, VISION_START, Size
from streamvlm import plugins

_TURN = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ' ' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] if part['type'] == 'video' %}{{ 'VIDEO' }}{% endfor %}"
    "{% for part in m['content'] if part['type'] == 'text' %}{{ '\n' + part['text'] }}{% endfor %}"
    "{% endif %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_model(size: Size, folder: Path, options: Mapping[str, Any]) -> Any:
    """Build the adapter of a family around a network with random weights.

    Args:
        size: of the network.
        folder: an empty one, for the small files of a checkpoint.
        options: of the plug-in, with `device` and `dtype`; not its weights.

    Returns:
        What `plugins.Recipe` would build from a real checkpoint of this size.
    """
    _write_checkpoint(size, folder)
    family = plugins.find("models", size.plugin)
    source = _RandomWeights(family.architecture(), torch.device(options["device"]))
    # Only where the weights come from differs; the name of the module is the plug-in's.
    members = {"architecture": staticmethod(lambda: source), "__module__": family.__module__}
    return type(family.__name__, (family,), members)(weights=str(folder), **options)


@dataclass(frozen=True)
class _RandomWeights:
    """Stands for a class of transformers whose `from_pretrained` reads no weights."""

    real: Any
    device: torch.device

    @property
    def forward(self) -> Any:
        """What the class can take."""
        return self.real.forward

    def from_pretrained(
        self, folder: Path, *, dtype: torch.dtype, attn_implementation: str, **_: Any
    ) -> tuple[Any, dict[str, list[str]]]:
        """Make the network on its device, with random numbers from there."""
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        torch.manual_seed(0)
        with torch.device(self.device):
            network = AutoModelForImageTextToText.from_config(
                config, dtype=dtype, attn_implementation=attn_implementation
            )
        return network, {"missing_keys": []}


def _write_checkpoint(size: Size, folder: Path) -> None:
    """All files of a checkpoint; the weight file holds nothing of the network."""
    config = AutoConfig.for_model(
        size.architecture,
        vision_config=dict(size.vision),
        text_config={
            **size.text,
            "bos_token_id": None,
            "eos_token_id": IM_END,
            "pad_token_id": IM_END,
        },
        tie_word_embeddings=False,
        **size.more,
    )
    config.save_pretrained(folder)
    _tokenizer(size).save_pretrained(folder)
    settings = {
        **size.picture,
        "resample": 3,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "rescale_factor": 1 / 255,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    save_file({"nothing": torch.zeros(1)}, folder / "model.safetensors")


def _tokenizer(size: Size) -> PreTrainedTokenizerFast:
    """A token for each byte: texts are somewhat longer than with real tokenizers."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = {
        "<|im_end|>": IM_END,
        size.slots[0]: IMAGE,
        size.slots[1]: VIDEO,
        "<|vision_start|>": VISION_START,
        "<|vision_end|>": VISION_END,
        "<|im_start|>": VISION_END + 1,
    }
    vocabulary = {letter: number for number, letter in enumerate(letters)} | special
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<|im_end|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            pre_tokenizers.Split("", "isolated"),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        chat_template=_TURN.replace("VIDEO", size.video),
    )
