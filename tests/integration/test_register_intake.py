"""Whole registers end to end on a real database: taken once, answering, refused as a whole, taken up again."""

from __future__ import annotations

import asyncio
import csv
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
import yaml
from adapter_examples import answering, server
from adapter_written import load, manifest

from adapters.base import ProducerAdapter
from adapters.files.adapter import FileAdapter
from audit.search import recent
from consent.models import Caller
from gateway import embedded, errors
from gateway.cli.context import open_context
from gateway.cli.db import bring_up
from gateway.exchange import Disclosure, DisclosureRequest
from gateway.intake import registers
from gateway.intake.registers import Intake
from gateway.registry import service as registry
from gateway.registry.models import NewPerson
from gateway.runtime import Runtime, open_runtime
from gateway.settings import Settings, load_settings
from schemas.ids import uuid7
from tests.house import until

HEAD = "documento;nombres;apellidos;mes;entidad;devengado;extra"
FIELDS: dict[str, Any] = {
    "cedula": {"from": "documento", "through": ["strip", "cedula"], "required": True},
    "given_names": {"from": "nombres", "through": ["strip"], "required": True},
    "surnames": {"from": "apellidos", "through": ["strip"], "required": True},
    "month": {"from": "mes", "through": ["strip", "integer"], "required": True},
    "entity": {"from": "entidad", "codes": {"12": "MSPBS"}, "otherwise": None},
    "accrued": {"from": "devengado", "through": ["thousand-dots", "integer"], "required": True},
}
MANIFEST: dict[str, Any] = {
    "name": "nomina",
    "institution": "SFP",
    "kind": "file",
    "auth": {"type": "none"},
    "limits": {"budget_s": 5, "max_body": 100_000_000},
    "bulk": {
        "payroll": {
            "request": {"folder": "/publicado", "match": "nomina_*.csv", "encoding": "utf-8", "delimiter": ";"},
            "subject": {"system": "cedula", "field": "cedula"},
            "sums": ["accrued"],
            "reject_over": 0.1,
            "fields": FIELDS,
        }
    },
}
MDS = Caller(client_id="mds-1", institution="MDS", roles=frozenset({"operator"}))


class Office:
    """An institution that publishes registers in a folder, and the gateway that takes them."""

    def __init__(self, runtime: Runtime, folder: Path, manifests: Path) -> None:
        self.runtime, self.folder, self.manifests = runtime, folder, manifests

    def manifest(self, **changes: Any) -> None:
        """Write the manifest, its register changed, and read it again."""
        made = {**MANIFEST, "bulk": {"payroll": {**MANIFEST["bulk"]["payroll"], **changes}}}
        (self.manifests / "nomina.yaml").write_text(yaml.safe_dump(made), encoding="utf-8")
        self.runtime.adapters.refresh()

    @property
    def adapter(self) -> ProducerAdapter:
        found = self.runtime.adapters.named("nomina")
        assert isinstance(found, FileAdapter)
        found.still_s = 0.001
        return found

    def publish(self, name: str, *rows: str) -> None:
        for file in self.folder.iterdir():
            file.unlink()
        (self.folder / name).write_text("\n".join((HEAD, *rows)) + "\n", encoding="utf-8")

    async def take(self, **more: Any) -> Intake:
        return await self.runtime.registers.take(self.adapter, "payroll", **more)

    async def ask(self, cedula: str) -> Disclosure:
        """Ask as another ministry's system does."""
        asked = DisclosureRequest(
            system="cedula",
            identifier=cedula,
            dataset="payroll",
            fields=tuple(FIELDS),
            purpose="service-access-determination",
            basis="legal-obligation",
            agreement=None,
            case=None,
            correlation=None,
        )
        return await self.runtime.exchange.disclose(MDS, asked)

    async def logged(self, kind: str) -> list[Any]:
        async with open_context(self.runtime.settings) as context, context.database.connection() as connection:
            return await recent(connection, context.epochs, limit=100, type=kind)


def row(number: int, cedula: int | str | None = None, accrued: int = 10) -> str:
    return f"{5_000_000 + number if cedula is None else cedula};Ana;Páez {number};11;12;{accrued};x"


