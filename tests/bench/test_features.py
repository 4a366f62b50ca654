import torch
import torch.nn.functional as F

from streamvlm.bench.features import CUES, FRAME_CUES, MOVING, SCENE, video_like


def similarity(steps: int = 25, side: int = 14, width: int = 128) -> torch.Tensor:
    frames = video_like(steps, side, width).features.view(steps, side * side, width)
    return F.cosine_similarity(frames[:-1], frames[1:], dim=-1)


def test_neighbouring_frames_are_as_alike_as_those_of_the_published_measurements():
    assert abs(float(similarity(32, 14).mean()) - 0.87) < 0.02


def test_a_new_scene_begins_every_twelve_frames():
    alike = similarity().median(1).values
    cuts = (alike < 0.5).nonzero().flatten().tolist()
    assert cuts == [SCENE - 1, 2 * SCENE - 1]


def test_twenty_tokens_move_every_third_frame_and_the_rest_stay():
    left = (similarity()[:11] < 0.5).sum(1)
    assert left.bool().tolist() == [step % 3 == 2 for step in range(11)]
    # Where one follows another, both are new; so is the place that was left.
    assert MOVING <= int(left[2]) <= 2 * MOVING


def test_every_cue_is_there_for_every_token_or_step():
    clip = video_like(3, 2, 8)
    assert clip.is_dense
    assert clip.cues.keys() == CUES
    assert clip.frame_cues.keys() == FRAME_CUES
    assert clip.cues["keys"].shape == (12, 64)
    assert clip.cues["question"].shape == (12, 8)
    assert clip.cues["question"].abs().max() <= 1 + 1e-6


def test_frame_vectors_are_alike_in_a_scene_and_not_beyond():
    vector = video_like(SCENE + 1, 2, 256).frame_cues["frame_vector"]
    alike = F.cosine_similarity(vector[:-1], vector[1:], dim=-1)
    assert alike[:-1].min() > 0.9 > alike[-1]


def test_the_same_seed_gives_the_same_features_and_another_others():
    one, same, other = (video_like(2, 3, 8, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.features, same.features)
    assert not torch.equal(one.features, other.features)
