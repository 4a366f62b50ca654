import math

import pytest

from streamvlm.memory.age.naming import record_id


def test_the_id_follows_from_stream_and_span_alone():
    name = record_id("rtsp://door", 8.0, 16.0)
    assert name == record_id("rtsp://door", 8.0, 16.0)
    assert len(name) == 16
    others = {
        record_id("rtsp://gate", 8.0, 16.0),
        record_id("rtsp://door", 8.5, 16.0),
        record_id("rtsp://door", 8.0, 24.0),
    }
    assert len(others | {name}) == 4


def test_the_id_never_changes_between_versions():
    assert record_id("/videos/a.mp4", 0.0, 8.0) == "d28dc8c734d7cc7f"


def test_a_span_without_end_has_no_id():
    with pytest.raises(ValueError, match="finite"):
        record_id("a", 0.0, math.inf)
