# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file on an HTTP server, read by ranges. The server need not be trusted.

It must serve ranges (RFC 9110, section 14). No proxy is used.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import Callable
from urllib.parse import SplitResult, quote, urljoin, urlsplit, urlunsplit

from ..image.reader import MAX_GAP_SIZE, Unreadable
from ..image.writer import SUFFIX
from ..reasons import NO_IMAGE
from ..stream.credentials import load_pair

MIN_RATE = 1 << 20
"""Minimum rate in bytes a second. A record may take the time at this rate plus the silence."""

PATIENT_RATE = 64 << 10
"""The same where no other machine has the file. A record of 4 MiB takes a minute, which is half of the default ``Timeouts.link_timeout``."""

MAX_REDIRECTS = 5

FIRST_PAUSE = 0.5
"""Seconds until a busy server that names no time is asked again; doubled each time."""

PIECE = 4 << 20
"""Maximum bytes of one read: a whole record, so that everything that has arrived is taken at once.

Source: a reader that pauses for 10 ms after each 2 MiB got 1.1 GB/s from nginx over a virtual link with 4 MiB, 0.2 GB/s with 256 KiB.
"""

CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
UNCHANGED = ("identity", "aws-chunked")
"""Content encodings of bytes as they are. Some servers of S3 say that of an upload by the AWS CLI or boto3, which was only sent in that form."""

SECONDS = re.compile("[0-9]{1,9}")
URL = re.compile("[!-~]*")
"""The characters of a URL. http.client refuses others by an error that shows all of it, with its signature."""

REDIRECTS = (301, 302, 303, 307, 308)
BUSY = (http.client.TOO_MANY_REQUESTS, http.client.SERVICE_UNAVAILABLE)
REFUSED = (http.client.UNAUTHORIZED, http.client.FORBIDDEN)
BROKEN = (http.client.HTTPException, ConnectionError)
"""The exceptions of a connection that ends too early."""


def image_url(folder: str, image: str) -> str:
    """Return the URL of an image in a copy of the image store; empty when no folder is given."""
    return f"{folder.rstrip('/')}/{quote(image + SUFFIX)}" if folder else ""


CHANGED = "the file changed while it was read"


@dataclass(frozen=True)
class HttpLocation:
    """The URL of a file, which begins with http:// or https://, and what it takes to read it. All but ``ca`` may be secrets.

    ``ca`` has the certificates of the authorities that the server's certificate is checked by (PEM; empty: those of the system).
    ``certificate`` and ``key`` are those of the client (PEM), ``token`` is a bearer token (RFC 6750); empty for none.
    """

    url: str = field(repr=False)
    ca: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """The URL as it may be shown: a signed URL has its signature in the query."""
        return self.url.partition("?")[0]

    def tls(self) -> ssl.SSLContext:
        """The settings of TLS; raises OSError and ValueError when the certificates can't be used."""
        context = ssl.create_default_context(cadata=self.ca or None)
        if self.certificate:
            load_pair(context, self.certificate, self.key or self.certificate)
        return context


class NoFile(Unreadable):
    """The server has no such file."""

    code = NO_IMAGE


class FileChanged(Unreadable):
    """The file is not the one that it was at first."""


_REFUSAL = "the server refuses to send it: wrong or expired credentials, or no right to read it"

PROBLEMS: dict[int, tuple[str, type[Unreadable]]] = {
    http.client.OK: ("expected a part of the file and got all of it: the server does not serve ranges", Unreadable),
    http.client.UNAUTHORIZED: (_REFUSAL, Unreadable),
    http.client.FORBIDDEN: (_REFUSAL, Unreadable),
    http.client.NOT_FOUND: ("the server has no such file", NoFile),
    http.client.PRECONDITION_FAILED: (CHANGED, FileChanged),
}
"""What is said of the statuses of responses."""


class _Busy(Exception):
    """The server can't answer now (RFC 9110, 15.6.4; RFC 6585, 4). ``pause`` is the time in seconds that it asks for, None if it names none."""

    def __init__(self, status: int, pause: int | None) -> None:
        super().__init__(status)
        self.status = status
        self.pause = pause


