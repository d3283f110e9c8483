# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What faces the outside: each target takes any bytes and may raise ImagingError, or nothing at all, and has to hold what it promises.

A broken promise is an AssertionError; anything else that comes out of a target is a crash.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import http.client
import io
import json
import lzma
import os
import ssl
import struct
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import zstandard

from ansible_collections.fleet.imaging.plugins.action.image_info import describe_image
from ansible_collections.fleet.imaging.plugins.module_utils.disk import devices, hive_log
from ansible_collections.fleet.imaging.plugins.module_utils.disk.command import CommandResult
from ansible_collections.fleet.imaging.plugins.module_utils.disk.filesystems.fat_volume import WritableFat
from ansible_collections.fleet.imaging.plugins.module_utils.disk.hive import MAX_DATA_SIZE, Hive
from ansible_collections.fleet.imaging.plugins.module_utils.disk.partclone import parse_map
from ansible_collections.fleet.imaging.plugins.module_utils.disk.partition_table import NO_TABLE, parse_partition_table
from ansible_collections.fleet.imaging.plugins.module_utils.engine.status import STREAMING, Status
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.geometry import Geometry
from ansible_collections.fleet.imaging.plugins.module_utils.image.header import ImageHeader
from ansible_collections.fleet.imaging.plugins.module_utils.image.index import Index, max_index_size
from ansible_collections.fleet.imaging.plugins.module_utils.image.partial import PartialImage
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import BadImage, ImageReader, check_record
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import (
    SKIPPABLE,
    USED,
    ZERO,
    RecordHeader,
    max_frame_size,
    pack_ranges,
    unpack_ranges,
    zeros_hash,
)
from ansible_collections.fleet.imaging.plugins.module_utils.image.seek_table import FOOTER, SeekTable
from ansible_collections.fleet.imaging.plugins.module_utils.image.staged_file import StagedFile
from ansible_collections.fleet.imaging.plugins.module_utils.image.writer import ImageWriter
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.view import ExpectedView
from ansible_collections.fleet.imaging.plugins.module_utils.printable import printable, printable_all
from ansible_collections.fleet.imaging.plugins.module_utils.serving.server import serve, serve_live
from ansible_collections.fleet.imaging.plugins.module_utils.sources.base import NotSent
from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_file import HttpFile, HttpLocation
from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_image import MIRROR, HttpImage
from ansible_collections.fleet.imaging.plugins.module_utils.sources.peers import PeerSource
from ansible_collections.fleet.imaging.plugins.module_utils.stream.conversation import (
    ask_header,
    expect,
    receive_index,
    receive_record,
)
from ansible_collections.fleet.imaging.plugins.module_utils.stream.credentials import LAPTOP, THE_CONTROLLER, Name
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import (
    HEAD,
    MAX_BODY_SIZE,
    MAX_OTHER_PAYLOAD_SIZE,
    MAX_PAYLOAD_SIZE,
    Kind,
    Link,
)
from ansible_collections.fleet.imaging.plugins.module_utils.stream.relaying import (
    Loss,
    Upstream,
    unpack_lack,
    unpack_loss,
    unpack_upstream,
)
from ansible_collections.fleet.imaging.plugins.module_utils.stream.tls import accept_tls, connect_tls
from ansible_collections.fleet.imaging.plugins.module_utils.zstd import find_zstd
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats import compressions, decompress
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats.detect import DiskImageFile
from ansible_collections.fleet.imaging.plugins.plugin_utils.run_authority import Authority
from ansible_collections.fleet.imaging.tests.lab import hives, registry

CHUNK = 64 << 10
SIZE = 5 * CHUNK + 512
GEOMETRY = Geometry(SIZE, 512, 512, CHUNK)
STREAM = b"stream01"
NAME = Name(LAPTOP, "lab-01")
ROOM = memoryview(bytearray(MAX_BODY_SIZE))


@dataclass(frozen=True)
class Target:
    """A function that takes any bytes, and bytes that it understands, to begin from."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


class Bytes:
    """An image file in memory (``image.reader.ByteSource``)."""

    def __init__(self, data: bytes) -> None:
        self.name = "image"
        self.size = len(data)
        self.version = None
        self._data = data

    def fileno(self) -> int:
        """There is none."""
        return -1

    def plan(self, start: int, end: int) -> None:
        """Nothing has to be requested."""

    def read_range(self, offset: int, size: int) -> bytes:
        """As of a file."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise BadImage("the file ends before")
        return self._data[offset : offset + size]


