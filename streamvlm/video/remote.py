"""Read a video over HTTP, from checked addresses only.

FFmpeg could fetch URLs itself, but it would look the host up again, follow redirects and play
lists to anywhere, and print passwords in its errors. So it is given a file that is read here.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self
from urllib.parse import urljoin, urlsplit

import httpx

from streamvlm.errors import SourceError

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_TIMEOUT = httpx.Timeout(10.0, connect=10.0)
_MAX_REDIRECTS = 5
_CHUNK_BYTES = 2**16
_SKIP_BYTES = 2**20
"""A seek ahead by less than this reads on instead of asking again."""


def is_url(uri: str) -> bool:
    """Whether a text is an http or https URL."""
    return uri[:8].lower().startswith(("http://", "https://"))


def without_credentials(url: str) -> str:
    """The URL without user and password; also for texts that are no proper URL."""
    return re.sub(r"(?<=://)[^/?#]*@", "", url)


def check_address(url: str, *, allow_local: bool) -> None:
    """Refuse a URL whose host is, or may be, inside this machine or network.

    Args:
        url: http or https.
        allow_local: let private, loopback and link-local addresses pass.

    Raises:
        SourceError: the host cannot be found or is not allowed.
    """
    name = without_credentials(url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if is_odd_host(host):
        raise SourceError(f"{name}: the host is written oddly; write its name or plain IP address")
    try:
        assert host is not None
        found = socket.getaddrinfo(host, port or 80, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise SourceError(f"{name}: the host {host} cannot be found; check the spelling") from None
    for *_, address in found:
        check_public(str(address[0]), name, allow_local=allow_local)


def is_odd_host(host: str | None) -> bool:
    """Whether a host is missing, or a number that is not a plain IP address (0x7f.1, 017700001).

    Args:
        host: as `urlsplit` gives it.
    """
    if not host:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        last = host.rstrip(".").rsplit(".", 1)[-1]
        return bool(re.fullmatch(r"\d+|0x[0-9a-f]*", last))
    return False


def check_public(address: str, name: str, *, allow_local: bool) -> None:
    """Refuse an IP address that is not on the public internet.

    Args:
        address: IPv4 or IPv6.
        name: what to call the source in the message.
        allow_local: let it pass if it is private, loopback or link-local.

    Raises:
        SourceError: it is not allowed.
    """
    found = _innermost(ipaddress.ip_address(address.split("%", 1)[0]))
    if (found.is_global or allow_local) and not found.is_multicast:
        return
    raise SourceError(
        f"{name}: leads to the local address {found}; if that is meant, allow local addresses "
        "(allow_local)"
    )


def _innermost(address: _Address) -> _Address:
    """The IPv4 address inside an IPv6 one that only carries it (RFC 4291, 3056, 6052)."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


@dataclass(frozen=True, slots=True)
class RemoteFacts:
    """What a server says of a file without sending it."""

    size: int | None
    """Length in bytes, None if not told."""
    version: str
    """ETag and Last-Modified, empty if not told."""


class RemoteFile:
    """A file on a web server that can be read from anywhere, as FFmpeg needs it.

    Redirects are followed one by one, each address checked before asking and again, on the
    open connection, before reading. Proxies of the environment are not used.

    Args:
        url: http or https, with user and password if the server wants them.
        allow_local: see `Sampling`.

    Raises:
        SourceError: when made, if the server cannot be reached, refuses, or is not allowed.
    """

    def __init__(self, url: str, *, allow_local: bool) -> None:
        self._url = url
        self._allow_local = allow_local
        self._name = without_credentials(url)
        self._client = httpx.Client(timeout=_TIMEOUT, trust_env=False, follow_redirects=False)
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())
        self._rest = b""
        self._at = 0
        try:
            self._ask(0)
        except BaseException:
            self.close()
            raise

    def _ask(self, offset: int) -> None:
        """Ask for the bytes from `offset` on, following redirects by hand."""
        url = self._url
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._send(url, offset)
            if not response.is_redirect:
                break
            response.close()
            target = urljoin(url, response.headers["location"])
            if not is_url(target):
                raise SourceError(
                    f"{self._name}: is redirected to something that is no http(s) URL"
                )
            url = target
        else:
            raise SourceError(f"{self._name}: is redirected too often; give the final address")
        self._accept(response, offset)

    def _send(self, url: str, offset: int) -> httpx.Response:
        check_address(url, allow_local=self._allow_local)
        headers = {"Range": f"bytes={offset}-", "Accept-Encoding": "identity"}
        try:
            request = self._client.build_request("GET", url, headers=headers)
            response = self._client.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._broken(error) from None
        # The name may have been looked up anew, so the address in use is what counts.
        peer = response.extensions["network_stream"].get_extra_info("server_addr")
        if peer:
            check_public(str(peer[0]), self._name, allow_local=self._allow_local)
        return response

    def _accept(self, response: httpx.Response, offset: int) -> None:
        if response.status_code not in (200, 206):
            response.close()
            raise SourceError(
                f"{self._name}: the server answered {response.status_code} "
                f"{response.reason_phrase}; check the address and your access"
            )
        if self._response is not None:
            self._response.close()
        self._response = response
        self._chunks = response.iter_raw(_CHUNK_BYTES)
        self._rest = b""
        self._at = offset if response.status_code == 206 else 0

    def _broken(self, error: Exception) -> SourceError:
        kind = "did not answer in time" if isinstance(error, httpx.TimeoutException) else "failed"
        return SourceError(
            f"{self._name}: the connection {kind} ({type(error).__name__}); try again later"
        )

    @property
    def facts(self) -> RemoteFacts:
        """Length and version of the file."""
        assert self._response is not None
        headers = self._response.headers
        total = headers.get("content-range", "").rpartition("/")[2] or headers.get("content-length")
        version = f"{headers.get('etag', '')} {headers.get('last-modified', '')}".strip()
        return RemoteFacts(int(total) if (total or "").isdigit() else None, version)

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes from here on; empty at the end.

        Raises:
            SourceError: the connection broke.
        """
        try:
            while not self._rest:
                self._rest = next(self._chunks)
        except StopIteration:
            return b""
        except httpx.HTTPError as error:
            raise self._broken(error) from None
        piece = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(piece) :]
        self._at += len(piece)
        return piece

    def seekable(self) -> bool:
        """Whether the server can send parts of the file."""
        return self._response is not None and self._response.status_code == 206

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a byte: from the start (0), from here (1) or from the end (2)."""
        size = self.facts.size or 0
        target = offset + (0, self._at, size)[whence]
        if not 0 <= target <= size:
            raise OSError("seek outside the file")
        if self._at <= target <= self._at + _SKIP_BYTES:
            while self._at < target and self.read(target - self._at):
                pass
        elif target == size:
            self._chunks, self._rest, self._at = iter(()), b"", size
        else:
            self._ask(target)
        return self._at

    def tell(self) -> int:
        """Bytes from the start of the file."""
        return self._at

    def close(self) -> None:
        """Give the connection back."""
        if self._response is not None:
            self._response.close()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
