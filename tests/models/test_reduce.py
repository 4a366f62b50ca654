"""Visual tokens that leave inside the language model, against a full pass that hides them.

The reference is stock transformers without a cache: the whole sequence goes through all layers, and
from the layer on at which a token leaves, nobody else sees it.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch.overrides import TorchFunctionMode

from streamvlm import plugins
from streamvlm.bench.exam import examinee, papers, sit
from streamvlm.config import load
from streamvlm.models._evidence import steps
from streamvlm.models._seats import seats
from streamvlm.models._taps import KERNEL
from streamvlm.plugins import Recipe
from streamvlm.reducers.fastv import FastV
from streamvlm.reducers.framefusion import FrameFusion
from streamvlm.reducers.holitom import HoliTomInner
from streamvlm.reducers.prunevid import PruneVidInner
from streamvlm.reducers.pyramiddrop import PyramidDrop
from streamvlm.reducers.visiondrop import VisionDrop
from streamvlm.reduction import Plan
from streamvlm.types import Query
from tests.models import tiny

DEPTH = 6
QUESTIONS = [
    Query("what colour is the star ?"),
    Query("when"),
    Query("where is the red square ? a b . c"),
]
REDUCERS = [
    FastV(keep=0.3),
    PyramidDrop(),
    HoliTomInner(keep=0.3),
    FrameFusion(cost=0.5, similar=0.2),
    PruneVidInner(),
    VisionDrop(keep=0.6, contextual=0.4),
]


@dataclass(frozen=True)
class EveryOther:
    """Keeps every other row at each of its layers, and asks nobody."""

    at: tuple[int, ...] = (2, 4)
    cut: bool = False
    wants: ClassVar[str] = "none"

    def layers(self, depth, lowest):
        return self.at

    def plan(self, rows, signal):
        assert signal is None
        return Plan(torch.arange(0, len(rows), 2), cut_caches=self.cut)


@dataclass(frozen=True, eq=False)
class Recording:
    """Asks another, and writes down what it was told and what it said."""

    inner: object
    log: list = field(default_factory=list)

    @property
    def wants(self):
        return self.inner.wants

    def layers(self, depth, lowest):
        return self.inner.layers(depth, lowest)

    def plan(self, rows, signal):
        plan = self.inner.plan(rows, signal)
        self.log.append((rows, signal, plan))
        return plan


FAMILIES = [family for family in tiny.FAMILIES if family.masked]


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.plugin)
def family(request, tmp_path_factory):
    """A family with six layers, whose three heads share their keys."""
    known = tiny.text_config
    deep = {"num_hidden_layers": DEPTH, "num_key_value_heads": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "text_config", lambda size, **more: known(size, **{**more, **deep}))
        folder = request.param.save(tmp_path_factory.mktemp("weights") / "deep")

    def load(**options):
        whole = {
            "weights": str(folder),
            "max_new_tokens": 4,
            **request.param.options,
            **options,
        }
        return Recipe("models", request.param.plugin, whole).build()

    return SimpleNamespace(plugin=request.param.plugin, load=load, model=load())


@pytest.fixture
def asked(family, clip, evidence):
    """A model of the family, evidence of six frames, and the slots of its tokens in the prompt."""
    video = clip(frames=6)
    items = [evidence(family.model.encode(video), video)]
    inputs = family.model.prompt(QUESTIONS[0], items)
    ids = inputs["input_ids"][0]
    slots = torch.isin(ids, torch.tensor(family.model._voice.placeholders)).nonzero()[:, 0]
    slots = slots[: len(items[0].record.tokens)]
    yield SimpleNamespace(model=family.model, items=items, inputs=inputs, slots=slots)
    family.model.reduce_with(None)


SOME = pytest.mark.parametrize(
    "family", [FAMILIES[0], FAMILIES[2]], ids=lambda family: family.plugin, indirect=True
)
"""For what does not hang on the family: one axis, and three with deeper features."""


def seated(model, items):
    order = list(steps(items))
    return seats(order, list(model.layout(order)))


def words_after(inputs, tokens):
    """A prompt with some more tokens behind it."""
    places = inputs["position_ids"]
    more = torch.arange(1, len(tokens) + 1)
    ids = torch.cat([inputs["input_ids"], torch.tensor([tokens])], dim=1)
    return {
        **inputs,
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": torch.cat([places, places[..., -1:] + more], dim=-1),
    }


@contextmanager
def hooked(layers, change):
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, given, options, at=at: change(at, given[0], options), with_kwargs=True
        )
        for at, layer in enumerate(layers)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def merged_one_by_one(hidden, plan):
    """(V, D) with what the plan merges, spelled out in a loop."""
    out = hidden.clone()
    for row in plan.keep.tolist():
        own, rest = 1.0, torch.zeros_like(hidden[0])
        for source, target, share in zip(
            *(part.tolist() for part in (plan.source, plan.target, plan.share)), strict=True
        ):
            if target == row:
                own -= share
                rest = rest + share * hidden[source]
        out[row] = own * hidden[row] + rest
    return out


@torch.no_grad()
def logits_in_one_pass(model, inputs, log, slots, first):
    """(S, vocabulary): all rows in all layers, and those that left hidden from the rest.

    Rows from `first` on are read after what leaves is forgotten by the layers below.
    """
    decoder = model._voice._reader._reduction._decoder
    size = inputs["input_ids"].shape[1]
    plans = {rows.layer: plan for rows, _, plan in log}
    gone = torch.zeros(size, dtype=torch.bool)
    left_at, alive = {}, slots
    for layer, plan in sorted(plans.items()):
        out = torch.ones(len(alive), dtype=torch.bool)
        out[plan.keep] = False
        left_at[layer], alive = (alive, alive[out]), alive[plan.keep]

    def change(at, hidden, options):
        if at in plans:
            rows, out = left_at[at]
            if plans[at].source is not None:
                hidden = hidden.clone()
                hidden[0, rows] = merged_one_by_one(hidden[0, rows], plans[at])
            gone[out] = True
        seen = torch.ones(size, size, dtype=torch.bool).tril()
        seen[:, gone] = False
        for layer, (_, out) in left_at.items():
            if plans[layer].cut_caches and at < layer:
                seen[first:, out] = False
        seen |= torch.eye(size, dtype=torch.bool)
        return (hidden,), {**options, "attention_mask": seen[None, None]}

    with hooked(decoder.layers, change):
        return model.network(**inputs).logits[0]


@torch.no_grad()
def logits_of_reading(model, inputs, items, tokens):
    """Logits of the prompt's last word and of each of some tokens said after it, and the cache."""
    reader, places = model._voice._reader, seated(model, items)
    rest, cache = reader.read(inputs, places)
    found = [reader.go_on(rest, cache, places)]
    for count, token in enumerate(tokens, 1):
        following = {
            "input_ids": torch.tensor([[token]]),
            "attention_mask": torch.ones(1, rest["attention_mask"].shape[1] + count).long(),
            "position_ids": rest["position_ids"][..., -1:] + count,
        }
        found.append(reader.go_on(following, cache, places))
    return torch.cat(found), cache


