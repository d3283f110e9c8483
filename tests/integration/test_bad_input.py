# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong at night: each ends with a clear error, a non-zero exit, and nothing written or left half-made."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import FileSource, ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.run_file import unpack_run
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer_action import OVERRIDES
from ansible_collections.fleet.imaging.tests.integration.faults import SHORT, kill, published, wait_until, workers
from ansible_collections.fleet.imaging.tests.integration.labs import DISK_SIZE, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import (
    CAPTURE_ONE,
    RESTORE_ONE,
    ROOT,
    YES,
    Outcome,
    playbook,
    start_playbook,
    stored,
)
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan
from ansible_collections.fleet.imaging.tests.lab.laptop import Laptop

REFUSED = ROOT / "tests/integration/plays/refused.yml"
Refused = dict[tuple[str, str], str]


@pytest.fixture(scope="module", name="lab")
def fixture_lab(plan: Plan) -> Iterator[Lab]:
    with running_lab(plan) as lab:
        yield lab


@pytest.fixture(scope="module", name="image")
def fixture_image(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound image of the reference, in a store of its own."""
    shelf = tmp_path_factory.mktemp("store")
    where = ("-l", "reference", "-e", f"imaging_store={shelf}", "-e", "imaging_image=sound")
    outcome = playbook(lab, CAPTURE_ONE, *where)
    assert outcome.status == 0, outcome.stdout
    return shelf / "sound.img.zst"


@contextmanager
def untouched(*laptops: Laptop) -> Iterator[None]:
    """Not one byte of these laptops' disks changes."""
    before = [digest_of(laptop) for laptop in laptops]
    yield
    assert [digest_of(laptop) for laptop in laptops] == before


def digest_of(laptop: Laptop) -> str:
    with open(laptop.backing_file, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def restore_one(
    lab: Lab, host: str, store: Path, name: str = "sound", *more: str, environment: Mapping[str, str] | None = None
) -> Outcome:
    arguments = ("-l", host, "-e", f"imaging_store={store}", "-e", f"imaging_image={name}", *more)
    return playbook(lab, RESTORE_ONE, *arguments, environment=environment)


def capture_one(lab: Lab, host: str, store: Path, name: str = "new", *more: str) -> Outcome:
    return playbook(lab, CAPTURE_ONE, "-l", host, "-e", f"imaging_store={store}", "-e", f"imaging_image={name}", *more)


def message(outcome: Outcome, host: str) -> str:
    assert outcome.status != 0, outcome.stdout
    return outcome.failures()[host]


def damage(content: bytearray, reader: ImageReader, part: str) -> bytes:
    row = reader.index.row_at(len(reader.index) // 2)
    positions = {
        "header": 60,
        "record": row.record_offset + 20,
        "index": len(content) - 9 - 8 * (2 + 2 * reader.header.geometry.chunk_count) - 500,
        "seek table": len(content) - 60,
        "lengths": 4,
    }
    if part == "cut":
        return bytes(content[: len(content) // 2])
    if part == "version":
        return bytes(content.replace(b'"version": 1,', b'"version": 2,', 1))
    content[positions[part]] ^= 0x40
    return bytes(content)


BAD_NAMES = ["../escaped", "a/b", "..", "", "/etc/passwd"]
DAMAGED = ["cut", "version", "header", "lengths", "index", "seek table"]
"""Parts of an image whose damage is noticed when it is opened."""


@pytest.fixture(scope="module", name="refused")
def fixture_refused(lab: Lab, image: Path, tmp_path_factory: pytest.TempPathFactory) -> Refused:
    """What is said of transfers that are refused, by the kind of transfer and the case. All are asked for in one play, and change nothing."""
    damaged = tmp_path_factory.mktemp("damaged")
    for part in DAMAGED:
        content = damage(bytearray(image.read_bytes()), ImageReader(FileSource(str(image))), part)
        (damaged / f"{part.replace(' ', '-')}.img.zst").write_bytes(content)
    reference, laptop = lab.reference, lab.targets[0]
    usual = {"store": str(image.parent), "image": "sound", "link_timeout": 120}
    capture = {**usual, "device": reference.disk, "image": "new"}
    restore = {**usual, "device": laptop.disk}
    captures: dict[str, dict[str, object]] = {
        **{name: {**capture, "image": name} for name in BAD_NAMES},
        "exists": {**capture, "image": "sound"},
        "not there": {**capture, "device": "/dev/nothing"},
    }
    restores: dict[str, dict[str, object]] = {
        **{name: {**restore, "image": name} for name in BAD_NAMES},
        **{part: {**restore, "store": str(damaged), "image": part.replace(" ", "-")} for part in DAMAGED},
        "absent": {**restore, "image": "absent"},
        "another disk": {**restore, "expect": {"size": 4096}},
        "another image": {**restore, "root_digest": "0" * 64},
    }
    onto_reference: dict[str, dict[str, object]] = {"own disk": {**usual, "device": reference.disk}}
    if reference.isolated:
        node = make_node(reference, "p3")
        captures["partition"] = {**capture, "device": node}
        onto_reference["partition"] = {**usual, "device": node}
    variables = {
        "captures": {reference.name: list(captures.values())},
        "restores": {laptop.name: list(restores.values()), reference.name: list(onto_reference.values())},
    }
    before = image.read_bytes()
    with untouched(reference, laptop):
        outcome = playbook(lab, REFUSED, "-l", f"{reference.name},{laptop.name}", "-e", json.dumps(variables))
    assert outcome.status == 0, outcome.stdout
    assert (stored(image.parent), image.read_bytes()) == ([image.name], before)
    found = {}
    for action, host, cases in (
        ("image_capture", reference.name, captures),
        ("image_restore", laptop.name, restores),
        ("image_restore", reference.name, onto_reference),
    ):
        for case, result in zip(cases, outcome.of(action, host), strict=True):
            assert result.status == "ignored", (action, case, result)
            found[action, case] = str(result.result["msg"])
    return found


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_leads_elsewhere_is_refused(refused: Refused, name: str) -> None:
    for action in ("image_capture", "image_restore"):
        assert "not a valid image name" in refused[action, name]


def test_an_unknown_image_is_refused_with_the_list_of_what_there_is(lab: Lab, image: Path, refused: Refused) -> None:
    outcome = playbook(lab, "restore", "-e", f"imaging_store={image.parent}", "-e", "imaging_image=absent", *YES)
    assert outcome.status != 0
    assert "There are: sound" in str(outcome.failures())
    assert "There are: sound" in refused["image_restore", "absent"]


def test_an_image_that_exists_is_not_captured_over(refused: Refused) -> None:
    assert "imaging_remove_images: [sound]" in refused["image_capture", "exists"]


def test_no_image_named_and_several_there_is_a_refusal_that_lists_them(lab: Lab, image: Path, store: Path) -> None:
    for name in ("one", "two"):
        shutil.copy(image, store / f"{name}.img.zst")
    outcome = playbook(lab, "restore", "-e", f"imaging_store={store}", *YES)
    assert outcome.status != 0
    assert "one" in str(outcome.failures()) and "two" in str(outcome.failures())
    empty = playbook(lab, "restore", "-e", f"imaging_store={store / 'empty'}", *YES)
    assert empty.status != 0


@pytest.mark.parametrize("part", DAMAGED)
def test_a_damaged_image_is_refused_before_anything_is_written(refused: Refused, part: str) -> None:
    text = refused["image_restore", part]
    assert f"{part.replace(' ', '-')}.img.zst" in text
    assert "format version 2" in text or part != "version"


def test_a_damaged_record_is_named_and_the_disk_does_not_boot(lab: Lab, image: Path, store: Path) -> None:
    reader = ImageReader(FileSource(str(image)))
    (store / "bad.img.zst").write_bytes(damage(bytearray(image.read_bytes()), reader, "record"))
    assert restore_one(lab, "lab-01", image.parent).status == 0
    text = message(restore_one(lab, "lab-01", store, "bad", "-e", "imaging_rewrite=true"), "lab-01")
    assert "bad.img.zst" in text and "chunk" in text
    with open(lab.targets[0].backing_file, "rb") as disk:
        assert not any(disk.read(1024))
        disk.seek(-512, os.SEEK_END)
        assert not any(disk.read())


def test_an_image_larger_than_the_disk_is_refused(plan: Plan, image: Path) -> None:
    with running_lab(plan, laptops=1, disk_size=DISK_SIZE // 2) as small:
        outcome = playbook(small, "restore", "-e", f"imaging_store={image.parent}", "-e", "imaging_image=sound", *YES)
        assert outcome.status != 0
        with untouched(small.targets[0]):
            text = message(restore_one(small, "lab-01", image.parent), "lab-01")
        assert f"{DISK_SIZE // 2 - (1 << 20) + 33 * 512} bytes too few" in text and "Nothing was written" in text


def test_the_references_own_disk_is_never_restored(lab: Lab, image: Path, refused: Refused) -> None:
    assert "captured from" in refused["image_restore", "own disk"]
    outcome = playbook(lab, "restore", "-l", "reference", "-e", f"imaging_store={image.parent}", *YES)
    assert not outcome.of("image_restore")


def make_node(laptop: Laptop, suffix: str) -> str:
    """The partition of a laptop's disk, made known to the kernel if it is not."""
    laptop.run(["partx", "--update", laptop.disk], check=False)
    return laptop.disk + suffix


def test_a_mounted_disk_is_refused_and_the_mount_named(lab: Lab, image: Path, store: Path) -> None:
    if not lab.reference.isolated:
        pytest.skip("only root can mount")
    reference = lab.reference
    node = make_node(reference, "p3")
    folder = reference.folder / "mounted"
    folder.mkdir()
    reference.run(["mount", "-o", "ro,noload", node, folder])
    try:
        text = message(
            playbook(lab, "capture", "-e", f"imaging_store={store}", "-e", "imaging_release=false"), "reference-01"
        )
        assert str(folder) in text
        with untouched(reference):
            text = message(restore_one(lab, "reference-01", image.parent), "reference-01")
        assert str(folder) in text
    finally:
        reference.run(["umount", folder])
    assert stored(store) == []


def test_active_swap_is_refused(lab: Lab, store: Path) -> None:
    if not lab.reference.isolated:
        pytest.skip("only root can use swap")
    node = make_node(lab.reference, "p4")
    if lab.reference.run(["swapon", node], check=False).returncode:
        pytest.skip("this kernel does not swap to a loop device")
    try:
        text = message(capture_one(lab, "reference-01", store), "reference-01")
        assert "swap" in text
    finally:
        lab.reference.run(["swapoff", node])
    assert stored(store) == []


def test_a_partition_is_not_a_disk(lab: Lab, refused: Refused) -> None:
    if not lab.reference.isolated:
        pytest.skip("without loop devices there are no partitions")
    for action in ("image_capture", "image_restore"):
        assert "partition" in refused[action, "partition"] and lab.reference.disk in refused[action, "partition"]


def test_a_disk_that_is_not_there_is_said(refused: Refused) -> None:
    assert "/dev/nothing" in refused["image_capture", "not there"]


def test_without_a_named_disk_virtual_ones_are_not_chosen(lab: Lab, store: Path) -> None:
    outcome = playbook(lab, "capture", "-e", f"imaging_store={store}", "-e", "imaging_disk=")
    text = message(outcome, "reference-01")
    assert lab.reference.disk in text or not lab.reference.isolated
    assert stored(store) == []


def test_a_disk_that_changed_since_it_was_selected_is_refused(refused: Refused) -> None:
    assert "not the disk that was selected" in refused["image_restore", "another disk"]


def test_an_image_that_was_replaced_since_it_was_chosen_is_refused(refused: Refused) -> None:
    text = refused["image_restore", "another image"]
    assert "was replaced since it was chosen" in text and "Run again" in text


def hide_zstd(laptop: Laptop) -> Path:
    """An interpreter on the laptop for which there is no zstd of any kind: the one thing here that is not the real thing."""
    folder = laptop.folder / "hidden"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "import ctypes, sys\n"
        "for name in ('zstandard', 'backports.zstd', 'compression.zstd'):\n"
        "    sys.modules[name] = None\n"
        "class CDLL(ctypes.CDLL):\n"
        "    def __init__(self, name, *more, **others):\n"
        "        if name and 'zstd' in name:\n"
        "            raise OSError(name)\n"
        "        super().__init__(name, *more, **others)\n"
        "ctypes.CDLL = CDLL\n"
    )
    python = folder / "python3"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec /usr/bin/python3 "$@"\n')
    python.chmod(0o755)
    return python


def test_a_laptop_without_zstd_says_what_to_install(lab: Lab, image: Path, store: Path) -> None:
    for laptop, run, where in ((lab.reference, capture_one, store), (lab.targets[0], restore_one, image.parent)):
        python = hide_zstd(laptop)
        with untouched(laptop):
            outcome = run(
                lab,
                laptop.name,
                where,
                "new" if run is capture_one else "sound",
                "-e",
                f"ansible_python_interpreter={python}",
            )
        assert "libzstd1" in message(outcome, laptop.name)
    assert stored(store) == []


@contextmanager
def tools_without(laptop: Laptop, *missing: str) -> Iterator[None]:
    """Hide programs of an isolated laptop by an empty file in their place, in its own mount namespace."""
    blank = laptop.folder / "blank"
    blank.write_bytes(b"")
    paths = [path for name in missing if (path := shutil.which(name, path="/usr/bin:/usr/sbin:/bin:/sbin"))]
    for path in paths:
        laptop.run(["mount", "--bind", blank, path])
    try:
        yield
    finally:
        for path in paths:
            laptop.run(["umount", path])


@pytest.mark.parametrize("tool", ["sfdisk", "lsblk"])
def test_a_missing_tool_is_an_error_and_never_no_partitions(lab: Lab, store: Path, tool: str) -> None:
    if not lab.reference.isolated:
        pytest.skip("an ordinary user can't hide a program")
    with tools_without(lab.reference, tool):
        text = message(capture_one(lab, "reference-01", store), "reference-01")
    assert tool in text
    assert stored(store) == []


def test_without_partclone_everything_is_captured_and_it_is_said_once(lab: Lab, store: Path) -> None:
    if not lab.reference.isolated:
        pytest.skip("an ordinary user can't hide a program")
    with tools_without(lab.reference, "partclone.extfs", "partclone.ntfs", "partclone.fat"):
        outcome = playbook(lab, "capture", "-e", f"imaging_store={store}", "-e", "imaging_image=whole")
    assert outcome.status == 0, outcome.stdout
    (captured,) = outcome.of("image_capture")
    assert {part["method"] for part in captured.result["partitions"]} == {"whole", "swap header"}
    said = outcome.stdout + outcome.stderr
    assert said.count("imaging_install") == 1


def test_a_port_in_use_is_named_with_the_way_out(lab: Lab, image: Path) -> None:
    laptop = lab.targets[0]
    code = "import socket, time; s = socket.create_server(('', 19123)); time.sleep(60)"
    squatter = laptop.run(["sh", "-c", f'python3 -c "{code}" >/dev/null 2>&1 & echo $!']).stdout.strip()
    try:
        wait_until(lambda: laptop.run(["ss", "-Htln", "sport = :19123"]).stdout, "the squatter listens", 20)
        with untouched(laptop):
            text = message(restore_one(lab, "lab-01", image.parent, "sound", "-e", "imaging_port=19123"), "lab-01")
        assert "19123 is in use" in text and "imaging_port" in text
    finally:
        laptop.run(["kill", squatter], check=False)


def test_a_module_left_over_from_a_killed_run_makes_way(lab: Lab, image: Path) -> None:
    """The whole of ansible-playbook is killed while data flows; running it again finishes the job."""
    running = start_playbook(
        lab, "restore", "-l", "lab-02", "-e", f"imaging_store={image.parent}", "-e", "imaging_image=sound", *YES
    )
    laptop = lab.targets[1]
    deadline = time.monotonic() + 60
    while "connected" not in published(laptop) and time.monotonic() < deadline:
        time.sleep(0.05)
    # The workers as well, and first: they hear when the main process dies, and would end the module.
    kill(*workers(running))
    kill(running.process.pid)
    assert "pid" in published(laptop)
    running.wait()
    again = playbook(
        lab, "restore", "-l", "lab-02", "-e", f"imaging_store={image.parent}", "-e", "imaging_image=sound", *YES
    )
    assert again.status == 0, again.stdout
    assert again.of("image_restore", "lab-02")[0].result["verified"] is True
    assert published(laptop) == ""


def test_two_controllers_at_one_laptop_do_not_meet(lab: Lab, image: Path) -> None:
    rewrite = ("-e", "imaging_rewrite=true")  # or it is done at once, when the disk is equal already
    arguments = ("-l", "lab-01", "-e", f"imaging_store={image.parent}", "-e", "imaging_image=sound", *YES, *rewrite)
    first = start_playbook(lab, "restore", *arguments)
    deadline = time.monotonic() + 60
    while "connected" not in published(lab.targets[0]) and time.monotonic() < deadline:
        time.sleep(0.05)
    busy = str(unpack_run(published(lab.targets[0])).pid)
    lab.targets[0].run(["kill", "-STOP", busy])
    second = restore_one(lab, "lab-01", image.parent)
    lab.targets[0].run(["kill", "-CONT", busy])
    assert "another controller is at work" in message(second, "lab-01")
    assert first.wait().status == 0


def test_strangers_at_the_port_disturb_nothing(lab: Lab, image: Path) -> None:
    laptop = lab.targets[0]
    if not laptop.isolated:
        pytest.skip("the port must be known before the module listens")
    stop = threading.Event()
    strangers: list[socket.socket] = []

    def bother() -> None:
        while not stop.is_set() and len(strangers) < 1000:
            try:
                stranger = socket.create_connection((laptop.address, 19000), timeout=1)
                strangers.append(stranger)
                stranger.sendall((b"", os.urandom(200), b"FLIMLNK1")[len(strangers) % 3])
            except OSError:
                time.sleep(0.01)  # nobody listens yet

    thread = threading.Thread(target=bother)
    thread.start()
    try:
        outcome = restore_one(lab, "lab-01", image.parent, "sound", "-e", "imaging_rewrite=true")
    finally:
        stop.set()
        thread.join(30)
        for stranger in strangers:
            stranger.close()
    assert outcome.status == 0, outcome.stdout
    assert outcome.of("image_restore")[0].result["verified"] is True
    assert len(strangers) > 80  # more than are kept waiting at a time


def test_a_port_that_a_firewall_drops_is_said_as_such(lab: Lab, image: Path) -> None:
    laptop = lab.targets[0]
    if not laptop.isolated:
        pytest.skip("an ordinary user has no firewall")
    rule = ["INPUT", "-p", "tcp", "--dport", "19000", "-j", "DROP"]
    tool = next((name for name in ("iptables-legacy", "iptables") if shutil.which(name, path="/usr/sbin:/sbin")), None)
    if tool is None or laptop.run([tool, "-A", *rule], check=False).returncode:
        pytest.skip("this machine has no iptables that can drop packets")
    try:
        with untouched(laptop):
            outcome = restore_one(lab, "lab-01", image.parent, environment=SHORT)
            text = message(outcome, "lab-01")
        assert f"{OVERRIDES} is set, which is for tests" in " ".join((outcome.stdout + outcome.stderr).split())
        assert "firewall" in text and "19000" in text
        assert published(laptop) == ""
    finally:
        laptop.run([tool, "-D", *rule])


def test_an_unreachable_laptop_does_not_hold_the_others_up(lab: Lab, image: Path) -> None:
    laptop = lab.targets[1]
    laptop.power_off()
    try:
        outcome = playbook(
            lab,
            "restore",
            "-e",
            f"imaging_store={image.parent}",
            "-e",
            "imaging_image=sound",
            "-e",
            "ansible_timeout=5",
            *YES,
        )
        assert outcome.status != 0
        assert set(outcome.failures()) == {"lab-02"}
        assert outcome.of("image_restore", "lab-01")[0].result["verified"] is True
        assert "lab-02" in outcome.stdout
    finally:
        laptop.power_on()
        laptop.wait_until_up()


def test_without_a_terminal_nothing_is_erased_unless_said_so(lab: Lab, image: Path) -> None:
    with untouched(*lab.targets):
        outcome = playbook(lab, "restore", "-e", f"imaging_store={image.parent}", "-e", "imaging_image=sound")
    assert outcome.status != 0
    assert "imaging_confirm_erase: true" in str(outcome.failures())
    assert not outcome.of("image_restore")


class Meddler:
    """A man in the middle: everything of a laptop goes through him, and what comes to the port of transfers he may change."""

    PORT = 19077
    """Of transfers. Not the usual one, on which other tests listen on this machine."""

    def __init__(self, laptop: Laptop, flips: int) -> None:
        self.laptop = laptop
        self.flips = flips
        self.flipped = 0
        self._servers = [socket.create_server(("127.0.0.77", 0)), socket.create_server(("127.0.0.77", self.PORT))]
        for server, port in zip(self._servers, (laptop.port, self.PORT), strict=True):
            threading.Thread(target=self._serve, args=(server, port), daemon=True).start()

    @property
    def ssh_port(self) -> int:
        return int(self._servers[0].getsockname()[1])

    def _serve(self, server: socket.socket, port: int) -> None:
        with suppress(OSError):
            while True:
                near, _address = server.accept()
                far = socket.create_connection((self.laptop.address, port))
                for source, target, meddle in ((near, far, port == self.PORT), (far, near, False)):
                    threading.Thread(target=self._pump, args=(source, target, meddle), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, meddle: bool) -> None:
        position = 0
        with suppress(OSError):
            while data := bytearray(source.recv(65536)):
                if meddle and position > 5_000_000 and self.flipped < self.flips:
                    data[len(data) // 2] ^= 1
                    self.flipped += 1
                    position = 0
                target.sendall(data)
                position += len(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for server in self._servers:
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()


@pytest.mark.parametrize("flips", [3, 10**9])
def test_a_man_in_the_middle_can_not_change_what_is_written(lab: Lab, image: Path, tmp_path: Path, flips: int) -> None:
    laptop = lab.targets[0]
    if not laptop.isolated:
        pytest.skip("the meddler needs the laptop's port at an address of its own")
    # Without rewriting, a disk that is equal already is sent nothing.
    everything = ("-e", "imaging_rewrite=true", "-e", f"imaging_port={Meddler.PORT}")
    meddler = Meddler(laptop, flips)
    inventory = yaml.safe_load(lab.inventory.read_text())
    host = inventory["lab_laptops"]["hosts"]["lab-01"]
    host["ansible_host"], host["ansible_port"] = "127.0.0.77", meddler.ssh_port
    # He holds the laptop's host key as little as anybody else: SSH would notice him, so for SSH he only passes on.
    host["ansible_ssh_common_args"] = "-F /dev/null -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    inventory["all"]["vars"]["ansible_control_path_dir"] = str(tmp_path / "cp")
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    meddled = SimpleNamespace(inventory=tmp_path / "hosts.yml")
    try:
        outcome = restore_one(meddled, "lab-01", image.parent, "sound", *everything, "-e", "imaging_link_timeout=10")  # type: ignore[arg-type]
    finally:
        meddler.close()
    assert meddler.flipped >= 3
    if flips == 3:
        assert outcome.status == 0, outcome.stdout
        result = outcome.of("image_restore")[0].result
        assert result["verified"] is True
        assert 2 <= result["links_made"] <= 4
    elif outcome.status == 0:
        # He changed something each time, and each time a little more got through before he did.
        assert outcome.of("image_restore")[0].result["verified"] is True
    else:
        assert "link" in message(outcome, "lab-01") or "damaged" in message(outcome, "lab-01")


def test_a_disk_that_is_described_and_not_there_is_said_with_all_disks(lab: Lab, store: Path) -> None:
    description = '{"imaging_disk": {"model": "no such*", "min_size": "1GB"}}'
    text = message(playbook(lab, "capture", "-e", f"imaging_store={store}", "-e", description), "reference-01")
    assert "the description in imaging_disk" in text and "AGAINST IT" in text
    wrong = '{"imaging_disk": {"max_size": "much"}}'
    assert "200GB" in message(playbook(lab, "capture", "-e", f"imaging_store={store}", "-e", wrong), "reference-01")
    assert stored(store) == []
