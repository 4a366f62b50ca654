"""A name becomes a class; a class and its options become a Recipe.

One file per plug-in: the name is the file's name, the plug-in is the one public class in it, its
options are the parameters of its constructor, its summary is the first line of its docstring.
Other packages add theirs by entry points in the group `streamvlm.<kind>`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from types import UnionType
from typing import Any, Literal, Union

from streamvlm.errors import BadOption, UnknownPlugin

KINDS = ("models", "compressors", "reducers", "embedders", "dedupe", "clips")
"""The kinds of plug-in, each named after the folder that holds it."""

_FOLDERS = {"dedupe": "video.dedupe", "clips": "video.clips"}


def _package(kind: str) -> str:
    return f"streamvlm.{_FOLDERS.get(kind, kind)}"


def _foreign(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"streamvlm.{kind}")}


def names(kind: str) -> list[str]:
    """The names of all plug-ins of a kind, sorted; imports none of them.

    Args:
        kind: one of `KINDS`.
    """
    return sorted({*_own(kind), *_foreign(kind)})


def _own(kind: str) -> list[str]:
    folder = importlib.import_module(_package(kind)).__path__
    return [module.name for module in pkgutil.iter_modules(folder) if module.name[0] != "_"]


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` if a known word is near, else the list of them."""
    known = sorted(known)
    close = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; choose from: {', '.join(known)}"


def find(kind: str, name: str) -> type[Any]:
    """The class of a plug-in.

    Args:
        kind: one of `KINDS`.
        name: the plug-in's file name without ending, or an entry point's name.

    Returns:
        The one public class in that file.

    Raises:
        UnknownPlugin: no plug-in has that name; the message gives the nearest one.
        TypeError: the file does not hold exactly one public class.
    """
    if kind not in KINDS:
        raise UnknownPlugin(f"there is no kind of plug-in {kind!r}{nearest(kind, KINDS)}")
    known = names(kind)
    if name not in known:
        raise UnknownPlugin(f"no {kind} plug-in is called {name!r}{nearest(name, known)}")
    if name not in _own(kind):  # ours win: nothing is replaced behind a user's back
        loaded: type[Any] = _foreign(kind)[name].load()
        return loaded
    module = importlib.import_module(f"{_package(kind)}.{name}")
    public = [
        found
        for label, found in inspect.getmembers(module, inspect.isclass)
        if found.__module__ == module.__name__ and label[0] != "_"
    ]
    if len(public) != 1:
        raise TypeError(f"{module.__name__} must hold exactly one public class, found {public}")
    return public[0]


def summary(kind: str, name: str) -> str:
    """The first line of a plug-in's docstring."""
    return (inspect.getdoc(find(kind, name)) or "").splitlines()[0]


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value read from YAML can stand for an annotated parameter."""
    origin = typing.get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, choice) for choice in typing.get_args(hint))
    if origin is Literal:
        return value in typing.get_args(hint)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is type(None):
        return value is None
    return not isinstance(hint, type) or isinstance(value, hint)


def _in_words(hint: Any) -> str:
    """An annotation as a message says it."""
    if typing.get_origin(hint) is Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(hint))
    return hint.__name__ if isinstance(hint, type) else str(hint)


def check_options(label: str, maker: type[Any], options: Mapping[str, Any]) -> None:
    """Refuse options that a constructor would not take, before anything is built.

    Args:
        label: what to call the thing in messages.
        maker: a class whose constructor's signature is the schema.
        options: names and values as read from a configuration.

    Raises:
        BadOption: an option is unknown, of the wrong type, or missing.
    """
    known = inspect.signature(maker).parameters
    hints = typing.get_type_hints(maker.__init__)
    for option, value in options.items():
        if option not in known:
            raise BadOption(f"{label} has no option {option!r}{nearest(option, known)}")
        if not _fits(value, hints.get(option, Any)):
            wanted = _in_words(hints[option])
            raise BadOption(f"{label}: {option} must be {wanted}, found {value!r}")
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise BadOption(f"{label} needs the option {option!r}")


def default_options(maker: type[Any]) -> dict[str, Any]:
    """The options that a constructor takes, with their defaults; those that must be given: None.

    Args:
        maker: the class whose constructor's signature is the schema.
    """
    parameters = inspect.signature(maker).parameters.values()
    return {p.name: None if p.default is p.empty else p.default for p in parameters}


def complete_options(maker: type[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the constructor's defaults filled in, and whole numbers as floats where due.

    Two ways to write the same thing become equal.

    Args:
        maker: the class whose constructor's signature is the schema.
        options: checked options.
    """
    parameters = inspect.signature(maker).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    hints = typing.get_type_hints(maker.__init__)
    whole = {**defaults, **options}
    return {
        name: float(value) if hints.get(name) is float else value for name, value in whole.items()
    }


@dataclass(frozen=True)
class Recipe:
    """A plug-in not built yet: cheap to make, to check, to print, to send to another process.

    Raises:
        UnknownPlugin: when made, if there is no such plug-in.
        BadOption: when made, if an option is unknown or of the wrong type.
    """

    kind: str
    """One of `KINDS`."""
    name: str
    """The plug-in's name."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of its constructor."""

    def __post_init__(self) -> None:
        check_options(f"{self.kind}/{self.name}", self.plugin, self.options)

    @property
    def plugin(self) -> type[Any]:
        """The class that will be built; reading class attributes loads no weights."""
        return find(self.kind, self.name)

    def build(self) -> Any:
        """Make the object. An object that exists is ready.

        Raises:
            BadOption: a value is out of range.
        """
        try:
            return self.plugin(**complete_options(self.plugin, self.options))
        except ValueError as error:
            raise BadOption(f"{self.kind}/{self.name}: {error}") from error
