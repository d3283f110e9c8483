# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the progress of an upload of an image to a server."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from ..stores.base import Store
from .line import ProgressEvent
from .publisher import Publisher


class Upload:
    """Publishes the progress of an upload from its first report on, as a context manager. Without a report, nothing is published."""

    def __init__(
        self, host: str, display: Callable[[str], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``host`` is the host of the task, by which the progress is shown. ``display`` is as of Publisher."""
        self._host = host
        self._display = display
        self._clock = clock
        self._began = 0.0
        self._done = self._total = self._before = 0
        self._publisher: Publisher | None = None

    def __enter__(self) -> Upload:
        return self

    def report(self, done: int, total: int) -> None:
        """Take a report: the server has so many bytes of so many. The first report is made before any are sent by this run."""
        self._done, self._total = done, total
        if self._publisher is None:
            self._began, self._before = self._clock(), done
            self._publisher = Publisher(self.event, self._display)
            self._publisher.__enter__()

    def event(self) -> ProgressEvent:
        """Return the progress."""
        done, total = self._done, self._total
        sent = done - self._before
        mean = sent / max(self._clock() - self._began, 1e-3) if sent else None
        return ProgressEvent(
            host=self._host,
            state="uploading",
            done=done,
            total=total,
            whole=done / max(1, total),
            now=mean,
            mean=mean,
            eta=(total - done) / mean if mean else None,
        )

    def __exit__(self, *exception: object) -> None:
        if self._publisher is not None:
            self._publisher.__exit__(*exception)


@contextlib.contextmanager
def showing_upload(store: Store, host: str, display: Callable[[str], object]) -> Iterator[None]:
    """Show the progress of what a store uploads meanwhile. ``host`` and ``display`` are as of Upload."""
    with Upload(host, display) as upload:
        store.on_upload = upload.report
        yield
