# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transport ssh against a real OpenSSH server: who is let in and who is not, by either client, and what is said then.

A port on the laptop that sends back what it gets stands for the module; everything else is as in a transfer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import SSH_CLIENTS, TCP
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Channel, LinkError, receive_exactly
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import DEFAULTS, Timeouts
from ansible_collections.fleet.imaging.plugins.plugin_utils.transports.factory import make_transport
from ansible_collections.fleet.imaging.plugins.plugin_utils.transports.transport import Refused, Transport, Unreachable
from ansible_collections.fleet.imaging.tests.integration.faults import LINK_TRANSPORTS, make_foreign
from ansible_collections.fleet.imaging.tests.integration.labs import isolated, running_lab
from ansible_collections.fleet.imaging.tests.integration.live_user import (
    PASSWORD,
    VARIABLES,
    add_live_user,
    password_hash,
)
from ansible_collections.fleet.imaging.tests.integration.playbooks import (
    CAPTURE_ONE,
    ROOT,
    YES,
    playbook,
)
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan
from ansible_collections.fleet.imaging.tests.lab.laptop import Laptop

pytestmark = pytest.mark.skipif(
    not isolated(), reason="passwords, other users and other servers need namespaces, and so root"
)

RESTORE_TWICE = ROOT / "tests/integration/plays/restore_twice.yml"
PASSPHRASE = "battery staple"
ECHO = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    connection, _address = server.accept()
    while data := connection.recv(1 << 20):
        connection.sendall(data)
    connection.close()
"""
BY_PASSWORD = (
    "AuthenticationMethods password",
    "PasswordAuthentication yes",
    "PermitRootLogin yes",
)


@pytest.fixture(scope="module", name="lab")
def fixture_lab(tiny_plan: Plan) -> Iterator[Lab]:
    with running_lab(tiny_plan) as lab:
        yield lab


@pytest.fixture(name="laptop")
def fixture_laptop(lab: Lab) -> Iterator[Laptop]:
    laptop = lab.targets[0]
    yield laptop
    laptop.reconfigure_sshd()


@contextmanager
def echoing(laptop: Laptop) -> Iterator[int]:
    """Have a port on a laptop's own address that sends back what it gets."""
    command = ["nsenter", "--target", str(laptop.pid), "--net", "--", sys.executable, "-c", ECHO]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


@pytest.fixture(name="port")
def fixture_port(laptop: Laptop) -> Iterator[int]:
    with echoing(laptop) as port:
        yield port


def connection(laptop: Laptop, **variables: Any) -> Any:
    """Ansible's own connection plugin, with a laptop's variables from the lab's inventory."""
    plugin = connection_loader.get("ssh", PlayContext(), os.devnull)
    own = {
        "ansible_host": laptop.address,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(laptop.lab / "client_key"),
        "ansible_ssh_common_args": common_arguments(laptop.lab),
    }
    chosen = {name: value for name, value in {**own, **variables}.items() if value is not None}
    plugin.set_options(var_options=chosen)
    return plugin


def common_arguments(lab: Path, *more: str) -> str:
    options = [
        f"UserKnownHostsFile={lab / 'known_hosts'}",
        "GlobalKnownHostsFile=/dev/null",
        "IdentitiesOnly=yes",
        *more,
    ]
    return " ".join(["-F /dev/null", *(f"-o {option}" for option in options)])


def transport(client: str, laptop: Laptop, timeouts: Timeouts = DEFAULTS, **variables: Any) -> Transport:
    arguments = {"transport": "ssh", "ssh_client": client}
    return make_transport(arguments, connection(laptop, **variables), laptop.address, timeouts)


def assert_carries(channel: Channel, size: int = 3_000_000) -> None:
    """Send random bytes there and back, both ways at once."""
    sent, received = os.urandom(size), bytearray(size)
    channel.settimeout(20)
    sender = threading.Thread(target=channel.sendall, args=(sent,))
    sender.start()
    receive_exactly(channel, memoryview(received))
    sender.join(20)
    assert received == sent
    assert not channel.readable()
    channel.end_sending()
    assert channel.recv_into(memoryview(bytearray(1))) == 0
    channel.close()


