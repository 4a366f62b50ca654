"""The sizes of public checkpoints, as numbers, and the same models in small for a rehearsal.

Speed does not depend on what the weights are, so none are needed to measure it. The numbers are
those of the public configuration files, from memory, since this was written without a network; a
test checks them by the parameters and the bytes of keys and values that they come to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Settings = Mapping[str, Any]

IM_END, VIDEO, IMAGE, VISION_START, VISION_END = range(256, 261)
"""Ids of the special tokens; smaller ones are single bytes. Real ids are larger, which costs
nothing."""


@dataclass(frozen=True)
class Size:
    """A checkpoint in numbers."""

    name: str
    """What to call it."""
    plugin: str
    """The family that runs it."""
    architecture: str
    """`model_type` of its configuration."""
    vision: Settings
    """Its `vision_config`."""
    text: Settings
    """Its `text_config`."""
    source: str
    """Where the numbers are from."""
    more: Settings
    """The rest of its configuration."""
    picture: Settings
    """What its preprocessor's file holds beside mean, std and scale."""
    slots: tuple[str, str]
    """How image and video tokens are spelled."""
    video: str
    """How its chat template spells a video."""


_QWEN2_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}
_LLAVA: Settings = {
    "plugin": "llava_onevision",
    "architecture": "llava_onevision",
    "more": {"image_token_index": IMAGE, "video_token_index": VIDEO},
    "slots": ("<image>", "<video>"),
    "video": "<video>",
}
_QWEN: Settings = {
    "more": {
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "vision_start_token_id": VISION_START,
        "vision_end_token_id": VISION_END,
    },
    "picture": {"size": {"shortest_edge": 3136, "longest_edge": 12845056}},
    "slots": ("<|image_pad|>", "<|video_pad|>"),
    "video": "<|vision_start|><|video_pad|><|vision_end|>",
}

LLAVA_ONEVISION_7B = Size(
    name="LLaVA-OneVision 7B",
    source="config.json of llava-hf/llava-onevision-qwen2-7b-ov-hf (SigLIP so400m, Qwen2-7B)",
    vision={
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 26,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
        "vision_use_head": False,
    },
    text={
        **_QWEN2_7B,
        "model_type": "qwen2",
        "vocab_size": 152128,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
    picture={"size": {"height": 384, "width": 384}},
    **_LLAVA,
)
QWEN25_VL_7B = Size(
    name="Qwen2.5-VL 7B",
    plugin="qwen2_5_vl",
    architecture="qwen2_5_vl",
    source="config.json of Qwen/Qwen2.5-VL-7B-Instruct",
    vision={
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
    },
    text={
        **_QWEN2_7B,
        "vocab_size": 152064,
        "max_position_embeddings": 128000,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [16, 24, 24],
        },
    },
    **_QWEN,
)
QWEN3_VL_8B = Size(
    name="Qwen3-VL 8B",
    plugin="qwen3_vl",
    architecture="qwen3_vl",
    source="config.json of Qwen/Qwen3-VL-8B-Instruct",
    vision={
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_heads": 16,
        "out_hidden_size": 4096,
        "patch_size": 16,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [8, 16, 24],
    },
    text={
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 262144,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5e6,
            "mrope_section": [24, 20, 20],
            "mrope_interleaved": True,
        },
    },
    **_QWEN,
)

_TINY_TEXT: Settings = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 300,
}
_TINY_EYE: Settings = {"hidden_size": 32, "intermediate_size": 48}


def tiny(size: Size) -> Size:
    """The same kind of model in small: it takes the same way through the code, at no cost.

    Args:
        size: a checkpoint of true size.
    """
    vision = {**size.vision, **_TINY_EYE}
    text = {**size.text, **_TINY_TEXT}
    if size.plugin == "llava_onevision":
        small: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56}
        picture: Settings = {"size": {"height": 56, "width": 56}}
    else:
        small = {"depth": 2, "num_heads": 2, "out_hidden_size": 32}
        changed: dict[str, Any] = {
            "fullatt_block_indexes": [1],
            "deepstack_visual_indexes": [0, 1],
            "num_position_embeddings": 16,
        }
        small |= {name: value for name, value in changed.items() if name in vision}
        text["rope_parameters"] = {**text["rope_parameters"], "mrope_section": [4, 2, 2]}
        picture = size.picture
    return Size(
        name=f"{size.name}, tiny",
        plugin=size.plugin,
        architecture=size.architecture,
        vision={**vision, **small},
        text=text,
        source="made up for a rehearsal",
        more=size.more,
        picture=picture,
        slots=size.slots,
        video=size.video,
    )


SIZES = (LLAVA_ONEVISION_7B, QWEN25_VL_7B, QWEN3_VL_8B)
"""Those that are measured."""
