"""Files and functions stay small enough to read in one go."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = [
    path for name in ("streamvlm", "scripts", "pipelines") for path in (ROOT / name).rglob("*.py")
]

MOST_LINES_IN_A_FILE = 300
MOST_LINES_IN_A_FUNCTION = 60
MOST_PARAMETERS = 7
MOST_PARAMETERS_OF_A_COMMAND = 11
"""A command's parameters are its options as a user sees them."""


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    body = function.body
    has_docstring = ast.get_docstring(function) is not None
    if not has_docstring:
        return (function.end_lineno or 0) - function.lineno + 1
    docstring = (body[0].end_lineno or 0) - body[0].lineno + 1
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_there_is_something_to_measure():
    assert len(FILES) > 20


def test_no_file_is_too_long():
    lengths = {path: len(path.read_text().splitlines()) for path in FILES}
    assert {p: n for p, n in lengths.items() if n > MOST_LINES_IN_A_FILE} == {}


def test_no_function_is_too_long():
    long = {
        f"{path}:{function.name}": code_lines(function)
        for path, function in functions()
        if code_lines(function) > MOST_LINES_IN_A_FUNCTION
    }
    assert long == {}


def test_no_function_takes_too_many_parameters():
    crowded = {}
    for path, function in functions():
        arguments = function.args
        count = len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs)
        count -= any(argument.arg in ("self", "cls") for argument in arguments.args[:1])
        allowed = MOST_PARAMETERS_OF_A_COMMAND if path.parent.name == "cli" else MOST_PARAMETERS
        if count > allowed:
            crowded[f"{path}:{function.name}"] = count
    assert crowded == {}


def test_no_module_has_a_name_that_says_nothing():
    banned = {"utils", "helpers", "common", "misc", "core", "base"}
    assert [path for path in FILES if path.stem in banned] == []
