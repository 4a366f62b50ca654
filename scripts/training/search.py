"""Third step: the retriever learns which words go with which picture.

Its eye starts as the answerer's, whose last two layers are trained further: a key must say which
colour belongs to which shape, and that is lost when tokens that hold the two side by side are
averaged. The earlier layers are frozen, so their output is computed once.
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
from streamvlm.bench.world import COLOURS, SHAPES
from streamvlm.bench.world.planning import trained_pairs
from streamvlm.bench.world.questions import PHRASINGS, spoken

logger = logging.getLogger(__name__)

LENGTH = 16
"""Words a text is padded to; the longest question has 12."""
_EVERY = 2
"""Of the pool's frames one in so many is used: neighbours are nearly the same."""
_LAYERS = 2
"""How many of the eye's layers are trained."""
_SHARES = (0.6, 1.0, 3.0, 4.0)
"""How often frames with no, one, two or three things are seen: several are hard to tell apart."""
_NEAR = 2.0
"""How much more an absent pair weighs for its colour being there, and again for its shape."""
_BATCH = 128

_PAIRS = [tuple(name.split()) for name in trained_pairs()]
_CONCEPTS = [*_PAIRS, *((colour, "") for colour in COLOURS), *(("", shape) for shape in SHAPES)]
"""(colour, shape) of what a text is about; one of the two may be empty."""
_WAYS = {
    "pair": ["{thing}", "a {thing}", "the {thing}", "a video with a {thing}"]
    + [
        way for kind in ("exist", "where", "when", "direction", "change") for way in PHRASINGS[kind]
    ],
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
    """Train text tower, pooling head and the eye's last layers in place.

    Args:
        model: fresh from `make_retriever`.
        pool: what is seen.
        steps: of the optimiser.
    """
    # Half a step's time on a CPU is the backward pass of fused attention.
    model.set_attn_implementation("eager")
    chosen = np.arange(0, len(pool.images), _EVERY)
    truth = torch.from_numpy(_shown(pool)[chosen]).to(model.device)
    weights = _weights(truth)
    things = truth[:, : len(_PAIRS)].sum(1)
    often = torch.tensor(_SHARES)[things.clamp(max=len(_SHARES) - 1).cpu()]
    seen = _before_last_layers(model, pool.images[chosen])
    eye = [*model.vision_model.encoder.layers[-_LAYERS:], model.vision_model.post_layernorm]
    trained = nn.ModuleList([*eye, model.vision_model.head, model.text_model])
    learned = [*trained.parameters(), model.logit_scale, model.logit_bias]
    optimiser = torch.optim.AdamW(learned, lr=1e-3, weight_decay=0.02, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps)
    random, began = np.random.default_rng(0), time.time()
    dice = torch.Generator().manual_seed(0)
    for step in range(steps):
        index = torch.multinomial(often, _BATCH, replacement=False, generator=dice)
        # Only the arithmetic of the large products is shortened; sums and weights stay float32.
        with torch.autocast(model.device.type, torch.bfloat16):
            keys = _keys(model, seen[index])
            words = model.get_text_features(input_ids=texts(random).to(model.device)).pooler_output
        logits = F.normalize(keys.float()) @ F.normalize(words.float()).T
        logits = logits * model.logit_scale.exp() + model.logit_bias
        loss = F.binary_cross_entropy_with_logits(logits, truth[index].float(), weights[index])
        loss = loss * len(_CONCEPTS)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimiser.step()
        schedule.step()
        if step % 25 == 0 or step == steps - 1:
            found = _told_apart(logits.detach(), truth[index])
            logger.info(
                "retriever %d/%d loss %.3f told apart, of 1, 2, 3 things: %s  %.0f s",
                step,
                steps,
                loss.item(),
                " ".join(f"{share:.2f}" for share in found),
                time.time() - began,
            )
    model.set_attn_implementation("sdpa")


def _weights(truth: Tensor) -> Tensor:
    """(F, 56) what each frame and concept counts: near misses more, things in company more."""
    pairs, shown = len(_PAIRS), truth.float()
    colours = torch.tensor([_CONCEPTS.index((colour, "")) for colour, _ in _PAIRS])
    shapes = torch.tensor([_CONCEPTS.index(("", shape)) for _, shape in _PAIRS])
    absent = torch.ones_like(shown)
    absent[:, :pairs] += _NEAR * (shown[:, colours] + shown[:, shapes])
    company = 2 * shown[:, :pairs].sum(1, keepdim=True).clamp(min=1)
    return torch.where(truth, company, absent)


def texts(random: np.random.Generator) -> Tensor:
    """(56, 16) ids: one text for each concept, in a random phrasing."""
    lines = []
    for colour, shape in _CONCEPTS:
        ways = _WAYS["pair" if colour and shape else "colour" if colour else "shape"]
        words = {"thing": f"{colour} {shape}".strip(), "colour": colour, "shape": shape}
        lines.append(spoken(ways[int(random.integers(len(ways)))].format(**words)))
    return _ids(lines)


def _ids(lines: list[str]) -> Tensor:
    batch = make_tokenizer()(
        lines, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    )
    ids: Tensor = batch["input_ids"]
    return ids


def _shown(pool: Pool) -> NDArray[np.bool_]:
    """(F, 56) whether a frame shows a concept."""
    shown = np.zeros((len(pool.images), len(_CONCEPTS)), bool)
    number = {concept: index for index, concept in enumerate(_CONCEPTS)}
    for film, first in zip(pool.films, pool.first, strict=True):
        for thing in film.things:
            for second in range(thing.appears, thing.vanishes):
                colour, shape = thing.colour_at(second), thing.shape
                for concept in ((colour, shape), (colour, ""), ("", shape)):
                    if concept in number:
                        shown[first + second, number[concept]] = True
    return shown


@torch.no_grad()
def _before_last_layers(model: SiglipModel, images: NDArray[np.uint8]) -> Tensor:
    """(F, 144, E) float16."""
    parts = []
    for first in range(0, len(images), 64):
        out = model.vision_model(
            pixel_values=pixels(images[first : first + 64]).to(model.device),
            output_hidden_states=True,
        )
        parts.append(out.hidden_states[-1 - _LAYERS].half())
    return torch.cat(parts)


def _keys(model: SiglipModel, seen: Tensor) -> Tensor:
    """(B, E) from what the last layers are given."""
    eye, hidden = model.vision_model, seen.float()
    for layer in eye.encoder.layers[-_LAYERS:]:
        out = layer(hidden, None)
        hidden = out[0] if isinstance(out, tuple) else out
    keys: Tensor = eye.head(eye.post_layernorm(hidden))
    return keys


def _told_apart(logits: Tensor, truth: Tensor) -> list[float]:
    """Of frames with one, two and three things: the share whose things beat all absent ones."""
    pairs = len(_PAIRS)
    scores, there = logits[:, :pairs], truth[:, :pairs]
    worst = scores.masked_fill(~there, torch.inf).amin(1)
    best_absent = scores.masked_fill(there, -torch.inf).amax(1)
    right, things = worst > best_absent, there.sum(1)
    return [right[things == count].float().mean().item() for count in (1, 2, 3)]
