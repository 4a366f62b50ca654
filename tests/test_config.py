from pathlib import Path

import pytest

from streamvlm.config import load, shipped
from streamvlm.errors import BadOption, ConfigError, UnknownPlugin


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_configuration_checks_without_loading_weights(name):
    assert load(name).recipes["model"].name == "llava_onevision"


def test_the_shipped_configurations_are_few_and_short():
    assert set(shipped()) == {"default", "gpu", "openai"}
    assert all(len(path.read_text().splitlines()) <= 30 for path in shipped().values())


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_a_file_may_leave_sections_out(tmp_path):
    config = load(write(tmp_path, "source: {fps: 2.0}\n"))
    assert config.sampling.fps == 2.0
    assert config.recipes["compressor"].name == "fastvid"


def test_an_override_wins_and_overrides_apply_in_order():
    config = load(overrides=["compressor.keep=0.2", "compressor.keep=0.3", "source.max_frames=9"])
    assert config.recipes["compressor"].options["keep"] == 0.3
    assert config.sampling.max_frames == 9


def test_choosing_another_plugin_drops_the_options_of_the_first():
    config = load(overrides=["clips.name=scenes"])
    assert "seconds" not in config.recipes["clips"].options


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("sorce: {fps: 1}", ConfigError, "did you mean 'source'"),
        ("source: {fbs: 1}", BadOption, "did you mean 'fps'"),
        ("source: {fps: fast}", BadOption, "fps must be float, found 'fast'"),
        ("source: {fps: -1}", BadOption, "fps"),
        ("compressor: {name: fastvit}", UnknownPlugin, "did you mean 'fastvid'"),
        ("compressor: {keep: 0.1}", ConfigError, "needs a name"),
        ("compressor: {name: uniform, keep: 2}", BadOption, "keep"),
        ("dedupe: {name: still, levels: -1}", BadOption, "levels"),
        ("compressor: {name: 3}", UnknownPlugin, "no compressors plug-in is called '3'"),
        ("memory: {payload: int9}", BadOption, "payload"),
        ("answer: {max_records: 0}", BadOption, "at least 1"),
        ("dedupe: still", ConfigError, "must be options in braces"),
        ("answerer: {url: http://a/v1}", ConfigError, "needs a name"),
        ("answerer: {name: openai, model: a}", BadOption, "needs the option 'url'"),
        ("answerer: {name: openai, url: a, model: a}", BadOption, "url must be of the form"),
        ("model: {name: openai, url: http://a, model: a}", ConfigError, "section answerer"),
        ("- a\n- b", ConfigError, "must hold sections"),
        ("a: [", ConfigError, "cannot be read as YAML"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_nearest_right_name(tmp_path, text, error, message):
    with pytest.raises(error, match=message):
        load(write(tmp_path, text))


def test_a_missing_configuration_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'default'"):
        load("defalt")


def test_two_ways_to_write_the_same_settings_are_equal():
    with (
        load(overrides=["source.fps=1", "dedupe.levels=8"]).build() as one,
        load().build() as other,
    ):
        assert one.stages.settings == other.stages.settings


def test_a_value_that_is_no_yaml_is_one_sentence():
    with pytest.raises(ConfigError, match="put it in quotes"):
        load(overrides=["model.weights=["])


@pytest.mark.parametrize("assignment", ["keep=1", "compressor.keep", "compressor"])
def test_an_override_must_be_an_assignment(assignment):
    with pytest.raises(ConfigError, match=r"section\.option=value"):
        load(overrides=[assignment])


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Real plug-ins of another package, by what they need."""
    needs = {"curious": "question", "keyed": "keys", "both": "question keys", "odd": "question"}
    code = [
        f"class {name.title()}:\n"
        f'    """Needs {words}; made for this test."""\n'
        f"    needs = frozenset({words.split()})\n"
        f"    def __init__(self, {'share' if name == 'odd' else 'keep'}: float = 0.25): ...\n"
        for name, words in needs.items()
    ]
    (tmp_path / "needy_method.py").write_text("\n".join(code))
    info = tmp_path / "needy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: needy\nVersion: 1.0\n")
    points = "\n".join(f"{name} = needy_method:{name.title()}" for name in needs)
    (info / "entry_points.txt").write_text(f"[streamvlm.compressors]\n{points}\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_a_compressor_that_needs_a_cue_the_model_does_not_give_is_refused(package):
    with pytest.raises(ConfigError, match=r"both needs the cue question.*use one of: .*fastvid"):
        load(overrides=["compressor.name=both"])


def test_a_compressor_that_needs_the_question_is_sent_to_the_section_focus(package):
    with pytest.raises(ConfigError, match=r"curious needs the question.* in the section focus"):
        load(overrides=["compressor.name=curious"])
    assert load(overrides=["focus.name=curious"]).recipes["focus"].name == "curious"


@pytest.mark.parametrize("name", ["keyed", "both"])
def test_a_focus_may_need_only_the_question(package, name):
    with pytest.raises(ConfigError, match=rf"{name} needs the cue keys, which stored .*uniform"):
        load(overrides=[f"focus.name={name}"])


def test_a_focus_has_a_share_to_keep(package):
    with pytest.raises(ConfigError, match="odd has no option keep"):
        load(overrides=["focus.name=odd"])


def test_there_is_no_focus_unless_one_is_named():
    assert "focus" not in load().recipes
    with load().build() as plain, load(overrides=["focus.name=uniform"]).build() as other:
        assert plain.stages.focus is None
        assert other.stages.focus is not None
        assert plain.stages.settings == other.stages.settings  # the memory is the same


def test_a_value_out_of_range_of_a_focus_is_refused():
    with pytest.raises(BadOption, match="keep must be"):
        load(overrides=["focus.name=uniform", "focus.keep=2"])


@pytest.mark.parametrize("send", ["images", "tokens"])
def test_a_focus_needs_an_answerer_that_knows_words_and_tokens(send):
    focus = ["focus.name=uniform", f"answerer.send={send}"]
    with pytest.raises(ConfigError, match=r"openai cannot compare .* leave out that section"):
        of_model("internvl", *SERVER, "compressor.name=uniform", *focus)


SERVER = ["answerer.name=openai", "answerer.url=http://localhost:1/v1", "answerer.model=a"]


def of_model(name: str, *more: str):
    return load(overrides=[f"model.name={name}", "model.weights=/nowhere/at/all", *more])


def test_an_answerer_that_reads_only_its_own_tokens_must_be_the_model():
    own = ["answerer.name=internvl", "answerer.weights=/nowhere/at/all"]
    assert of_model("internvl", *own).recipes["answerer"].name == "internvl"
    with pytest.raises(ConfigError, match=r"internvl reads only .* not those of llava_onevision;"):
        of_model("llava_onevision", *own)


def test_a_model_whose_tokens_no_server_takes_cannot_send_them():
    of_model("smolvlm", "compressor.name=uniform", *SERVER)
    with pytest.raises(ConfigError, match=r"tokens of smolvlm cannot go .* set answerer.send to"):
        of_model("smolvlm", "compressor.name=uniform", *SERVER, "answerer.send=tokens")


@pytest.mark.parametrize("model", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("thinning", [[], ["compressor.keep=0.5"]])
def test_thinned_tokens_of_the_qwen_line_cannot_be_sent(model, thinning):
    sends = ["compressor.name=uniform", *thinning, *SERVER, "answerer.send=tokens"]
    of_model(model, *sends, "compressor.keep=1")
    of_model("internvl", *sends)
    share = "0.5" if thinning else "0.25"  # the latter if nothing is said
    with pytest.raises(ConfigError, match=rf"whole steps of {model}, but .* keeps {share} of"):
        of_model(model, *sends)


def test_the_model_answers_unless_another_part_is_named():
    assert "answerer" not in load().recipes
    config = load(overrides=SERVER)
    assert config.recipes["model"].name == "llava_onevision"
    with load().build() as plain, config.build() as other:
        assert plain.stages.uses_demo_model
        assert not other.stages.uses_demo_model
        assert type(other.stages.answerer).__name__ == "OpenAIChat"
        assert plain.stages.settings == other.stages.settings
