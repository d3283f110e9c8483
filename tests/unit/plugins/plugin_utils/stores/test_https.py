# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images on an HTTPS server: read by the controller, and by a laptop itself."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import ImageReader, Unreadable
from ansible_collections.fleet.imaging.plugins.module_utils.serving.stored import StoredSource
from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_file import HttpLocation
from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_image import STORE
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import DEFAULTS
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats.exporting import export_image
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores import base
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.folder import FolderStore
from ansible_collections.fleet.imaging.plugins.plugin_utils.verify_images import verify_image
from ansible_collections.fleet.imaging.tests.lab.servers import TOKEN, Authority
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.range_server import RangeServer, serving
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.samples import Used, make_image, noise

from ..halves import DISK, SIZE, TIMEOUTS, USED, disk_is_restored, restore
from .conftest import store_at


@pytest.fixture(name="image")
def fixture_image(site: SimpleNamespace) -> str:
    """The name of an image on the server, whose root digest is ``site.root``."""
    path = site.images / "image.img.zst"
    path.unlink(missing_ok=True)
    site.root, _masked = make_image(str(path), DISK, USED)
    return "image"


@pytest.fixture(name="token")
def fixture_token(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return str(path)


def test_an_image_is_read_in_few_requests(site: SimpleNamespace, image: str) -> None:
    opened = store_at(f"{site.server.url}/", ca=site.server.ca).open(image)
    before = len(site.server.log.read_text().splitlines())
    verify_image(opened)
    assert opened.root_digest == site.root
    assert len(site.server.log.read_text().splitlines()) - before <= 3 < len(opened.index)


def test_an_image_is_exported_like_a_file(site: SimpleNamespace, image: str, tmp_path: Path) -> None:
    export_image(store_at(site.server.url, ca=site.server.ca).open(image), str(tmp_path / "there"), "raw")
    export_image(FolderStore(str(site.images)).open(image), str(tmp_path / "here"), "raw")
    assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes() != bytes(SIZE)


def busy_once(server: RangeServer, seconds: int) -> None:
    """Have a server ask once for some seconds of time."""
    left = [True]

    def answer(handler: Any) -> bool:
        if not left:
            return False
        left.pop()
        handler.send_response(503)
        handler.send_header("Content-Length", "0")
        handler.send_header("Retry-After", str(seconds))
        handler.end_headers()
        return True

    server.answer = answer


def test_a_busy_server_is_waited_for_by_the_controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By HTTP, which a store in S3 may use."""
    monkeypatch.setattr(base, "DEFAULTS", replace(DEFAULTS, http_silence=1.5, http_busy=2.0))
    root, _masked = make_image(str(tmp_path / "image.img.zst"), DISK, USED)
    said: list[str] = []
    with serving(str(tmp_path)) as server:
        store = store_at("https://images.lab")
        store.say = said.append
        location = HttpLocation(url=f"{server.url}/image.img.zst")
        busy_once(server, 2)
        assert ImageReader(store.http_file(location)).root_digest == root
        assert len(said) == 1 and "busy (503)" in said[0]
        busy_once(server, 3)
        with pytest.raises(
            Unreadable, match=f"{server.url}/image.img.zst: .* asks for 3 more seconds, .* 2 at the most"
        ):
            store.http_file(location)


def test_a_busy_server_is_waited_for_by_a_laptop(laptop: SimpleNamespace) -> None:
    timeouts = replace(TIMEOUTS, http_silence=1.5, http_busy=2.0)
    with serving(laptop.store.path) as server:
        location = HttpLocation(url=f"{server.url}/image.img.zst")
        busy_once(server, 2)
        result, _ends = restore(laptop, servers={STORE: location}, timeouts=timeouts)
    assert result["verified"] and disk_is_restored(laptop)
    assert result["frame_bytes"]["controller"] == 0 < result["frame_bytes"][STORE]
    (warning,) = result["warnings"]
    assert "busy (503)" in warning


def test_who_proves_himself_may_read(site: SimpleNamespace, image: str, token: str) -> None:
    certificate, key = site.server.authority.issue("controller")
    for folder, proof in (
        ("token", {"token": token}),
        ("client", {"certificate": str(certificate), "key": str(key)}),
        ("moved", {}),
        ("moved/moved", {}),
    ):
        store = store_at(f"{site.server.url}/{folder}", ca=site.server.ca, **proof)
        assert store.has(image) and not store.has("another")
        assert store.open(image).root_digest == site.root


@pytest.mark.parametrize(
    ("folder", "access", "said", "code"),
    [
        ("", {"ca": ""}, "CERTIFICATE_VERIFY_FAILED", "unreadable_image"),
        ("", {"ca": "foreign"}, "CERTIFICATE_VERIFY_FAILED", "unreadable_image"),
        ("/token", {}, "wrong or expired credentials", "unreadable_image"),
        ("/token", {"token": "wrong"}, "wrong or expired credentials", "unreadable_image"),
        ("/client", {}, "403 Forbidden", "unreadable_image"),
        ("/client", {"token": "token"}, "403 Forbidden", "unreadable_image"),
        ("/whole", {}, "does not serve ranges", "unreadable_image"),
        ("/moved/" + "moved/" * 9, {}, "redirects more than 5 times", "unreadable_image"),
        ("/nowhere", {}, "no image 'image' in https", "no_image"),
    ],
)
def test_what_can_not_be_read_says_why(
    site: SimpleNamespace,
    image: str,
    token: str,
    tmp_path: Path,
    folder: str,
    access: dict[str, str],
    said: str,
    code: str,
) -> None:
    (tmp_path / "wrong").write_text(f"{TOKEN}x")
    files = {
        "wrong": str(tmp_path / "wrong"),
        "token": token,
        "foreign": str(Authority(tmp_path / "foreign").certificate),
        "": "",
    }
    store = store_at(
        site.server.url + folder, **{"ca": site.server.ca, **{name: files[value] for name, value in access.items()}}
    )
    with pytest.raises(ImagingError, match=said) as caught:
        store.open(image)
    assert caught.value.facts["codes"] == [code]
    assert TOKEN not in str(caught.value)


def test_a_certificate_is_of_the_host_that_was_asked_for(site: SimpleNamespace, image: str) -> None:
    elsewhere = site.server.url.replace("127.0.0.1", "localhost")
    with pytest.raises(ImagingError, match=r"CERTIFICATE_VERIFY_FAILED.*localhost"):
        store_at(elsewhere, ca=site.server.ca).open(image)


def test_a_server_that_can_not_be_reached_says_so() -> None:
    with pytest.raises(Unreadable, match=r"connection broke.*refused"):
        store_at("https://127.0.0.1:9").open("image")


def test_nothing_is_written_and_nothing_is_listed(site: SimpleNamespace, image: str) -> None:
    store = store_at(site.server.url, ca=site.server.ca)
    for attempt in (lambda: store.existing("new", False), lambda: store.stage("new"), lambda: store.remove(image)):
        with pytest.raises(ImagingError, match="is only read: set imaging_store to a folder") as caught:
            attempt()
        assert caught.value.facts["codes"] == ["store_not_writable"]
    with pytest.raises(ImagingError, match=r"can't be listed.*imaging_image"):
        store.names()


@pytest.mark.parametrize(
    ("access", "said"),
    [
        ({"ca": "nowhere"}, "imaging_store_ca is nowhere, which can't be read: No such file"),
        ({"token": "empty"}, "imaging_store_token is empty: expected a file of 1 to .* found nothing"),
        ({"token": "text"}, "imaging_store_token is text: expected one token"),
        ({"ca": "text"}, "certificates for https.* can't be used"),
        ({"certificate": "text", "key": "text"}, "certificates for https.* can't be used"),
        ({"key": "text"}, "imaging_store_key is set without imaging_store_certificate"),
    ],
)
def test_files_of_no_use_are_refused_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, access: dict[str, str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "text").write_text("not a certificate")
    with pytest.raises(ImagingError, match=said) as caught:
        store_at("https://127.0.0.1:9", **access).open("image")
    assert "not a certificate" not in str(caught.value)  # the wrong file may hold a secret, too


def restored(laptop: SimpleNamespace, site: SimpleNamespace, location: HttpLocation, **options: Any) -> Any:
    """Restore from the server, where the laptop goes to a location of its own; returns the result."""
    laptop.store = store_at(site.server.url, ca=site.server.ca)
    laptop.root = site.root
    return restore(laptop, servers={STORE: location}, **options)[0]


def test_a_laptop_reads_the_image_itself(
    laptop: SimpleNamespace, site: SimpleNamespace, image: str, token: str
) -> None:
    location = store_at(f"{site.server.url}/token", ca=site.server.ca, token=token).http_location(image)
    assert location is not None
    result = restored(laptop, site, location)
    assert result["verified"] and disk_is_restored(laptop)
    came = result["frame_bytes"]
    assert (came["controller"], result["warnings"]) == (0, []) and came[STORE] > SIZE / 4
    assert result["sent"] < 20_000 + 0.01 * came[STORE]


def test_a_laptop_that_does_not_reach_the_server_is_sent_the_image(
    laptop: SimpleNamespace, site: SimpleNamespace, image: str
) -> None:
    result = restored(laptop, site, HttpLocation(url="https://127.0.0.1:9/image.img.zst"))
    assert result["verified"] and disk_is_restored(laptop)
    came = result["frame_bytes"]
    assert came[STORE] == 0 and came["controller"] > SIZE / 4
    (warning,) = result["warnings"]
    assert "refused" in warning and "The controller sent what was still missing" in warning


def test_an_image_that_is_replaced_meanwhile_ends_the_restore(
    laptop: SimpleNamespace, site: SimpleNamespace, image: str, tmp_path: Path
) -> None:
    make_image(str(tmp_path / "other"), noise(SIZE, 9), Used((0, SIZE)))

    class Replaced(StoredSource):
        """Serves an image that is replaced when the laptop has its description."""

        def index(self) -> bytes:
            shutil.copy(tmp_path / "other", site.images / "copy")
            os.replace(site.images / "copy", site.images / "image.img.zst")
            return super().index()

    location = store_at(site.server.url, ca=site.server.ca).http_location(image)
    assert location is not None
    with pytest.raises(ImagingError, match="changed while it was read"):
        restored(laptop, site, location, source=Replaced)
    assert not disk_is_restored(laptop)
