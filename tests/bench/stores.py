# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long one laptop and eight laptops at one site take from an image store on a server, against the controller's folder.

As in ``fleet``, each laptop, the controller and the server have a link of one low rate, so that the processors of this machine are not the limit.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_file import HttpLocation
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.base import Store, StoreAccess
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.https import HttpsStore
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.s3 import S3Store

from ..lab.servers import BUCKET, S3_KEYS, nginx, s3_client, s3_server
from .fleet import StoreServer, make_image, run_fleet
from .speed import Say
from .state import Bar

COUNTS = (1, 8)
SECONDS = 45.0
"""About how long one laptop alone takes."""


def measure_stores(folder: Path, say: Say, seconds: float = SECONDS) -> list[Bar]:
    """Measure the controller's folder, nginx and SeaweedFS in turn."""
    store = make_image(folder, seconds)
    bars = []
    for count in COUNTS:
        controller = run_fleet(folder, store, count)
        say(f"stores: {count} from the controller take {controller.slowest:.1f} s")
        for name, server in _servers(folder, store).items():
            found = run_fleet(folder, store, count, server=server)
            details = asdict(found) | {"controller": asdict(controller)}
            ratio, what = found.slowest / controller.slowest, f"{count} from {name}"
            bars.append(Bar(f"stores-{count}", f"{what} against the controller", ratio, 1.05, details=details))
            bars.append(Bar(f"stores-{count}", f"{what}, sent by it", found.images_of_store, 1.2, "images"))
            bars.append(Bar(f"stores-{count}", f"{what}, sent by the controller", found.images, 0.2, "images"))
            say(
                f"stores: {what} take {found.slowest:.1f} s, {ratio:.3f} x, it sent {found.images_of_store:.2f} images and the controller "
                f"{found.images:.2f}"
            )
    return bars


def _servers(folder: Path, store: Path) -> dict[str, StoreServer]:
    """Return the servers by the names that are shown."""
    (image,) = store.iterdir()
    name = image.name.partition(".")[0]

    def place(kind: str) -> Path:
        path = folder / f"{kind}-{len(list(folder.iterdir()))}"
        path.mkdir()
        return path

    @contextlib.contextmanager
    def https(inside: Sequence[str], address: str) -> Iterator[HttpLocation]:
        with nginx(place("nginx"), str(store), address, inside) as server:
            yield _location(HttpsStore(server.url, StoreAccess(ca=server.ca)), name)

    @contextlib.contextmanager
    def s3(inside: Sequence[str], address: str) -> Iterator[HttpLocation]:
        with s3_server(place("s3"), address, inside) as server:
            os.environ.update(S3_KEYS)
            bucket = S3Store(f"s3://{BUCKET}", StoreAccess(ca=server.ca, endpoint=server.url))
            s3_client(server).upload_file(str(image), BUCKET, image.name)
            yield _location(bucket, name)

    return {"nginx": https, "S3": s3}


def _location(store: Store, image: str) -> HttpLocation:
    location = store.http_location(image)
    assert location is not None
    return location
