# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An HTTP server of a folder, with ranges, that can be told to misbehave."""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Callable, Iterator


class Cut(Exception):
    """Raised by a fault: the connection ends here."""


class RangeServer(ThreadingHTTPServer):
    """Serves the files of a folder on a port of an address, which is the loopback's if nothing else is said."""

    daemon_threads = True

    def __init__(self, folder: str, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        super().__init__((address, 0), _Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.folder = folder
        self.url = f"http{'s' if tls else ''}://{address}:{self.server_address[1]}"
        self.answer: Callable[[_Handler], bool] = lambda handler: False
        """Answers instead of the server, if it returns True."""
        self.spoil: Callable[[int, bytes], bytes] = lambda offset, data: data
        """What becomes of bytes of a file on their way; may raise Cut."""
        self.etag = ""
        """The entity tag of all files, empty for none."""
        self.ranges: list[tuple[int, int]] = []
        self.connections = 0

    def process_request(self, request: object, client_address: object) -> None:
        """Count it."""
        self.connections += 1
        super().process_request(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def do_GET(self) -> None:
        """One range of a file."""
        if self.server.answer(self):
            return
        asked = re.fullmatch("bytes=([0-9]+)-([0-9]+)", self.headers["Range"])
        path = os.path.join(self.server.folder, os.path.basename(self.path.partition("?")[0]))
        if asked is None or not os.path.exists(path):
            self.send_error(404)
            return
        size = os.path.getsize(path)
        start, end = int(asked.group(1)), min(size, int(asked.group(2)) + 1)
        if self.headers.get("If-Match", self.server.etag) != self.server.etag:
            self.send_error(412)
            return
        self.server.ranges.append((start, end))
        self.send_response(206)
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        with open(path, "rb") as file, contextlib.suppress(Cut, OSError):
            file.seek(start)
            while start < end:
                data = file.read(min(1 << 14, end - start))
                self.wfile.write(self.server.spoil(start, data))
                start += len(data)
            return
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name in the base class
        """Nothing is logged."""


@contextlib.contextmanager
def serving(folder: str, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[RangeServer]:
    """A server of this folder, for as long as the context lasts."""
    server = RangeServer(folder, address, tls)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
