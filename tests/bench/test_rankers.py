"""Each way of indexing on keys that can be followed by hand."""

from pathlib import Path

import numpy as np
import pytest

from streamvlm.bench import rankers
from streamvlm.bench.rankers import Segments
from streamvlm.bench.rankers._codes import Codes, per_segment
from streamvlm.bench.rankers.crisp import centres
from streamvlm.bench.rankers.maxsim import MaxSim
from streamvlm.bench.rankers.mean import Mean
from streamvlm.bench.rankers.muvera import Encoding, Muvera
from streamvlm.bench.rankers.novelty import NovelTokens, novel_keys
from streamvlm.bench.rankers.tokens import Tokens
from streamvlm.bench.rankers.xtr import Xtr
from streamvlm.bench.retrieval import CONTENDERS
from streamvlm.memory.index.novelty import Novelty

WIDTH = 16
AXES = np.eye(WIDTH, dtype=np.float32)


def towards(**cosines):
    """A unit vector with these cosines to axes `a`, `b`, … and the rest along the last one."""
    vector = np.zeros(WIDTH, np.float32)
    for name, cosine in cosines.items():
        vector[ord(name) - ord("a")] = cosine
    vector[-1] = np.sqrt(max(0.0, 1 - (vector**2).sum()))
    return vector


def segments(*keys, stream=None, seconds=8.0):
    count = len(keys)
    stream = np.zeros(count, np.int64) if stream is None else np.array(stream)
    return Segments(
        keys=np.stack([key for each in keys for key in each]),
        owners=np.repeat(np.arange(count), [len(each) for each in keys]),
        stream=stream,
        start=seconds * np.arange(count),
    )


def random_segments(count, tokens, width=32, seed=0):
    keys = np.random.default_rng(seed).standard_normal((count, tokens, width)).astype(np.float32)
    return segments(*(keys / np.linalg.norm(keys, axis=2, keepdims=True)))


A, B, C, D = AXES[:4]


def test_the_keys_of_some_segments_are_found_in_their_order():
    some = segments([A, B], [C], [D, A, B])
    assert some.rows(np.array([2, 0])).tolist() == [3, 4, 5, 0, 1]
    assert some.first.tolist() == [0, 2, 3, 6]


def test_the_mean_prefers_what_is_like_the_question_all_over():
    index = Mean()(segments([A, B, B, B], [A, A, C, C], [D]))
    assert index.rank(A[None]).tolist() == [1, 0, 2]
    assert index.size == 3 * WIDTH * 2


def test_less_the_camera_only_what_is_special_of_a_segment_counts():
    # All of camera 0 shows A; its second segment alone shows some C as well.
    some = segments(
        [A, A], [A, towards(a=0.8, c=0.6)], [A, A], [B, C], [B, B], stream=[0] * 3 + [1] * 2
    )
    question = np.stack([A, C])
    assert Mean()(some).rank(question)[0] == 1
    special = Mean(less_camera=True)(some)
    assert special.keys[0] == pytest.approx(special.keys[2])
    assert set(special.rank(C[None])[:2].tolist()) == {1, 3}


def test_maxsim_adds_up_the_best_of_each_key_of_the_question():
    some = segments([towards(a=0.9), D], [towards(a=0.5), towards(b=0.5)], [towards(b=0.8), C])
    index = MaxSim()(some)
    # 0.9 + 0, 0.5 + 0.5 and 0 + 0.8.
    assert index.rank(np.stack([A, B])).tolist() == [1, 0, 2]
    assert index.rank(A[None]).tolist() == [0, 1, 2]
    assert index.size == 6 * WIDTH * 2


def test_a_code_takes_32_bytes_at_128_numbers():
    keys = random_segments(500, 40, 128).keys
    assert Codes(keys).size / len(keys) == pytest.approx(32, abs=0.5)


def test_a_segment_counts_once_with_its_best_key():
    found, scores = per_segment(np.array([4, 2, 4, 1]), np.array([0.9, 0.8, 0.7, 0.1]))
    assert found.tolist() == [4, 2, 1]
    assert scores.tolist() == [0.9, 0.8, 0.1]


def test_only_segments_with_a_near_token_are_candidates_for_maxsim():
    some = random_segments(200, 4)
    question = some.keys[[40, 41]]
    ranked = Tokens(nearest=3)(some).rank(question)
    assert ranked[0] == 10
    assert len(ranked) <= 6
    exact = MaxSim()(some).rank(question)
    assert [s for s in exact.tolist() if s in ranked] == ranked.tolist()


def test_a_filler_that_matches_everywhere_alike_misleads_maxsim_but_not_xtr():
    # Ten segments of a background that the filler knows; one event with a weak match elsewhere.
    background = [[towards(b=0.50), towards(b=0.49)]] * 10
    some = segments(*background, [towards(a=0.45), towards(b=0.02)], [C, D])
    question = np.stack([A, B])
    assert MaxSim()(some).rank(question)[0] == 0
    assert Xtr(kept=20)(some).rank(question)[0] == 10


