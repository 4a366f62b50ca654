"""Writes what was trained as normal Hugging Face folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import LlavaOnevisionForConditionalGeneration, SiglipModel

from scripts.training.pool import SIZE
from scripts.training.words import make_tokenizer

_PICTURES = {
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"height": SIZE, "width": SIZE},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def ship_answerer(model: LlavaOnevisionForConditionalGeneration, folder: Path) -> None:
    """Write the answerer in float16, with its tokenizer and how its pictures are made.

    Args:
        model: the trained model; it comes back in float32.
        folder: where to, made if need be.
    """
    tokenizer = make_tokenizer()
    model.generation_config.update(
        bos_token_id=tokenizer.convert_tokens_to_ids("<|im_start|>"),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    _ship(model, folder)
    _settings(folder / "preprocessor_config.json", "LlavaOnevisionImageProcessor", "image")
    _settings(folder / "video_preprocessor_config.json", "LlavaOnevisionVideoProcessor", "video")


def ship_retriever(model: SiglipModel, folder: Path) -> None:
    """Write the retriever in float16, with its tokenizer and how its pictures are made.

    Args:
        model: the trained model; it comes back in float32.
        folder: where to, made if need be.
    """
    _ship(model, folder)
    _settings(folder / "preprocessor_config.json", "SiglipImageProcessor", "image")


def _ship(model: Any, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    model.float()
    # They are written for their owner only, but what ships is read by whoever installs it.
    (folder / "model.safetensors").chmod(0o644)
    make_tokenizer().save_pretrained(folder)


def _settings(path: Path, processor: str, kind: str) -> None:
    settings = {f"{kind}_processor_type": processor, **_PICTURES}
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
