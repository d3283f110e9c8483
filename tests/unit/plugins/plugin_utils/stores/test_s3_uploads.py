# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Uploads that break off and go on in a later run, to a real server with the API of S3."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.action import image_info, image_upload
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.staged_file import StagedFile
from ansible_collections.fleet.imaging.plugins.plugin_utils import verify_images
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats.importing import ImportRequest, import_file
from ansible_collections.fleet.imaging.plugins.plugin_utils.laptop_answer import documented_fields
from ansible_collections.fleet.imaging.plugins.plugin_utils.recompress import recompress
from ansible_collections.fleet.imaging.plugins.plugin_utils.run_command import run_command
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores import s3_parts
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.base import Store, UnfinishedUpload
from ansible_collections.fleet.imaging.plugins.plugin_utils.verify_images import verify_image
from ansible_collections.fleet.imaging.tests.lab.servers import BUCKET, Server, s3_client
from ansible_collections.fleet.imaging.tests.unit.plugins.module_utils.samples import Used, make_image

from ...action.running import run_action
from ..halves import capture
from .conftest import store_at
from .network import Network

pytestmark = pytest.mark.usefixtures("keys", "_small_parts")

PART = 5 << 20
"""The smallest part that the API allows."""

SIZE = 16 << 20
"""Bytes of a disk whose content can't be compressed, so its image has four parts."""


@pytest.fixture(name="_small_parts")
def fixture_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four parts, one after the other."""
    monkeypatch.setattr(s3_parts, "PART_SIZE", PART)
    monkeypatch.setattr(verify_images, "WORKERS", 1)


@pytest.fixture(name="place")
def fixture_place(s3: Server, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A store that no other test has, behind a network; what it says is in ``said``."""
    network, said = Network(s3), list[str]()
    prefix = tmp_path.name.replace("_", "-")

    def opened(staging: str = "staging") -> Store:
        store = store_at(f"s3://{BUCKET}/{prefix}", ca=s3.ca, endpoint=network.url, staging=str(tmp_path / staging))
        store.say = said.append
        return store

    target = {"Bucket": BUCKET, "Key": f"{prefix}/image.img.zst"}
    yield SimpleNamespace(network=network, open=opened, said=said, client=s3_client(s3), target=target)
    network.proxy.close()


def content(seed: int) -> bytes:
    return random.Random(seed).randbytes(SIZE)


def staged(store: Store, seed: int, name: str = "image") -> tuple[StagedFile, bytes]:
    """The image of a disk, written as by a capture; returns its root digest, too."""
    file = store.stage(name)
    made = f"{file.partial}.made"
    root, _masked = make_image(made, content(seed), Used((0, SIZE)))
    file.file.write(Path(made).read_bytes())
    file.file.flush()
    os.unlink(made)
    return file, root


def put(store: Store, seed: int, replaced: Any = None) -> bytes:
    """Put an image into a store."""
    file, root = staged(store, seed)
    try:
        file.commit(replaced)
    finally:
        file.release(keep=False)
    return root


def broken(place: SimpleNamespace, seed: int = 1) -> tuple[Store, bytes]:
    """An upload of an image that broke off after two parts of four, in a run that is over."""
    store = place.open()
    place.network.rest = 12 << 20
    file, root = staged(store, seed)
    with pytest.raises(UnfinishedUpload, match=r"kept as .*\.upload .*imaging_uploads: finish") as caught:
        file.commit(None)
    assert caught.value.facts["codes"] == ["store_not_writable", "upload_unfinished"]
    assert caught.value.kept_bytes > SIZE
    file.release(keep=True)
    place.network.rest, place.network.sent = None, 0
    return place.open(), root


def uploads(place: SimpleNamespace) -> list[str]:
    """The names that the server has for uploads of the image that did not end."""
    found = place.client.list_multipart_uploads(Bucket=BUCKET, Prefix=place.target["Key"])
    return [upload["UploadId"] for upload in found.get("Uploads", ())]


def check_stored(place: SimpleNamespace, store: Store, root: bytes, name: str = "image") -> None:
    """The image is whole, and nothing else is left."""
    image = store.open(name)
    verify_image(image)
    assert image.root_digest == root
    assert os.listdir(store.folder) == [] and store.unfinished_uploads() == [] and uploads(place) == []


