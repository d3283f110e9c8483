# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments of modules, for Ansible: those that several modules take, and those of the modules whose action plugin takes them as well."""

from __future__ import annotations

from typing import Any

from .disk.identity import DISK_ARGUMENTS
from .engine.goal import DISCARD, UNUSED
from .engine.level import AUTO
from .stream.listener import LOOPBACK
from .timeouts import DEFAULTS

TCP = "tcp"
SSH = "ssh"
ANY_ADDRESS = ""
TRANSPORTS = {TCP: ANY_ADDRESS, SSH: LOOPBACK}
"""How the controller reaches the laptop's port, and the address on which the laptop then listens (empty: all of its addresses)."""

PARAMIKO = "paramiko"
OPENSSH = "openssh"
SSH_CLIENTS = (PARAMIKO, OPENSSH)

RELAY_AUTO = "auto"
RELAY_OFF = "off"
RELAY = (RELAY_AUTO, RELAY_OFF)

CAPTURE = "capture"
RESTORE = "restore"

BEGUN = "begun"
ENDED = "ended"

FOLDER = "~/fleet-images"

STORE: dict[str, Any] = {
    "store": {"type": "str", "default": FOLDER},
    "store_ca": {"type": "path", "default": ""},
    "store_certificate": {"type": "path", "default": ""},
    "store_key": {"type": "path", "default": "", "no_log": False},
    "store_token": {"type": "path", "default": "", "no_log": False},
    "store_endpoint": {"type": "str", "default": ""},
    "store_staging": {"type": "path", "default": FOLDER},
}
"""How the image store is reached. None of these is a secret: certificates, key and token are in files on the controller."""

TRANSFER: dict[str, Any] = {
    "port": {"type": "int", "default": 19000},
    "transport": {"type": "str", "choices": list(TRANSPORTS), "default": TCP},
    "ssh_client": {"type": "str", "choices": list(SSH_CLIENTS), "default": PARAMIKO},
    "link_timeout": {"type": "int", "default": int(DEFAULTS.link_timeout)},
}

ENCODING: dict[str, Any] = {
    "compression_level": {"type": "str", "default": AUTO},
    "used_map": {"type": "str", "choices": ["auto", "all"], "default": "auto"},
}

UPDATE: dict[str, Any] = {"update": {"type": "bool", "default": False}}

SHARING: dict[str, Any] = {"bad_sectors": {"type": "str", "choices": ["fail", "zero"], "default": "fail"}}

CAPTURING: dict[str, Any] = {**UPDATE, **SHARING}

PASSING_ON: dict[str, Any] = {
    "relay": {"type": "str", "choices": list(RELAY), "default": RELAY_AUTO},
}

RESTORING: dict[str, Any] = {
    "unused": {"type": "str", "choices": list(UNUSED), "default": DISCARD},
    "rewrite": {"type": "bool", "default": False},
    "mirror": {"type": "str", "default": ""},
    "site": {"type": "str", "default": ""},
}

SETTABLE: dict[str, dict[str, Any]] = {
    "store": STORE,
    "transfer": TRANSFER,
    "encoding": ENCODING,
    "relay": PASSING_ON,
    "image_capture": CAPTURING,
    "image_import": UPDATE,
    "image_restore": RESTORING,
    "image_share": SHARING,
}
"""The arguments with a variable of the playbooks, by the action group (meta/runtime.yml) or the one module that takes them."""

BOUNDS = {"port": (0, 65535), "link_timeout": (5, 24 * 3600)}
"""The least and the greatest value of an argument that is a number, both included."""

BOTH_ENDS: dict[str, Any] = {**DISK_ARGUMENTS, **STORE, **TRANSFER, "ticket": {"type": "path"}}

CAPTURE_ARGUMENTS: dict[str, Any] = {
    **BOTH_ENDS,
    **ENCODING,
    **CAPTURING,
    "image": {"type": "str", "required": True},
    "facts": {"type": "dict", "default": {}},
}

RESTORE_ARGUMENTS: dict[str, Any] = {
    **BOTH_ENDS,
    **PASSING_ON,
    **RESTORING,
    "image": {"type": "str", "required": True},
    "read_back": {"type": "bool", "default": True},
    "root_digest": {"type": "str", "default": ""},
    "shared": {"type": "bool", "default": False},
}

SHARE_ARGUMENTS: dict[str, Any] = {
    **DISK_ARGUMENTS,
    **TRANSFER,
    **ENCODING,
    **SHARING,
    "ticket": {"type": "path"},
    "facts": {"type": "dict", "default": {}},
    "state": {"type": "str", "choices": [BEGUN, ENDED], "default": BEGUN},
}

PROBE_ARGUMENTS: dict[str, Any] = {
    **BOTH_ENDS,
    **ENCODING,
    "purpose": {"type": "str", "choices": [CAPTURE, RESTORE], "required": True},
    "image": {"type": "str"},
    **PASSING_ON,
    "laptops": {"type": "int", "default": 1},
    "forks": {"type": "int", "default": 64},
}
