# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import bz2
import functools
import gzip
import lzma
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
import zstandard

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.modules import image_export, image_import
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats import decompress, detect
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats.compressions import COMPRESSIONS
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats.detect import detect_format, name_for
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats.exporting import FORMATS

ROOT = Path(__file__).resolve().parents[5]

CONTENT = os.urandom(300_000) + bytes(3_000_000) + b"some text, again and again " * 40_000 + bytes(700_001) + b"end"

Pack = Callable[[bytes], bytes]
PACKERS: dict[str, Pack] = {
    "gzip": functools.cache(gzip.compress),
    "bzip2": functools.cache(bz2.compress),
    "xz": functools.cache(functools.partial(lzma.compress, preset=0)),
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}
BY_PROGRAM = {f"{kind} by {command[0]}": kind for kind, command in decompress.ON_ALL_CORES.items()}


def test_every_format_is_tested_and_named_where_formats_are_listed() -> None:
    assert list(PACKERS) == list(COMPRESSIONS)
    for path in ("plugins/modules/image_import.py", "README.md"):
        text = " ".join((ROOT / path).read_text(encoding="utf-8").split())
        (listed,) = set(re.findall(r"plain or (?:compressed with|through) ((?:\w+, )+\w+ or \w+)", text))
        assert re.findall(r"\w+", listed.replace(" or ", " ")) == list(COMPRESSIONS), path
    returned = yaml.safe_load(image_import.RETURN)["format"]["description"]
    assert re.findall(r"[a-z.0-9]+", returned.split("(")[1].split(")")[0]) == [
        "raw",
        *COMPRESSIONS,
        "or",
        detect.FLEET,
    ]
    assert yaml.safe_load(image_export.DOCUMENTATION)["options"]["format"]["choices"] == list(FORMATS)


def unpacked(path: Path, target: Path) -> bytes:
    with open(target, "wb") as file:
        decompress.decompress_file(detect_format(str(path)), file)
    return target.read_bytes()


def check(tmp_path: Path, packed: bytes) -> bytes:
    (tmp_path / "any.name").write_bytes(packed)
    return unpacked(tmp_path / "any.name", tmp_path / "disk")


