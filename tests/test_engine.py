"""The whole flow, on real files, through Python."""

import hashlib
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import streamvlm
from streamvlm.errors import BadOption, MemoryStoreError, SourceError
from streamvlm.memory.forget import forget
from streamvlm.memory.store import Memory
from streamvlm.types import Word

VIDEOS = Path(__file__).parents[2] / "shared" / "videos"
FAST = ["memory.sync=process"]


def contents(folder: Path) -> list[tuple[object, ...]]:
    """Everything that a memory's records hold, as comparable bytes."""
    with Memory.open(folder, writable=False) as memory:
        records = memory.load(memory.ids())
    return sorted(
        (
            record.id,
            record.stream,
            record.start,
            record.end,
            record.keys.tobytes(),
            record.tokens.model,
            record.tokens.features.numpy().tobytes(),
            record.tokens.position.numpy().tobytes(),
            record.tokens.seconds.numpy().tobytes(),
            record.tokens.weight.numpy().tobytes(),
            record.frame_seconds.tobytes(),
            record.frame_hash.tobytes(),
            hashlib.sha256(record.thumbnail).hexdigest(),
        )
        for record in records
    )


@pytest.fixture(scope="module")
def memory_folder(tmp_path_factory, shapes_film) -> Path:
    folder = tmp_path_factory.mktemp("engine") / "memory"
    with streamvlm.load(memory=folder, overrides=FAST) as vlm:
        vlm.ingest(shapes_film)
    return folder


def test_an_answer_comes_with_evidence_coverage_and_usage(memory_folder):
    with streamvlm.load(memory=memory_folder) as vlm:
        answer = vlm.ask("Is there a red square?")
    assert answer.text
    assert 0 < answer.confidence <= 1
    assert answer.evidence
    assert [e.record.start for e in answer.evidence] == sorted(
        e.record.start for e in answer.evidence
    )
    (coverage,) = answer.coverage
    shares = [coverage.share(kind) for kind in ("sampled", "still", "skipped", "gap")]
    assert math.isclose(sum(shares), 1.0)
    assert 0 < answer.usage.tokens_read <= answer.query.max_tokens
    assert answer.usage.frames_decoded == answer.usage.tokens_stored == 0


def test_asking_reads_the_memory_only(memory_folder, tmp_path, shapes_film):
    """The source may be gone: nothing is decoded or encoded to answer."""
    copy = shutil.copytree(memory_folder, tmp_path / "copy")
    with streamvlm.load(memory=copy) as vlm:
        first, second = vlm.ask("Is there a red square?"), vlm.ask("Is there a red square?")
    assert first.text == second.text
    assert not {"decode", "encode"} & set(second.usage.milliseconds)


def test_words_stream_and_make_up_the_answer(memory_folder):
    heard: list[Word] = []
    with streamvlm.load(memory=memory_folder) as vlm:
        answer = vlm.ask("When does the red square appear?", on_word=heard.append)
        streamed = list(vlm.ask_stream("When does the red square appear?"))
    assert "".join(word.text for word in heard).strip() == answer.text
    assert heard == streamed


def test_the_same_file_gives_the_same_records_twice(memory_folder, tmp_path, shapes_film):
    with streamvlm.load(memory=tmp_path / "again", overrides=FAST) as vlm:
        vlm.ingest(shapes_film)
    assert contents(tmp_path / "again") == contents(memory_folder)
    assert contents(memory_folder)


def test_ingesting_again_costs_nothing_and_adds_nothing(memory_folder, shapes_film):
    before = contents(memory_folder)
    with streamvlm.load(memory=memory_folder, overrides=FAST) as vlm:
        (result,) = vlm.ingest(shapes_film)
    assert result.usage.frames_decoded == 0
    assert result.coverage is not None
    assert contents(memory_folder) == before


def test_an_interrupted_ingest_is_completed_by_the_next(memory_folder, tmp_path, shapes_film):
    def stop(source, seconds):
        raise KeyboardInterrupt

    folder = tmp_path / "memory"
    with streamvlm.load(memory=folder, overrides=FAST) as vlm:
        with pytest.raises(KeyboardInterrupt):
            vlm.ingest(shapes_film, stop)
        (verdict,) = vlm.verify()
        assert not verdict.ok
        assert "interrupted" in verdict.problems[0]
        vlm.ingest(shapes_film)
    assert contents(folder) == contents(memory_folder)


def test_a_query_is_limited_to_its_time(memory_folder):
    with streamvlm.load(memory=memory_folder) as vlm:
        late = vlm.search(vlm.query("a red square", since=16.0))
        early = vlm.search(vlm.query("a red square", until=8.0))
        never = vlm.ask(vlm.query("a red square", since=1e6))
    assert late
    assert all(found.record.end > 16.0 for found in late)
    assert early
    assert all(found.record.start < 8.0 for found in early)
    assert never.text == "Nothing in the memory lies within those limits."
    assert never.confidence == 0


