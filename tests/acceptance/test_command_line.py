"""The command line as an operator types it: what it prints, how it ends, and that it finds what was done to the log."""

# ruff: noqa: S608 — the SQL that tampers with the log is put together from constants of these tests

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.main import get_command

from adapters.registry import SHIPPED
from audit.integrator import integrate_once
from gateway.cli.app import app
from gateway.cli.context import open_context
from gateway.migrations import head
from gateway.runtime import load_signer
from gateway.settings import load_settings
from tests.acceptance.command_line import Siis, clean


@pytest.fixture(scope="module")
def siis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siis]:
    """The command line in Spanish, on no data folder yet."""
    made = Siis(tmp_path_factory.mktemp("siis"), "es", None)
    yield made
    made.end()


@pytest.fixture(scope="module")
def empty(siis: Siis, folders: Callable[[str], Path]) -> Iterator[Siis]:
    """The command line on a data folder of its own, with a server and no tables."""
    here = siis.on(folders("own") / "data")
    assert here("db", "start").code == 0
    yield here
    assert here("db", "stop").code == 0


@pytest.fixture(scope="module")
def own(empty: Siis) -> Siis:
    """The same folder with tables, fifty persons, some numbered entries and some that wait."""
    upgraded = empty("db", "upgrade", "--with-demonstration")
    assert upgraded.code == 0, upgraded.err
    assert empty("population", "generate", "--persons", "50").code == 0
    asyncio.run(_number(empty))
    for _time in range(3):
        assert empty("audit", "show", "--limit", "1", "--json").code == 0
    return empty


