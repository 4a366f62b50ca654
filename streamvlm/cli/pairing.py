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
        `needs`, and the installed models that it `works_with`. Of others, nothing.
    """
    plugin = registry.find(kind, name)
    if kind == "models":
        return {"gives": sorted(plugin.cues) if hasattr(plugin, "encode") else None}
    if kind == "compressors":
        return {"needs": sorted(plugin.needs), "works_with": _partners(plugin.needs)}
    return {}


def sentence(known: Facts) -> str:
    """`facts` as a line of text; empty if there are none.

    >>> sentence({"needs": ["attention", "keys"], "works_with": ["internvl"]})
    'needs attention, keys; works with internvl'
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
        return f"needs {', '.join(needed) or 'no cues'}; works with {fitting or 'no model here'}"
    return ""


def _partners(needs: frozenset[str]) -> list[str]:
    found = {name: _importable(name) for name in registry.names("models")}
    return [
        name for name, plugin in found.items() if hasattr(plugin, "encode") and needs <= plugin.cues
    ]


def _importable(model: str) -> Any:
    try:
        return registry.find("models", model)
    # Whatever a foreign module raises is told in the model's own line, not in every compressor's.
    except Exception as error:
        logger.debug("models/%s cannot be imported: %s", model, error)
        return None
