"""Reads entries back with their detail, for readers whose right to it somebody else has decided and logged.

A search goes through the numbered log from its end. What cannot hold a hit is skipped by the terms and times kept for
every 256 entries, and each page looks at a bounded part of the log, so that no search holds up the database.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.envelope import open_detail, open_groups, read_envelope
from audit.keys import Epochs
from audit.models import LOG_SUBJECT, LoggedEntry
from audit.tiles import WIDTH

# A page looks at no more than these blocks of 256 entries; the more it has looked at in vain, the more at once.
BLOCKS = 64
_FIRST_STEP = 2

_COLUMNS = """
    SELECT e.id, s.log, s.index, e.envelope, e.detail, k.subject, k.wrapped_key, k.epoch
    FROM audit.entry AS e
    LEFT JOIN audit.sequence AS s ON s.entry_id = e.id
    LEFT JOIN audit.subject_key AS k
        ON k.pseudonym = coalesce(e.pseudonym, (SELECT pseudonym FROM audit.subject_key WHERE subject = :log))
"""
_RECENT = text(
    f"""
    {_COLUMNS}
    WHERE (CAST(:before AS uuid) IS NULL OR e.id < :before) AND (CAST(:type AS text) IS NULL OR e.type = :type)
    ORDER BY e.id DESC
    LIMIT :limit
    """
)
_ONE = text(f"{_COLUMNS} WHERE e.id = :id")
_PAGE = text(f"{_COLUMNS} WHERE e.id = ANY(:ids) ORDER BY s.log DESC, s.index DESC")
_LOGS = text("SELECT log, size FROM audit.tree ORDER BY log DESC")
_IS_ABOUT = text(
    "SELECT EXISTS (SELECT FROM audit.entry WHERE pseudonym = :pseudonym AND terms @> CAST(:terms AS text[]))"
)
_PSEUDONYM = text("SELECT pseudonym FROM audit.subject_key WHERE subject = :subject")

_Row = tuple[Any, ...]


class Cursor(NamedTuple):
    """A place in the numbered logs: what is older than it comes next. It never moves, whoever writes meanwhile."""

    log: int
    number: int

    def __str__(self) -> str:
        """Return it as the opaque text that callers hand back."""
        return urlsafe_b64encode(f"{self.log}.{self.number}".encode()).decode().rstrip("=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """Which entries are meant; all that is given must hold.

    ``terms`` are search terms (:mod:`audit.terms`), ``pseudonym`` is that of the person in the log, ``since`` is
    included and ``until`` excluded.
    """

    terms: frozenset[str] = frozenset()
    pseudonym: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Entries found, newest first, and where the search goes on; ``None`` when everything has been looked at."""

    entries: list[LoggedEntry]
    next: Cursor | None


@dataclass(frozen=True, slots=True)
class RawEntry:
    """A numbered entry as a proof needs it: the envelope's exact bytes, and the groups with their salts.

    ``groups`` is ``None`` once the detail was erased.
    """

    log: int
    index: int
    data: bytes
    envelope: Mapping[str, Any]
    groups: Mapping[str, Mapping[str, Any]] | None


async def recent(
    conn: AsyncConnection, epochs: Epochs, limit: int, before: UUID | None = None, type: str | None = None
) -> list[LoggedEntry]:
    """Return the newest entries first, those with an id before ``before`` and of one type if these are given.

    ``detail`` is ``None`` where the subject's key was destroyed; nothing is masked. Raises
    :class:`~schemas.errors.DecryptionError` under another epoch's key or for a detail that was changed, and
    :class:`~audit.errors.LogBroken` for one that is not what its envelope commits to.
    """
    values = {"log": LOG_SUBJECT, "before": before, "type": type, "limit": limit}
    return [_logged(tuple(row), epochs) for row in await conn.execute(_RECENT, values)]


async def one(conn: AsyncConnection, epochs: Epochs, entry_id: UUID) -> tuple[LoggedEntry, UUID | None] | None:
    """Return an entry and the internal id of the person it is about, or ``None`` where there is no such entry.

    The person is ``None`` for an entry about nobody, and once their key was destroyed. Raises as :func:`recent`.
    """
    row = (await conn.execute(_ONE, {"log": LOG_SUBJECT, "id": entry_id})).one_or_none()
    if row is None:
        return None
    return _logged(tuple(row), epochs), None if row.subject in (None, LOG_SUBJECT) else row.subject


