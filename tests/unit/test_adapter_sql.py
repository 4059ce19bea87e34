"""The SQL kind: which queries a manifest may have, and what comes of them on a real SQLite file."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from adapter_examples import CEDULA
from adapter_written import asking, fetch, load, manifest, names, rows_of, take, taking

from adapters.connections import Connection
from adapters.errors import ManifestError
from adapters.models import Found, Identifier, Malformed, NotFound, Rejected, RejectedRow, Unavailable
from adapters.sqlengine import open_engine, target_of
from adapters.yamlfile import YamlFile

QUERY = "SELECT ci, nombres, nacimiento FROM personas WHERE ci = :identifier ORDER BY nombres"
ENDLESS = (
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) AS ci FROM n WHERE x = :identifier"
)


@pytest.fixture
def database(tmp_path: Path) -> str:
    file = tmp_path / "personas ñ.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE personas (ci TEXT, nombres TEXT, nacimiento DATE, foto BLOB, alta TEXT)")
        people = [(str(4123452 + n), f"N{n}", "1980-02-29", b"\xff", f"2026-01-0{n + 1}") for n in range(5)]
        connection.executemany("INSERT INTO personas VALUES (?, ?, ?, ?, ?)", people)
    connection.close()
    return f"sqlite:///{file}"


def adapter_of(folder: Path, address: str, query: str = QUERY, parts: Any = None, **more: Any) -> Any:
    return load(folder, manifest("sql", datasets=asking({"query": query}, **(parts or {})), **more), address)


async def test_a_row_is_an_answer_and_no_row_is_nobody(tmp_path: Path, database: str) -> None:
    adapter = adapter_of(tmp_path, database)
    found = await fetch(adapter)
    assert isinstance(found, Found)
    assert found.facts == {"cedula": "4123456", "given_names": "N4", "birth_date": "1980-02-29"}
    assert found.provenance.raw_sha256 is not None
    assert isinstance(await fetch(adapter, Identifier("cedula", "1")), NotFound)
    await adapter.close()


async def test_values_are_parameters_and_never_part_of_the_query(tmp_path: Path, database: str) -> None:
    query = "SELECT ci, nombres FROM personas WHERE ci = :identifier AND (:nombre IS NULL OR nombres = :nombre)"
    adapter = adapter_of(tmp_path, database, query, {"body": {"nombre": "presented.names"}})
    assert isinstance(await fetch(adapter), Found)
    assert isinstance(await fetch(adapter, presented={"names": "N4"}), Found)
    assert isinstance(await fetch(adapter, presented={"names": "x' OR '1'='1"}), NotFound)
    await adapter.close()


async def test_all_rows_are_there_beside_the_first_and_no_more_than_agreed(tmp_path: Path, database: str) -> None:
    query = "SELECT ci, nombres FROM personas WHERE ci <= :identifier ORDER BY ci DESC"
    fields = {"cedula": "ci", "given_names": "join(' ', rows[].nombres)"}
    limits = {"budget_s": 5, "rows": 5}
    adapter = adapter_of(tmp_path, database, query, {"fields": fields}, limits=limits)
    found = await fetch(adapter)
    assert isinstance(found, Found)
    assert found.facts == {"cedula": CEDULA.value, "given_names": "N4 N3 N2 N1 N0"}
    await adapter.close()
    for limits, reason in (({"rows": 4}, "more than 4 rows"), ({"max_body": 1024}, "the answer is longer")):
        query = "SELECT ci, nombres, printf('%200d', 1) AS relleno FROM personas WHERE ci <= :identifier"
        adapter = adapter_of(tmp_path, database, query, limits={"budget_s": 5, **limits})
        outcome = await fetch(adapter)
        assert isinstance(outcome, Malformed)
        assert outcome.reason.startswith(reason)
        await adapter.close()


@pytest.mark.parametrize(
    ("query", "kind", "reason"),
    [
        ("SELECT ci, foto FROM personas WHERE ci = :identifier", Malformed, "a column of a type that is not read"),
        ("SELECT ci, nombres AS ci FROM personas WHERE ci = :identifier", Malformed, "two columns of one name"),
        (
            "SELECT ci, 9e999 AS x FROM personas WHERE ci = :identifier",
            Malformed,
            "a column of a type that is not read",
        ),
        (
            "SELECT ci, CAST(x'ff' AS TEXT) AS x FROM personas WHERE ci = :identifier",
            Malformed,
            "a text that is not UTF-8",
        ),
        (
            "SELECT nadie FROM personas WHERE ci = :identifier",
            Malformed,
            "the database refuses the query: SQLITE_ERROR",
        ),
        ("SELECT ci FROM nada WHERE ci = :identifier", Malformed, "the database refuses the query: SQLITE_ERROR"),
        (
            "SELECT '4123457' AS ci, 'X' AS nombres WHERE :identifier > ''",
            Malformed,
            "cedula: the answer is about somebody else",
        ),
        ("SELECT ci FROM personas WHERE ci = :identifier", Malformed, "given_names: missing"),
    ],
)
async def test_what_is_not_the_contract_is_malformed_and_tells_no_value(
    tmp_path: Path, database: str, query: str, kind: type, reason: str
) -> None:
    adapter = adapter_of(tmp_path, database, query)
    outcome = await fetch(adapter)
    assert (type(outcome), outcome.reason, outcome.provenance.attempts) == (kind, reason, 1)
    await adapter.close()


@pytest.mark.parametrize("content", [None, b"no database" * 200])
async def test_a_file_that_is_no_database_is_named_so_and_never_made(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "otra.db"
    if content is not None:
        file.write_bytes(content)
    adapter = adapter_of(tmp_path, f"sqlite:///{file}")
    outcome = await fetch(adapter)
    assert isinstance(outcome, Unavailable if content is None else Malformed)
    assert file.exists() == (content is not None)
    await adapter.close()


async def test_a_query_that_takes_too_long_is_given_up_and_leaves_its_thread_free(
    tmp_path: Path, database: str
) -> None:
    rules = {"limits": {"budget_s": 0.2, "concurrency": 1}}
    adapter = adapter_of(tmp_path, database, ENDLESS, **rules)
    for _ in range(2):
        outcome = await fetch(adapter)
        assert (type(outcome), outcome.reason) == (Unavailable, "timeout")
    # Would wait for ever for a thread that still counts.
    await adapter.close()


async def test_the_file_is_open_for_reading_only(database: str, tmp_path: Path) -> None:
    connection = Connection(database, "", YamlFile("connections.yaml", {}, {}))
    engine = open_engine(target_of("prueba", connection, None, None), 5)
    with engine.connect() as line, pytest.raises(Exception, match="readonly"):
        line.exec_driver_sql("DELETE FROM personas")


async def test_a_register_is_read_onto_disk_and_taken_once(tmp_path: Path, database: str) -> None:
    query = "SELECT CASE nombres WHEN 'N2' THEN 'x1' ELSE ci END AS ci, nombres FROM personas WHERE nombres <> :sin"
    register = taking({"query": query}, body={"sin": {"const": "N0"}})
    adapter = load(tmp_path, manifest("sql", bulk=register), database)
    taken = await take(adapter)
    rows = await rows_of(taken)
    assert names(rows) == ["N1", "N3", "N4"]
    assert rows[1] == RejectedRow(2, "ci", "not a cédula", "a9")
    assert names(await rows_of(taken, after=2)) == ["N3", "N4"]
    assert taken.provenance.raw_sha256 == taken.sha256
    await taken.close()
    assert isinstance(await take(adapter, (taken.sha256,)), NotFound)
    assert isinstance(await fetch(adapter), Rejected)
    await adapter.close()


PERSON = "SELECT ci FROM personas WHERE ci = :identifier"


@pytest.mark.parametrize(
    ("query", "body", "field"),
    [
        (f"{PERSON};", {}, "request.query"),
        (f"{PERSON}; DROP TABLE personas", {}, "request.query"),
        (f"{PERSON} -- todo", {}, "request.query"),
        (f"{PERSON} /*! todo */", {}, "request.query"),
        (rf"{PERSON} AND x = '\' OR 1 = 1'", {}, "request.query"),
        ("WITH x AS (DELETE FROM personas WHERE ci = :identifier RETURNING ci) SELECT ci FROM x", {}, "request.query"),
        ("WITH x AS (SELECT 1) INSERT INTO t SELECT :identifier", {}, "request.query"),
        ("SELECT ci INTO copia FROM personas WHERE ci = :identifier", {}, "request.query"),
        (f"{PERSON} FOR UPDATE", {}, "request.query"),
        (f"{PERSON} FOR  SHARE", {}, "request.query"),
        ("UPDATE personas SET ci = :identifier", {}, "request.query"),
        ("SELECT ci FROM personas WHERE ci = :cedula", {}, "request.query"),
        ("SELECT ci FROM personas WHERE 1 = 1", {}, "request.query"),
        (PERSON, {"nombre": "presented.names"}, "body.nombre"),
    ],
)
def test_a_query_that_is_more_than_one_select_or_asks_by_what_is_not_declared_is_refused(
    tmp_path: Path, query: str, body: dict[str, str], field: str
) -> None:
    parts = {"body": body} if body else None
    with pytest.raises(ManifestError) as refused:
        adapter_of(tmp_path, "sqlite:////nowhere.db", query, parts)
    assert (refused.value.file, refused.value.field) == ("prueba.yaml", f"datasets.identity.{field}")
    assert refused.value.line is not None
    assert refused.value.line > 1


@pytest.mark.parametrize(
    "query",
    [
        "SELECT ci AS \"update\", 'insert into, no' AS nombres FROM personas WHERE ci = :identifier",
        "select replace(ci, '.', '') AS ci, updated_at, alta::text FROM personas WHERE ci = :identifier",
        r"SELECT ci, '12:30' AS hora, '\:x' AS y FROM personas WHERE ci = :identifier",
    ],
)
async def test_words_and_colons_that_change_nothing_are_let_be(tmp_path: Path, query: str) -> None:
    await adapter_of(tmp_path, "sqlite:////nowhere.db", query).close()


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:///relativa.db",
        "postgresql://base.mitic.gov.py",
        "postgresql://127.0.0.1/una/otra",
        "mysql://base.mitic.gov.py/personas",
        "mssql://127.0.0.1/personas",
        "postgresql://siis:clave@127.0.0.1/personas",
        "postgresql://127.0.0.1/personas?options=-c",
        "https://127.0.0.1/personas",
    ],
)
def test_an_address_that_is_no_database_of_ours_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(ManifestError, match=r"connections\.yaml:1: prueba\.address: "):
        adapter_of(tmp_path, address)


def test_across_a_public_network_postgresql_speaks_tls_and_checks_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection("postgresql://base.mitic.gov.py/personas", "", YamlFile("connections.yaml", {}, {}))
    target = target_of("prueba", connection, "siis", "clave")
    assert "clave" not in repr(target)
    asked: dict[str, object] = {}
    engine = open_engine(target, 5)

    def dial(**parameters: object) -> None:
        asked.update(parameters)
        raise ConnectionError

    monkeypatch.setattr(engine.dialect, "connect", dial)
    with pytest.raises(ConnectionError):
        engine.connect()
    assert (asked["host"], asked["password"]) == ("base.mitic.gov.py", "clave")
    assert (asked["sslmode"], asked["sslrootcert"]) == ("verify-full", "system")
