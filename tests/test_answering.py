"""What is read and said of records of which only the picture is left."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import streamvlm
from streamvlm.answering import ONLY_PICTURES
from streamvlm.memory.store import Memory


def faded(folder: Path, source: Path, *, since: float = 0.0) -> Path:
    """A copy of a memory in which all records from a second on have no tokens left."""
    with Memory.open(source, writable=False) as old:
        records, infos, identity = old.load(old.ids()), old.streams(), old.identity
    none = torch.arange(0)
    with Memory.create(folder, identity, sync="process") as new:
        new.append(
            [
                replace(each, tokens=each.tokens.select(none)) if each.start >= since else each
                for each in records
            ]
        )
        for info in infos:
            new.put_stream(info)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory, shapes_film) -> Path:
    folder = tmp_path_factory.mktemp("answering") / "memory"
    with streamvlm.load(memory=folder, overrides=["memory.sync=process"]) as vlm:
        vlm.ingest(shapes_film)
    return folder


PARTS = {
    "plain": [],
    "focus": ["focus.name=mmtok", "focus.keep=0.5"],
    "rerank": ["rerank.look_at=4"],
}


@pytest.mark.parametrize("overrides", PARTS.values(), ids=PARTS)
def test_where_only_pictures_are_left_the_answer_says_so(tmp_path, whole, overrides):
    folder = faded(tmp_path / "faded", whole)
    with streamvlm.load(memory=folder, overrides=overrides) as vlm:
        answer = vlm.ask("Is there a red square?")
        streamed = "".join(map(str, vlm.ask_stream("Is there a red square?")))
        never = vlm.ask(vlm.query("Is there a red square?", since=1e6))
    assert answer.text == streamed == ONLY_PICTURES
    assert answer.confidence == 0
    assert answer.usage.tokens_read == 0
    assert answer.evidence
    assert all(each.record.thumbnail[:2] == b"\xff\xd8" for each in answer.evidence)
    assert never.text == "Nothing in the memory lies within those limits."


@pytest.mark.parametrize("overrides", PARTS.values(), ids=PARTS)
def test_what_can_still_be_read_is_and_the_pictures_come_along(tmp_path, whole, overrides):
    folder = faded(tmp_path / "faded", whole, since=24.0)
    with streamvlm.load(
        memory=folder, overrides=[*overrides, "answer.max_records=2", "answer.max_tokens=1000"]
    ) as vlm:
        answer = vlm.ask("Is there a purple ring?")
        other = vlm.ask("Is there a red square?")
    sizes = {each.record.start: len(each.record.tokens) for each in answer.evidence}
    assert sizes[24.0] == 0
    assert sum(size > 0 for size in sizes.values()) == 2
    assert answer.text == "no"
    assert other.text == "yes"
    starts = [each.record.start for each in answer.evidence]
    assert starts == sorted(starts)


def test_a_search_still_finds_them(tmp_path, whole):
    with streamvlm.load(memory=faded(tmp_path / "faded", whole)) as vlm:
        assert vlm.sightings("a red square")[0].start == 8.0
        assert len(vlm.search("a red square")) == 5
        early = vlm.search(vlm.query("a red square", until=8.0))
    assert [each.record.start for each in early] == [0.0]


def test_a_still_scene_is_asked_about_after_its_one_picture(tmp_path, whole, shapes_film):
    copy = shutil.copytree(whole, tmp_path / "copy")
    for folder in (copy, faded(tmp_path / "faded", whole)):
        with streamvlm.load(memory=folder) as vlm:
            answer = vlm.ask(vlm.query("Is there a white cross?", since=38.0, until=39.0))
            (found,) = vlm.sightings(vlm.query("a white cross", since=38.0, until=39.0))
        assert [each.record.start for each in answer.evidence] == [32.0]
        assert found.start == 32.0