async def pseudonym_of(conn: AsyncConnection, subject: UUID) -> UUID | None:
    """Return the pseudonym of a person in the log, ``None`` for somebody the log has never been about."""
    found: UUID | None = await conn.scalar(_PSEUDONYM, {"subject": subject})
    return found


async def is_about(conn: AsyncConnection, pseudonym: UUID, terms: Collection[str]) -> bool:
    """Say whether there is an entry with all these terms about the person of a pseudonym."""
    return bool(await conn.scalar(_IS_ABOUT, {"pseudonym": pseudonym, "terms": sorted(terms)}))


async def search(
    conn: AsyncConnection, epochs: Epochs, criteria: Criteria, *, after: Cursor | None = None, limit: int = 50
) -> Page:
    """Return a page of the entries that fit, newest number first; pass its ``next`` as ``after`` for the next one.

    Entries that wait for their number (under a second) are not shown yet. A page may hold fewer entries than
    ``limit``, even none, and still have a ``next``: then the part of the log it may look at held no more. Raises as
    :func:`recent`.
    """
    rows, following = await _find(conn, criteria, after, limit, None)
    return Page([_logged(row, epochs) for row in rows], following)


async def raw(
    conn: AsyncConnection, criteria: Criteria, ends: Mapping[int, int], *, after: Cursor | None, limit: int
) -> tuple[list[_Row], Cursor | None]:
    """Search as :func:`search` does, below ``ends`` (log: size) alone; return rows for :func:`open_raw`."""
    return await _find(conn, criteria, after, limit, ends)


async def raw_one(conn: AsyncConnection, entry_id: UUID) -> _Row:
    """Return the row of one numbered entry, which must be there, for :func:`open_raw`."""
    return tuple((await conn.execute(_ONE, {"log": LOG_SUBJECT, "id": entry_id})).one())


def open_raw(row: _Row, epochs: Epochs) -> RawEntry:
    """Open a row of :func:`raw`; raises as :func:`recent`."""
    _id, log, index, data, detail, subject, wrapped, epoch = row
    envelope = read_envelope(data)
    key = None if wrapped is None else epochs.opened(epoch, subject, wrapped)
    return RawEntry(log, index, bytes(data), envelope, None if key is None else open_groups(envelope, detail, key))


def read_cursor(given: str) -> Cursor:
    """Read a cursor from its opaque text; raises :class:`ValueError` for anything that is none."""
    try:
        log, _dot, number = urlsafe_b64decode(given + "=" * (-len(given) % 4)).decode("ascii").partition(".")
        cursor = Cursor(int(log), int(number))
    except ValueError:
        raise ValueError("not a cursor") from None
    # Only what we wrote ourselves reads as we wrote it.
    if str(cursor) != given or not (0 <= cursor.log < 1 << 15 and 0 <= cursor.number < 1 << 63):
        raise ValueError("not a cursor")
    return cursor


async def _find(
    conn: AsyncConnection, criteria: Criteria, after: Cursor | None, limit: int, ends: Mapping[int, int] | None
) -> tuple[list[_Row], Cursor | None]:
    sizes = {row.log: row.size for row in await conn.execute(_LOGS)}
    below = [Cursor(log, size if ends is None else min(size, ends.get(log, 0))) for log, size in sizes.items()]
    if after is not None:
        below = [min(end, after) for end in below if end.log <= after.log]
    below = [end for end in below if end.number > 0]
    if criteria.pseudonym is not None:
        ids, following = await _about(conn, criteria, below, limit)
    else:
        ids, following = await _through(conn, criteria, below, sizes, limit)
    if not ids:
        return [], following
    rows = await conn.execute(_PAGE, {"log": LOG_SUBJECT, "ids": ids})
    return [tuple(row) for row in rows], following


async def _about(
    conn: AsyncConnection, criteria: Criteria, below: Sequence[Cursor], limit: int
) -> tuple[list[UUID], Cursor | None]:
    """Find what is about one person: their entries have an index of their own."""
    conditions, values = _conditions(criteria)
    query = text(
        f"""
        WITH about AS MATERIALIZED (
            SELECT e.id FROM audit.entry AS e WHERE e.pseudonym = :pseudonym {conditions}
        )
        SELECT s.log, s.index, s.entry_id
        FROM about CROSS JOIN LATERAL (
            SELECT log, index, entry_id FROM audit.sequence WHERE entry_id = about.id OFFSET 0
        ) AS s
        JOIN unnest(CAST(:logs AS smallint[]), CAST(:ends AS bigint[])) AS below (log, index)
            ON below.log = s.log AND s.index < below.index
        ORDER BY s.log DESC, s.index DESC
        LIMIT :limit
        """  # noqa: S608 — constants of ours
    )
    values |= {
        "pseudonym": criteria.pseudonym,
        "logs": [end.log for end in below],
        "ends": [end.number for end in below],
        "limit": limit,
    }
    found = (await conn.execute(query, values)).all()
    return [row.entry_id for row in found], Cursor(found[-1][0], found[-1][1]) if len(found) == limit else None


