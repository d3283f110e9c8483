# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a lab's live systems."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.plugin_utils.live.authority import open_authority
from ansible_collections.fleet.imaging.plugins.plugin_utils.run_command import run_command


def test_keys_are_made_once_and_nobody_else_reads_the_private_ones(tmp_path: Path) -> None:
    made = open_authority(tmp_path / "ca", run_command)
    contents = {path.name: path.read_bytes() for path in made.folder.iterdir()}
    assert {made.folder.stat().st_mode & 0o777, made.key.stat().st_mode & 0o777} == {0o700, 0o600}
    assert made.host_key.stat().st_mode & 0o777 == 0o600
    open_authority(tmp_path / "ca", run_command)
    assert {path.name: path.read_bytes() for path in made.folder.iterdir()} == contents


def test_the_private_key_of_the_authority_is_not_for_media(tmp_path: Path) -> None:
    made = open_authority(tmp_path / "ca", run_command)
    assert sorted(made.host_files()) == [
        "ssh_host_ed25519_key",
        "ssh_host_ed25519_key-cert.pub",
        "ssh_host_ed25519_key.pub",
    ]
    assert made.key.read_bytes() not in made.host_files().values()


def test_the_certificate_is_of_a_host_of_any_name_and_has_no_end(tmp_path: Path) -> None:
    made = open_authority(tmp_path / "ca", run_command)
    shown = subprocess.run(
        ["ssh-keygen", "-L", "-f", made.certificate], check=True, capture_output=True, text=True
    ).stdout
    assert "host certificate" in shown and "Valid: forever" in shown
    assert shown.split("Principals:")[1].split("Critical")[0].strip() == "(none)"


def test_known_hosts_has_the_authority_and_the_key_for_any_name_and_port(tmp_path: Path) -> None:
    made = open_authority(tmp_path / "ca", run_command)
    for name in ("192.0.2.11", "[lab-01]:2222"):
        command = ["ssh-keygen", "-F", name, "-f", made.known_hosts]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert made.key.with_suffix(".pub").read_text().split()[1] in found
        assert made.host_key.with_suffix(".pub").read_text().split()[1] in found


def test_a_new_host_key_is_signed_by_the_same_authority(tmp_path: Path) -> None:
    made = open_authority(tmp_path / "ca", run_command)
    authority, certificate = made.key.read_bytes(), made.certificate.read_bytes()
    made.host_key.unlink()
    made.host_key.with_suffix(".pub").unlink()
    again = open_authority(tmp_path / "ca", run_command)
    assert again.key.read_bytes() == authority
    assert again.certificate.read_bytes() != certificate


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir(mode=0o755)
    with pytest.raises(ImagingError, match="chmod 700"):
        open_authority(tmp_path / "ca", run_command)
    assert not list((tmp_path / "ca").iterdir())


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/usr/sbin/sshd"), reason="needs root and sshd")
@pytest.mark.parametrize("line", ["@cert-authority ", "* "], ids=["certificate", "key"])
def test_each_line_alone_lets_ssh_know_the_host(tmp_path: Path, line: str) -> None:
    made = open_authority(tmp_path / "ca", run_command)
    known, log, config = (tmp_path / name for name in ("known_hosts", "log", "sshd_config"))
    known.write_text(
        "".join(f"{each}\n" for each in made.known_hosts.read_text().splitlines() if each.startswith(line))
    )
    config.write_text(f"HostKey {made.host_key}\nHostCertificate {made.certificate}\n")
    os.makedirs("/run/sshd", exist_ok=True)
    options = ["-F", "/dev/null", "-o", f"UserKnownHostsFile={known}", "-o", "GlobalKnownHostsFile=/dev/null"]
    options += ["-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "IdentityFile=/dev/null"]
    server = f"ProxyCommand=/usr/sbin/sshd -i -f {config} -E {log}"
    done = subprocess.run(
        ["ssh", *options, "-o", server, "lab-01", "true"], capture_output=True, text=True, check=False
    )
    assert "Permission denied" in done.stderr, (done.stderr, log.read_text())
    assert "Host key verification failed" not in done.stderr and "invalid" not in done.stderr
