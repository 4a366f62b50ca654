"""Tiny random models of every family, saved as the normal Hugging Face folders of a user.

To add a family: one function that makes its network, and one entry in `FAMILIES`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from streamvlm.models._lanczos import read_twice
from streamvlm.pixels import normalise, patchify, read_preprocessing, resize

WORDS = (
    "user assistant what colour is the star red blue green square when where "
    "? : . 00 01 02 03 04 05 06 07 mp4 cam a b"
)
START = ["<pad>", "<unk>", "<|im_start|>", "<|im_end|>"]
TURN = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ' ' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] if part['type'] == 'video' %}{{ 'VIDEO' }}{% endfor %}"
    "{% for part in m['content'] if part['type'] == 'text' %}{{ '\n' + part['text'] }}{% endfor %}"
    "{% endif %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SIDE, PATCHES = 20, 5  # 5×5 patches pool to 3×3: an odd side, so that the rounding up is tested

Inputs = Mapping[str, Any]


def fixed_pixels(folder, images):
    """(T, 3, S, S) float32: a whole clip at the one size that the checkpoint fixes."""
    how = read_preprocessing(folder, "video")
    return normalise(torch.stack([resize(i, how.size, how.resample) for i in images]), how)


@dataclass(frozen=True)
class Tiny:
    """One family in small."""

    plugin: str
    """The plug-in's name."""
    network: Callable[[], Any]
    """Makes the network, random weights and all; call `shake` on it."""
    pixels: Callable[[Path, list, Inputs], Inputs]
    """(folder, images, prompt) → what stock `forward` takes beside ids and mask to see the clip;
    no `position_ids`, unless the family needs ours to tell times that stock does not know."""
    special: tuple[str, ...] = ("<image>", "<video>")
    """Special tokens from id 4 on, behind those of `START`."""
    video: str = "<video>"
    """How the chat template spells a video."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the plug-in for all tests."""
    stock: Mapping[str, Any] = field(default_factory=dict)
    """Options under which the prompt's layout and places are those of stock transformers."""
    settings: Mapping[str, Any] = field(default_factory=lambda: {"size": square(SIDE)})
    """What the preprocessor's file holds beside mean, std and scale."""
    masked: bool = True
    """Whether a mask can hide tokens from all that come after (not from recurrent layers)."""
    grid: tuple[int, int] = (3, 3)
    """Rows and columns of tokens that `clip` fixtures give."""

    def save(self, path: Path) -> Path:
        """Write the checkpoint's folder."""
        self.network().save_pretrained(path)
        make_tokenizer(self.special, self.video).save_pretrained(path)
        common = {
            "resample": 3,
            "image_mean": [0.5, 0.4, 0.6],
            "image_std": [0.25, 0.3, 0.2],
            "rescale_factor": 1 / 255,
        }
        settings = json.dumps({**common, **self.settings})
        (path / "preprocessor_config.json").write_text(settings)
        return path


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def make_tokenizer(special, video) -> PreTrainedTokenizerFast:
    words = [*START, *special, *WORDS.split()]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", *special],
        chat_template=TURN.replace("VIDEO", video),
    )


def size_of_vocabulary(special=("<image>", "<video>")) -> int:
    return len(START) + len(special) + len(WORDS.split())


def shake(network, scale=1.5, unsaid=range(3, 4)):
    """The default initialisation is so small that every prompt gives nearly the same logits.

    Ids in `unsaid` are rarely said: by default the end, so that nobody falls silent at once.
    """
    network = network.eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1 and "conv1d" not in name:
            parameter.normal_(0, scale / parameter[0].numel() ** 0.5)
    network.lm_head.weight[list(unsaid)] *= 0.1
    network.generation_config.eos_token_id = 3
    network.generation_config.pad_token_id = 0
    return network


