# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What decides about erasing: read once from what the administrator said, asked for, and out of reach of every laptop."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.tests.integration.labs import running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import (
    BIN,
    RESTORE_ONE,
    ROOT,
    YES,
    Outcome,
    RunningPlaybook,
    ansible_environment,
    playbook,
    stored,
)
from ansible_collections.fleet.imaging.tests.integration.terminal import Terminal
from ansible_collections.fleet.imaging.tests.integration.test_bad_input import untouched
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan
from ansible_collections.fleet.imaging.tests.lab.laptop import Laptop
from ansible_collections.fleet.imaging.tests.lab.reference_disk import MIN_SIZE
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.samples import Used, make_image, noise

SIZE = MIN_SIZE
TRUSTING = {"ANSIBLE_INJECT_FACT_VARS": "true"}
"""As where the collection is used with another ansible.cfg than its own."""


@pytest.fixture(scope="module", name="lab")
def fixture_lab(tiny_plan: Plan) -> Iterator[Lab]:
    with running_lab(tiny_plan, blank=True) as lab:
        yield lab


@pytest.fixture(scope="module", name="image")
def fixture_image(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """An image of the reference, as arguments for a playbook."""
    where = ("-e", f"imaging_store={tmp_path_factory.mktemp('store')}", "-e", "imaging_image=sound")
    outcome = playbook(lab, "capture", *where)
    assert outcome.status == 0, outcome.stdout
    return where


LIAR = """#!/usr/bin/python3
import json, subprocess, sys
done = subprocess.run(["/usr/bin/python3", *sys.argv[1:]], stdout=subprocess.PIPE)
try:
    answer = dict(json.loads(done.stdout), **json.loads({lies!r}))
except ValueError:
    sys.stdout.buffer.write(done.stdout)
else:
    print(json.dumps(answer))
sys.exit(done.returncode)
"""


@contextmanager
def lying(lab: Lab, laptop: Laptop, lies: object, folder: Path) -> Iterator[Path]:
    """An inventory with a laptop whose Python adds something to the answer of every module."""
    python = laptop.folder / "liar"
    python.write_text(LIAR.format(lies=json.dumps(lies)))
    python.chmod(0o755)
    group = "reference" if laptop == lab.reference else "lab_laptops"
    inventory = folder / "liar.json"
    inventory.write_text(json.dumps({group: {"hosts": {laptop.name: {"ansible_python_interpreter": str(python)}}}}))
    yield inventory
    python.unlink()


def lies_about(other: str, folder: Path) -> dict[str, object]:
    """What a laptop may add to an answer to harm another one: each key has a meaning for Ansible in the answer of some module."""
    variables = {
        "imaging_confirm_erase": True,
        "imaging_store": str(folder / "elsewhere"),
        "imaging_disk": "/dev/null",
        "imaging_become": True,
        "checked_settings": {},
        "confirmation": {"confirmed": {}},
        "ansible_connection": "local",
        "ansible_host": "192.0.2.99",
        "ansible_become": True,
        "ansible_python_interpreter": "/bin/false",
    }
    return {
        "ansible_facts": variables,
        "add_host": {"host_name": other, "groups": ["reference"], "host_vars": variables},
        "add_group": "reference",
        "parent_groups": ["all"],
        "ansible_stats": {"data": 5},
        "_ansible_notify": ["nobody"],
        "skipped": True,
        "unreachable": True,
        "warnings": [{"msg": 5}],
        "deprecations": 5,
        "exception": 5,
        "invocation": 5,
        "changed": "no",
        "results": 5,
    }


def test_what_a_laptop_adds_to_its_answers_changes_nothing(
    lab: Lab, image: tuple[str, ...], store: Path, tmp_path: Path
) -> None:
    lies = lies_about(lab.targets[1].name, tmp_path)
    with lying(lab, lab.targets[0], lies, tmp_path) as inventory, untouched(*lab.targets):
        asked = playbook(lab, "restore", "-i", inventory, *image, environment=TRUSTING, lying=True)
    assert asked.status != 0 and not asked.of("image_restore")
    assert "imaging_confirm_erase: true" in str(asked.failures()) and "lab-01, lab-02" in str(asked.failures())
    del lies["unreachable"]  # whoever says so is waited for, until the link timeout
    with lying(lab, lab.targets[0], lies, tmp_path) as inventory:
        done = playbook(lab, "restore", "-i", inventory, *image, *YES, environment=TRUSTING, lying=True)
    assert done.status == 0, done.stdout
    assert {result.host for result in done.of("image_restore") if result.result["verified"]} == {"lab-01", "lab-02"}
    with lying(lab, lab.reference, lies, tmp_path) as inventory:
        captured = playbook(
            lab,
            "capture",
            "-i",
            inventory,
            "-e",
            "imaging_image=new",
            # Not by -e, which stands above all facts.
            environment={**TRUSTING, "HOME": str(store)},
            lying=True,
        )
    assert captured.status == 0, captured.stdout
    assert stored(store / "fleet-images") == ["new.img.zst"]
    assert not (tmp_path / "elsewhere").exists()


def test_one_laptop_with_an_odd_answer_fails_alone(lab: Lab, image: tuple[str, ...], tmp_path: Path) -> None:
    lies = {"selected": {"path": 5, "partitions": None}, "disks": "none", "expect": 7}
    with lying(lab, lab.targets[0], lies, tmp_path) as inventory:
        outcome = playbook(lab, "restore", "-i", inventory, *image, *YES)
    assert list(outcome.failures()) == ["lab-01"]
    assert "answer can't be right" in outcome.failures()["lab-01"]
    assert outcome.of("image_restore", "lab-02")[0].result["verified"]


def confirmed_for(folder: Path, *hosts: str) -> Path:
    """An inventory in which the erasure is confirmed for some laptops only."""
    inventory = folder / "confirmed.json"
    values = {host: {"imaging_confirm_erase": True} for host in hosts}
    inventory.write_text(json.dumps({"lab_laptops": {"hosts": values}}))
    return inventory


def shows(words: str, times: int = 1) -> Callable[[Terminal], bool]:
    """Whether a terminal shows or has shown some words so many times."""
    return lambda terminal: terminal.text().count(words) >= times


def asked(lab: Lab, arguments: Sequence[str | Path], answers: Sequence[tuple[str, str]]) -> Terminal:
    """Run restore.yml in a terminal and answer what it asks; returns the terminal, in which it has ended."""
    command = [str(BIN / "ansible-playbook"), "restore.yml", "-i", str(lab.inventory), *map(str, arguments)]
    with Terminal(command, ansible_environment(), str(ROOT / "playbooks"), 160, 50) as terminal:
        for question, answer in answers:
            assert terminal.watch(shows(question)), terminal.text()
            terminal.enter(answer + "\r")
        terminal.finish()
    return terminal


def test_the_question_is_asked_unless_every_laptop_is_confirmed(
    lab: Lab, image: tuple[str, ...], tmp_path: Path
) -> None:
    some: list[str | Path] = ["-i", confirmed_for(tmp_path, "lab-01"), *image]
    with untouched(*lab.targets):
        refused = playbook(lab, "restore", *some)
        wrong = asked(lab, some, [("Type 'erase 2' to go on", "erase 1")])
    assert "not set for lab-02)" in str(refused.failures())
    assert wrong.status not in (0, None)
    text = wrong.text()
    assert "imaging_confirm_erase is not set for lab-02." in text
    last = text[text.index("anything else to stop") :]
    assert "expected 'erase 2'" in last and "'erase 1' was typed" in last
    assert "restore.yml" not in last and "Origin" not in last
    right = asked(lab, some, [("Type 'erase 2' to go on", "erase 2")])
    assert right.status == 0, right.text()
    all_of_them: list[str | Path] = ["-i", confirmed_for(tmp_path, "lab-01", "lab-02"), *image]
    assert playbook(lab, "restore", *all_of_them).status == 0


def asks_for_a_step(terminal: Terminal) -> bool:
    """Whether --step waits for an answer; once that is typed, it stands behind the question."""
    return terminal.text().rstrip().endswith("(N)o/(y)es/(c)ontinue:")


def test_steps_that_skip_the_question_do_not_get_to_write(lab: Lab, image: tuple[str, ...]) -> None:
    command = [str(BIN / "ansible-playbook"), "restore.yml", "-i", str(lab.inventory), "--step", *image]
    with untouched(*lab.targets):
        with Terminal(command, ansible_environment(), str(ROOT / "playbooks"), 300, 50) as terminal:
            while terminal.watch(asks_for_a_step, 30):
                question = terminal.text().rpartition("Perform task:")[2]
                terminal.enter("n\r" if "Confirm erasing the disks" in question else "y\r")
                terminal.watch(lambda seen: not asks_for_a_step(seen), 10)
            terminal.finish(10)
        text = terminal.text()
    assert terminal.status not in (0, None)
    assert "the erasure of this disk was not confirmed" in " ".join(text.split())


def test_a_start_in_the_middle_writes_nothing(lab: Lab, image: tuple[str, ...]) -> None:
    with untouched(*lab.targets):
        for start in ("Confirm erasing the disks", "Release the disk", "Make the disk equal to*"):
            outcome = playbook(lab, "restore", *image, *YES, "--start-at-task", start)
            assert outcome.status != 0
            assert not any(result.status == "ok" for result in outcome.of("image_restore"))


def run_on_nothing(tmp_path: Path, name: str, *arguments: str) -> Outcome:
    """Run a playbook on laptops that do not exist, of which one has a wrong port."""
    hosts = {"lab-01": {"ansible_host": "192.0.2.1"}, "lab-02": {"ansible_host": "192.0.2.2", "imaging_port": "190000"}}
    groups = {"reference": {"hosts": {"reference-01": {}}}, "lab_laptops": {"hosts": hosts}}
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps(groups))
    command: list[str | Path] = [BIN / "ansible-playbook", f"{name}.yml", "-i", inventory, *arguments]
    return RunningPlaybook(command, ROOT / "playbooks", {}).wait(60)