def assert_connects(client: str, laptop: Laptop, port: int, **variables: Any) -> None:
    assert_carries(transport(client, laptop, **variables).open(port, 10))


def assert_fails(client: str, laptop: Laptop, port: int, **variables: Any) -> ImagingError:
    """Open, and use, a channel that must not come to be; returns the error, which trying again would not change."""
    with pytest.raises(ImagingError) as caught:
        channel = transport(client, laptop, **variables).open(port, 10)
        channel.settimeout(10)
        channel.sendall(b"hello")
        channel.recv_into(memoryview(bytearray(1)))
    return caught.value


def make_key(folder: Path, kind: str, passphrase: str = "", bits: str = "") -> Path:
    path = folder / f"id_{kind}"
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", f"{kind} of a test", "-f", str(path)]
    subprocess.run([*command, *(["-b", bits] if bits else [])], check=True)
    return path


def let_in(laptop: Laptop, key: Path) -> None:
    """Have a laptop's sshd accept a key, and no other."""
    laptop.reconfigure_sshd(f"AuthorizedKeysFile {key}.pub")


def set_password(laptop: Laptop) -> None:
    """Give root on a laptop a password."""
    (laptop.folder / "shadow").write_text(f"root:{password_hash()}:19000:0:99999:7:::\n")


@pytest.fixture(name="agent")
def fixture_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An ssh-agent that holds no key yet; its socket."""
    path = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL) as process:
        while not path.exists():
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield path
        process.terminate()


def add_to_agent(agent: Path, key: Path) -> None:
    """Load an encrypted key into an agent."""
    script = agent.parent / "askpass"
    script.write_text(f"#!/bin/sh\necho '{PASSPHRASE}'\n")
    script.chmod(0o700)
    own = {"SSH_AUTH_SOCK": str(agent), "SSH_ASKPASS": str(script), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
    subprocess.run(["ssh-add", "-q", key], env=os.environ | own, stdin=subprocess.DEVNULL, check=True)


@pytest.mark.parametrize("client", SSH_CLIENTS)
@pytest.mark.parametrize(("kind", "bits"), [("ed25519", ""), ("rsa", "2048"), ("ecdsa", "")])
def test_a_key_file(client: str, laptop: Laptop, port: int, tmp_path: Path, kind: str, bits: str) -> None:
    key = make_key(tmp_path, kind, bits=bits)
    let_in(laptop, key)
    assert_connects(client, laptop, port, ansible_ssh_private_key_file=str(key))


@pytest.mark.parametrize("client", SSH_CLIENTS)
def test_the_host_key_is_an_rsa_key(client: str, laptop: Laptop, port: int, tmp_path: Path) -> None:
    """And one of another type is there as well, but not known."""
    rsa, other = make_key(tmp_path, "rsa", bits="2048"), make_key(tmp_path, "ecdsa")
    laptop.reconfigure_sshd(f"HostKey {rsa}", f"HostKey {other}")
    known = tmp_path / "known_hosts"
    known.write_text(f"{laptop.address} {' '.join(Path(f'{rsa}.pub').read_text().split()[:2])}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, capture_output=True)
    arguments = common_arguments(laptop.lab, "StrictHostKeyChecking=yes").replace(
        str(laptop.lab / "known_hosts"), str(known)
    )
    assert_connects(client, laptop, port, ansible_ssh_common_args=arguments)


@pytest.mark.parametrize("client", SSH_CLIENTS)
def test_a_password_only(client: str, laptop: Laptop, port: int) -> None:
    set_password(laptop)
    laptop.reconfigure_sshd(*BY_PASSWORD)
    no_key = {"ansible_ssh_private_key_file": None}
    assert_connects(client, laptop, port, ansible_password=PASSWORD, **no_key)
    wrong = assert_fails(client, laptop, port, ansible_password="wrong", **no_key)
    assert "let nobody in" in str(wrong) and "ansible_password" in str(wrong)
    assert "wrong" not in str(wrong).replace("went wrong", "")
    assert not isinstance(wrong, LinkError)
    without = assert_fails(client, laptop, port, **no_key)
    assert "password" in str(without)


@pytest.mark.parametrize("client", SSH_CLIENTS)
def test_an_encrypted_key_through_an_agent(
    client: str, laptop: Laptop, port: int, tmp_path: Path, agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(tmp_path, "ed25519", PASSPHRASE)
    let_in(laptop, key)
    refused = assert_fails(client, laptop, port, ansible_ssh_private_key_file=str(key))
    assert "ssh-agent" in str(refused)
    add_to_agent(agent, key)
    assert_connects(client, laptop, port, ansible_ssh_private_key_file=str(key))
    # The agent that the configuration names, instead of the environment's.
    monkeypatch.delenv("SSH_AUTH_SOCK")
    named = common_arguments(laptop.lab, f"IdentityAgent={agent}")
    assert_connects(client, laptop, port, ansible_ssh_private_key_file=str(key), ansible_ssh_common_args=named)
    assert "SSH_AUTH_SOCK" not in os.environ


@pytest.mark.parametrize("client", SSH_CLIENTS)
def test_an_agent_with_too_many_keys(client: str, laptop: Laptop, port: int, tmp_path: Path, agent: Path) -> None:
    laptop.reconfigure_sshd("MaxAuthTries 4")
    for number in range(6):
        (tmp_path / str(number)).mkdir()
        key = make_key(tmp_path / str(number), "ed25519")
        subprocess.run(["ssh-add", "-q", key], check=True)
    any_key = common_arguments(laptop.lab).replace("IdentitiesOnly=yes", "IdentitiesOnly=no")
    variables = {"ansible_ssh_private_key_file": None, "ansible_ssh_common_args": any_key}
    error = assert_fails(client, laptop, port, **variables)
    assert "let nobody in" in str(error)
    assert not isinstance(error, LinkError)
    # With the right one named, the others are not tried before it.
    assert_connects(client, laptop, port)


@pytest.mark.parametrize("client", SSH_CLIENTS)
def test_a_network_that_fails_while_logging_in_is_tried_again(client: str, laptop: Laptop, port: int) -> None:
    """The server's processes for a connection are killed as soon as they are there."""
    killer = threading.Event()

    def kill() -> None:
        while not killer.is_set():
            laptop.run(["pkill", "-9", "-f", r"^sshd: (root|unknown|\[accepted\])"], check=False)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        errors = []
        for _time in range(3):
            try:
                transport(client, laptop).open(port, 5).close()
            except ImagingError as error:
                errors.append(error)
    finally:
        killer.set()
        thread.join(30)
    assert errors and all(isinstance(error, LinkError) for error in errors), errors


