"""Second step: the language model learns to answer from the frozen eye's tokens."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import LlavaOnevisionForConditionalGeneration

from scripts.training.lessons import (
    BARRED,
    HINTS,
    IGNORE,
    NEWLINE,
    TEXT,
    Difficulty,
    Lesson,
    Teacher,
)
from scripts.training.pool import Pool
from scripts.training.tower import WIDTH, pixels, see

logger = logging.getLogger(__name__)

Batch = dict[str, Tensor]
_HINTED_LAYER = 3
_MUON_RATE, _ADAM_RATE = 3e-3, 1.2e-3
_TOKENS_A_STEP, _STEPS_TOGETHER = 7000, 8
"""Tokens in a batch; and for how many batches lessons are made at once, to be sorted by length."""
_LONGEST, _OFTEN = (4, 8, 12, 24), (0.3, 0.4, 0.2, 0.1)
"""Frames that a lesson has at the most once the short ones are learned, and how often."""


@torch.no_grad()
def cache_tokens(model: LlavaOnevisionForConditionalGeneration, pool: Pool) -> Tensor:
    """(F·36, D) float16: the tokens of every frame of a pool, seen once."""
    parts = [
        see(model, pixels(pool.images[first : first + 64])).half().flatten(0, 1).cpu()
        for first in range(0, len(pool.images), 64)
    ]
    return torch.cat(parts)


def difficulty(done: float, random: np.random.Generator) -> Difficulty:
    """The curriculum: longer clips when the shorter ones are learned, then dropped tokens."""
    most = 3 if done < 0.1 else 6 if done < 0.35 else int(random.choice(_LONGEST, p=_OFTEN))
    drops = done > 0.3 and random.random() < 0.5
    return Difficulty(frames=int(random.integers(1, most + 1)), drops=drops)


def collate(lessons: list[Lesson]) -> Batch:
    """Pad lessons to one length."""
    length = max(len(lesson.ids) for lesson in lessons)

    def padded(rows: list[list[int]], value: int) -> Tensor:
        return torch.tensor([row + [value] * (length - len(row)) for row in rows])

    def filled(rows: list[list[tuple[int, ...]]], width: int) -> Tensor:
        return torch.tensor([row + [(IGNORE,) * width] * (length - len(row)) for row in rows])

    return {
        "ids": padded([lesson.ids for lesson in lessons], 0),
        "position": padded([lesson.position for lesson in lessons], 0),
        "block": padded([lesson.block for lesson in lessons], -1),
        "target": padded([lesson.target for lesson in lessons], IGNORE),
        "source": padded([lesson.source for lesson in lessons], TEXT),
        "hints": filled([lesson.hints for lesson in lessons], HINTS),
        "barred": filled([lesson.barred for lesson in lessons], BARRED),
    }


class _Lessons(IterableDataset[Batch]):
    """Batches of about `_TOKENS_A_STEP` tokens, made in a process of their own."""

    def __init__(self, pool: Pool, steps: int, seed: int) -> None:
        self._teacher, self._steps, self._seed = Teacher(pool), steps, seed

    def __iter__(self) -> Iterator[Batch]:
        random = np.random.default_rng(self._seed)
        for first in range(0, self._steps, _STEPS_TOGETHER):
            steps = min(_STEPS_TOGETHER, self._steps - first)
            lessons: list[Lesson] = []
            while sum(len(lesson.ids) for lesson in lessons) < steps * _TOKENS_A_STEP:
                how = difficulty(first / self._steps, random)
                lessons.append(self._teacher.lesson(random, how))
            # Lessons of like length in one batch need no padding.
            lessons.sort(key=lambda lesson: len(lesson.ids))
            ends = np.cumsum([len(lesson.ids) for lesson in lessons])
            cuts = np.searchsorted(ends, ends[-1] * np.arange(1, steps) / steps)
            bounds = [0, *cuts.tolist(), len(lessons)]
            for index in random.permutation(steps):
                yield collate(lessons[bounds[index] : bounds[index + 1]])


class Hints(nn.Module):
    """Says at each visual token what a layer should know by then; thrown away after training.

    The second and minute of its frame, where its thing is heading, whether it is first seen, and
    in which ninth of the picture it is.
    """

    headings: Tensor

    def __init__(self) -> None:
        super().__init__()
        sizes = (60, 60, 5, 2, 9)
        self.read = nn.ModuleList([nn.Linear(WIDTH, size) for size in sizes])
        # Most things stay where they are; what moves is what has to be learned.
        self.register_buffer("headings", torch.tensor([1.0, 1.0, 1.0, 1.0, 0.25]))

    def forward(self, hidden: Tensor, hints: Tensor) -> tuple[Tensor, list[float]]:
        """The loss, and the accuracy of each hint."""
        total, right = hidden.new_zeros(()), []
        for which, read in enumerate(self.read):
            wanted = hints[..., which]
            there = wanted != IGNORE
            logits = read(hidden[there])
            if there.any():
                weight = self.headings if len(self.headings) == logits.shape[-1] else None
                total = total + F.cross_entropy(logits, wanted[there], weight=weight)
            right.append((logits.argmax(-1) == wanted[there]).float().mean().item())
        return total, right


def run(
    model: LlavaOnevisionForConditionalGeneration, tokens: Tensor, batch: Batch
) -> tuple[Tensor, Tensor]:
    """The language model over a batch: last hidden states and those of the hinted layer."""
    ids, source, block = batch["ids"], batch["source"], batch["block"]
    inputs = model.get_input_embeddings()(ids)
    visual = tokens[source.clamp(min=0)].to(inputs.dtype)
    inputs = torch.where((source >= 0)[..., None], visual, inputs)
    newline = model.model.image_newline.to(inputs.dtype)
    inputs = torch.where((source == NEWLINE)[..., None], newline, inputs)
    length = ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    fellow = (block[:, None, :] == 0) | (block[:, None, :] == block[:, :, None])
    allowed = causal & fellow & (block[:, None, :] >= 0)
    allowed |= torch.eye(length, dtype=torch.bool, device=ids.device)
    mask = torch.zeros(allowed.shape, device=ids.device)
    mask = mask.masked_fill_(~allowed, torch.finfo(torch.float32).min)
    out = model.model.language_model(
        inputs_embeds=inputs,
        position_ids=batch["position"],
        attention_mask=mask[:, None],
        output_hidden_states=True,
        use_cache=False,
    )
    return out.last_hidden_state, out.hidden_states[_HINTED_LAYER]


def possible(logits: Tensor, barred: Tensor, target: Tensor) -> Tensor:
    """Logits without the words that would make a pair held out of training.

    Args:
        logits: (A, V) float, of the next word.
        barred: (A, 2) int64, word ids or `IGNORE`.
        target: (A,) int64, the right word, which always stays possible.

    Returns:
        (A, V) like `logits`, −∞ where a word is barred.
    """
    words = logits.shape[-1]
    away = torch.zeros(len(logits), words + 1, dtype=torch.bool, device=logits.device)
    away.scatter_(1, barred.masked_fill(barred == IGNORE, words), value=True)
    away.scatter_(1, target[:, None], value=False)
    return logits.masked_fill(away[:, :words], -torch.inf)


def optimisers(
    model: LlavaOnevisionForConditionalGeneration, hints: Hints
) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices between layers, AdamW for all else."""
    language = model.model.language_model
    matrices = [
        weight
        for name, weight in language.named_parameters()
        if weight.ndim == 2 and "embed" not in name
    ]
    among = {id(weight) for weight in matrices}
    others = [*language.parameters(), model.model.image_newline, *hints.parameters()]
    rest = [weight for weight in others if id(weight) not in among]
    muon = torch.optim.Muon(
        matrices, lr=_MUON_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, torch.optim.AdamW(rest, lr=_ADAM_RATE, weight_decay=0.05, betas=(0.9, 0.98))]


