# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 of anything of a transfer, on either side, at any moment: what is called verified is, and the next run clears up."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import FileSource, ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.run_file import CONNECTED
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import DEFAULTS
from ansible_collections.fleet.imaging.plugins.plugin_utils.verify_images import verify_image
from ansible_collections.fleet.imaging.tests.integration.faults import (
    SHORT,
    TIMEOUT,
    assert_holds,
    assert_nothing_remains,
    kill,
    remains,
    wait_until,
    workers,
)
from ansible_collections.fleet.imaging.tests.integration.labs import isolated, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import (
    CAPTURE_ONE,
    RESTORE_ONE,
    Outcome,
    RunningPlaybook,
    start_playbook,
)
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan
from ansible_collections.fleet.imaging.tests.lab.laptop import Laptop

pytestmark = pytest.mark.skipif(not isolated(), reason="processes are killed by name, in namespaces of their own")

SIZE = 128 << 20
KILLS = int(os.environ.get("KILLS", "4"))
"""How many runs are killed; more of them with KILLS=100, say."""

LATEST = 4.0
"""Seconds within which a run is killed, after its start or, every other time, after its data began to flow, which then takes about three."""

SECTOR = 512
MODULE, WRAPPER = "python3 [^ ]*AnsiballZ_image", "/async_wrapper"
VICTIMS = ("module", "wrapper", "worker", "playbook", "controller", "laptop", "all")


@pytest.fixture(scope="module", name="lab")
def fixture_lab() -> Iterator[Lab]:
    with running_lab(Plan(1, SIZE, SIZE, isolated(), link_mbit=50)) as lab:
        yield lab


def strike(laptop: Laptop, running: RunningPlaybook, victim: str) -> None:
    """Kill what there is of a victim."""
    doomed: list[int] = []
    try:
        if victim in ("worker", "controller", "all"):
            doomed += workers(running)
    except OSError:
        pass  # it has just ended
    if victim in ("playbook", "controller", "all"):
        doomed.append(running.process.pid)
    for process in doomed:
        try:
            kill(process)
        except ProcessLookupError:
            continue
    for patterns, victims in ((WRAPPER, ("wrapper", "laptop", "all")), (MODULE, ("module", "laptop", "all"))):
        if victim in victims:
            laptop.run(["pkill", "-9", "-f", patterns], check=False)


def has_link(laptop: Laptop) -> bool:
    """Whether a module on a laptop has its controller, or had it when it was killed and left its file."""
    script = f"grep -qsx 'state={CONNECTED}' /run/fleet.imaging/*.run"
    return laptop.run(["sh", "-c", script], check=False).returncode == 0


def await_moment(laptop: Laptop, running: RunningPlaybook, chance: random.Random) -> None:
    """Wait for a moment of a run, at random."""
    if chance.random() < 0.5:
        wait_until(lambda: has_link(laptop) or running.process.poll() is not None, "a link")
    time.sleep(chance.uniform(0.0, LATEST))


def spoil(laptop: Laptop, chance: random.Random) -> bytes:
    """Have a disk hold something else in some places, one of them its boot sector; returns what is in that now."""
    sector = chance.randbytes(SECTOR)
    with open(laptop.disk, "r+b") as disk:
        disk.write(sector)
        for _place in range(chance.randrange(1, 12)):
            disk.seek(chance.randrange(SIZE >> 20) << 20)
            disk.write(chance.randbytes(1 << 20))
        disk.flush()
        os.fsync(disk.fileno())
        disk.seek(0)
        return disk.read(SECTOR)


def holds(image: Path, laptop: Laptop) -> bool:
    """Whether a disk holds every byte that an image uses."""
    try:
        assert_holds(image, Path(laptop.disk))
    except AssertionError:
        return False
    return True


def succeeded(outcome: Outcome, action: str) -> bool:
    """Whether a run has said of its transfer that it did."""
    return any(found.status == "ok" for found in outcome.of(action))