SAID = [9, 12, 11]


@pytest.mark.parametrize(
    "reducer", [*REDUCERS, EveryOther(), EveryOther(cut=True)], ids=lambda r: repr(r)
)
def test_logits_equal_those_of_a_full_pass_that_hides_what_left(asked, reducer):
    model, recording = asked.model, Recording(reducer)
    model.reduce_with(recording)
    found, cache = logits_of_reading(model, asked.inputs, asked.items, SAID)
    assert any(len(plan.keep) < len(rows) for rows, _, plan in recording.log)
    prompt = asked.inputs["input_ids"].shape[1]
    whole = words_after(asked.inputs, SAID)
    # Where the first pass ends, and the layers below forget what left.
    first = model._voice._reader._cut(asked.inputs) or prompt
    expected = logits_in_one_pass(model, whole, recording.log, asked.slots, first)[prompt - 1 :]
    difference = (found - expected).abs().max().item()
    nothing = logits_in_one_pass(model, whole, [], asked.slots, first)[prompt - 1 :]
    control = (nothing - expected).abs().max().item()
    print(f"{type(model).__name__} {reducer}: {difference:.1e}, control {control:.2f}")  # noqa: T201
    assert difference <= 1e-4
    assert control > 0.01
    lengths = [cache.get_seq_length(layer) for layer in range(DEPTH)]
    assert lengths == planned_lengths(recording.log, prompt + len(SAID), len(asked.slots))


