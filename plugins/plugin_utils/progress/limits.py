# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the bottleneck of a transfer from the busy times of its stages, and gives advice.

All stages run at the same time, so the stage that is always busy is the limit, and the others wait for it. A stage that sends or receives
is also busy while the other end takes or gives nothing. So the network is only the limit when both ends wait for it without using a processor.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...module_utils.engine.level import COSTS, FIRST
from ...module_utils.engine.status import Stages
from ...module_utils.engine.stopwatch import BUSY, CPU
from ...module_utils.quantities import rate

SOURCE_READ = "source disk read"
LAPTOP_CPU = "laptop cpu (compression)"
NETWORK = "network"
OTHER_LAPTOPS = "other laptops"
MIRROR = "mirror"
STORE_SERVER = "store server"
CONTROLLER_CPU = "controller cpu"
STORE = "store disk"
TARGET_WRITE = "target disk write"
TARGET_READ = "target disk read"
TARGET_CPU = "target cpu (decompression, hashing)"
"""Names by which limits are known to people, in results and in progress; ``LIMITS`` has the rest of each."""

GIGABIT = 117_000_000
"""Maximum TCP payload of gigabit Ethernet, in bytes a second.

Source: 1448 of the 1538 bytes that a full frame takes on the wire (1500 and preamble, header, check sum and gap; 20 of IP, 20 and 12 of TCP).
"""

NEARLY = 0.9
"""Minimum share of that rate at which a gigabit link counts as full."""

ENOUGH = 0.5
"""Minimum share of an interval that must be accounted for before a limit is named."""

HIGHEST = max(COSTS)
"""The highest level that the automatic one chooses, where the memory suffices."""


@dataclass(frozen=True)
class Usage:
    """The time used so far, in seconds, by the stages and processors of the laptop and of the controller."""

    seconds: float
    """Elapsed seconds of the laptop's clock."""
    stages: Stages
    cpu: float
    controller_seconds: float
    controller_stages: Stages
    controller_cpu: float
    workers: int = 1
    processors: int = 1


Shares = Mapping[str, float]
"""For each possible limit, the share of the time for which it was busy, from 0 to 1."""


def shares(before: Usage, after: Usage, capturing: bool) -> dict[str, float]:
    """Return how busy each possible limit was between two moments."""
    seconds = max(after.seconds - before.seconds, 1e-9)
    there = max(after.controller_seconds - before.controller_seconds, 1e-9)

    def spent(kind: str, *stages: str) -> float:
        return sum(_of(after.stages, stage, kind) - _of(before.stages, stage, kind) for stage in stages)

    def spent_there(kind: str, stage: str) -> float:
        return _of(after.controller_stages, stage, kind) - _of(before.controller_stages, stage, kind)

    def blocked(stage: str) -> float:
        return (spent(BUSY, stage) - spent(CPU, stage)) / seconds

    def blocked_there(stage: str) -> float:
        return (spent_there(BUSY, stage) - spent_there(CPU, stage)) / there

    processors = (after.cpu - before.cpu) / (seconds * after.processors)
    busy = {CONTROLLER_CPU: (after.controller_cpu - before.controller_cpu) / there}
    if capturing:
        busy[SOURCE_READ] = spent(BUSY, "read") / seconds
        busy[LAPTOP_CPU] = max(spent(CPU, "hash", "compress") / (seconds * after.workers), processors)
        busy[NETWORK] = min(blocked("send"), blocked_there("receive"))
        busy[STORE] = blocked_there("store")
    else:
        busy[STORE] = blocked_there("read store")
        busy[NETWORK] = min(blocked_there("send"), blocked("receive"))
        busy[OTHER_LAPTOPS] = blocked("fetch from peers")
        busy[MIRROR] = blocked("fetch from mirror")
        busy[STORE_SERVER] = blocked("fetch from store")
        busy[TARGET_CPU] = max(spent(CPU, "hash", "decompress", "compare") / (seconds * after.workers), processors)
        busy[TARGET_WRITE] = spent(BUSY, "write", "zero", "flush") / seconds
        busy[TARGET_READ] = spent(BUSY, "read") / seconds
    return {name: max(0.0, min(1.0, busy[name])) for name in LIMITS if name in busy}


def is_conclusive(before: Usage, after: Usage) -> bool:
    """Return whether the limit between two moments can be determined.

    The stages of the laptop must account for the time, which they do when a piece of work is finished. The elapsed time must also be similar at
    both ends: reports that had to wait behind data arrive all at once.
    """
    seconds, there = after.seconds - before.seconds, after.controller_seconds - before.controller_seconds
    charged = sum(sum(times.values()) for times in after.stages.values()) - sum(
        sum(times.values()) for times in before.stages.values()
    )
    return seconds > 0 and min(charged, there) >= ENOUGH * seconds and seconds >= ENOUGH * there


def _of(stages: Stages, stage: str, kind: str) -> float:
    times = stages.get(stage)
    return times.get(kind, 0.0) if times else 0.0


def limiting(busy: Shares) -> str:
    """Return the busiest of them: the limit."""
    return max(busy, key=lambda name: busy[name])


