"""What goes with what: said by `plugins` and `doctor`, and refused before any weight is loaded."""

import json

import pytest
from typer.testing import CliRunner

from streamvlm import plugins
from streamvlm.cli import app
from streamvlm.cli.pairing import facts, sentence
from streamvlm.config import load
from streamvlm.errors import ConfigError

NEEDY = {
    "by_class_token": {"cls_attention"},
    "by_keys": {"attention", "keys"},
    "by_question": {"question"},
}
"""Compressors of another package, by what they need."""
OPTIONS = {
    "openai": ["model.url=http://localhost:1/v1", "model.model=some-model"],
}
"""What a model cannot do without; for all others the weights."""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Another package with compressors, installed for one test; one of them cannot be imported."""
    code = [
        f'class {name.title()}:\n    """Needs {sorted(needs)}."""\n    needs = frozenset({needs})\n'
        "    def __init__(self, keep: float = 0.25): ...\n"
        for name, needs in NEEDY.items()
    ]
    (tmp_path / "needy_methods.py").write_text("\n".join(code))
    info = tmp_path / "needy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: needy\nVersion: 1.0\n")
    points = [f"{name} = needy_methods:{name.title()}" for name in NEEDY]
    (info / "entry_points.txt").write_text("\n".join(["[streamvlm.compressors]", *points]) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    return info


def choose(model: str, compressor: str, *more: str):
    """A configuration of two parts whose weights are nowhere to be found."""
    options = OPTIONS.get(model, ["model.weights=/nowhere/at/all"])
    return load(
        overrides=[f"model.name={model}", *options, f"compressor.name={compressor}", *more],
    )


def encoders() -> list[str]:
    found = {name: plugins.find("models", name) for name in plugins.names("models")}
    return [name for name, plugin in found.items() if hasattr(plugin, "encode")]


@pytest.mark.parametrize("model", encoders())
def test_every_pair_is_accepted_or_refused_before_weights_load(package, model):
    offered = plugins.find("models", model).cues
    refused = []
    for compressor in plugins.names("compressors"):
        needed = plugins.find("compressors", compressor).needs
        known = facts("compressors", compressor)
        assert (model in known["works_with"]) == (needed <= offered | {"question"})
        assert ("focus" in known["sections"]) == (needed <= {"question"})
        if needed == {"question"}:
            assert known["sections"] == ["focus"]
            with pytest.raises(ConfigError, match=f"{compressor} .* name it in the section focus"):
                choose(model, compressor)
            choose(model, "uniform", f"focus.name={compressor}")
            refused.append(compressor)
            continue
        if needed <= offered:
            choose(model, compressor)  # there are no weights: nothing can have been loaded
            continue
        missing = ", ".join(sorted(needed - offered))
        with pytest.raises(ConfigError) as raised:
            choose(model, compressor)
        said = str(raised.value)
        assert said.startswith(f"{compressor} needs the cue {missing}, which {model} does not give")
        assert f"(it gives: {', '.join(sorted(offered))})" in said
        assert "uniform" in said.partition("use one of: ")[2]
        assert compressor not in said.partition("use one of: ")[2].split(", ")
        refused.append(compressor)
    assert "by_question" in refused  # the question is not known at ingest
    assert ("by_class_token" in refused) == ("cls_attention" not in offered)
    assert "by_keys" not in refused


def test_a_model_that_makes_no_tokens_is_refused_with_every_compressor():
    for compressor in plugins.names("compressors"):
        with pytest.raises(ConfigError, match="openai makes no visual tokens"):
            choose("openai", compressor)


def test_plugins_says_what_goes_with_what(package):
    ran = CliRunner().invoke(app, ["plugins", "--json"])
    found = {(at["kind"], at["name"]): at for at in map(json.loads, ran.stdout.splitlines())}
    assert found["models", "internvl"]["gives"] == sorted(plugins.find("models", "internvl").cues)
    assert found["models", "openai"]["gives"] is None
    by_class_token = found["compressors", "by_class_token"]
    assert by_class_token["needs"] == ["cls_attention"]
    assert "internvl" in by_class_token["works_with"]
    assert "llava_onevision" not in by_class_token["works_with"]
    assert found["compressors", "by_question"]["works_with"] == encoders()
    assert found["compressors", "by_question"]["sections"] == ["focus"]
    assert found["compressors", "by_keys"]["sections"] == ["compressor"]
    assert found["compressors", "uniform"]["sections"] == ["compressor", "focus"]
    assert found["compressors", "uniform"]["works_with"] == encoders()
    assert "needs" not in found["dedupe", "still"]


def test_plugins_prints_a_line_of_cues_below_each_name(package):
    said = CliRunner().invoke(app, ["plugins"]).stdout
    for text in (
        "gives attention, attention_middle, cls_attention, frame_vector, keys",
        "only answers, makes no tokens",
        "needs attention, frame_vector; works with internvl, ",
        "needs question; works at answer time, in the section focus, with internvl, ",
        "needs no cues; works with every model",
    ):
        assert text in said


def test_doctor_looks_at_every_model_and_compressor(package):
    points = (package / "entry_points.txt").read_text()
    broken = "broken = no_such_module:Broken\n"
    (package / "entry_points.txt").write_text(f"{points}{broken}[streamvlm.models]\n{broken}")
    ran = CliRunner().invoke(app, ["doctor", "--json"])
    found = {line["name"]: line for line in map(json.loads, ran.stdout.splitlines())}
    for kind in ("models", "compressors"):
        for name in plugins.names(kind):
            if name != "broken":
                assert found[f"{kind}/{name}"] == {
                    "name": f"{kind}/{name}",
                    "ok": True,
                    "detail": sentence(facts(kind, name)),
                }
        assert not found[f"{kind}/broken"]["ok"]
        assert "no_such_module" in found[f"{kind}/broken"]["detail"]
    assert ran.exit_code == 1