def planned_lengths(log, size, visual):
    lengths = [size] * DEPTH
    for rows, _, plan in log:
        lost = len(rows) - len(plan.keep)
        for layer in range(0 if plan.cut_caches else rows.layer, DEPTH):
            lengths[layer] -= lost
    return lengths


@dataclass(frozen=True)
class Listening:
    """Keeps every other row at two layers, whatever it hears."""

    wants: str
    at: tuple[int, ...] = (3, 5)

    def layers(self, depth, lowest):
        return self.at

    def plan(self, rows, signal):
        assert signal.shape == (len(rows),)
        return Plan(torch.arange(0, len(rows), 2))


@pytest.mark.parametrize(
    "wants", ["last_query", "last_query_ahead", "text_queries", "vision_vision"]
)
def test_the_signal_equals_the_rows_of_the_eager_kernel(asked, wants):
    model, recording = asked.model, Recording(Listening(wants))
    model.reduce_with(recording)
    logits_of_reading(model, asked.inputs, asked.items, [])
    words = slice(int(asked.slots[-1]) + 1, None)
    assert [rows.layer for rows, _, _ in recording.log] == [3, 5]
    stages = (asked.slots, asked.slots[:0]), (asked.slots[::2], asked.slots[1::2])
    for (rows, signal, _), (alive, gone) in zip(recording.log, stages, strict=True):
        layer = rows.layer - (wants != "last_query_ahead")
        weights = attention_by_eager(model, asked.inputs, gone)[layer][0][..., alive]
        expected = {
            "last_query": weights[:, -1].mean(0),
            "last_query_ahead": weights[:, -1].mean(0),
            "text_queries": weights[:, words].amax((0, 1)),
            "vision_vision": weights[:, alive].mean((0, 1)),
        }[wants]
        torch.testing.assert_close(signal, expected, rtol=0, atol=1e-6)
        assert expected.std() > 1e-3 * expected.mean()


@torch.no_grad()
def attention_by_eager(model, inputs, gone):
    """(1, h, S, S) of every layer, with some rows hidden from layer 3 on."""
    decoder, size = model._voice._reader._reduction._decoder, inputs["input_ids"].shape[1]

    def change(at, hidden, options):
        seen = torch.ones(size, size, dtype=torch.bool).tril()
        seen[:, gone] &= at < 3
        seen |= torch.eye(size, dtype=torch.bool)
        mask = torch.zeros(size, size).masked_fill(~seen, torch.finfo(torch.float32).min)
        return (hidden,), {**options, "attention_mask": mask[None, None]}

    decoder.set_attn_implementation("eager")
    try:
        with hooked(decoder.layers, change):
            return model.network(**inputs, output_attentions=True).attentions
    finally:
        decoder.set_attn_implementation(KERNEL)


def spoken(model, question, items):
    return list(model.answer(question, items))


