"""Tiny random SigLIP and SigLIP 2 models, saved as normal Hugging Face folders."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
)

from streamvlm.types import Clip, Frame

SPECIAL = ["<pad>", "<unk>", "</s>"]
WORDS = ["a", "red", "blue", "green", "star", "square", "lift", "door", "where", "is", "the", "?"]
TEXT = {
    "vocab_size": len(SPECIAL) + len(WORDS),
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
    "projection_size": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 4,
}
LOOK = {"resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255}


def make_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    )


def save(network, path: Path, look: dict) -> Path:
    network.eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 1 / parameter[0].numel() ** 0.5)
    network.save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps(LOOK | look))
    return path


@pytest.fixture(scope="session")
def fixed(tmp_path_factory) -> Path:
    """SigLIP with pictures of 16×16."""
    torch.manual_seed(0)
    network = SiglipModel(SiglipConfig(text_config=TEXT, vision_config=TOWER | {"image_size": 16}))
    path = tmp_path_factory.mktemp("fixed") / "tiny"
    return save(network, path, {"size": {"height": 16, "width": 16}})


@pytest.fixture(scope="session")
def naflex(tmp_path_factory) -> Path:
    """SigLIP 2 with at most 20 patches of 4×4 a picture."""
    torch.manual_seed(1)
    network = Siglip2Model(
        Siglip2Config(text_config=TEXT, vision_config=TOWER | {"num_patches": 16})
    )
    path = tmp_path_factory.mktemp("naflex") / "tiny2"
    return save(network, path, {"patch_size": 4, "max_num_patches": 20})


@pytest.fixture
def clip():
    def make(frames=5, seed=0, height=31, width=47):
        rng = np.random.default_rng(seed)
        pictures = rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
        return Clip("s", 0, frames, tuple(Frame("s", i, i, p) for i, p in enumerate(pictures)))

    return make
