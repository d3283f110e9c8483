# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sends the hashes of a disk while they are made: the reference to the workers, and each worker to its laptop."""

from __future__ import annotations

import threading
import time
from typing import Callable

from ..errors import ImagingError
from ..image.hashes import HASH, Hashes
from ..stream.conversation import unpack_count
from ..stream.link import MAX_OTHER_PAYLOAD_SIZE, Kind, Link, LinkError

PAUSE = 0.1
"""Seconds in which new hashes are collected before they are sent."""


def answer_hashes(link: Link, hashes: Hashes, check: Callable[[], object]) -> None:
    """Answer a request for hashes, when it arrives, in a thread of its own, however long it takes until all are made; one request over each link.

    ``check`` is called meanwhile. When it raises ImagingError, the other end is told so, and the link ends.
    """

    def answer(payload: bytes) -> None:
        del link.handlers[Kind.HASHES]
        threading.Thread(target=send, args=(unpack_count(payload),), name="send-hashes", daemon=True).start()

    def send(count: int) -> None:
        try:
            _send(link, count, hashes, check)
        except LinkError:
            pass  # the thread that receives finds out
        except ImagingError as error:
            link.end(str(error))

    link.handlers[Kind.HASHES] = answer


def _send(link: Link, count: int, hashes: Hashes, check: Callable[[], object]) -> None:
    while not link.closed:
        check()
        root = hashes.root  # before the hashes, so that none is left out when there is one
        piece = hashes.pack(count, MAX_OTHER_PAYLOAD_SIZE)
        if piece:
            link.send(Kind.HASHES, piece)
            count += len(piece) // HASH.size
        elif root:
            link.send(Kind.ROOT, root)
            return
        else:
            time.sleep(PAUSE)
