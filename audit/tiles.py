"""Cuts the tree into tiles of 256 hashes (C2SP tlog-tiles): grows them leaf by leaf, and proves from them.

A proof reads a few tiles and never the entries, so that those who ask for proofs do not slow down those who write.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.errors import LogBroken
from audit.merkle import Frontier, Span, consistency_spans, inclusion_spans, root_of
from audit.verify import HASH_BYTES

WIDTH = 256
_HEIGHT = 8
_CACHED = 1_000
_READ = text(
    """
    SELECT t.level, t.number, t.hashes FROM audit.tile AS t
    JOIN unnest(CAST(:levels AS smallint[]), CAST(:numbers AS bigint[])) AS wanted (level, number)
        ON t.level = wanted.level AND t.number = wanted.number
    WHERE t.log = :log
    """
)


class TileKey(NamedTuple):
    """Which tile of a log: ``level`` 0 holds leaf hashes, each hash above is the root of a full tile below."""

    level: int
    number: int


def edge_tiles(size: int) -> list[tuple[TileKey, int]]:
    """Return the tiles that still grow in a tree of ``size`` leaves, from level 0 up, with their widths (1 to 255)."""
    edges, level = [], 0
    while size >> _HEIGHT * level:
        number, width = divmod(size >> _HEIGHT * level, WIDTH)
        if width:
            edges.append((TileKey(level, number), width))
        level += 1
    return edges


class Edge:
    """The right edge of a tree in tiles: takes leaves, and hands out the tiles that changed."""

    def __init__(self, size: int = 0, edges: Iterable[tuple[TileKey, bytes]] = ()) -> None:
        """Continue a tree of ``size`` leaves; raises :class:`LogBroken` unless ``edges`` are its growing tiles."""
        given = dict(edges)
        self.size = size
        self._growing: list[bytearray] = []
        self._full: dict[TileKey, bytes] = {}
        for key, width in edge_tiles(size):
            hashes = given.pop(key, b"")[: width * HASH_BYTES]
            if len(hashes) != width * HASH_BYTES:
                raise LogBroken("a tile is missing or too short")
            while len(self._growing) <= key.level:
                self._growing.append(bytearray())
            self._growing[key.level] += hashes

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        self.size += 1
        self._add(0, leaf)

    def _add(self, level: int, value: bytes) -> None:
        if level == len(self._growing):
            self._growing.append(bytearray())
        tile = self._growing[level]
        tile += value
        if len(tile) == WIDTH * HASH_BYTES:
            whole = bytes(tile)
            tile.clear()
            self._full[TileKey(level, (self.size >> _HEIGHT * (level + 1)) - 1)] = whole
            self._add(level + 1, root_of(hashes_of(whole)))

    def take_full(self) -> dict[TileKey, bytes]:
        """Return the tiles that became full since the last call."""
        full, self._full = self._full, {}
        return full

    def growing(self) -> dict[TileKey, bytes]:
        """Return the tiles that are not full yet."""
        return {key: bytes(self._growing[key.level]) for key, _width in edge_tiles(self.size)}


def hashes_of(tile: bytes) -> list[bytes]:
    """Cut the bytes of a tile into hashes."""
    return [tile[at : at + HASH_BYTES] for at in range(0, len(tile), HASH_BYTES)]


class TileReader:
    """Proofs about the tree of one log at one size, from its stored tiles."""

    def __init__(self, conn: AsyncConnection, log: int, size: int) -> None:
        """``log`` is the year of the log; the tree must have had ``size`` leaves at some time."""
        self._conn, self._log, self.size = conn, log, size
        self._tiles: OrderedDict[TileKey, bytes] = OrderedDict()

    async def inclusion(self, index: int) -> list[bytes]:
        """Return the inclusion proof of the leaf at ``index`` (RFC 9162 clause 2.1.3.1); IndexError out of range."""
        return await self.roots(inclusion_spans(index, self.size))

    async def consistency(self, old_size: int) -> list[bytes]:
        """Return the proof that the first ``old_size`` leaves are a prefix (RFC 9162 clause 2.1.4.1); IndexError."""
        return await self.roots(consistency_spans(old_size, self.size))

    async def root(self) -> bytes:
        """Return the root of the tree."""
        return (await self.frontier()).root()

    async def frontier(self) -> Frontier:
        """Return the right edge of the tree."""
        spans, start = [], 0
        for bit in reversed(range(self.size.bit_length())):
            if self.size >> bit & 1:
                spans.append((start, start + (1 << bit)))
                start += 1 << bit
        return Frontier(self.size, b"".join(await self.roots(spans)))

    async def tile(self, key: TileKey) -> bytes:
        """Return the stored bytes of a tile; raises :class:`LogBroken` where it is missing."""
        await self._load({key})
        return self._tiles[key]

    async def roots(self, spans: Iterable[Span]) -> list[bytes]:
        """Return the root over each span of leaves; raises :class:`LogBroken` where a tile is missing."""
        parts = [list(_perfect(start, end)) for start, end in spans]
        await self._load({_place(height, number)[0] for span in parts for height, number in span})
        return [self._root(span) for span in parts]

    def _root(self, parts: list[tuple[int, int]]) -> bytes:
        frontier = Frontier()
        # The subtrees of a span shrink from left to right, as those of a tree's edge do.
        frontier.hashes = [self._node(height, number) for height, number in parts]
        return frontier.root()

    def _node(self, height: int, number: int) -> bytes:
        key, first, count = _place(height, number)
        tile = self._tiles[key][first * HASH_BYTES : (first + count) * HASH_BYTES]
        if len(tile) != count * HASH_BYTES:
            raise LogBroken("a tile is too short")
        return tile if count == 1 else root_of(hashes_of(tile))

    async def _load(self, wanted: set[TileKey]) -> None:
        missing = [key for key in wanted if key not in self._tiles]
        if missing:
            values = {
                "log": self._log,
                "levels": [key.level for key in missing],
                "numbers": [key.number for key in missing],
            }
            for level, number, hashes in await self._conn.execute(_READ, values):
                self._tiles[TileKey(level, number)] = bytes(hashes)
        for key in wanted:
            if key not in self._tiles:
                raise LogBroken("a tile is missing")
            self._tiles.move_to_end(key)
        while len(self._tiles) > max(_CACHED, len(wanted)):
            self._tiles.popitem(last=False)


def _perfect(start: int, end: int) -> Iterable[tuple[int, int]]:
    """Split a span into perfect subtrees, each as its height and its number among those of that height."""
    while start < end:
        height = (end - start).bit_length() - 1
        if start:
            height = min(height, (start & -start).bit_length() - 1)
        yield height, start >> height
        start += 1 << height


def _place(height: int, number: int) -> tuple[TileKey, int, int]:
    """Return the tile that a perfect subtree's root comes from, and which of its hashes lie under that root."""
    level, above = divmod(height, _HEIGHT)
    first = number << above
    return TileKey(level, first // WIDTH), first % WIDTH, 1 << above
