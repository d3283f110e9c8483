# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person has to know and do when a run did not succeed for all laptops. Callers report events; nothing here depends on Ansible."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.fleet.imaging.plugins.module_utils.disk_state import (
    DISK_STATES,
    INCOMPLETE,
    UNKNOWN,
    UNTOUCHED,
    UNVERIFIED,
    VERIFIED,
)
from ansible_collections.fleet.imaging.plugins.module_utils.printable import printable

from .connection_errors import KNOWN_ERRORS, known_error

CAPTURE = "capture"
RESTORE = "restore"
COMPARE = "compare"
"""Kinds of transfers; a comparison writes nothing."""

SENTENCES = {
    INCOMPLETE: "These disks do not boot now",
    UNKNOWN: "These disks may not boot now, because their laptops did not report how the restore ended",
    UNVERIFIED: "These disks were written, but not verified",
    VERIFIED: "These disks were restored and verified, but the steps after that did not finish",
    UNTOUCHED: "Nothing was written to these disks",
}
"""What is said of the disks in each state, the worst first."""

SECRET = re.compile(r"(\w*(?:pass|secret|token)\w*[\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s,}]+)", re.IGNORECASE)


@dataclass
class _Laptop:
    kind: str = ""
    """Which kind of transfer was begun; empty when none was."""
    running: bool = False
    state: str = UNTOUCHED
    kept: bool = False
    failed: bool = False
    unreachable: bool = False
    said: str = ""


class Outcome:
    """How a run went for each laptop."""

    def __init__(self) -> None:
        self._laptops: dict[str, _Laptop] = {}

    def expect(self, names: Iterable[str]) -> None:
        """Learn which laptops take part in the play that begins."""
        before, self._laptops = self._laptops, {}
        for name in names:
            self._laptops[name] = before.get(name, _Laptop())

    def _laptop(self, name: str) -> _Laptop:
        return self._laptops.setdefault(name, _Laptop())

    def begin(self, name: str, kind: str) -> None:
        """A transfer begins on a laptop."""
        if kind != COMPARE:
            laptop = self._laptop(name)
            laptop.kind, laptop.running, laptop.state = kind, True, UNKNOWN

    def skip(self, name: str) -> None:
        """The transfer that had begun was none."""
        laptop = self._laptop(name)
        if laptop.running:
            self._laptops[name] = _Laptop()

    def end(self, name: str, kind: str, result: Mapping[str, Any]) -> None:
        """A transfer has ended."""
        laptop = self._laptop(name)
        if kind == COMPARE:
            if laptop.state == VERIFIED and result.get("verified") is False:
                laptop.state = UNVERIFIED
            return
        laptop.kind, laptop.running = kind, False
        # Ansible's own connection matters only until the link is made, before which nothing is written.
        state = result.get("disk_state", UNTOUCHED if result.get("unreachable") else UNKNOWN)
        laptop.state = str(state) if state in DISK_STATES else UNKNOWN
        kept = result.get("kept_bytes")
        laptop.kept = isinstance(kept, int) and kept > 0

    def fail(self, name: str, said: str, unreachable: bool = False) -> None:
        """A task failed on a laptop, or did not reach it."""
        laptop = self._laptop(name)
        laptop.failed, laptop.unreachable, laptop.said = True, unreachable, said

    def forgive(self, names: Iterable[str]) -> None:
        """Forget the failures of these laptops: a rescue section has handled them."""
        for name in names:
            self._laptop(name).failed = False

    def lines(self, interrupted: bool, argv: Sequence[str]) -> list[str]:
        """The last lines of the run; none when everything went well. ``argv``: how ansible-playbook was called."""
        concerned = {name: each for name, each in self._laptops.items() if each.failed or interrupted}
        lines = self._hints(concerned)
        kinds = {each.kind for each in self._laptops.values()}
        everybody = len(concerned) == len(self._laptops)
        again = command(argv, None if everybody else list(concerned))
        if not concerned:
            return []
        if RESTORE in kinds:
            for state, sentence in SENTENCES.items():
                named = [
                    printable(name) + (" (not reached)" if each.unreachable else "")
                    for name, each in concerned.items()
                    if each.state == state
                ]
                lines += [f"{sentence}: {', '.join(named)}."] if named else []
            lines.append(f"To go on with {'it' if len(concerned) == 1 else 'them'}: {again}")
        elif CAPTURE in kinds:
            kept = any(each.kept or each.running for each in concerned.values())
            lines.append(f"What was stored is kept. To go on from there: {again}" if kept else f"To try again: {again}")
        return lines

    @staticmethod
    def _hints(concerned: Mapping[str, _Laptop]) -> list[str]:
        """What is in the way on which laptops, where Ansible itself can't work with them."""
        lines = []
        met = {name: known_error(each.said) for name, each in concerned.items() if each.failed}
        for known in KNOWN_ERRORS:
            named = [printable(name) for name, each in met.items() if each == known]
            lines += [f"{', '.join(named)}: {known.advice}."] if named else []
        return lines


def command(argv: Sequence[str], limit: Sequence[str] | None) -> str:
    """The call of ansible-playbook for these laptops only (None: as it was), as one types it; passwords are left out."""
    words = ["ansible-playbook"]
    arguments = iter(argv[1:])
    for word in arguments:
        name, equals, _value = word.partition("=")
        if limit is not None and (name == "-l" or (len(name) > 4 and "--limit".startswith(name))):
            if not equals:
                next(arguments, None)
        elif limit is None or not re.match(r"-l[^-]", word):
            words.append(SECRET.sub(r"\1...", word))
    return printable(shlex.join([*words, *(["-l", ",".join(limit)] if limit is not None else [])]))
