# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a connection of our own takes over of Ansible's, by its real connection plugin and the real ``ssh -G``."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import DEFAULTS
from ansible_collections.fleet.imaging.plugins.plugin_utils.transports.factory import make_transport
from ansible_collections.fleet.imaging.plugins.plugin_utils.transports.known_hosts import KnownHosts
from ansible_collections.fleet.imaging.plugins.plugin_utils.transports.ssh_settings import SshSettings, settings_of


def settings(tmp_path: Path, configuration: str = "", arguments: str = "", **variables: Any) -> SshSettings:
    config = tmp_path / "config"
    config.write_text(configuration)
    plugin = connection_loader.get("ssh", PlayContext(), os.devnull)
    arguments = f"-F {config} {arguments}"
    plugin.set_options(var_options={"ansible_host": "lab-01", "ansible_ssh_common_args": arguments, **variables})
    return settings_of(plugin)


def test_what_harms_a_stream_is_left_out(tmp_path: Path) -> None:
    arguments = (
        "-Cvvq -tt -oCompression=yes -C -o Compression=yes -S /tmp/master -M -o ControlPath=/tmp/other -L 1:h:1 -A -4"
    )
    found = settings(tmp_path, "Host *\n  Compression yes\n  ControlPath /tmp/third\n", arguments)
    assert not {"-C", "-S", "-M", "-L", "-A", "-t", "-v", "-q"} & set(found.arguments)
    assert "-4" in found.arguments
    assert found.config.get("compression") == "no"
    assert found.config.get("controlpath") == ""
    assert found.config.get("controlmaster") == "false"
    assert found.config.get("addressfamily") == "inet"


def test_ansibles_variables_come_first(tmp_path: Path) -> None:
    configuration = "Host lab-01\n  HostName 192.0.2.11\n  User somebody\n  Port 2222\n  IdentityFile ~/.ssh/other\n"
    by_file = settings(tmp_path, configuration).config
    assert (by_file.hostname, by_file.port, by_file.user) == ("192.0.2.11", 2222, "somebody")
    found = settings(
        tmp_path,
        configuration,
        ansible_user="root",
        ansible_port=22,
        ansible_ssh_private_key_file="~/key of mine",
    ).config
    assert (found.hostname, found.port, found.user) == ("192.0.2.11", 22, "root")
    assert found.expand(found.all("identityfile")[0]) == os.path.expanduser("~/key of mine")


@pytest.mark.parametrize(
    ("variables", "checks"),
    [({}, True), ({"ansible_host_key_checking": False}, False), ({"ansible_ssh_host_key_checking": False}, False)],
)
def test_host_keys_are_checked_as_ansible_does(tmp_path: Path, variables: dict[str, Any], checks: bool) -> None:
    assert settings(tmp_path, **variables).config.checks_host_key is checks
    assert settings(tmp_path, "Host *\n  StrictHostKeyChecking no\n").config.checks_host_key is False


def test_aes_gcm_comes_first_among_what_is_allowed(tmp_path: Path) -> None:
    first = settings(tmp_path).config.ciphers
    assert first[:2] == ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"]
    assert "chacha20-poly1305@openssh.com" in first
    narrow = settings(tmp_path, "Host *\n  Ciphers aes256-ctr,aes256-gcm@openssh.com\n").config.ciphers
    assert narrow == ["aes256-gcm@openssh.com", "aes256-ctr"]


def test_without_a_password_none_is_asked_for(tmp_path: Path) -> None:
    assert settings(tmp_path).config.get("passwordauthentication") == "no"
    known = settings(tmp_path, ansible_password="secret")
    assert (known.password, known.config.get("passwordauthentication")) == ("secret", "yes")
    assert "secret" not in " ".join(known.arguments)


def test_tokens_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDER", "/keys")
    config = settings(tmp_path, "Host lab-01\n  HostName 192.0.2.11\n", ansible_port=2222, ansible_user="root").config
    assert config.expand("nc %h %p %r %n %%h", path=False) == "nc 192.0.2.11 2222 root lab-01 %h"
    assert config.expand("${FOLDER}/%r_%h") == "/keys/root_192.0.2.11"
    assert config.expand("~/x") == os.path.expanduser("~/x")


def test_what_openssh_does_not_accept_is_said(tmp_path: Path) -> None:
    with pytest.raises(ImagingError, match=r"OpenSSH does not accept.*ansible_ssh_common_args"):
        _config = settings(tmp_path, "", "-o NoSuchOption=yes").config
    with pytest.raises(ImagingError, match=r"can't be read.*ansible_ssh_common_args"):
        settings(tmp_path, "", "-z")
    with pytest.raises(ImagingError, match=r"which is not an option"):
        settings(tmp_path, "", "somehost")


def test_a_connection_that_is_not_by_ssh_is_refused() -> None:
    plugin = connection_loader.get("local", PlayContext(), os.devnull)
    plugin.set_options(var_options={})
    arguments = {"transport": "ssh", "ssh_client": "paramiko"}
    with pytest.raises(ImagingError, match=r"'local'.*imaging_transport: tcp"):
        make_transport(arguments, plugin, "127.0.0.1", DEFAULTS)


def test_without_openssh_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(ImagingError, match=r"no-such-ssh can't be started.*OpenSSH's client"):
        _config = settings(tmp_path, ansible_ssh_executable="no-such-ssh").config


def key(tmp_path: Path, name: str, kind: str = "ed25519") -> tuple[str, str]:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", tmp_path / name], check=True)
    found, text, *_comment = (tmp_path / f"{name}.pub").read_text().split()
    return found, text


def test_known_hosts(tmp_path: Path) -> None:
    mine, other = key(tmp_path, "mine"), key(tmp_path, "other")
    ecdsa = key(tmp_path, "ecdsa", "ecdsa")
    known = tmp_path / "known"
    lines = [
        f"[lab-01]:2222,[192.0.2.11]:2222 {' '.join(mine)}",
        f"lab-02 {' '.join(mine)} a comment",
        f"lab-02 {' '.join(ecdsa)}",
        f"@cert-authority *.ca {' '.join(other)}",
        f"@revoked revoked {' '.join(mine)}",
        f"revoked {' '.join(mine)}",
        "# a comment",
        "",
        "broken",
    ]
    known.write_text("\n".join(lines) + "\n")
    files = [str(tmp_path / "absent"), str(known)]

    def check(host: str, port: int, what: tuple[str, str]) -> None:
        KnownHosts(host, port, files).check(*what, "SHA256:x")

    check("lab-01", 2222, mine)
    check("192.0.2.11", 2222, mine)
    check("lab-02", 22, mine)
    check("lab-02", 22, ecdsa)
    check("lab-02", 2200, mine)  # known without a port
    assert KnownHosts("lab-02", 22, files).kinds == ["ssh-ed25519", "ecdsa-sha2-nistp256"]
    for host, port, what, words in (
        ("lab-01", 2222, other, "has changed"),
        ("lab-01", 22, mine, "is not known"),
        ("lab-02", 2200, other, "is not known"),
        ("lab-03", 22, mine, "is not known"),
        ("host.ca", 22, mine, "certificate"),
        ("host.ca", 22, other, "certificate"),
        ("revoked", 22, mine, "revoked"),
    ):
        with pytest.raises(ImagingError, match=words):
            check(host, port, what)
