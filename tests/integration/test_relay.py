# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The laptops of a run pass the image on to one another, or the disk of a reference, without an image."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.image.index import Row
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import FileSource, ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import ZERO, unpack_ranges
from ansible_collections.fleet.imaging.tests.integration.faults import (
    SHORT,
    TIMEOUT,
    assert_holds,
    assert_nothing_remains,
    boot_live_medium_again,
    held,
    kill_on_laptop,
    looks_bootable,
    make_foreign,
    put_image,
    result_of,
    wait_for_share,
    wait_until,
    where,
    written,
)
from ansible_collections.fleet.imaging.tests.integration.labs import isolated, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import (
    YES,
    Outcome,
    newest,
    playbook,
    start_playbook,
)
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan
from ansible_collections.fleet.imaging.tests.lab.network import PREFIX_LENGTH
from ansible_collections.fleet.imaging.tests.lab.servers import nginx

pytestmark = pytest.mark.skipif(not isolated(), reason="laptops need network namespaces and loop devices, and so root")

QUICK = ("-e", f"imaging_link_timeout={TIMEOUT}", "-e", "ansible_timeout=5")


@pytest.fixture(scope="module", name="lab")
def fixture_lab(survival_plan: Plan) -> Iterator[Lab]:
    with running_lab(survival_plan, laptops=3) as lab:
        yield lab