async def _number(siis: Siis) -> None:
    settings = load_settings(data_dir=siis.data_dir)
    async with open_context(settings) as context, context.database.connection() as connection:
        await integrate_once(connection, load_signer(settings), context.audit)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Give every command with its help text in Spanish, the groups too."""
    yield path, command.help
    if hasattr(command, "list_commands"):
        for name in command.list_commands(None):
            yield from commands(command.get_command(None, name), (*path, name))


def test_every_command_explains_itself_in_spanish_and_in_english(
    siis: Siis, tmp_path_factory: pytest.TempPathFactory
) -> None:
    english = Siis(tmp_path_factory.mktemp("siis-en"), "en", None)
    everything = list(commands(get_command(app)))
    assert len(everything) > 25
    for told, arguments, there in ((siis, (), True), (english, ("--lang", "en"), False)):
        for path, text in everything:
            shown = told(*arguments, *path, "--help")
            assert shown.code == 0, path
            first = text.split(".")[0].split(":")[0]
            assert (first in " ".join(shown.out.split())) is there, path
    english.end()


@pytest.mark.parametrize(
    "arguments",
    [("no-such-command",), ("db", "no-such-command"), ("referral", "trace"), ("audit", "show", "--limit", "0"), ()],
)
def test_bad_usage_ends_with_2(siis: Siis, arguments: tuple[str, ...]) -> None:
    ended = siis(*arguments)
    assert ended.code == 2
    assert not arguments or ended.err


WRONG = {
    "SIIS_PORT": ("x", "integer"),
    "SIIS_DATABASE_URL": ("mysql://user:geheim@db/siis", "postgresql://"),
    "SIIS_FOO": ("1", "no existe"),
    "SIIS_SECRETS_DIR": ("/no/such/folder", "carpeta"),
    "SIIS_ISSUER": ("ftp://siis.gov.py", "se esperaba"),
    "SIIS_MAX_BODY_BYTES": ("10", "1024"),
    "SIIS_RETRY_FIRST_S": ("-1", "greater than 0"),
    "SIIS_RECORDER": ("Not A Name", "se esperaba"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("command", [("adapter", "list"), ("db", "status"), ("serve",), ("worker",)], ids=" ".join)
def test_a_wrong_setting_stops_every_command_with_its_name_and_what_was_expected(
    siis: Siis, name: str, command: tuple[str, ...]
) -> None:
    value, expected = WRONG[name]
    ended = siis(*command, **{name: value})
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"{name}: ")
    assert expected in ended.err
    assert "geheim" not in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_new_process_says_the_same() -> None:
    environment = {**clean(), "SIIS_PORT": "x", "SIIS_RETRY_ATTEMPTS": "0"}
    command = [sys.executable, "-m", "gateway.cli", "adapter", "list"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert [line.split(":")[0] for line in ended.stderr.splitlines()] == ["SIIS_PORT", "SIIS_RETRY_ATTEMPTS"]


def test_an_address_that_anybody_can_listen_on_is_no_issuer(siis: Siis, tmp_path: Path) -> None:
    ended = siis("client", "token", "demo-mds", "--key", tmp_path / "none", SIIS_ISSUER="http://siis.gov.py")
    assert ended.code == 2
    assert "https" in ended.err


@pytest.mark.parametrize("language", ["fr", "", "es-PY"])
def test_a_language_that_is_not_there_is_bad_usage(siis: Siis, language: str) -> None:
    assert siis("--lang", language, "db", "status").code == 2
    assert siis("db", "status", SIIS_LANG=language).code == 2


def test_a_data_folder_that_cannot_be_made_stops_with_its_name(siis: Siis, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = siis.on(tmp_path / "file" / "data")("db", "start")
    assert ended.code == 2
    assert "SIIS_DATA_DIR" in ended.err
    assert "Traceback" not in ended.err


def test_without_tables_commands_end_with_1_and_say_what_to_do(empty: Siis) -> None:
    for command in (("client", "list"), ("audit", "verify"), ("population", "generate", "--persons", "1")):
        ended = empty(*command)
        assert ended.code == 1, command
        assert "siis db upgrade" in ended.err
        assert "Traceback" not in ended.err
    ended = empty("db", "status", "--json")
    assert (ended.code, ended.json()["running"], ended.json()["usable"]) == (1, True, False)


def test_the_server_stops_and_starts_and_keeps_running_in_between(own: Siis) -> None:
    assert own("db", "status", "--json").json() == {
        "embedded": True,
        "running": True,
        "revision": head(),
        "expected": head(),
        "usable": True,
    }
    assert own("db", "stop").code == 0
    stopped = own("db", "status", "--json")
    assert (stopped.code, stopped.json()["running"], stopped.json()["usable"]) == (1, False, False)
    assert own("db", "stop").code == 0
    assert own("db", "start").code == 0
    assert own("db", "start").code == 0
    assert own("db", "status").code == 0
    assert own("db", "upgrade").code == 0


@pytest.mark.parametrize(("role", "user"), [("admin", "postgres"), ("owner", "siis_owner"), ("app", "siis_app")])
def test_the_address_it_prints_is_one_that_libpq_takes(own: Siis, role: str, user: str) -> None:
    ended = own("db", "url", "--role", role)
    with psycopg.connect(ended.out.strip()) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (user,)


def test_a_server_that_is_not_ours_is_neither_started_nor_stopped(siis: Siis) -> None:
    for command in ("start", "stop"):
        ended = siis("db", command, SIIS_DATABASE_URL="postgresql://nobody:geheim@127.0.0.1:1/none")
        assert ended.code == 2
        assert "geheim" not in ended.err
    ended = siis("db", "status", SIIS_DATABASE_URL="postgresql://nobody:geheim@127.0.0.1:1/none")
    assert ended.code == 1
    assert "SIIS_DATABASE_URL" in ended.err
    assert "geheim" not in ended.err


def test_the_same_population_twice_is_once_and_another_size_is_refused(own: Siis) -> None:
    again = own("population", "generate", "--persons", "50")
    assert again.code == 0
    assert "ya estaba" in again.out
    other = own("population", "generate", "--persons", "51")
    assert other.code == 1
    assert "50" in other.err
    assert own("population", "generate", "--persons", "0").code == 2
    assert own("population", "generate", "--seed", "-1").code == 2
    counts = own("population", "status", "--json").json()
    assert sum(each["reached"] + each["missing"] for each in counts.values()) > 0


@pytest.fixture(scope="module")
def admin(own: Siis) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection to the folder's own log."""
    with psycopg.connect(own("db", "url").out.strip(), autocommit=True) as connection:
        yield connection