def one_cycle(optimiser: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """One warm-up and one decay to nothing, up to the rates that the optimiser was made with."""
    rates = [group["lr"] for group in optimiser.param_groups]
    return torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rates, total_steps=steps, pct_start=0.06, cycle_momentum=False
    )


def train_language(
    model: LlavaOnevisionForConditionalGeneration,
    tokens: Tensor,
    pool: Pool,
    steps: int,
    checkpoint: Callable[[int], None] = lambda step: None,
) -> None:
    """Train the language model and the newline in place; the eye stays as it is.

    Args:
        model: with a trained eye.
        tokens: what it sees of the pool; see `cache_tokens`.
        pool: what lessons are made of.
        steps: of the optimisers: one warm-up, one decay.
        checkpoint: called now and then with the step.
    """
    hints, tokens = Hints().to(model.device), tokens.to(model.device)
    chosen = optimisers(model, hints)
    schedules = [one_cycle(optimiser, steps) for optimiser in chosen]
    everything = [w for optimiser in chosen for g in optimiser.param_groups for w in g["params"]]
    loader = DataLoader(
        _Lessons(pool, steps, seed=0), batch_size=None, num_workers=1, prefetch_factor=4
    )
    began = time.time()
    for step, made in enumerate(loader):
        batch = {name: part.to(model.device) for name, part in made.items()}
        asked = batch["target"] != IGNORE
        # Only the arithmetic of the large products is shortened; sums and weights stay float32.
        with torch.autocast(model.device.type, torch.bfloat16):
            last, middle = run(model, tokens, batch)
            logits = model.lm_head(last[asked]).float()
        among = possible(logits, batch["barred"][asked], batch["target"][asked])
        answer_loss = F.cross_entropy(among, batch["target"][asked])
        hint_loss, right = hints(middle.float(), batch["hints"])
        for optimiser in chosen:
            optimiser.zero_grad()
        (answer_loss + 0.25 * hint_loss).backward()
        nn.utils.clip_grad_norm_(everything, 1.0)
        for optimiser, schedule in zip(chosen, schedules, strict=True):
            optimiser.step()
            schedule.step()
        if step % 25 == 0 or step == steps - 1:
            correct = (logits.argmax(-1) == batch["target"][asked]).float().mean().item()
            logger.info(
                "language %d/%d answer %.3f (tokens right %.3f) hints %s  %.0f s",
                step,
                steps,
                answer_loss.item(),
                correct,
                " ".join(f"{share:.2f}" for share in right),
                time.time() - began,
            )
        if step % 250 == 249:
            checkpoint(step)
    checkpoint(steps)