@pytest.fixture(scope="module")
def settings(folders: Callable[[str], Path]) -> Iterator[Settings]:
    folder = folders("registers")
    (folder / "manifests").mkdir()
    (folder / "sfp" / "publicado").mkdir(parents=True)
    (folder / "manifests" / "nomina.yaml").write_text(yaml.safe_dump(MANIFEST), encoding="utf-8")
    connections = folder / "connections.yaml"
    connections.write_text(yaml.safe_dump({"nomina": {"address": f"file://{folder / 'sfp'}"}}), encoding="utf-8")
    made = load_settings(data_dir=folder, manifests=folder / "manifests")
    bring_up(made, demonstration=True)
    yield made
    embedded.stop(folder)


@pytest_asyncio.fixture
async def office(settings: Settings) -> AsyncIterator[Office]:
    with psycopg.connect(embedded.start(settings.data_dir).url(embedded.OWNER)) as connection:
        connection.execute("TRUNCATE siis.register_file, siis.register_row")
    shutil.rmtree(settings.data_dir / "rejects", ignore_errors=True)
    async with open_runtime(settings) as runtime:
        made = Office(runtime, settings.data_dir / "sfp" / "publicado", settings.data_dir / "manifests")
        made.manifest()
        yield made


async def stored(office: Office, query: str) -> list[tuple[Any, ...]]:
    url = embedded.start(office.runtime.settings.data_dir).url(embedded.OWNER)
    async with await psycopg.AsyncConnection.connect(url) as connection:
        return await (await connection.execute(query)).fetchall()


def rejected(intake: Intake) -> list[list[str]]:
    assert intake.rejects is not None
    with intake.rejects.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


async def known(office: Office, cedula: str) -> None:
    """Register a person, for only of one we know may be asked."""
    person = NewPerson(uuid7(), "Ana", "Páez", (("cedula", cedula),), birth_date=date(1960, 1, 1))
    async with office.runtime.database.transaction() as connection:
        if await registry.find_person(connection, office.runtime.vault, "cedula", cedula) is None:
            await registry.register(connection, office.runtime.vault, [person])


async def test_a_register_taken_answers_for_the_institution_with_its_origin(office: Office) -> None:
    await known(office, "4123456")
    office.publish("nomina_10.csv", row(1), row(2, "4.123.456"), row(3, "04123456", 1500), row(4, "4123456", 250))
    with pytest.raises(errors.ProducerFailed):
        await office.ask("4123456")
    intake = await office.take()
    assert (intake.outcome, intake.name, intake.rows, intake.rejected) == ("refused", "nomina_10.csv", 3, 1)
    office.manifest(reject_over=0.3)
    office.publish("nomina_11.csv", row(1), row(2, "4.123.456"), row(3, "04123456", 1500), row(4, "4123456", 250))
    assert (await office.take()).outcome == "nothing", "the same content under another name is the same file"
    office.publish("nomina_11.csv", row(0), row(2, "4.123.456"), row(3, "04123456", 1500), row(4, "4123456", 250))
    intake = await office.take(user="uid 7")
    assert (intake.outcome, intake.rows, intake.rejected) == ("taken", 3, 1)
    assert rejected(intake) == [["2", "documento", "9.999.999", "no es un número de cédula"]]
    told = await office.ask("4123456")
    assert told.facts == {
        "cedula": "4123456",
        "given_names": "Ana",
        "surnames": "Páez 4",
        "month": 11,
        "entity": "MSPBS",
        "accrued": 1750,
    }
    [(sha256, at)] = await stored(office, "SELECT sha256, finished_at FROM siis.register_file WHERE state = 'taken'")
    source = told.outcome.provenance
    assert (source.adapter, source.register, source.raw_sha256, source.at) == ("nomina", "nomina_11.csv", sha256, at)
    assert told.outcome.raw_codes == {"entity": "12"}
    [entry, *_] = await office.logged("register.taken")
    what = entry.detail["what"]
    assert (what["register"], what["sha256"], what["rows"], what["rejected"]) == ("nomina_11.csv", sha256.hex(), 3, 1)
    assert entry.detail["actor"]["user"] == "uid 7"
    [intent, *_] = await office.logged("register.intent")
    assert (intent.detail["what"]["register"], intent.detail["what"]["sha256"]) == ("nomina_11.csv", sha256.hex())
    assert intent.detail["exchange"]["adapter"] == "nomina"
    await known(office, "5999999")
    with pytest.raises(errors.NotFound):
        await office.ask("5999999")


