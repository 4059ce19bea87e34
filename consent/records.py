"""What persons were asked, word by word, and what they answered: consent texts and consent records.

Every function works on the connection handed in and commits nothing. Every change returns what the log must say, as a
JSON-ready dict whose ``event`` names it and whose ``subject`` is our internal id as text. A record is never rewritten:
an answer is a new one, and only its end is added to it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal, NamedTuple, get_args
from uuid import UUID

from sqlalchemy import ColumnElement, Select, exists, insert, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from consent import people
from consent.errors import ConsentNotInForce, InvalidConsent, NotInForce, TextPublished, UnknownAgreement
from consent.grants import CONSENT
from consent.models import Agreement, ConsentState, parse_agreement
from consent.policy import read_agreements
from consent.subject import is_adult
from consent.tables import agreement as agreement_table
from consent.tables import consent_record, consent_text
from consent.transaction import instant, lock
from schemas.canonical import sha256
from schemas.codes import code_list
from schemas.ids import uuid7

Answer = Literal["given", "refused", "requested"]
Step = Literal["withdraw", "revoke", "invalidate"]
ANSWERS: tuple[Answer, ...] = get_args(Answer)
STEPS: tuple[Step, ...] = get_args(Step)
_AFTER: dict[Step, ConsentState] = {"withdraw": "withdrawn", "revoke": "revoked", "invalidate": "invalidated"}


class ConsentText(NamedTuple):
    """What a person was asked to agree to, in one language; a published version never changes."""

    agreement: str
    version: str
    language: str
    text: str
    text_sha256: bytes
    published_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewConsent:
    """An answer to be recorded, with the proof that Ley 7593/2025 art. 6 asks of the controller.

    ``labels`` are the sensitive classes it names expressly, ``channel`` a code of ``consent-channels``,
    ``representation`` the mandate of whoever gave it for the person.
    """

    agreement: str
    purposes: frozenset[str]
    fields: frozenset[str]
    text_version: str
    language: str
    channel: str
    proof_reference: str
    labels: frozenset[str] = frozenset()
    representation: UUID | None = None
    expires_at: datetime | None = None


class ConsentRecord(NamedTuple):
    """A stored answer; times in UTC, ``withdrawn_at`` and ``end_reason`` say how a given one ended."""

    id: UUID
    subject: UUID
    agreement: str
    agreement_version: int | None
    scope_sha256: bytes | None
    purposes: list[str]
    fields: list[str]
    labels: list[str]
    state: ConsentState
    text_version: str
    language: str
    channel: str
    proof_reference: str
    representation: UUID | None
    recorded_by: str | None
    given_at: datetime
    expires_at: datetime | None
    withdrawn_at: datetime | None
    end_reason: str | None


async def publish_text(
    conn: AsyncConnection, *, agreement: str, version: str, language: str, text: str, at: datetime
) -> dict[str, Any]:
    """Publish what persons are asked under an agreement; ``changed`` is false where the very same text is published.

    Raises :class:`UnknownAgreement`, and :class:`TextPublished` for other words under a version and language in use.
    """
    if not await conn.scalar(select(exists().where(agreement_table.c.code == agreement))):
        raise UnknownAgreement(agreement)
    digest = sha256(text.encode())
    added = await conn.scalar(
        upsert(consent_text)
        .values(agreement=agreement, version=version, language=language, text=text, text_sha256=digest, published_at=at)
        .on_conflict_do_nothing()
        .returning(consent_text.c.version)
    )
    if added is None:
        found = await read_text(conn, agreement, version, language)
        if found is None or found.text_sha256 != digest:
            raise TextPublished(agreement)
    return {
        "event": "consent.text_published",
        "agreement": agreement,
        "version": version,
        "language": language,
        "text_sha256": digest.hex(),
        "changed": added is not None,
        "at": instant(at),
    }


async def read_text(conn: AsyncConnection, agreement: str, version: str, language: str) -> ConsentText | None:
    """Return one published text, or None."""
    table = consent_text
    one = (table.c.agreement == agreement) & (table.c.version == version) & (table.c.language == language)
    row = (await conn.execute(select(table).where(one))).one_or_none()
    return None if row is None else ConsentText(*row)


async def texts_of(
    conn: AsyncConnection, agreement: str, *, after: tuple[str, str] = ("", ""), limit: int = 50
) -> list[ConsentText]:
    """Return the published texts of an agreement by version and language, from after one of them."""
    table = consent_text
    place = tuple_(table.c.version, table.c.language)
    query = select(table).where(table.c.agreement == agreement, place > after).order_by(place).limit(limit)
    return [ConsentText(*row) for row in await conn.execute(query)]


async def record_consent(
    conn: AsyncConnection,
    subject: UUID,
    new: NewConsent,
    *,
    birth_date: date | None,
    recorded_by: str | None,
    at: datetime,
    state: Answer = "given",
) -> dict[str, Any]:
    """Record that a person consented or refused, or was asked; an answer replaces the one before it for the decision.

    ``birth_date`` is the person's, from the registry. What a parent or guardian gives ends when the person comes of
    age. The result's ``consent`` is the record's id, ``renews`` that of the consent it follows. Raises
    :class:`UnknownAgreement`, and :class:`InvalidConsent` for what the agreement does not ask for, a text that is not
    published, a giver who may not, missing proof, or an end that is not after its start.
    """
    found = await read_agreements(conn, new.agreement)
    if not found or found[0].status != "active":
        raise UnknownAgreement(new.agreement)
    agreement = found[0]
    _check(agreement, new)
    await _check_text(conn, new)
    await lock(conn, f"consents {subject} {new.agreement}")
    expires_at = await _end_of(conn, subject, new, birth_date, at)
    if expires_at is not None and expires_at <= at:
        raise InvalidConsent("expires_at", "not-after-start")
    renews = await _standing(conn, subject, new.agreement, at) if state == "given" else None
    consent_id = uuid7()
    said = {
        "agreement": agreement.code,
        "agreement_version": agreement.version,
        "purposes": sorted(new.purposes),
        "fields": sorted(new.fields),
        "labels": sorted(new.labels),
        "state": state,
        "text_version": new.text_version,
        "language": new.language,
        "channel": new.channel,
    }
    await conn.execute(
        insert(consent_record).values(
            id=consent_id,
            subject=subject,
            scope_sha256=agreement.scope_sha256(),
            proof_reference=new.proof_reference,
            representation=new.representation,
            recorded_by=recorded_by,
            given_at=at,
            expires_at=expires_at,
            **said,
        )
    )
    return {
        "event": f"consent.{state}",
        "subject": str(subject),
        "consent": str(consent_id),
        **said,
        "representation": None if new.representation is None else str(new.representation),
        "renews": None if renews is None else str(renews),
        "given_at": instant(at),
        "expires_at": None if expires_at is None else instant(expires_at),
    }


def _check(agreement: Agreement, new: NewConsent) -> None:
    if CONSENT not in {agreed.basis for agreed in agreement.bases}:
        raise InvalidConsent("agreement", "not-on-consent")
    asked = frozenset().union(*agreement.datasets.values())
    sensitive = {label for label, spec in code_list("labels").items() if spec.get("sensitive")} & agreement.labels
    for name, given, allowed in (("purposes", new.purposes, agreement.purposes), ("fields", new.fields, asked)):
        if not given or not given <= allowed:
            raise InvalidConsent(name, "beyond-agreement" if given else "missing", allowed)
    if not new.labels <= sensitive:
        raise InvalidConsent("labels", "beyond-agreement", sensitive)
    if new.channel not in code_list("consent-channels"):
        raise InvalidConsent("channel", "unknown-code", code_list("consent-channels"))
    for name in ("text_version", "language", "proof_reference"):
        if not getattr(new, name):
            raise InvalidConsent(name, "missing")


async def _check_text(conn: AsyncConnection, new: NewConsent) -> None:
    """Hold a consent to a published text, once the agreement has any."""
    table = consent_text
    query = select(table.c.version, table.c.language).where(table.c.agreement == new.agreement)
    published = {(row.version, row.language) for row in await conn.execute(query)}
    if published and (new.text_version, new.language) not in published:
        versions = {version for version, _language in published}
        if new.text_version not in versions:
            raise InvalidConsent("text_version", "text-not-published", versions)
        languages = {language for version, language in published if version == new.text_version}
        raise InvalidConsent("language", "text-not-published", languages)


async def _end_of(
    conn: AsyncConnection, subject: UUID, new: NewConsent, birth_date: date | None, at: datetime
) -> datetime | None:
    """Check who gives a consent, and return when it ends: with its own term, the mandate, or the person's majority.

    Of somebody whose birth date is not known an answer is kept too; whether it counts is the decision's.
    """
    if new.representation is None:
        if birth_date is not None and not is_adult(birth_date, at):
            raise InvalidConsent("representation", "minor")
        return new.expires_at
    try:
        mandate = await people.read_mandate(conn, new.representation)
    except NotInForce:
        raise InvalidConsent("representation", "mandate") from None
    if mandate.subject != subject or not await people.acts(conn, mandate, birth_date=birth_date, at=at):
        raise InvalidConsent("representation", "mandate")
    ends = [new.expires_at, mandate.valid_to]
    if mandate.kind in people.UNTIL_MAJORITY and birth_date is not None:
        ends.append(people.majority(birth_date))
    return min((end for end in ends if end is not None), default=None)


async def _standing(conn: AsyncConnection, subject: UUID, agreement: str, at: datetime) -> UUID | None:
    """Return the consent in force under an agreement, if there is one."""
    table = consent_record
    query = (
        select(table.c.id, table.c.state, table.c.expires_at)
        .where(table.c.subject == subject, table.c.agreement == agreement, table.c.state != "requested")
        .order_by(table.c.given_at.desc(), table.c.state == "given", table.c.id.desc())
        .limit(1)
    )
    row = (await conn.execute(query)).one_or_none()
    in_force = row is not None and row.state == "given" and (row.expires_at is None or at < row.expires_at)
    return row.id if row is not None and in_force else None


async def end_consent(
    conn: AsyncConnection, consent_id: UUID, *, step: Step, reason: str, at: datetime
) -> dict[str, Any]:
    """End a consent that stands as given, from the next decision on; ``reason`` is a code of ``consent-end-reasons``.

    Withdrawn by the person, or revoked by who answers for the data: every one given under the same agreement ends
    with it. Invalidated, because its proof was none: this one alone. Raises :class:`InvalidConsent` for a reason that
    is not one of the step, and :class:`ConsentNotInForce` when there is no such record or it ended before.
    """
    people.check_reason("consent-end-reasons", step, reason)
    table = consent_record
    named = (
        await conn.execute(select(table.c.subject, table.c.agreement).where(table.c.id == consent_id))
    ).one_or_none()
    if named is None:
        raise ConsentNotInForce(str(consent_id))
    await lock(conn, f"consents {named.subject} {named.agreement}")
    if await conn.scalar(select(table.c.state).where(table.c.id == consent_id)) != "given":
        # One that ended before must not end what was given after it.
        raise ConsentNotInForce(str(consent_id))
    which: ColumnElement[bool] = table.c.id == consent_id
    if step != "invalidate":
        which = (table.c.subject == named.subject) & (table.c.agreement == named.agreement)
    ended = await conn.scalars(
        update(table)
        .where(which, table.c.state == "given")
        .values(state=_AFTER[step], withdrawn_at=at, end_reason=reason)
        .returning(table.c.id)
    )
    ids = sorted(str(each) for each in ended)
    return {
        "event": f"consent.{_AFTER[step]}",
        "subject": str(named.subject),
        "consent": str(consent_id),
        "agreement": named.agreement,
        "ended": ids,
        "reason": reason,
        "at": instant(at),
    }


async def read_record(conn: AsyncConnection, consent_id: UUID) -> ConsentRecord:
    """Return one record; raises :class:`NotInForce` where there is none."""
    row = (await conn.execute(select(consent_record).where(consent_record.c.id == consent_id))).one_or_none()
    if row is None:
        raise NotInForce
    return ConsentRecord(*row)


async def records_of(
    conn: AsyncConnection,
    subject: UUID,
    *,
    party: str | None = None,
    agreement: str | None = None,
    after: UUID | None = None,
    limit: int = 50,
) -> list[ConsentRecord]:
    """Return a person's records by id, from after one of them: all, or under agreements that ``party`` is party to."""
    table = consent_record
    query = select(table).where(table.c.subject == subject).order_by(table.c.id).limit(limit)
    if party is not None:
        query = query.where(table.c.agreement.in_(_agreements_of(party)))
    if agreement is not None:
        query = query.where(table.c.agreement == agreement)
    if after is not None:
        query = query.where(table.c.id > after)
    return [ConsentRecord(*row) for row in await conn.execute(query)]