PLACES = {
    "the first": "ORDER BY id",
    "the last": "ORDER BY id DESC",
    "one that is numbered": "WHERE id IN (SELECT entry_id FROM audit.sequence) ORDER BY id DESC",
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("column", ["envelope", "detail"])
def test_one_changed_byte_of_an_entry_is_found_and_the_entry_named(
    own: Siis, admin: psycopg.Connection[Any], column: str, place: str
) -> None:
    assert own("audit", "verify", "--json").json()["ok"] is True
    entry_id, before = admin.execute(f"SELECT id, {column} FROM audit.entry {place} LIMIT 1").fetchone() or ("", b"")
    changed = bytearray(before)
    changed[len(changed) // 2] ^= 1
    admin.execute(f"UPDATE audit.entry SET {column} = %s WHERE id = %s", (bytes(changed), entry_id))
    try:
        ended, told = own("audit", "verify", "--json"), own("audit", "verify")
    finally:
        admin.execute(f"UPDATE audit.entry SET {column} = %s WHERE id = %s", (before, entry_id))
    assert ended.code == told.code == 1
    assert ended.json()["ok"] is False
    assert ended.json()["first_problem"]["entry_id"] == str(entry_id)
    assert str(entry_id) in told.err
    assert "NO ESTÁ ÍNTEGRO" in told.err
    assert own("audit", "verify").code == 0


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_one_removed_entry_is_found_and_named(own: Siis, admin: psycopg.Connection[Any], place: str) -> None:
    [entry_id] = admin.execute(f"SELECT id FROM audit.entry {place} LIMIT 1").fetchone() or [""]
    admin.execute("CREATE TABLE public.kept AS SELECT * FROM audit.entry WHERE id = %s", (entry_id,))
    admin.execute("DELETE FROM audit.entry WHERE id = %s", (entry_id,))
    try:
        ended = own("audit", "verify", "--json")
    finally:
        admin.execute("INSERT INTO audit.entry SELECT * FROM public.kept")
        admin.execute("DROP TABLE public.kept")
    assert ended.code == 1
    assert ended.json()["first_problem"]["entry_id"] == str(entry_id)
    assert ended.json()["first_problem"]["kind"] == "missing"
    assert own("audit", "verify").code == 0


@pytest.mark.parametrize("role", ["owner", "app"])
@pytest.mark.parametrize(
    "statement", ["UPDATE audit.entry SET type = 'x'", "DELETE FROM audit.entry", "TRUNCATE audit.entry"]
)
def test_nobody_less_than_a_superuser_can_change_the_log_at_all(own: Siis, role: str, statement: str) -> None:
    with (
        psycopg.connect(own("db", "url", "--role", role).out.strip()) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)


@pytest.mark.parametrize("file", ["kek.key", "log-signing.pem"])
def test_a_key_that_is_not_the_one_stops_with_its_file(own: Siis, file: str) -> None:
    assert own.data_dir is not None
    path = own.data_dir / "keys" / file
    before = path.read_bytes()
    path.write_bytes(b"x" * 32)
    try:
        ended = own("audit", "verify")
    finally:
        path.write_bytes(before)
    assert ended.code == 2
    assert file in ended.err
    assert "Traceback" not in ended.err


def test_whoever_looks_at_the_log_is_in_it(own: Siis) -> None:
    [newest] = own("audit", "show", "--limit", "1", "--json").json()
    assert newest["envelope"]["type"] == "log.read"
    assert newest["detail"]["actor"]["channel"] == "command-line"
    shown = own("audit", "show", "--type", "population.registered", "--json").json()
    assert [entry["detail"]["what"]["persons"] for entry in shown] == [50]
    table = own("audit", "show")
    assert table.code == 0
    assert "population.registered" in table.out


def test_a_system_whose_connection_is_not_there_is_listed_as_such(own: Siis) -> None:
    listed = own("adapter", "list", "--json").json()
    assert len(listed) == len(list(SHIPPED.glob("*.yaml")))
    assert not any(adapter["connected"] for adapter in listed)


@pytest.mark.parametrize(
    "text",
    ["a: [", "nobody: {address: 'http://127.0.0.1:1'}", "mds: {address: gopher://x}", "mds: {adress: x}", "[]", "1"],
)
def test_a_file_of_connections_that_is_wrong_stops_with_its_name(own: Siis, tmp_path: Path, text: str) -> None:
    file = tmp_path / "conexiones.yaml"
    file.write_text(text, encoding="utf-8")
    ended = own("adapter", "list", SIIS_CONNECTIONS=str(file))
    assert (ended.code, ended.out) == (2, "")
    assert "conexiones.yaml" in ended.err
