# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk that somebody else holds, and the memory that it is read into."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.processes import lockers_of, openers_of, summarize
from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import DiskError, RawDisk, aligned_buffer
from ansible_collections.fleet.imaging.plugins.module_utils.reasons import LOCKED

LOCKING = """
import fcntl, sys, time
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_SH)
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(name="disk")
def fixture_disk(tmp_path: Path) -> Path:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4096))
    return disk


@contextmanager
def locked(disk: Path, seconds: float) -> Iterator[int]:
    """Have another process lock a disk for so long; its id."""
    command = ["python3", "-c", LOCKING, str(disk), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == "locked\n"
            yield process.pid
        finally:
            process.kill()


def test_a_lock_that_ends_is_waited_for(disk: Path) -> None:
    with locked(disk, 0.4), RawDisk(str(disk), patience=20) as held:
        assert held.size == 4096


def test_a_lock_that_does_not_end_is_an_error_that_names_the_process(disk: Path) -> None:
    with locked(disk, 60) as pid:
        before = time.monotonic()
        with pytest.raises(
            DiskError, match=rf"is locked by process {pid} \(python3[^)]*\), which did not release it within 0.3 s"
        ) as caught:
            RawDisk(str(disk), patience=0.3)
        assert caught.value.facts["codes"] == [LOCKED]
        assert time.monotonic() - before >= 0.3
        with RawDisk(str(disk), shared=True, patience=0):
            pass
        assert lockers_of(str(disk)) == openers_of(str(disk))
    assert not lockers_of(str(disk)) and not openers_of(str(disk))


def test_only_a_few_processes_are_named() -> None:
    assert summarize([]) == ""
    assert summarize(["a", "b"]) == "a, b"
    assert summarize(list("abcdefgh")) == "a, b, c, d, e, 3 more"


def test_what_is_not_there_has_no_holders(tmp_path: Path) -> None:
    assert lockers_of(str(tmp_path / "none")) == openers_of(str(tmp_path / "none")) == []


def test_a_buffer_for_reading_past_the_cache_stays_with_its_process() -> None:
    """open(2), NOTES: O_DIRECT and fork() go together with private memory only when the child does not get it."""
    buffer = aligned_buffer(4 << 20)
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    assert address % mmap.PAGESIZE == 0
    flags = _flags_of(address)
    assert "dc" in flags  # proc(5), VmFlags: do not copy on fork
    assert "hg" in flags or not Path("/sys/kernel/mm/transparent_hugepage").exists()


def _flags_of(address: int) -> list[str]:
    """The flags of the mapping in which an address of this process lies (proc(5), /proc/PID/smaps)."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, _, rest = line.partition(" ")
        if "-" in first:
            start, end = (int(number, 16) for number in first.split("-"))
            inside = start <= address < end
        elif inside and first == "VmFlags:":
            return rest.split()
    return []
