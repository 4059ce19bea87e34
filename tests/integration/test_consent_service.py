"""What the consent room stores, and what the next decision makes of it, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from consent_database import APP_ROLE, consent_database
from sqlalchemy import insert, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from consent import service, tables
from consent.decision import decide
from consent.errors import ConsentNotInForce, InvalidAgreement, InvalidConsent, UnknownAgreement
from consent.models import FETCH, Agreement, Caller, Decision, Request
from consent.policy import PolicyStore, read_agreements
from schemas.errors import UnknownCode
from schemas.ids import uuid7

AT = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
FIELDS = ("cedula", "given_names", "surnames")


@pytest.fixture
async def engine() -> AsyncIterator[AsyncEngine]:
    async with consent_database() as made:
        yield made


@pytest.fixture
async def conn(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with engine.connect() as made:
        await service.load_demonstration(made, at=AT)
        yield made


def demonstration(code: str) -> Agreement:
    return next(each for each in service.demonstration_agreements() if each.code == code)


async def give(conn: AsyncConnection, subject: UUID, **changes: Any) -> UUID:
    consent: dict[str, Any] = {
        "agreement": "DEMO-SNPP-IDENT",
        "purposes": ["service-provision"],
        "fields": FIELDS,
        "text_version": "2026-1",
        "language": "gn",
        "channel": "counter",
        "proof_reference": "form-17",
        "at": AT,
    }
    return UUID((await service.give_consent(conn, subject=subject, **consent | changes))["consent"])


async def ask(conn: AsyncConnection, subject: UUID, *, basis: str = "consent", at: datetime = AT) -> Decision:
    """Decide the way the gateway does: the policy from the tables, the facts in one query, the birth date added."""
    policy = await PolicyStore(conn.engine).load(conn)
    facts = (await service.subject_facts(conn, subject)).completed(birth_date=date(1990, 5, 5), deceased=False)
    request = Request(
        action=FETCH,
        caller=Caller(client_id="c", institution="SNPP", roles=frozenset({"operator"})),
        holder="PN-IDENT",
        dataset="identity",
        fields=FIELDS,
        purpose="service-provision",
        basis=basis,
        at=at,
    )
    return decide(request, facts, policy)


async def test_the_demonstration_is_stored_once_and_its_edits_are_kept(conn: AsyncConnection) -> None:
    edited = replace(demonstration("DEMO-MDS-IDENT"), status="suspended")
    await service.put_agreement(conn, edited, at=AT)
    assert await service.load_demonstration(conn, at=AT) == []
    stored = {each.code: each for each in await read_agreements(conn)}
    assert stored["DEMO-MDS-IDENT"] == replace(edited, version=2)
    assert stored.keys() == {each.code for each in service.demonstration_agreements()}


async def test_two_processes_storing_the_demonstration_at_once_store_it_once(engine: AsyncEngine) -> None:
    async def load() -> int:
        async with engine.begin() as own:
            return len(await service.load_demonstration(own, at=AT))

    counts = await asyncio.gather(*(load() for _ in range(4)))
    assert sorted(counts) == [0, 0, 0, len(service.demonstration_agreements())]


async def test_a_stored_agreement_is_reported_for_the_log(conn: AsyncConnection) -> None:
    fact = await service.put_agreement(conn, demonstration("DEMO-MDS-IDENT"), at=AT)
    assert (fact["event"], fact["agreement"], fact["version"]) == ("admin.agreement", "DEMO-MDS-IDENT", 2)
    assert len(fact["document_sha256"]) == 64


async def test_a_draft_leaves_the_version_before_it_in_force(conn: AsyncConnection) -> None:
    for status, version in (("draft", 1), ("proposed", 1), ("suspended", 4), ("active", 5), ("expired", 6)):
        await service.put_agreement(conn, replace(demonstration("DEMO-MDS-IDENT"), status=status), at=AT)
        assert [each.version for each in await read_agreements(conn, "DEMO-MDS-IDENT")] == [version]


async def test_the_parties_of_a_code_never_change(conn: AsyncConnection) -> None:
    with pytest.raises(InvalidAgreement) as caught:
        await service.put_agreement(conn, replace(demonstration("DEMO-SNPP-IDENT"), requester="MEC"), at=AT)
    assert caught.value.field == "requester"


async def test_an_agreement_outside_the_code_lists_is_not_stored(conn: AsyncConnection) -> None:
    with pytest.raises(InvalidAgreement):
        await service.put_agreement(conn, replace(demonstration("DEMO-MDS-IDENT"), roles=frozenset({"king"})), at=AT)
    assert [each.version for each in await read_agreements(conn, "DEMO-MDS-IDENT")] == [1]


async def test_an_unreadable_agreement_permits_nothing_and_harms_no_other(conn: AsyncConnection) -> None:
    await conn.execute(
        text(
            "INSERT INTO consent.agreement (code, version, document, status, valid_from) "
            "VALUES ('DEMO-MDS-IDENT', 2, '{\"requester\": 7}', 'active', now())"
        )
    )
    policy = await PolicyStore(conn.engine).load(conn)
    assert "DEMO-MDS-IDENT" not in policy.agreements
    assert len(policy.agreements) == len(service.demonstration_agreements()) - 1


async def test_a_person_nothing_is_stored_about_has_no_facts(conn: AsyncConnection) -> None:
    facts = await service.subject_facts(conn, uuid7())
    assert (facts.sealed, facts.objections, facts.consents) == (False, frozenset(), ())


async def test_the_facts_of_a_person_are_read_in_one_query_and_are_nobody_elses(
    conn: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, other = uuid7(), uuid7()
    wide = replace(demonstration("DEMO-SNPP-IDENT"), code="SNPP-2")
    await service.put_agreement(conn, wide, at=AT)
    record = await give(conn, subject, expires_at=AT + timedelta(days=1))
    second = await give(conn, subject, agreement="SNPP-2", fields=["cedula"])
    await give(conn, other)
    await service.seal(conn, subject, at=AT)
    await service.object_to(conn, subject, "public-benefit", at=AT)
    statements: list[object] = []
    execute = psycopg.AsyncCursor.execute

    async def counted(cursor: psycopg.AsyncCursor[Any], query: Any, *rest: Any, **named: Any) -> Any:
        statements.append(query)
        return await execute(cursor, query, *rest, **named)

    monkeypatch.setattr(psycopg.AsyncCursor, "execute", counted)
    facts = await service.subject_facts(conn, subject)
    assert len(statements) == 1
    assert (facts.subject, facts.sealed, facts.objections) == (subject, True, frozenset({"public-benefit"}))
    by_agreement = {each.agreement: each for each in facts.consents}
    assert {code: each.id for code, each in by_agreement.items()} == {"DEMO-SNPP-IDENT": record, "SNPP-2": second}
    first = by_agreement["DEMO-SNPP-IDENT"]
    assert (first.purposes, first.fields) == (frozenset({"service-provision"}), frozenset(FIELDS))
    assert (first.state, first.text_version) == ("given", "2026-1")
    assert (first.given_at, first.expires_at) == (AT, AT + timedelta(days=1))


async def test_only_the_newest_record_of_an_agreement_is_read(conn: AsyncConnection) -> None:
    subject = uuid7()
    newest = await give(conn, subject, fields=["cedula"], at=AT + timedelta(hours=2))
    await give(conn, subject, at=AT + timedelta(hours=1))
    await give(conn, subject)
    facts = await service.subject_facts(conn, subject)
    assert [each.id for each in facts.consents] == [newest]


async def test_consent_opens_and_its_withdrawal_closes_the_next_decision(conn: AsyncConnection) -> None:
    subject = uuid7()
    assert (await ask(conn, subject)).reasons == ("consent",)
    record = await give(conn, subject)
    permitted = await ask(conn, subject)
    assert (permitted.effect, permitted.consent) == ("permit", record)
    fact = await service.withdraw_consent(conn, record, at=AT)
    assert fact["event"] == "consent.withdrawn"
    assert (fact["subject"], fact["ended"]) == (str(subject), [str(record)])
    assert (await ask(conn, subject)).reasons == ("consent",)


async def test_withdrawing_one_record_ends_all_given_under_the_agreement(conn: AsyncConnection) -> None:
    subject, other = uuid7(), uuid7()
    older, newer = await give(conn, subject), await give(conn, subject, at=AT + timedelta(seconds=1))
    await give(conn, other)
    fact = await service.withdraw_consent(conn, older, at=AT + timedelta(seconds=2))
    assert fact["ended"] == sorted((str(older), str(newer)))
    assert (await ask(conn, subject, at=AT + timedelta(seconds=3))).effect == "deny"
    assert (await ask(conn, other)).effect == "permit"


async def test_consent_given_again_after_a_withdrawal_counts(conn: AsyncConnection) -> None:
    subject = uuid7()
    await service.withdraw_consent(conn, await give(conn, subject), at=AT)
    await give(conn, subject, at=AT + timedelta(seconds=1))
    assert (await ask(conn, subject, at=AT + timedelta(seconds=1))).effect == "permit"


async def test_of_two_answers_of_the_same_instant_the_refusal_is_read(conn: AsyncConnection) -> None:
    subject = uuid7()
    await conn.execute(
        insert(tables.consent_record),
        [
            {
                "id": uuid7(),
                "subject": subject,
                "agreement": "DEMO-SNPP-IDENT",
                "purposes": ["service-provision"],
                "fields": list(FIELDS),
                "state": state,
                "text_version": "2026-1",
                "language": "es",
                "channel": "counter",
                "proof_reference": "form-17",
                "given_at": AT,
            }
            for state in ("given", "refused", "given")
        ],
    )
    assert [each.state for each in (await service.subject_facts(conn, subject)).consents] == ["refused"]


async def test_withdrawing_an_ended_record_leaves_a_later_consent_in_force(conn: AsyncConnection) -> None:
    subject = uuid7()
    ended = await give(conn, subject)
    await service.withdraw_consent(conn, ended, at=AT)
    await give(conn, subject, at=AT + timedelta(seconds=1))
    with pytest.raises(ConsentNotInForce):
        await service.withdraw_consent(conn, ended, at=AT + timedelta(seconds=2))
    assert (await ask(conn, subject, at=AT + timedelta(seconds=3))).effect == "permit"


async def test_consent_ends_when_it_expires(conn: AsyncConnection) -> None:
    subject = uuid7()
    await give(conn, subject, expires_at=AT + timedelta(hours=1))
    assert (await ask(conn, subject)).effect == "permit"
    assert (await ask(conn, subject, at=AT + timedelta(hours=1))).effect == "deny"


async def test_what_is_not_in_force_cannot_be_withdrawn(conn: AsyncConnection) -> None:
    record = await give(conn, uuid7())
    await service.withdraw_consent(conn, record, at=AT)
    for unknown in (record, uuid7()):
        with pytest.raises(ConsentNotInForce):
            await service.withdraw_consent(conn, unknown, at=AT)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"agreement": "DEMO-MDS-IDENT"}, "agreement"),
        ({"purposes": []}, "purposes"),
        ({"purposes": ["public-benefit"]}, "purposes"),
        ({"fields": []}, "fields"),
        ({"fields": ["cedula", "profession"]}, "fields"),
        ({"proof_reference": ""}, "proof_reference"),
        ({"text_version": ""}, "text_version"),
        ({"expires_at": AT}, "expires_at"),
    ],
)
async def test_a_consent_beyond_its_agreement_or_without_proof_is_refused(
    conn: AsyncConnection, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidConsent) as caught:
        await give(conn, uuid7(), **changes)
    assert caught.value.field == field


async def test_consent_under_an_agreement_that_is_not_active_is_refused(conn: AsyncConnection) -> None:
    with pytest.raises(UnknownAgreement):
        await give(conn, uuid7(), agreement="NOBODY-KNOWS-IT")
    await service.put_agreement(conn, replace(demonstration("DEMO-SNPP-IDENT"), status="suspended"), at=AT)
    with pytest.raises(UnknownAgreement):
        await give(conn, uuid7())


async def test_a_seal_closes_and_its_lifting_opens(conn: AsyncConnection) -> None:
    subject = uuid7()
    await give(conn, subject)
    assert (await service.seal(conn, subject, at=AT))["changed"]
    assert not (await service.seal(conn, subject, at=AT))["changed"]
    assert (await ask(conn, subject)).reasons == ("sealed",)
    assert (await service.unseal(conn, subject, at=AT))["changed"]
    assert not (await service.unseal(conn, subject, at=AT))["changed"]
    assert (await ask(conn, subject)).effect == "permit"


async def test_an_objection_closes(conn: AsyncConnection) -> None:
    subject = uuid7()
    await give(conn, subject)
    assert (await service.object_to(conn, subject, "service-provision", at=AT))["changed"]
    assert not (await service.object_to(conn, subject, "service-provision", at=AT))["changed"]
    assert (await ask(conn, subject)).reasons == ("objection",)
    with pytest.raises(UnknownCode):
        await service.object_to(conn, subject, "curiosity", at=AT)


async def test_a_suspended_institution_is_stopped_until_it_resumes(conn: AsyncConnection) -> None:
    subject = uuid7()
    await give(conn, subject)
    for _ in range(2):
        await service.suspend_institution(conn, "PN-IDENT", reason="Resolución 1/2026", at=AT)
    assert (await ask(conn, subject)).reasons == ("party-suspended",)
    assert (await service.resume_institution(conn, "PN-IDENT", at=AT))["changed"]
    assert not (await service.resume_institution(conn, "PN-IDENT", at=AT))["changed"]
    assert (await ask(conn, subject)).effect == "permit"


async def test_a_time_without_offset_is_refused(conn: AsyncConnection) -> None:
    with pytest.raises(ValueError, match="offset"):
        await service.seal(conn, uuid7(), at=AT.replace(tzinfo=None))


async def test_nothing_is_committed_by_the_room_itself(engine: AsyncEngine) -> None:
    async with engine.connect() as own:
        await service.load_demonstration(own, at=AT)
        await own.rollback()
    async with engine.connect() as own:
        assert await read_agreements(own) == []


async def test_the_application_role_does_its_work(conn: AsyncConnection) -> None:
    await conn.commit()
    await conn.execute(text(f"SET ROLE {APP_ROLE}"))
    subject = uuid7()
    await service.put_agreement(conn, demonstration("DEMO-MDS-IDENT"), at=AT)
    await service.suspend_institution(conn, "MEC", reason="Resolución 1/2026", at=AT)
    await service.resume_institution(conn, "MEC", at=AT)
    record = await give(conn, subject)
    await service.withdraw_consent(conn, record, at=AT)
    await service.seal(conn, subject, at=AT)
    await service.unseal(conn, subject, at=AT)
    await service.object_to(conn, subject, "public-benefit", at=AT)
    assert (await ask(conn, subject)).reasons == ("consent",)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE consent.agreement SET status = 'active'",
        "DELETE FROM consent.agreement",
        "UPDATE consent.consent_record SET fields = '{profession}'",
        "DELETE FROM consent.consent_record",
        "TRUNCATE consent.objection",
    ],
)
async def test_the_application_role_cannot_rewrite_what_was_agreed_or_consented(
    conn: AsyncConnection, statement: str
) -> None:
    await conn.commit()
    await conn.execute(text(f"SET ROLE {APP_ROLE}"))
    with pytest.raises(ProgrammingError) as caught:
        await conn.execute(text(statement))
    assert isinstance(caught.value.orig, psycopg.errors.InsufficientPrivilege)
