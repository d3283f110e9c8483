# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The content of a report as plain data, for its JSON file and its page."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...module_utils.quantities import number
from ...module_utils.sources.http_image import MIRROR, STORE
from ...module_utils.sources.peers import PEERS
from ...module_utils.stream.credentials import CONTROLLER
from ...plugin_utils import outcome
from ..outcome import CAPTURE, RESTORE, Failure, Laptop
from ..progress.bottlenecks import Bottlenecks
from ..run import Run
from ..times import rfc3339
from .chain import LAPTOPS, SOURCES
from .rates import samples
from .text import laptops

FORMAT = 1

GOOD = "good"
OPEN = "open"
BAD = "bad"

TEXTS = ("device", "image", "root_digest", "zstd")
NUMBERS = (
    "disk_size",
    "used_bytes",
    "sent_bytes",
    "stored_bytes",
    "passed_on",
    "bytes_written",
    "seconds",
    "write_seconds",
    "compare_seconds",
    "throughput",
    "used_chunks",
    "equal_chunks",
    "written_chunks",
    "kept_chunks",
    "differing_chunks",
)
ACTIONS = {
    "capture": "captured",
    "restore": "restored and verified",
    "verify": "equal to the image",
    "check": "equal already",
}
"""By the purpose of a run: what its laptops are if all went well."""


@dataclass(frozen=True)
class State:
    """How the report shows an outcome: how good it is, its words, and whether they also say if the disk was verified."""

    level: str
    words: str
    tells_verification: bool = False


STATES = {
    outcome.NOT_BEGUN: State(OPEN, "not begun"),
    outcome.INTERRUPTED: State(BAD, "broken off"),
    outcome.FAILED: State(BAD, "failed"),
    outcome.CAPTURED: State(GOOD, "captured"),
    outcome.UNCHANGED: State(GOOD, "unchanged since the last capture"),
    outcome.SHARED: State(GOOD, "shared its disk"),
    outcome.CAPTURABLE: State(OPEN, "can be captured"),
    outcome.RESTORED: State(GOOD, "restored and verified", True),
    outcome.NOT_VERIFIED: State(OPEN, "restored, not verified", True),
    outcome.EQUAL: State(GOOD, "equal"),
    outcome.ALREADY_EQUAL: State(GOOD, "equal already"),
    outcome.DIFFERENT: State(BAD, "not equal"),
    outcome.RESTORABLE: State(OPEN, "would be restored"),
}


def summary(run: Run) -> dict[str, Any]:
    """Return the report of a run."""
    entries = [_laptop(laptop, run) for laptop in run.laptops.values()]
    order = {BAD: 0, OPEN: 1, GOOD: 2}
    entries.sort(key=lambda entry: order[entry["level"]])
    images = _distinct(entry["image"] for entry in entries)
    purpose = _purpose(run)
    # The reference of a clone counts if something is wrong with it.
    counted = [entry for entry in entries if not (entry["gives"] and purpose == "restore" and entry["level"] == GOOD)]
    level, verdict = _verdict(purpose, counted, run)
    return {
        "format": FORMAT,
        "playbook": run.playbook,
        "purpose": purpose,
        "check_mode": run.check_mode,
        "image": ", ".join(images) or None,
        "level": level,
        "verdict": verdict,
        "interrupted": run.interrupted,
        "user": run.user,
        "controller": run.controller,
        "started": rfc3339(run.began),
        "ended": rfc3339(run.ended or run.began),
        "seconds": round(max(((run.ended or run.began) - run.began).total_seconds(), 0.0), 3),
        "failures": [_failure(failure) for failure in run.failures],
        "limits": _limits_of_all((entry["limits"], entry["seconds"] or 0.0) for entry in entries),
        "sources": _sources(entries),
        "versions": run.versions | _zstd(entries),
        "laptops": entries,
    }


def _purpose(run: Run) -> str:
    """Return the purpose of a run: capture, restore, check (a restore in check mode) or verify."""
    kinds = {transfer.kind for laptop in run.laptops.values() for transfer in laptop.transfers}
    if RESTORE in kinds:
        return "restore"
    if CAPTURE in kinds or (not kinds and run.playbook == "capture"):
        return "capture"
    if run.playbook == "verify":
        return "verify"
    return "check" if run.check_mode else "verify" if kinds else "restore"


def _laptop(laptop: Laptop, run: Run) -> dict[str, Any]:
    transfer = laptop.transfer
    state = _state(laptop, run)
    entry: dict[str, Any] = {
        "host": laptop.name,
        "level": state.level,
        "state": state.words,
        "state_tells_verification": state.tells_verification,
        "unreachable": laptop.unreachable,
        "gives": laptop.gives,
        "verified": laptop.verified,
        "changed": bool(transfer and transfer.result and transfer.result.get("changed") is True),
        "failures": [_failure(failure) for failure in laptop.failures],
        "warnings": laptop.warnings,
        "started": rfc3339(transfer.started) if transfer else None,
    }
    result = (transfer.result if transfer else None) or {}
    for name in ("model", "serial", "wwn"):
        entry[name] = _text(laptop.fact(name))
    for name in TEXTS:
        entry[name] = _text(transfer.value(name)) if transfer else None
    for name in NUMBERS:
        entry[name] = _number(result.get(name))
    if entry["throughput"] is None and entry["used_bytes"] is not None and entry["seconds"]:
        entry["throughput"] = int(entry["used_bytes"] / entry["seconds"])
    sizes = _mapping(result.get("frame_bytes"))
    entry["frame_bytes"] = {kind: _number(sizes.get(PEERS if kind == LAPTOPS else kind)) for kind in SOURCES}
    entry["taken_from"] = [
        {"host": each["host"], "bytes": _number(each.get("bytes"))} for each in _of_hosts(result.get("taken_from"), run)
    ]
    entry["left"] = [
        {"host": each["host"], "code": _text(each.get("code"))} for each in _of_hosts(result.get("left"), run)
    ]
    entry["slow"] = result.get("slow") is True
    entry["limits"] = limits(result.get("limits"))
    entry["limited_by"] = _limited_by(result.get("limited_by"))
    entry["timeline"] = [list(sample) for sample in samples(result.get("timeline"))]
    return entry


