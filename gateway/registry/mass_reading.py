"""Copies what the rule needs of everybody from PostgreSQL into DuckDB, as one snapshot of the database shows it.

There each unit has a number, in the order of the ids within its kind, and each fact is found by the number of its unit
and the place of its service in the catalogue: ``key = number * services + place``.
"""

# What goes into the statements are names of columns, and codes of catalogue and code lists, quoted.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from gateway.catalogue.models import Service
from gateway.database import CONNECT_OPTIONS
from gateway.registry.mass_rules import marks, quoted, types
from gateway.registry.status import POVERTY
from schemas.codes import code_list

if TYPE_CHECKING:
    import duckdb

#: Blocks of a table read by one query.
_BLOCKS = 1024


class _Source(NamedTuple):
    """A table to read: its columns (name, DuckDB type, PostgreSQL expression) and which rows."""

    table: str
    columns: tuple[tuple[str, str, str], ...]
    where: str = "true"


def connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """Return a connection that commits by itself; ``url`` is the database (libpq)."""
    options = f"{CONNECT_OPTIONS} -c jit=off"
    return psycopg.connect(url, autocommit=True, options=options, connect_timeout=5)


def read(url: str, work: duckdb.DuckDBPyConnection, services: Mapping[str, Service], private: Path) -> str:
    """Fill the tables of DuckDB and return which snapshot they show (``pg_snapshot`` as text).

    Files lie in ``private`` meanwhile. Raises psycopg.Error, OSError or duckdb.Error.
    """
    sources = _sources(services)
    with connect(url) as holder:
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
            f"CREATE VIEW {source.table}_file AS SELECT * FROM"
            f" read_csv({quoted(str(private / (source.table + '-*.csv')))}, columns = {{{columns}}}, header = false,"
            " auto_detect = false, delim = ',', quote = '\"', escape = '\"', nullstr = '', allow_quoted_nulls = false,"
            " new_line = '\\n')"
        )
    for statement in _tables(services):
        work.execute(statement)
    for path in private.glob("*.csv"):
        path.unlink()
    return seen


def _sources(services: Mapping[str, Service]) -> tuple[_Source, ...]:
    marked = tuple(
        (f"mark_{place}", "BOOLEAN", f"t.attributes -> {quoted(name)} = 'true'")
        for place, name in enumerate(marks(services))
    )
    unit = ("unit", "UUID", "t.id")
    # A text that anything may stand in is quoted.
    place = tuple((name, "VARCHAR", f"""'"' || replace(t.{name}, '"', '""') || '"'""") for name in _PLACE)
    community = ("community", "UUID", "t.community_id")
    listed = ", ".join(map(quoted, code_list("instruments")))
    return (
        _Source(
            "person",
            (
                unit,
                ("household", "UUID", "t.household_id"),
                ("born", "DATE", "t.birth_date"),
                ("died", "DATE", "t.deceased_on"),
                ("merged", "UUID", "t.merged_into"),
                ("woman", "BOOLEAN", "t.sex = 'F'"),
                *place,
                *marked,
            ),
            "t.names IS NOT NULL",
        ),
        _Source("household", (unit, *place, community, *marked)),
        _Source("community", (unit, *place, *marked)),
        _Source(
            "fact",
            (
                ("unit", "UUID", "coalesce(t.person_id, t.household_id, t.community_id)"),
                ("fact", "UUID", "t.id"),
                ("service", "VARCHAR", "t.service"),
                ("protected", "BOOLEAN", "t.protected"),
                ("instrument", "VARCHAR", f"CASE WHEN t.instrument IN ({listed}) THEN t.instrument END"),
                ("observed", "DATE", "t.observed_on"),
                # The zone of the connection is UTC.
                ("recorded", "TIMESTAMP", "t.recorded_at"),
            ),
            f"t.service IN ({', '.join(map(quoted, ['', *services]))})",
        ),
        _Source(
            "status", (("unit", "UUID", "t.unit"), ("number", "INTEGER", "t.number"), ("digest", "UUID", "t.digest"))
        ),
    )


_PLACE = ("department", "district")