def test_what_lies_outside_the_time_of_a_query_is_not_read(memory_folder):
    """The red square appears at 11 s, in the middle of a clip."""
    with streamvlm.load(memory=memory_folder) as vlm:
        found = vlm.search(vlm.query("a red square", since=9.0, until=11.0, max_records=8))
        answer = vlm.ask(vlm.query("Is there a red square?", since=9.0, until=11.0))
    assert found
    assert max(each.record.tokens.seconds.max().item() for each in found) < 11.0
    assert answer.text == "no"


def test_an_empty_memory_says_so(tmp_path):
    (tmp_path / "text.mp4").write_text("this is not a video")
    with streamvlm.load(memory=tmp_path / "m") as vlm:
        with pytest.raises(SourceError):
            vlm.ingest(tmp_path / "text.mp4")
        with pytest.raises(MemoryStoreError, match="is empty; ingest a video"):
            vlm.ask("Is there a red square?")


def test_a_stream_is_named_by_the_end_of_its_path(memory_folder, shapes_film):
    with streamvlm.load(memory=memory_folder) as vlm:
        assert vlm.search(vlm.query("a red square", streams=[shapes_film.name]))
        with pytest.raises(MemoryStoreError, match="is not in the memory"):
            vlm.search(vlm.query("a red square", streams=["other.mp4"]))


def test_a_token_budget_is_kept(memory_folder):
    with streamvlm.load(memory=memory_folder) as vlm:
        query = replace(vlm.query("a red square"), max_tokens=20, max_records=8)
        assert 0 < vlm.ask(query).usage.tokens_read <= 20


FOCUS = ["focus.name=mmtok", "focus.keep=0.25", "answer.max_records=4", "answer.max_tokens=72"]


def test_a_focus_reads_more_records_for_the_same_budget(memory_folder):
    plain = ["answer.max_records=4", "answer.max_tokens=72"]
    with streamvlm.load(memory=memory_folder, overrides=plain) as vlm:
        without = vlm.ask("Is there a red square?")
    with streamvlm.load(memory=memory_folder, overrides=FOCUS) as vlm:
        answer = vlm.ask("Is there a red square?")
        streamed = "".join(map(str, vlm.ask_stream("Is there a red square?"))).strip()
        found = vlm.search("Is there a red square?")
    assert len(answer.evidence) > len(without.evidence)
    read = sum(len(each.record.tokens) for each in answer.evidence)
    assert answer.usage.tokens_read == read <= 72
    assert answer.query.max_tokens == 72
    assert "focus" in answer.usage.milliseconds
    assert "focus" not in without.usage.milliseconds
    assert streamed == answer.text
    stored = {each.record.id: each.record.tokens for each in found}
    for each in answer.evidence:  # nothing but stored tokens at their own places
        kept = each.record.tokens
        index = torch.isin(stored[each.record.id].flat_index, kept.flat_index)
        assert torch.equal(stored[each.record.id].select(index).features, kept.features)


def test_another_question_keeps_other_tokens(memory_folder):
    overrides = ["focus.name=mmtok", "focus.keep=0.1"]
    with streamvlm.load(memory=memory_folder, overrides=overrides) as vlm:
        query = vlm.query("Is there a red square?", since=8.0, until=16.0)
        one = vlm.ask(query)
        other = vlm.ask(replace(query, text="When does the blue circle disappear?"))
    places = [answer.evidence[0].record.tokens.flat_index.tolist() for answer in (one, other)]
    assert one.evidence[0].record.id == other.evidence[0].record.id
    assert places[0] != places[1]


def test_a_focus_finds_nothing_where_there_is_nothing(memory_folder):
    with streamvlm.load(memory=memory_folder, overrides=FOCUS) as vlm:
        never = vlm.ask(vlm.query("a red square", since=1e6))
    assert never.text == "Nothing in the memory lies within those limits."
    assert never.usage.tokens_read == 0


def test_a_search_gives_more_moments_than_an_answer_reads(memory_folder):
    with streamvlm.load(memory=memory_folder) as vlm:
        assert len(vlm.search("a red square")) == 5
        assert len(vlm.ask("Is there a red square?").evidence) == 1


def test_the_moment_that_is_found_first_shows_what_was_asked_for(memory_folder):
    with streamvlm.load(memory=memory_folder) as vlm:
        best = max(vlm.search("a red square"), key=lambda found: found.score)
    assert best.record.start <= 11 < best.record.end


def test_a_time_in_which_nothing_changed_is_answered_from_the_still_scene(tmp_path, shapes_film):
    overrides = [*FAST, "clips.seconds=2"]
    with streamvlm.load(memory=tmp_path / "memory", overrides=overrides) as vlm:
        vlm.ingest(shapes_film)
        (coverage,) = vlm.coverage()
        still = max(coverage.spans, key=lambda s: s.end - s.start if s.kind == "still" else 0.0)
        assert still.end - still.start > 5
        (found,) = vlm.search(vlm.query("a blue circle", since=still.start + 3, until=still.end))
    assert found.record.start < still.start <= found.record.end


def test_a_stream_can_be_forgotten_and_ingested_again(tmp_path, shapes_film):
    with streamvlm.load(memory=tmp_path / "memory", overrides=FAST) as vlm:
        vlm.ingest(shapes_film)
        vlm.forget(shapes_film.name)
        assert vlm.streams() == []
        (again,) = vlm.ingest(shapes_film)
        assert again.usage.tokens_stored > 0
        assert vlm.search("a red square")


