"""A real web server on this machine, allowed and refused."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from streamvlm.errors import SourceError
from streamvlm.video.remote import (
    RemoteFile,
    check_address,
    check_public,
    is_url,
    without_credentials,
)
from streamvlm.video.sources import Sampling, identify, open_source

LOCAL = Sampling(fps=2, allow_local=True)


class Handler(BaseHTTPRequestHandler):
    """Serves one file in parts; other paths redirect or fail."""

    protocol_version = "HTTP/1.1"
    body = b""
    asked: list[tuple[str, str | None, str | None]]

    def log_message(self, *_):
        pass

    def do_GET(self):
        asked_range, login = self.headers.get("Range"), self.headers.get("Authorization")
        self.asked.append((self.path, asked_range, login))
        if self.path.startswith("/to/"):
            self._answer(302, b"", Location=self.path[4:])
        elif self.path == "/whole.mp4":
            self._answer(200, self.body)
        elif self.path == "/cut.mp4":
            self._answer(200, self.body[: len(self.body) // 2], length=len(self.body))
            self.close_connection = True
        elif self.path == "/part.mp4" or login:
            start = int((asked_range or "bytes=0-")[6:].split("-")[0])
            size = len(self.body)
            where = {"Content-Range": f"bytes {start}-{size - 1}/{size}", "ETag": '"v1"'}
            self._answer(206, self.body[start:], **where)
        else:
            self._answer(404, b"no")

    def _answer(self, status, body, length=None, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True


@pytest.fixture
def serve():
    """Serve bytes on 127.0.0.1; gives the base URL and what was asked."""
    servers = []

    def start(body):
        handler = type("Serving", (Handler,), {"body": body, "asked": []})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", handler.asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def video(encode):
    """(path, bytes) of an MP4 whose index comes last, as recorders write it."""
    path = encode(list(range(40)))
    return path, Path(path).read_bytes()


def test_a_url_gives_the_same_frames_as_the_file(serve, video):
    base, asked = serve(video[1])
    source = open_source(f"{base}/part.mp4", LOCAL)
    frames = list(source)
    expected = list(open_source(video[0], Sampling(fps=2)))
    assert [f.seconds for f in frames] == [f.seconds for f in expected]
    assert all((a.image == b.image).all() for a, b in zip(frames, expected, strict=True))
    assert source.stream == frames[0].stream == f"{base}/part.mp4"
    assert source.ended_at == pytest.approx(source.duration)
    assert any(where != "bytes=0-" for _, where, _ in asked)


def test_a_server_without_parts_serves_files_whose_index_comes_first(serve, encode, tmp_path):
    path = encode(list(range(40)), name="made.mkv")
    base, _ = serve(Path(path).read_bytes())
    assert len(list(open_source(f"{base}/whole.mp4", LOCAL))) == 8


def test_local_addresses_are_refused_unless_allowed(serve, video):
    base, asked = serve(video[1])
    with pytest.raises(SourceError, match=r"local address 127\.0\.0\.1.*allow"):
        open_source(f"{base}/part.mp4", Sampling())
    assert asked == []


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0x7f000001", "0x7f.1", "127.1", "017700000001", "1.2.3", "", "127.0.0.1.."],
)
def test_odd_spellings_of_a_host_are_refused_even_if_local_is_allowed(host):
    with pytest.raises(SourceError, match=r"oddly|local address"):
        check_address(f"http://{host}/a.mp4", allow_local=False)
    with pytest.raises(SourceError):
        check_address(f"http://{host}:1/a.mp4", allow_local=True)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.3.4",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "::ffff:127.0.0.1",
        "::ffff:10.1.2.3",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_addresses_that_are_not_public_are_refused(address):
    with pytest.raises(SourceError, match="local address"):
        check_public(address, "here", allow_local=False)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1"])
def test_public_addresses_pass(address):
    check_public(address, "here", allow_local=False)


def test_a_multicast_address_is_refused_even_if_local_is_allowed():
    with pytest.raises(SourceError):
        check_public("224.0.0.1", "here", allow_local=True)


def test_a_redirect_is_followed_and_checked(serve, video):
    base, asked = serve(video[1])
    assert len(list(open_source(f"{base}/to/{base}/part.mp4", LOCAL))) == 8
    assert [path for path, _, _ in asked[:2]] == [f"/to/{base}/part.mp4", "/part.mp4"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("file:///etc/passwd", "no http"),
        ("ftp://example.com/a.mp4", "no http"),
        ("http://0x7f.1/a.mp4", "oddly"),
        ("http://224.0.0.1/a.mp4", "local address"),
    ],
)
def test_a_redirect_to_somewhere_else_is_refused(serve, video, target, message):
    base, _ = serve(video[1])
    with pytest.raises(SourceError, match=message):
        open_source(f"{base}/to/{target}", LOCAL)


def test_a_redirect_in_circles_ends(serve, video):
    base, asked = serve(video[1])
    with pytest.raises(SourceError, match="redirected too often"):
        open_source(f"{base}/to/" + "/to/" * 9 + "x", LOCAL)
    assert len(asked) <= 7


def test_user_and_password_are_sent_but_never_shown(serve, video, caplog):
    base, asked = serve(video[1])
    url = base.replace("//", "//ann:s3cret@")
    source = open_source(f"{url}/closed.mp4", LOCAL)
    assert asked[0][2].startswith("Basic ")
    assert source.stream == f"{base}/closed.mp4"
    for bad in (url.replace("127.0.0.1", "0x7f.1"), f"{url}:x/a", f"{url}/to/file:///x"):
        with pytest.raises(SourceError) as caught:
            open_source(bad, LOCAL)
        assert "s3cret" not in str(caught.value)
    assert "s3cret" not in caplog.text + repr(source)


def test_a_missing_page_names_the_answer(serve):
    base, _ = serve(b"")
    with pytest.raises(SourceError, match=r"nothing\.mp4.*404"):
        open_source(f"{base}/nothing.mp4", LOCAL)


def test_no_server_is_one_sentence():
    with pytest.raises(SourceError, match="connection failed"):
        open_source("http://127.0.0.1:9/a.mp4", LOCAL)


def test_a_page_that_is_no_video_is_refused(serve):
    base, _ = serve(b"<html>hello</html>" * 100)
    with pytest.raises(SourceError, match="does not lead to a video"):
        open_source(f"{base}/part.mp4", LOCAL)


def test_a_play_list_cannot_lead_to_files(serve, video):
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:5", "#EXTINF:4,", f"file://{video[0]}"]
    base, _ = serve("\n".join([*lines, "#EXT-X-ENDLIST", ""]).encode())
    with pytest.raises(SourceError):
        open_source(f"{base}/part.mp4", LOCAL)


def test_a_connection_that_breaks_is_one_sentence(serve, encode):
    path = encode(list(range(40)), name="made.mkv", options={"qp": "1"}, size=(640, 360))
    base, _ = serve(Path(path).read_bytes())
    with pytest.raises(SourceError, match=r"cut\.mp4: the connection failed"):
        list(open_source(f"{base}/cut.mp4", LOCAL))


def test_the_identity_of_a_url_is_what_the_server_says(serve, video):
    base, _ = serve(video[1])
    found = identify(f"{base}/part.mp4", allow_local=True)
    assert found.size == len(video[1])
    assert found == identify(f"{base}/part.mp4", allow_local=True)
    other, _ = serve(video[1] + b"x")
    assert identify(f"{other}/part.mp4", allow_local=True).digest != found.digest


def test_reading_ahead_back_and_past_the_end(serve):
    body = bytes(range(256)) * 20_000
    base, _ = serve(body)
    with RemoteFile(f"{base}/part.mp4", allow_local=True) as remote:
        for at in (0, 4_000_000, 5, 700, 1_500_000):
            assert remote.seek(at) == remote.tell() == at
            piece = remote.read(10)
            assert piece == body[at : at + len(piece)]
            assert piece
        assert remote.seek(-3, 2) == len(body) - 3
        assert remote.read() == body[-3:]
        assert remote.seek(0, 2) == len(body)
        assert remote.read(5) == b""
        with pytest.raises(OSError, match="outside"):
            remote.seek(-1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://a:b@host/p", "http://host/p"),
        ("rtsp://a:p@ss@host/p?x=@", "rtsp://host/p?x=@"),
        ("http://host/p@q", "http://host/p@q"),
        ("/a/b@c.mp4", "/a/b@c.mp4"),
    ],
)
def test_credentials_are_cut_from_any_text(text, expected):
    assert without_credentials(text) == expected


def test_only_http_and_https_are_urls():
    assert is_url("HTTPS://host/a")
    assert not any(is_url(text) for text in ("rtsp://host", "http.mp4", "file:///a", "C:\\a.mp4"))
