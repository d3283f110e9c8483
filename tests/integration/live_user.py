# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An ordinary user on a laptop of the lab, who becomes root by the machine's own sudo, su or doas, as on a live medium."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ansible_collections.fleet.imaging.tests.lab.laptop import Laptop
from ansible_collections.fleet.imaging.tests.lab.processes import MARK

LIVE_USER = "live"
PASSWORD = "correct horse"
VARIABLES = {
    "ansible_user": LIVE_USER,
    "ansible_remote_tmp": "/tmp/.fleet-live",
    "ansible_async_dir": "~/.fleet-live-async",
    "imaging_become": True,
}
"""What Ansible is to know of such a laptop, beside how the user becomes root."""


def password_hash() -> str:
    """Return the password's hash for a shadow file (crypt(3), SHA-512)."""
    crypt = ["perl", "-e", "print crypt($ARGV[0], q($6$fleetimaging$))", PASSWORD]
    return subprocess.run(crypt, capture_output=True, text=True, check=True).stdout


def add_live_user(laptop: Laptop, etc: Mapping[str, str], user_starts: str = "", root_starts: str = "") -> None:
    """Give an isolated laptop an ordinary user and a root with the same password, both with bash, and let only the user in.

    ``etc``: more files for its /etc, by name; ``user_starts``, ``root_starts``: what the start files of their shells do.
    """
    folder, hashed = laptop.folder, password_hash()
    for name in ("live-tmp", "live-root"):
        (folder / name).mkdir()
    (folder / "live-tmp").chmod(0o1777)
    shutil.copytree("/etc", folder / "etc", symlinks=True)
    own = {
        "passwd": f"root:x:0:0:root:/root:/bin/bash\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
        f"{LIVE_USER}:x:60123:60123::/tmp:/bin/bash\n",
        "shadow": f"root:{hashed}:19000:0:99999:7:::\n{LIVE_USER}:{hashed}:19000:0:99999:7:::\n",
    }
    for name, content in {**own, **etc}.items():
        path = folder / "etc" / name
        path.unlink(missing_ok=True)
        path.write_text(content)
        path.chmod(0o644 if name == "passwd" else 0o400)
    (folder / "live-tmp/authorized_keys").write_bytes((laptop.lab / "client_key.pub").read_bytes())
    (folder / "live-tmp/.bashrc").write_text(user_starts)
    (folder / "live-root/.bashrc").write_text(root_starts)
    for name, place in (("etc", "/etc"), ("live-tmp", "/tmp"), ("live-root", "/root")):
        laptop.run(["mount", "--bind", folder / name, Path(place)])
    laptop.reconfigure_sshd(
        f"AllowUsers {LIVE_USER}",
        "AuthorizedKeysFile /tmp/authorized_keys",
        # Level 0, so that bash reads its start files (see SSHD_CONFIGURATION).
        f"SetEnv {MARK}={folder} TMPDIR=/tmp SHLVL=0",
    )
