"""Third step: the retriever learns which words go with which picture.

Its eye starts as the answerer's, whose last layer is trained further: a key must say which colour
belongs to which shape, and that is lost when tokens that hold the two side by side are averaged.
All earlier layers are frozen, so their output is computed once.
"""

from __future__ import annotations

import logging
import time

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    LlavaOnevisionForConditionalGeneration,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
)

from scripts.training.pool import Pool
from scripts.training.tower import EYE, pixels
from scripts.training.words import make_tokenizer
from streamvlm.bench.questions import PHRASINGS
from streamvlm.bench.world import COLOURS, SHAPES

logger = logging.getLogger(__name__)

LENGTH = 16
"""Words a text is padded to; the longest question has 12."""
_EVERY = 4
"""Of the pool's frames one in so many is used: neighbours are nearly the same."""
_BATCH = 128

_PAIRS = [(colour, shape) for colour in COLOURS for shape in SHAPES]
_CONCEPTS = [*_PAIRS, *((colour, "") for colour in COLOURS), *(("", shape) for shape in SHAPES)]
"""(colour, shape) of what a text is about; one of the two may be empty."""
_WAYS = {
    "pair": ["{thing}", "a {thing}", "the {thing}", "a video with a {thing}"]
    + [way for kind in ("exist", "where", "when", "direction") for way in PHRASINGS[kind]],
    "colour": ["{thing}", "a {thing} thing", *PHRASINGS["shape"]],
    "shape": ["{thing}", "a {thing}", "the {thing}", *PHRASINGS["colour"]],
}


def make_retriever(answerer: LlavaOnevisionForConditionalGeneration) -> SiglipModel:
    """A SigLIP with the answerer's eye, and words that start as the answerer's.

    Args:
        answerer: with a trained eye.
    """
    tokenizer = make_tokenizer()
    vision = SiglipVisionConfig.from_dict(answerer.config.vision_config.to_dict())
    vision.vision_use_head = True
    text = SiglipTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=EYE,
        intermediate_size=3 * EYE,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_size=EYE,
        bos_token_id=tokenizer.convert_tokens_to_ids("<|im_start|>"),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = SiglipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    model = SiglipModel(config)
    state = answerer.model.vision_tower.state_dict()
    found = model.vision_model.load_state_dict(state, strict=False)
    assert not found.unexpected_keys
    assert all("head." in key for key in found.missing_keys)
    with torch.no_grad():
        model.logit_scale.fill_(np.log(10.0))
        model.logit_bias.fill_(-6.0)
    return model


def train_retriever(model: SiglipModel, pool: Pool, steps: int) -> None:
    """Train text tower, pooling head and the eye's last layer in place.

    Args:
        model: fresh from `make_retriever`.
        pool: what is seen.
        steps: of the optimiser.
    """
    chosen = np.arange(0, len(pool.images), _EVERY)
    truth = torch.from_numpy(_shown(pool)[chosen])
    seen = _before_last_layer(model, pool.images[chosen])
    last = model.vision_model.encoder.layers[-1]
    eye = nn.ModuleList([last, model.vision_model.post_layernorm, model.vision_model.head])
    learned = [*eye.parameters(), *model.text_model.parameters()]
    learned += [model.logit_scale, model.logit_bias]
    optimiser = torch.optim.AdamW(learned, lr=1e-3, weight_decay=0.02, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps)
    random, began = np.random.default_rng(0), time.time()
    for step in range(steps):
        index = torch.from_numpy(random.choice(len(chosen), _BATCH, replace=False))
        # Only the arithmetic of the large products is shortened; sums and weights stay float32.
        with torch.autocast("cpu", torch.bfloat16):
            keys = _keys(model, seen[index])
            words = model.get_text_features(input_ids=texts(random)).pooler_output
        logits = F.normalize(keys.float()) @ F.normalize(words.float()).T
        logits = logits * model.logit_scale.exp() + model.logit_bias
        loss = F.binary_cross_entropy_with_logits(logits, truth[index].float()) * len(_CONCEPTS)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimiser.step()
        schedule.step()
        if step % 25 == 0 or step == steps - 1:
            logger.info(
                "retriever %d/%d loss %.3f average precision of pairs %.3f  %.0f s",
                step,
                steps,
                loss.item(),
                _precision(logits[:, : len(_PAIRS)].detach(), truth[index][:, : len(_PAIRS)]),
                time.time() - began,
            )


def texts(random: np.random.Generator) -> Tensor:
    """(62, 16) ids: one text for each concept, in a random phrasing."""
    lines = []
    for colour, shape in _CONCEPTS:
        ways = _WAYS["pair" if colour and shape else "colour" if colour else "shape"]
        words = {"thing": f"{colour} {shape}".strip(), "colour": colour, "shape": shape}
        lines.append(ways[int(random.integers(len(ways)))].format(**words))
    return _ids(lines)


@torch.no_grad()
def read_texts(model: SiglipModel, lines: list[str]) -> Tensor:
    """(n, E) unit vectors of n texts."""
    return F.normalize(model.get_text_features(input_ids=_ids(lines)).pooler_output, dim=-1)


def _ids(lines: list[str]) -> Tensor:
    batch = make_tokenizer()(
        lines, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    )
    ids: Tensor = batch["input_ids"]
    return ids


def _shown(pool: Pool) -> NDArray[np.bool_]:
    """(F, 62) whether a frame shows a concept."""
    shown = np.zeros((len(pool.images), len(_CONCEPTS)), bool)
    for film, first in zip(pool.films, pool.first, strict=True):
        for thing in film.things:
            frames = slice(first + thing.appears, first + thing.vanishes)
            for name in ((thing.colour, thing.shape), (thing.colour, ""), ("", thing.shape)):
                shown[frames, _CONCEPTS.index(name)] = True
    return shown


@torch.no_grad()
def _before_last_layer(model: SiglipModel, images: NDArray[np.uint8]) -> Tensor:
    """(F, 144, E) float16."""
    parts = []
    for first in range(0, len(images), 64):
        out = model.vision_model(
            pixel_values=pixels(images[first : first + 64]), output_hidden_states=True
        )
        parts.append(out.hidden_states[-2].half())
    return torch.cat(parts)


def _keys(model: SiglipModel, seen: Tensor) -> Tensor:
    """(B, E) from what the last layer is given."""
    eye = model.vision_model
    hidden = eye.encoder.layers[-1](seen.float(), None)
    hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    keys: Tensor = eye.head(eye.post_layernorm(hidden))
    return keys


def _precision(logits: Tensor, truth: Tensor) -> float:
    """Mean over texts of average precision over the frames of a batch."""
    order = logits.argsort(0, descending=True)
    hits = truth.gather(0, order).float()
    share = hits.cumsum(0) / torch.arange(1, len(hits) + 1)[:, None]
    asked = hits.sum(0) > 0
    return float(((share * hits).sum(0)[asked] / hits.sum(0)[asked]).mean())