@pytest.fixture(name="pack", params=[*PACKERS, *BY_PROGRAM])
def fixture_pack(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Pack:
    """Every format by Python's own means; those for which there is a faster program, by that as well."""
    kind = BY_PROGRAM.get(request.param)
    if kind is None:
        monkeypatch.setattr(decompress, "ON_ALL_CORES", {})
        return PACKERS[request.param]
    if not shutil.which(decompress.ON_ALL_CORES[kind][0]):
        pytest.skip(f"{decompress.ON_ALL_CORES[kind][0]} is not installed")
    return PACKERS[kind]


def test_one_stream(tmp_path: Path, pack: Pack) -> None:
    assert check(tmp_path, pack(CONTENT)) == CONTENT


def test_several_streams(tmp_path: Path, pack: Pack) -> None:
    assert check(tmp_path, pack(CONTENT) + pack(b"") + pack(b"more")) == CONTENT + b"more"


def test_nothing_in_it(tmp_path: Path, pack: Pack) -> None:
    assert check(tmp_path, pack(b"")) == b""


def test_zeros_become_holes(tmp_path: Path, pack: Pack) -> None:
    size = 64 << 20
    assert check(tmp_path, pack(bytes(size) + b"x" * 4096)) == bytes(size) + b"x" * 4096
    assert (tmp_path / "disk").stat().st_blocks * 512 < 200_000


@pytest.mark.parametrize(
    "garbage", [b"garbage that is no stream", bytes(511), b"\n"], ids=["text", "zeros", "a line feed"]
)
def test_what_follows_is_an_error(tmp_path: Path, pack: Pack, garbage: bytes) -> None:
    with pytest.raises(decompress.Damaged, match=r"any\.name.*Nothing of it was imported"):
        check(tmp_path, pack(CONTENT) + garbage)


@pytest.mark.parametrize("less", [1, 4, 9, 100, 200_000])
def test_a_cut_file_is_an_error(tmp_path: Path, pack: Pack, less: int) -> None:
    with pytest.raises(decompress.Damaged, match=r"any\.name"):
        check(tmp_path, pack(CONTENT)[:-less])


def test_a_second_stream_that_is_cut_is_an_error(tmp_path: Path, pack: Pack) -> None:
    with pytest.raises(decompress.Damaged):
        check(tmp_path, pack(CONTENT) + pack(CONTENT)[:-20])
    with pytest.raises(decompress.Damaged):
        check(tmp_path, pack(CONTENT) + pack(CONTENT)[:5])


@pytest.mark.parametrize("where", [100_000, 250_000, -30, -6])
def test_a_changed_bit_is_an_error(tmp_path: Path, pack: Pack, where: int) -> None:
    damaged = bytearray(pack(CONTENT))
    damaged[where] ^= 4
    with pytest.raises(decompress.Damaged):
        check(tmp_path, bytes(damaged))


def test_a_stream_of_every_program(tmp_path: Path) -> None:
    """As they come from a pipe, at several levels, and with long windows."""
    commands = [
        ["gzip", "-1", "-c"],
        ["pigz", "-c"],
        ["xz", "-0", "-T2", "--block-size=1MiB", "-c"],
        ["zstd", "-q", "-1", "-c"],
        ["zstd", "-q", "--long=31", "-c"],
        ["zstd", "-q", "--no-check", "-c"],
        ["lbzip2", "-c"],
        ["bzip2", "-c"],
    ]
    present = [command for command in commands if shutil.which(command[0])]
    assert len(present) > 4
    for command in present:
        packed = subprocess.run(command, input=CONTENT, capture_output=True, check=True).stdout
        assert check(tmp_path, packed) == CONTENT, command


BOMB = """
import resource, sys
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats import decompress
from ansible_collections.fleet.imaging.plugins.plugin_utils.formats.detect import detect_format
decompress.ON_ALL_CORES.clear()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open(sys.argv[2], "wb") as file:
    decompress.decompress_file(detect_format(sys.argv[1]), file)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("kind", list(PACKERS))
def test_memory_is_bounded_whatever_a_file_promises(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "zeros"
    piece = bytes(256 << 20)
    if kind == "zstd":
        with open(path, "wb") as file, zstandard.ZstdCompressor(level=1).stream_writer(file, closefd=False) as writer:
            for _number in range(2):
                writer.write(piece)
    else:
        path.write_bytes(PACKERS[kind](piece) * 2)
    done = subprocess.run(
        [sys.executable, "-c", BOMB, path, tmp_path / "disk"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 400 << 10  # KiB
    assert (tmp_path / "disk").stat().st_size >= 512 << 20


def test_a_full_file_system_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "disk.gz").write_bytes(gzip.compress(os.urandom(4 << 20)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with open(tmp_path / "disk", "wb") as file, pytest.raises(OSError, match="too large"):
            decompress.decompress_file(detect_format(str(tmp_path / "disk.gz")), file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (gzip.compress(b"x", mtime=0), "gzip"),
        (bz2.compress(b"x"), "bzip2"),
        (bz2.compress(b""), "bzip2"),
        (b"BZhang is the name of a volume", "raw"),
        (lzma.compress(b"x"), "xz"),
        (PACKERS["zstd"](b"x"), "zstd"),
        (b"\x50\x2a\x4d\x18" + bytes(4) + PACKERS["zstd"](b"x"), "zstd"),
        (b"\x5b\x2a\x4d\x18" + bytes(60), "fleet.imaging"),
        (b"\xeb\x63\x90" + bytes(509), "raw"),
        (bytes(512), "raw"),
    ],
)
def test_a_file_is_what_it_holds(tmp_path: Path, head: bytes, kind: str) -> None:
    path = tmp_path / "misleading.txt"
    path.write_bytes(head)
    assert detect_format(str(path)).format == kind


@pytest.mark.parametrize("head", [head for head, _what in detect.OTHERS])
def test_what_is_something_else_is_said(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(head.ljust(512, b"\0"))
    with pytest.raises(
        ImagingError, match=r"disk\.img is .*(qcow2|VMDK|VHD|VirtualBox|partclone|EWF|ZIP|7z|RAR|compressed)"
    ):
        detect_format(str(path))


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ImagingError, match=r"No such file.*controller"):
        detect_format(str(tmp_path / "nothing"))
    with pytest.raises(ImagingError, match="Is a directory"):
        detect_format(str(tmp_path))
    (tmp_path / "empty").touch()
    with pytest.raises(ImagingError, match="is empty"):
        detect_format(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/x/win11 lab.img.gz", "win11-lab"),
        ("DriveImageName.img", "DriveImageName"),
        ("disk.IMG.ZST", "disk"),
        ("disk.2024-01-01.xz", "disk.2024-01-01"),
        ("/x/.hidden..raw", "hidden"),
        ("/x/.img", "img"),
    ],
)
def test_an_image_is_named_as_its_file(path: str, name: str) -> None:
    assert name_for(path) == name
