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
    """But for one that begins a shard, or the log anew: these have more to flush."""
    calls = recording.calls
    counts = []
    for place, call in enumerate(calls):
        if call.name != "write" or not call.texts[0].startswith(b'["try", "add"'):
            continue
        end = next(i for i in range(place, len(calls)) if calls[i].texts[:1] == (b'["did"]\n',))
        between = calls[place:end]
        begins_shard = any("O_CREAT" in each.flags for each in between)
        begins_log = any(each.name == "pwrite64" and each.numbers[-1] == 0 for each in between)
        if not begins_shard and not begins_log:
            flushes = [each.name for each in between if each.name in ("fsync", "fdatasync")]
            assert flushes == ["fdatasync", "fdatasync"], call
            counts.append(len(flushes))
    assert len(counts) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("luck", ["nothing", "everything", "some"])
def test_nothing_acknowledged_is_lost_to_a_power_cut(recording, tmp_path, luck, caplog):
    caplog.set_level(logging.ERROR, logger="streamvlm.memory.index.derived")
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
