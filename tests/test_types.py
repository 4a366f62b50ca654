import json

import numpy as np
import pytest
import torch

from streamvlm.errors import BadOption
from streamvlm.types import (
    Clip,
    Coverage,
    Evidence,
    Frame,
    MemoryRecord,
    Query,
    Span,
    Usage,
    VisualTokens,
    Word,
)
from streamvlm.wire import plain


def frame(seconds: float = 0.0) -> Frame:
    return Frame("s", 0, seconds, np.zeros((4, 6, 3), np.uint8))


def tokens(count: int = 8) -> VisualTokens:
    step, row, column = torch.meshgrid(
        torch.arange(2), torch.arange(2), torch.arange(2), indexing="ij"
    )
    position = torch.stack([step, row, column], dim=-1).reshape(-1, 3)[:count]
    return VisualTokens(
        model="m",
        features=torch.arange(count * 3.0).reshape(count, 3),
        position=position,
        seconds=position[:, 0].double(),
        grid=(2, 2, 2),
        weight=torch.ones(count),
        cues={"attention": torch.arange(float(count))},
        frame_cues={"frame_vector": torch.ones(2, 5)},
    )


def record() -> MemoryRecord:
    return MemoryRecord(
        id="00",
        stream="/v.mp4",
        start=0.0,
        end=2.0,
        keys=np.ones((1, 1), np.float32),
        tokens=tokens().without_cues(),
        frame_seconds=np.array([0.0, 1.0]),
        frame_hash=np.array([1, 2], np.uint64),
        thumbnail=b"jpeg",
    )


def test_a_frame_refuses_pictures_that_are_not_rgb():
    with pytest.raises(ValueError, match=r"\(H, W, 3\), found \(4, 6\)"):
        Frame("s", 0, 0.0, np.zeros((4, 6), np.uint8))


def test_a_clip_needs_frames_and_time():
    with pytest.raises(ValueError, match="at least one frame"):
        Clip("s", 0.0, 1.0, ())
    with pytest.raises(ValueError, match="end after it starts"):
        Clip("s", 1.0, 1.0, (frame(),))


@pytest.mark.parametrize("field", ["position", "seconds", "weight"])
def test_tokens_refuse_fields_of_another_length(field):
    good = tokens()
    fields = {name: getattr(good, name) for name in VisualTokens.__dataclass_fields__}
    fields[field] = fields[field][:-1]
    with pytest.raises(ValueError, match=field):
        VisualTokens(**fields)


def test_tokens_refuse_cues_of_another_length():
    with pytest.raises(ValueError, match="attention"):
        VisualTokens(
            model="m",
            features=torch.ones(1, 3),
            position=torch.zeros(1, 3, dtype=torch.int64),
            seconds=torch.zeros(1),
            grid=(1, 1, 1),
            weight=torch.ones(1),
            cues={"attention": torch.ones(2)},
        )


def test_select_keeps_all_fields_together_and_leaves_the_input_alone():
    dense = tokens()
    kept = dense.select(torch.tensor([1, 6]))
    assert dense.is_dense
    assert not kept.is_dense
    assert kept.features[:, 0].tolist() == [3.0, 18.0]
    assert kept.flat_index.tolist() == [1, 6]
    assert kept.seconds.tolist() == [0.0, 1.0]
    assert kept.cues["attention"].tolist() == [1.0, 6.0]
    assert kept.frame_cues["frame_vector"].shape == (2, 5)
    assert len(dense) == 8


def test_stored_tokens_carry_no_cues():
    stored = tokens().without_cues()
    assert not stored.cues
    assert not stored.frame_cues


def test_a_query_needs_words_and_room():
    with pytest.raises(BadOption, match="empty"):
        Query("  ")
    with pytest.raises(BadOption, match="at least 1"):
        Query("who?", max_records=0)


def test_a_query_needs_a_time_that_ends_after_it_starts():
    with pytest.raises(BadOption, match="must lie after since"):
        Query("who?", since=100.0, until=5.0)
    with pytest.raises(BadOption, match="after 0"):
        Query("who?", until=0.0)


def test_the_shares_of_a_coverage_sum_to_one():
    spans = (Span(0, 2, "sampled"), Span(2, 7, "still"), Span(7, 8, "gap", "damage"))
    coverage = Coverage("s", spans)
    assert coverage.seconds == 8
    assert coverage.share("still") == 5 / 8
    assert sum(coverage.share(kind) for kind in ("sampled", "still", "skipped", "gap")) == 1


def test_a_coverage_of_nothing_has_no_share():
    assert Coverage("s", ()).share("sampled") == 0.0


def test_a_word_prints_as_its_text():
    assert f"{Word(' red', 0.5)}" == " red"


def test_what_flows_survives_json():
    evidence = Evidence(record(), 0.5)
    document = json.loads(json.dumps(plain({"evidence": (evidence,), "usage": Usage(1, 1)})))
    assert document["evidence"][0]["stream"] == "/v.mp4"
    assert document["evidence"][0]["tokens"] == 8
    assert document["usage"]["frames_decoded"] == 1


def test_a_query_without_words_needs_something_to_be_like():
    assert Query("", like=("person.jpg",)).like == ("person.jpg",)
    picture = np.zeros((4, 6, 3), np.uint8)
    assert Query("who?", like=(picture,)) == Query("who?")
    assert plain(Query("who?", like=("a.jpg", picture)))["like"] == ["a.jpg", "a picture of 6×4"]
