"""The one read per decision: everything our store knows of a person, in one query, whoever else is asked about."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from consent_answers import AT, CHILD, FIELDS, demonstration, give
from consent_database import consent_database
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from consent import agreements, people, tables
from consent.facts import FACTS, completed, facts_of, subject_facts
from consent.models import ConsentFact, OpenedGlass, RepresentationFact, SubjectFacts
from gateway.database import driver_connection
from schemas.ids import uuid7


@pytest.fixture
async def conn() -> AsyncIterator[AsyncConnection]:
    async with consent_database() as engine, engine.connect() as made:
        await agreements.load_demonstration(made, at=AT)
        yield made


async def test_a_person_nothing_is_stored_about_has_no_facts(conn: AsyncConnection) -> None:
    subject = uuid7()
    assert await subject_facts(conn, subject) == SubjectFacts(subject=subject)


async def test_everything_about_several_persons_comes_in_one_query_and_to_the_right_one(
    conn: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    child, mother, other = uuid7(), uuid7(), uuid7()
    day = timedelta(days=1)
    await agreements.put_agreement(conn, replace(demonstration("DEMO-SNPP-IDENT"), code="SNPP-2"), at=AT)
    mandate = await people.add_representation(
        conn,
        subject=child,
        representative=mother,
        kind="parent",
        proof_reference="birth entry 12",
        recorded_by="MINNA/officer-1",
        birth_date=CHILD,
        at=AT,
    )
    by_mother = UUID(mandate["representation"])
    first = await give(conn, child, birth_date=CHILD, representation=by_mother, expires_at=AT + day)
    second = await give(conn, other, agreement="SNPP-2", fields=frozenset({"cedula"}))
    await people.set_flag(conn, child, "sealed", at=AT)
    await people.set_flag(conn, child, "court-order", reference="A.I. 12/2026", at=AT)
    await people.set_flag(conn, child, "aggressor", target="SNPP", at=AT)
    await people.set_flag(conn, other, "export-ban", at=AT)
    await people.object_to(conn, other, "public-benefit", at=AT)
    opened = {"institution": "MINNA", "user": "op-1", "dataset": "health-controls", "incident": "147-1"}
    expires = {"expires_at": AT + day}
    rest = {"id": uuid7(), "client": "c", "subject": child, "holder": "MSPBS", "fields": ["establishment"]}
    await conn.execute(
        insert(tables.break_glass).values(**opened, **expires, **rest, reason="child-in-danger", opened_at=AT)
    )
    statements: list[object] = []
    execute = psycopg.AsyncCursor.execute

    async def counted(cursor: psycopg.AsyncCursor[Any], query: Any, *rest: Any, **named: Any) -> Any:
        statements.append(query)
        return await execute(cursor, query, *rest, **named)

    driver = await driver_connection(conn)
    monkeypatch.setattr(psycopg.AsyncCursor, "execute", counted)
    found = await facts_of(driver, [child, other, mother, child])
    assert len(statements) == 1
    agreed = ConsentFact(
        id=first,
        agreement="DEMO-SNPP-IDENT",
        purposes=frozenset({"service-provision"}),
        fields=frozenset(FIELDS),
        state="given",
        text_version="2026-1",
        given_at=AT,
        expires_at=AT + day,
        scope_sha256=demonstration("DEMO-SNPP-IDENT").scope_sha256(),
        representation=by_mother,
    )
    of_mother = RepresentationFact(
        id=by_mother, representative=mother, kind="parent", valid_from=AT, valid_to=people.majority(CHILD)
    )
    assert found[child] == SubjectFacts(
        subject=child,
        sealed=True,
        court_order=True,
        barred=frozenset({"SNPP"}),
        consents=(agreed,),
        representations=(of_mother,),
        glasses=(OpenedGlass(**opened, **expires),),
    )
    assert found[mother] == SubjectFacts(subject=mother)
    rest_of_other = replace(found[other], consents=())
    assert rest_of_other == SubjectFacts(subject=other, export_ban=True, objections=frozenset({"public-benefit"}))
    assert [each.id for each in found[other].consents] == [second]
    assert completed(found[child], birth_date=CHILD, deceased=True) == replace(
        found[child], birth_date=CHILD, deceased=True
    )


async def test_only_the_newest_answer_counts_and_a_question_is_none(conn: AsyncConnection) -> None:
    subject = uuid7()
    newest = await give(conn, subject, fields=frozenset({"cedula"}), at=AT + timedelta(hours=2))
    await give(conn, subject, at=AT + timedelta(hours=1))
    await give(conn, subject, at=AT + timedelta(hours=3), state="requested")
    assert [each.id for each in (await subject_facts(conn, subject)).consents] == [newest]


async def test_of_two_answers_of_the_same_instant_the_refusal_is_read(conn: AsyncConnection) -> None:
    subject = uuid7()
    for state in ("given", "refused", "given"):
        await give(conn, subject, state=state)
    assert [each.state for each in (await subject_facts(conn, subject)).consents] == ["refused"]


async def test_the_read_uses_an_index_of_every_table_however_many_rows_there_are(conn: AsyncConnection) -> None:
    await conn.execute(
        text(
            "INSERT INTO consent.consent_record (id, subject, agreement, purposes, fields, state, text_version, "
            "language, channel, proof_reference, given_at) SELECT gen_random_uuid(), gen_random_uuid(), 'A', '{p}', "
            "'{f}', 'given', '1', 'es', 'web', 'x', now() FROM generate_series(1, 5000)"
        )
    )
    for rows in (
        "protective_flag (subject, kind, since) SELECT gen_random_uuid(), 'sealed', now()",
        "objection (subject, purpose, since) SELECT gen_random_uuid(), 'p', now()",
        "representation (id, subject, representative, kind, proof_reference, recorded_by, valid_from) "
        "SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'proxy', 'x', 'y', now()",
        'break_glass (id, institution, "user", client, subject, holder, dataset, fields, reason, incident, opened_at, '
        "expires_at) SELECT gen_random_uuid(), 'I', 'u', 'c', gen_random_uuid(), 'H', 'd', '{f}', 'r', 'i', now(), "
        "now()",
        "restriction (subject, norm, reference, since, until) SELECT gen_random_uuid(), 'n', 'r', now(), '2040-01-01'",
    ):
        await conn.execute(text(f"INSERT INTO consent.{rows} FROM generate_series(1, 5000)"))
    await conn.commit()
    await conn.execute(text("ANALYZE"))
    driver = await driver_connection(conn)
    cursor = await driver.execute(b"EXPLAIN " + FACTS.encode(), ([uuid7(), uuid7()],))
    plan = "\n".join(str(row[0]) for row in await cursor.fetchall())
    assert "Seq Scan" not in plan, plan
