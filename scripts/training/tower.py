"""First step: the eye learns to say of each of 36 tokens which colour and shape it sees, and where.

The projector's tokens are compared with the word embeddings of the language model to come, so that
they speak its vocabulary before it exists.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Config,
    SiglipVisionConfig,
)

from scripts.training.pool import BACKGROUND, FORMS, GRID, SIZE, UNSURE, Pool
from scripts.training.words import make_tokenizer, vocabulary
from streamvlm.bench.world import COLOURS, SHAPES, UNSEEN_PAIRS

logger = logging.getLogger(__name__)

EYE, WIDTH = 128, 192
_UNSEEN = torch.tensor(
    [[f"{colour} {form}" in UNSEEN_PAIRS for form in FORMS] for colour in COLOURS]
)
"""(colours, forms) which pairs are held out."""


def make_model(layers: int = 5) -> LlavaOnevisionForConditionalGeneration:
    """The untrained demo model, with weights from the current random state."""
    words = {word: index for index, word in enumerate(vocabulary())}
    vision = SiglipVisionConfig(
        hidden_size=EYE,
        intermediate_size=3 * EYE,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=8,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=len(words),
        hidden_size=WIDTH,
        intermediate_size=512,
        num_hidden_layers=layers,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=words["<|im_start|>"],
        eos_token_id=words["<|im_end|>"],
        pad_token_id=words["<pad>"],
    )
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words["<image>"],
        video_token_index=words["<video>"],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[SIZE, SIZE]],
        tie_word_embeddings=True,
    )
    model = LlavaOnevisionForConditionalGeneration(config)
    _start_well(model)
    return model


def _start_well(model: LlavaOnevisionForConditionalGeneration) -> None:
    """Keys start as queries, so that alike looks at alike from the first step on."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, module in model.named_modules():
        if name.endswith("self_attn"):
            module.k_proj.weight.data.copy_(module.q_proj.weight.data)
    nn.init.normal_(model.get_input_embeddings().weight, std=1.0)
    # With tied weights of this size a unit-norm stream would give huge logits: start low.
    model.get_input_embeddings().weight.data.mul_(0.25)
    position = model.model.vision_tower.embeddings.position_embedding
    position.weight.data.copy_(_sine_positions(SIZE // 8, EYE))


def _sine_positions(side: int, width: int) -> Tensor:
    """(side², width) sines and cosines of row and column."""
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    rates = 1 / 100 ** (torch.arange(width // 4) / (width // 4))
    parts = []
    for place in (row, column):
        angle = place.flatten()[:, None] * rates
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=1) * 0.5


def word_ids(words: list[str]) -> Tensor:
    """(W,) ids of the words as they stand after a space."""
    return torch.tensor(make_tokenizer().convert_tokens_to_ids([f"▁{word}" for word in words]))


def pixels(images: NDArray[np.uint8]) -> Tensor:
    """(F, 96, 96, 3) uint8 → (F, 3, 96, 96) float32, −1 to 1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def see(model: LlavaOnevisionForConditionalGeneration, images: Tensor) -> Tensor:
    """(F, 36, D) tokens as the stock model's video path makes them, without the newline."""
    features: Tensor = model.model.get_video_features(
        pixel_values_videos=images[None].to(model.device),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    ).pooler_output
    flat: Tensor = features.reshape(-1, features.shape[-1])[:-1]
    return flat.reshape(len(images), GRID * GRID, -1)


class Heads(nn.Module):
    """Reads a token: colour and shape by the words' embeddings, row and column by vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.colours, self.shapes = word_ids(list(COLOURS)), word_ids(list(FORMS))
        self.nothing = nn.Parameter(torch.zeros(WIDTH))
        self.row = nn.Linear(WIDTH, GRID)
        self.column = nn.Linear(WIDTH, GRID)

    def forward(self, tokens: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits of colour (F, 36, 9; the last is background), shape, row and column."""
        scale = 8 * WIDTH**-0.5
        names = torch.cat([words[self.colours], self.nothing[None]])
        colour = tokens @ names.T * scale
        shape = tokens @ words[self.shapes].T * scale
        return colour, shape, self.row(tokens), self.column(tokens)


def loss_of(
    logits: tuple[Tensor, Tensor, Tensor, Tensor], colour: Tensor, shape: Tensor
) -> tuple[Tensor, float, float]:
    """The loss, and the accuracy of colour and shape on the cells that show a thing.

    Pairs held out of training are no candidates: else the eye learns "orange, so no triangle",
    for no orange triangle was ever seen (the same thought as logit adjustment, Menon et al. 2021).
    """
    to_colour, to_shape, to_row, to_column = logits
    sure, thing = colour != UNSURE, shape >= 0
    wanted = colour.masked_fill(colour == BACKGROUND, len(COLOURS))
    weight = torch.ones(len(COLOURS) + 1, device=colour.device)
    weight[-1] = 0.2
    unseen = _UNSEEN.to(colour.device)
    never = torch.zeros_like(to_colour, dtype=torch.bool)
    never[thing] = F.pad(unseen.T[shape[thing]], (0, 1))
    among = to_colour.masked_fill(never, -torch.inf)
    loss = F.cross_entropy(among[sure], wanted[sure], weight=weight)
    among = to_shape[thing].masked_fill(unseen[colour[thing]], -torch.inf)
    loss = loss + F.cross_entropy(among, shape[thing])
    place = torch.arange(GRID * GRID, device=colour.device).expand(len(colour), -1)
    loss = loss + 0.2 * F.cross_entropy(to_row.flatten(0, 1), (place // GRID).flatten())
    loss = loss + 0.2 * F.cross_entropy(to_column.flatten(0, 1), (place % GRID).flatten())
    right_colour = (to_colour[thing].argmax(-1) == colour[thing]).float().mean().item()
    right_shape = (to_shape[thing].argmax(-1) == shape[thing]).float().mean().item()
    return loss, right_colour, right_shape


def batches(
    pool: Pool, steps: int, size: int, random: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Indices of frames that show something, each as often."""
    shows = np.flatnonzero((pool.shape >= 0).any(1))
    for _ in range(steps):
        yield random.choice(shows, size, replace=False)


def train_tower(
    pool: Pool, steps: int, device: str = "cpu", size: int = 64
) -> LlavaOnevisionForConditionalGeneration:
    """Train tower, projector and the words of colours and shapes.

    Args:
        pool: frames with labels.
        steps: of the optimiser.
        device: where to train.
        size: frames a step.
    """
    model, heads = make_model().to(device), Heads().to(device)
    # Half a step's time on a CPU is the backward pass of fused attention.
    model.set_attn_implementation("eager")
    words = model.get_input_embeddings().weight
    eye = [*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters()]
    learned = [*eye, *heads.parameters(), words]
    optimiser = torch.optim.AdamW(learned, lr=2e-3, weight_decay=0.02, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 2e-3, total_steps=steps, pct_start=0.08
    )
    random, began = np.random.default_rng(0), time.time()
    for step, index in enumerate(batches(pool, steps, size, random)):
        images, colour, shape = _flipped(pool, index, random)
        # Only the arithmetic of the large products is shortened; sums and weights stay float32.
        with torch.autocast(model.device.type, torch.bfloat16):
            tokens = see(model, pixels(images))
        loss, right_colour, right_shape = loss_of(
            heads(tokens.float(), words), colour.to(device), shape.to(device)
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            logger.info(
                "tower %d/%d loss %.3f colour %.3f shape %.3f  %.0f s",
                step,
                steps,
                loss.item(),
                right_colour,
                right_shape,
                time.time() - began,
            )
    model.set_attn_implementation("sdpa")
    return model


def _flipped(
    pool: Pool, index: NDArray[np.int64], random: np.random.Generator
) -> tuple[NDArray[np.uint8], Tensor, Tensor]:
    """Frames and labels, those without a number mirrored left to right half of the time.

    All other shapes stay themselves.
    """
    images, colour, shape = pool.images[index], pool.colour[index], pool.shape[index]
    flip = (shape < len(SHAPES)).all(1) & (random.random(len(index)) < 0.5)
    images[flip] = images[flip][:, :, ::-1]
    for labels in (colour, shape):
        labels[flip] = labels[flip].reshape(-1, GRID, GRID)[..., ::-1].reshape(-1, GRID * GRID)
    return (
        images,
        torch.from_numpy(colour.astype(np.int64)),
        torch.from_numpy(shape.astype(np.int64)),
    )


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often a token that shows a thing is nearest to the right word."""

    colour: float
    """Share, 0 to 1."""
    shape: float
    """Share, 0 to 1."""


@torch.no_grad()
def word_accuracy(model: LlavaOnevisionForConditionalGeneration, pool: Pool) -> Accuracy:
    """What the tokens of a pool say by themselves, without a language model.

    Args:
        model: with a trained eye.
        pool: frames with labels; cells that show a digit do not count.
    """
    words = model.get_input_embeddings().weight.cpu()
    names = (words[word_ids(list(COLOURS))], words[word_ids(list(SHAPES))])
    right: list[Tensor] = []
    for first in range(0, len(pool.images), 64):
        part = slice(first, first + 64)
        tokens = see(model, pixels(pool.images[part])).cpu()
        shape = torch.from_numpy(pool.shape[part])
        thing = (shape >= 0) & (shape < len(SHAPES))
        wanted = (torch.from_numpy(pool.colour[part])[thing], shape[thing])
        said = [(tokens[thing] @ name.T).argmax(-1) for name in names]
        right.append(torch.stack([a == b for a, b in zip(said, wanted, strict=True)]))
    colour, shape = torch.cat(right, dim=1).float().mean(1).tolist()
    return Accuracy(colour, shape)
