"""The README is true: its commands and code run as they stand there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from streamvlm.cli import app
from streamvlm.config import shipped

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [line.split("  #")[0].strip() for line in lines if line.startswith("streamvlm ")]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, shapes_film) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    (folder / "video.mp4").write_bytes(shapes_film.read_bytes())
    (folder / "another.mkv").write_bytes(shapes_film.read_bytes())
    return folder


@pytest.mark.slow
def test_the_commands_run_in_the_order_they_are_shown(workplace):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    runnable = [
        command
        for command in commands()
        if not re.search(r"--config (gpu|openai)|^streamvlm bench", command)
    ]
    assert len(runnable) >= 6
    for command in runnable:
        ran = subprocess.run(
            shlex.split(command),
            cwd=workplace,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
        assert ran.stdout.strip(), command


def test_the_measurements_shown_are_understood():
    """They take minutes, so they are only read here; tests/cli/test_bench.py runs small ones."""
    shown = [shlex.split(line)[2:] for line in commands() if line.startswith("streamvlm bench")]
    group = get_command(app).commands["bench"]
    assert {name for name, *_ in shown} == set(group.commands)
    for name, *options in shown:
        group.commands[name].make_context(name, options)  # raises if an option is unknown


def test_the_python_lines_run(workplace, monkeypatch, capsys):
    asking, remembering = blocks("python")
    monkeypatch.chdir(workplace)
    exec(compile(asking.replace("lobby/", "python-lobby/"), "README.md", "exec"), {})
    assert re.search(r"\[\(\d+\.\d", capsys.readouterr().out)
    exec(compile(remembering.replace("lobby/", "python-lobby/"), "README.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_configuration_shown_is_the_default_one():
    (shown,) = blocks("yaml")
    assert yaml.safe_load(shown) == yaml.safe_load(shipped()["default"].read_text())


def test_every_command_is_in_the_readme():
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        assert f"streamvlm {name}" in README
    for group in app.registered_groups:
        assert f"streamvlm {group.name}" in README


def test_every_file_named_in_the_readme_exists():
    linked = re.findall(r"\]\(([\w./_-]+)\)", README)
    assert linked
    for target in linked:
        assert (ROOT / target).exists(), target


def test_every_script_has_its_line():
    about = (ROOT / "scripts" / "README.md").read_text()
    for path in (ROOT / "scripts").iterdir():
        if path.is_file() and path.name not in ("README.md", "constraints.txt", "__init__.py"):
            assert f"`{path.name}`" in about
