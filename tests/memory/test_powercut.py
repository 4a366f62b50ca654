"""The power is cut at every flush of a real process, and between: what was acknowledged is there.

The process is recorded with strace, and its calls are replayed on a disk that keeps only what was
flushed, or also a random part of the rest (see `scripts.soak.disk`).
"""

import logging
from random import Random

import pytest

from scripts.soak import cuts, trace
from scripts.soak.nursery import Nursery

pytestmark = pytest.mark.skipif(trace.why_not() is not None, reason=str(trace.why_not()))


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    with Nursery(cuts.MODULE) as nursery:
        return cuts.tell(nursery, tmp_path_factory.mktemp("recording"))


def test_an_append_flushes_twice_the_shard_and_the_log_of_the_catalogue(recording):
    """Once a shard is begun; the append that begins one flushes its name and its row as well."""
    said = [place for place, call in enumerate(recording.calls) if call.texts[:1] == (b'["did"]\n',)]
    begun = {
        place: call.texts[0]
        for place, call in enumerate(recording.calls)
        if call.name == "write" and call.texts[0].startswith(b'["try", "add"')
    }
    counts = []
    for place, text in begun.items():
        end = min(each for each in said if each > place)
        between = recording.calls[place:end]
        if not any("O_CREAT" in call.flags or call.name == "rename" for call in between):
            flushed = [call.name for call in between if call.name in ("fsync", "fdatasync")]
            assert flushed == ["fdatasync", "fdatasync"], text
            counts.append(len(flushed))
    assert len(counts) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("luck", ["nothing", "everything", "some"])
def test_nothing_acknowledged_is_lost_to_a_power_cut(recording, tmp_path, luck):
    logging.getLogger("streamvlm.memory.derived").setLevel(logging.ERROR)
    random = Random(luck)
    # Just before a flush most is at stake, just after it something may have been acknowledged.
    around = {place + step for place in recording.flushes for step in (-1, 1)}
    places = random.sample(sorted(around), 30) + random.sample(range(len(recording.calls)), 10)
    moments = {place: [luck] for place in places}
    assert cuts.cut(recording, moments, tmp_path, random) == len(moments)


@pytest.mark.slow
def test_a_killed_process_is_survived_without_any_flush(tmp_path):
    """With `process`, a crash of the machine may lose records, but not those a kill would leave."""
    with Nursery(cuts.MODULE) as nursery:
        recording = cuts.tell(nursery, tmp_path, "process")
    names = [call.name for call in recording.calls]
    before = len([name for name in names if name == "fdatasync"])
    moments = {place: ["everything"] for place in Random(1).sample(range(len(names)), 15)}
    assert cuts.cut(recording, moments, tmp_path, Random(1)) == 15
    assert before < len(recording.calls) / 20
