# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of this checkout."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def checkout_files(*left_out: str) -> list[str]:
    """Return the paths that git tracks, or would if they were added, except those below the ones left out."""
    command = ["git", "-c", f"safe.directory={Path.cwd()}", "ls-files", "-z", "-co", "--exclude-standard", "--", "."]
    listed = subprocess.run(
        [*command, *(f":!{path}" for path in left_out)], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return sorted(name for name in set(listed.split("\0")) if name and os.path.lexists(name))
