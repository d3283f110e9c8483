# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of a store that can't be written to, or has too little room."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.plugin_utils import store_space
from ansible_collections.fleet.imaging.plugins.plugin_utils.store_space import (
    check_free_space,
    check_writable,
    mapped_bytes,
    nearest_folder,
    store_error,
)

GIB = 1 << 30


def source(mapped: int, whole: int = 0) -> dict[str, Any]:
    return {"partitions": [{"used": mapped, "method": "partclone"}, {"used": whole, "method": "whole"}]}


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EROFS, "mount it writable"),
        (errno.EACCES, "may not write there"),
        (errno.ENOSPC, "Make room"),
        (errno.EDQUOT, "quota"),
        (errno.ENAMETOOLONG, "can be written"),
    ],
)
def test_each_failure_has_its_own_way_out(number: int, said: str) -> None:
    text = str(store_error("/store", OSError(number, os.strerror(number))))
    assert said in text and os.strerror(number) in text and "imaging_store" in text
    assert ("Make room" in text) == (number == errno.ENOSPC)


def test_a_store_that_is_a_file_is_said_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ImagingError, match="is a file"):
        check_writable(str(tmp_path / "file/store"))


def test_a_store_that_does_not_exist_is_judged_by_where_it_will_be(tmp_path: Path) -> None:
    check_writable(str(tmp_path / "a/b"))
    assert nearest_folder(str(tmp_path / "a/b")) == str(tmp_path) and os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("free", "disk", "ratio", "there", "said"),
    [
        (10 * GIB, source(4 * GIB), None, 0, ""),
        (GIB, source(6 * GIB), None, 0, "may run out"),
        (GIB - 1, source(6 * GIB), None, 0, None),
        # What may be shared with the new image is no room that it needs.
        (GIB - 1, source(6 * GIB), None, 1, "may run out"),
        # A disk whose image is known to be much smaller.
        (GIB - 1, source(6 * GIB), 10.0, 0, ""),
        # Nobody knows how much of what is captured whole is zeros.
        (GIB, source(GIB, 100 * GIB), None, 0, "may run out"),
        (0, {"partitions": "odd"}, None, 0, ""),
        (0, {"partitions": [{"used": "1", "method": "partclone"}, 7, {"used": True}]}, None, 0, ""),
    ],
)
def test_only_what_can_not_fit_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    disk: dict[str, Any],
    ratio: float | None,
    there: int,
    said: str | None,
) -> None:
    monkeypatch.setattr(store_space, "free_bytes", lambda _path: free)
    if said is None:
        with pytest.raises(ImagingError, match=r"1024\.0 MiB free, and 6\.0 GiB.*about 3\.0 GiB.*Make room"):
            check_free_space("/store", disk, ratio, there)
    else:
        warning = check_free_space("/store", disk, ratio, there)
        assert said in warning and bool(said) == bool(warning)


def test_used_bytes_are_counted_as_the_laptop_says() -> None:
    assert mapped_bytes(source(5, 7)) == (5, 12)