class Stream:
    """A channel on which given bytes arrive (``stream.link.Channel``); what is sent goes nowhere."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def sendall(self, data: bytes | memoryview, /) -> None:
        """Nothing."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """The next bytes."""
        count = min(len(buffer), len(self._data), 1000)
        buffer[:count] = self._data[:count]
        self._data = self._data[count:]
        return count

    def readable(self) -> bool:
        """Always."""
        return True

    def settimeout(self, seconds: float | None, /) -> None:
        """Nothing."""

    def end_sending(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing more arrives."""
        self._data = memoryview(b"")


@cache
def image() -> bytes:
    """A small sound image, with a chunk of zeros, partly used and unused ones."""
    codec = find_zstd().codec()
    with tempfile.TemporaryDirectory() as folder:
        staged = StagedFile(os.path.join(folder, "a.img.zst"))
        writer = ImageWriter(staged, header(), codec)
        for chunk, ranges in ((0, [(0, CHUNK)]), (1, [(0, CHUNK)]), (3, [(512, 1024), (4096, 8192)]), (5, [(0, 512)])):
            length = GEOMETRY.length(chunk)
            content = bytearray(length)
            if chunk != 1:
                for start, end in ranges:
                    content[start:end] = hashlib.sha256(bytes([chunk])).digest() * ((end - start) // 32)
            frame = codec.compress(memoryview(content), 3)
            digest = hashlib.sha256(content).digest()
            flags = USED if any(content) else USED | ZERO
            packed = pack_ranges(ranges, length)
            frame_hash = hashlib.sha256(frame).digest()
            record = RecordHeader(chunk, flags, packed, length, digest, len(frame), frame_hash, STREAM)
            writer.append(record, frame)
        writer.finish({"used_bytes": 1})
        staged.commit(None)
        return Path(staged.path).read_bytes()


def header() -> ImageHeader:
    """Its header."""
    seen = {"type": "ext4", "uuid": "1-2", "label": "x", "partition_table": "", "stray": "", "ambivalent": False}
    partitions = [
        {"number": 1, "start": 0, "size": 512, "seen": seen},
        {"number": 2, "start": 512, "size": 512, "content": "swap", "label": ""},
    ]
    source = {"host": "h", "serial": "s", "partitions": partitions, "seen": seen, "blkid": "2.38.1"}
    table = {"label": "gpt", "partitions": [{"node": "/dev/sdq1", "start": 0, "size": 1, "type": "83", "uuid": "3"}]}
    bad_ranges = [{"start": 0, "end": 512, "partition": "partition 1"}]
    return ImageHeader(GEOMETRY, STREAM, "2026-01-02T03:04:05Z", table, source, "1", bad_ranges)


def run_header(data: bytes) -> None:
    """An image's header is read, and written again is the same."""
    found = ImageHeader.unpack(data)
    assert ImageHeader.unpack(found.pack()) == found


def run_view(data: bytes) -> None:
    """What a header says of its disk's view is compared with a machine that sees nothing, in words that a terminal can show, or refused."""

    def sees_nothing(command: Any) -> CommandResult:
        return CommandResult(2, "", "") if command[0] == "blkid" else CommandResult(1, "", NO_TABLE)

    found = ExpectedView(ImageHeader.unpack(data), GEOMETRY.disk_size).compare(sees_nothing, os.devnull, lambda: None)
    assert all(sentence.isprintable() for sentence in (*found.differences, *found.doubts))


def run_record(data: bytes) -> None:
    """A record's header is read, and written again is the same; its ranges lie inside the chunk."""
    framed = bool(data[:1] < b"\x80")
    found = RecordHeader.unpack(data[1:], GEOMETRY, STREAM, framed)
    assert found.pack() == data[1:]
    if found.flags & USED:
        assert all(0 <= start < end <= CHUNK for start, end in unpack_ranges(found.ranges, found.content_size))


def records() -> list[bytes]:
    """Headers of records, with a byte before that says whether a frame follows."""
    digest = hashlib.sha256(b"x").digest()
    ranges = pack_ranges([(0, 512), (1024, 4096)], CHUNK)
    return [
        b"\x00" + RecordHeader(3, USED, ranges, CHUNK, digest, 100, digest, STREAM).pack(),
        b"\x00" + RecordHeader(1, USED | ZERO, b"", CHUNK, zeros_hash(CHUNK), 30, digest, STREAM).pack(),
        b"\xff" + RecordHeader(5, USED, b"", 512, digest, 0, bytes(32), STREAM).pack(),
    ]


def run_index(data: bytes) -> None:
    """An index is read, and written again is the same."""
    packed = header().pack()
    found = Index.unpack(data, packed, GEOMETRY)
    assert [row.chunk for row in found] == sorted({row.chunk for row in found})
    again = Index(GEOMETRY)
    again.totals = found.totals
    for row in found:
        again.append(row)
    assert again.root_digest() == found.root_digest()


def run_reader(data: bytes) -> None:
    """An image is read as a whole, and listed; a record that is believed decodes to what its hash says."""
    reader = ImageReader(Bytes(data))
    json.dumps(printable_all(describe_image(reader)))
    codec, room = find_zstd().codec(), memoryview(bytearray(reader.header.geometry.chunk_size))
    for record in reader.all_records():
        check_record(reader, record, codec, room)
    for row in reader.index:
        reader.check_frame(reader.record(row))


def run_partial(data: bytes) -> None:
    """What a capture has left is read up to where it broke off."""
    found = PartialImage(Bytes(data))
    for row in found.index:
        found.check_frame(found.record(row))


@cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The settings of TLS for a laptop that listens, and for the controller."""
    authority = Authority()
    return authority.issue(NAME).context(server_side=True), authority.controller.context(server_side=False)


def run_accept(data: bytes) -> None:
    """Nobody without a certificate gets in."""
    accept_tls(Stream(data), contexts()[0], lambda name: True)
    raise AssertionError("a stranger was let in")


def run_connect(data: bytes) -> None:
    """Nobody without a certificate is believed to be the module."""
    connect_tls(Stream(data), contexts()[1], NAME)
    raise AssertionError("a stranger was believed")


class Recorder(Stream):
    """A stream that keeps what is sent."""

    sent = b""

    def sendall(self, data: bytes | memoryview, /) -> None:
        """Keep it."""
        self.sent += bytes(data)


@cache
def first_flights() -> tuple[bytes, bytes]:
    """What the ends of a real handshake send first: a ClientHello, and the answer to it."""
    client = Recorder(b"")
    with contextlib.suppress(ImagingError):
        connect_tls(client, contexts()[1], NAME)
    server = Recorder(client.sent)
    with contextlib.suppress(ImagingError):
        accept_tls(server, contexts()[0], lambda name: True)
    return client.sent, server.sent


def messages(data: bytes) -> bytes:
    """Bytes as messages: kind, size of payload and body, payload, and so on."""
    out = []
    while len(data) >= 4:
        kind, size, body = struct.unpack_from("<BHB", data)
        payload, data = data[4 : 4 + size], data[4 + size :]
        out.append(HEAD.pack(kind, len(payload), body) + payload + data[:body])
        data = data[body:]
    return b"".join(out)


def said(*parts: tuple[Kind, bytes]) -> bytes:
    """The opposite: what stands for messages."""
    return b"".join(struct.pack("<BHB", kind, len(payload), 0) + payload for kind, payload in parts)


REPORT = Status(STREAMING, 1, 2, 1, 2, 1.5, {"read": {"busy": 1.0, "wait": 0.5, "cpu": 0.1}})


class Answers:
    """A source that has little to say (``serving.server.LiveSource``)."""

    chunk_count = 10
    max_known_size = 1 << 20

    def header(self) -> bytes:
        """Something."""
        return b"header"

    def index(self) -> bytes:
        """Something."""
        return b"index"

    def known(self, packed_header: bytes, packed_index: bytes) -> None:
        """Read it, as a laptop does."""
        geometry = ImageHeader.unpack(packed_header).geometry
        Index.unpack(packed_index, packed_header, geometry)

    def report(self) -> bytes:
        """Nothing."""
        return b""

    def conclude(self) -> Iterator[bytes]:
        return iter(())

    def records(self, start: int, end: int) -> Generator[tuple[bytes, bytes | None], None, None]:
        """A few, whatever is asked for."""
        assert 0 <= start <= end <= self.chunk_count
        for chunk in range(start, min(end, start + 2)):
            yield b"record", b"frame" if chunk % 2 else None

    def on_damaged(self, chunk: int) -> None:
        """One of the disk's."""
        assert 0 <= chunk < self.chunk_count


def linked(data: bytes) -> Link:
    """A link on which these bytes arrive."""
    return Link(Stream(data), THE_CONTROLLER)


def run_link(data: bytes) -> None:
    """Messages have a known kind and are no larger than theirs may be, whatever bytes arrive."""
    link = linked(data)
    try:
        while True:
            message = link.receive()
            assert len(message.payload) <= MAX_PAYLOAD_SIZE.get(message.kind, MAX_OTHER_PAYLOAD_SIZE)
            assert message.body_size <= MAX_BODY_SIZE * (message.kind == Kind.RECORD)
            link.receive_body(ROOM[: message.body_size])
    finally:
        link.close()


def run_source(data: bytes) -> None:
    """A controller that serves an image hears anything that a laptop may say."""
    link = linked(messages(data))
    try:
        serve(link, Answers(), Status.unpack)
    finally:
        link.close()


def run_live_source(data: bytes) -> None:
    """A laptop that serves its disk hears anything that a controller may say."""
    link = linked(messages(data))
    try:
        serve_live(link, Answers())
    finally:
        link.close()


def run_sink(data: bytes) -> None:
    """A sink hears anything that its source may say."""
    link = linked(messages(data))
    room = memoryview(bytearray(CHUNK * 2))

    def unpack(payload: bytes) -> RecordHeader:
        return RecordHeader.unpack(payload, GEOMETRY, STREAM)

    def kept(payload: bytes) -> None:
        RecordHeader.unpack(payload, GEOMETRY, STREAM, framed=False)

    try:
        packed = ask_header(link)
        found = ImageHeader.unpack(packed)
        index = receive_index(link, max_index_size(found.geometry))
        if index:
            Index.unpack(index, packed, found.geometry)
        while receive_record(link, unpack, room, kept, Status.unpack) is not None:
            pass
        expect(link, Kind.DONE)
    finally:
        link.close()


def sink_seeds() -> list[bytes]:
    """A conversation as it should be, and one that ends."""
    framed = records()[0][1:]
    body = struct.pack("<BHB", Kind.RECORD, len(framed), 100) + framed + bytes(100)
    described = said((Kind.HEADER, header().pack()), (Kind.INDEX, b""))
    return [
        described
        + body
        + said((Kind.PROGRESS, REPORT.pack()), (Kind.KEPT, records()[2][1:]), (Kind.SERVED, b""), (Kind.DONE, b"")),
        described + said((Kind.PING, b""), (Kind.END, b"enough")),
    ]


def source_seeds() -> list[bytes]:
    """What a sink says."""
    return [
        said((Kind.DESCRIBE, b""), (Kind.WANT, struct.pack("<4I", 0, 2, 4, 9)), (Kind.DONE, b"")),
        said((Kind.HEADER, header().pack()), (Kind.INDEX, b"x"), (Kind.INDEX, b""), (Kind.PROGRESS, REPORT.pack())),
        said((Kind.DAMAGED, bytes(4)), (Kind.PING, b""), (Kind.END, b"enough")),
    ]


def run_upstream(data: bytes) -> None:
    """A laptop learns a name, an IP address and a port, or nothing; packed and read again they are the same."""
    found = unpack_upstream(data)
    if found is not None:
        assert unpack_upstream(found.pack()) == found


def run_lost(data: bytes) -> None:
    """The controller learns of a loss; packed and read again it is the same."""
    found = unpack_loss(data)
    assert unpack_loss(found.pack()) == found


def run_lack(data: bytes) -> None:
    """Each four bytes are the number of a chunk."""
    assert b"".join(struct.pack("<I", chunk) for chunk in unpack_lack(data)) == data


ASKED = (0, 3, 4)


def run_peer(data: bytes) -> None:
    """Whatever another laptop says, only chunks that were asked for come from there, each once, or will not come; then the laptop is left."""
    losses: list[Loss] = []
    source = PeerSource(lambda upstream: linked(messages(data)), header(), losses.append)
    source.start()
    source.request(ASKED)
    source.assign(LAPTOP_ABOVE)
    left = set(ASKED)
    while left and not losses:
        try:
            found = source.receive(ROOM)
            assert found is not None
            left.remove(found.chunk)
        except NotSent as error:
            left.difference_update(error.chunks)
    assert source._lacking <= set(ASKED)
    source.stop()


LAPTOP_ABOVE = Upstream("lab-00", "198.18.0.10", 19000)
LOSS = Loss("lab-00", "The link broke.", reached=True, damage=False)


def peer_seeds() -> list[bytes]:
    """A record that was asked for, one that was not, and what the laptop lacks."""
    lacking = said((Kind.PING, b""), (Kind.LACK, struct.pack("<3I", 0, 4, 1 << 31)))

    def record(packed: bytes, frame_size: int) -> bytes:
        return struct.pack("<BHB", Kind.RECORD, len(packed) - 1, frame_size) + packed[1:] + bytes(frame_size)

    asked, other = record(records()[0], 100), record(records()[1], 30)
    return [lacking + other + asked + asked, asked + said((Kind.END, b"enough"))]


class Canned:
    """A socket of an HTTP client, on which given answers come whatever is asked."""

    def __init__(self, answers: io.BytesIO) -> None:
        self._answers = answers

    def makefile(self, _mode: str) -> io.BufferedReader:
        """A reader of its own, which can be closed."""
        return io.BufferedReader(Unclosed(self._answers))

    def sendall(self, data: bytes) -> None:
        """Nobody hears it."""

    def settimeout(self, seconds: float) -> None:
        """Nothing is waited for."""

    def close(self) -> None:
        """Nothing is kept."""


class Unclosed(io.RawIOBase):
    """One byte of a file at a time, so that no reader takes more of it than it wants."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next byte."""
        return self._file.readinto(memoryview(buffer)[:1])


def run_mirror(data: bytes) -> None:
    """Whatever an HTTP server answers gives records that fit their place, or makes it fail."""
    answers = io.BytesIO(data)

    def connect(connection: http.client.HTTPConnection) -> None:
        connection.sock = Canned(answers)

    room = memoryview(bytearray(max_frame_size(CHUNK)))
    with patch.object(http.client.HTTPConnection, "connect", connect):
        source = HttpImage(
            MIRROR,
            HttpFile(HttpLocation(url="http://mirror/image.img.zst"), 10.0),
            ImageReader(Bytes(image())).index,
            str,
        )
        chunks = [chunk for chunk in (0, 1, 3, 5) if source.has(chunk)]
        source.request(chunks)
        for chunk in chunks:
            header = source.receive(room)
            assert header is not None and header.chunk == chunk and header.frame_size <= len(room)


def mirror_seeds() -> list[bytes]:
    """The answers of a server that has the image, as they are asked for, and a redirect."""
    content, reader = image(), ImageReader(Bytes(image()))
    table = SeekTable.size_of(2 + 2 * GEOMETRY.chunk_count)
    size, header = len(content), SKIPPABLE.size + len(reader.packed_header)
    index = SKIPPABLE.size + len(reader.packed_index)
    end = size - table
    first = next(iter(reader.index)).record_offset
    ranges = [
        (0, 1),
        (size - FOOTER.size, size),
        (0, SKIPPABLE.size),
        (0, header),
        (end, size),
        (end - index, end),
        (first, end - index),
    ]
    answers = b"".join(
        f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{stop - 1}/{size}\r\n"
        f"Content-Length: {stop - start}\r\n\r\n".encode()
        + content[start:stop]
        for start, stop in ranges
    )
    redirect = b"HTTP/1.1 302 Found\r\nLocation: http://other/image\r\nContent-Length: 0\r\n\r\n"
    return [answers, redirect + answers]


def run_map(data: bytes) -> None:
    """A used map covers all of the partition, in order, or is refused."""
    size = 1 << 24
    position = 0
    for start, end in parse_map(data.decode("ascii", errors="replace").splitlines(keepends=True), size):
        assert position <= start < end <= size
        position = end


def map_seeds() -> list[bytes]:
    """A map as partclone writes it."""
    rows = ["0x00000000  0x00125000  +", "0x00125000  0x006DB000  ?", "0x00800000  0x00700000  +"]
    return ["\n".join(["# Domain logfile", "0x00F00000     ?", "#      pos        size  status", *rows, ""]).encode()]


def run_lsblk(data: bytes) -> None:
    """Whatever lsblk says becomes disks with sizes and texts, or is refused."""

    def answer(command: Any) -> CommandResult:
        return CommandResult(0 if command[0] == "lsblk" else 1, data.decode(errors="replace"), "")

    for disk in devices.list_disks(answer):
        assert disk.size >= 0
        assert printable(disk.model) == disk.model and printable(disk.serial) == disk.serial


def lsblk_seeds() -> list[bytes]:
    """What it says, new and old."""
    row = {
        "name": "sdq",
        "kname": "sdq",
        "type": "disk",
        "size": 1 << 30,
        "log-sec": 512,
        "phy-sec": 4096,
        "rota": True,
    }
    old = {key: str(value) for key, value in row.items()}
    children = [{"name": "sdq1", "kname": "sdq1", "type": "part", "size": 512, "fstype": "ext4", "label": "x"}]
    return [json.dumps({"blockdevices": [{**each, "children": children}]}).encode() for each in (row, old)]


def run_sfdisk(data: bytes) -> None:
    """Whatever sfdisk says, and whatever lies on the disk, becomes partitions in order, or is refused."""
    text, _separator, disk = data.partition(b"\0")
    size = 1 << 26
    read = (disk + bytes(4096)).__getitem__

    table = parse_partition_table(
        text.decode(errors="replace"),
        "/dev/sdq",
        size,
        512,
        lambda offset, length: read(slice(offset, offset + length)),
    )
    starts = [partition.start for partition in table.partitions]
    assert starts == sorted(starts)
    assert all(0 <= start <= end <= size for start, end in (*table.metadata_ranges, *table.hybrid_ranges))


def sfdisk_seeds() -> list[bytes]:
    """A GPT, and a DOS table with logical partitions."""
    entry = {"node": "/dev/sdq1", "start": 2048, "size": 4096, "type": "0FC63DAF-8483-4772-8E79-3D69D8477DE4"}
    gpt = {"label": "gpt", "device": "/dev/sdq", "unit": "sectors", "sectorsize": 512, "partitions": [entry]}
    logical = {"node": "/dev/sdq5", "start": 4096, "size": 1024, "type": "83"}
    dos = {"label": "dos", "unit": "sectors", "partitions": [{**entry, "type": "f"}, logical]}
    gpt_header = struct.pack("<8s24xQ32xQII", b"EFI PART", 131071, 2, 128, 128)
    disk = bytes(446) + bytes(4) + b"\xee" + bytes(59) + b"\x55\xaa" + gpt_header + bytes(2048)
    return [json.dumps({"partitiontable": table}).encode() + b"\0" + disk for table in (gpt, dos)]


COMPRESSED = list(compressions.COMPRESSIONS)
MAX_PIECE_SIZE = 33 << 20
ENOUGH = 64 << 20


def run_unpack(data: bytes) -> None:
    """A compressed file, whose format the first byte chooses, is unpacked in pieces of a bounded size, or refused."""
    source = DiskImageFile("file", COMPRESSED[data[0] % len(COMPRESSED) if data else 0], len(data), 0)
    with patch.object(compressions, "MAX_WINDOW_SIZE", 64 << 20):  # what is taken is no more than what may be
        total = 0
        for piece in decompress.decompressed(io.BytesIO(data[1:]), source):
            assert len(piece) <= MAX_PIECE_SIZE
            total += len(piece)
            if total > ENOUGH:
                return


def unpack_seeds() -> list[bytes]:
    """One stream of each format, and two."""
    text = b"some text, again and again, " * 20 + bytes(3000)
    zstd = zstandard.ZstdCompressor(write_checksum=True)
    packers: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress,
        "bzip2": bz2.compress,
        "xz": lzma.compress,
        "zstd": zstd.compress,
    }
    return [bytes([COMPRESSED.index(name)]) + packers[name](text) * times for name in COMPRESSED for times in (1, 2)]