def test_a_restore_that_is_asked_for_what_it_can_not_do_says_that_nothing_was_written(tmp_path: Path) -> None:
    values = {
        "imaging_disk": "/dev/null",
        "imaging_image": "x",
        "imaging_store": str(tmp_path),
        "imaging_unused": "dicard",
    }
    command: list[str | Path] = [BIN / "ansible-playbook", RESTORE_ONE, "-i", "lab-01,", "-e", json.dumps(values)]
    outcome = RunningPlaybook(command, ROOT / "playbooks", {}).wait(60)
    (restored,) = outcome.of("image_restore")
    assert (restored.status, restored.result["disk_state"]) == ("failed", "untouched")
    assert "value of unused must be one of" in restored.result["msg"]
    assert "Nothing was written to these disks: lab-01." in outcome.stdout


def test_variables_are_checked_for_every_host_before_any_is_contacted(tmp_path: Path) -> None:
    outcome = run_on_nothing(
        tmp_path, "restore", "-e", "imaging_compresion_level=19", "-e", "imaging_finish=rebot", *YES
    )
    assert outcome.status != 0
    ((_host, said),) = outcome.failures().items()
    for words in (
        "For lab-02: imaging_port is '190000', expected a whole number from 0 to 65535.",
        "did you mean imaging_compression_level?",
        "imaging_finish is 'rebot', expected none, reboot or poweroff (did you mean reboot?).",
        "No host was contacted.",
    ):
        assert words in said
    task = outcome.stdout[outcome.stdout.index("TASK") : outcome.stdout.index("PLAY RECAP")]
    assert len(task.strip().splitlines()) <= 5
    assert not outcome.of("disk_info") and not outcome.of("image_info")


