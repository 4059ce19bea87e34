"""Computes the protection status of everybody at once: facts read from PostgreSQL, the rule in DuckDB, results back.

It reads one snapshot and writes only what changed, so that work goes on meanwhile: a unit of which something arrived
since then keeps its newer status. Memory is bounded; what does not fit lies in a folder that only we may read.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from gateway.catalogue.models import Service
from gateway.clock import local_day
from gateway.database import CONNECT_OPTIONS
from gateway.registry.mass_rules import Rules, instruments, marks, quoted
from gateway.registry.recompute import COLUMNS

if TYPE_CHECKING:
    import duckdb

MEMORY_MIB = 1500
#: Blocks of a table read by one query, and units computed and written together.
_BLOCKS, _UNITS = 1024, 400_000
#: While a chunk is written nobody else writes a status; we give way to whoever is at it.
_LOCK_TIMEOUT_MS, _ATTEMPTS, _PAUSE_S = 500, 60, 0.2
_COPIED = 1 << 20
_NAMES = ", ".join(COLUMNS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a computation of everybody did: units looked at, those changed, and the seconds its parts took.

    ``snapshot``: which transactions it saw (``pg_snapshot`` as text).
    """

    units: int
    changed: int
    snapshot: str
    reading_s: float
    rules_s: float
    total_s: float


class Unfinished(Exception):
    """The computation was cut off: no room for it in memory or on disk. What was written by then is right."""


class Busy(Exception):
    """Others have written statuses for so long that a chunk could not be."""


class _Source(NamedTuple):
    """A table to read: its columns (name, DuckDB type, PostgreSQL expression) and which rows."""

    table: str
    columns: tuple[tuple[str, str, str], ...]
    where: str = "true"


def classify_all(
    url: str,
    services: Mapping[str, Service],
    *,
    folder: Path,
    at: datetime,
    because: str,
    memory_mib: int = MEMORY_MIB,
    threads: int = 2,
    units: int = _UNITS,
) -> Outcome:
    """Compute everybody's status for the day of ``at`` and keep what changed; ``url`` is the database (libpq).

    ``folder`` takes the temporary files; ``units``: how many are computed and written together. Raises psycopg.Error,
    OSError, :class:`Unfinished` or :class:`Busy`; what was written by then stays and is right.
    """
    # Only here: it is large, and no other work of a process needs it.
    import duckdb

    try:
        with _private_folder(folder) as private, duckdb.connect(str(private / "work.duckdb")) as work:
            return _classified(url, services, private, work, at, because, memory_mib, threads, units)
    except duckdb.Error as error:
        raise Unfinished(type(error).__name__) from error


def _classified(
    url: str,
    services: Mapping[str, Service],
    private: Path,
    work: duckdb.DuckDBPyConnection,
    at: datetime,
    because: str,
    memory_mib: int,
    threads: int,
    units: int,
) -> Outcome:
    started = time.monotonic()
    work.execute(f"SET memory_limit = '{memory_mib}MiB'")
    work.execute(f"SET threads = {threads}")
    work.execute(f"SET temp_directory = {quoted(str(private / 'spill'))}")
    work.execute("SET preserve_insertion_order = false")
    snapshot = _read(url, work, services, private)
    reading_s = time.monotonic() - started
    writer = _Writer(url, private, work, at, because)
    rules_s, seen = 0.0, 0
    with ThreadPoolExecutor(1) as background:
        writing: Future[None] | None = None
        for statements in _chunks(work, Rules(services, local_day(at)), units):
            since = time.monotonic()
            for statement in statements:
                work.execute(statement)
            rules_s += time.monotonic() - since
            seen += _count(work, "SELECT count(*) FROM computed")
            made = writer.export()
            if writing is not None:
                writing.result()
            writing = None if made is None else background.submit(writer.write, *made)
        if writing is not None:
            writing.result()
    total_s = time.monotonic() - started
    return Outcome(
        units=seen, changed=writer.changed, snapshot=snapshot, reading_s=reading_s, rules_s=rules_s, total_s=total_s
    )


