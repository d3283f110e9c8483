# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images in a bucket, on a real server with the API of S3 that checks signatures, conditions and parts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import Unreadable
from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_image import STORE
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import DEFAULTS
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats.importing import ImportRequest, import_file
from ansible_collections.fleet.imaging.plugins.plugin_utils.recompress import recompress
from ansible_collections.fleet.imaging.plugins.plugin_utils.run_command import run_command
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores import base, s3_bucket, s3_parts
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores import s3 as s3_module
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.base import Store
from ansible_collections.fleet.imaging.plugins.plugin_utils.verify_images import verify_image
from ansible_collections.fleet.imaging.tests.lab.servers import BUCKET, S3_KEYS, Server, s3_client
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.range_server import serving
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.samples import Used, make_image, noise

from ..halves import DISK, SIZE, USED, capture, disk_is_restored, restore
from .conftest import store_at

pytestmark = pytest.mark.usefixtures("keys")


@pytest.fixture(name="store")
def fixture_store(s3: Server, tmp_path: Path) -> Store:
    """A store that no other test has."""
    return store_at(f"s3://{BUCKET}/{tmp_path.name}/", ca=s3.ca, endpoint=s3.url, staging=str(tmp_path / "staging"))


def put(store: Store, name: str, seed: int, replaced: Any = None) -> bytes:
    """Put an image into a store as a capture does; returns its root digest."""
    staged = store.stage(name)
    made = f"{staged.partial}.made"
    root, _masked = make_image(made, noise(SIZE, seed), USED)
    staged.file.write(Path(made).read_bytes())
    os.unlink(made)
    staged.file.flush()
    try:
        staged.commit(replaced)
    finally:
        staged.release(keep=False)
    return root


def test_images_are_put_listed_read_and_removed(store: Store, s3: Server) -> None:
    assert store.names() == [] and not store.has("one")
    root = put(store, "one", 1)
    put(store, "two", 2)
    deeper = store_at(f"{store.path}/deeper", ca=s3.ca, endpoint=s3.url)
    s3_client(s3).put_object(Bucket=BUCKET, Key=f"{store.path.partition(BUCKET)[2][1:]}/three.txt", Body=b"")
    assert store.names() == ["one", "two"] and store.has("one") and deeper.names() == []
    image = store.open("one")
    verify_image(image)
    assert image.root_digest == root
    assert os.listdir(store.folder) == []
    store.remove("one")
    assert store.names() == ["two"]
    for attempt in (store.open, store.remove):
        with pytest.raises(ImagingError, match=r"no image 'one' in s3://.* There are: two\.") as caught:
            attempt("one")
        assert caught.value.facts["codes"] == ["no_image"]


def test_an_image_that_appeared_or_changed_meanwhile_is_left_as_it_is(store: Store, s3: Server) -> None:
    put(store, "image", 1)
    image = store.open("image")
    version = image.source.version
    root = put(store, "image", 2, version)
    for replaced in (None, version):
        with pytest.raises(ImagingError, match="was created or changed meanwhile, and was left"):
            put(store, "image", 3, replaced)
    assert store.open("image").root_digest == root
    with pytest.raises(Unreadable, match="changed while it was read"):
        verify_image(image)
    assert "Uploads" not in s3_client(s3).list_multipart_uploads(Bucket=BUCKET)