@pytest.mark.parametrize("client", SSH_CLIENTS)
def test_an_encrypted_key_whose_passphrase_ansible_knows(
    client: str, laptop: Laptop, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    key = make_key(tmp_path, "ed25519", PASSPHRASE)
    let_in(laptop, key)
    variables = {"ansible_ssh_private_key_file": str(key), "ansible_ssh_private_key_passphrase": PASSPHRASE}
    assert_connects(client, laptop, port, **variables)


@pytest.mark.parametrize("client", SSH_CLIENTS)
@pytest.mark.parametrize("way", ["ProxyJump", "ProxyCommand", "-J"])
def test_a_jump_host(client: str, lab: Lab, laptop: Laptop, port: int, tmp_path: Path, way: str) -> None:
    """Another laptop is the only one that gets to this one."""
    jump = lab.targets[1]
    configuration = tmp_path / "config"
    through = {"ProxyJump": f"ProxyJump root@{jump.address}", "-J": ""}.get(
        way, f"ProxyCommand ssh -F {configuration} -W [%h]:%p %r@{jump.address}"
    )
    configuration.write_text(
        f"Host laptop-in-a-config\n  HostName {laptop.address}\n  {through}\n"
        f"Host *\n  UserKnownHostsFile {lab.folder / 'known_hosts'}\n  IdentityFile {lab.folder / 'client_key'}\n  IdentitiesOnly yes\n"
    )
    laptop.reconfigure_sshd(f"Match Address *,!{jump.address}", "DenyUsers *")
    arguments = f"-F {configuration}" + (f" -J {jump.address}" if way == "-J" else "")
    variables = {
        "ansible_host": "laptop-in-a-config",
        "ansible_ssh_common_args": arguments,
        "ansible_ssh_private_key_file": None,
    }
    assert_connects(client, laptop, port, **variables)
    direct = {**variables, "ansible_host": laptop.address, "ansible_ssh_common_args": f"-F {configuration}"}
    assert "let nobody in" in str(assert_fails(client, laptop, port, **direct))


@pytest.mark.parametrize("client", SSH_CLIENTS)
def test_forwarding_is_not_allowed(client: str, laptop: Laptop, port: int) -> None:
    laptop.reconfigure_sshd("AllowTcpForwarding no")
    error = assert_fails(client, laptop, port)
    assert "AllowTcpForwarding" in str(error) and "imaging_transport: tcp" in str(error)
    assert not isinstance(error, LinkError)


@pytest.mark.parametrize("client", SSH_CLIENTS)
def test_the_host_key_has_changed(client: str, laptop: Laptop, port: int, tmp_path: Path) -> None:
    laptop.reconfigure_sshd(f"HostKey {make_key(tmp_path, 'ed25519')}")
    error = assert_fails(client, laptop, port)
    assert "host key" in str(error) and "ssh-keygen -R" in str(error)
    assert not isinstance(error, LinkError)
    assert_connects(client, laptop, port, ansible_host_key_checking=False)


@pytest.mark.parametrize("client", SSH_CLIENTS)
def test_the_host_key_is_not_known(client: str, laptop: Laptop, port: int, tmp_path: Path) -> None:
    nothing_known = common_arguments(tmp_path)
    error = assert_fails(client, laptop, port, ansible_ssh_common_args=nothing_known)
    assert "host key" in str(error).lower() and "known" in str(error)
    assert not isinstance(error, LinkError)
    assert not (tmp_path / "known_hosts").exists()
    no_check = {"ansible_ssh_common_args": nothing_known, "ansible_host_key_checking": False}
    assert_connects(client, laptop, port, **no_check)


@pytest.mark.parametrize("client", SSH_CLIENTS)
def test_a_revoked_host_key(client: str, laptop: Laptop, port: int, tmp_path: Path) -> None:
    known = (laptop.lab / "known_hosts").read_text()
    line = next(line for line in known.splitlines() if line.startswith(f"{laptop.address} "))
    (tmp_path / "known_hosts").write_text(f"{line}\n@revoked * {line.partition(' ')[2]}\n")
    error = assert_fails(client, laptop, port, ansible_ssh_common_args=common_arguments(tmp_path))
    assert "revoked" in str(error).lower()


@pytest.mark.parametrize("client", SSH_CLIENTS)
def test_nobody_listens_on_the_laptop(client: str, laptop: Laptop) -> None:
    """It may be that the module is only just about to: trying again can help."""
    assert isinstance(assert_fails(client, laptop, 9), Refused)


@pytest.mark.parametrize("client", SSH_CLIENTS)
def test_there_is_no_sshd(client: str, laptop: Laptop) -> None:
    error = assert_fails(client, laptop, 9, ansible_port=2)
    assert isinstance(error, Unreachable)
    assert laptop.address in str(error)


@pytest.mark.parametrize("client", SSH_CLIENTS)
def test_closing_ends_everything(client: str, laptop: Laptop, port: int) -> None:
    """Also when somebody waits for more in another thread."""
    channel = transport(client, laptop).open(port, 10)
    channel.settimeout(30)
    channel.sendall(b"x")
    channel.recv_into(memoryview(bytearray(1)))
    outcome: list[object] = []

    def wait() -> None:
        try:
            outcome.append(channel.recv_into(memoryview(bytearray(1))))
        except OSError as error:
            outcome.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.2)
    began = time.monotonic()
    channel.close()
    waiter.join(5)
    assert outcome and time.monotonic() - began < 3
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert not [child for child in children if b"-W" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.parametrize("client", SSH_CLIENTS)
def test_a_server_that_stops_answering(client: str, laptop: Laptop, port: int) -> None:
    """Whoever sends must not wait for ever."""
    channel = transport(client, laptop, Timeouts(stuck=1)).open(port, 10)
    channel.settimeout(1.5)
    channel.sendall(b"x")
    channel.recv_into(memoryview(bytearray(1)))
    sessions = laptop.run(["pgrep", "-f", r"^sshd: root( |$|@)"]).stdout.split()
    laptop.run(["kill", "-STOP", *sessions])
    began = time.monotonic()
    try:
        with pytest.raises(OSError):
            for _number in range(64):
                channel.sendall(bytes(1 << 20))
        assert time.monotonic() - began < 10
    finally:
        laptop.run(["kill", "-CONT", *sessions], check=False)
        channel.close()


def test_an_ordinary_user_who_becomes_root(tiny_plan: Plan, tmp_path: Path) -> None:
    become = {**VARIABLES, "ansible_become_method": "su", "ansible_become_password": PASSWORD}
    with running_lab(tiny_plan, laptops=1) as lab:
        add_live_user(lab.reference, {})
        plays: tuple[str | Path, ...] = ("capture", CAPTURE_ONE)
        for client, capture in zip(SSH_CLIENTS, plays, strict=True):
            where = ("-e", f"imaging_store={tmp_path / client}", "-e", "imaging_image=by-ssh", *LINK_TRANSPORTS[client])
            outcome = playbook(lab, capture, "-l", "reference", "--become", *where, "-e", json.dumps(become))
            assert outcome.status == 0, outcome.stdout
            assert outcome.of("image_capture")[0].result["changed"] is True


def test_the_same_as_over_tcp_and_by_password(tiny_plan: Plan, tmp_path: Path) -> None:
    """The image, what check mode says, what is written, and that a second run changes nothing.

    Over SSH by password alone, Ansible's own connections too, as on a live medium that has nothing else.
    """
    with running_lab(tiny_plan, laptops=1) as lab:
        assert_the_same_over_all_ways(lab, tmp_path)


def by_password(lab: Lab, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Have all laptops let in by password alone; returns the arguments that say it as a variable, and as -k asks for it."""
    for laptop in lab.laptops:
        set_password(laptop)
        laptop.reconfigure_sshd(*BY_PASSWORD)
    asked = folder / "password"
    asked.write_text(PASSWORD)
    no_key = ("-e", "ansible_ssh_private_key_file=")
    return (*no_key, "-e", f"ansible_password='{PASSWORD}'"), (*no_key, "--connection-password-file", str(asked))


def assert_the_same_over_all_ways(lab: Lab, tmp_path: Path) -> None:
    seen = []
    for way, over in LINK_TRANSPORTS.items():
        as_variable, asked = ((), ()) if way == TCP else by_password(lab, tmp_path)
        store = ("-e", f"imaging_store={tmp_path / way}", "-e", "imaging_image=same", *over)
        captured = playbook(lab, CAPTURE_ONE, "-l", "reference", *store, *as_variable)
        make_foreign(lab.targets[0])
        restored = playbook(lab, RESTORE_TWICE, "-l", "lab_laptops", *store, *asked)
        assert (captured.status, restored.status) == (0, 0), captured.stdout + restored.stdout
        assert PASSWORD not in captured.stdout + restored.stdout
        image = captured.of("image_capture")[0].result
        dry, wet, second = (each.result for each in restored.of("image_restore"))
        assert (wet["verified"], second["changed"]) == (True, False)
        assert second["sent_bytes"] < 0.01 * wet["sent_bytes"]
        seen.append((image["root_digest"], dry["differing_chunks"], wet["written_chunks"], wet["links_made"]))
    assert seen[0] == seen[1] == seen[2]
    # The users' playbooks, by the same password.
    runs = [
        playbook(lab, "capture", *store, "-e", "imaging_update=true", *as_variable),
        playbook(lab, "restore", *store, *YES, *asked),
        playbook(lab, "verify", *store, *asked),
    ]
    assert [run.status for run in runs] == [0, 0, 0], "".join(run.stdout for run in runs)
    assert not any(PASSWORD in run.stdout for run in runs)
