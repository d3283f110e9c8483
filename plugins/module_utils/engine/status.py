# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress reports: how far a transfer is and how its stages spent their time. The laptop sends them to the controller."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import asdict, dataclass
from typing import Any, Mapping

from ..errors import ImagingError
from .stopwatch import BUSY, CPU, WAIT

Stages = Mapping[str, Mapping[str, float]]

COMPARING, STREAMING, ZEROING, FLUSHING, VERIFYING = "comparing", "streaming", "zeroing", "flushing", "verifying"
CHECKING = "checking file systems"
HASHING = "hashing"
PHASES = (COMPARING, STREAMING, ZEROING, FLUSHING, VERIFYING, HASHING, CHECKING)
"""The phases of a transfer. ``done`` and ``total`` refer to the current phase; while file systems are checked, to the streaming before it."""

STAGE_NAME = re.compile(r"[a-z ]{1,32}")
MAX_STAGES = 32
MAX_NUMBER = 1 << 62
"""A bound for all numbers: more bytes than any disk has, and more seconds than any transfer takes."""


@dataclass(frozen=True)
class Status:
    """One report. Sizes are in bytes, times in seconds since the laptop began.

    ``data_done`` and ``data_total`` leave out chunks of zeros, which need no sending. ``scanned`` counts bytes that were read for comparison,
    ``written`` bytes that were written. ``pace`` is how many bytes a second arrive from another machine once they have begun to; 0: not known.
    """

    phase: str
    done: int
    total: int
    data_done: int
    data_total: int
    seconds: float
    stages: Stages
    workers: int = 1
    processors: int = 1
    cpu: float = 0.0
    scanned: int = 0
    written: int = 0
    level: int = 0
    pace: float = 0.0

    def pack(self) -> bytes:
        """Return the report as JSON, as it is sent."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def unpack(cls, payload: bytes) -> Status:
        """Read an untrusted report; raises ImagingError."""
        try:
            value = json.loads(payload)
            numbers = {name: _number(value[name]) for name in NUMBERS}
            reals = {name: _real(value[name]) for name in REALS}
            phase, stages = value["phase"], _stages(value["stages"])
            if phase not in PHASES:
                raise ValueError(phase)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ImagingError(f"The laptop reports its progress in a form that can't be read ({error!r}).") from error
        return cls(phase=phase, stages=stages, **numbers, **reals)  # type: ignore[arg-type]


NUMBERS = ("done", "total", "data_done", "data_total", "workers", "processors", "scanned", "written", "level")
REALS = ("seconds", "cpu", "pace")


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise ValueError(value)
    return value


def _real(value: Any) -> float:
    if (
        not isinstance(value, (int, float))
        or isinstance(value, bool)
        or not math.isfinite(value)
        or not 0 <= value <= MAX_NUMBER
    ):
        raise ValueError(value)
    return float(value)


def _stages(value: Any) -> Stages:
    if len(value) > MAX_STAGES:
        raise ValueError(f"{len(value)} stages")
    result: dict[str, dict[str, float]] = {}
    for name, times in value.items():
        if not STAGE_NAME.fullmatch(name):
            raise ValueError(name)
        result[name] = {kind: _real(times.get(kind, 0.0)) for kind in (BUSY, WAIT, CPU)}
    return result


class Reporter:
    """Decides when the next report is due."""

    EVERY = 1.0
    """Seconds between two reports."""

    def __init__(self) -> None:
        self._last = -math.inf

    def due(self) -> bool:
        """Return whether a report is due, and count it as made if so."""
        now = time.monotonic()
        if now - self._last < self.EVERY:
            return False
        self._last = now
        return True

    def again(self) -> None:
        """Make the next report due at once."""
        self._last = -math.inf