def test_xtr_gives_the_worst_score_found_to_what_was_not_found():
    # For A, 0.9 and 0.2 are found; for B, 0.8 and 0.6. Segment 0 lacks B and gets 0.6 for it, 0.75
    # on average; segment 1 lacks A and gets 0.2, so 0.5; segment 2 has both, 0.4.
    some = segments([towards(a=0.9)], [towards(b=0.8)], [towards(a=0.2, b=0.6)])
    assert Xtr(kept=2)(some).rank(np.stack([A, B])).tolist() == [0, 1, 2]


def test_centres_are_the_means_of_what_lies_together():
    near, far = [towards(a=0.95, b=0.1), towards(a=0.95, b=-0.1)], [towards(c=0.9), towards(c=0.95)]
    found = centres(np.stack([*near, *far]), 2)
    assert found.shape == (2, WIDTH)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1)
    middle = (near[0] + near[1]) / np.linalg.norm(near[0] + near[1])
    assert (found @ middle).max() == pytest.approx(1, abs=1e-5)


def test_equal_keys_have_one_centre():
    assert centres(np.stack([A, A, A]), 2).tolist() == [A.tolist()]


def test_an_encoding_adds_up_a_question_and_averages_a_segment():
    encoding = Encoding(Muvera(planes=2, width=8, repetitions=1), WIDTH)
    one, two = towards(a=0.6), towards(a=0.6, b=0.01)
    assert encoding.parts == 4
    alone = [encoding.of_question(key[None]).reshape(4, 8) for key in (one, two)]
    (part,) = np.flatnonzero(np.abs(alone[0]).sum(1))
    both = np.stack([one, two])
    assert encoding.of_question(both).reshape(4, 8) == pytest.approx(alone[0] + alone[1])
    averaged = encoding.of_segments(segments(both)).reshape(4, 8)
    assert averaged[part] == pytest.approx((alone[0] + alone[1])[part] / 2)


def test_where_a_segment_has_no_key_its_nearest_stands_in():
    encoding = Encoding(Muvera(planes=3, width=8, repetitions=1), WIDTH)
    alone = encoding.of_question(A[None]).reshape(8, 8)
    (part,) = np.flatnonzero(np.abs(alone).sum(1))
    filled = encoding.of_segments(segments([A])).reshape(8, 8)
    assert filled == pytest.approx(np.tile(alone[part], (8, 1)))


def test_encodings_estimate_maxsim_on_average():
    some, question = random_segments(40, 6, seed=1), random_segments(1, 5, seed=2).keys
    some.keys[:5] = question
    encoding = Encoding(Muvera(planes=3, width=32, repetitions=40), 32)
    estimate = encoding.of_segments(some) @ encoding.of_question(question) / 40
    assert estimate.argmax() == 0
    # Less than the true 5, since a part's keys are averaged.
    assert 3 < estimate[0] < 5.5


def test_what_was_seen_before_gets_no_key_until_the_next_anchor():
    rule = Novelty(cosine=0.9, anchor_seconds=24.0)
    some = segments([A, B], [A, B], [A, C], [A, B], [A, B], stream=[0] * 5)
    novel, interval = novel_keys(some, rule)
    # Segments 0 and 3 are anchors: all of their keys count.
    assert novel.reshape(5, 2).tolist() == [
        [True, True],
        [False, False],
        [False, True],
        [True, True],
        [False, False],
    ]
    assert interval.tolist() == [0, 0, 0, 1, 1]


def test_each_stream_has_a_memory_of_its_own():
    some = segments([A, B], [A, B], [A, B], stream=[0, 0, 1])
    novel, interval = novel_keys(some, Novelty())
    assert novel.reshape(3, 2).all(1).tolist() == [True, False, True]
    assert interval.tolist() == [0, 0, 1]


def test_a_repeat_is_found_only_when_all_near_it_is_compared():
    # The second segment looks a little more like the question, but not new enough for a key.
    some = segments([towards(a=0.90), B], [towards(a=0.95), B], [C, D])
    assert 1 not in NovelTokens()(some).rank(A[None])
    assert NovelTokens(intervals=1)(some).rank(A[None])[0] == 1
    assert NovelTokens()(some).share == pytest.approx(4 / 6)


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_names_each_segment_at_most_once(name):
    some = random_segments(100, 5)
    ranked = CONTENDERS[name](some).rank(some.keys[:3])
    assert len(set(ranked.tolist())) == len(ranked)
    assert set(ranked.tolist()) <= set(range(100))


@pytest.mark.parametrize("name", [name for name in CONTENDERS if not name.startswith("mean")])
def test_every_contender_but_the_mean_finds_a_segment_by_its_own_keys(name):
    some = random_segments(100, 5)
    index = CONTENDERS[name](some)
    found = [index.rank(some.keys[5 * at : 5 * at + 5])[0] for at in range(0, 100, 10)]
    assert found == list(range(0, 100, 10))
    assert index.size > 0


def test_every_ranker_there_is_takes_part():
    files = {p.stem for p in Path(rankers.__file__).parent.glob("[a-z]*.py")}
    taking_part = {type(ranker).__module__.rpartition(".")[2] for ranker in CONTENDERS.values()}
    assert taking_part == files