def run_hive(data: bytes) -> None:
    """A hive and a log of it, whose checksums and hashes are right, say texts of a bounded length, or are refused."""
    size = int.from_bytes(data[:4], "little")
    log, hive = (part if len(part) < 512 else hives.sealed(part) for part in (data[4 : 4 + size], data[4 + size :]))
    with patch.object(hive_log, "marvin32", lambda _data: bytes(8)):
        found = Hive(io.BytesIO(hive), [log])
        for key in ("Setup", r"ControlSet001\Control\Session Manager\Environment", "Nothing"):
            for name in ("SetupType", "CmdLine", "PROCESSOR_ARCHITECTURE"):
                assert len(found.value(key, name)) <= MAX_DATA_SIZE


def hive_seeds() -> list[bytes]:
    """A hive that was written wholly, and ones that need a log in the new and in the old format."""
    old, new = hives.make_hive(registry.SYSTEM), hives.make_hive({**registry.SYSTEM, "Setup": {"SetupType": 0}})
    entries = bytearray(hives.new_log([old, new], 1))
    entries[512 + 24 : 512 + 40] = bytes(16)
    parts = [(b"", old), (bytes(entries), hives.unwritten(old)), (hives.old_log(old, new), hives.unwritten(old))]
    return [struct.pack("<I", len(log)) + log + hive for log, hive in parts]


