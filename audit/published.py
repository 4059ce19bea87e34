"""Reads what the log gives away as bytes that never change (C2SP tlog-tiles), and nothing that is not signed yet.

Tiles come from a table of their own by primary key, so that those who copy the tree do not slow down those who write.
"""

from __future__ import annotations

from collections import OrderedDict

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from audit.errors import LogBroken
from audit.tiles import WIDTH, TileKey
from audit.verify import HASH_BYTES

_HEIGHT = 8
# Eight megabytes of full tiles: those of a log of a quarter of a million entries.
_CACHED = 1_000
_LARGEST = (1 << 63) - 1
_TILE = text(
    """
    SELECT (SELECT max(size) FROM audit.checkpoint WHERE log = :log) AS size,
        (SELECT hashes FROM audit.tile WHERE log = :log AND level = :level AND number = :number) AS hashes
    """
)
_SIZE = text("SELECT max(size) FROM audit.checkpoint WHERE log = :log")
_ENVELOPES = text(
    """
    SELECT e.envelope FROM audit.sequence AS s JOIN audit.entry AS e ON e.id = s.entry_id
    WHERE s.log = :log AND s.index >= :first AND s.index < :end ORDER BY s.index
    """
)


class Published:
    """The tiles and entry bundles of all logs; full tiles are remembered."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._full: OrderedDict[tuple[int, TileKey], bytes] = OrderedDict()

    async def tile(self, log: int, key: TileKey, width: int = WIDTH) -> bytes | None:
        """Return the first ``width`` hashes of a tile, ``None`` unless the newest checkpoint covers as many.

        Raises :class:`LogBroken` where the tile is not stored though it must be.
        """
        whole = self._full.get((log, key))
        if whole is not None:
            self._full.move_to_end((log, key))
        else:
            if key.number > _LARGEST // WIDTH:
                return None
            async with self._engine.connect() as conn:
                values = {"log": log, "level": key.level, "number": key.number}
                size, whole = (await conn.execute(_TILE, values)).one()
            if _covered(size, key) < width:
                return None
            if whole is None or len(whole) < width * HASH_BYTES:
                raise LogBroken("a tile is missing or too short")
            if _covered(size, key) == WIDTH == len(whole) // HASH_BYTES:
                self._remember(log, key, whole)
        return whole[: width * HASH_BYTES]

    async def covers(self, log: int, number: int, width: int = WIDTH) -> bool:
        """Say whether the newest checkpoint covers the first ``width`` entries of an entry bundle."""
        async with self._engine.connect() as conn:
            size = await conn.scalar(_SIZE, {"log": log})
        return _covered(size, TileKey(0, number)) >= width

    async def entries(self, log: int, number: int, width: int = WIDTH) -> bytes | None:
        """Return an entry bundle: each envelope behind its length (two bytes, the large one first).

        ``None`` where entries were pruned. Only for a bundle that :meth:`covers` says yes to.
        """
        first = number * WIDTH
        async with self._engine.connect() as conn:
            rows = await conn.execute(_ENVELOPES, {"log": log, "first": first, "end": first + width})
            envelopes = [row.envelope for row in rows]
        if len(envelopes) < width:
            return None
        return b"".join(len(envelope).to_bytes(2, "big") + envelope for envelope in envelopes)

    def _remember(self, log: int, key: TileKey, whole: bytes) -> None:
        self._full[log, key] = whole
        if len(self._full) > _CACHED:
            self._full.popitem(last=False)


def _covered(size: int | None, key: TileKey) -> int:
    """Return how many hashes a tile has in a tree of ``size`` leaves: 0 to 256."""
    return min(max(((size or 0) >> _HEIGHT * key.level) - key.number * WIDTH, 0), WIDTH)