def _state(laptop: Laptop, run: Run) -> State:
    """Return how to show what became of a laptop."""
    found = laptop.outcome(run.check_mode)
    state = STATES[found.code]
    failed = "unreachable" if laptop.unreachable else "failed"
    if found.then_failed:
        return State(BAD, f"{state.words}, then {failed}", state.tells_verification)
    if found.code == outcome.FAILED:
        return State(BAD, failed)
    if found.code == outcome.NOT_BEGUN and (run.failures or run.interrupted):
        return State(BAD, state.words)
    return state


def _verdict(purpose: str, entries: list[dict[str, Any]], run: Run) -> tuple[str, str]:
    """Return the level and a sentence for readers who read nothing else."""
    if not entries:
        return BAD, "No laptop took part."
    count, good = len(entries), sum(entry["level"] == GOOD for entry in entries)
    words = ACTIONS[purpose]
    unchanged = sum(entry["level"] == GOOD and not entry["changed"] for entry in entries)
    if good == count and unchanged == count and purpose in ("restore", "capture"):
        words = "equal to the image already" if purpose == "restore" else "unchanged since the last capture"
        unchanged = 0
    if count == 1:
        text = f"{entries[0]['host']}: {entries[0]['state']}"
    elif good == count:
        text = f"All {count} laptops {words}"
    else:
        text = f"{good or 'None'} of {laptops(count)} {words}"
        text += "".join(f"; {others} {state}" for state, others in _others(entries))
    if count > 1 and unchanged and purpose == "restore":
        text += f" ({unchanged} of them {'was' if unchanged == 1 else 'were'} equal already)"
    if run.check_mode and purpose in ("check", "capture"):
        text += "; nothing was written (check mode)"
    level = (
        BAD if run.interrupted or any(entry["level"] == BAD for entry in entries) else GOOD if good == count else OPEN
    )
    return level, f"{'Interrupted. ' if run.interrupted else ''}{text}."


def _others(entries: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """Return the number of laptops in each state that is not good, in the order of the table."""
    counts: dict[str, int] = {}
    for entry in entries:
        if entry["level"] != GOOD:
            counts[entry["state"]] = counts.get(entry["state"], 0) + 1
    return list(counts.items())


def limits(value: Any) -> dict[str, float]:
    """Return the shares of time by limit, the largest first, with the sum 1; empty when there are none."""
    return _limits_of_all([(value, 1.0)])


def _limits_of_all(of_laptops: Iterable[tuple[Any, float]]) -> dict[str, float]:
    """Return the shares of the time of all laptops, from the shares and the seconds of each."""
    found = Bottlenecks()
    for value, seconds in of_laptops:
        for name, share in value.items() if isinstance(value, Mapping) else ():
            found.charge({str(name): 1.0}, (number(share) or 0.0) * seconds)
    return {name: round(share, 4) for name, share in found.shares().items()}


def _limited_by(value: Any) -> dict[str, Any] | None:
    if isinstance(value, Mapping) and value.get("limit"):
        texts = {name: _text(value.get(name)) for name in ("code", "advice", "explanation")}
        return {"limit": str(value["limit"]), "share": number(value.get("share")), **texts}
    return None


def _of_hosts(value: Any, run: Run) -> list[Mapping[str, Any]]:
    """Return the entries of a list that are about laptops of the run."""
    found = map(_mapping, value) if isinstance(value, list) else ()
    return [each for each in found if isinstance(each.get("host"), str) and each["host"] in run.laptops]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sources(entries: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what came from each kind of machine, in bytes and in images; images are None where there is no image file, or more than one."""
    writing = [entry for entry in entries if not entry["gives"]]
    files = {entry["stored_bytes"] for entry in writing if entry["stored_bytes"]}
    one = files.pop() if len(files) == 1 else None
    sums = {kind: sum(entry["frame_bytes"][kind] or 0 for entry in writing) for kind in (STORE, MIRROR, LAPTOPS)}
    # The controller knows itself what it sent, also to a laptop that failed.
    sums = {CONTROLLER: sum(entry["sent_bytes"] or 0 for entry in writing), **sums}
    return {kind: {"bytes": size, "images": round(size / one, 2) if one else None} for kind, size in sums.items()}


def _failure(failure: Failure) -> dict[str, Any]:
    return {"task": failure.task, "message": failure.message, "unreachable": failure.unreachable}


def _zstd(entries: list[dict[str, Any]]) -> dict[str, str]:
    names = _distinct(entry["zstd"] for entry in entries)
    return {"zstd (laptops)": ", ".join(names)} if names else {}


def _distinct(values: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(value for value in values if value))


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _number(value: Any) -> int | float | None:
    known = number(value)
    return None if known is None else value if isinstance(value, int) else known