@dataclass(frozen=True)
class AdviceContext:
    """The facts that advice depends on besides the shares. Rates are in bytes a second; ``level`` is 0 without compression."""

    wire_rate: float = 0.0
    disk_rate: float = 0.0
    level: int = 0
    automatic: bool = False
    workers: int = 1
    laptops: int = 1
    over_ssh: bool = False


@dataclass(frozen=True)
class Limit:
    """One limit: its code in results, its name where there is little room, and what can be said of it."""

    code: str
    short: str
    explain: Callable[[Shares, AdviceContext], str]


def advise(limit: str, busy: Shares, context: AdviceContext) -> dict[str, object]:
    """What limited a transfer, how busy that was, and a sentence that says what would help, as a result has it."""
    share, explanation = busy[limit], LIMITS[limit].explain(busy, context)
    return {
        "code": LIMITS[limit].code,
        "limit": limit,
        "share": round(share, 3),
        "advice": f"{limit} {share:.0%} busy: {explanation}",
        "explanation": explanation,
    }


def _network(busy: Shares, context: AdviceContext) -> str:
    shared = f", and {context.laptops} laptops share this machine's" if context.laptops > 1 else ""
    if context.wire_rate >= NEARLY * GIGABIT:
        said = f"{rate(context.wire_rate)} fill a gigabit link, which gives at most {rate(GIGABIT)}{shared}; only a faster one would help"
    else:
        said = f"{rate(context.wire_rate)} came through; a wired gigabit link gives at most {rate(GIGABIT)}{shared}"
    idle = 1 - busy.get(LAPTOP_CPU, 1.0)
    if context.level and not context.automatic and context.level < HIGHEST and idle >= 0.25:
        said += (
            f"; a higher zstd level (imaging_compression_level: auto) would trade idle CPU ({idle:.0%}) for fewer bytes"
        )
    return said


def _other_laptops(busy: Shares, context: AdviceContext) -> str:
    return "the laptop before this one, or the network to it, gives no more; the nearest one before it that has another limit says what limits both"


def _mirror(busy: Shares, context: AdviceContext) -> str:
    return "the mirror, or the network to it, gives no more; a faster one would help, or none (imaging_mirror) where the controller is faster"


def _store_server(busy: Shares, context: AdviceContext) -> str:
    if TARGET_WRITE not in busy:
        return "most of the time went into the upload after the capture; the server of the image store, or the network to it, takes no more"
    return "the server of the image store, or the network to it, gives no more; a copy of the store near the laptops (imaging_mirror) would help"


def _source_read(busy: Shares, context: AdviceContext) -> str:
    return f"it gives {rate(context.disk_rate)}; neither a faster network nor another zstd level would make this capture faster"


def _laptop_cpu(busy: Shares, context: AdviceContext) -> str:
    threads = _threads(context.workers)
    if context.automatic and context.level > FIRST:
        return f"{threads}, now at level {context.level}, which follows what the link takes"
    if context.level > FIRST:
        return (
            f"{threads} at level {context.level}; a lower one, or imaging_compression_level: auto, takes less of them"
        )
    return f"{threads} at level {context.level}; a lower one (imaging_compression_level) takes less of them, and makes the image larger"


def _threads(workers: int) -> str:
    return "1 thread" if workers == 1 else f"{workers} threads"


def _controller_cpu(busy: Shares, context: AdviceContext) -> str:
    if context.over_ssh:
        return "one processor of this machine encrypts all of it, for TLS and for SSH; imaging_transport: tcp leaves out SSH"
    return "one processor of this machine has all it can do for this laptop; fewer laptops at once (-f), or a faster machine, would help"


def _store(busy: Shares, context: AdviceContext) -> str:
    return f"{rate(context.wire_rate)} is what the image store's disk gave or took; imaging_store on a faster disk would help"


def _target_write(busy: Shares, context: AdviceContext) -> str:
    return (
        f"it takes {rate(context.disk_rate)}; neither a faster network nor a faster processor would make this laptop faster, "
        "but more laptops at once would lose nothing by it"
    )


def _target_read(busy: Shares, context: AdviceContext) -> str:
    return f"comparing goes at the {rate(context.disk_rate)} that the disk gives"


def _target_cpu(busy: Shares, context: AdviceContext) -> str:
    return (
        f"{_threads(context.workers)} of the laptop for decompressing and checking; only a faster processor would help"
    )


LIMITS = {
    SOURCE_READ: Limit("source_read", "source disk read", _source_read),
    LAPTOP_CPU: Limit("laptop_cpu", "laptop cpu", _laptop_cpu),
    NETWORK: Limit("network", "network", _network),
    OTHER_LAPTOPS: Limit("other_laptops", "other laptops", _other_laptops),
    MIRROR: Limit("mirror", "mirror", _mirror),
    STORE_SERVER: Limit("store_server", "store server", _store_server),
    CONTROLLER_CPU: Limit("controller_cpu", "controller cpu", _controller_cpu),
    STORE: Limit("store", "store disk", _store),
    TARGET_WRITE: Limit("target_write", "target disk write", _target_write),
    TARGET_READ: Limit("target_read", "target disk read", _target_read),
    TARGET_CPU: Limit("target_cpu", "target cpu", _target_cpu),
}
"""All limits, by their names."""
