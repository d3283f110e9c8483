# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of what is on a disk before it is captured: each is a reason against copying the disk to other machines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Iterator, Tuple

from .filesystems.base import DIRTY, HIBERNATED
from .filesystems.registry import file_system
from .systems import KNOW_STATE, SYSPREP, System

WHOLE_DISK = 0
"""Number of the "partition" that a disk without a partition table is."""

SUSPENDED = "swsuspend"
"""blkid's name of a swap area in which a Linux is hibernated."""

LOOK_AGAIN = "install what is missing on this live system, or have the file system checked (chkdsk /f), and try again"


@dataclass(frozen=True)
class PartitionFacts:
    """One partition. Sizes in bytes; ``clean`` is None where nothing can tell.

    ``distrust`` is the kind of distrust (``disk.filesystems``) in its file system, empty when there is none, and ``reason`` says why.

    ``file_system_size`` and ``used`` are None where nothing can tell them: used of a file system that is not clean, or is never mapped.
    ``number`` is ``WHOLE_DISK`` of a disk that holds one thing, without a partition table.
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
    """Why a partition that may hold a Windows was not examined; empty if it was."""


@dataclass(frozen=True)
class Finding:
    """Something that speaks against a capture: its name, where, what it is, how that is known, and what to do."""

    name: str
    partition: int
    words: str
    evidence: str
    way_out: str

    def sentence(self) -> str:
        """All of it."""
        return f"{self.words} ({self.evidence}): {self.way_out}. [{self.name}]"


Found = Iterator[Tuple[str, str, str]]
"""What a check finds: what it is, how that is known, and what to do about it, if that is not what its file system or else the check says."""


@dataclass(frozen=True)
class ContentCheck:
    """A reason against a capture. ``name`` is what imaging_allow accepts it by, and ``way_out`` says what to do about it.

    ``find`` gets the facts of a partition, and what it is called in a sentence.
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
"""blkid's names of what holds a file system that only a key opens, and how it is decrypted."""


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
"""All of them, in the order in which their findings are said."""


def where_is(number: int) -> str:
    return f"partition {number}" if number != WHOLE_DISK else "the disk as a whole"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def findings_in(facts: PartitionFacts) -> Iterator[Finding]:
    """Everything in a partition that speaks against a capture."""
    content = f"({facts.content or 'unknown'}{f' {facts.label}' if facts.label else ''})"
    where = f"{capital(where_is(facts.number))} {content}"
    ways_out = file_system(facts.content).ways_out
    for check in CONTENT_CHECKS:
        for words, evidence, way_out in check.find(facts, where):
            way_out = way_out or ways_out.get(check.name, check.way_out)
            yield Finding(name=check.name, partition=facts.number, words=words, evidence=evidence, way_out=way_out)
