"""Erasure on a real database: afterwards no byte of the person is left, every proof holds, and nobody writes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from erasure_life import Life, born, bytes_outside_the_log, cells, dump, found_in, live
from rights_office import OPERATOR, START, Office, citizen, open_office
from sqlalchemy import text
from typer.testing import CliRunner

from audit.check import check_log
from audit.errors import SubjectErased
from audit.integrator import integrate_once
from audit.proofs import Proof, prove
from audit.search import one
from audit.service import AuditLog
from audit.verify import check_export, verify_inclusion
from consent import restrictions
from consent.decision import decide
from consent.models import Request
from gateway import embedded, errors
from gateway.cli.audit_export import app as exporting
from gateway.cli.erasure import app
from gateway.database import Database
from gateway.erasure import contents
from gateway.erasure.keeper import KeyKeeper
from gateway.erasure.service import Erasures, Order
from gateway.governance.people import Named
from gateway.referrals import store
from gateway.registry import service as registry
from gateway.registry.facts import subject_facts
from gateway.rights.models import Answer
from gateway.runtime import load_signer
from gateway.settings import Settings
from schemas.ids import uuid7

COURT = Order(
    ground="court-order", norm="Constitución Nacional, art. 135", ordered_by="Juzgado 3", reference="A.I. 77/2027"
)
LATER = replace(COURT, ground="retention-ended", norm="Ley 7593/2025, art. 31")


_cedulas = iter(range(7_312_001, 8_000_000))


@pytest.fixture
def cedula() -> str:
    return str(next(_cedulas))


def superuser(settings: Settings) -> str:
    return embedded.start(settings.data_dir).url(embedded.SUPERUSER)


def erasures(office: Office, owner: Database) -> Erasures:
    return Erasures(owner=owner, audit=office.context.audit, vault=office.context.vault, now=lambda: office.at)


async def numbered(office: Office) -> None:
    async with office.context.database.connection() as connection:
        await integrate_once(connection, load_signer(office.context.settings), office.context.audit, lambda: office.at)


async def whole(office: Office) -> None:
    signer = load_signer(office.context.settings)
    async with office.context.database.connection() as connection:
        report = await check_log(connection, signer)
    assert report.ok, report.problems


async def proofs_of(office: Office, entries: list[UUID]) -> list[Proof]:
    found = []
    async with office.context.database.connection() as connection:
        for entry in entries:
            proof = await prove(connection, entry)
            assert proof is not None
            found.append(proof)
    return found


def holds(proof: Proof) -> bool:
    place, head = proof.place, proof.head
    return verify_inclusion(place.leaf_hash, place.index, head.size, proof.hashes, head.root)


async def about(office: Office, person: UUID) -> list[UUID]:
    return [
        row[0]
        for row in await office.rows(
            "SELECT e.id FROM audit.entry AS e JOIN audit.subject_key AS k ON k.pseudonym = e.pseudonym "
            "WHERE k.subject = %s ORDER BY e.id",
            person,
        )
    ]


async def erased_life(office: Office, owner: Database, cedula: str) -> Life:
    life = await live(office, cedula, str(next(_cedulas)))
    await erasures(office, owner).erase(Named("cedula", cedula), COURT)
    return life


async def test_no_byte_of_the_person_is_left_and_every_proof_holds(
    office: Office, owner: Database, settings: Settings, cedula: str
) -> None:
    url, without = superuser(settings), bytes_outside_the_log(superuser(settings))
    life = await live(office, cedula, str(next(_cedulas)))
    sealed = bytes_outside_the_log(url) - without
    assert {table for table, _column in found_in(url, life.traces)} >= {
        *("siis.person", "siis.referral", "siis.fact", "siis.govstack_revision", "siis.register_row"),
        *("siis.form", "siis.observation"),
        *("consent.consent_record", "consent.representation", "consent.protective_flag", "consent.break_glass"),
    }
    await numbered(office)
    entries = await about(office, life.person)
    before = await proofs_of(office, entries)
    [(wrapped,)] = await office.rows("SELECT wrapped_key FROM audit.subject_key WHERE subject = %s", life.person)
    assert bytes(wrapped).hex() in dump(url)

    done = await erasures(office, owner).erase(Named("cedula", cedula), COURT)

    assert found_in(url, life.traces) == set()
    copied = dump(url)
    for trace in life.traces:
        assert trace not in copied
        assert trace.encode().hex() not in copied
    assert bytes(wrapped).hex() not in copied
    # Nothing sealed of theirs is left either: what remains of those values was the ward's, or others' all along.
    left = {value for value in sealed & bytes_outside_the_log(url) if value.hex() in copied}
    assert {table for table, _column, value in cells(url) if isinstance(value, bytes) and bytes(value) in left} <= {
        *("siis.person", "siis.person_identifier"),
        *("siis.breach", "siis.register_file", "siis.govstack_revision", "siis.idempotency"),
    }
    assert {await owner_of(office, value) for value in left} == {life.ward, None}

    await numbered(office)
    await whole(office)
    assert done.settled
    assert done.entries == len(entries)
    assert all(map(holds, before))
    assert all(map(holds, await proofs_of(office, entries)))
    async with office.context.database.connection() as connection:
        for entry in entries:
            found = await one(connection, office.context.epochs, entry)
            assert found is not None
            assert found[0].detail is None


async def owner_of(office: Office, value: bytes) -> UUID | None:
    found = await office.rows(
        "SELECT id FROM siis.person WHERE names = %s "
        "UNION SELECT person_id FROM siis.person_identifier WHERE %s IN (value, blind_index)",
        value,
        value,
    )
    return UUID(str(found[0][0])) if found else None


def test_of_every_table_is_decided_what_becomes_of_it(settings: Settings) -> None:
    """Whoever adds a table says in ``contents.py`` what is destroyed of it, or here that it holds nobody."""
    log = "entry pending sequence writer tree tile block checkpoint cosignature time_stamp pruned witnessed epoch"
    rules = "agreement agreement_signature agreement_use role_assignment compartment_grant institution_state"
    ours = "alembic_version data_key institution service population poll_cursor producer_health register_file community"
    systems = "delivery_lane client client_key client_certificate token_issuer assertion_jti used_proof revoked_token"
    others = "status_run achievement intake_reject govstack_agreement govstack_policy govstack_webhook"
    others += " board board_member catalogue_revision event statistics_snapshot subscription subscription_event"
    untouched = {
        *(f"audit.{table}" for table in (*log.split(), "subject_key")),
        *(f"consent.{table}" for table in (*rules.split(), "consent_text")),
        *(f"siis.{table}" for table in (*ours.split(), *systems.split(), *others.split())),
    }
    with psycopg.connect(superuser(settings)) as connection:
        there = {
            f"{schema}.{table}"
            for schema, table in connection.execute(
                "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('audit', 'consent', 'siis')"
            )
        }
    assert there == untouched | contents.changed()


async def test_the_entry_names_norm_ground_and_pseudonym_in_clear_and_who_ordered_it_under_the_logs_key(
    office: Office, owner: Database, cedula: str
) -> None:
    life = await live(office, cedula, str(next(_cedulas)))
    entries = await about(office, life.person)
    done = await erasures(office, owner).erase(Named("cedula", cedula), COURT)
    [entry] = [each for each in await office.entries("erasure.done") if each.entry_id == done.receipt.entry_id]
    assert entry.envelope["statement"] == {
        "norm": COURT.norm,
        "ground": "court-order",
        "entries": len(entries),
        "pseudonym": str(done.pseudonym),
    }
    assert entry.envelope["subject"] is None
    assert entry.detail is not None
    assert entry.detail["what"]["ordered_by"] == "Juzgado 3"
    assert entry.detail["what"]["order"] == "A.I. 77/2027"


async def test_others_keep_their_evidence_under_internal_ids(office: Office, owner: Database, cedula: str) -> None:
    life = await erased_life(office, owner, cedula)
    [(state, delivery, person)] = await office.rows(
        "SELECT state, delivery, person_id FROM siis.referral WHERE id = %s", life.referral
    )
    assert (state, delivery, person) == ("created", "withheld", life.person)
    assert await office.rows("SELECT state FROM consent.consent_record WHERE id = %s", life.consent) == [("given",)]
    assert await office.rows("SELECT affected, erased FROM siis.breach WHERE id = %s", life.breach) == [(1, 1)]
    assert await office.rows("SELECT guardian_id FROM siis.person WHERE id = %s", life.ward) == [(None,)]
    assert await office.rows("SELECT department FROM siis.household WHERE id = %s", life.household) == [(None,)]


async def test_an_erased_person_is_nobody_and_nothing_more_is_written(
    office: Office, owner: Database, cedula: str
) -> None:
    life = await erased_life(office, owner, cedula)
    async with office.context.database.connection() as connection:
        for system, value in (("cedula", cedula), ("siis", str(life.person))):
            assert await registry.find_person(connection, office.context.vault, system, value) is None
        assert await store.by_id(connection, life.referral) is None
    with pytest.raises(errors.Conflict):
        await office.governance.change_here(
            office.rights.steps.answering(life.request, Answer(outcome="not-held"), "MSPBS")
        )
    with pytest.raises(SubjectErased):
        await office.exchanged(life.person)
    with pytest.raises(errors.NotFound):
        await erasures(office, owner).erase(Named("cedula", cedula), COURT)


async def test_a_process_that_knew_the_key_forgets_it_when_it_hears_of_the_erasure(
    office: Office, owner: Database, settings: Settings, cedula: str
) -> None:
    life = await live(office, cedula, str(next(_cedulas)))
    other = AuditLog(office.context.database.engine, office.context.epochs, "another")
    keeper = KeyKeeper(office.context.database, other, office.context.epochs, now=lambda: office.at)
    stop = asyncio.Event()
    following = asyncio.create_task(keeper.run(stop))
    async with office.context.database.connection() as connection:
        mine = await one(connection, office.context.epochs, (await about(office, life.person))[0])
    assert mine is not None
    entry = replace(_an_entry(office), subject=life.person)
    await other.append(entry)
    await erasures(office, owner).erase(Named("cedula", cedula), COURT)
    async with asyncio.timeout(10):
        while True:
            try:
                await other.append(replace(entry, id=uuid7()))
            except SubjectErased:
                break
    stop.set()
    await following
    await other.close()


def _an_entry(office: Office):  # type: ignore[no-untyped-def]
    from gateway import evidence

    return evidence.entry("disclosure.denied", "deny", at=office.at, policy_version="v1")


async def test_what_was_being_written_while_it_was_erased_goes_too(
    office: Office, owner: Database, cedula: str
) -> None:
    life = await live(office, cedula, str(next(_cedulas)))
    async with office.context.database.connection() as slow:
        # Registered by somebody who found the person before, in a transaction that ends after the erasure.
        await slow.execute(text("SELECT pg_current_xact_id()"))
        erasing = asyncio.create_task(erasures(office, owner).erase(Named("cedula", cedula), COURT))
        while await known(office, cedula):
            await asyncio.wait({erasing}, timeout=0.05)
        await slow.execute(
            text(
                "INSERT INTO siis.fact (id, person_id, service, protected, source, instrument, observed_on) "
                "VALUES (:id, :person, 'tekopora', true, 'MDS', 'tarde', '2026-03-01')"
            ),
            {"id": uuid7(), "person": life.person},
        )
        assert not erasing.done()
        await slow.commit()
    assert (await erasing).settled
    assert await office.rows("SELECT id FROM siis.fact WHERE person_id = %s", life.person) == []


async def known(office: Office, cedula: str) -> bool:
    async with office.context.database.connection() as connection:
        return await registry.find_person(connection, office.context.vault, "cedula", cedula) is not None


async def test_the_outlook_shows_it_all_and_changes_nothing(
    office: Office, owner: Database, settings: Settings, cedula: str
) -> None:
    life = await live(office, cedula, str(next(_cedulas)))
    before = list(cells(superuser(settings)))
    shown = await erasures(office, owner).outlook(Named("cedula", cedula))
    assert list(cells(superuser(settings))) == before
    assert shown.entries == len(await about(office, life.person))
    assert shown.retained_until == date(2037, 3, 1)
    done = await erasures(office, owner).erase(Named("cedula", cedula), COURT)
    assert shown.rows == done.rows


async def test_before_the_term_is_over_the_answer_is_a_restriction(
    office: Office, owner: Database, settings: Settings, cedula: str
) -> None:
    await live(office, cedula, str(next(_cedulas)))
    with pytest.raises(errors.Conflict, match="retention") as refused:
        await erasures(office, owner).erase(Named("cedula", cedula), LATER)
    assert "2037-03-01" in str(refused.value.detail)
    assert found_in(superuser(settings), [born(cedula).isoformat()]) == {
        ("siis.person", "birth_date"),
        ("siis.observation", "value"),
    }
    office.at = START + timedelta(days=3654)
    assert (await erasures(office, owner).erase(Named("cedula", cedula), LATER)).settled


@pytest.mark.parametrize(
    "wrong", [{"ground": "because"}, {"norm": "vive en Ñemby; teléfono +595"}, {"ordered_by": " "}]
)
async def test_an_order_that_is_none_is_refused(
    office: Office, owner: Database, cedula: str, wrong: dict[str, str]
) -> None:
    await office.person(cedula)
    with pytest.raises(errors.BadRequest):
        await erasures(office, owner).erase(Named("cedula", cedula), replace(COURT, **wrong))
    assert await known(office, cedula)


# Restriction


async def permitted(office: Office, cedula: str, **changes: object) -> bool:
    asked = Request(
        action="disclosure.fetch",
        caller=replace(OPERATOR, institution="MDS", client_id="mds-1"),
        holder="PN-IDENT",
        dataset="identity",
        fields=("given_names",),
        purpose="service-access-determination",
        basis="official-authority",
        at=office.at,
    )
    async with office.context.database.connection() as connection:
        who = await registry.find_person(connection, office.context.vault, "cedula", cedula)
        facts = await subject_facts(connection, who)
    decision = decide(replace(asked, **changes), facts, office.policies.current)  # type: ignore[arg-type]
    assert decision.hides_subject is (decision.permit is None)
    return decision.permit is not None


async def test_an_answered_deletion_restricts_in_the_same_transaction(office: Office, cedula: str) -> None:
    person = await office.person(cedula, birth_date=born(cedula))
    await office.exchanged(person, holder="PN-IDENT")
    assert await permitted(office, cedula)
    request = await office.ask(cedula, "deletion")
    until = date(2031, 12, 31)
    answer = Answer(outcome="restricted", norm="Ley 7593/2025, art. 31", text="Plazo en curso.", until=until)
    await office.governance.change_here(office.rights.steps.answering(request, answer, "PN-IDENT"))
    assert not await permitted(office, cedula)
    async with office.context.database.connection() as connection:
        [found] = await restrictions.list_restrictions(connection, person)
    assert (found.holder, found.until, found.reference) == ("PN-IDENT", until, str(request))
    [entry] = await office.entries("erasure.restricted", 1)
    assert entry.detail is not None
    assert entry.detail["what"]["until"] == "2031-12-31"
    # The person's own view stays, and the day after the last one it is over.
    shown = await office.rights.page(citizen(person), overdue=False, after=None, limit=50)
    assert [item.id for item in shown] == [request]
    office.at = START + timedelta(days=2000)
    assert await permitted(office, cedula)


async def test_a_restriction_is_lifted_by_another_order(office: Office, cedula: str) -> None:
    person = await office.person(cedula, birth_date=born(cedula))
    order = {"norm": "Ley 7593/2025, art. 31", "reference": "Res. 1"}
    async with office.context.database.transaction() as connection:
        said = await restrictions.restrict(connection, person, until=date(2040, 1, 1), at=office.at, **order)
        again = await restrictions.restrict(connection, person, until=date(2030, 1, 1), at=office.at, **order)
    assert (said["event"], said["until"], again["until"]) == ("erasure.restricted", "2040-01-01", "2040-01-01")
    assert not await permitted(office, cedula)
    async with office.context.database.transaction() as connection:
        lifted = await restrictions.lift(connection, person, at=office.at, **order)
        nothing = await restrictions.lift(connection, person, at=office.at, **order)
    assert (lifted["event"], lifted["changed"], nothing["changed"]) == ("erasure.lifted", True, False)
    assert await permitted(office, cedula)


def test_commands_show_refuse_and_erase(
    settings: Settings, cedula: str, folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIIS_DATA_DIR", str(settings.data_dir))

    async def register() -> None:
        async with open_office(settings) as office:
            await office.exchanged(await office.person(cedula))

    asyncio.run(register())
    run = CliRunner().invoke
    order = ["--norm", "Ley 7593/2025, art. 31", "--order", "Res. 7/2027"]
    restricted = run(app, ["restrict", cedula, *order, "--until", "2040-01-31"])
    assert (restricted.exit_code, "2040-01-31" in restricted.output) == (0, True)
    by = ["--ordered-by", "Juzgado 3"]
    refused = run(app, ["order", cedula, *order, *by, "--yes"])
    assert (refused.exit_code, "siis erasure restrict" in refused.output) == (1, True)
    ground = ["--ground", "court-order"]
    kept = run(app, ["order", cedula, *order, *by, *ground], input="n\n")
    assert (kept.exit_code, "Se destruye" in kept.output) == (1, True)
    assert run(app, ["list"]).output.count("2040-01-31") == 1
    done = run(app, ["order", cedula, *order, *by, *ground, "--yes", "--json"])
    assert done.exit_code == 0, done.output
    written = folders("export") / "todo.jsonl"
    exported = run(exporting, ["export", "--format", "jsonl", "--out", str(written)])
    assert exported.exit_code == 0, exported.output
    proof = written.with_name(f"{written.name}.proof")
    assert check_export(written, proof).bare >= 1
    pseudonym = json.loads(done.output)["pseudonym"]
    assert pseudonym in written.read_text(encoding="utf-8")
    for file in (written, proof):
        for trace in (cedula, "Ña Eme", "Ficticia"):
            assert trace.encode() not in file.read_bytes()
    assert run(app, ["restrict", cedula, *order, "--until", "2040-01-31"]).exit_code == 1
    assert "2040-01-31" not in run(app, ["list"]).output
