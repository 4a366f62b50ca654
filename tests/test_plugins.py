import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from streamvlm import plugins
from streamvlm.errors import BadOption, UnknownPlugin
from streamvlm.plugins import Recipe

ALL = [(kind, name) for kind in plugins.KINDS for name in plugins.names(kind)]


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_every_plugin_is_one_class_with_a_summary(kind, name):
    assert isinstance(plugins.find(kind, name), type)
    assert len(plugins.summary(kind, name)) > 10


def test_every_kind_offers_something():
    assert {kind for kind, _ in ALL} == set(plugins.KINDS)


def test_names_are_sorted_and_leave_out_shared_files():
    found = plugins.names("compressors")
    assert found == sorted(found)
    assert not [name for name in found if name.startswith("_")]


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownPlugin, match="did you mean 'fastvid'"):
        plugins.find("compressors", "fastvit")


def test_an_unknown_kind_is_answered_with_the_nearest():
    with pytest.raises(UnknownPlugin, match="did you mean 'compressors'"):
        plugins.find("compressor", "fastvid")


def test_a_recipe_refuses_an_unknown_option_with_the_nearest():
    with pytest.raises(BadOption, match="did you mean 'keep'"):
        Recipe("compressors", "uniform", {"kep": 0.1})


def test_a_recipe_refuses_a_value_of_the_wrong_type():
    with pytest.raises(BadOption, match="keep must be float, found 'much'"):
        Recipe("compressors", "uniform", {"keep": "much"})


def test_a_recipe_refuses_a_value_out_of_range_when_built():
    with pytest.raises(BadOption, match="compressors/uniform"):
        Recipe("compressors", "uniform", {"keep": 7.0}).build()


def test_a_recipe_travels_between_processes():
    recipe = Recipe("compressors", "uniform", {"keep": 0.5})
    assert pickle.loads(pickle.dumps(recipe)).build() == recipe.build()


def test_a_missing_option_is_named():
    @dataclass
    class Needy:
        """Needs something."""

        what: int

    with pytest.raises(BadOption, match="needy needs the option 'what'"):
        plugins.check_options("needy", Needy, {})


def test_a_bool_is_no_number():
    @dataclass
    class Counted:
        """Takes a number."""

        count: int = 1

    with pytest.raises(BadOption, match="must be int"):
        plugins.check_options("counted", Counted, {"count": True})


def test_another_package_adds_a_plugin_by_entry_point(tmp_path: Path, monkeypatch):
    (tmp_path / "guest_method.py").write_text('class Guest:\n    """A guest, from elsewhere."""\n')
    info = tmp_path / "guest-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guest\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[streamvlm.compressors]\nguest = guest_method:Guest\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert "guest" in plugins.names("compressors")
    assert plugins.summary("compressors", "guest") == "A guest, from elsewhere."


def test_importing_the_package_loads_neither_torch_nor_ray():
    import subprocess

    code = (
        "import sys, streamvlm, streamvlm.types, streamvlm.protocols, streamvlm.plugins;"
        "print([name for name in ('torch', 'ray', 'numpy', 'transformers') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_choice_that_is_not_there_is_answered_with_those_that_are():
    with pytest.raises(BadOption, match=r"attention must be 'sdpa' or 'eager' or .*found 'flash'"):
        Recipe("models", "llava_onevision", {"attention": "flash"})
