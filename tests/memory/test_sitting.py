"""A stream that is forgotten while it is ingested, and sources that are not what they were."""

import pytest

from streamvlm.errors import MemoryStoreError, SourceError
from streamvlm.memory.forget import forget
from streamvlm.memory.info import StreamInfo
from streamvlm.memory.sitting import Sitting, check_known
from streamvlm.memory.store import Memory
from streamvlm.types import Coverage, Span
from tests.memory.writer_process import IDENTITY, record

STREAM = record(0).stream
INFO = StreamInfo(STREAM, 1, "digest", '{"source": {"fps": 4}}', 0.0, Coverage(STREAM, ()), False)
WATCHED = Coverage(STREAM, (Span(0.0, 40.0, "sampled"),))


@pytest.fixture
def memory(path):
    with Memory.create(path, IDENTITY, sync="process") as memory:
        yield memory


@pytest.fixture
def own():
    """Records of the one stream, in the order of time."""
    return [each for each in map(record, range(20)) if each.stream == STREAM]


def test_an_ingest_ends_at_the_next_record_once_its_stream_is_forgotten(memory, path, own):
    sitting = Sitting(memory, INFO)
    sitting.append(own[0])
    forget(path, [STREAM])
    with pytest.raises(MemoryStoreError, match="was forgotten while it was ingested; run the same"):
        sitting.append(own[1])
    assert memory.ids(STREAM) == []
    assert memory.stream(STREAM) is None


def test_an_ingest_whose_stream_is_forgotten_at_its_end_claims_nothing(memory, path, own):
    sitting = Sitting(memory, INFO)
    sitting.append(own[0])
    forget(path, [STREAM])
    sitting.pause(WATCHED)
    with pytest.raises(MemoryStoreError, match="was forgotten while it was ingested"):
        sitting.finish(WATCHED)
    assert memory.stream(STREAM) is None


def test_an_ingest_that_was_begun_anew_is_left_alone_by_the_one_before(memory, path, own):
    first = Sitting(memory, INFO)
    forget(path, [STREAM])
    second = Sitting(memory, INFO)
    second.append(own[0])
    with pytest.raises(MemoryStoreError, match="was forgotten"):
        first.append(own[0])
    assert second.finish(WATCHED) == WATCHED
    assert memory.ids(STREAM) == [own[0].id]


def test_what_is_forgotten_of_the_beginning_meanwhile_is_not_claimed(memory, path, own):
    sitting = Sitting(memory, INFO)
    for each in own[:3]:
        sitting.append(each)
    for last in own[:2]:
        forget(path, [STREAM], before=last.end)
    sitting.append(own[3])
    seen = sitting.finish(WATCHED)
    assert seen.spans[0] == Span(0.0, own[1].end, "gap", "forgotten")
    assert seen.spans[1:] == (Span(own[1].end, 40.0, "sampled"),)
    known = memory.stream(STREAM)
    assert known is not None
    assert (known.coverage, known.complete) == (seen, True)


def test_a_source_that_changed_can_be_forgotten_first(memory):
    now = StreamInfo(STREAM, 2, "other", INFO.recipe, 0.0, INFO.coverage, False)
    with pytest.raises(SourceError, match="has changed since it was ingested") as caught:
        check_known(memory, INFO, now)
    assert f"`streamvlm memory forget {memory.path} --stream {STREAM}`" in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (
            '{"source": {"fps": 1}}',
            "other settings: source.fps 4 against 1; give --set source.fps=4, or",
        ),
        (
            '{"source": {"fps": 4}, "compressors": {"name": "pvc"}}',
            "other settings: compressor.name nothing against pvc; use those, or",
        ),
    ],
)
def test_other_settings_are_named_with_how_to_give_them(memory, recipe, said):
    now = StreamInfo(STREAM, 1, "digest", recipe, 0.0, INFO.coverage, False)
    with pytest.raises(MemoryStoreError) as caught:
        check_known(memory, INFO, now)
    assert said in str(caught.value)