async def test_rows_are_kept_encrypted_and_found_by_no_name(office: Office) -> None:
    office.publish("nomina_11.csv", row(1))
    await office.take()
    [(subject, content)] = await stored(office, "SELECT subject, content FROM siis.register_row")
    assert b"5000001" not in content
    assert b"Ana" not in content
    assert subject == office.runtime.vault.register_index("cedula")("5000001")
    assert subject != office.runtime.vault.index("cedula", "5000001")


async def test_facts_the_agreement_does_not_cover_are_not_kept(office: Office) -> None:
    office.manifest(fields={**FIELDS, "concept": "extra", "budget_line": {"const": "111"}})
    url = embedded.start(office.runtime.settings.data_dir).url(embedded.OWNER)
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO consent.agreement SELECT code, version + 1, jsonb_set(document, '{datasets,payroll}', "
            "(document #> '{datasets,payroll}') - 'concept'::text), status, valid_from, valid_to "
            "FROM consent.agreement WHERE code = 'DEMO-UTGS-SFP-REGISTER' AND version = 1"
        )
    async with office.runtime.database.connection() as connection:
        await office.runtime.policies.load(connection)
    office.publish("nomina_11.csv", row(1))
    assert (await office.take()).outcome == "taken"
    [(fields,)] = await stored(office, "SELECT fields FROM siis.register_file")
    assert set(fields) == {*FIELDS, "budget_line"}


async def test_a_register_nobody_agreed_to_is_not_fetched_and_the_denial_is_logged_once(office: Office) -> None:
    text = (office.manifests / "nomina.yaml").read_text(encoding="utf-8")
    text = text.replace("institution: SFP", "institution: MTESS").replace("payroll:", "employment:")
    made = yaml.safe_load(text)
    made["name"], bulk = "empleo", made["bulk"]["employment"]
    bulk["fields"] = {name: FIELDS[name] for name in ("cedula", "given_names", "surnames")}
    del bulk["sums"]
    (office.manifests / "empleo.yaml").write_text(yaml.safe_dump(made), encoding="utf-8")
    try:
        office.runtime.adapters.refresh()
        [adapter] = [each for each in office.runtime.adapters.taking() if each.name == "empleo"]
        for _ in range(2):
            intake = await office.runtime.registers.take(adapter, "employment")
            assert (intake.outcome, intake.reason) == ("denied", "agreement")
    finally:
        (office.manifests / "empleo.yaml").unlink()
        office.runtime.adapters.refresh()
    assert len(await office.logged("register.denied")) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("otra;cabecera\n1;2\n", "more bad rows than agreed"),
        (f"{HEAD}\n", "without any row"),
        ("", "the file is empty"),
        ("\n".join((HEAD, *(row(number) for number in range(17)), *["mala"] * 2)), "more bad rows than agreed"),
    ],
)
async def test_a_register_refused_leaves_the_one_before_in_force(office: Office, content: str, reason: str) -> None:
    office.publish("nomina_11.csv", row(1))
    await office.take()
    (office.folder / "nomina_12.csv").write_text(content, encoding="utf-8")
    intake = await office.take()
    assert (intake.outcome, intake.reason) == ("refused", reason)
    assert intake.rejects is not None
    assert await stored(office, "SELECT state, rows FROM siis.register_file WHERE name = 'nomina_11.csv'") == [
        ("taken", 1)
    ]
    assert await stored(office, "SELECT count(*) FROM siis.register_row") == [(1,)]
    assert (await office.take()).outcome == "nothing"
    [entry, *_] = await office.logged("register.refused")
    assert entry.detail["what"]["reason"] == intake.reason


@pytest.mark.parametrize(
    ("replaces", "left"), [("all", ["nomina_b.csv"]), ("same-name", ["nomina_a.csv", "nomina_b.csv"])]
)
async def test_a_register_takes_the_place_of_those_before_it(office: Office, replaces: str, left: list[str]) -> None:
    office.manifest(replaces=replaces)
    for name, number in (("nomina_a.csv", 1), ("nomina_b.csv", 2), ("nomina_b.csv", 3)):
        office.publish(name, row(number))
        assert (await office.take()).outcome == "taken"
    query = "SELECT name FROM siis.register_file WHERE state = 'taken' ORDER BY name"
    assert [name for (name,) in await stored(office, query)] == left
    assert await stored(office, "SELECT count(*) FROM siis.register_row") == [(len(left),)]


