"""Writes statuses computed at once back to PostgreSQL: what is new or another one than before, the rest stays.

Nobody is kept from writing statuses meanwhile. A row only ever gives way to the one with the next number
(``recompute.py`` holds to it, too), so that of two computations of a unit at once the one that comes late sees it.
"""

# What goes into the statements are names of columns, and quoted constants.
# ruff: noqa: S608

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from gateway.clock import local_day
from gateway.registry.mass_reading import connect
from gateway.registry.mass_rules import quoted
from gateway.registry.protection import AT_BIRTH, BEFORE_BIRTH
from gateway.registry.recompute import COLUMNS

if TYPE_CHECKING:
    import duckdb

#: We give way to whoever writes the status of the same units at the same time.
_LOCK_TIMEOUT_MS, _ATTEMPTS, _PAUSE_S = 500, 60, 0.2
#: Rows that are one block of text.
_BLOCK = 1024
_NAMES, _PLACE = ", ".join(COLUMNS), ("department", "district")


class Busy(Exception):
    """Others have written statuses for so long that a chunk could not be."""


class Rows(NamedTuple):
    """The rows of changed units as CSV, in blocks; ``first``: none of them had a status before."""

    blocks: Sequence[str]
    first: bool


def changed(work: duckdb.DuckDBPyConnection, at: datetime, because: str, parts: int) -> list[Rows]:
    """Return what changed of the chunk that the rule has computed, in so many parts; raises duckdb.Error."""
    named = ("populations", "categories", "applicable", "concurrent", "services")
    values = {
        **{name: f"'{{', {name}, '}}'" for name in named},
        "number": "coalesce(number, 0) + 1",
        "at": quoted(at.isoformat()),
        "day": quoted(local_day(at).isoformat()),
        "because": quoted(because),
        "community_id": "community",
        # The one quote of this CSV is a character that no text of ours has, so that JSON stands as it is.
        **{name: f"chr(1) || replace({name}, chr(1), repeat(chr(1), 2)) || chr(1)" for name in _PLACE},
    }
    line = ", chr(9), ".join(values.get(name, name) for name in COLUMNS)
    found = work.execute(
        f"{_WRITTEN} SELECT string_agg(concat({line}), chr(10)), bool_and(number IS NULL) FROM written"
        f" WHERE before IS NULL OR before <> CAST(digest AS UUID) GROUP BY no // {_BLOCK}"
    ).fetchall()
    several = [found[start::parts] for start in range(parts)]
    return [Rows([block for block, _new in part], all(new for _block, new in part)) for part in several if part]


def _bits(of: str) -> str:
    """Return the expression of the categories whose bits are set (see ``mass_rules.py``)."""
    whens = {1: f"'{BEFORE_BIRTH}'", 2: f"'{AT_BIRTH}'", 4: "CAST(b.own AS VARCHAR)"}
    return f"concat_ws(',', {', '.join(f'CASE WHEN {of} & {bit} <> 0 THEN {name} END' for bit, name in whens.items())})"


def write(url: str, rows: Rows) -> int:
    """Bring rows into the database in a transaction of their own; return how many are written.

    Raises psycopg.Error or :class:`Busy`.
    """
    for _attempt in range(_ATTEMPTS):
        try:
            with connect(url) as connection, connection.transaction():
                return _write(connection, rows)
        except psycopg.errors.LockNotAvailable:
            time.sleep(_PAUSE_S)
    raise Busy


def _write(connection: psycopg.Connection[tuple[object, ...]], rows: Rows) -> int:
    connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}".encode())
    if rows.first:
        try:
            with connection.transaction():
                return _copy(connection, rows, "siis.status")
        except psycopg.errors.UniqueViolation:
            pass  # Somebody was computed meanwhile.
    connection.execute("CREATE TEMP TABLE fresh (LIKE siis.status) ON COMMIT DROP")
    _copy(connection, rows, "pg_temp.fresh")
    for statement in _REPLACE:
        cursor = connection.execute(statement.encode())
    return cursor.rowcount


def _copy(connection: psycopg.Connection[tuple[object, ...]], rows: Rows, table: str) -> int:
    with connection.cursor() as cursor:
        statement = f"COPY {table} ({_NAMES}) FROM STDIN (FORMAT csv, DELIMITER E'\\t', QUOTE E'\\x01')"
        with cursor.copy(statement.encode()) as copy:
            for block in rows.blocks:
                copy.write(block.encode())
                copy.write(b"\n")
        return cursor.rowcount


# As ``status.py`` writes the services and their digests; the order of a JSON object's keys is of no account.
_WRITTEN = f"""
WITH pieces AS (
    SELECT no, concat('"', service, '":{{"status":"', status, '","category":"', category, '","core":', core, ',"fact":',
        coalesce('"' || fact || '"', 'null'), ',"rule":"', rule, '"}}') AS piece
    FROM stated
), joined AS (
    SELECT no, string_agg(piece, ',') AS services, bit_xor(md5_number(piece)) AS digest FROM pieces GROUP BY no
), found AS (
    SELECT b.*, {_bits("applied")} AS applicable, {_bits("applied & ~missing")} AS concurrent, j.services,
        least(b.turns, s.due) AS due_on, j.digest AS of_services, o.number, o.digest AS before
    FROM base AS b LEFT JOIN summed AS s ON s.no = b.no LEFT JOIN joined AS j ON j.no = b.no
    LEFT JOIN stored AS o ON o.no = b.no
), written AS (
    SELECT *, lpad(to_hex(xor(coalesce(of_services, 0::UHUGEINT), md5_number(concat(kind, '|', department,
        '|', district, '|', community, '|', populations, '|', categories, '|', concurrent, '|', due_on)))), 32, '0')
        AS digest
    FROM found
)
"""
_REPLACE = (
    f"INSERT INTO siis.status_past ({_NAMES}) SELECT {', '.join(f's.{name}' for name in COLUMNS)}"
    " FROM siis.status AS s JOIN pg_temp.fresh AS f ON f.unit = s.unit AND f.number = s.number + 1"
    " ORDER BY s.unit FOR UPDATE OF s",
    # Where another computation came between, its number is ours: it is newer, and stays.
    f"INSERT INTO siis.status ({_NAMES}) SELECT {', '.join(f'f.{name}' for name in COLUMNS)}"
    " FROM pg_temp.fresh AS f LEFT JOIN siis.status AS s ON s.unit = f.unit"
    " WHERE f.number = coalesce(s.number, 0) + 1 ORDER BY f.unit"
    f" ON CONFLICT (unit) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in COLUMNS if name != 'unit')}"
    " WHERE status.number = excluded.number - 1",
)
