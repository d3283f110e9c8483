# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks with images on servers: SeaweedFS with the API of S3, and nginx. Nothing secret may be seen or left."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path
from types import SimpleNamespace

import pytest

from ansible_collections.fleet.imaging.tests.integration.faults import tickets
from ansible_collections.fleet.imaging.tests.integration.playbooks import LOCAL_TEMP, YES, Outcome, playbook
from ansible_collections.fleet.imaging.tests.lab.lab import Lab
from ansible_collections.fleet.imaging.tests.lab.network import PREFIX_LENGTH
from ansible_collections.fleet.imaging.tests.lab.servers import (
    BUCKET,
    S3_KEYS,
    TOKEN,
    Server,
    nginx,
    s3_client,
    s3_server,
)
from ansible_collections.fleet.imaging.tests.unit.plugins.plugin_utils.stores.network import Network

SECRETS = (S3_KEYS["AWS_SECRET_ACCESS_KEY"], TOKEN, "X-Amz-Signature", "PRIVATE KEY")


@pytest.fixture(scope="module", name="servers")
def fixture_servers(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Both servers, where the laptops reach them."""
    folder, laptop = tmp_path_factory.mktemp("servers"), lab.targets[0]
    address = str(ip_interface(f"{laptop.address}/{PREFIX_LENGTH}").network[1]) if laptop.isolated else "127.0.0.1"
    for name in ("s3", "nginx", "images"):
        (folder / name).mkdir()
    (folder / "token").write_text(TOKEN)
    with s3_server(folder / "s3", address) as s3, nginx(folder / "nginx", str(folder / "images"), address) as web:
        yield SimpleNamespace(s3=s3, web=web, folder=folder)


def holding_secrets(folder: Path) -> list[Path]:
    """The files below a folder that hold a secret: a laptop's own key of SSH is not one of ours."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.stat().st_size < 1 << 20)
    secrets = [secret.replace("PRIVATE KEY", "BEGIN PRIVATE KEY").encode() for secret in SECRETS]
    return [path for path in paths if any(secret in path.read_bytes() for secret in secrets)]


def settings_of(server: Server) -> dict[str, str]:
    """The variables of a store in S3."""
    return {
        "imaging_store": f"s3://{BUCKET}/fleet",
        "imaging_store_endpoint": server.url,
        "imaging_store_ca": server.ca,
    }


def run(
    lab: Lab, servers: SimpleNamespace, name: str, settings: dict[str, str], *arguments: str, status: int = 0
) -> Outcome:
    """Run a playbook, which ends with a status, with everything that Ansible can show of it."""
    more = {"imaging_store_staging": str(servers.folder / "staging"), **settings}
    variables = [text for key, value in more.items() for text in ("-e", f"{key}={value}")]
    outcome = playbook(lab, name, *variables, *YES, "-vvvv", *arguments, environment=S3_KEYS)
    assert outcome.status == status, outcome.stdout + outcome.stderr
    shown = outcome.stdout + outcome.stderr + "".join(repr(result.result) for result in outcome.results)
    assert [secret for secret in SECRETS if secret in shown] == []
    return outcome


def test_an_image_is_captured_into_s3_and_restored_from_there_and_from_a_web_server(
    lab: Lab, servers: SimpleNamespace
) -> None:
    s3 = settings_of(servers.s3)
    outcome = run(lab, servers, "capture", {**s3, "imaging_image": "sent"})
    assert re.search("100 % .* uploading", outcome.stdout)
    captured = outcome.of("image_capture")[0].result
    assert captured["path"] == f"s3://{BUCKET}/fleet/sent.img.zst"
    assert os.listdir(servers.folder / "staging") == ["reports"]

    (listed,) = run(lab, servers, "images", s3, "-e", "imaging_verify_images=true").of("image_info")[0].result["images"]
    assert (listed["name"], listed["intact"]) == ("sent", True)

    first, second = lab.targets[:2]
    outcome = run(lab, servers, "restore", s3, "-l", first.name, "-e", "imaging_rewrite=true")
    result = outcome.of("image_restore", first.name)[0].result
    assert result["verified"] and result["root_digest"] == listed["root_digest"]
    assert result["frame_bytes"]["controller"] == 0 and result["frame_bytes"]["store"] > listed["stored_bytes"] / 2
    assert "straight from the store" in outcome.stdout

    image = servers.folder / "images" / "sent.img.zst"
    s3_client(servers.s3).download_file(BUCKET, "fleet/sent.img.zst", str(image))
    web = {
        "imaging_store": f"{servers.web.url}/token",
        "imaging_store_ca": servers.web.ca,
        "imaging_store_token": str(servers.folder / "token"),
        "imaging_image": "sent",
    }
    (found,) = run(lab, servers, "images", web, "-e", "imaging_verify_images=true").of("image_info")[0].result["images"]
    assert (found["name"], found["intact"], found["root_digest"]) == ("sent", True, listed["root_digest"])
    outcome = run(lab, servers, "restore", web, "-l", second.name, "-e", "imaging_rewrite=true")
    result = outcome.of("image_restore", second.name)[0].result
    assert result["verified"] and result["frame_bytes"]["controller"] == 0 < result["frame_bytes"]["store"]

    folders = [LOCAL_TEMP, servers.folder / "staging", *(laptop.folder for laptop in lab.laptops)]
    assert [str(path) for folder in folders for path in holding_secrets(folder)] == []

    run(lab, servers, "images", s3, "-e", '{"imaging_remove_images": ["sent"]}')
    assert s3_client(servers.s3).list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0
    assert [path for laptop in lab.laptops for path in tickets(laptop.folder)] == [*tickets(LOCAL_TEMP)] == []


def test_an_upload_that_broke_off_is_shown_and_finished_without_the_laptop(lab: Lab, servers: SimpleNamespace) -> None:
    network = Network(servers.s3)
    s3 = {**settings_of(servers.s3), "imaging_store_endpoint": network.url, "imaging_image": "cut"}
    try:
        network.rest = 1 << 20
        failed = run(lab, servers, "capture", s3, status=2).of("image_capture")[0].result
        assert failed["codes"] == ["store_not_writable", "upload_unfinished"] and failed["kept_bytes"] > 1 << 20
        assert "imaging_uploads: finish" in failed["msg"] and ".upload" in failed["msg"]
        network.rest = None
        every = {**s3, "imaging_image": ""}
        shown = run(lab, servers, "images", every)
        assert re.search(r"cut: its upload did not end.*imaging_uploads: finish", shown.stdout)
        assert shown.of("image_info")[0].result["images"] == []
        done = run(lab, servers, "images", every, "-e", "imaging_uploads=finish", "-e", "imaging_verify_images=true")
        (upload,) = done.of("image_upload")[0].result["uploads"]
        (image,) = done.of("image_info")[0].result["images"]
        assert (image["name"], image["intact"], image["root_digest"]) == ("cut", True, upload["root_digest"])
        assert done.of("image_info")[0].result["uploads"] == []
    finally:
        network.proxy.close()
