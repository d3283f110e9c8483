# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which kind of store a location is of."""

from __future__ import annotations

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.folder import FolderStore
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.https import HttpsStore
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.registry import report_folder
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.s3 import S3Store

from .conftest import store_at


@pytest.mark.parametrize(
    ("location", "kind", "path"),
    [
        ("/a/b", FolderStore, "/a/b/x.img.zst"),
        ("https://host/folder/", HttpsStore, "https://host/folder/x.img.zst"),
        ("https://[fe80::1]:8443", HttpsStore, "https://[fe80::1]:8443/x.img.zst"),
        ("s3://my-bucket", S3Store, "s3://my-bucket/x.img.zst"),
        ("s3://my.bucket/a/b/", S3Store, "s3://my.bucket/a/b/x.img.zst"),
    ],
)
def test_a_location_says_what_kind_of_store_it_is(location: str, kind: type, path: str) -> None:
    store = store_at(location)
    assert store.__class__ is kind and store.image_path("x") == path


@pytest.mark.parametrize(
    "location",
    [
        "",
        " ",
        "http://host/folder",
        "ftp://host/folder",
        "https://",
        "https://user:secret@host/folder",
        "https://host/a?b=secret",
        "https://host/a#b",
        "https://host:0/a",
        "https://host:99999/a",
        "s3://",
        "s3://A",
        "s3://under_score",
        "s3://bucket//a",
        "s3://bucket/a?b",
    ],
)
def test_what_is_no_location_is_refused(location: str) -> None:
    with pytest.raises(
        ImagingError, match="not an image store: expected the path of a folder, or https://HOST/FOLDER"
    ) as caught:
        store_at(location)
    assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match="not an image store") as again:
        report_folder(location, "/nowhere")
    assert "secret" not in str(again.value)