@contextmanager
def _private_folder(folder: Path) -> Iterator[Path]:
    """Make a folder for files that hold facts of persons, readable by nobody else, and remove it at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    # DuckDB makes its files as the process's mask says; whoever makes others meanwhile gets narrower ones.
    before = os.umask(0o077)
    try:
        with tempfile.TemporaryDirectory(prefix="classify-", dir=folder) as made:
            yield Path(made)
    finally:
        os.umask(before)


def _sources(services: Mapping[str, Service]) -> tuple[_Source, ...]:
    def marked(letter: str) -> tuple[tuple[str, str, str], ...]:
        return tuple(
            (f"mark_{place}", "BOOLEAN", f"coalesce(({letter}.attributes -> {quoted(name)} = 'true')::int, 0)::text")
            for place, name in enumerate(marks(services))
        )

    place = tuple((name, "VARCHAR", _text(f"t.{name}")) for name in ("department", "district"))
    return (
        _Source(
            "person",
            (
                _plain("unit", "UUID", "t.id"),
                _plain("household", "UUID", "t.household_id"),
                _plain("born", "DATE", "t.birth_date"),
                _plain("died", "DATE", "t.deceased_on"),
                _plain("merged", "UUID", "t.merged_into"),
                ("sex", "VARCHAR", _text("t.sex")),
                *place,
                *marked("t"),
            ),
            "t.names IS NOT NULL",
        ),
        _Source(
            "household",
            (
                _plain("unit", "UUID", "t.id"),
                *place,
                _plain("community", "UUID", "t.community_id"),
                *marked("t"),
            ),
        ),
        _Source("community", (_plain("unit", "UUID", "t.id"), *place, *marked("t"))),
        _Source(
            "fact",
            (
                _plain("unit", "UUID", "coalesce(t.person_id, t.household_id, t.community_id)"),
                _plain("fact", "VARCHAR", "t.id"),
                ("service", "VARCHAR", _text("t.service")),
                _plain("protected", "BOOLEAN", "t.protected"),
                ("instrument", "VARCHAR", _text("t.instrument")),
                _plain("observed", "DATE", "t.observed_on"),
                _plain("recorded", "TIMESTAMP", "t.recorded_at AT TIME ZONE 'UTC'"),
            ),
        ),
        _Source(
            "status",
            (
                _plain("unit", "UUID", "t.unit"),
                _plain("number", "INTEGER", "t.number"),
                _plain("digest", "UUID", "t.digest"),
            ),
        ),
    )


def _plain(name: str, kind: str, expression: str) -> tuple[str, str, str]:
    """Return a column whose text needs no quotes."""
    return name, kind, f"coalesce(({expression})::text, '')"


def _text(expression: str) -> str:
    return f"coalesce('\"' || replace({expression}, '\"', '\"\"') || '\"', '')"


def _read(url: str, work: duckdb.DuckDBPyConnection, services: Mapping[str, Service], private: Path) -> str:
    """Copy what the rule needs, as one snapshot of the database shows it, and return which."""
    sources = _sources(services)
    with _connect(url) as holder:
        holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        snapshot = str(_one(holder, "SELECT pg_export_snapshot()"))
        seen = str(_one(holder, "SELECT pg_current_snapshot()::text"))
        with ThreadPoolExecutor(2) as readers:
            files = [
                readers.submit(_dump, url, snapshot, source, private / f"{source.table}-{part}.csv", part)
                for source in sources
                for part in (0, 1)
            ]
            for each in files:
                each.result()
    for source in sources:
        columns = ", ".join(f"{quoted(name)}: {quoted(kind)}" for name, kind, _expression in source.columns)
        work.execute(
            f"CREATE TABLE {source.table} AS SELECT * FROM read_csv({quoted(str(private / (source.table + '-*.csv')))},"  # noqa: S608
            f" columns = {{{columns}}}, header = false, auto_detect = false, delim = ',', quote = '\"', escape = '\"',"
            " nullstr = '', allow_quoted_nulls = false, new_line = '\\n')"
        )
        for path in private.glob(f"{source.table}-*.csv"):
            path.unlink()
    for statement in _PREPARE:
        work.execute(statement)
    work.execute(instruments())
    return seen


# Facts of somebody found to be another person are that person's; a household counts when somebody lives in it.
_PREPARE = (
    """
    CREATE TABLE same AS
    WITH RECURSIVE up AS (
        SELECT unit, merged FROM person WHERE merged IS NOT NULL
        UNION ALL
        SELECT up.unit, p.merged FROM up JOIN person AS p ON p.unit = up.merged WHERE p.merged IS NOT NULL
    )
    SELECT up.unit, up.merged AS root FROM up JOIN person AS p ON p.unit = up.merged WHERE p.merged IS NULL
    """,
    """
    CREATE TABLE known_fact AS
    SELECT coalesce(s.root, f.unit) AS unit, f.* EXCLUDE (unit) FROM fact AS f LEFT JOIN same AS s ON s.unit = f.unit
    """,
    "DROP TABLE fact",
    "ALTER TABLE household ADD COLUMN counts BOOLEAN",
    """
    UPDATE household SET counts = unit IN (
        SELECT household FROM person WHERE household IS NOT NULL AND died IS NULL AND merged IS NULL
    )
    """,
    "ALTER TABLE community ADD COLUMN community UUID",
    "UPDATE community SET community = unit",
    "ALTER TABLE community ADD COLUMN counts BOOLEAN DEFAULT true",
)


def _dump(url: str, snapshot: str, source: _Source, path: Path, part: int) -> None:
    """Write every other stretch of a table to a file: one value of many lines costs a fraction of as many rows."""
    line = " || ',' || ".join(expression for _name, _kind, expression in source.columns)
    query = (
        f"SELECT string_agg({line}, E'\\n') FROM siis.{source.table} AS t"  # noqa: S608
        f" WHERE t.ctid >= %s::tid AND t.ctid < %s::tid AND {source.where}"
    ).encode()
    with _connect(url) as reader, path.open("wb") as file:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        reader.execute(f"SET TRANSACTION SNAPSHOT {quoted(snapshot)}".encode())
        size = "SELECT pg_relation_size(%s::regclass) / current_setting('block_size')::int"
        blocks = int(str(_one(reader, size, f"siis.{source.table}")))
        for first in range(part * _BLOCKS, blocks, 2 * _BLOCKS):
            bounds = (f"({first},0)", f"({first + _BLOCKS},0)")
            with reader.cursor(binary=True) as cursor:
                row = cursor.execute(query, bounds).fetchone()
            if row is not None and row[0] is not None:
                file.write(str(row[0]).encode())
                file.write(b"\n")


def _chunks(work: duckdb.DuckDBPyConnection, rules: Rules, units: int) -> Iterator[list[str]]:
    """Yield the statements that compute one chunk after the other, each a range of ids of one kind."""
    compute: dict[str, Callable[[str], list[str]]] = {
        "person": rules.persons,
        "household": lambda condition: rules.shared("household", condition),
        "community": lambda condition: rules.shared("community", condition),
    }
    for kind, statements in compute.items():
        bounds = work.execute(
            f"SELECT unit FROM (SELECT unit, row_number() OVER (ORDER BY unit) AS place FROM {kind})"  # noqa: S608
            f" WHERE (place - 1) % {units} = 0 ORDER BY unit"
        ).fetchall()
        starts = [first for (first,) in bounds]
        for first, after in zip(starts, [*starts[1:], None], strict=False):
            yield statements(f"{{0}} >= '{first}'" + ("" if after is None else f" AND {{0}} < '{after}'"))


class _Writer:
    """Writes chunks back: what is new or another one than before, the replaced rows into the past."""

    def __init__(self, url: str, private: Path, work: duckdb.DuckDBPyConnection, at: datetime, because: str) -> None:
        self._url, self._private, self._work = url, private, work
        self._at, self._day, self._because = at, local_day(at), because
        self._files = 0
        self.changed = 0

    def export(self) -> tuple[Path, bool] | None:
        """Write what changed of the table ``computed`` to a file in the order of ids, and say whether all is new."""
        arrays = {
            name: f"'{{' || {name} || '}}' AS {name}"
            for name in ("populations", "categories", "applicable", "concurrent")
        }
        constants = {
            "number": "coalesce(s.number, 0) + 1 AS number",
            "at": f"{quoted(self._at.isoformat())} AS at",
            "day": f"{quoted(self._day.isoformat())} AS day",
            "because": f"{quoted(self._because)} AS because",
            "community_id": "community AS community_id",
        }
        named = {"unit": "c.unit", "digest": "c.digest"}
        columns = ", ".join(named.get(name) or arrays.get(name) or constants.get(name) or name for name in COLUMNS)
        self._work.execute(
            f"CREATE OR REPLACE TEMP TABLE changed AS SELECT {columns} FROM computed AS c"  # noqa: S608
            " LEFT JOIN status AS s ON s.unit = c.unit"
            " WHERE s.digest IS NULL OR s.digest <> c.digest"
        )
        changed = _count(self._work, "SELECT count(*) FROM changed")
        if not changed:
            return None
        self._files += 1
        path = self._private / f"changed-{self._files}.csv"
        self._work.execute(
            f"COPY (SELECT * FROM changed ORDER BY unit) TO {quoted(str(path))} (FORMAT csv, HEADER false)"  # noqa: S608
        )
        return path, _count(self._work, "SELECT count(*) FROM changed WHERE number = 1") == changed

    def write(self, path: Path, first: bool) -> None:
        """Bring one file into the database in a transaction of its own, and remove it; ``first``: all units are new."""
        for _attempt in range(_ATTEMPTS):
            try:
                self.changed += self._write(path, first)
            except psycopg.errors.LockNotAvailable:
                time.sleep(_PAUSE_S)
            else:
                path.unlink()
                return
        raise Busy

    def _write(self, path: Path, first: bool) -> int:
        with _connect(self._url) as connection, connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}".encode())
            connection.execute("LOCK TABLE siis.status IN EXCLUSIVE MODE")
            if first:
                try:
                    with connection.transaction():
                        return _copy(connection, path, "siis.status")
                except psycopg.errors.UniqueViolation:
                    pass  # Somebody was computed meanwhile.
            connection.execute("CREATE TEMP TABLE fresh (LIKE siis.status) ON COMMIT DROP")
            _copy(connection, path, "fresh")
            for statement in _REPLACE:
                cursor = connection.execute(statement.encode())
            return cursor.rowcount


_REPLACE = (
    f"INSERT INTO siis.status_past ({_NAMES}) SELECT {', '.join(f's.{name}' for name in COLUMNS)}"  # noqa: S608
    " FROM siis.status AS s JOIN pg_temp.fresh AS f ON f.unit = s.unit AND f.number = s.number + 1",
    # Where another computation came between, its number is ours: it is newer, and stays.
    f"INSERT INTO siis.status ({_NAMES}) SELECT {', '.join(f'f.{name}' for name in COLUMNS)}"  # noqa: S608
    " FROM pg_temp.fresh AS f LEFT JOIN siis.status AS s ON s.unit = f.unit"
    " WHERE f.number = coalesce(s.number, 0) + 1 ORDER BY f.unit"
    f" ON CONFLICT (unit) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in COLUMNS if name != 'unit')}",
)


def _copy(connection: psycopg.Connection[tuple[object, ...]], path: Path, table: str) -> int:
    statement = f"COPY {table} ({_NAMES}) FROM STDIN (FORMAT csv)"
    with connection.cursor() as cursor:
        with path.open("rb") as file, cursor.copy(statement.encode()) as copy:
            while block := file.read(_COPIED):
                copy.write(block)
        return cursor.rowcount


def _connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    options = f"{CONNECT_OPTIONS} -c jit=off"
    return psycopg.connect(url, autocommit=True, options=options, connect_timeout=5)


def _one(connection: psycopg.Connection[tuple[object, ...]], query: str, *values: str) -> object:
    row = connection.execute(query.encode(), values).fetchone()
    return None if row is None else row[0]


def _count(work: duckdb.DuckDBPyConnection, query: str) -> int:
    row = work.execute(query).fetchone()
    return 0 if row is None else int(row[0])
