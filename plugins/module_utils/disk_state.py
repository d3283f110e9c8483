# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The states in which a restore can leave a disk: the field ``disk_state`` of its result, also of a failed one."""

from __future__ import annotations

UNTOUCHED = "untouched"
"""Nothing was written."""

INCOMPLETE = "incomplete"
"""The disk was written in part; it does not boot."""

UNVERIFIED = "unverified"
"""Everything was written, but not verified by reading it back."""

VERIFIED = "verified"
"""The disk is equal to the image."""

UNKNOWN = "unknown"
"""The laptop did not report how the restore ended; the disk may not boot."""

DISK_STATES = (UNTOUCHED, INCOMPLETE, UNVERIFIED, VERIFIED, UNKNOWN)