def test_an_upload_that_broke_off_is_listed_and_finished_with_the_parts_that_are_missing(
    place: SimpleNamespace,
) -> None:
    store, root = broken(place)
    (facts,) = store.unfinished_uploads()
    assert (facts.name, facts.root_digest, facts.running, facts.error) == ("image", root.hex(), False, "")
    assert facts.sent_bytes == 2 * PART and facts.stored_bytes > SIZE
    with pytest.raises(ImagingError, match=r"no image 'image'.* did not end: run images.yml") as caught:
        store.open("image")
    assert caught.value.facts["codes"] == ["no_image"]
    reports: list[tuple[int, int]] = []
    store.on_upload = lambda *report: reports.append(report)
    place.network.sent = 0
    store.finish_upload("image")
    assert reports[0] == (facts.sent_bytes, facts.stored_bytes) and reports[-1] == (facts.stored_bytes,) * 2
    assert place.network.sent < facts.stored_bytes - facts.sent_bytes + (1 << 20)
    assert "goes on: 10.0 of 16." in place.said[-1]
    check_stored(place, store, root)
    with pytest.raises(ImagingError, match="no unfinished upload of 'image'"):
        store.finish_upload("image")


def test_an_upload_whose_process_was_killed_is_finished(place: SimpleNamespace) -> None:
    file, root = staged(place.open(), 1)
    copy = Path(file.partial).read_bytes()
    file.remove()
    child = os.fork()
    if child == 0:  # with connections of its own
        store = place.open()
        store.on_upload = lambda done, _total: os.kill(os.getpid(), signal.SIGKILL) if done else None
        file = store.stage("image")
        file.file.write(copy)
        file.file.flush()
        file.commit(None)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    store = place.open()
    (facts,) = store.unfinished_uploads()
    assert facts.sent_bytes and not facts.running
    store.finish_upload("image")
    check_stored(place, store, root)


@pytest.mark.parametrize("changed", [False, True])
def test_the_next_capture_sends_the_rest_of_the_file_unless_the_disk_has_changed(
    laptop: SimpleNamespace, place: SimpleNamespace, changed: bool
) -> None:
    laptop.store = place.open()
    laptop.disk.write_bytes(content(1))
    used = Used((0, SIZE))
    place.network.rest = 12 << 20
    with pytest.raises(UnfinishedUpload):
        capture(laptop, used=used)
    place.network.rest = None
    place.target["Key"] = place.target["Key"].replace("image", "captured")
    (before,) = uploads(place)
    if changed:
        with laptop.disk.open("r+b") as disk:
            disk.write(b"changed")
    laptop.store = place.open()
    place.network.sent = 0
    result, _ends = capture(laptop, used=used)
    chunks = SIZE // (64 << 10)
    assert result["changed"] and result["kept"] == chunks - changed and result["sent"] < 1 << 20
    assert (place.network.sent < 13 << 20) is not changed
    check_stored(place, laptop.store, bytes.fromhex(result["root_digest"]), "captured")
    assert before not in uploads(place)


def test_an_import_sends_the_rest_of_the_file_unless_its_source_has_changed(
    place: SimpleNamespace, tmp_path: Path
) -> None:
    request = ImportRequest(str(tmp_path / "disk.img"), "image", used_map="all")
    (tmp_path / "disk.img").write_bytes(content(1))
    for seed in (1, 2):
        place.network.rest = 12 << 20
        with pytest.raises(UnfinishedUpload):
            import_file(run_command, place.open(), request)
        place.network.rest = None
        (tmp_path / "disk.img").touch()
        if seed == 2:
            (tmp_path / "disk.img").write_bytes(content(2))
    done = import_file(run_command, place.open(), request)
    assert done is not None and done.changed
    check_stored(place, place.open(), done.image.root_digest)


def test_compressing_anew_sends_the_rest_of_the_file_and_leaves_another_image_alone(place: SimpleNamespace) -> None:
    root = put(place.open(), 1)
    place.network.rest = 12 << 20
    with pytest.raises(UnfinishedUpload):
        recompress(place.open(), "image", 1)
    place.network.rest, place.network.sent = None, 0
    with pytest.raises(ImagingError, match=r"another image 'image' .* did not end"):
        recompress(place.open(), "image", 2)
    place.network.sent = 0
    assert recompress(place.open(), "image", 1).header.compression_level == 1
    assert place.network.sent < 13 << 20
    check_stored(place, place.open(), root)


def test_a_part_that_is_not_what_the_file_has_is_sent_again(place: SimpleNamespace) -> None:
    store, root = broken(place)
    (upload,) = uploads(place)
    place.client.upload_part(**place.target, UploadId=upload, PartNumber=1, Body=bytes(PART))
    place.client.upload_part(**place.target, UploadId=upload, PartNumber=4, Body=b"short")
    store.finish_upload("image")
    check_stored(place, store, root)


def test_when_the_server_has_dropped_the_parts_all_are_sent(place: SimpleNamespace) -> None:
    store, root = broken(place)
    (upload,) = uploads(place)
    place.client.abort_multipart_upload(**place.target, UploadId=upload)
    assert store.unfinished_uploads()[0].sent_bytes is None
    store.finish_upload("image")
    assert "begins anew" in place.said[-1]
    check_stored(place, store, root)


