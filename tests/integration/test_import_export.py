# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that people have already: imported, restored, and exported for other programs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats.exporting import export_image, format_of
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats.importing import (
    Imported,
    ImportRequest,
    import_file,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.run_command import run_command
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.folder import FolderStore
from ansible_collections.fleet.imaging.plugins.plugin_utils.verify_images import verify_image
from ansible_collections.fleet.imaging.tests.integration.faults import kill, wait_until, workers
from ansible_collections.fleet.imaging.tests.integration.labs import isolated, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import (
    CAPTURE_ONE,
    ROOT,
    YES,
    Outcome,
    playbook,
    start_playbook,
    stored,
)
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan
from ansible_collections.fleet.imaging.tests.lab.reference_disk import MIN_SIZE

pytestmark = pytest.mark.skipif(
    not isolated(), reason="the used maps of an image's partitions need loop devices, and so root"
)

LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
"""The type of a partition for a Linux file system."""

PACKERS = {
    "gz": ["pigz", "-1", "-c"],
    "bz2": ["lbzip2", "-1", "-c"],
    "xz": ["xz", "-0", "-T0", "-c"],
    "zst": ["zstd", "-q", "-1", "-c"],
}


@pytest.fixture(scope="module", name="lab")
def fixture_lab(tiny_plan: Plan) -> Iterator[Lab]:
    """A lab with small disks, because each is packed and unpacked by all kinds of programs."""
    with running_lab(tiny_plan) as lab:
        yield lab


@pytest.fixture(scope="module", name="raw")
def fixture_raw(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The reference's whole disk, as dd reads it."""
    path = tmp_path_factory.mktemp("dd") / "My Reference.img"
    subprocess.run(["dd", f"if={lab.reference.disk}", f"of={path}", "bs=4M", "conv=sparse", "status=none"], check=True)
    os.truncate(path, lab.reference.size)
    yield path
    shutil.rmtree(path.parent)


@pytest.fixture(scope="module", name="captured")
def fixture_captured(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image that capturing the same disk gives."""
    image = tmp_path_factory.mktemp("store") / "captured.img.zst"
    where = ("-l", "reference", "-e", f"imaging_store={image.parent}", "-e", "imaging_image=captured")
    outcome = playbook(lab, CAPTURE_ONE, *where)
    assert outcome.status == 0, outcome.stdout
    return image


def pack(raw: Path, ending: str) -> Path:
    path = raw.with_name(f"{raw.name}.{ending}")
    if not path.exists():
        with open(raw, "rb") as source, open(path, "wb") as target:
            subprocess.run(PACKERS[ending], stdin=source, stdout=target, check=True)
    return path


def run_import(lab: Lab, source: Path, store: Path, *more: str) -> Outcome:
    return playbook(lab, "import", "-e", f"imaging_source='{source}'", "-e", f"imaging_store={store}", *more)


def result_of(outcome: Outcome, action: str = "image_import") -> dict[str, Any]:
    assert outcome.status == 0, outcome.stdout + outcome.stderr
    (found,) = outcome.of(action)
    return found.result


def imported(source: Path, store: Path, **more: Any) -> Imported:
    """Import a file without Ansible, as the action plugin does."""
    done = import_file(run_command, FolderStore(str(store)), ImportRequest(str(source), **more))
    assert done is not None
    return done


def verified_digest(store: Path, name: str) -> bytes:
    """The root digest of a stored image, of which every record is checked."""
    image = FolderStore(str(store)).open(name)
    verify_image(image)
    return image.root_digest


def test_the_playbook_hands_over_what_was_asked_for(lab: Lab, raw: Path, store: Path, tmp_path: Path) -> None:
    source = tmp_path / "a disk.img.zst"
    shutil.copy(pack(raw, "zst"), source)
    checked = run_import(lab, source, store, "--check")
    assert (result_of(checked)["changed"], stored(store)) == (True, [])
    first = result_of(run_import(lab, source, store))
    assert (first["image"], first["format"], first["changed"]) == ("a-disk", "zstd", True)
    assert [partition["method"] for partition in first["partitions"]] == ["partclone"] * 3 + ["swap header"]
    other = ("-e", "imaging_image=a-disk", "-e", "imaging_used_map=all")
    refused = run_import(lab, raw, store, *other)
    assert "imaging_update" in refused.failures()["localhost"]
    updated = result_of(run_import(lab, raw, store, *other, "-e", "imaging_update=true"))
    assert (updated["changed"], updated["used_bytes"]) == (True, MIN_SIZE)
    assert stored(store) == ["a-disk.img.zst"]


@pytest.mark.parametrize("ending", ["", *PACKERS])
def test_an_import_is_what_a_capture_would_be(
    raw: Path, captured: Path, store: Path, tmp_path: Path, ending: str
) -> None:
    """Used maps and all. The file's name says nothing."""
    source = tmp_path / "nameless"
    os.link(pack(raw, ending) if ending else raw, source)
    done = imported(source, store, name="imported")
    assert done.changed and done.used
    assert [partition.method for partition in done.used.partitions] == ["partclone"] * 3 + ["swap header"]
    assert done.image.root_digest == verified_digest(captured.parent, "captured")
    assert done.image.root_digest == verified_digest(store, "imported")
    assert stored(store) == ["imported.img.zst"]


def test_importing_again_changes_nothing(raw: Path, store: Path, tmp_path: Path) -> None:
    source = tmp_path / "a disk.img.zst"
    shutil.copy(pack(raw, "zst"), source)
    request = ImportRequest(str(source))
    first = imported(source, store)
    assert (first.name, first.format, first.changed) == ("a-disk", "zstd", True)
    before = os.stat(store / "a-disk.img.zst")
    for check_only in (False, True):
        again = import_file(run_command, FolderStore(str(store)), request, check_only)
        assert again and (again.changed, again.image.root_digest) == (False, first.image.root_digest)
    assert os.stat(store / "a-disk.img.zst") == before
    # Another disk under that name, which begins as this one does.
    with open(source, "ab") as file:
        subprocess.run(["zstd", "-q", "-c"], input=bytes(1 << 20), stdout=file, check=True)
    with pytest.raises(ImagingError, match="imaging_update"):
        imported(source, store)
    assert os.stat(store / "a-disk.img.zst") == before
    updated = imported(source, store, update=True)
    assert (updated.changed, updated.image.header.geometry.disk_size) == (True, MIN_SIZE + (1 << 20))
    assert stored(store) == ["a-disk.img.zst"]


def test_everything_but_zeros(raw: Path, store: Path) -> None:
    done = imported(raw, store, used_map="all")
    assert done.image.index.used_bytes() == raw.stat().st_size
    plain = subprocess.run(["sh", "-c", f"zstd -dc '{store}/My-Reference.img.zst' | cmp - '{raw}'"], check=False)
    assert plain.returncode == 0


def test_what_is_damaged_is_not_imported(raw: Path, store: Path, tmp_path: Path) -> None:
    source = tmp_path / "disk.img"
    whole = pack(raw, "gz").read_bytes()
    for bad in (whole[:-1000], whole + b"garbage"):
        source.write_bytes(bad)
        with pytest.raises(ImagingError, match=re.escape(str(source))):
            imported(source, store)
        assert stored(store) == []


def test_a_size_that_no_disk_has(store: Path, tmp_path: Path) -> None:
    (tmp_path / "short.img").write_bytes(b"x" * 1000)
    with pytest.raises(ImagingError, match=r"1000 bytes.*multiple of 512"):
        imported(tmp_path / "short.img", store)
    assert stored(store) == []


def test_a_file_that_is_in_use_is_not_imported(raw: Path, store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mounted.img"
    subprocess.run(["cp", "--sparse=always", raw, copy], check=True)
    table = subprocess.run(["sfdisk", "-d", copy], capture_output=True, text=True, check=True).stdout
    start = next(int(line.split("start=")[1].split(",")[0]) for line in table.splitlines() if LINUX in line)
    folder = tmp_path / "mount"
    folder.mkdir()
    subprocess.run(["mount", "-o", f"loop,offset={start * 512}", copy, folder], check=True)
    try:
        with pytest.raises(ImagingError, match="can't be imported"):
            imported(copy, store)
    finally:
        subprocess.run(["umount", folder], check=True)
    assert stored(store) == []


def test_restoring_a_file(lab: Lab, raw: Path, store: Path) -> None:
    """It is imported once; then it is an image like any other."""
    source = pack(raw, "gz")
    where = ("-e", f"imaging_image='{source}'", "-e", f"imaging_store={store}")
    checked = playbook(lab, "restore", *where, "--check")
    assert "import.yml" in next(iter(checked.failures().values()))
    assert stored(store) == []
    outcome = playbook(lab, "restore", *where, *YES)
    assert outcome.status == 0, outcome.stdout
    for laptop in lab.targets:
        (restored,) = outcome.of("image_restore", laptop.name)
        assert (restored.result["verified"], restored.result["image"]) == (True, "My-Reference")
    disks = [f"{laptop.name}={laptop.disk}" for laptop in lab.laptops]
    subprocess.run([sys.executable, ROOT / "tests/tools/compare_disks.py", *disks], check=True)
    one = (*where, "-l", lab.targets[0].name)
    again = playbook(lab, "restore", *one, *YES)
    assert again.status == 0, again.stdout
    (imported,) = again.of("image_import")
    assert imported.result["changed"] is False
    assert again.of("image_restore")[0].result["changed"] is False
    assert playbook(lab, "verify", *one).status == 0


def test_an_image_of_ours_is_taken_over(captured: Path, store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "from-elsewhere.img.zst"
    shutil.copy(captured, copy)
    done = imported(copy, store)
    assert (done.name, done.format, done.changed) == ("from-elsewhere", "fleet.imaging", True)
    assert (store / "from-elsewhere.img.zst").read_bytes() == captured.read_bytes()
    assert imported(copy, store).changed is False
    # Where it lies already it is left alone.
    assert imported(store / "from-elsewhere.img.zst", store).changed is False
    damaged = bytearray(captured.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    copy.write_bytes(damaged)
    with pytest.raises(ImagingError):
        imported(copy, store, name="damaged")
    assert stored(store) == ["from-elsewhere.img.zst"]


@pytest.mark.parametrize("victim", ["SIGINT", "SIGKILL"])
def test_an_import_that_is_killed(lab: Lab, raw: Path, store: Path, victim: str) -> None:
    source = pack(raw, "bz2")
    arguments = ("-e", f"imaging_source='{source}'", "-e", f"imaging_store={store}")
    running = start_playbook(lab, "import", *arguments)
    unpacked = store / "My-Reference.img.zst.partial.disk"
    wait_until(lambda: unpacked.exists() and unpacked.stat().st_size > 1 << 20, "unpacking has begun", 60)
    if victim == "SIGINT":
        os.killpg(running.process.pid, signal.SIGINT)
    else:
        victims = (*workers(running), running.process.pid)
        kill(*victims)
    running.wait(60)
    if victim == "SIGKILL":
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in victims), "all have ended", 20)
    else:
        wait_until(lambda: stored(store) == [], "nothing is left", 20)
    assert imported(source, store).changed is True
    assert stored(store) == ["My-Reference.img.zst"]


@pytest.mark.parametrize("ending", ["img", "img.gz", "qcow2"])
def test_an_export_is_the_whole_disk(captured: Path, tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"disk.{ending}"
    image = FolderStore(str(captured.parent)).open("captured")
    assert export_image(image, str(target), format_of(str(target))) == target.stat().st_size
    assert os.listdir(tmp_path) == [target.name]
    plain = tmp_path / "plain"
    with open(plain, "wb") as file:
        subprocess.run(["zstd", "-q", "-dc", captured], stdout=file, check=True)
    if ending == "qcow2":
        subprocess.run(["qemu-img", "check", "-q", target], check=True)
        subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", plain, target], check=True)
    else:
        program = {"img": "cat", "img.gz": "gzip -dc"}[ending]
        subprocess.run(["sh", "-c", f"{program} {target} | cmp - {plain}"], check=True)
    if ending == "img":
        assert target.stat().st_blocks * 512 < 0.6 * MIN_SIZE
        # Back again, it is the same image.
        assert imported(target, tmp_path / "store").image.root_digest == image.root_digest
    with pytest.raises(ImagingError, match=f"{target} exists already"):
        export_image(image, str(target), format_of(str(target)))


def test_the_playbook_exports_by_the_name_of_the_file(lab: Lab, captured: Path, tmp_path: Path) -> None:
    target = tmp_path / "disk.qcow2"
    where = ("-e", f"imaging_store={captured.parent}", "-e", f"imaging_export={target}")
    checked = playbook(lab, "export", *where, "--check")
    assert (result_of(checked, "image_export")["changed"], os.listdir(tmp_path)) == (True, [])
    result = result_of(playbook(lab, "export", *where), "image_export")
    assert (result["changed"], result["size"]) == (True, target.stat().st_size)
    assert result["root_digest"] == verified_digest(captured.parent, "captured").hex()
    subprocess.run(["qemu-img", "check", "-q", target], check=True)
    refused = playbook(lab, "export", *where)
    assert f"{target} exists already" in refused.failures()["localhost"]


def test_an_export_of_a_damaged_image(captured: Path, store: Path, tmp_path: Path) -> None:
    damaged = bytearray(captured.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (store / "damaged.img.zst").write_bytes(damaged)
    for ending in ("img", "img.gz"):
        target = f"{tmp_path / 'out'}.{ending}"
        with pytest.raises(ImagingError, match="damaged"):
            export_image(FolderStore(str(store)).open("damaged"), target, format_of(target))
    assert sorted(os.listdir(tmp_path)) == ["store"]


def test_an_export_without_a_name_that_says_what(lab: Lab, captured: Path, tmp_path: Path) -> None:
    where = ("-e", f"imaging_store={captured.parent}")
    assert "imaging_export=" in playbook(lab, "export", *where).failures()["localhost"]
    unclear = playbook(lab, "export", *where, "-e", f"imaging_export={tmp_path / 'disk.vdi'}")
    assert ".qcow2" in unclear.failures()["localhost"]
