"""The SQL kind on a real PostgreSQL: read-only, in time, and never held up by a server that no longer answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from adapter_examples import server
from adapter_written import asking, fetch, load, manifest, names, rows_of, take, taking

from adapters.models import Found, Identifier, Malformed, NotFound, RejectedRow, Unavailable
from gateway import embedded

TABLES = """
CREATE TABLE personas (ci integer PRIMARY KEY, nombres text, nacimiento date, alta timestamptz, monto numeric(12, 2),
                       clave uuid, datos jsonb, marcas text[], pausa interval);
INSERT INTO personas VALUES (4123456, 'ÑANDUTÍ', '1980-02-29', '2026-11-22 10:00:00-03', 1500000.50,
                             '019a2b3c-4d5e-7f60-8a1b-2c3d4e5f6071', '{"n": [1, null]}', '{a,b}', '1 day');
CREATE TABLE secretos (ci integer);
CREATE TABLE visitas (ci text);
CREATE FUNCTION anotar(ci text) RETURNS text LANGUAGE sql AS 'INSERT INTO visitas VALUES (ci) RETURNING ci';
CREATE ROLE consulta LOGIN PASSWORD 'clave';
GRANT SELECT ON personas TO consulta;
GRANT INSERT, SELECT ON visitas TO consulta;
"""
AUTH = {"type": "password", "username": "consulta", "secret": "clave"}
# A backslash, which no query of a manifest may hold.
HALF = "' || chr(92) || '"
QUERY = "SELECT ci::text AS ci, nombres, nacimiento FROM personas WHERE ci = :identifier"


@pytest.fixture(scope="module")
def postgres(folders: Callable[[str], Path]) -> Iterator[embedded.EmbeddedServer]:
    """A server whose role for queries has a password."""
    folder = folders("sql")
    started = embedded.start(folder)
    with psycopg.connect(started.url(embedded.SUPERUSER, "postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE personas")
        [hba] = admin.execute("SHOW hba_file").fetchone() or ("",)
        rules = Path(hba).read_text(encoding="utf-8")
        Path(hba).write_text(f"local all consulta scram-sha-256\n{rules}", encoding="utf-8")
        admin.execute("SELECT pg_reload_conf()")
    with psycopg.connect(started.url(embedded.SUPERUSER, "personas"), autocommit=True) as admin:
        admin.execute(TABLES)
    yield started
    embedded.stop(folder)


class Door:
    """A TCP door of the server; connections made while it stands still hang for good, as do those there already."""

    def __init__(self, postgres: embedded.EmbeddedServer) -> None:
        self._socket = str(postgres.socket_dir / ".s.PGSQL.5432")
        self.address = ""
        self.open()

    def open(self) -> None:
        """Let connections made from now on through."""
        self._moving = asyncio.Event()
        self._moving.set()

    def stand_still(self) -> None:
        """Let nothing through any more, and keep every connection."""
        self._moving.clear()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        moving = self._moving
        from_server, to_server = await asyncio.open_unix_connection(self._socket)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._pass(reader, to_server, moving))
                ways.create_task(self._pass(from_server, writer, moving))
        finally:
            to_server.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, moving: asyncio.Event) -> None:
        try:
            with suppress(OSError):
                while data := await reader.read(65536):
                    await moving.wait()
                    writer.write(data)
                    await writer.drain()
        finally:
            # A reset ends the reading too, and the other side must hear of it.
            writer.close()


@asynccontextmanager
async def door_of(postgres: embedded.EmbeddedServer) -> AsyncIterator[Door]:
    door = Door(postgres)
    async with server(door) as address:
        door.address = f"{address.replace('http', 'postgresql')}/personas"
        yield door


@pytest.fixture
async def door(postgres: embedded.EmbeddedServer) -> AsyncIterator[Door]:
    async with door_of(postgres) as opened:
        yield opened


def adapter_of(
    folder: Path, door: Door, query: str = QUERY, given: str = AUTH["secret"], parts: Any = None, **more: Any
) -> Any:
    content = manifest("sql", auth=AUTH, datasets=asking({"query": query}, **(parts or {})), **more)
    return load(folder, content, door.address, secrets={"clave": given})


async def test_a_person_is_found_by_a_user_with_a_password(tmp_path: Path, door: Door) -> None:
    adapter = adapter_of(tmp_path, door)
    for _ in range(2):
        found = await fetch(adapter)
        assert isinstance(found, Found)
        assert found.facts == {"cedula": "4123456", "given_names": "ÑANDUTÍ", "birth_date": "1980-02-29"}
    assert isinstance(await fetch(adapter, Identifier("cedula", "1")), NotFound)
    await adapter.close()
    adapter = adapter_of(tmp_path, door, given="otra")
    outcome = await fetch(adapter)
    assert isinstance(outcome, Unavailable)
    assert "otra" not in repr(outcome)
    await adapter.close()


async def test_columns_of_every_plain_type_are_read_and_others_are_not(tmp_path: Path, door: Door) -> None:
    query = "SELECT ci::text, 'x' AS nombres, alta, monto, clave, datos, marcas FROM personas WHERE ci = :identifier"
    fields = {
        "cedula": "ci",
        "surnames": "monto",
        "nationality": "clave",
        "profession": "join('', marcas)",
        "marital_status": "to_string(datos.n)",
        "birth_date": {"from": "alta", "through": ["date10"]},
    }
    adapter = adapter_of(tmp_path, door, query, parts={"fields": fields})
    found = await fetch(adapter)
    assert isinstance(found, Found)
    assert found.facts == {
        "cedula": "4123456",
        "surnames": "1500000.50",
        "nationality": "019a2b3c-4d5e-7f60-8a1b-2c3d4e5f6071",
        "profession": "ab",
        "marital_status": "[1,null]",
        "birth_date": "2026-11-22",
    }
    await adapter.close()


@pytest.mark.parametrize(
    ("query", "kind", "reason"),
    [
        ("SELECT anotar(:identifier) AS ci", Malformed, "the query writes"),
        ("SELECT pausa FROM personas WHERE ci = :identifier", Malformed, "a column of a type that is not read"),
        (f"SELECT '[{10**30}]'::json AS n WHERE :identifier > ''", Malformed, "a whole number of more than 64 bits"),
        (f"SELECT ('[\"{HALF}ud800\"]')::json AS n WHERE :identifier > ''", Malformed, "a text that is not Unicode"),
        (
            f"SELECT ('{{\"{HALF}udfff\": 1}}')::json AS n WHERE :identifier > ''",
            Malformed,
            "a text that is not Unicode",
        ),
        ("SELECT ci FROM nada WHERE ci = :identifier", Malformed, "the database refuses the query: 42P01"),
        ("SELECT ci FROM personas WHERE nacimiento = :identifier", Malformed, "the database refuses the query: 22008"),
        ("SELECT ci FROM secretos WHERE ci = :identifier", Unavailable, "credentials refused"),
        ("SELECT pg_sleep(60), ci FROM personas WHERE ci = :identifier", Unavailable, "timeout"),
    ],
)
async def test_what_the_database_refuses_is_an_outcome_without_a_value(
    tmp_path: Path, door: Door, postgres: embedded.EmbeddedServer, query: str, kind: type, reason: str
) -> None:
    adapter = adapter_of(tmp_path, door, query, limits={"budget_s": 1.5})
    outcome = await fetch(adapter)
    assert (type(outcome), outcome.reason) == (kind, reason)
    await adapter.close()
    # Nothing of it goes on at the server either.
    left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'consulta'"
    async with (
        asyncio.timeout(30),
        await psycopg.AsyncConnection.connect(postgres.url(embedded.SUPERUSER, "personas"), autocommit=True) as admin,
    ):
        while (await (await admin.execute(left)).fetchone()) != (0,):
            await admin.execute("SELECT pg_sleep(0.05)")
        assert await (await admin.execute("SELECT count(*) FROM visitas")).fetchone() == (0,)


@pytest.mark.parametrize("warm", [False, True], ids=["while connecting", "in a query"])
async def test_a_server_that_stops_answering_costs_a_call_and_no_thread(tmp_path: Path, door: Door, warm: bool) -> None:
    limits = {"budget_s": 0.5, "concurrency": 1}
    adapter = adapter_of(tmp_path, door, limits=limits, retry={"attempts": 1}, breaker={"failures": 100})
    if warm:
        assert isinstance(await fetch(adapter), Found)
    door.stand_still()
    outcome = await fetch(adapter)
    assert (type(outcome), outcome.reason) == (Unavailable, "timeout")
    door.open()
    async with asyncio.timeout(30):
        while not isinstance(await fetch(adapter), Found):
            pass
    await adapter.close()


async def test_a_hanging_database_holds_nobody_else(tmp_path: Path, postgres: embedded.EmbeddedServer) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with door_of(postgres) as dead, door_of(postgres) as alive:
        hanging = adapter_of(tmp_path / "a", dead, limits={"budget_s": 60, "concurrency": 4})
        healthy = adapter_of(tmp_path / "b", alive)
        await asyncio.gather(*(fetch(hanging) for _ in range(4)))
        dead.stand_still()
        waiting = [asyncio.create_task(fetch(hanging)) for _ in range(16)]
        outcomes = await asyncio.gather(*(fetch(healthy) for _ in range(20)))
        assert [type(outcome) for outcome in outcomes] == [Found] * 20
        assert not any(task.done() for task in waiting)
        # A caller who goes away is not waited for either.
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        await hanging.close()
        outcomes = await asyncio.gather(*waiting[1:])
        assert {type(outcome) for outcome in outcomes} == {Unavailable}
        await healthy.close()


async def test_a_lost_connection_is_replaced(tmp_path: Path, door: Door, postgres: embedded.EmbeddedServer) -> None:
    adapter = adapter_of(tmp_path, door, limits={"budget_s": 5, "concurrency": 1})
    assert isinstance(await fetch(adapter), Found)
    with psycopg.connect(postgres.url(embedded.SUPERUSER, "personas"), autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'consulta'")
    found = await fetch(adapter)
    assert isinstance(found, Found)
    assert found.provenance.attempts == 2
    await adapter.close()


async def test_a_register_of_many_rows_is_read_by_a_cursor_and_taken_once(tmp_path: Path, door: Door) -> None:
    query = (
        "SELECT CASE n WHEN 7 THEN NULL ELSE (1000000 + n)::text END AS ci, 'N' || n AS nombres "
        "FROM generate_series(1, 5000) AS n ORDER BY n"
    )
    adapter = load(
        tmp_path,
        manifest("sql", auth=AUTH, bulk=taking({"query": query})),
        door.address,
        secrets={"clave": "clave"},
    )
    taken = await take(adapter)
    rows = await rows_of(taken)
    assert len(rows) == 5000
    assert rows[6] == RejectedRow(7, "ci", "missing")
    assert names(rows)[-1] == "N5000"
    assert names(await rows_of(taken, after=4998)) == ["N4999", "N5000"]
    await taken.close()
    assert isinstance(await take(adapter, (taken.sha256,)), NotFound)
    await adapter.close()


async def test_a_register_cut_off_midway_is_no_register(
    tmp_path: Path, door: Door, postgres: embedded.EmbeddedServer
) -> None:
    query = "SELECT n::text AS ci, pg_sleep(0.0005)::text AS z FROM generate_series(1, 100000) AS n"
    content = manifest("sql", auth=AUTH, bulk=taking({"query": query}), retry={"attempts": 1})
    adapter = load(tmp_path, content, door.address, secrets={"clave": "clave"})
    under_way = asyncio.create_task(take(adapter))
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'consulta' AND query LIKE 'FETCH%'"
    async with (
        asyncio.timeout(30),
        await psycopg.AsyncConnection.connect(postgres.url(embedded.SUPERUSER, "personas"), autocommit=True) as admin,
    ):
        while (await (await admin.execute(ended)).fetchone()) is None:
            await admin.execute("SELECT pg_sleep(0.01)")
    outcome = await asyncio.wait_for(under_way, 60)
    assert isinstance(outcome, Unavailable)
    await adapter.close()
