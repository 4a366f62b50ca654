"""Which cues a model gives, which a compressor needs, and so which two go together."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from streamvlm import plugins as registry

logger = logging.getLogger(__name__)

Facts = Mapping[str, Sequence[str] | None]
"""What is known of a plug-in beside its summary; None where the question does not arise."""


def facts(kind: str, name: str) -> Facts:
    """What decides with whom a plug-in goes together; loads no weights.

    Args:
        kind: one of `plugins.KINDS`.
        name: the plug-in's name.

    Returns:
        Of a model, the cues it `gives`, None if it makes no tokens. Of a compressor, the cues it
        `needs`, the `sections` that may name it (`focus` works at answer time, when the question
        is known), and the installed models that it `works_with`. Of others, nothing.
    """
    plugin = registry.find(kind, name)
    if kind == "models":
        return {"gives": sorted(plugin.cues) if hasattr(plugin, "encode") else None}
    if kind == "compressors":
        # Here, because it imports torch, which `--help` does not wait for.
        from streamvlm.config import AT_ANSWER_TIME

        sections = ["compressor"] if AT_ANSWER_TIME.isdisjoint(plugin.needs) else []
        sections += ["focus"] if plugin.needs <= AT_ANSWER_TIME else []
        partners = _partners(plugin.needs, AT_ANSWER_TIME)
        return {"needs": sorted(plugin.needs), "sections": sections, "works_with": partners}
    return {}


def sentence(known: Facts) -> str:
    """`facts` as a line of text; empty if there are none.

    >>> needs, partners = ["attention", "keys"], ["internvl"]
    >>> sentence({"needs": needs, "sections": ["compressor"], "works_with": partners})
    'needs attention, keys; works with internvl'
    >>> sentence({"needs": ["question"], "sections": ["focus"], "works_with": partners})
    'needs question; works at answer time, in the section focus, with internvl'
    >>> sentence({"gives": None})
    'only answers, makes no tokens'
    """
    if "gives" in known:
        given = known["gives"]
        if given is None:
            return "only answers, makes no tokens"
        return f"gives {', '.join(given) or 'no cues'}"
    if "needs" in known:
        needed, partners = known["needs"] or (), known["works_with"] or ()
        fitting = ", ".join(partners) if needed else "every model"
        how = " at answer time, in the section focus," if known["sections"] == ["focus"] else ""
        return (
            f"needs {', '.join(needed) or 'no cues'}; works{how} with {fitting or 'no model here'}"
        )
    return ""


def _partners(needs: frozenset[str], asked: frozenset[str]) -> list[str]:
    found = {name: _importable(name) for name in registry.names("models")}
    given = {
        name: plugin.cues | (asked if hasattr(plugin, "with_question") else frozenset())
        for name, plugin in found.items()
        if hasattr(plugin, "encode")
    }
    return [name for name, cues in given.items() if needs <= cues]


def _importable(model: str) -> Any:
    try:
        return registry.find("models", model)
    # Whatever a foreign module raises is told in the model's own line, not in every compressor's.
    except Exception as error:
        logger.debug("models/%s cannot be imported: %s", model, error)
        return None
