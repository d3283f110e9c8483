# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks captured and restored by both halves of both transfers, over real sockets. Only Ansible is left out."""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import RunCommand
from ansible_collections.fleet.imaging.plugins.module_utils.engine.goal import LEAVE
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.capture import CaptureRequest, run_capture
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.restore import RestoreSink
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.session import Session
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.target_disk import RestoreRequest, TargetDisk
from ansible_collections.fleet.imaging.plugins.module_utils.serving.server import serve
from ansible_collections.fleet.imaging.plugins.module_utils.serving.stored import StoredSource
from ansible_collections.fleet.imaging.plugins.module_utils.ticket import Ticket
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import Timeouts
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd
from ansible_collections.fleet.imaging.plugins.plugin_utils.capture_sink import CaptureSink
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.meter import Meter
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.folder import FolderStore
from ansible_collections.fleet.imaging.tests.integration.disk_files import RUN
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.ends import CREDENTIALS, LAB_01
from ansible_collections.fleet.imaging.tests.unit.plugins.plugin_utils.halves import hold

PATIENT = Timeouts(link_timeout=60)
"""A laptop that maps a disk is silent, and this machine may be busy."""


def captured(disk: Path | str, folder: Path, run: RunCommand = RUN) -> ImageReader:
    """The image of a disk, in a store of its own."""
    store = FolderStore(str(folder / "store"))
    os.makedirs(store.path, exist_ok=True)
    sink = CaptureSink(store, store.stage("image"))
    request = CaptureRequest(str(disk), "auto", 3, False, {})
    ticket = Ticket("run", CREDENTIALS[LAB_01], "reference", "2026-01-02T03:04:05Z", "")

    def work(session: Session) -> dict[str, Any]:
        found, _warnings = run_capture(run, request, ticket, find_zstd(), session)
        return asdict(found)

    try:
        result, _ends = hold(str(disk), folder / "run", work, sink.converse, sink.progress, timeouts=PATIENT)
        assert not result.get("failed"), result
        sink.conclude(result)
    finally:
        sink.release()
    return store.open("image")


def restore(
    image: ImageReader, target: Path | str, folder: Path, run: RunCommand = RUN, unused: str = LEAVE
) -> dict[str, Any]:
    """Restore an image onto a disk; what the laptop's module says of that, or with what message it failed."""
    source = StoredSource(image)
    meter = Meter(source.watches, lambda: source.frames_sent, frames=image.stored_bytes)
    request = RestoreRequest(str(target), image.root_digest, {}, True, True, "lab-01", unused)

    def work(session: Session) -> dict[str, Any]:
        with (
            TargetDisk(run, request) as disk,
            contextlib.closing(RestoreSink(disk, request, find_zstd(), session)) as sink,
        ):
            session.converse(sink.converse)
            return dict(asdict(sink.result()), warnings=sink.outcome.warnings)

    def conversation(link: Any) -> None:
        serve(link, source, meter.update)

    result, _ends = hold(str(target), folder / "run", work, conversation, lambda: meter.mark, timeouts=PATIENT)
    return result