def test_an_interrupted_ingest_can_be_begun_again_with_other_settings(tmp_path, shapes_film):
    def stop(source, seconds):
        raise KeyboardInterrupt

    folder = tmp_path / "memory"
    with (
        streamvlm.load(memory=folder, overrides=[*FAST, "compressor.keep=1.0"]) as vlm,
        pytest.raises(KeyboardInterrupt),
    ):
        vlm.ingest(shapes_film, stop)
    with streamvlm.load(memory=folder, overrides=[*FAST, "compressor.keep=0.5"]) as vlm:
        vlm.ingest(shapes_film)
        dense = [found for found in vlm.search("a red square") if found.record.tokens.is_dense]
    assert not dense


def test_a_folder_goes_through_although_one_file_is_bad(tmp_path, shapes_film):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "a.mp4").write_text("this is not a video")
    shutil.copy(shapes_film, folder / "b.mp4")
    with streamvlm.load() as vlm:
        bad, good = vlm.ingest(folder)
    assert bad.error is not None
    assert "a.mp4" in str(bad.error)
    assert good.error is None
    assert good.usage.tokens_stored > 0


def test_nothing_but_bad_files_is_an_error(tmp_path):
    (tmp_path / "a.mp4").write_text("this is not a video")
    with streamvlm.load() as vlm, pytest.raises(SourceError, match=r"a\.mp4"):
        vlm.ingest(tmp_path / "a.mp4")


def test_there_is_nothing_to_ask_without_a_memory(tmp_path):
    with (
        streamvlm.load(memory=tmp_path / "nothing") as vlm,
        pytest.raises(MemoryStoreError, match="nothing"),
    ):
        vlm.ask("Is there a red square?")


def test_a_source_that_changed_is_refused(tmp_path, shapes_film):
    video = tmp_path / "video.mp4"
    shutil.copy(shapes_film, video)
    with streamvlm.load(memory=tmp_path / "memory", overrides=FAST) as vlm:
        vlm.ingest(video)
        video.write_bytes(video.read_bytes() + b"\0" * 8)
        with pytest.raises(SourceError, match="has changed since it was ingested"):
            vlm.ingest(video)


def test_other_settings_are_refused(memory_folder, shapes_film):
    with (
        streamvlm.load(memory=memory_folder, overrides=["source.fps=2.0"]) as vlm,
        pytest.raises(
            MemoryStoreError,
            match=r"other settings: source.fps \S+ against 2.0; give --set source.fps=",
        ),
    ):
        vlm.ingest(shapes_film)


def test_a_temporary_memory_goes_away(shapes_film):
    with streamvlm.load() as vlm:
        vlm.ingest(shapes_film)
        folder = vlm.folder
        assert folder.exists()
    assert not folder.exists()


def test_limits_must_be_positive():
    with pytest.raises(BadOption):
        streamvlm.load(overrides=["answer.max_tokens=0"])


def test_compression_happens_before_storing(tmp_path, shapes_film):
    kept = {}
    for keep in (0.1, 1.0):
        overrides = [*FAST, f"compressor.keep={keep}"]
        with streamvlm.load(memory=tmp_path / str(keep), overrides=overrides) as vlm:
            (result,) = vlm.ingest(shapes_film)
            kept[keep] = result.usage.tokens_stored
    assert 0.05 * kept[1.0] < kept[0.1] < 0.2 * kept[1.0]


def test_verify_passes_and_then_notices_a_replaced_source(tmp_path, shapes_film):
    video = tmp_path / "video.mp4"
    shutil.copy(shapes_film, video)
    with streamvlm.load(memory=tmp_path / "memory", overrides=FAST) as vlm:
        vlm.ingest(video)
        (verdict,) = vlm.verify()
        assert verdict.ok
        assert verdict.frames > 0
        data = np.fromfile(video, np.uint8)
        middle = len(data) // 2
        data[middle : middle + 64] ^= 255
        data.tofile(video)
        (verdict,) = vlm.verify()
        assert not verdict.ok
        assert "was replaced" in verdict.problems[0]
        video.unlink()
        (verdict,) = vlm.verify()
        assert not verdict.ok
        assert "moved or deleted" in verdict.problems[0]


def test_a_stream_that_is_forgotten_while_it_is_ingested_is_made_whole_by_the_next(
    memory_folder, tmp_path, shapes_film
):
    folder = tmp_path / "memory"
    stored: list[float] = []

    def forget_the_first(source, seconds):
        stored.append(seconds)
        if len(stored) == 2:
            forget(folder, [source.stream])

    with streamvlm.load(memory=folder, overrides=FAST) as vlm:
        with pytest.raises(MemoryStoreError, match="run the same command to ingest it again"):
            vlm.ingest(shapes_film, forget_the_first)
        assert len(stored) == 2
        assert vlm.streams() == []
        (again,) = vlm.ingest(shapes_film)
    assert again.usage.tokens_stored > 0
    assert contents(folder) == contents(memory_folder)
