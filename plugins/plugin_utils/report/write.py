# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes reports into the folder reports/ of an image store."""

import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...module_utils.private_files import open_new
from .page import render

FOLDER = "reports"


def write_report(store: str, report: Mapping[str, Any], when: datetime) -> str:
    """Write a report as a page and as JSON, readable by this user only; returns the page's path. Raises OSError, also without a store."""
    contents = {".json": json.dumps(report, indent=1, allow_nan=False) + "\n", ".html": render(report)}
    folder = os.path.join(store, FOLDER)
    Path(folder).mkdir(mode=0o700, exist_ok=True)
    stem, descriptor = _reserve(folder, _stem(report["playbook"], when))
    open_files = {".json": descriptor}
    try:
        for suffix, content in contents.items():
            if suffix not in open_files:
                open_files[suffix] = open_new(_partial(folder, stem, suffix))
            with open(open_files[suffix], "w", encoding="utf-8", closefd=False) as file:
                file.write(content)
            os.fsync(open_files[suffix])
        for suffix in (".html", ".json"):  # that of the reservation last
            os.rename(_partial(folder, stem, suffix), os.path.join(folder, stem + suffix))
    finally:
        for suffix, opened in open_files.items():
            os.close(opened)
            Path(_partial(folder, stem, suffix)).unlink(missing_ok=True)  # unless it has its name
    return os.path.join(folder, f"{stem}.html")


def _stem(playbook: str, when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%dT%H-%M-%SZ}-{re.sub('[^A-Za-z0-9_.-]', '_', playbook)[:100] or 'run'}"


def _partial(folder: str, stem: str, suffix: str) -> str:
    return os.path.join(folder, f".{stem}{suffix}.partial")


def _reserve(folder: str, stem: str) -> tuple[str, int]:
    """Return an unused name for a report, and the open file that reserves it."""
    count = 1
    while True:
        name = stem if count == 1 else f"{stem}-{count}"
        try:
            descriptor = open_new(_partial(folder, name, ".json"))
        except FileExistsError:
            count += 1
            continue
        if not any(os.path.lexists(os.path.join(folder, name + suffix)) for suffix in (".html", ".json")):
            return name, descriptor
        os.close(descriptor)
        os.unlink(_partial(folder, name, ".json"))
        count += 1