async def test_several_files_that_wait_are_taken_by_name_and_one_process_at_a_time(office: Office) -> None:
    office.publish("nomina_02.csv", row(1))
    (office.folder / "nomina_01.csv").write_text(f"{HEAD}\n{row(2)}\n", encoding="utf-8")
    url = embedded.start(office.runtime.settings.data_dir).url(embedded.APPLICATION)
    async with await psycopg.AsyncConnection.connect(url) as other:
        await other.execute("SELECT pg_advisory_xact_lock(hashtextextended('nomina/payroll', 5115))")
        assert (await office.take()).outcome == "busy"
    taken = [await office.take() for _ in range(3)]
    assert [(intake.outcome, intake.name) for intake in taken] == [
        ("taken", "nomina_01.csv"),
        ("taken", "nomina_02.csv"),
        ("nothing", ""),
    ]


async def rows_once(office: Office, expected: int) -> None:
    [(count, distinct)] = await stored(office, "SELECT count(*), count(DISTINCT row) FROM siis.register_row")
    assert (count, distinct) == (expected, expected)


@pytest.mark.parametrize("lost", [False, True], ids=["rejects kept", "rejects lost"])
async def test_an_intake_that_was_stopped_goes_on_where_it_was(
    office: Office, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    monkeypatch.setattr(registers, "_CHUNK", 1000)
    rows = [row(number, "mala" if number % 50 == 0 else None) for number in range(1, 20_001)]
    office.publish("nomina_11.csv", *rows)
    stop = asyncio.Event()
    stop.set()
    intake = await office.take(stop=stop)
    assert intake.outcome == "interrupted"
    [(done, good, bad)] = await stored(office, "SELECT done, rows, rejected FROM siis.register_file")
    assert (done, good + bad) == (intake.rows + intake.rejected, done)
    assert 1000 <= done < 20_000
    [partial] = (office.runtime.settings.data_dir / "rejects").glob("nomina-payroll-*.csv")
    if lost:
        partial.unlink()
    else:
        with partial.open("ab") as file:
            file.write(b"what was written and not committed")
    intake = await office.take()
    assert (intake.outcome, intake.rows, intake.rejected) == ("taken", 19_600, 400)
    await rows_once(office, 19_600)
    assert [line[0] for line in rejected(intake)] == [str(number) for number in range(50, 20_001, 50)]


async def test_a_manifest_that_takes_other_fields_begins_a_register_anew(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registers, "_CHUNK", 1000)
    office.publish("nomina_11.csv", *(row(number) for number in range(1, 20_001)))
    stop = asyncio.Event()
    stop.set()
    assert (await office.take(stop=stop)).outcome == "interrupted"
    office.manifest(fields={name: FIELDS[name] for name in ("cedula", "surnames", "accrued")})
    assert (await office.take()).outcome == "taken"
    await rows_once(office, 20_000)
    await known(office, "5000007")
    assert {name: value for name, value in (await office.ask("5000007")).facts.items() if value is not None} == {
        "cedula": "5000007",
        "surnames": "Páez 7",
        "accrued": 10,
    }


@pytest.mark.parametrize(("replaces", "later"), [("all", "nomina_12.csv"), ("same-name", "nomina_11.csv")])
async def test_a_register_left_half_way_gives_way_to_the_next_and_is_taken_if_it_comes_back(
    office: Office, monkeypatch: pytest.MonkeyPatch, replaces: str, later: str
) -> None:
    monkeypatch.setattr(registers, "_CHUNK", 1000)
    office.manifest(replaces=replaces)
    rows = [row(number) for number in range(1, 20_001)]
    office.publish("nomina_11.csv", *rows)
    stop = asyncio.Event()
    stop.set()
    assert (await office.take(stop=stop)).outcome == "interrupted"
    office.publish(later, row(1))
    assert (await office.take()).outcome == "taken"
    await rows_once(office, 1)
    [entry, *_] = await office.logged("register.taken")
    assert entry.detail["what"]["replaced"] == 0
    office.publish("nomina_11.csv", *rows)
    assert (await office.take()).rows == 20_000


async def test_a_producer_that_fails_is_logged_when_that_begins(office: Office) -> None:
    before = len(await office.logged("register.failed"))
    away = office.folder.with_name("ausente")
    office.publish("nomina_11.csv", row(1))
    for times, share in ((2, 0.2), (1, 0.3)):
        office.folder.rename(away)
        assert [(await office.take()).outcome for _ in range(times)] == ["failed"] * times
        away.rename(office.folder)
        # Another manifest does not wait for the breaker of the one before.
        office.manifest(reject_over=share)
        assert (await office.take()).outcome in ("taken", "nothing")
    [entry, *others] = await office.logged("register.failed")
    assert len(others) - before == 1
    assert (entry.detail["exchange"]["outcome"], entry.detail["what"]["reason"]) == (
        "Unavailable",
        "folder: FileNotFoundError",
    )


async def test_a_page_whose_cursor_does_not_move_is_not_followed_at_once(office: Office, tmp_path: Path) -> None:
    fields = {name: {"from": name, "required": True} for name in ("referral_id", "message_id", "event", "occurred_on")}
    poll = {"request": {"method": "GET", "path": "/r"}, "items": "i", "cursor": "c", "more": "m", "fields": fields}
    body = b'{"i": [], "c": "5", "m": true}'
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    async with server(answering(head.encode() + body)) as address:
        adapter = load(tmp_path, manifest("rest", institution="MDS", poll=poll), address)
        assert [(await office.runtime.replies.poll(adapter)).more for _ in range(2)] == [True, False]
        await adapter.close()


async def test_files_a_person_names_are_taken_whatever_their_name(office: Office, tmp_path: Path) -> None:
    (tmp_path / "lista.txt").write_text(f"{HEAD}\n{row(1)}\n", encoding="utf-8")
    given = FileAdapter.of_files(office.adapter.manifest, [tmp_path / "lista.txt"])
    intake = await office.runtime.registers.take(given, "payroll")
    assert (intake.outcome, intake.name, intake.rows) == ("taken", "lista.txt", 1)


async def test_a_register_refused_or_replaced_is_taken_again_when_a_person_wants_it(
    office: Office, tmp_path: Path
) -> None:
    (tmp_path / "uno.csv").write_text(f"{HEAD}\n{row(1)}\n{row(2, 'mala')}\n", encoding="utf-8")
    given = FileAdapter.of_files(office.adapter.manifest, [tmp_path / "uno.csv"])
    assert (await office.runtime.registers.take(given, "payroll", again=True)).outcome == "refused"
    office.manifest(reject_over=0.5)
    office.publish("nomina_11.csv", row(3))
    assert (await office.take()).outcome == "taken"
    given = FileAdapter.of_files(office.adapter.manifest, [tmp_path / "uno.csv"])
    assert (await office.runtime.registers.take(given, "payroll")).outcome == "nothing"
    intake = await office.runtime.registers.take(given, "payroll", again=True)
    assert (intake.outcome, intake.rows, intake.rejected) == ("taken", 1, 1)
    assert (await office.runtime.registers.take(given, "payroll", again=True)).outcome == "nothing"
    query = "SELECT name, reason, rows FROM siis.register_file WHERE state = 'taken'"
    assert await stored(office, query) == [("uno.csv", None, 1)]
    await rows_once(office, 1)


async def test_the_worker_takes_what_waits_and_what_comes_later(office: Office) -> None:
    office.publish("nomina_10.csv", row(1))
    assert office.adapter.connected
    stop = asyncio.Event()
    working = asyncio.create_task(office.runtime.registers.run(office.runtime.adapters, 0.05, stop))
    query = "SELECT name FROM siis.register_file WHERE state = 'taken'"

    async def first() -> bool:
        return await stored(office, query) == [("nomina_10.csv",)]

    async def later() -> bool:
        return await stored(office, query) == [("nomina_09.csv",)]

    await until(first)
    office.publish("nomina_09.csv", row(2))
    await until(later)
    stop.set()
    await working