def _dump(url: str, snapshot: str, source: _Source, path: Path, part: int) -> None:
    """Write every other stretch of a table to a file: one value of many lines costs a fraction of as many rows."""
    line = ", ',', ".join(expression for _name, _kind, expression in source.columns)
    query = (
        f"SELECT string_agg(concat({line}), E'\\n') FROM siis.{source.table} AS t"
        f" WHERE t.ctid >= %s::tid AND t.ctid < %s::tid AND {source.where}"
    ).encode()
    with connect(url) as reader, path.open("wb") as file:
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


def _tables(services: Mapping[str, Service]) -> list[str]:
    """Return the statements that make the tables of the files."""
    names = [f"mark_{place}" for place in range(len(marks(services)))]
    marked = ", ".join(f"coalesce(t.{name}, false) AS {name}" for name in names)
    poor = f"mark_{marks(services).index(POVERTY)}"
    place = ", ".join(f"t.{name}" for name in _PLACE)
    codes = ", ".join(f"({quoted(code)}, {number})" for number, code in enumerate([*services, ""]))
    ranks = ", ".join(f"({quoted(code)}, {each.get('rank', 0)})" for code, each in code_list("instruments").items())
    number = "CAST(row_number() OVER (ORDER BY t.unit) AS INTEGER)"
    return [
        *types(services),
        f"""
        CREATE TABLE person AS
        SELECT {number} AS no, t.unit, t.household, t.born, t.died, t.merged, t.woman, {place},
            h.community, coalesce(h.{poor}, false) AS poor, {marked}
        FROM person_file AS t
        LEFT JOIN (SELECT unit, community, {poor} FROM household_file) AS h ON h.unit = t.household
        """,
        # A household counts when somebody lives in it.
        f"""
        CREATE TABLE household AS
        SELECT {number} + (SELECT count(*) FROM person) AS no, t.unit, {place}, t.community, {marked},
            t.unit IN (
                SELECT household FROM person WHERE household IS NOT NULL AND died IS NULL AND merged IS NULL
            ) AS counts
        FROM household_file AS t
        """,
        f"""
        CREATE TABLE community AS
        SELECT {number} + (SELECT count(*) FROM person) + (SELECT count(*) FROM household) AS no, t.unit, {place},
            t.unit AS community, {marked}, true AS counts
        FROM community_file AS t
        """,
        # Facts of somebody found to be another person are that person's.
        """
        CREATE TABLE same AS
        WITH RECURSIVE up AS (
            SELECT unit, merged FROM person WHERE merged IS NOT NULL
            UNION ALL
            SELECT up.unit, p.merged FROM up JOIN person AS p ON p.unit = up.merged WHERE p.merged IS NOT NULL
        )
        SELECT up.unit, p.no FROM up JOIN person AS p ON p.unit = up.merged WHERE p.merged IS NULL
        """,
        """
        CREATE VIEW numbered AS
        SELECT p.unit, coalesce(s.no, p.no) AS no FROM person AS p LEFT JOIN same AS s ON s.unit = p.unit
        UNION ALL SELECT unit, no FROM household UNION ALL SELECT unit, no FROM community
        """,
        f"""
        CREATE TABLE known AS
        SELECT CAST(n.no AS BIGINT) * {max(len(services), 1)} + s.place AS key, f.fact, f.protected, f.observed,
            CAST(coalesce(i.rank, 0) AS SMALLINT) AS rank, f.recorded
        FROM fact_file AS f JOIN numbered AS n ON n.unit = f.unit
        JOIN (VALUES {codes}) AS s (code, place) ON s.code = f.service
        LEFT JOIN (VALUES {ranks}) AS i (code, rank) ON i.code = f.instrument
        """,
        """
        CREATE TABLE stored AS
        SELECT u.no, s.number, s.digest FROM status_file AS s
        JOIN (SELECT unit, no FROM person UNION ALL SELECT unit, no FROM household UNION ALL
            SELECT unit, no FROM community) AS u ON u.unit = s.unit
        """,
    ]


def _one(connection: psycopg.Connection[tuple[object, ...]], query: str, *values: str) -> object:
    row = connection.execute(query.encode(), values).fetchone()
    return None if row is None else row[0]