def test_an_upload_that_was_killed_leaves_no_image_and_is_tidied_up_by_the_next_which_tells_how_it_gets_on(
    store: Store, s3: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = s3_client(s3)
    target = {"Bucket": BUCKET, "Key": store.image_path("image").partition(f"{BUCKET}/")[2]}
    upload = client.create_multipart_upload(**target)["UploadId"]
    client.upload_part(**target, UploadId=upload, PartNumber=1, Body=bytes(5 << 20))
    assert not store.has("image") and store.names() == []
    monkeypatch.setattr(s3_parts, "PART_SIZE", 5 << 20)
    reports: list[tuple[int, int]] = []
    store.on_upload = lambda done, total: reports.append((done, total))
    put(store, "image", 1)
    size = store.open("image").source.size
    assert reports == [(0, size), *((done, size) for done in range(5 << 20, size, 5 << 20)), (size, size)]
    assert "Uploads" not in client.list_multipart_uploads(Bucket=BUCKET)


def test_a_capture_goes_to_the_bucket_and_the_next_one_takes_what_did_not_change(
    laptop: SimpleNamespace, store: Store
) -> None:
    laptop.store = store
    first, _ends = capture(laptop)
    assert (first["changed"], first["kept"], store.names()) == (True, 0, ["captured"])
    again, _ends = capture(laptop)
    assert not again["changed"] and again["kept"] == len(store.open("captured").index)
    with laptop.disk.open("r+b") as disk:
        disk.write(noise(512, 77))
    changed, _ends = capture(laptop)
    assert changed["changed"] and changed["kept"] == again["kept"] - 1
    verify_image(store.open("captured"))
    assert os.listdir(store.folder) == []


def test_an_image_that_another_program_has_uploaded_is_read(store: Store, s3: Server, tmp_path: Path) -> None:
    root, _masked = make_image(str(tmp_path / "image"), DISK, USED)
    s3_client(s3).upload_file(str(tmp_path / "image"), BUCKET, store.image_path("image").partition(f"{BUCKET}/")[2])
    assert store.open("image").root_digest == root


def test_a_file_is_imported_into_the_bucket(store: Store, tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(DISK)
    request = ImportRequest(str(tmp_path / "disk.img"), used_map="all")
    done = import_file(run_command, store, request)
    assert done is not None and done.changed
    assert store.names() == ["disk"] and os.listdir(store.folder) == []
    verify_image(store.open("disk"))


def test_an_image_is_compressed_anew(store: Store) -> None:
    root, before = put(store, "image", 1), store.open("image")
    made = recompress(store, "image", 1)
    assert (made.root_digest, made.header.compression_level) == (root, 1) != (root, before.header.compression_level)
    assert os.listdir(store.folder) == []


def test_a_laptop_reads_the_image_by_a_signed_url_and_has_no_keys(laptop: SimpleNamespace, store: Store) -> None:
    staged = store.stage("image")
    laptop.root, _masked = make_image(f"{staged.partial}.made", DISK, USED)
    staged.file.write(Path(f"{staged.partial}.made").read_bytes())
    staged.file.flush()
    staged.commit(None)
    laptop.store = store
    location = store.http_location("image")
    assert location is not None and not location.token and S3_KEYS["AWS_SECRET_ACCESS_KEY"] not in location.url
    result, _ends = restore(laptop, servers={STORE: location})
    assert result["verified"] and disk_is_restored(laptop)
    assert result["frame_bytes"]["controller"] == 0 < result["frame_bytes"][STORE] and result["warnings"] == []


def test_after_a_signature_has_expired_the_controller_signs_anew_and_sends_the_rest(
    laptop: SimpleNamespace, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "image", 1)
    with monkeypatch.context() as patched:
        patched.setattr(s3_module, "SIGNED_SECONDS", 1)
        location, image = store.http_location("image"), store.open("image")
    assert location is not None
    while time.time() % 1 > 0.1:  # the server counts in whole seconds
        time.sleep(0.02)
    time.sleep(2)
    verify_image(image)
    laptop.store, laptop.root = store, image.root_digest
    result, _ends = restore(laptop, servers={STORE: location})
    assert result["verified"] and result["frame_bytes"][STORE] == 0 < result["frame_bytes"]["controller"]
    (warning,) = result["warnings"]
    assert "wrong or expired credentials" in warning and "Signature" not in warning


@pytest.mark.parametrize(
    ("variables", "location", "attempt", "said", "code"),
    [
        (
            {},
            "s3://nowhere-at-all",
            lambda store: store.names(),
            "there is no bucket nowhere-at-all; create",
            "unreadable_image",
        ),
        (
            {},
            "s3://nowhere-at-all",
            lambda store: store.open("x"),
            "there is no bucket nowhere-at-all; create",
            "unreadable_image",
        ),
        (
            {},
            "s3://nowhere-at-all",
            lambda store: store.existing("x", False),
            "no bucket nowhere-at-all",
            "store_not_writable",
        ),
        (
            {"AWS_SECRET_ACCESS_KEY": "wrong"},
            f"s3://{BUCKET}",
            lambda store: store.names(),
            "signature",
            "unreadable_image",
        ),
        (
            {"AWS_SECRET_ACCESS_KEY": "wrong"},
            f"s3://{BUCKET}",
            lambda store: store.open("x"),
            "wrong or expired",
            "unreadable_image",
        ),
        (
            {"AWS_ACCESS_KEY_ID": ""},
            f"s3://{BUCKET}",
            lambda store: store.names(),
            "no credentials for S3. Set AWS_PROFILE",
            "unreadable_image",
        ),
        (
            {"AWS_PROFILE": "none"},
            f"s3://{BUCKET}",
            lambda store: store.names(),
            "profile .none. could not be found",
            "unreadable_image",
        ),
    ],
)
def test_what_can_not_be_reached_says_why(
    s3: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    location: str,
    attempt: Callable[[Store], object],
    said: str,
    code: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
        if not value:
            monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
            monkeypatch.delenv(name)
    store = store_at(location, ca=s3.ca, endpoint=s3.url, staging=str(tmp_path))
    with pytest.raises(ImagingError, match=f"(?i){said}") as caught:
        attempt(store)
    assert caught.value.facts["codes"] == [code]


def test_a_slow_server_that_none_can_replace_is_read_with_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a rate at which a laptop would go to the controller."""
    monkeypatch.setattr(base, "DEFAULTS", replace(DEFAULTS, http_silence=0.4))
    root, _masked = make_image(str(tmp_path / "image.img.zst"), noise(1 << 20), Used((0, 1 << 20)), 1 << 20)

    def slowly(offset: int, data: bytes) -> bytes:
        time.sleep(0.05)  # 320 KiB a second
        return data

    with serving(str(tmp_path)) as server:
        image = store_at(f"s3://{BUCKET}", endpoint=server.url).open("image")
        server.spoil = slowly
        verify_image(image)
    assert image.root_digest == root


NOTHING = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


@pytest.mark.parametrize(("status", "code"), [(429, "TooManyRequests"), (503, "SlowDown"), (503, "")])
def test_a_busy_server_is_asked_again(tmp_path: Path, status: int, code: str) -> None:
    """A proxy before it may answer without the words of S3."""
    asked: list[float] = []

    def answer(handler: Any) -> bool:
        asked.append(time.monotonic())
        busy = len(asked) < 3
        body = f"<Error><Code>{code}</Code></Error>".encode() if code else b"busy"
        handler.send_response(status if busy else 200)
        handler.send_header("Content-Length", str(len(body if busy else NOTHING)))
        handler.send_header("Retry-After", "1")
        handler.end_headers()
        handler.wfile.write(body if busy else NOTHING)
        return True

    with serving(str(tmp_path)) as server:
        server.answer = answer
        assert store_at(f"s3://{BUCKET}", endpoint=server.url).names() == []
    assert len(asked) == 3


def test_a_server_with_another_certificate_is_refused(s3: Server) -> None:
    with pytest.raises(Unreadable, match=r"(?i)certificate.verify.failed"):
        store_at(f"s3://{BUCKET}", endpoint=s3.url).names()


def test_without_boto3_there_is_a_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_bucket, "sdk", lambda: None)
    with pytest.raises(ImagingError, match=r"needs boto3 on this machine.*pip install boto3"):
        store_at(f"s3://{BUCKET}").names()