def text_config(vocabulary: int, **more: Any) -> dict[str, Any]:
    """A language model of two layers, three heads, width 24."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "max_position_embeddings": 256,
        "bos_token_id": None,
        "eos_token_id": 3,
        "pad_token_id": 0,
        **more,
    }


def llava_onevision(seed: int = 0) -> LlavaOnevisionForConditionalGeneration:
    config = LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": SIDE // PATCHES,
            "vision_use_head": False,
        },
        text_config=text_config(size_of_vocabulary(), model_type="qwen2"),
        image_token_index=4,
        video_token_index=5,
    )
    torch.manual_seed(seed)
    return shake(LlavaOnevisionForConditionalGeneration(config))


def llava_pixels(folder, images, inputs):
    return {"pixel_values_videos": fixed_pixels(folder, images)[None]}


QWEN_SPECIAL = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
QWEN_VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
QWEN_EYE = {
    "depth": 2,
    "hidden_size": 16,
    "num_heads": 2,
    "intermediate_size": 24,
    "out_hidden_size": 24,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
QWEN_IDS = {
    "image_token_id": 4,
    "video_token_id": 5,
    "vision_start_token_id": 6,
    "vision_end_token_id": 7,
}
QWEN_BUDGET = {"min_pixels": 8 * 8 * 4, "max_pixels": 8 * 8 * 12}  # 31×47 pixels → 2×4 tokens
QWEN_GRID = (2, 4)
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}


def qwen2_5_vl() -> Qwen2_5_VLForConditionalGeneration:
    config = Qwen2_5_VLConfig(
        vision_config={
            **QWEN_EYE,
            "window_size": 16,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
        },
        text_config=text_config(size_of_vocabulary(QWEN_SPECIAL), rope_parameters=ROPE),
        **QWEN_IDS,
    )
    torch.manual_seed(0)
    return shake(Qwen2_5_VLForConditionalGeneration(config))


def qwen3_vl() -> Qwen3VLForConditionalGeneration:
    config = Qwen3VLConfig(
        vision_config={
            **QWEN_EYE,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        },
        text_config=text_config(
            size_of_vocabulary(QWEN_SPECIAL),
            head_dim=8,
            rope_parameters={**ROPE, "mrope_interleaved": True},
        ),
        **QWEN_IDS,
    )
    torch.manual_seed(0)
    return shake(Qwen3VLForConditionalGeneration(config))


def qwen3_5() -> Qwen3_5ForConditionalGeneration:
    rope = {**ROPE, "mrope_interleaved": True, "partial_rotary_factor": 0.25}
    config = Qwen3_5Config(
        vision_config={**QWEN_EYE, "num_position_embeddings": 16},
        text_config=text_config(
            size_of_vocabulary(QWEN_SPECIAL),
            head_dim=32,
            layer_types=["linear_attention", "full_attention"],
            linear_key_head_dim=8,
            linear_value_head_dim=8,
            linear_num_key_heads=2,
            linear_num_value_heads=2,
            rope_parameters=rope,
        ),
        **QWEN_IDS,
    )
    torch.manual_seed(0)
    return shake(Qwen3_5ForConditionalGeneration(config))


def qwen_pixels(folder, images, inputs):
    """Stock transformers finds the places itself, from the grid and the seconds of a step."""
    how = read_preprocessing(folder, "video", sized=False)
    height, width = 8 * QWEN_GRID[0], 8 * QWEN_GRID[1]
    images = [*images, *images[len(images) - len(images) % 2 :]]
    resized = torch.stack([resize(image, (height, width), how.resample) for image in images])
    return {
        "pixel_values_videos": patchify(normalise(resized, how), 4, 2, 2),
        "video_grid_thw": torch.tensor([[len(images) // 2, height // 4, width // 4]]),
        "mm_token_type_ids": (inputs["input_ids"] == 5).int() * 2,
    }


def qwen2_5_pixels(folder, images, inputs):
    seconds = {"second_per_grid_ts": torch.tensor([2.0])}  # two frames a step, one a second
    return {**qwen_pixels(folder, images, inputs), **seconds}


QWEN: Mapping[str, Any] = {
    "special": QWEN_SPECIAL,
    "video": QWEN_VIDEO,
    "options": QWEN_BUDGET,
    "settings": {"size": {"shortest_edge": 256, "longest_edge": 768}},
    "grid": QWEN_GRID,
}

INTERNVL_SPECIAL = ("<IMG_CONTEXT>", "<img>", "</img>", "<video>")
SMOLVLM_SPECIAL = ("<image>", "<fake_token_around_image>", "<global-img>")
SQUARES = 24  # 6×6 patches of 4 pixels, 2×2 of which become a token
EYE_OF_SQUARES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}


def internvl() -> InternVLForConditionalGeneration:
    config = InternVLConfig(
        vision_config={**EYE_OF_SQUARES, "image_size": [SQUARES] * 2, "patch_size": [4, 4]},
        text_config=text_config(size_of_vocabulary(INTERNVL_SPECIAL), model_type="qwen2"),
        image_token_id=4,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    return shake(InternVLForConditionalGeneration(config))


def internvl_pixels(folder, images, inputs):
    return {"pixel_values": fixed_pixels(folder, images)}


def smolvlm() -> SmolVLMForConditionalGeneration:
    config = SmolVLMConfig(
        vision_config={**EYE_OF_SQUARES, "image_size": SQUARES, "patch_size": 4},
        text_config=text_config(size_of_vocabulary(SMOLVLM_SPECIAL), model_type="llama"),
        image_token_id=4,
        scale_factor=2,
    )
    torch.manual_seed(0)
    # Special tokens have no text: an answer of nothing else has no words.
    return shake(SmolVLMForConditionalGeneration(config), unsaid=range(4 + len(SMOLVLM_SPECIAL)))


def smolvlm_pixels(folder, images, inputs):
    """Resized by the stock processor on PIL, normalised in one go as the one for videos does."""
    stock = SmolVLMImageProcessorPil.from_pretrained(folder, do_image_splitting=False)
    resized = stock([images], return_tensors="pt", do_rescale=False, do_normalize=False)
    return {"pixel_values": normalise(resized["pixel_values"], read_twice(folder))}


FAMILIES = [
    Tiny("llava_onevision", llava_onevision, llava_pixels, stock={"timestamps": False}),
    Tiny(
        "qwen2_5_vl",
        qwen2_5_vl,
        qwen2_5_pixels,
        stock={"timestamps": False, "text_after": "hf"},
        **QWEN,
    ),
    Tiny("qwen3_vl", qwen3_vl, qwen_pixels, **QWEN),
    Tiny("qwen3_5", qwen3_5, qwen_pixels, masked=False, **QWEN),
    Tiny(
        "internvl",
        internvl,
        internvl_pixels,
        special=INTERNVL_SPECIAL,
        stock={"timestamps": False},
        settings={"size": square(SQUARES)},
    ),
    Tiny(
        "smolvlm",
        smolvlm,
        smolvlm_pixels,
        special=SMOLVLM_SPECIAL,
        settings={
            "size": {"longest_edge": 36},
            "max_image_size": {"longest_edge": SQUARES},
            "resample": 1,
        },
    ),
]