class _Server:
    """The connection to the server of a file, or to the one that it redirects to. Methods raise OSError, ValueError and HTTPException."""

    def __init__(self, location: HttpLocation, silence: float) -> None:
        self._location = location
        self._silence = silence
        self._url = location.url
        """Where the file is: another address than the location's after a redirect."""
        self._connection: http.client.HTTPConnection | None = None
        self.socket: socket.socket | None = None

    def connect(self) -> None:
        """Connect, unless there is a connection."""
        if self._connection is not None:
            return
        url = urlsplit(self._url)
        if url.scheme == "https":
            location = self._location if self._at_home else HttpLocation(url=self._url, ca=self._location.ca)
            context = location.tls()
            self._connection = http.client.HTTPSConnection(
                url.hostname or "", url.port, timeout=self._silence, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=self._silence)
        self._connection.connect()
        self.socket = self._connection.sock

    @property
    def _at_home(self) -> bool:
        """Whether this is the server that the client's certificate and token are for."""
        return _origin(self._url) == _origin(self._location.url)

    def get(self, offset: int, end: int, version: str | None) -> http.client.HTTPResponse:
        """Request a range, of the file with this entity tag if it is a strong one (RFC 9110, 13.1.1)."""
        url = urlsplit(self._url)
        headers = {"Range": f"bytes={offset}-{end - 1}", "Accept-Encoding": "identity", "User-Agent": "fleet.imaging"}
        if self._location.token and self._at_home:
            headers["Authorization"] = f"Bearer {self._location.token}"
        if version is not None and not version.startswith("W/"):
            headers["If-Match"] = version
        if self._connection is None:
            raise http.client.NotConnected()
        path = urlunsplit(SplitResult("", "", url.path or "/", url.query, ""))
        self._connection.request("GET", path, headers=headers)
        return self._connection.getresponse()

    def follow(self, location: str) -> None:
        """Go to another address, which must be one of https if this one is."""
        target = urlsplit(urljoin(self._url, location))
        downgraded = urlsplit(self._url).scheme == "https" and target.scheme != "https"
        if target.scheme not in ("http", "https") or not target.hostname or downgraded or not URL.fullmatch(location):
            raise ValueError(
                f"it redirects to {location.partition('?')[0][:200]!r}: expected an address with http or https, and after https with https"
            )
        self._url = target.geturl()

    def disconnect(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self.socket = None


class Patience:
    """How long a busy server is waited for that says when to ask again, beyond the time that an answer may take."""

    def __init__(self, seconds: float = 0.0, say: Callable[[str], object] = lambda _said: None) -> None:
        """``seconds`` are those of all waits together. ``say`` is called with a sentence about each."""
        self._left = seconds
        self._say = say

    def end(self) -> None:
        """Wait no more from now on."""
        self._left = 0.0

    def gives(self, name: str, busy: _Busy) -> bool:
        """Return whether a server gets the time that it asks for, and count it."""
        if busy.pause is None or busy.pause > self._left:
            return False
        self._left -= busy.pause
        self._say(
            f"{name}: the server is busy ({busy.status}), and is asked again after the {busy.pause} seconds that it asks for."
        )
        return True

    def refusal(self, busy: _Busy, left: float) -> str:
        """Return why a server is not waited for; ``left`` are the seconds that its answer may take."""
        if busy.pause is None:
            return f"it is busy ({busy.status}), and stays so for longer than an answer may take"
        most = max(self._left, left, 0.0)
        return f"it is busy ({busy.status}) and asks for {busy.pause} more seconds, but it is waited for {most:.0f} at the most"


class HttpFile:
    """A file on an HTTP server as a byte source (``image.reader.ByteSource``). Raises Unreadable.

    All requests use one connection, one after the other.
    """

    def __init__(
        self,
        location: HttpLocation,
        silence: float,
        renew: Callable[[], HttpLocation] | None = None,
        min_rate: int = MIN_RATE,
        patience: Patience | None = None,
    ) -> None:
        """Nothing is asked yet. After so many seconds of silence, or at a lower rate in bytes a second, the server is given up.

        ``renew`` signs the URL anew, if it is a signed one.
        """
        self.name = location.name
        self.size = 0
        self.version: str | None = None
        """The file's entity tag (RFC 9110, 8.8.3), if the server sends one."""
        self._renew = renew
        self._silence = silence
        self._min_rate = min_rate
        self.patience = patience or Patience()
        self._deadline = 0.0
        self._server = _Server(location, silence)
        self._answer: http.client.HTTPResponse | None = None
        self._position = self._end = 0
        """Bytes of the current response that were not read yet."""
        self._plan = (0, 0)
        self.body_seconds = 0.0
        """Seconds that the bytes of the latest read took to arrive, without the wait for a response to begin."""
        self.stopped = False
        """Whether :meth:`stop` was called."""

    def fileno(self) -> int:
        """Return -1: there is no descriptor."""
        return -1

    def reaches(self, offset: int) -> bool:
        """Return whether ``offset`` follows soon in the current response."""
        return self._answer is not None and self._position <= offset < min(self._end, self._position + MAX_GAP_SIZE)

    def plan(self, start: int, end: int) -> None:
        """Announce the range that will be read next in pieces: a read in it requests all of the rest."""
        self._plan = (start, end)

    def open(self) -> None:
        """Find out the size of the file, and whether its ranges are served."""
        self.read_range(0, 1)

    def read_range(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``."""
        self._deadline = time.monotonic() + self._silence + size / self._min_rate
        pause, broken = FIRST_PAUSE, False
        while True:
            try:
                return self._read(offset, size)
            except BROKEN as error:
                if broken:
                    raise self._failed(f"the connection broke ({str(error) or type(error).__name__})") from error
                broken = True  # a server may close an idle connection at any time: try once more over a new one
                self._disconnect()
            except _Busy as busy:
                self._wait(pause, busy)
                pause *= 2

    def _wait(self, pause: float, busy: _Busy) -> None:
        """Wait for a busy server, for as long as it asks for, or for ``pause`` seconds."""
        self._disconnect()
        seconds = pause if busy.pause is None else busy.pause
        end = time.monotonic() + seconds
        if end >= self._deadline:
            if not self.patience.gives(self.name, busy):
                raise self._failed(self.patience.refusal(busy, self._deadline - time.monotonic()))
            self._deadline += seconds
        while time.monotonic() < end:
            self._check_time()
            time.sleep(min(0.1, seconds))

    def _read(self, offset: int, size: int) -> bytes:
        try:
            if not self.reaches(offset) or offset + size > self._end:
                planned = self._plan[1] if self._plan[0] <= offset else 0
                self._ask(offset, max(offset + size, planned))
            began = time.monotonic()
            if offset > self._position:
                self._take(offset - self._position)
            data = self._take(size)
            self.body_seconds = time.monotonic() - began
            return data
        except ssl.SSLEOFError as error:
            raise ConnectionResetError(str(error)) from error
        except ssl.SSLError as error:
            raise self._failed(f"TLS failed ({error})") from error
        except BROKEN:
            raise
        except socket.timeout as error:
            raise self._too_slow() from error
        # A name that can't be resolved, or a redirect to an invalid address.
        except (OSError, ValueError) as error:
            raise self._failed(f"it can't be read ({error})") from error

    def _take(self, size: int) -> bytes:
        """Return the next bytes of the response."""
        parts = []
        while size:
            self._check_time()
            part = self._answer.read1(min(size, PIECE)) if self._answer is not None else b""
            if not part:
                raise http.client.IncompleteRead(b"", size)
            parts.append(part)
            size -= len(part)
            self._position += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check_time(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self._too_slow()
        if self.stopped:
            raise self._failed("reading was ended")
        if self._server.socket is not None:
            self._server.socket.settimeout(min(left, self._silence))

    def _ask(self, offset: int, end: int) -> None:
        """Request a range, and follow redirects."""
        answer = self._answer
        if answer is not None and (self._position < self._end or answer.will_close):
            self._disconnect()  # the rest of that response would come before the next one
        elif answer is not None:
            answer.close()
        renew = self._renew
        for _redirect in range(MAX_REDIRECTS + 1):
            self._server.connect()
            self._check_time()
            answer = self._server.get(offset, end, self.version)
            if answer.status in REFUSED and renew is not None:
                self._disconnect()
                self._server, renew = _Server(renew(), self._silence), None  # the signature has expired
            elif answer.status in REDIRECTS:
                self._disconnect()
                self._server.follow(answer.getheader("Location", ""))
            else:
                self._check_answer(answer, offset, end)
                self._answer, self._position, self._end = answer, offset, end
                return
        raise self._failed(f"it redirects more than {MAX_REDIRECTS} times")

    def _check_answer(self, answer: http.client.HTTPResponse, offset: int, end: int) -> None:
        """Raise Unreadable unless the response has the requested range of the file that it was before."""
        if answer.status in BUSY:
            pause = answer.getheader("Retry-After", "")
            raise _Busy(answer.status, int(pause) if SECONDS.fullmatch(pause) else None)
        if answer.status != http.client.PARTIAL_CONTENT:
            reason, kind = PROBLEMS.get(answer.status, ("expected a part of the file", Unreadable))
            raise self._failed(f"{reason} ({answer.status} {answer.reason})", kind)
        size = _size_of_range(answer, offset, end)
        if size is None:
            raise self._failed(f"expected the bytes {offset} to {end - 1} and got something else")
        version = answer.getheader("ETag")
        if self.size and (self.size, self.version) != (size, version):
            raise self._failed(CHANGED, FileChanged)
        self.size, self.version = size, version

    def _too_slow(self) -> Unreadable:
        return self._failed(
            f"it is too slow: expected an answer within {self._silence:.0f} seconds and {self._min_rate >> 10} KiB a second"
        )

    def _failed(self, reason: str, kind: type[Unreadable] = Unreadable) -> Unreadable:
        self._disconnect()
        return kind(f"{self.name}: {reason}.")

    def _disconnect(self) -> None:
        self._server.disconnect()
        if self._answer is not None:
            self._answer.close()
        self._answer = None

    def stop(self) -> None:
        """Make current and later reads fail; from any thread."""
        self.stopped = True
        open_socket = self._server.socket
        if open_socket is not None:
            try:
                open_socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def restart(self) -> None:
        """Allow reads again after :meth:`stop`."""
        self._disconnect()
        self.stopped = False


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Return what a server is told apart by (RFC 6454)."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _size_of_range(answer: http.client.HTTPResponse, start: int, end: int) -> int | None:
    """Return the size of the file of which a response has this range; None when it has something else."""
    found = CONTENT_RANGE.fullmatch(answer.getheader("Content-Range", ""))
    first, last, size = map(int, found.groups()) if found else (0, -1, 0)
    exact = (first, last) == (start, end - 1) and answer.getheader("Content-Encoding", "identity") in UNCHANGED
    return size if exact else None
