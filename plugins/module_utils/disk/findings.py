# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of a disk's content before a capture. Each finding is a reason against copying the disk to other machines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Iterator, Tuple

from .filesystems.base import DIRTY, HIBERNATED
from .filesystems.registry import file_system
from .systems import KNOW_STATE, SYSPREP, System

WHOLE_DISK = 0
"""The partition number that stands for a whole disk without a partition table."""

SUSPENDED = "swsuspend"
"""blkid's name for a swap area in which a Linux is hibernated."""

LOOK_AGAIN = "install what is missing on this live system, or have the file system checked (chkdsk /f), and try again"


@dataclass(frozen=True)
class PartitionFacts:
    """The facts about one partition. Sizes are in bytes; None is unknown.

    ``distrust`` is a code of ``disk.filesystems`` for why the map of free space is not trusted, and ``reason`` explains it; both may be empty.
    ``used`` is unknown for a file system that is not clean or can't be mapped. ``number`` is ``WHOLE_DISK`` for a disk without a partition table.
    """

    number: int
    node: str
    start: int
    size: int
    type: str
    content: str
    label: str
    clean: bool | None = None
    distrust: str = ""
    reason: str = ""
    file_system_size: int | None = None
    used: int | None = None
    systems: list[System] = field(default_factory=list)
    hibernated: str = ""
    """A file in which a Linux is hibernated."""
    unread: str = ""
    """The reason why a partition that may hold a Windows was not examined; empty if it was."""


@dataclass(frozen=True)
class Finding:
    """A reason against a capture: its name, its partition, a description, the evidence, and the way out."""

    name: str
    partition: int
    words: str
    evidence: str
    way_out: str

    def sentence(self) -> str:
        """Return all of it as a sentence."""
        return f"{self.words} ({self.evidence}): {self.way_out}. [{self.name}]"


Found = Iterator[Tuple[str, str, str]]
"""A description, the evidence, and the way out; an empty way out stands for that of the file system or of the check."""


@dataclass(frozen=True)
class ContentCheck:
    """A check of a partition. ``imaging_allow`` accepts its findings by ``name``; ``way_out`` says what to do about them.

    ``find`` gets the facts of a partition, and its name in a sentence.
    """

    name: str
    way_out: str
    find: Callable[[PartitionFacts, str], Found]


ENCRYPTED = {
    "BitLocker": "decrypt it (manage-bde -off C:) and wait until manage-bde -status says Fully Decrypted, as no other machine can unlock a "
    "copy by itself; to suspend its protection is not enough",
    "crypto_LUKS": "set the reference up without encryption, or decrypt it (cryptsetup reencrypt --decrypt), as all copies would have one "
    "key, and none that is bound to a TPM opens; encrypt each laptop after it was restored",
    "FileVault2": "decrypt it (fdesetup disable) and wait until fdesetup status says that it is off, as all copies would have one key",
}
"""blkid's names of encrypted volumes, and how to decrypt them."""


def _encrypted(facts: PartitionFacts, where: str) -> Found:
    if facts.content in ENCRYPTED:
        yield f"{where} is encrypted", f"the signature of {facts.content}", ENCRYPTED[facts.content]


def _hibernated(facts: PartitionFacts, where: str) -> Found:
    if facts.content == SUSPENDED:
        yield f"{where} holds a hibernated Linux", "the signature of its swap area says so", ""
    if facts.hibernated:
        evidence = f"the signature of its swap file {facts.hibernated} says so"
        yield f"{where} holds a hibernated Linux", evidence, ""
    if facts.distrust == HIBERNATED:
        yield f"{where} is hibernated", facts.reason, ""


def _dirty(facts: PartitionFacts, where: str) -> Found:
    if facts.distrust == DIRTY:
        yield f"{where} is not clean", facts.reason, ""


def _not_generalized(facts: PartitionFacts, where: str) -> Found:
    for system in facts.systems:
        if system.problem:
            yield f"{where}: {system.name} {system.problem}", ", ".join(system.evidence), ""


def _unknown_state(facts: PartitionFacts, where: str) -> Found:
    for system in facts.systems:
        if system.unread and not system.problem:
            words = f"{where}: whether {system.name} was generalized can't be determined"
            yield words, ", ".join(system.evidence), ""
    if facts.unread:
        words = f"{where} can't be examined, so whether a Windows in it was generalized is unknown"
        yield words, facts.unread, LOOK_AGAIN


UNKNOWN_STATE = ContentCheck("unknown_state", KNOW_STATE, _unknown_state)

CONTENT_CHECKS = (
    ContentCheck("encrypted", "", _encrypted),
    ContentCheck(
        "hibernated",
        "start it once more and shut it down (systemctl poweroff), or discard its hibernated session (mkswap -U UUID; blkid shows the UUID)",
        _hibernated,
    ),
    ContentCheck("dirty", "start it once more and shut it down, or have it checked (fsck)", _dirty),
    ContentCheck("not_generalized", SYSPREP, _not_generalized),
    UNKNOWN_STATE,
)
"""All checks, in the order in which their findings are shown."""


def where_is(number: int) -> str:
    return f"partition {number}" if number != WHOLE_DISK else "the disk as a whole"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def findings_in(facts: PartitionFacts) -> Iterator[Finding]:
    """Yield all findings in a partition."""
    content = f"({facts.content or 'unknown'}{f' {facts.label}' if facts.label else ''})"
    where = f"{capital(where_is(facts.number))} {content}"
    ways_out = file_system(facts.content).ways_out
    for check in CONTENT_CHECKS:
        for words, evidence, way_out in check.find(facts, where):
            way_out = way_out or ways_out.get(check.name, check.way_out)
            yield Finding(name=check.name, partition=facts.number, words=words, evidence=evidence, way_out=way_out)