def run_fat(data: bytes) -> None:
    """Whatever a FAT holds is read, and a file is written into it, or it is refused."""
    descriptor = os.memfd_create("fat")
    try:
        os.write(descriptor, data)
        fat = WritableFat(descriptor)
        for entry in fat.entries():
            if not entry.folder:
                assert sum(map(len, fat.content(entry))) == entry.size <= len(data)
            elif entry.cluster:
                fat.entries(entry.cluster)
        fat.write(fat.make_folder(WritableFat.ROOT, "folder"), "a name that is longer.efi", b"content" * 100)
        assert os.lseek(descriptor, 0, os.SEEK_END) == len(data)
    finally:
        os.close(descriptor)


def fat_seeds() -> list[bytes]:
    """A FAT12 and a FAT32 with few clusters, both with a folder and files."""
    seeds = []
    for sectors, table_16, table_32, roots in ((28, 1, 0, 16), (30, 0, 1, 0)):
        boot = bytearray(512)
        struct.pack_into("<HBHBHHBH8xII4xI", boot, 11, 512, 1, 1, 2, roots, sectors, 0xF8, table_16, 0, table_32, 2)
        descriptor = os.memfd_create("fat")
        table = b"\xf8\xff\xff" if table_16 else struct.pack("<III", 0x0FFFFFF8, 0x0FFFFFFF, 0x0FFFFFFF)
        os.write(descriptor, (bytes(boot) + table.ljust(512, b"\0") * 2).ljust(sectors * 512, b"\0"))
        fat = WritableFat(descriptor)
        fat.write(WritableFat.ROOT, "FILE.TXT", b"text" * 300)
        fat.write(fat.make_folder(WritableFat.ROOT, "a folder"), "file", b"x")
        seeds.append(os.pread(descriptor, sectors * 512, 0))
        os.close(descriptor)
    return seeds


