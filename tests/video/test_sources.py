import os
from pathlib import Path

import av
import numpy as np
import pytest

from streamvlm.errors import SourceError
from streamvlm.protocols import Source
from streamvlm.video.sources import Sampling, expand, open_source


def message(uri):
    with pytest.raises(SourceError) as caught:
        open_source(uri, Sampling())
    text = str(caught.value)
    assert "\n" not in text
    assert "Errno" not in text
    return text


def test_a_file_is_itself(encode):
    path = encode([1])
    assert expand(path) == [path]


@pytest.mark.parametrize("url", ["http://host/a.mp4", "https://host/list?x=1"])
def test_a_url_is_itself(url):
    assert expand(url) == [url]


def test_a_folder_is_its_video_files_at_any_depth_sorted(tmp_path):
    for name in (
        "b.mp4",
        "a/z.MKV",
        "a/b/c.webm",
        "a/notes.txt",
        ".hidden.mp4",
        "c.jpg",
        "._b.mp4",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert expand(str(tmp_path)) == [str(tmp_path / n) for n in ("a/b/c.webm", "a/z.MKV", "b.mp4")]


def test_a_folder_without_videos_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SourceError, match=f"{tmp_path}: has no video files"):
        expand(str(tmp_path))


def test_a_missing_path_is_refused_by_name():
    with pytest.raises(SourceError, match=r"/no/where: there is no such"):
        expand("/no/where")


@pytest.mark.parametrize("act", [expand, lambda uri: open_source(uri, Sampling())])
def test_a_file_url_is_refused_with_the_remedy(act):
    with pytest.raises(SourceError, match="plain path"):
        act("file:///tmp/a.mp4")


@pytest.mark.parametrize("act", [expand, lambda uri: open_source(uri, Sampling())])
def test_other_schemes_are_refused_without_their_password(act):
    with pytest.raises(SourceError, match=r"rtsp://cam/1: this kind of URL") as caught:
        act("rtsp://ann:s3cret@cam/1")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["concat:a.mp4|b.mp4", "pipe:0", "subfile,,start,0,end,9,,:/etc/x"])
def test_protocols_of_ffmpeg_are_only_file_names(uri):
    assert "no such file" in message(uri)


def test_a_missing_file_names_it(tmp_path):
    assert message(str(tmp_path / "none.mp4")) == (
        f"{tmp_path}/none.mp4: there is no such file; check the spelling"
    )


def test_an_empty_file_says_so(tmp_path):
    (tmp_path / "empty.mp4").touch()
    assert "is empty (0 bytes)" in message(str(tmp_path / "empty.mp4"))


def test_text_named_mp4_is_no_video(tmp_path):
    (tmp_path / "text.mp4").write_text("this is not a video\n")
    assert "text.mp4: is not a video" in message(str(tmp_path / "text.mp4"))


def test_a_folder_is_not_one_source(tmp_path):
    assert "is a folder" in message(str(tmp_path))


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "not a regular file" in message(str(tmp_path / "pipe.mp4"))


def test_an_mp4_without_index_is_called_cut_off(encode):
    path = Path(encode(list(range(20))))
    path.write_bytes(path.read_bytes()[:-1500])
    assert "index (moov) is missing" in message(str(path))


def write_sound(path, cover=False):
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000)
        for start in range(0, 16000, 1024):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 16000, start
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))


def test_a_file_with_sound_only_names_what_it_has(tmp_path):
    write_sound(tmp_path / "sound.mp4")
    assert "no video stream (found: audio); give a file with a picture" in message(
        str(tmp_path / "sound.mp4")
    )


def test_a_video_whose_pictures_are_all_damaged_is_refused(encode):
    path = Path(encode(list(range(20)), options={"g": "1"}))
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for at, size in places:
        data[at : at + size] = b"\xff" * size
    path.write_bytes(data)
    assert "no picture in it could be decoded" in message(str(path))


def test_a_source_says_what_it_is(encode, monkeypatch):
    path = Path(encode(list(range(20)), times=[n / 10 for n in range(20)]))
    monkeypatch.chdir(path.parent)
    source = open_source(path.name, Sampling())
    assert isinstance(source, Source)
    assert source.stream == str(path)
    assert next(iter(source)).stream == str(path)
    assert source.live is False
    assert source.duration == pytest.approx(2.0, abs=0.07)
    assert source.ended_at is None


def test_a_file_deleted_after_opening_is_a_source_error(encode):
    path = encode([1, 2])
    source = open_source(path, Sampling())
    Path(path).unlink()
    with pytest.raises(SourceError, match="no such file"):
        list(source)


@pytest.mark.parametrize("side", [1, 7, 50, 90])
def test_frames_have_at_most_the_wanted_side(encode, side):
    source = open_source(encode([1], size=(160, 90)), Sampling(max_side=side))
    assert max(next(iter(source)).image.shape) == max(side, 3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("audio_only.mp4", "no video stream (found: audio)"),
        ("truncated_no_moov.mp4", "index (moov) is missing"),
        ("empty.mp4", "is empty"),
        ("text.mp4", "is not a video"),
    ],
)
def test_real_files_that_are_no_video_are_refused(clip, name, words):
    path = clip(f"faults/{name}")
    assert message(path).startswith(f"{path}: ")
    assert words in message(path)
