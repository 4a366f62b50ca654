"""YAML → Config → checked → a StreamVLM.

A configuration is two levels deep: a section for each part, and in it the part's own options. A
section of plug-ins has a `name`; what else may be written is that plug-in's constructor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from streamvlm.engine import StreamVLM
from streamvlm.errors import ConfigError
from streamvlm.ingest import Stages
from streamvlm.memory.storage import Storage
from streamvlm.plugins import Recipe, check_options, complete_options, names, nearest
from streamvlm.recall import Limits
from streamvlm.rerank import Rerank
from streamvlm.video.sources import Sampling

_SECTIONS = {
    "dedupe": "dedupe",
    "clips": "clips",
    "model": "models",
    "compressor": "compressors",
    "embedder": "embedders",
    "answerer": "models",
    "focus": "compressors",
    "reducer": "reducers",
}
"""Each section that chooses a plug-in, and the kind it chooses from."""

AT_ANSWER_TIME = frozenset({"question"})
"""The cues of stored tokens: those that are made anew for each question."""

_SETTINGS: Mapping[str, type[Any]] = {
    "source": Sampling,
    "memory": Storage,
    "answer": Limits,
    "rerank": Rerank,
}
"""Each section that has options only, and the dataclass whose fields they are."""

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Config:
    """Which parts, with which options; checked when made, before any weight is loaded.

    Raises:
        ConfigError: when made, if the parts do not fit together.
    """

    recipes: Mapping[str, Recipe]
    """The plug-in of each section: dedupe, clips, model, compressor, embedder, of `answerer` where
    another part than the model answers, of `focus` where found tokens are compressed again, and of
    `reducer` where tokens leave inside the language model."""
    sampling: Sampling = field(default_factory=Sampling)
    """The section `source`."""
    storage: Storage = field(default_factory=Storage)
    """The section `memory`."""
    limits: Limits = field(default_factory=Limits)
    """The section `answer`."""
    rerank: Rerank = field(default_factory=Rerank)
    """The section `rerank`; may be left out."""

    def __post_init__(self) -> None:
        self._check_roles()
        self._check_cues()
        self._check_focus()
        # These load no weights: a value out of range is best known before anything is stored.
        for section in ("dedupe", "clips", "compressor", "focus", "reducer"):
            if section in self.recipes:
                self.recipes[section].build()
        answerer = self.recipes.get("answerer")
        if answerer is not None and not hasattr(answerer.plugin, "encode"):
            self._check_tokens(answerer.build())

    def _check_roles(self) -> None:
        model, answerer = self.recipes["model"], self.recipes.get("answerer")
        if not hasattr(model.plugin, "encode"):
            raise ConfigError(
                f"{model.name} makes no visual tokens, it only answers; name it in the section "
                "answerer, and in the section model one that does, such as llava_onevision"
            )
        if answerer and hasattr(answerer.plugin, "encode") and answerer.plugin is not model.plugin:
            raise ConfigError(
                f"{answerer.name} reads only tokens that it made itself, not those of "
                f"{model.name}; name the same in both sections, or leave answerer out"
            )
        speaker = answerer or model
        if not hasattr(speaker.plugin, "answer"):
            raise ConfigError(
                f"{speaker.name} does not answer; name one that does in the section answerer"
            )
        if "reducer" in self.recipes and not hasattr(speaker.plugin, "reduce_with"):
            raise ConfigError(
                f"{speaker.name} runs its language model where the section reducer cannot reach; "
                "leave out that section, or the section answerer"
            )

    def _check_cues(self) -> None:
        model, compressor = self.recipes["model"], self.recipes["compressor"]
        offered, needed = model.plugin.cues, compressor.plugin.needs
        missing = needed - offered
        if missing and needed <= AT_ANSWER_TIME:
            raise ConfigError(
                f"{compressor.name} needs the question, which is not known when a video is watched;"
                " name it in the section focus, and in the section compressor one that needs none, "
                "such as uniform"
            )
        if missing:
            raise ConfigError(
                f"{compressor.name} needs the cue {_listed(missing)}, which {model.name} does not "
                f"give (it gives: {_listed(offered)}); use one of: {_fed_by(offered)}"
            )

    def _check_focus(self) -> None:
        focus, speaker = self.recipes.get("focus"), self.recipes["model"]
        if focus is None:
            return
        speaker = self.recipes.get("answerer", speaker)
        if not hasattr(speaker.plugin, "with_question"):
            raise ConfigError(
                f"{speaker.name} cannot compare stored tokens with a question, so the section "
                "focus has nothing to choose by; leave out that section, or the section answerer"
            )
        if missing := focus.plugin.needs - AT_ANSWER_TIME:
            raise ConfigError(
                f"{focus.name} needs the cue {_listed(missing)}, which stored tokens do not carry; "
                f"use in the section focus one of: {_fed_by(AT_ANSWER_TIME)}"
            )
        if "keep" not in complete_options(focus.plugin, focus.options):
            raise ConfigError(
                f"{focus.name} has no option keep, by which the section focus shares out a budget; "
                f"use one of: {_fed_by(AT_ANSWER_TIME)}"
            )

    def _check_tokens(self, answerer: Any) -> None:
        """Refuse tokens that the answerer could not use, before any is made."""
        model, compressor = self.recipes["model"].plugin, self.recipes["compressor"]
        if not hasattr(answerer, "refusal"):
            return
        # What fingerprints of tokens begin with, and so what an answerer knows them by.
        family = model.__module__.rpartition(".")[2]
        keep = complete_options(compressor.plugin, compressor.options).get("keep", 1.0)
        if reason := answerer.refusal(family, keep):
            raise ConfigError(reason)

    def build(self, memory: str | Path | None = None) -> StreamVLM:
        """A StreamVLM of these parts; each loads its weights when first used.

        Args:
            memory: the folder to keep what is ingested; None for a temporary one.
        """
        stages = Stages(self.sampling, self.recipes)
        return StreamVLM(
            stages, memory, storage=self.storage, limits=self.limits, rerank=self.rerank
        )


def _listed(cues: frozenset[str]) -> str:
    return ", ".join(sorted(cues)) or "none"


def _fed_by(cues: frozenset[str]) -> str:
    """The compressors that can work with these cues."""
    every = (Recipe("compressors", name) for name in names("compressors"))
    return ", ".join(recipe.name for recipe in every if recipe.plugin.needs <= cues)


def shipped() -> dict[str, Path]:
    """The configurations that come with StreamVLM: name → file."""
    folders = (_HERE / "configs", _HERE.parent / "configs")
    found = next(folder for folder in folders if folder.is_dir())
    return {path.stem: path for path in sorted(found.glob("*.yaml"))}


def _read(config: str | Path) -> dict[str, Any]:
    known = shipped()
    path = known.get(str(config), Path(config))
    try:
        sections = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if path.suffix or len(path.parts) > 1:
            raise ConfigError(f"there is no file {path}; check the path") from None
        hint = nearest(str(config), known)
        raise ConfigError(f"there is no configuration {str(config)!r}{hint}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read as YAML: {detail}") from error
    if not isinstance(sections, dict):
        raise ConfigError(f"{path} must hold sections such as `model: {{name: …}}`")
    return sections


def _override(sections: dict[str, Any], assignment: str) -> None:
    """Apply one `section.option=value`."""
    target, equals, text = assignment.partition("=")
    section, dot, option = target.strip().partition(".")
    if not (equals and dot and option):
        raise ConfigError(f"cannot read {assignment!r}; write it as section.option=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"cannot read the value of {assignment!r}; put it in quotes") from error
    current = sections.get(section) or {}
    if not isinstance(current, dict):
        raise ConfigError(f"section {section!r} must be options in braces, found {current!r}")
    if option == "name" and current.get("name") != value:
        current = {}  # the options of one plug-in mean nothing to another
    sections[section] = {**current, option: value}


def load(config: str | Path = "default", overrides: Sequence[str] = ()) -> Config:
    """Read and check a configuration. No weights are loaded.

    Args:
        config: the name of a shipped configuration, or a YAML file. Sections that it leaves out
            are taken from `default`.
        overrides: assignments such as `compressor.keep=0.2`, applied in order.

    Returns:
        The checked configuration.

    Raises:
        ConfigError: the file cannot be read, or a section, plug-in or option in it is unknown; the
            message names the nearest right one.
    """
    sections = {**_read("default"), **_read(config)}
    for assignment in overrides:
        _override(sections, assignment)
    for section, options in sections.items():
        known = (*_SECTIONS, *_SETTINGS)
        if section not in known:
            raise ConfigError(f"there is no section {section!r}{nearest(section, known)}")
        if not isinstance(options, dict):
            raise ConfigError(f"section {section!r} must be options in braces, found {options!r}")
    settings = {name: _settings(name, maker, sections) for name, maker in _SETTINGS.items()}
    return Config(
        recipes={name: _recipe(name, sections[name]) for name in _SECTIONS if name in sections},
        sampling=settings["source"],
        storage=settings["memory"],
        limits=settings["answer"],
        rerank=settings["rerank"],
    )


def _recipe(section: str, options: dict[str, Any]) -> Recipe:
    kind = _SECTIONS[section]
    if "name" not in options:
        raise ConfigError(f"section {section!r} needs a name; one of: {', '.join(names(kind))}")
    rest = {option: value for option, value in options.items() if option != "name"}
    return Recipe(kind, str(options["name"]), rest)


def _settings(section: str, maker: type[Any], sections: dict[str, Any]) -> Any:
    options = sections.get(section, {})
    check_options(section, maker, options)
    return maker(**complete_options(maker, options))
