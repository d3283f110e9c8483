# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines of docs/by-hand.md, run as they stand there, with real netcats of both kinds on both ends."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.tests.bench.peers import controller_address, wait_for_ports
from ansible_collections.fleet.imaging.tests.integration.faults import wait_until
from ansible_collections.fleet.imaging.tests.integration.labs import isolated, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import (
    CAPTURE_ONE,
    ROOT,
    ansible_environment,
    playbook,
)
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan
from ansible_collections.fleet.imaging.tests.lab.laptop import Laptop

pytestmark = pytest.mark.skipif(
    not isolated(), reason="every laptop listens on the same port, and so needs a network of its own"
)

PORT = 19000
KINDS = ["openbsd", "traditional"]
BLOCK = re.compile(r"<!-- ([a-z-]+), (\w+), (\w+) -->\n```sh\n(.*?)\n```", re.DOTALL)
LINES = {(what, where, kind): text for what, where, kind, text in BLOCK.findall((ROOT / "docs/by-hand.md").read_text())}


@pytest.fixture(scope="module", name="lab")
def fixture_lab(tiny_plan: Plan) -> Iterator[Lab]:
    with running_lab(tiny_plan, laptops=1) as lab:
        yield lab


@pytest.fixture(scope="module", name="image")
def fixture_image(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = tmp_path_factory.mktemp("store") / "captured.img.zst"
    where = ("-l", "reference", "-e", f"imaging_store={image.parent}", "-e", "imaging_image=captured")
    outcome = playbook(lab, CAPTURE_ONE, *where)
    assert outcome.status == 0, outcome.stdout
    return image


class Hands:
    """Somebody who types the lines, on a laptop and here. A machine has one kind of netcat, by the name of nc."""

    def __init__(self, laptop: Laptop, image: Path, folder: Path) -> None:
        self._laptop = laptop
        self._folder = folder
        self._environment = {
            "LAPTOP": laptop.address,
            "CONTROLLER": controller_address(laptop),
            "DISK": laptop.disk,
            "IMAGE": str(image),
        }

    def start(self, what: str, where: str, kind: str) -> subprocess.Popen[str]:
        """Type a line."""
        program = shutil.which(f"nc.{kind}")
        assert program or kind == "any"
        path = self._folder / f"{kind}-nc"
        path.mkdir(exist_ok=True)
        if program and not (path / "nc").exists():
            (path / "nc").symlink_to(program)
        inside = (
            ["nsenter", "--target", str(self._laptop.pid), "--mount", "--net", "--pid", "--"]
            if where == "laptop"
            else []
        )
        return subprocess.Popen(
            [*inside, "bash", "-c", f"set -o pipefail; cd {self._folder}; {LINES[what, where, kind]}"],
            env=ansible_environment() | self._environment | {"PATH": f"{path}:{ansible_environment()['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, *processes: subprocess.Popen[str]) -> list[str]:
        """Wait until they are done, and return what they printed."""
        outputs = [process.communicate(timeout=120) for process in processes]
        assert [process.returncode for process in processes] == [0] * len(processes), outputs
        return [stdout + stderr for stdout, stderr in outputs]

    def wait_for_listener(self) -> None:
        """Return when the laptop listens."""
        listing = ["ss", "-Htln", f"sport = :{PORT}"]
        wait_until(lambda: self._laptop.run(listing).stdout, "the laptop listens", 20)

    def set(self, name: str, value: str) -> None:
        """Have a variable of the lines stand for something."""
        self._environment[name] = value


def test_every_line_is_tried() -> None:
    tried = {("restore", where, kind) for where in ("laptop", "controller") for kind in KINDS}
    tried |= {("capture", where, kind) for where in ("laptop", "controller") for kind in KINDS}
    tried |= {("restore-compressed", where, "openbsd") for where in ("laptop", "controller")}
    tried |= {("check", "laptop", "any"), ("check", "controller", "any")}
    tried |= {("capture", "import", "any"), ("export", "controller", "any")}
    assert set(LINES) == tried


@pytest.mark.parametrize(
    ("what", "here", "there"),
    [
        ("restore", "openbsd", "traditional"),
        ("restore", "traditional", "openbsd"),
        ("restore", "traditional", "traditional"),
        ("restore-compressed", "openbsd", "openbsd"),
    ],
)
def test_an_image_onto_a_machine_without_python(
    lab: Lab, image: Path, tmp_path: Path, what: str, here: str, there: str
) -> None:
    laptop = lab.targets[0]
    with open(laptop.disk, "r+b") as disk:
        disk.write(os.urandom(8 << 20))
    hands = Hands(laptop, image, tmp_path)
    receiver = hands.start(what, "laptop", there)
    hands.wait_for_listener()
    hands.finish(hands.start(what, "controller", here), receiver)
    disks = [f"{each.name}={each.disk}" for each in lab.laptops]
    subprocess.run([sys.executable, ROOT / "tests/tools/compare_disks.py", *disks], check=True)
    if (here, there) != (KINDS[0], KINDS[1]):
        return
    (ours,) = hands.finish(hands.start("check", "controller", "any"))
    count, digest = sorted(ours.split(), key=len)[-2:] if "-" in ours else ("", "")
    assert int(count) == laptop.size
    hands.set("BYTES", count)
    (theirs,) = hands.finish(hands.start("check", "laptop", "any"))
    assert theirs.split()[0] == digest
    # And the playbooks agree.
    verified = playbook(lab, "verify", "-e", f"imaging_store={image.parent}", "-e", "imaging_image=captured")
    assert verified.status == 0, verified.stdout


@pytest.mark.parametrize(("here", "there"), [("openbsd", "traditional"), ("traditional", "openbsd")])
def test_a_machine_without_python_into_the_store(lab: Lab, image: Path, tmp_path: Path, here: str, there: str) -> None:
    hands = Hands(lab.reference, image, tmp_path)
    receiver = hands.start("capture", "controller", here)
    wait_for_ports(range(PORT, PORT + 1))
    hands.finish(hands.start("capture", "laptop", there), receiver)
    assert os.path.getsize(tmp_path / "reference.img.zst") > 1 << 20
    store = tmp_path / "store"
    (tmp_path / "ansible.cfg").write_text("[defaults]\ncollections_path = .\n")
    for name, line in (("import", LINES["capture", "import", "any"]), ("export", LINES["export", "controller", "any"])):
        arguments = line.replace("ansible-playbook ", "", 1).replace(f"{name}.yml ", "", 1).split()
        done = subprocess.run(
            ["ansible-playbook", ROOT / "playbooks" / f"{name}.yml", *arguments, "-e", f"imaging_store={store}"],
            cwd=tmp_path,
            env=ansible_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    listed = playbook(lab, "images", "-e", f"imaging_store={store}", "-e", "imaging_verify_images=true")
    (imported,) = listed.of("image_info")[0].result["images"]
    captured = playbook(lab, "images", "-e", f"imaging_store={image.parent}").of("image_info")[0].result["images"]
    assert imported["root_digest"] == captured[0]["root_digest"]
    assert (tmp_path / "reference.qcow2").stat().st_size > 1 << 20