def start(lab: Lab, laptop: Laptop, store: Path, restores: bool, name: str) -> RunningPlaybook:
    """Start a capture, or a restore of the sound image."""
    values = {
        "imaging_store": str(store),
        "imaging_image": name,
        "imaging_disk": laptop.disk,
        "imaging_link_timeout": TIMEOUT,
        "imaging_update": True,
    }
    play = RESTORE_ONE if restores else CAPTURE_ONE
    return start_playbook(lab, play, "-l", laptop.name, "-e", json.dumps(values), environment=SHORT)


def killed_restore(lab: Lab, store: Path, chance: random.Random, victim: str) -> str:
    """Returns what came of it. A disk that has its boot sector back must have everything else."""
    image, laptop = store / "sound.img.zst", lab.targets[0]
    with open(lab.reference.disk, "rb") as disk:
        wanted = disk.read(SECTOR)
    spoiled = spoil(laptop, chance)
    running = start(lab, laptop, store, True, "sound")
    await_moment(laptop, running, chance)
    strike(laptop, running, victim)
    outcome = running.wait()
    with open(laptop.disk, "rb", buffering=0) as disk:
        found = disk.read(SECTOR)
    whole = found == wanted
    assert whole or found in (spoiled, bytes(SECTOR))
    assert not whole or holds(image, laptop), "boots, and is not whole"
    said = succeeded(outcome, "image_restore")
    assert whole or not said, "called verified, and is not"
    return f"restore: {'verified' if said else 'whole, and nobody said so' if whole else 'untouched' if found == spoiled else 'incomplete'}"


def killed_capture(lab: Lab, store: Path, chance: random.Random, victim: str) -> str:
    """Returns what came of it. An image that has its name is whole."""
    image = store / "killed.img.zst"
    if chance.random() < 0.5:
        image.unlink(missing_ok=True)
    running = start(lab, lab.reference, store, False, "killed")
    await_moment(lab.reference, running, chance)
    strike(lab.reference, running, victim)
    outcome = running.wait()
    said = succeeded(outcome, "image_capture")
    assert image.exists() or not said
    if image.exists():
        verify_image(ImageReader(FileSource(str(image))))
        assert holds(image, lab.reference)
    return f"capture: {'done' if said else 'an image is there' if image.exists() else 'no image'}"


def left_by_ansible(laptop: Laptop) -> set[str]:
    """Folders that were left when Ansible was killed before it had put a file of ours into them, or while its own wrapper unpacked itself.

    Nobody can tell them from those of another run of Ansible, so they stay.
    """
    script = (
        'cd "$1/ansible" && for each in ansible-tmp-*; do ls -A "$each" | grep -qE "^(ticket|AnsiballZ_image_.*)$" || echo "$each"; done; '
        'cd "$1/tmp" && ls -d ansible_ansible.legacy.async_wrapper_payload_*'
    )
    listing = laptop.run(["sh", "-c", script, "sh", str(laptop.folder)], check=False).stdout
    return {f"{laptop.name}: {line}" for line in listing.splitlines()}


def test_whatever_is_killed_no_verdict_is_wrong_and_nothing_is_left(lab: Lab, tmp_path: Path) -> None:
    outcome = start(lab, lab.reference, tmp_path, False, "sound").wait()
    assert outcome.status == 0, outcome.stdout
    assert start(lab, lab.targets[0], tmp_path, True, "sound").wait().status == 0
    came: Counter[str] = Counter()
    for number in range(KILLS):
        chance = random.Random(number)
        victim = VICTIMS[number % len(VICTIMS)]
        kind = killed_restore if number // len(VICTIMS) % 2 == number % 2 else killed_capture
        came[kind(lab, tmp_path, chance, victim)] += 1
    print(dict(came))
    if any(remains(lab)):
        time.sleep(DEFAULTS.settled + 1)  # what was made a moment ago may still be somebody's
    for laptop, restores, name in ((lab.targets[0], True, "sound"), (lab.reference, False, "killed")):
        outcome = start(lab, laptop, tmp_path, restores, name).wait()
        assert outcome.status == 0, outcome.stdout
    assert holds(tmp_path / "sound.img.zst", lab.targets[0])
    assert holds(tmp_path / "killed.img.zst", lab.reference)
    assert_nothing_remains(lab, but=left_by_ansible)
    assert not [file.name for file in tmp_path.iterdir() if file.name.endswith(".partial")]
