"""The small trained checkpoint that ships: a normal Hugging Face folder, and its card.

It knows a world of coloured shapes and nothing else; `README.md` here says how well.
"""

from pathlib import Path

_PARTS = {"answerer": Path(__file__).parent, "retriever": Path(__file__).parent / "retriever"}


def checkpoint(weights: str, part: str) -> str:
    """Where to load weights from: `demo` stands for the checkpoint that ships.

    Args:
        weights: `demo`, a local folder, or a Hugging Face name.
        part: `answerer` or `retriever`.

    Returns:
        A folder or name for `from_pretrained`.
    """
    return str(_PARTS[part]) if weights == "demo" else weights