@SOME
@pytest.mark.parametrize("name", plugins.names("reducers"))
def test_a_reducer_that_keeps_everything_changes_no_word(asked, name):
    model = asked.model
    expected = [spoken(model, question, asked.items) for question in QUESTIONS]
    share = "cost" if name == "framefusion" else "keep"
    model.reduce_with(Recipe("reducers", name, {share: 1.0}).build())
    for question, words in zip(QUESTIONS, expected, strict=True):
        found = spoken(model, question, asked.items)
        assert [word.text for word in found] == [word.text for word in words]
        chances = [word.probability for word in words]
        assert [word.probability for word in found] == pytest.approx(chances, abs=1e-5)
        if model._voice._reader.keeps_evidence:
            assert found == words


@SOME
@pytest.mark.parametrize("reducer", REDUCERS, ids=lambda r: type(r).__name__)
def test_questions_asked_together_get_the_answers_of_questions_asked_alone(asked, reducer):
    model = asked.model
    model.reduce_with(reducer)
    expected = ["".join(map(str, spoken(model, q, asked.items))) for q in QUESTIONS]
    assert model.answer_all(QUESTIONS, asked.items) == expected
    assert len(set(expected)) > 1


@SOME
@pytest.mark.parametrize("reducer", [VisionDrop(), EveryOther(), EveryOther(cut=True)], ids=repr)
def test_what_needs_no_question_is_read_once_for_all_questions(asked, reducer):
    model, counts = asked.model, []
    expected = []
    for question in QUESTIONS:
        model.reduce_with(reducer)
        expected.append(spoken(model, question, asked.items))
    model.reduce_with(reducer)
    hook = model.network.register_forward_pre_hook(
        lambda _network, _args, inputs: counts.append(inputs["input_ids"].shape[1]),
        with_kwargs=True,
    )
    found = [spoken(model, question, asked.items) for question in QUESTIONS]
    hook.remove()
    assert found == expected
    assert sum(count > len(asked.slots) for count in counts) == 1
    texts = ["".join(map(str, words)) for words in expected]
    assert model.answer_all(QUESTIONS, asked.items) == texts


@SOME
def test_what_asks_the_question_decides_anew_for_each(asked):
    model, recording = asked.model, Recording(FastV(keep=0.3))
    model.reduce_with(recording)
    for question in (*QUESTIONS, QUESTIONS[0]):
        spoken(model, question, asked.items)
    kept = [plan.keep.tolist() for _, _, plan in recording.log]
    assert kept[0] == kept[3]
    assert len({tuple(rows) for rows in kept}) > 1


@SOME
def test_answers_in_several_threads_are_those_given_alone(asked):
    model = asked.model
    for reducer in (PyramidDrop(), VisionDrop()):
        model.reduce_with(reducer)
        expected = [spoken(model, question, asked.items) for question in QUESTIONS[:2]]
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda q: spoken(model, q, asked.items), QUESTIONS[:2]))
        assert found == expected


@SOME
def test_an_interrupted_pass_leaves_no_trace_in_the_next(asked):
    model = asked.model
    plain = spoken(model, QUESTIONS[0], asked.items)
    model.reduce_with(FastV(keep=0.3))
    reduced = spoken(model, QUESTIONS[0], asked.items)

    def interrupt(*_):
        raise KeyboardInterrupt

    hook = model._voice._reader._reduction._decoder.layers[4].register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        spoken(model, QUESTIONS[0], asked.items)
    hook.remove()
    assert spoken(model, QUESTIONS[0], asked.items) == reduced
    model.reduce_with(None)
    assert spoken(model, QUESTIONS[0], asked.items) == plain
    assert reduced != plain


@SOME
def test_without_evidence_there_is_nothing_to_reduce(asked):
    model = asked.model
    expected = spoken(model, QUESTIONS[0], [])
    for reducer in (FastV(), VisionDrop()):
        model.reduce_with(reducer)
        found = spoken(model, QUESTIONS[0], [])
        assert [word.text for word in found] == [word.text for word in expected]


@SOME
def test_bfloat16_runs(family, clip, evidence):
    model, video = family.load(dtype="bfloat16"), clip(frames=4)
    items = [evidence(model.encode(video), video)]
    for reducer in REDUCERS:
        model.reduce_with(reducer)
        assert spoken(model, QUESTIONS[0], items)


