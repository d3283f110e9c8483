# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end that serves an image."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.serving.server import serve
from ansible_collections.fleet.imaging.plugins.module_utils.stream.credentials import LAPTOP, THE_CONTROLLER, Name
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Kind, Link, SocketChannel


def test_whatever_fails_in_the_thread_that_reads_ends_the_conversation() -> None:
    near, far = socket.socketpair()
    link, laptop = Link(SocketChannel(near), Name(LAPTOP, "lab-01")), Link(SocketChannel(far), THE_CONTROLLER)

    def on_progress(_report: bytes) -> None:
        raise OSError("no space")

    source: Any = None  # nothing is asked of it
    laptop.send(Kind.PROGRESS, b"{}")
    with pytest.raises(OSError, match="no space"):
        serve(link, source, on_progress)
    assert link.closed
    laptop.close()
