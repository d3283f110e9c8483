# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hashes that come after their index."""

from __future__ import annotations

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.image.hashes import HASH, Hashes
from ansible_collections.fleet.imaging.plugins.module_utils.image.index import NO_HASH, BadIndex, Index, Row
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import USED, ZERO, RecordError, zeros_hash

from ..samples import CHUNK, geometry

MEASURES = geometry(8 * CHUNK)
HEADER = b"a header"
PLACES = {1: b"", 2: bytes((0, 0, 8, 0)), 5: b"", 7: b""}
"""The used chunks and their packed ranges."""


def hash_of(chunk: int) -> bytes:
    return bytes([chunk]) * 32


def make_index(hashed: bool) -> Index:
    index = Index(MEASURES)
    for chunk, ranges in PLACES.items():
        content_hash = hash_of(chunk) if hashed else NO_HASH
        index.append(Row(chunk=chunk, flags=USED, ranges=ranges, content_hash=content_hash, frame_size=1))
    return index


def received() -> Hashes:
    """An index without hashes that has arrived."""
    return Hashes(Index.unpack(make_index(hashed=False).pack(HEADER), HEADER, MEASURES, hashed=False))


def test_with_all_hashes_an_index_is_as_if_it_had_had_them_from_the_beginning() -> None:
    sent, ours = Hashes(make_index(hashed=False)), received()
    order = [7, 1, 5, 2]
    for count, chunk in enumerate(order, 1):
        sent.add(chunk, USED, hash_of(chunk))
        ours.unpack(sent.pack(len(ours), 10 * HASH.size))
        assert (len(ours), ours.index.missing) == (count, len(PLACES) - count)
    complete = make_index(hashed=True)
    assert list(ours.index) == list(complete) and ours.index.pack(HEADER) == complete.pack(HEADER)
    ours.agree(complete.root_digest())
    assert ours.root == complete.root_digest()


def test_hashes_are_packed_in_pieces_and_may_come_twice() -> None:
    sent, ours = Hashes(make_index(hashed=False)), received()
    for chunk in PLACES:
        sent.add(chunk, USED, hash_of(chunk))
    for start in (0, 1, 2, 3):
        piece = sent.pack(start, 2 * HASH.size + 1)
        assert len(piece) == HASH.size * min(2, 4 - start)
        ours.unpack(piece)
    assert sent.pack(4, 1000) == b"" and len(ours) == 4 and ours.index.missing == 0


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (HASH.pack(3, USED, hash_of(3)), "not one of a used chunk"),
        (HASH.pack(99, USED, hash_of(3)), "not one of a used chunk"),
        (HASH.pack(1, USED, NO_HASH), "not one of a used chunk"),
        (HASH.pack(1, 0, zeros_hash(CHUNK)), "not one of a used chunk"),
        (HASH.pack(1, USED, hash_of(1)) + HASH.pack(1, USED, hash_of(2)), "Another hash of chunk 1"),
        (b"x", "form that can't be read"),
    ],
)
def test_what_can_be_no_hash_is_refused(packed: bytes, reason: str) -> None:
    with pytest.raises(BadIndex, match=reason):
        received().unpack(packed)


def test_flags_that_the_content_can_not_have_are_refused() -> None:
    for flags, content_hash in ((USED | ZERO, hash_of(1)), (USED, zeros_hash(CHUNK)), (USED | 0x80, hash_of(1))):
        with pytest.raises(RecordError):
            received().add(1, flags, content_hash)


def test_nothing_is_agreed_on_before_the_last_hash_or_with_another_root_digest() -> None:
    ours, root = received(), make_index(hashed=True).root_digest()
    for chunk in PLACES:
        with pytest.raises(BadIndex, match="have not arrived"):
            ours.agree(root)
        ours.add(chunk, USED, hash_of(chunk))
    with pytest.raises(BadIndex, match="have the root digest"):
        ours.agree(hash_of(1))
    assert ours.root == b""


def test_an_image_must_have_all_hashes() -> None:
    with pytest.raises(BadIndex, match="4 rows of the index have no hash"):
        Index.unpack(make_index(hashed=False).pack(HEADER), HEADER, MEASURES)
