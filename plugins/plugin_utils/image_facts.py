# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Describes an image, with a file or without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ansible_collections.fleet.imaging.plugins.module_utils.disk.loaders import boot_choices
from ansible_collections.fleet.imaging.plugins.module_utils.engine.resize import image_facts
from ansible_collections.fleet.imaging.plugins.module_utils.image.header import ImageHeader
from ansible_collections.fleet.imaging.plugins.module_utils.image.index import Index


def describe_system(said: Mapping[str, Any]) -> str:
    """Return the description of an operating system from an image's header."""
    known = [
        said.get("edition"),
        f"build {said['build']}" if said.get("build") else "",
        said.get("architecture"),
        said.get("computer_name"),
    ]
    shared = said.get("shared")
    what = [str(each.get("what")) for each in shared if isinstance(each, dict)] if isinstance(shared, list) else []
    known.append(f"copies share {', '.join(dict.fromkeys(what))}" if what else "")
    words = ", ".join(str(word) for word in known if word)
    return f"{said.get('name') or 'unknown'}{f' ({words})' if words else ''}"


def describe(header: ImageHeader, index: Index) -> dict[str, Any]:
    """Return what header and index say of an image."""
    source = header.source
    return {
        **{key: value for key, value in asdict(image_facts(header, index)).items() if key != "name"},
        "created": header.created,
        "source_model": str(source.get("model") or ""),
        "disk_size": header.geometry.disk_size,
        "used_bytes": index.used_bytes(),
        "used_chunks": len(index),
        "generalization": str(source.get("generalization") or "unknown"),
        "systems": [describe_system(each) for each in source.get("systems") or () if isinstance(each, Mapping)],
        "boot_order": [choice.to_json() for choice in boot_choices(source.get("boot_order"))],
        "bad_ranges": [dict(each) for each in header.bad_ranges],
        "root_digest": index.root_digest().hex(),
    }
