# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers of images, each started once for all tests of stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import STORE
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.base import Store
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.registry import open_store
from ansible_collections.fleet.imaging.tests.lab.servers import S3_KEYS, Server, nginx, s3_server

from ..halves import made_laptop

DEFAULTS = {name: spec["default"] for name, spec in STORE.items()}


def store_at(location: str, **access: Any) -> Store:
    """The store at a location; ``access`` are settings without their prefix."""
    return open_store({**DEFAULTS, "store": location, **{f"store_{name}": value for name, value in access.items()}})


@pytest.fixture(name="laptop")
def fixture_laptop(tmp_path: Path) -> Iterator[SimpleNamespace]:
    with made_laptop(tmp_path) as laptop:
        yield laptop


@pytest.fixture(name="site", scope="session")
def fixture_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """An HTTPS server (``server``) of a folder (``images``)."""
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "images").mkdir()
    with nginx(folder, str(folder / "images")) as server:
        yield SimpleNamespace(server=server, images=folder / "images")


@pytest.fixture(name="s3", scope="session")
def fixture_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(name="keys")
def fixture_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys of the server alone, and nothing of what this machine is configured for."""
    nothing = {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    for name, value in {**S3_KEYS, **nothing, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