async def newest_of(conn: AsyncConnection, subject: UUID, agreements: Collection[str]) -> frozenset[UUID]:
    """Return the ids of a person's newest answers to agreements: the records that a decision looks at."""
    table = consent_record
    query = (
        select(table.c.id)
        .where(table.c.subject == subject, table.c.agreement.in_(agreements), table.c.state != "requested")
        .ext(distinct_on(table.c.agreement))
        .order_by(table.c.agreement, table.c.given_at.desc(), table.c.state == "given", table.c.id.desc())
    )
    return frozenset(await conn.scalars(query))


async def is_party(conn: AsyncConnection, agreement: str, institution: str) -> bool:
    """Say whether an institution is a party of an agreement; the parties of a code never change."""
    mine = _agreements_of(institution).where(agreement_table.c.code == agreement)
    return await conn.scalar(mine) is not None


def _agreements_of(institution: str) -> Select[tuple[str]]:
    document = agreement_table.c.document
    mine = or_(document["requester"].astext == institution, document["holder"].astext == institution)
    return select(agreement_table.c.code).where(agreement_table.c.version == 1, mine)


async def agreement_of(conn: AsyncConnection, record: ConsentRecord) -> Agreement:
    """Return the version of the agreement that a record was given under; the first one for a record of before."""
    row = agreement_table.c
    found = (
        await conn.execute(
            select(row.version, row.document, row.status, row.valid_from, row.valid_to).where(
                row.code == record.agreement, row.version == (record.agreement_version or 1)
            )
        )
    ).one()
    rest = {"code": record.agreement, "version": found.version, "status": found.status}
    return parse_agreement(found.document | rest | {"valid_from": found.valid_from, "valid_to": found.valid_to})