@pytest.fixture(scope="module", name="image")
def fixture_image(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of the reference, to compare disks with."""
    image = tmp_path_factory.mktemp("store") / "reference.img.zst"
    outcome = playbook(lab, "capture", *where(image))
    assert outcome.status == 0, outcome.stdout
    return image


@pytest.fixture(name="store")
def fixture_store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def clone(lab: Lab, store: Path, *more: str) -> Outcome:
    return playbook(lab, "clone", *arguments(store), *more, environment=SHORT)


def arguments(store: Path) -> tuple[str, ...]:
    return ("-e", f"imaging_store={store}", *QUICK, *YES)


def results(lab: Lab, outcome: Outcome) -> list[dict[str, Any]]:
    assert outcome.status == 0, outcome.stdout
    return [result_of(outcome, laptop.name) for laptop in lab.targets]


def sent(found: list[dict[str, Any]]) -> int:
    return sum(each["sent_bytes"] for each in found)


def digest(path: str) -> str:
    with open(path, "rb") as disk:
        return hashlib.file_digest(disk, "sha256").hexdigest()


def test_the_controller_sends_about_one_image_and_nothing_to_equal_laptops(lab: Lab, image: Path) -> None:
    for laptop in lab.targets:
        make_foreign(laptop)
    found = results(lab, playbook(lab, "restore", *where(image), *YES, "-e", "imaging_transport=ssh"))
    assert [each["verified"] for each in found] == [True] * 3
    for laptop in lab.targets:
        assert_holds(image, Path(laptop.disk))
    assert sent(found) < 1.2 * found[0]["stored_bytes"]
    # Two of the three laptops took all of it from others, and each byte that was taken was passed on.
    assert sum(each["frame_bytes"]["peers"] for each in found) > 1.8 * found[0]["stored_bytes"]
    assert sum(each["passed_on"] for each in found) >= sum(each["frame_bytes"]["peers"] for each in found)
    assert sorted(len(each["taken_from"]) for each in found)[1:] != [0, 0]
    assert [each["left"] for each in found] == [[]] * 3 and not any(each["slow"] for each in found)
    page, data = newest(image.parent, "restore")
    assert data["sources"]["controller"]["images"] < 1.2 and data["sources"]["laptops"]["images"] > 1.8
    assert "Where the image came from" in page
    assert_nothing_remains(lab)
    found = results(lab, playbook(lab, "restore", *where(image), *YES))
    assert [each["changed"] for each in found] == [False] * 3
    assert [each["frame_bytes"]["peers"] + each["frame_bytes"]["controller"] for each in found] == [0] * 3


def test_laptops_that_verify_found_different_take_what_is_missing_once_from_the_controller(
    lab: Lab, image: Path
) -> None:
    """One of them has half of the image on its disk, one has nothing of it."""
    same, *changed = lab.targets
    for laptop in lab.targets:
        put_image(image, laptop)
    rows = [row for row in ImageReader(FileSource(str(image))).index if not row.flags & ZERO]
    for laptop, missing in zip(changed, (rows[: len(rows) // 2], rows), strict=True):
        spoil(laptop.disk, image, missing)
    before = written(same.disk)
    compared = playbook(lab, "verify", *where(image), environment=SHORT)
    different = sorted(compared.failures())
    assert different == sorted(laptop.name for laptop in changed), compared.stdout
    outcome = playbook(lab, "restore", "-l", ",".join(different), *where(image), *YES, environment=SHORT)
    assert outcome.status == 0, outcome.stdout
    found = [result_of(outcome, laptop.name) for laptop in changed]
    assert [each["verified"] for each in found] == [True, True]
    for laptop in changed:
        assert_holds(image, Path(laptop.disk))
    size, came = sum(row.frame_size for row in rows), [each["frame_bytes"] for each in found]
    # If the first of them is the head of the chain, half of the image comes from its disk. Else it takes the other half from the second one.
    assert sum(each["controller"] for each in came) < 1.2 * size and sum(each["peers"] for each in came) > 0.3 * size
    assert written(same.disk) == before
    assert_nothing_remains(lab)


def spoil(device: str, image: Path, rows: Sequence[Row]) -> None:
    """Change a sector of each of these chunks."""
    geometry = ImageReader(FileSource(str(image))).header.geometry
    with open(device, "r+b") as disk:
        for row in rows:
            start, _end = next(iter(unpack_ranges(row.ranges, geometry.length(row.chunk))))
            disk.seek(geometry.offset(row.chunk) + start)
            disk.write(os.urandom(512))
        disk.flush()
        os.fsync(disk.fileno())


def test_each_site_takes_one_image_from_the_server_of_the_store_and_nothing_from_the_controller(
    lab: Lab, image: Path, tmp_path: Path
) -> None:
    third, bridge = lab.targets[2], str(ip_interface(f"{lab.reference.address}/{PREFIX_LENGTH}").network[1])
    for laptop in lab.targets:
        make_foreign(laptop)
    # The smallest network with its address is its site.
    network = ["dev", "eth0", str(ip_network(f"{third.address}/30", strict=False))]
    third.run(["ip", "route", "add", *network])
    try:
        with nginx(tmp_path, str(image.parent), bridge) as server:
            store = ("-e", f"imaging_store={server.url}", "-e", f"imaging_store_ca={server.ca}")
            found = results(lab, playbook(lab, "restore", *where(image), *store, *YES))
            requests = [line.split() for line in server.log.read_text().splitlines()]
    finally:
        third.run(["ip", "route", "delete", *network])
    for laptop in lab.targets:
        assert_holds(image, Path(laptop.disk))
    # The address of the client, and the size of the response.
    *near, far = (sum(int(line[9]) for line in requests if line[0] == laptop.address) for laptop in lab.targets)
    size = found[0]["stored_bytes"]
    assert size * 0.9 < sum(near) < 1.2 * size and size * 0.9 < far < 1.2 * size, (near, far, size)
    assert [each["frame_bytes"]["controller"] for each in found] == [0] * 3
    assert found[2]["taken_from"] == [] and sorted(len(each["taken_from"]) for each in found[:2]) == [0, 1]


def test_laptops_become_equal_to_a_reference_and_the_controller_sends_nothing_of_the_disk(
    lab: Lab, image: Path, store: Path
) -> None:
    for laptop in lab.targets:
        make_foreign(laptop)
    before, had = digest(lab.reference.disk), written(lab.reference.disk)
    # Over SSH, by which only the controller's links go.
    outcome = clone(lab, store, "-e", "imaging_transport=ssh")
    found = results(lab, outcome)
    assert [each["verified"] for each in found] == [True] * 3
    for laptop in lab.targets:
        assert_holds(image, Path(laptop.disk))
    assert [each["frame_bytes"]["controller"] for each in found] == [0] * 3
    taken = [[each["host"] for each in result["taken_from"]] for result in found]
    assert sorted(map(len, taken)) == [1, 1, 1] and sum(["reference-01" in each[0] for each in taken]) == 1, taken
    (shared,) = [each.result for each in outcome.of("image_share") if "passed_on" in each.result]
    size = max(sum(each["frame_bytes"].values()) for each in found)
    assert size <= shared["passed_on"] < 1.2 * size
    assert (digest(lab.reference.disk), written(lab.reference.disk)) == (before, had)
    assert not [path for path in store.glob("*") if path.name != "reports"]
    assert_nothing_remains(lab)


def test_an_image_of_the_reference_is_kept_where_one_is_wanted_and_equal_laptops_get_nothing(
    lab: Lab, image: Path, store: Path
) -> None:
    found = results(lab, clone(lab, store, "-e", "imaging_image=kept"))
    assert [each["changed"] for each in found] == [False] * 3
    assert [sum(each["frame_bytes"].values()) for each in found] == [0] * 3
    kept = ImageReader(FileSource(str(store / "kept.img.zst")))
    assert kept.root_digest == ImageReader(FileSource(str(image))).root_digest


def test_when_the_reference_is_killed_the_laptops_say_so_and_the_next_run_goes_on(
    lab: Lab, image: Path, store: Path
) -> None:
    first = lab.targets[0]
    for laptop in lab.targets:
        make_foreign(laptop)
    before = written(first.disk)
    running = start_playbook(lab, "clone", *arguments(store), environment=SHORT)
    wait_for_share(first.disk, image, 0.4, before, running)
    kill_on_laptop(lab.reference, "AnsiballZ_image_share")
    outcome = running.wait()
    failures = outcome.failures()
    for laptop in lab.targets:
        assert "The reference reference-01 sends no more of its disk" in failures[laptop.name], failures
        assert not looks_bootable(laptop.disk)
    assert "To go on with them: ansible-playbook" in outcome.stdout
    # The rest comes through the controller, over SSH.
    way = {"imaging_relay": "off", "imaging_transport": "ssh", "imaging_ssh_client": "openssh"}
    found = results(lab, clone(lab, store, *(word for name in way for word in ("-e", f"{name}={way[name]}"))))
    assert [each["verified"] for each in found] == [True] * 3
    assert [each["taken_from"] for each in found] == [[]] * 3
    assert min(each["equal_chunks"] for each in found) > 0
    for laptop in lab.targets:
        assert_holds(image, Path(laptop.disk))
    assert_nothing_remains(lab)


def test_one_of_three_laptops_is_switched_off(lab: Lab, image: Path) -> None:
    for laptop in lab.targets:
        make_foreign(laptop)
    laptop = lab.targets[0]
    before = written(laptop.disk)
    running = start_playbook(lab, "restore", *where(image), *YES, "-vvvv", environment=SHORT)
    wait_for_share(laptop.disk, image, 0.4, before, running)
    laptop.power_off()
    outcome = running.wait()
    shown = outcome.stdout + outcome.stderr + "".join(repr(result.result) for result in outcome.results)
    assert "image_restore" in shown and "PRIVATE KEY" not in shown
    assert list(outcome.failures()) == [laptop.name], outcome.failures()
    _page, data = newest(image.parent, "restore")
    assert data["laptops"][0]["host"] == laptop.name and data["laptops"][0]["sent_bytes"] > 0
    others = [result_of(outcome, other.name) for other in lab.targets[1:]]
    assert [each["verified"] for each in others] == [True, True]
    for other in lab.targets[1:]:
        assert_holds(image, Path(other.disk))
    boot_live_medium_again(laptop)


def test_a_laptop_that_stands_still_for_a_while_holds_no_other_up(lab: Lab, image: Path) -> None:
    for laptop in lab.targets:
        make_foreign(laptop)
    head, *others = lab.targets
    before = written(head.disk)
    running = start_playbook(lab, "restore", *where(image, 60), *YES, environment=SHORT)
    wait_for_share(head.disk, image, 0.4, before, running)

    def done() -> set[str]:
        return {
            each.host for each in running.results() if each.action.endswith("image_restore") and each.status == "ok"
        }

    with held(head, "AnsiballZ_image_restore"):
        wait_until(lambda: done() >= {other.name for other in others}, "the others are done")
        assert head.name not in done()
    found = results(lab, running.wait())
    assert [each["verified"] for each in found] == [True] * 3
    for laptop in lab.targets:
        assert_holds(image, Path(laptop.disk))