async def _through(
    conn: AsyncConnection, criteria: Criteria, below: Sequence[Cursor], sizes: Mapping[int, int], limit: int
) -> tuple[list[UUID], Cursor | None]:
    """Go through the logs from their ends, block by block, leaving out those that can hold no hit."""
    ids: list[UUID] = []
    blocks, entries = _block_query(criteria), _entry_query(criteria)
    _, values = _conditions(criteria)
    left, step = BLOCKS, _FIRST_STEP
    for end in below:
        upper = end.number
        while upper > 0:
            if left == 0:
                return ids, Cursor(end.log, upper)
            step = min(step, left)
            # The block that still grows has no row that says what is in it.
            growing = sizes[end.log] // WIDTH
            numbers = [growing] if upper > growing * WIDTH else []
            wanted = {"log": end.log, "upper": -(-min(upper, growing * WIDTH) // WIDTH), "limit": step - len(numbers)}
            numbers += (await conn.scalars(blocks, values | wanted)).all()
            place = {"log": end.log, "numbers": numbers, "below": upper, "limit": limit - len(ids)}
            found = (await conn.execute(entries, values | place)).all()
            ids += [row.entry_id for row in found]
            if len(ids) == limit:
                return ids, Cursor(end.log, found[-1].number)
            left -= len(numbers)
            # Fewer blocks than asked for means that there are no more of them in this log.
            upper = numbers[-1] * WIDTH if len(numbers) == step else 0
            step *= 2
    return ids, None


def _block_query(criteria: Criteria) -> TextClause:
    conditions = "AND terms @> CAST(:terms AS text[])" if criteria.terms else ""
    conditions += " AND last_at >= :since" if criteria.since else ""
    conditions += " AND first_at < :until" if criteria.until else ""
    return text(
        f"""
        SELECT number FROM audit.block WHERE log = :log AND number < :upper {conditions}
        ORDER BY number DESC LIMIT :limit
        """  # noqa: S608 — constants of ours
    )


def _entry_query(criteria: Criteria) -> TextClause:
    # LIMIT and OFFSET 0 hold the planner to a look at each entry of the blocks, whatever it believes of their number.
    conditions, _values = _conditions(criteria)
    return text(
        f"""
        SELECT s.index AS number, s.entry_id
        FROM unnest(CAST(:numbers AS bigint[])) AS wanted (number)
        CROSS JOIN LATERAL (
            SELECT index, entry_id FROM audit.sequence
            WHERE log = :log AND index >= wanted.number * {WIDTH}
                AND index < least((wanted.number + 1) * {WIDTH}, :below)
            ORDER BY index LIMIT {WIDTH}
        ) AS s
        CROSS JOIN LATERAL (
            SELECT FROM audit.entry AS e WHERE e.id = s.entry_id {conditions} OFFSET 0
        ) AS fits
        ORDER BY s.index DESC LIMIT :limit
        """  # noqa: S608 — constants of ours
    )


def _conditions(criteria: Criteria) -> tuple[str, dict[str, Any]]:
    """Return what an entry must be, as SQL on ``e`` with its values."""
    conditions, values = "", dict[str, Any]()
    if criteria.terms:
        conditions += " AND e.terms @> CAST(:terms AS text[])"
        values["terms"] = sorted(criteria.terms)
    for name, sign, at in (("since", ">=", criteria.since), ("until", "<", criteria.until)):
        if at is not None:
            conditions += f" AND e.at {sign} :{name}"
            values[name] = at
    return conditions, values


def _logged(row: _Row, epochs: Epochs) -> LoggedEntry:
    entry_id, log, index, data, detail, subject, wrapped, epoch = row
    envelope = read_envelope(data)
    key = None if wrapped is None else epochs.opened(epoch, subject, wrapped)
    groups = None if key is None else open_detail(envelope, detail, key)
    return LoggedEntry(entry_id, log, index, envelope, groups)