TARGETS = {
    "header": Target(run_header, lambda: [header().pack(), header().pack(2000)]),
    "view": Target(run_view, lambda: [header().pack()]),
    "record": Target(run_record, records),
    "index": Target(run_index, lambda: [index_seed()]),
    "image": Target(run_reader, lambda: [image()]),
    "partial": Target(run_partial, lambda: [image(), image()[: len(image()) // 2]]),
    "handshake-listening": Target(run_accept, lambda: [first_flights()[0]]),
    "handshake-connecting": Target(run_connect, lambda: [first_flights()[1]]),
    "link": Target(run_link, lambda: [messages(sink_seeds()[0]), bytes(100)]),
    "source": Target(run_source, source_seeds),
    "live-source": Target(run_live_source, source_seeds),
    "sink": Target(run_sink, sink_seeds),
    "upstream": Target(run_upstream, lambda: [LAPTOP_ABOVE.pack(), b""]),
    "lost": Target(run_lost, lambda: [LOSS.pack()]),
    "lack": Target(run_lack, lambda: [struct.pack("<3I", 0, 4, 1 << 31)]),
    "peer": Target(run_peer, peer_seeds),
    "mirror": Target(run_mirror, mirror_seeds),
    "partclone-map": Target(run_map, map_seeds),
    "lsblk": Target(run_lsblk, lsblk_seeds),
    "sfdisk": Target(run_sfdisk, sfdisk_seeds),
    "unpack": Target(run_unpack, unpack_seeds),
    "hive": Target(run_hive, hive_seeds),
    "fat": Target(run_fat, fat_seeds),
}


def index_seed() -> bytes:
    """The index of the small image."""
    reader = ImageReader(Bytes(image()))
    index = Index(GEOMETRY)
    for row in reader.index:
        index.append(row)
    return index.pack(header().pack())


def attempt(target: Target, data: bytes) -> bool:
    """Give a target some bytes; returns whether it took them, rather than refusing them."""
    try:
        target.run(data)
    except ImagingError:
        return False
    return True
