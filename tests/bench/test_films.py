import itertools

import av

from streamvlm.bench.films import FPS, camera_film, repeat


def test_a_repeated_film_is_as_long_as_it_says_and_decodes_whole(tmp_path):
    film = camera_film(tmp_path / "film.mp4", seconds=2, width=320, height=180)
    long = repeat(film, tmp_path / "long.mp4", times=3)
    with av.open(str(long)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert len(times) == 3 * 2 * FPS
    steps = [round(after - before, 6) for before, after in itertools.pairwise(times)]
    assert set(steps) == {1 / FPS}
