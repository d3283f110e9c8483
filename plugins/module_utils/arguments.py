# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The arguments of the modules of transfers, for Ansible. The action plugin and the module of one name take the same."""

from __future__ import annotations

from typing import Any

from .disk.identity import DISK_ARGUMENTS
from .engine.goal import DISCARD, UNUSED
from .engine.level import AUTO

TCP = "tcp"
SSH = "ssh"
TRANSPORTS = (TCP, SSH)
PARAMIKO = "paramiko"
OPENSSH = "openssh"
SSH_CLIENTS = (PARAMIKO, OPENSSH)

COMMON_ARGUMENTS: dict[str, Any] = {
    **DISK_ARGUMENTS,
    "store": {"type": "path", "default": "~/fleet-images"},
    "port": {"type": "int", "default": 19000},
    "transport": {"type": "str", "choices": list(TRANSPORTS), "default": TCP},
    "ssh_client": {"type": "str", "choices": list(SSH_CLIENTS), "default": PARAMIKO},
    "link_timeout": {"type": "int", "default": 120},
    "ticket": {"type": "path"},
}

CAPTURE_ARGUMENTS: dict[str, Any] = dict(
    COMMON_ARGUMENTS,
    image={"type": "str", "required": True},
    compression_level={"type": "str", "default": AUTO},
    used_map={"type": "str", "choices": ["auto", "all"], "default": "auto"},
    update={"type": "bool", "default": False},
    facts={"type": "dict", "default": {}},
    bad_sectors={"type": "str", "choices": ["fail", "zero"], "default": "fail"},
)

RESTORE_ARGUMENTS: dict[str, Any] = dict(
    COMMON_ARGUMENTS,
    image={"type": "str", "required": True},
    read_back={"type": "bool", "default": True},
    unused={"type": "str", "choices": list(UNUSED), "default": DISCARD},
    rewrite={"type": "bool", "default": False},
    root_digest={"type": "str", "default": ""},
    mirror={"type": "str", "default": ""},
)

CAPTURE = "capture"
RESTORE = "restore"

PROBE_ARGUMENTS: dict[str, Any] = dict(
    COMMON_ARGUMENTS,
    purpose={"type": "str", "choices": [CAPTURE, RESTORE], "required": True},
    image={"type": "str"},
    laptops={"type": "int", "default": 1},
    forks={"type": "int", "default": 64},
    compression_level={"type": "str", "default": AUTO},
    used_map={"type": "str", "choices": ["auto", "all"], "default": "auto"},
)