@SOME
def test_rows_know_their_stream_step_place_and_weight(asked, clip, evidence):
    model, recording = asked.model, Recording(EveryOther())
    first, second = clip(frames=4), clip(frames=2, start=9.0, stream="/videos/b.mp4", seed=3)
    tokens = model.encode(first)
    thin = replace(tokens.select(torch.arange(0, len(tokens), 2)))
    thin = replace(thin, weight=thin.weight + torch.arange(len(thin)))
    last = model.encode(second)
    model.reduce_with(recording)
    list(model.answer(QUESTIONS[0], [evidence(last, second), evidence(thin, first)]))
    rows = recording.log[0][0]
    assert rows.place[:, 0].tolist() == [0] * len(thin) + [1] * len(last)
    again = tokens.grid[0] + last.position[:, 0]
    assert torch.equal(rows.place[:, 1], torch.cat([thin.position[:, 0], again]))
    assert torch.equal(rows.place[:, 2:], torch.cat([thin.position, last.position])[:, 1:])
    assert torch.equal(rows.weight, torch.cat([thin.weight, last.weight]))
    assert (rows.total, rows.depth, rows.alive) == (len(rows), DEPTH, (len(rows),) * 2)
    assert (recording.log[1][0].layer, len(recording.log[1][0])) == (4, -(-len(rows) // 2))
    assert recording.log[1][0].alive == (len(rows),) * 2 + (-(-len(rows) // 2),) * 2


class Kernels(TorchFunctionMode):
    """Counts how often the fast attention kernel runs."""

    count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.nn.functional.scaled_dot_product_attention
        return function(*args, **(kwargs or {}))


@SOME
def test_attention_that_is_wanted_runs_the_kernel_no_more_often(asked):
    model = asked.model
    for wants in ("last_query", "last_query_ahead", "text_queries"):
        model.reduce_with(Listening(wants))
        with Kernels() as kernels:
            next(model.answer(QUESTIONS[0], asked.items))
        assert kernels.count == DEPTH


@SOME
def test_a_row_stands_for_all_that_was_merged_into_it(asked):
    model, recording = asked.model, Recording(VisionDrop(keep=0.5, contextual=0.4))
    model.reduce_with(recording)
    spoken(model, QUESTIONS[0], asked.items)
    stages = [rows for rows, _, _ in recording.log]
    assert [rows.weight.sum().item() for rows in stages] == [len(asked.slots)] * len(stages)
    assert stages[1].weight.max() > 1
    assert recording.log[0][2].source is not None


@SOME
def test_a_note_comes_back_at_the_next_layer(asked):
    model, recording = asked.model, Recording(FrameFusion(cost=0.5, similar=1.0))
    model.reduce_with(recording)
    spoken(model, QUESTIONS[0], asked.items)
    notes = [rows.note for rows, _, _ in recording.log]
    assert notes[:3] == ["", "prune", "done"]
    assert set(notes[3:]) <= {"done"}


@pytest.fixture(scope="module")
def exam():
    """The model that ships, and two clips of its world as it sees them, with easy questions."""
    model, easy = examinee(load()), {"exist", "colour", "shape"}
    seen = []
    for paper in papers(7, 2, split="seeds", frames=2):
        asked = tuple(question for question in paper.questions if question.kind in easy)
        seen.append((replace(paper, questions=asked), model.encode(paper.clip)))
    return model, seen


@pytest.mark.parametrize("name", plugins.names("reducers"))
def test_the_demo_model_still_answers_easy_questions(exam, name):
    model, seen = exam
    share = {"cost" if name == "framefusion" else "keep": 0.5}
    model.reduce_with(Recipe("reducers", name, share).build())
    right = [mark.right for paper, tokens in seen for mark in sit(model, tokens, paper)]
    assert len(right) >= 6
    assert sum(right) / len(right) >= 0.8