def test_when_the_server_drops_the_parts_meanwhile_the_next_attempt_sends_all(place: SimpleNamespace) -> None:
    store, root = broken(place)

    def drop(done: int, total: int) -> None:
        if done == total:
            for upload in uploads(place):
                place.client.abort_multipart_upload(**place.target, UploadId=upload)

    store.on_upload = drop
    with pytest.raises(UnfinishedUpload, match="has dropped what it had of the upload"):
        store.finish_upload("image")
    assert not store.has("image")
    place.open().finish_upload("image")
    check_stored(place, store, root)


def test_a_file_that_was_changed_is_not_uploaded(place: SimpleNamespace) -> None:
    store, _root = broken(place)
    path = store.unfinished_uploads()[0].path
    with open(path, "r+b") as file:
        file.seek(9 << 20)
        file.write(b"changed")
    with pytest.raises(ImagingError, match="no unfinished upload"):
        store.finish_upload("image")
    assert "is damaged" in place.said[-1] and "not used, and was removed" in place.said[-1]
    assert os.listdir(store.folder) == [] and uploads(place) == [] and not store.has("image")


def test_a_note_that_is_damaged_is_shown_and_can_be_dropped(place: SimpleNamespace) -> None:
    store, _root = broken(place)
    path = store.unfinished_uploads()[0].path
    for note in (b"{}", b"[]", b"\xff", b'{"store": 1}'):
        Path(f"{path}.json").write_bytes(note)
        assert "missing or damaged" in store.unfinished_uploads()[0].error
    store.drop_upload("image")
    assert os.listdir(store.folder) == []


def test_an_image_that_appeared_meanwhile_stays_until_a_capture_may_replace_it(
    laptop: SimpleNamespace, place: SimpleNamespace
) -> None:
    store, root = broken(place)
    other = put(place.open("elsewhere"), 2)
    with pytest.raises(UnfinishedUpload, match=r"created or changed meanwhile, and was left.*imaging_update") as caught:
        store.finish_upload("image")
    assert caught.value.facts["codes"] == ["upload_unfinished"]
    assert store.open("image").root_digest == other and uploads(place) == []
    image = store.existing("image", update=True)
    file = store.stage("image")
    assert image is not None and file.finished is not None and file.finished.reader.root_digest == root
    file.finished.commit(image.source.version)
    file.remove()
    check_stored(place, store, root)


def test_two_runs_do_not_work_on_one_upload(place: SimpleNamespace) -> None:
    store, root = broken(place)
    first = store.stage("image")
    assert store.unfinished_uploads()[0].running
    for attempt in (store.stage, store.finish_upload, store.drop_upload):
        with pytest.raises(ImagingError, match="another run works on this image"):
            attempt("image")
    first.release(keep=False)
    store.finish_upload("image")
    check_stored(place, store, root)


def test_an_upload_that_was_completed_without_an_answer_is_not_sent_again(
    place: SimpleNamespace, tmp_path: Path
) -> None:
    store, root = broken(place)
    shutil.copytree(store.folder, tmp_path / "copy")
    store.finish_upload("image")
    shutil.copytree(tmp_path / "copy", store.folder, dirs_exist_ok=True)
    place.network.sent = 0
    store.finish_upload("image")
    assert place.network.sent < 1 << 20
    check_stored(place, store, root)


def test_stores_with_one_folder_do_not_take_each_others_uploads(place: SimpleNamespace, s3: Server) -> None:
    store, root = broken(place)
    other = store_at(f"s3://{BUCKET}", ca=s3.ca, endpoint=place.network.url, staging=store.folder)
    assert other.unfinished_uploads() == []
    file = other.stage("image")
    assert file.finished is None
    file.release(keep=False)
    store.finish_upload("image")
    check_stored(place, store, root)


@pytest.mark.parametrize("drop", [False, True])
def test_tasks_list_finish_and_drop_uploads(place: SimpleNamespace, s3: Server, drop: bool) -> None:
    store, root = broken(place)
    arguments = {
        "store": store.path,
        "store_ca": s3.ca,
        "store_endpoint": place.network.url,
        "store_staging": store.folder,
    }
    listed = run_action(image_info.ActionModule, "image_info", arguments)
    (upload,) = listed["uploads"]
    assert listed["images"] == [] and upload["root_digest"] == root.hex()
    assert upload.keys() == documented_fields("image_info")["uploads"]["contains"].keys()
    arguments["drop"] = drop
    run = [
        run_action(image_upload.ActionModule, "image_upload", arguments, check_mode=check) for check in (True, False)
    ]
    assert run[0] == run[1] and run[0]["changed"] and run[0]["uploads"] == [upload]
    assert run[0].keys() - {"changed"} == documented_fields("image_upload").keys() - {"codes"}
    if drop:
        assert os.listdir(store.folder) == [] and uploads(place) == [] and not store.has("image")
    else:
        check_stored(place, store, root)
    assert not run_action(image_upload.ActionModule, "image_upload", arguments)["changed"]
