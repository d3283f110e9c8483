# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check that every file says its licence, as REUSE (https://reuse.software) asks for."""

from __future__ import annotations

import sys
from pathlib import Path

from ansible_collections.fleet.imaging.tests.tools.checkout import checkout_files

SAYS_LICENCE = b"SPDX-License-Identifier: GPL-3.0-or-later"
# The licence itself, and what a program writes or what has no comments.
EXEMPT = ["LICENSE", "CHANGELOG.md", "changelogs/changelog.yaml", "*.json", "*.cast", "*.svg", "*.gif", "*.png"]


def main() -> int:
    """Return 0 when no file lacks the line in its first 1000 bytes."""
    files = [Path(name) for name in checkout_files(*EXEMPT)]
    lacking = [path for path in files if path.is_file() and SAYS_LICENCE not in path.read_bytes()[:1000]]
    for path in lacking:
        print(f"{path}: has no line '{SAYS_LICENCE.decode()}'")
    return bool(lacking) or not files


if __name__ == "__main__":
    sys.exit(main())
