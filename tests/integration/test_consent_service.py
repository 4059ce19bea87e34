"""What the consent room stores of answers, and what the next decision makes of it, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from consent_answers import AGREEMENT, AT, CHILD, GROWN, ask, demonstration, give, new_consent, withdraw
from consent_database import APP_ROLE, consent_database
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from consent import agreements, people, receipts, records
from consent.errors import (
    ConsentNotInForce,
    InvalidConsent,
    InvalidRecord,
    NotInForce,
    TextPublished,
    UnknownAgreement,
)
from consent.policy import read_agreements
from schemas.canonical import canonical_json, sha256
from schemas.ids import uuid7

SECOND = timedelta(seconds=1)


@pytest.fixture
async def engine() -> AsyncIterator[AsyncEngine]:
    async with consent_database() as made:
        yield made


@pytest.fixture
async def conn(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with engine.connect() as made:
        await agreements.load_demonstration(made, at=AT)
        yield made


async def mandate(conn: AsyncConnection, subject: UUID, **changes: Any) -> UUID:
    """Let somebody new act for a child as its parent."""
    usual = {"kind": "parent", "proof_reference": "birth entry 12", "recorded_by": "SNPP/officer", "birth_date": CHILD}
    said = await people.add_representation(
        conn, **{"subject": subject, "representative": uuid7(), "at": AT, **usual, **changes}
    )
    return UUID(said["representation"])


async def test_consent_opens_and_its_withdrawal_closes_the_next_decision(conn: AsyncConnection) -> None:
    subject = uuid7()
    assert (await ask(conn, subject)).reasons == ("consent",)
    record = await give(conn, subject)
    permitted = await ask(conn, subject)
    assert (permitted.effect, permitted.consent) == ("permit", record)
    fact = await withdraw(conn, record)
    assert fact["event"] == "consent.withdrawn"
    assert (fact["subject"], fact["ended"]) == (str(subject), [str(record)])
    assert (await ask(conn, subject)).reasons == ("consent",)


async def test_withdrawing_one_record_ends_all_given_under_the_agreement(conn: AsyncConnection) -> None:
    subject, other = uuid7(), uuid7()
    older, newer = await give(conn, subject), await give(conn, subject, at=AT + timedelta(seconds=1))
    await give(conn, other)
    fact = await withdraw(conn, older, at=AT + timedelta(seconds=2))
    assert fact["ended"] == sorted((str(older), str(newer)))
    assert (await ask(conn, subject, at=AT + timedelta(seconds=3))).effect == "deny"
    assert (await ask(conn, other)).effect == "permit"


async def test_consent_given_again_after_a_withdrawal_counts(conn: AsyncConnection) -> None:
    subject = uuid7()
    await withdraw(conn, await give(conn, subject), at=AT)
    await give(conn, subject, at=AT + timedelta(seconds=1))
    assert (await ask(conn, subject, at=AT + timedelta(seconds=1))).effect == "permit"


async def test_withdrawing_an_ended_record_leaves_a_later_consent_in_force(conn: AsyncConnection) -> None:
    subject = uuid7()
    ended = await give(conn, subject)
    await withdraw(conn, ended, at=AT)
    await give(conn, subject, at=AT + timedelta(seconds=1))
    with pytest.raises(ConsentNotInForce):
        await withdraw(conn, ended, at=AT + timedelta(seconds=2))
    assert (await ask(conn, subject, at=AT + timedelta(seconds=3))).effect == "permit"


async def test_consent_ends_when_it_expires(conn: AsyncConnection) -> None:
    subject = uuid7()
    await give(conn, subject, expires_at=AT + timedelta(hours=1))
    assert (await ask(conn, subject)).effect == "permit"
    assert (await ask(conn, subject, at=AT + timedelta(hours=1))).effect == "deny"


async def test_what_is_not_in_force_cannot_be_withdrawn(conn: AsyncConnection) -> None:
    record = await give(conn, uuid7())
    await withdraw(conn, record)
    for unknown in (record, uuid7()):
        with pytest.raises(ConsentNotInForce):
            await withdraw(conn, unknown, at=AT)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"agreement": "DEMO-MDS-IDENT"}, "agreement"),
        ({"purposes": frozenset()}, "purposes"),
        ({"purposes": frozenset({"public-benefit"})}, "purposes"),
        ({"fields": frozenset()}, "fields"),
        ({"fields": frozenset({"cedula", "profession"})}, "fields"),
        ({"labels": frozenset({"health"})}, "labels"),
        ({"labels": frozenset({"identifying"})}, "labels"),
        ({"channel": "pigeon"}, "channel"),
        ({"proof_reference": ""}, "proof_reference"),
        ({"text_version": ""}, "text_version"),
        ({"expires_at": AT}, "expires_at"),
        ({"representation": UUID(int=1)}, "representation"),
        ({"birth_date": CHILD}, "representation"),
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
    await agreements.put_agreement(conn, replace(demonstration("DEMO-SNPP-IDENT"), status="suspended"), at=AT)
    with pytest.raises(UnknownAgreement):
        await give(conn, uuid7())


async def test_a_renewal_takes_the_place_of_the_consent_before_it(conn: AsyncConnection) -> None:
    subject = uuid7()
    first = await give(conn, subject, expires_at=AT + timedelta(hours=1))
    later = AT + timedelta(minutes=30)
    said = await records.record_consent(
        conn, subject, new_consent(fields=frozenset({"cedula"})), birth_date=GROWN, recorded_by="x", at=later
    )
    assert (said["event"], said["renews"]) == ("consent.given", str(first))
    assert (await ask(conn, subject, at=AT + timedelta(hours=2))).released == {"cedula"}
    assert await records.newest_of(conn, subject, [AGREEMENT]) == {UUID(said["consent"])}


async def test_a_refused_renewal_closes_what_was_open(conn: AsyncConnection) -> None:
    subject = uuid7()
    await give(conn, subject)
    await give(conn, subject, state="requested", at=AT + SECOND)
    assert (await ask(conn, subject, at=AT + SECOND)).effect == "permit"
    refused = await give(conn, subject, state="refused", at=AT + 2 * SECOND)
    assert (await ask(conn, subject, at=AT + 2 * SECOND)).reasons == ("consent",)
    steps: tuple[tuple[records.Step, str], ...] = (
        ("withdraw", "person"),
        ("revoke", "order"),
        ("invalidate", "proof-false"),
    )
    for step, reason in steps:
        with pytest.raises(ConsentNotInForce):
            await records.end_consent(conn, refused, step=step, reason=reason, at=AT + 3 * SECOND)


@pytest.mark.parametrize(
    ("step", "reason", "state", "ended"),
    [
        ("withdraw", "word-to-officer", "withdrawn", {0, 1}),
        ("revoke", "agreement-ended", "revoked", {0, 1}),
        ("invalidate", "proof-false", "invalidated", {1}),
    ],
)
async def test_every_way_to_end_a_consent_closes_the_next_decision(
    conn: AsyncConnection, step: records.Step, reason: str, state: str, ended: set[int]
) -> None:
    subject = uuid7()
    given = [await give(conn, subject), await give(conn, subject, at=AT + SECOND)]
    said = await records.end_consent(conn, given[1], step=step, reason=reason, at=AT + 2 * SECOND)
    assert (said["event"], said["reason"]) == (f"consent.{state}", reason)
    assert said["ended"] == sorted(str(given[each]) for each in ended)
    assert (await records.read_record(conn, given[1])).state == state
    assert (await ask(conn, subject, at=AT + 3 * SECOND)).reasons == ("consent",)


@pytest.mark.parametrize(("step", "reason"), [("withdraw", "order"), ("revoke", "person"), ("invalidate", "why-not")])
async def test_a_reason_that_is_not_one_of_the_step_is_refused_with_those_that_are(
    conn: AsyncConnection, step: records.Step, reason: str
) -> None:
    record = await give(conn, uuid7())
    with pytest.raises(InvalidRecord) as caught:
        await records.end_consent(conn, record, step=step, reason=reason, at=AT)
    assert caught.value.allowed
    assert reason not in caught.value.allowed


async def test_a_consent_is_held_to_the_scope_that_the_agreement_had(conn: AsyncConnection) -> None:
    subject = uuid7()
    record = await records.read_record(conn, await give(conn, subject))
    assert (record.agreement_version, record.scope_sha256) == (1, demonstration(AGREEMENT).scope_sha256())
    wider = {"identity": demonstration(AGREEMENT).datasets["identity"] | {"sex"}}
    await agreements.put_agreement(conn, replace(demonstration(AGREEMENT), datasets=wider), at=AT)
    assert (await ask(conn, subject)).reasons == ("consent",)
    assert (await records.agreement_of(conn, record)).version == 1


async def test_a_parents_consent_ends_at_the_first_hour_of_the_eighteenth_birthday(conn: AsyncConnection) -> None:
    child = uuid7()
    with pytest.raises(InvalidConsent) as caught:
        await give(conn, child, birth_date=CHILD)
    assert (caught.value.field, caught.value.what) == ("representation", "minor")
    by_parent = await mandate(conn, child)
    # As one recorded while the registry had another birth date.
    await conn.execute(text("UPDATE consent.representation SET valid_to = NULL"))
    record = await give(conn, child, birth_date=CHILD, representation=by_parent, expires_at=AT + timedelta(days=9999))
    ends = datetime(2030, 6, 2, 3, 0, tzinfo=UTC)  # midnight in Asunción
    assert (await records.read_record(conn, record)).expires_at == ends
    assert (await ask(conn, child, birth_date=CHILD, at=ends - SECOND)).effect == "permit"
    assert (await ask(conn, child, birth_date=CHILD, at=ends)).reasons == ("consent",)
    with pytest.raises(InvalidConsent) as caught:
        await give(conn, child, birth_date=CHILD, representation=by_parent, at=ends)
    assert caught.value.what == "mandate"


@pytest.mark.parametrize("step", ["block", "end"])
async def test_what_a_blocked_or_ended_guardian_gave_counts_no_more(conn: AsyncConnection, step: str) -> None:
    child = uuid7()
    guardian = await mandate(conn, child, kind="guardian")
    await give(conn, child, birth_date=CHILD, representation=guardian)
    assert (await ask(conn, child, birth_date=CHILD)).effect == "permit"
    reason = "conflict-of-interest" if step == "block" else "ended"
    await people.end_representation(conn, guardian, step=step, reason=reason, at=AT + SECOND)
    assert (await ask(conn, child, birth_date=CHILD, at=AT + SECOND)).reasons == ("consent",)
    with pytest.raises(InvalidConsent):
        await give(conn, child, birth_date=CHILD, representation=guardian, at=AT + SECOND)
    with pytest.raises(NotInForce):
        await people.end_representation(conn, guardian, step=step, reason=reason, at=AT + SECOND)


async def test_nobody_consents_by_a_mandate_over_another_person(conn: AsyncConnection) -> None:
    of_another = await mandate(conn, uuid7())
    with pytest.raises(InvalidConsent) as caught:
        await give(conn, uuid7(), birth_date=CHILD, representation=of_another)
    assert caught.value.what == "mandate"


async def test_a_published_text_never_changes_and_binds_the_consents_after_it(conn: AsyncConnection) -> None:
    await give(conn, uuid7(), text_version="whatever", language="es")
    text_of = {"agreement": AGREEMENT, "version": "2026-2", "language": "gn", "text": "¿Remoneĩpa?"}
    assert (await records.publish_text(conn, **text_of, at=AT))["changed"]
    assert not (await records.publish_text(conn, **text_of, at=AT + SECOND))["changed"]
    with pytest.raises(TextPublished):
        await records.publish_text(conn, **text_of | {"text": "other words"}, at=AT)
    with pytest.raises(UnknownAgreement):
        await records.publish_text(conn, **text_of | {"agreement": "NOBODY-KNOWS-IT"}, at=AT)
    refused: tuple[tuple[dict[str, Any], str, tuple[str, ...]], ...] = (
        ({}, "text_version", ("2026-2",)),
        ({"text_version": "2026-2", "language": "es"}, "language", ("gn",)),
    )
    for changes, field, allowed in refused:
        with pytest.raises(InvalidConsent) as caught:
            await give(conn, uuid7(), **changes)
        assert (caught.value.field, caught.value.allowed) == (field, allowed)
    await give(conn, uuid7(), text_version="2026-2")
    await records.publish_text(conn, **text_of | {"version": "2026-3"}, at=AT)
    pages = [await records.texts_of(conn, AGREEMENT, limit=1)]
    pages.append(await records.texts_of(conn, AGREEMENT, after=("2026-2", "gn")))
    assert [[each.version for each in page] for page in pages] == [["2026-2"], ["2026-3"]]


async def test_the_receipt_says_all_that_iso_27560_asks_and_its_hash_holds(conn: AsyncConnection) -> None:
    child = uuid7()
    code, words = "DEMO-MINNA-MSPBS-CONSENT", "¿Autoriza que el MINNA vea los controles de salud?"
    await records.publish_text(conn, agreement=code, version="1", language="es", text=words, at=AT)
    parent = await mandate(conn, child)
    health = {"agreement": code, "fields": frozenset({"controls", "doses"})}
    proof = {"text_version": "1", "language": "es", "labels": frozenset({"health"})}
    consent_id = await give(conn, child, birth_date=CHILD, representation=parent, **health, **proof)
    record = await records.read_record(conn, consent_id)
    agreement = await records.agreement_of(conn, record)
    found = await records.read_text(conn, code, "1", "es")
    document = receipts.record_27560(record, agreement, found)
    assert document["record_header"]["record_id"] == str(consent_id)
    processing = document["pii_processing"]
    assert processing["purposes"][0]["purpose_type"] == "dpv:RequestedServiceProvision"
    assert {each["dataset"]: each["attributes"] for each in processing["pii_information"]} == {
        "health-controls": ["controls"],
        "vaccination": ["doses"],
    }
    assert [each["category"] for each in processing["sensitive_pii_categories"]] == ["health"]
    assert (processing["lawful_basis"], processing["jurisdiction"]) == ("dpv:Consent", "PY")
    assert document["notice"]["notice_sha256"] == sha256(words.encode()).hex()
    roles = [each["party_role"] for each in document["parties"]]
    assert roles == ["pii-principal", "representative", "recipient", "pii-controller"]
    assert receipts.document_sha256(document) == sha256(canonical_json(document))
    plain = receipts.receipt_text(record, agreement, found, AT)
    for said in (str(consent_id), "Ministerio de la Niñez y la Adolescencia", "Salud", words, "02/06/2030"):
        assert said in plain
    await withdraw(conn, consent_id, at=AT + SECOND)
    after = receipts.record_27560(await records.read_record(conn, consent_id), agreement, found)
    assert [each["event_state"] for each in after["events"]] == ["dpv:ConsentGiven", "dpv:ConsentWithdrawn"]
    assert receipts.document_sha256(after) != receipts.document_sha256(document)


async def test_a_party_sees_the_records_under_its_own_agreements_page_by_page(conn: AsyncConnection) -> None:
    subject = uuid7()
    ids = [await give(conn, subject, at=AT + each * SECOND) for each in range(3)]
    health = {"agreement": "DEMO-MINNA-MSPBS-CONSENT", "fields": frozenset({"controls"})}
    foreign = await give(conn, subject, **health)
    await give(conn, uuid7())

    async def page(**asked: Any) -> list[UUID]:
        return [each.id for each in await records.records_of(conn, subject, **asked)]

    assert await page(party="SNPP", limit=2) == ids[:2]
    assert await page(party="SNPP", after=ids[1], limit=2) == ids[2:]
    assert await page(party="PN-IDENT") == ids
    assert await page(party="MSPBS") == [foreign]
    assert await page(party="MTESS") == []
    assert await page() == [*ids, foreign]
    assert await page(party="SNPP", agreement="DEMO-MINNA-MSPBS-CONSENT") == []
    assert not await records.is_party(conn, AGREEMENT, "MSPBS")
    assert await records.is_party(conn, AGREEMENT, "SNPP")


async def test_a_suspended_institution_is_stopped_until_it_resumes(conn: AsyncConnection) -> None:
    subject = uuid7()
    await give(conn, subject)
    for _ in range(2):
        await agreements.suspend_institution(conn, "PN-IDENT", reason="Resolución 1/2026", at=AT)
    assert (await ask(conn, subject)).reasons == ("party-suspended",)
    assert (await agreements.resume_institution(conn, "PN-IDENT", at=AT))["changed"]
    assert not (await agreements.resume_institution(conn, "PN-IDENT", at=AT))["changed"]
    assert (await ask(conn, subject)).effect == "permit"


async def test_a_time_without_offset_is_refused(conn: AsyncConnection) -> None:
    with pytest.raises(ValueError, match="offset"):
        await people.set_flag(conn, uuid7(), "sealed", at=AT.replace(tzinfo=None))


async def test_nothing_is_committed_by_the_room_itself(engine: AsyncEngine) -> None:
    async with engine.connect() as own:
        await agreements.load_demonstration(own, at=AT)
        await own.rollback()
    async with engine.connect() as own:
        assert await read_agreements(own) == []


async def test_the_application_role_does_its_work(conn: AsyncConnection) -> None:
    await conn.commit()
    await conn.execute(text(f"SET ROLE {APP_ROLE}"))
    subject = uuid7()
    await agreements.put_agreement(conn, demonstration("DEMO-MDS-IDENT"), at=AT)
    await agreements.suspend_institution(conn, "MEC", reason="Resolución 1/2026", at=AT)
    await agreements.resume_institution(conn, "MEC", at=AT)
    record = await give(conn, subject)
    await withdraw(conn, record)
    await people.set_flag(conn, subject, "sealed", at=AT)
    await people.lift_flag(conn, subject, "sealed", at=AT)
    await people.object_to(conn, subject, "public-benefit", at=AT)
    await people.withdraw_objection(conn, subject, "public-benefit", at=AT)
    await people.end_representation(conn, await mandate(conn, subject), step="end", reason="ended", at=AT)
    text_of = {"agreement": AGREEMENT, "version": "1", "language": "es", "text": "¿Acepta?"}
    await records.publish_text(conn, **text_of, at=AT)
    assert (await ask(conn, subject)).reasons == ("consent",)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE consent.agreement SET status = 'active'",
        "DELETE FROM consent.agreement",
        "UPDATE consent.consent_record SET fields = '{profession}'",
        "UPDATE consent.consent_record SET purposes = '{public-benefit}'",
        "UPDATE consent.consent_record SET expires_at = NULL",
        "UPDATE consent.consent_text SET text = 'x'",
        "UPDATE consent.representation SET valid_to = NULL",
        "UPDATE consent.protective_flag SET kind = 'export-ban'",
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
