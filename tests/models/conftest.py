"""A tiny random LLaVA-OneVision, saved as the normal Hugging Face folder that a user would have."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from streamvlm.types import Clip, Evidence, Frame, MemoryRecord, Query

SPECIAL = ["<pad>", "<unk>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
WORDS = (
    "user assistant what colour is the star red blue green square when where "
    "? : . 00 01 02 03 04 05 06 07 mp4 cam a b"
)
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ' ' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] if part['type'] == 'video' %}{{ '<video>' }}{% endfor %}"
    "{% for part in m['content'] if part['type'] == 'text' %}{{ '\n' + part['text'] }}{% endfor %}"
    "{% endif %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PATCHES, SIDE = 5, 20  # 5×5 patches pool to 3×3: an odd side, so that the rounding up is tested
ROWS = 3


def make_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS.split()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<image>", "<video>"],
        chat_template=TEMPLATE,
    )


def make_network(seed: int = 0) -> LlavaOnevisionForConditionalGeneration:
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
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(SPECIAL) + len(WORDS.split()),
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "max_position_embeddings": 256,
            "bos_token_id": None,
            "eos_token_id": 3,
            "pad_token_id": 0,
        },
        image_token_index=4,
        video_token_index=5,
    )
    torch.manual_seed(seed)
    network = LlavaOnevisionForConditionalGeneration(config).eval().requires_grad_(False)
    # The default initialisation is so small that every prompt gives nearly the same logits.
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 1.5 / parameter[0].numel() ** 0.5)
    network.generation_config.eos_token_id = 3
    network.generation_config.pad_token_id = 0
    return network


@pytest.fixture(scope="session")
def network():
    return make_network()


@pytest.fixture(scope="session")
def folder(tmp_path_factory, network) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny"
    network.save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    settings = {
        "do_resize": True,
        "size": {"height": SIDE, "width": SIDE},
        "resample": 3,
        "image_mean": [0.5, 0.4, 0.6],
        "image_std": [0.25, 0.3, 0.2],
        "rescale_factor": 1 / 255,
    }
    (path / "preprocessor_config.json").write_text(json.dumps(settings))
    return path


@pytest.fixture
def clip():
    def make(frames=3, start=0.0, stream="/videos/a.mp4", seed=0):
        rng = np.random.default_rng(seed)
        pictures = rng.integers(0, 256, (frames, 31, 47, 3), dtype=np.uint8)
        return Clip(
            stream,
            start,
            start + frames,
            tuple(Frame(stream, i, start + i, p) for i, p in enumerate(pictures)),
        )

    return make


@pytest.fixture
def evidence():
    def make(tokens, clip):
        seconds = np.array([frame.seconds for frame in clip.frames])
        record = MemoryRecord(
            id="r",
            stream=clip.stream,
            start=clip.start,
            end=clip.end,
            keys=np.eye(1, 4, dtype=np.float32),
            tokens=tokens.without_cues(),
            frame_seconds=seconds,
            frame_hash=np.zeros(len(seconds), np.uint64),
            thumbnail=b"",
        )
        return Evidence(record, 1.0)

    return make


@pytest.fixture
def load(folder):
    from streamvlm.models.llava_onevision import LlavaOneVision

    def make(**options):
        return LlavaOneVision(weights=str(folder), **options)

    return make


@pytest.fixture
def question():
    return Query("what colour is the star ?")


@pytest.fixture
def damaged(folder, tmp_path):
    """A copy of the checkpoint to break."""
    return Path(shutil.copytree(folder, tmp_path / "damaged"))


@pytest.fixture(params=[1.0, 0.2])
def demo(evidence, request):
    """The model that ships, and eight frames of which all or some tokens were kept."""
    from streamvlm.models.llava_onevision import LlavaOneVision

    rng = np.random.default_rng(2)
    pictures = rng.integers(0, 256, (8, 12, 12, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    clip = Clip("/v/a.mp4", 0, 8, tuple(Frame("a", i, i, p) for i, p in enumerate(pictures)))
    model = LlavaOneVision()
    tokens = model.encode(clip)
    kept = torch.from_numpy(rng.random(len(tokens))) < request.param
    return model, evidence(tokens.select(kept), clip)