def test_a_limit_that_leaves_no_laptop_is_an_error(tmp_path: Path) -> None:
    for name in ("restore", "verify"):
        outcome = run_on_nothing(tmp_path, name, "-l", "reference")
        assert outcome.status != 0
        assert "expected at least one of lab_laptops:!reference, and none of them is in -l reference" in str(
            outcome.failures()
        )


def test_a_password_that_is_missing_is_said_with_the_way_out(lab: Lab, image: tuple[str, ...], tmp_path: Path) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    sudo.chmod(0o755)
    missing = playbook(
        lab,
        "verify",
        "-l",
        "lab-01",
        *image,
        "-e",
        "imaging_become=true",
        "-e",
        f"ansible_become_exe={sudo}",
        "-e",
        "ansible_become_user=nobody",
    )
    assert "run again with -K" in missing.failures()["lab-01"]
    denied = playbook(lab, "verify", "-l", "lab-01", *image, "-e", "ansible_user=nobody")
    assert "run again with -k" in denied.failures()["lab-01"]


REPLACER = """#!/bin/sh
[ ! -e {new} ] || mv {new} {image}
exec /usr/bin/python3 "$@"
"""


def test_an_image_that_is_replaced_while_laptops_are_compared_is_noticed(lab: Lab, tmp_path: Path) -> None:
    """After the image was chosen, when the first module runs on a laptop, another image comes to have its name."""
    store, laptop = tmp_path / "store", lab.targets[0]
    store.mkdir()
    image, new = store / "sound.img.zst", tmp_path / "new"
    for path, seed in ((image, 1), (new, 2)):
        make_image(str(path), noise(SIZE // 64, seed) + bytes(SIZE - SIZE // 64), Used((0, SIZE // 64)))
    python = laptop.folder / "replacer"
    python.write_text(REPLACER.format(new=new, image=image))
    python.chmod(0o755)
    arguments = ("-l", laptop.name, "-e", f"imaging_store={store}", "-e", f"ansible_python_interpreter={python}")
    outcome = playbook(lab, "verify", *arguments)
    assert not new.exists()
    assert "The image sound was replaced since it was chosen: its root digest was" in outcome.failures()[laptop.name]


def test_other_strategies_of_the_users_change_nothing(lab: Lab, image: tuple[str, ...]) -> None:
    """Of themselves they would run tasks once for each laptop that are to run once for all, and before all disks are known."""
    free = {"ANSIBLE_STRATEGY": "free"}
    with untouched(*lab.targets):
        refused = playbook(lab, "restore", *image, environment=free)
    assert "'erase 2' to be typed, and there is no terminal" in str(refused.failures())
    slowly = {**free, "ANSIBLE_PIPELINING": "0", "ANSIBLE_ANY_ERRORS_FATAL": "1"}
    outcome = playbook(lab, "restore", *image, *YES, "-f", "1", "--diff", environment=slowly)
    assert outcome.status == 0, outcome.stdout
    assert [found.result["verified"] for found in outcome.of("image_restore")] == [True, True]


@pytest.mark.parametrize("tags", [("--tags", "always"), ("--tags", "erase"), ("--skip-tags", "confirm")])
def test_tags_leave_nothing_out(tmp_path: Path, tags: tuple[str, str]) -> None:
    outcome = run_on_nothing(tmp_path, "restore", *tags, *YES)
    assert outcome.status != 0
    assert "expected neither --tags nor --skip-tags" in str(outcome.failures())


@pytest.fixture(name="pull")
def fixture_pull(image: tuple[str, ...], tmp_path: Path) -> Callable[..., Outcome]:
    """Runs ansible-pull from a repository with the playbooks, as a laptop does that restores itself."""
    repository = tmp_path / "repository"
    shutil.copytree(ROOT / "playbooks", repository / "playbooks")
    author = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    for command in (["init", "--quiet"], ["add", "."], [*author, "commit", "--quiet", "--message", "playbooks"]):
        subprocess.run(["git", *command], cwd=repository, check=True)
    pull: list[str | Path] = [
        BIN / "ansible-pull",
        "-U",
        f"file://{repository}",
        "-d",
        tmp_path / "checkout",
        "playbooks/restore.yml",
        *image,
    ]
    return lambda *arguments: RunningPlaybook([*pull, *arguments], tmp_path, {}).wait(100)


def test_a_laptop_that_pulls_the_playbook_restores_itself_and_asks_first(
    pull: Callable[..., Outcome], tmp_path: Path
) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(SIZE))
    this = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "imaging_disk": str(disk),
        "imaging_become": False,
        "imaging_port": 0,
    }
    inventory = tmp_path / "local.json"
    inventory.write_text(json.dumps({"lab_laptops": {"hosts": {"localhost": this}}}))
    assert "expected at least one of lab_laptops" in str(pull(*YES).failures())
    assert "'erase 1' to be typed, and there is no terminal" in str(pull("-i", inventory).failures())
    assert disk.read_bytes() == bytes(SIZE)
    outcome = pull("-i", inventory, *YES)
    assert outcome.status == 0, outcome.stdout
    assert outcome.of("image_restore", "localhost")[0].result["verified"]
