"""A checkpoint on disk: found, checked, named and loaded, with one sentence for whatever is wrong.

A checkpoint is a normal Hugging Face folder: `config.json`, `*.safetensors`, and where needed the
tokenizer's and the preprocessor's files. Nothing here reaches the network unless asked to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch

from streamvlm.demo import checkpoint
from streamvlm.errors import ModelError
from streamvlm.pixels import PixelBudget, Preprocessing

Precision = Literal["float32", "bfloat16", "float16"]

_WHOLE = 64 * 2**20
_BLOCKS, _BLOCK = 256, 64 * 2**10
_WANTED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights that are there, and how they are to be run."""

    name: str
    """As the user wrote it."""
    folder: Path
    """Where its files are."""
    device: torch.device
    """Where it runs."""
    dtype: torch.dtype
    """In which precision it runs, whatever the files hold."""
    family: str
    """`model_type` of its configuration."""

    def fingerprint(
        self, plugin: str, how: Preprocessing, budget: PixelBudget | None = None
    ) -> str:
        """What must be equal for two vectors to live in the same space.

        Plug-in, name, a digest of configuration, weights and preprocessing, precision and picture
        size. A weight file up to 64 MiB is digested whole; of a larger one its header, its size
        and 256 blocks spread evenly, which any fine-tuning changes.

        Args:
            plugin: the plug-in's name.
            how: the preprocessing in force.
            budget: what decides the size of pictures that have no fixed one.

        Returns:
            One line, e.g. `llava_onevision/demo 3f9a0c11d2e4 float32 96px`.
        """
        digest = hashlib.sha256((self.folder / "config.json").read_bytes())
        digest.update(repr(how).encode() if budget is None else repr((how, budget)).encode())
        for path in sorted(self.folder.glob("*.safetensors")):
            digest.update(path.name.encode())
            _sample(path, digest)
        size = f"{how.patches}p" if how.size is None else f"{how.size[0]}px"
        if budget is not None:
            size = f"{budget.least}-{budget.most}px"
        precision = str(self.dtype).removeprefix("torch.")
        name = Path(self.name).name or self.folder.resolve().name
        return f"{plugin}/{name} {digest.hexdigest()[:12]} {precision} {size}"

    def load(self, architecture: Any, more: Mapping[str, Any] = MappingProxyType({})) -> Any:
        """Load the weights for reading only: evaluation mode, no gradients.

        Args:
            architecture: a class of transformers with `from_pretrained`.
            more: further arguments of `from_pretrained`; with a `device_map`, it places the
                weights.

        Raises:
            ModelError: a file is damaged, weights that the model needs are not in the files (they
                would be random numbers otherwise), or the device has not enough memory.
        """
        if not any(self.folder.glob("*.safetensors")):
            raise ModelError(f"{self.folder} has no .safetensors file; add the checkpoint's")
        scarce = f"loading {self.name}", "choose a smaller checkpoint or dtype bfloat16"
        # With a `device_map`, the weights reach the device while they are read.
        with _reading(self, "weights"), _quiet(), enough_memory(*scarce):
            model, report = architecture.from_pretrained(
                self.folder,
                dtype=self.dtype,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **more,
            )
        if missing := sorted(report["missing_keys"]):
            raise ModelError(
                f"{self.name}: the weight files lack {len(missing)} tensors, {missing[0]} first; "
                "fetch the checkpoint again"
            )
        model = model.eval().requires_grad_(False)
        if "device_map" in more:
            return model
        with enough_memory(*scarce):
            return model.to(self.device)

    def tokenizer(self) -> Any:
        """Load the tokenizer.

        Raises:
            ModelError: its files are missing or damaged.
        """
        from transformers import AutoTokenizer

        known = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json")
        if not any((self.folder / name).exists() for name in known):
            raise ModelError(f"{self.folder} has no tokenizer.json; add the checkpoint's")
        with _reading(self, "tokenizer"), _quiet():
            tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
            # Older checkpoints keep the template of the whole model beside the tokenizer's own.
            if (path := self.folder / "chat_template.json").exists():
                tokenizer.chat_template = json.loads(path.read_text("utf-8"))["chat_template"]
        return tokenizer


def open_checkpoint(
    name: str,
    part: Literal["answerer", "retriever"],
    families: tuple[str, ...],
    *,
    device: str,
    dtype: Precision,
    download: bool,
) -> Checkpoint:
    """Find weights and check that they can be run as asked; loads nothing yet.

    Args:
        name: `demo`, a folder, or a Hugging Face name.
        part: which half of the demo checkpoint `demo` stands for.
        families: the `model_type`s that the caller can run.
        device: `cpu`, `cuda`, `cuda:1`, …
        dtype: the precision to run in.
        download: whether a Hugging Face name may be fetched from the network.

    Raises:
        ModelError: there are no such weights, they are of another family, or there is no such
            device.
    """
    target = _device(device)
    folder = _locate(name, checkpoint(name, part), download=download)
    found = Checkpoint(name, folder, target, getattr(torch, dtype), "")
    path = folder / "config.json"
    if not path.exists():
        raise ModelError(
            f"{name}: no config.json in {folder}; give the folder of a Hugging Face checkpoint"
        )
    with _reading(found, "config.json"):
        family = json.loads(path.read_text(encoding="utf-8")).get("model_type", "unknown")
    if family not in families:
        raise ModelError(
            f"{name} is a checkpoint of the family {family}, needed is {' or '.join(families)}; "
            "choose other weights or another plug-in"
        )
    return Checkpoint(name, folder, target, found.dtype, family)


def _device(device: str) -> torch.device:
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"there is no device {device!r}; use cpu, cuda or cuda:N") from error
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"device {device!r} was asked for, but torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices; use `--set model.device=cpu --set "
            "embedder.device=cpu`, or a machine with a GPU and torch's CUDA build"
        )
    return target


def _locate(name: str, path: str, *, download: bool) -> Path:
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1:
        raise ModelError(f"there is no folder {path}; check the weights' path")
    from huggingface_hub import snapshot_download

    try:
        fetched = snapshot_download(path, allow_patterns=_WANTED, local_files_only=not download)
    # The hub raises OSErrors for what is missing or unreachable, ValueErrors for impossible names.
    except (OSError, ValueError) as error:
        if download:
            raise ModelError(f"{name} could not be downloaded ({_first(error)})") from error
        raise ModelError(
            f"{name} is neither a folder nor on this machine; fetch it with `hf download {name}`, "
            "give a folder, or set the option download to true"
        ) from error
    return Path(fetched)


@contextmanager
def enough_memory(what: str, wish: str) -> Iterator[None]:
    """Turn a device that runs out of memory into one sentence.

    Args:
        what: what was being done.
        wish: what to do about it.

    Raises:
        ModelError: there was not enough memory inside the block.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{what} ran out of memory on the device; {wish}") from error


def _sample(path: Path, digest: Any) -> None:
    size = path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as file:
        if size <= _WHOLE:
            digest.update(file.read())
            return
        digest.update(file.read(int.from_bytes(file.read(8), "little")))
        for block in range(_BLOCKS):
            file.seek((size - _BLOCK) * block // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK))


def _first(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def _reading(found: Checkpoint, what: str) -> Iterator[None]:
    """Turn whatever a damaged file makes a library raise into one sentence."""
    try:
        yield
    except ModelError:
        raise
    # safetensors, tokenizers and transformers raise bare Exceptions among others.
    except Exception as error:
        raise ModelError(
            f"{found.name}: the {what} cannot be read ({_first(error)}); fetch the checkpoint again"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bar and remarks off the user's terminal while weights load."""
    from transformers.utils import logging

    bar, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
