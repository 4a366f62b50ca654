"""How weights are loaded: attention kernel, rounding of the language model, size of pictures."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

import torch

from streamvlm.errors import ModelError
from streamvlm.weights import Checkpoint

Attention = Literal["sdpa", "eager", "flash_attention_2"]
Quantisation = Literal["", "bnb_8bit", "bnb_4bit", "torchao_int8"]

UNROUNDED = [
    rf"(?:.*\.)?{name}"
    for name in (
        *("visual", "vision_tower", "vision_model"),
        *("multi_modal_projector", "connector", "lm_head"),
    )
]
"""The eye, what leads from it to the language model, and the head, as patterns of module names."""


def loading(found: Checkpoint, attention: Attention, quantisation: Quantisation) -> dict[str, Any]:
    """The arguments of `from_pretrained` for an attention kernel and rounded weights.

    The eye's weights are never rounded, so that its tokens do not change.

    Args:
        found: the checkpoint.
        attention: the kernel, by transformers' name.
        quantisation: how to round the language model's weights; empty for not at all.

    Raises:
        ModelError: a library or a GPU that this needs is not here.
    """
    if attention == "flash_attention_2":
        from transformers.utils import is_flash_attn_2_available

        if not is_flash_attn_2_available():
            raise ModelError(
                "attention flash_attention_2 needs a CUDA GPU and the package flash-attn, which "
                "are not here; install it, or set attention: sdpa"
            )
        if found.dtype is torch.float32:
            raise ModelError(
                "attention flash_attention_2 computes in half precision only, found dtype "
                "float32; set dtype: bfloat16, or attention: sdpa"
            )
    return {"attn_implementation": attention, **_quantiser(found, quantisation)}


def _quantiser(found: Checkpoint, quantisation: Quantisation) -> dict[str, Any]:
    if not quantisation:
        return {}
    library = "torchao" if quantisation.startswith("torchao") else "bitsandbytes"
    missing = [name for name in (library, "accelerate") if find_spec(name) is None]
    if missing:
        raise ModelError(
            f"quantisation {quantisation} needs {' and '.join(missing)}, not installed here; "
            f"run `pip install {' '.join(missing)}`, or leave quantisation empty"
        )
    if found.device.type != "cuda" and library == "bitsandbytes":
        raise ModelError(
            f"quantisation {quantisation} needs a CUDA GPU, but device is {found.device}; set "
            "device: cuda, or leave quantisation empty"
        )
    return {
        "quantization_config": _rounding(quantisation, found.dtype),
        "device_map": {"": str(found.device)},
    }


def _rounding(quantisation: Quantisation, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if quantisation == "bnb_8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=UNROUNDED)
    if quantisation == "bnb_4bit":
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=UNROUNDED
        )
    from torchao.quantization import Int8WeightOnlyConfig  # type: ignore[import-not-found]

    return TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=UNROUNDED)


def check_pictures(
    source: str, made: tuple[int, int] | None, taken: tuple[int, int], setting: str = "the size"
) -> None:
    """Refuse a preprocessor whose pictures are not the square ones that a tower takes.

    Args:
        source: what to call the checkpoint in the message.
        made: (height, width) of the preprocessor's pictures in pixels.
        taken: (height, width) of the pictures that the tower was made for.
        setting: what to correct in the preprocessor's file.

    Raises:
        ModelError: they differ, or are not square.
    """
    height, width = taken
    if made != taken or height != width:
        raise ModelError(
            f"{source}: the preprocessor makes {made} pictures, but the tower takes "
            f"{height}×{width}; correct {setting} in the preprocessor's file"
        )
