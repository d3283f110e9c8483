# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last lines of a run that failed or was interrupted: the state of each disk, and the command to continue."""

import re
import shlex
from collections.abc import Sequence

from ..module_utils.disk_state import INCOMPLETE, UNKNOWN, UNTOUCHED, UNVERIFIED, VERIFIED
from ..module_utils.printable import printable
from .connection_errors import KNOWN_ERRORS, known_error
from .outcome import CAPTURE, RESTORE, Laptop
from .run import Run

SENTENCES = {
    INCOMPLETE: "These disks do not boot now",
    UNKNOWN: "These disks may not boot now, because their laptops did not report how the restore ended",
    UNVERIFIED: "These disks were written, but not verified",
    VERIFIED: "These disks were restored and verified, but the steps after that did not finish",
    UNTOUCHED: "Nothing was written to these disks",
}
"""The sentence about the disks in each state, the worst first."""

SECRET = re.compile(r"(\w*(?:pass|secret|token)\w*[\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s,}]+)", re.IGNORECASE)


def closing_lines(run: Run, interrupted: bool, argv: Sequence[str]) -> list[str]:
    """Return the last lines; none if all went well. ``argv``: how ansible-playbook was called."""
    concerned = [laptop for laptop in run.playing if laptop.failures or run.failures or interrupted]
    if not concerned:
        return []
    lines = _advice(concerned)
    transfers = [transfer for laptop in run.playing for transfer in laptop.transfers]
    kinds = {transfer.kind for transfer in transfers}
    everybody = len(concerned) == len(run.playing)
    again = command(argv, None if everybody else [laptop.name for laptop in concerned])
    if RESTORE in kinds:
        for state, sentence in SENTENCES.items():
            named = [
                printable(laptop.name) + (" (not reached)" if laptop.unreachable else "")
                for laptop in concerned
                if laptop.disk_state == state
            ]
            lines += [f"{sentence}: {', '.join(named)}."] if named else []
        lines.append(f"To go on with {'it' if len(concerned) == 1 else 'them'}: {again}")
    elif CAPTURE in kinds and not run.check_mode:
        kept = any(transfer.has_kept for transfer in transfers)
        lines.append(f"What was stored is kept. To go on from there: {again}" if kept else f"To try again: {again}")
    return lines


def _advice(laptops: Sequence[Laptop]) -> list[str]:
    """Return what to do about laptops that Ansible itself can't work with."""
    lines = []
    errors = {laptop.name: known_error(laptop.failures[-1].message) for laptop in laptops if laptop.failures}
    for known in KNOWN_ERRORS:
        named = [printable(name) for name, each in errors.items() if each == known]
        lines += [f"{', '.join(named)}: {known.advice}."] if named else []
    return lines


def command(argv: Sequence[str], limit: Sequence[str] | None) -> str:
    """Return the call of ansible-playbook for these laptops only (None: as it was), as one types it, without passwords."""
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
