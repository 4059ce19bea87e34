"""Changes to agreements, institutions, consents, objections and protective flags, and the one read per decision.

Every function works on the connection handed in and commits nothing. Every change returns what the log must say about
it, as a JSON-ready dict whose ``event`` names it and whose ``subject``, where a person is concerned, is our internal
id as text: the caller stages the entry in the same transaction and turns the id into the log's pseudonym.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from consent import tables
from consent.decision import CONSENT
from consent.errors import ConsentNotInForce, InvalidAgreement, InvalidConsent, UnknownAgreement
from consent.models import Agreement, ConsentFact, ConsentState, StoredFacts, parse_agreement
from consent.policy import dataset_labels, read_agreements
from schemas.canonical import canonical_json, sha256
from schemas.codes import code_list, require_code
from schemas.ids import uuid7

SEALED = "sealed"

# DISTINCT ON: the newest record of each agreement counts, and of two of the same instant the one that refuses.
_SUBJECT_FACTS = """
SELECT asked.subject,
       EXISTS (SELECT FROM consent.protective_flag WHERE subject = asked.subject AND kind = 'sealed') AS sealed,
       ARRAY(SELECT purpose FROM consent.objection WHERE subject = asked.subject) AS objections,
       record.*
FROM unnest(%s::uuid[]) AS asked (subject)
LEFT JOIN LATERAL (
    SELECT DISTINCT ON (agreement)
           id, agreement, purposes, fields, state, text_version, given_at, expires_at
    FROM consent.consent_record
    WHERE consent_record.subject = asked.subject
    ORDER BY agreement, given_at DESC, (state = 'given')
) AS record ON true
"""


async def subject_facts(conn: AsyncConnection, subject: UUID) -> StoredFacts:
    """Read in one query whether a person is sealed, what they objected to, and their newest consent per agreement.

    The registry's half (birth date, death) is added with ``completed``; somebody without an id of ours is
    ``consent.models.UNKNOWN_SUBJECT`` and needs no query.
    """
    driver = (await conn.get_raw_connection()).driver_connection
    if not isinstance(driver, psycopg.AsyncConnection):
        raise TypeError("the consent room needs the psycopg driver")
    return (await facts_of(driver, [subject]))[subject]


async def facts_of(driver: psycopg.AsyncConnection[Any], subjects: Collection[UUID]) -> dict[UUID, StoredFacts]:
    """Read what :func:`subject_facts` reads, for many persons in one query; every subject is in the result."""
    if not subjects:
        return {}
    consents: dict[UUID, list[ConsentFact]] = {subject: [] for subject in subjects}
    flags: dict[UUID, tuple[bool, frozenset[str]]] = {}
    async with driver.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(_SUBJECT_FACTS, (list(consents),))
        for subject, sealed, objections, *record in await cursor.fetchall():
            flags[subject] = (sealed, frozenset(objections))
            if record[0] is not None:
                consents[subject].append(_consent_fact(*record))
    return {
        subject: StoredFacts(
            subject=subject, sealed=flags[subject][0], objections=flags[subject][1], consents=tuple(found)
        )
        for subject, found in consents.items()
    }


def _consent_fact(
    record_id: UUID,
    agreement: str,
    purposes: list[str],
    fields: list[str],
    state: ConsentState,
    text_version: str,
    given_at: datetime,
    expires_at: datetime | None,
) -> ConsentFact:
    return ConsentFact(
        id=record_id,
        agreement=agreement,
        purposes=frozenset(purposes),
        fields=frozenset(fields),
        state=state,
        text_version=text_version,
        given_at=given_at,
        expires_at=expires_at,
    )


def check_agreement(agreement: Agreement) -> None:
    """Hold an agreement against the code lists; raise :class:`InvalidAgreement` for the first rule broken.

    Institutions and services are the catalogue's (DESIGN 9.15) and are not checked here.
    """

    def refuse(field: str, what: str) -> None:
        raise InvalidAgreement(agreement.code, field, what)

    if not agreement.purposes <= code_list("purposes").keys():
        refuse("purposes", "not in list purposes")
    if not agreement.roles <= code_list("roles").keys():
        refuse("roles", "not in list roles")
    bases = [agreed.basis for agreed in agreement.bases]
    if not set(bases) <= code_list("legal-bases").keys():
        refuse("bases", "not in list legal-bases")
    if len(bases) != len(set(bases)):
        refuse("bases", "each basis once, with one norm")
    if agreement.valid_to is not None and agreement.valid_to <= agreement.valid_from:
        refuse("valid_to", "not after valid_from")
    for dataset, fields in agreement.datasets.items():
        if not fields <= dataset_labels(dataset).keys():
            refuse(f"datasets/{dataset}", "unknown dataset or field")
        declared = code_list("datasets").get(dataset)
        if declared is not None and declared["holder"] != agreement.holder:
            refuse(f"datasets/{dataset}", "held by another institution")


async def put_agreement(conn: AsyncConnection, agreement: Agreement, *, at: datetime) -> dict[str, Any]:
    """Store an agreement as the next version of its code; the result's ``version`` is the number it got.

    Raises :class:`InvalidAgreement` when it breaks a code list, or names other parties than the version before: a
    consent given under a code must not come to mean another recipient.
    """
    check_agreement(agreement)
    row = tables.agreement.c
    await _lock(conn, f"agreement {agreement.code}")
    newest = (
        await conn.execute(
            select(row.version, row.document).where(row.code == agreement.code).order_by(row.version.desc()).limit(1)
        )
    ).first()
    if newest is not None:
        for party, code in (("requester", agreement.requester), ("holder", agreement.holder)):
            if newest.document[party] != code:
                raise InvalidAgreement(agreement.code, party, "another party needs another agreement code")
    document, version = agreement.document(), 1 if newest is None else newest.version + 1
    await conn.execute(
        insert(tables.agreement).values(
            code=agreement.code,
            version=version,
            document=document,
            status=agreement.status,
            valid_from=agreement.valid_from,
            valid_to=agreement.valid_to,
            created_at=at,
        )
    )
    return {
        "event": "admin.agreement",
        "agreement": agreement.code,
        "version": version,
        "status": agreement.status,
        "valid_from": _instant(agreement.valid_from),
        "valid_to": None if agreement.valid_to is None else _instant(agreement.valid_to),
        "document_sha256": sha256(canonical_json(document)).hex(),
    }


async def load_demonstration(conn: AsyncConnection, *, at: datetime) -> list[dict[str, Any]]:
    """Store the demonstration agreements whose code the database does not have; a second call changes nothing.

    Returns what the log must say, one dict per agreement stored.
    """
    await _lock(conn, "demonstration")
    present = set(await conn.scalars(select(tables.agreement.c.code).distinct()))
    return [
        await put_agreement(conn, agreement, at=at)
        for agreement in demonstration_agreements()
        if agreement.code not in present
    ]


def demonstration_agreements() -> list[Agreement]:
    """Read the agreements a new database starts with (``schemas/codes/agreements.yaml``)."""
    return [parse_agreement(spec | {"code": code}) for code, spec in code_list("agreements").items()]


async def suspend_institution(conn: AsyncConnection, code: str, *, reason: str, at: datetime) -> dict[str, Any]:
    """Stop everything an institution asks, holds or mediates; ``reason`` names the act that orders it, no person."""
    state = {"suspended_at": at, "reason": reason}
    await conn.execute(
        upsert(tables.institution_state)
        .values(code=code, **state)
        .on_conflict_do_update(index_elements=["code"], set_=state)
    )
    return {"event": "admin.institution_suspended", "institution": code, "reason": reason, "at": _instant(at)}


async def resume_institution(conn: AsyncConnection, code: str, *, at: datetime) -> dict[str, Any]:
    """Lift an institution's suspension; ``changed`` is false where there was none."""
    table = tables.institution_state
    done = await conn.execute(
        update(table)
        .where(table.c.code == code, table.c.suspended_at.is_not(None))
        .values(suspended_at=None, reason=None)
    )
    changed = done.rowcount > 0
    return {"event": "admin.institution_resumed", "institution": code, "changed": changed, "at": _instant(at)}


async def give_consent(
    conn: AsyncConnection,
    *,
    subject: UUID,
    agreement: str,
    purposes: Iterable[str],
    fields: Iterable[str],
    text_version: str,
    language: str,
    channel: str,
    proof_reference: str,
    at: datetime,
    expires_at: datetime | None = None,
) -> dict[str, Any]:
    """Record that a person consented, with the proof that Ley 7593/2025 art. 6 asks of the controller.

    It replaces, for the decision, any earlier answer under the same agreement. The result's ``consent`` is the id of
    the record. Raises :class:`UnknownAgreement`, and :class:`InvalidConsent` for purposes or fields the agreement does
    not ask for, missing proof, or an end that is not after its start.
    """
    found = await read_agreements(conn, agreement)
    if not found or found[0].status != "active":
        raise UnknownAgreement(agreement)
    wanted, given = frozenset(purposes), frozenset(fields)
    proof = {
        "text_version": text_version,
        "language": language,
        "channel": channel,
        "proof_reference": proof_reference,
    }
    _check_consent(found[0], wanted, given, proof)
    if expires_at is not None and expires_at <= at:
        raise InvalidConsent("expires_at", "not after the time it was given")
    consent_id = uuid7()
    await conn.execute(
        insert(tables.consent_record).values(
            id=consent_id,
            subject=subject,
            agreement=agreement,
            purposes=sorted(wanted),
            fields=sorted(given),
            state="given",
            given_at=at,
            expires_at=expires_at,
            **proof,
        )
    )
    return {
        "event": "consent.given",
        "subject": str(subject),
        "consent": str(consent_id),
        "agreement": agreement,
        "purposes": sorted(wanted),
        "fields": sorted(given),
        "given_at": _instant(at),
        "expires_at": None if expires_at is None else _instant(expires_at),
        **proof,
    }


def _check_consent(
    agreement: Agreement, purposes: frozenset[str], fields: frozenset[str], proof: dict[str, str]
) -> None:
    if CONSENT not in {agreed.basis for agreed in agreement.bases}:
        raise InvalidConsent("agreement", "does not rest on consent")
    if not purposes or not purposes <= agreement.purposes:
        raise InvalidConsent("purposes", "empty, or beyond the agreement")
    if not fields or not fields <= frozenset().union(*agreement.datasets.values()):
        raise InvalidConsent("fields", "empty, or beyond the agreement")
    for name, value in proof.items():
        if not value:
            raise InvalidConsent(name, "part of the proof and missing")


async def withdraw_consent(conn: AsyncConnection, consent_id: UUID, *, at: datetime) -> dict[str, Any]:
    """Record that a person withdrew a consent: every record in force under the same agreement ends with it.

    Raises :class:`ConsentNotInForce` when there is no such record, or it no longer stood as given.
    """
    table = tables.consent_record
    named = (
        await conn.execute(
            select(table.c.subject, table.c.agreement).where(table.c.id == consent_id, table.c.state == "given")
        )
    ).first()
    if named is None:
        raise ConsentNotInForce(str(consent_id))
    ended = await conn.scalars(
        update(table)
        .where(table.c.subject == named.subject, table.c.agreement == named.agreement, table.c.state == "given")
        .values(state="withdrawn", withdrawn_at=at)
        .returning(table.c.id)
    )
    ids = sorted(str(each) for each in ended)
    if str(consent_id) not in ids:  # another transaction withdrew it in between
        raise ConsentNotInForce(str(consent_id))
    return {
        "event": "consent.withdrawn",
        "subject": str(named.subject),
        "consent": str(consent_id),
        "agreement": named.agreement,
        "ended": ids,
        "withdrawn_at": _instant(at),
    }


async def seal(conn: AsyncConnection, subject: UUID, *, at: datetime) -> dict[str, Any]:
    """Put a person's case under protection: nothing about them is released any more; ``changed`` is false if it was."""
    table = tables.protective_flag
    added = await conn.scalar(
        upsert(table).values(subject=subject, kind=SEALED, since=at).on_conflict_do_nothing().returning(table.c.subject)
    )
    return {"event": "admin.sealed", "subject": str(subject), "changed": added is not None, "at": _instant(at)}


async def unseal(conn: AsyncConnection, subject: UUID, *, at: datetime) -> dict[str, Any]:
    """Lift the protection of :func:`seal`; ``changed`` is false where there was none."""
    table = tables.protective_flag
    done = await conn.execute(delete(table).where(table.c.subject == subject, table.c.kind == SEALED))
    return {"event": "admin.unsealed", "subject": str(subject), "changed": done.rowcount > 0, "at": _instant(at)}


async def object_to(conn: AsyncConnection, subject: UUID, purpose: str, *, at: datetime) -> dict[str, Any]:
    """Record that a person objects to a purpose (Ley 7593/2025 art. 30); legal obligations are not moved by it.

    Raises :class:`schemas.errors.UnknownCode` for a purpose that does not exist.
    """
    require_code("purposes", purpose)
    table = tables.objection
    added = await conn.scalar(
        upsert(table)
        .values(subject=subject, purpose=purpose, since=at)
        .on_conflict_do_nothing()
        .returning(table.c.subject)
    )
    return {
        "event": "consent.objection",
        "subject": str(subject),
        "purpose": purpose,
        "changed": added is not None,
        "at": _instant(at),
    }


async def _lock(conn: AsyncConnection, what: str) -> None:
    """Let one transaction at a time do this, until it ends."""
    await conn.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"consent {what}", 0))))


def _instant(at: datetime) -> str:
    if at.tzinfo is None:
        raise ValueError("a time needs its offset")
    return at.astimezone(UTC).isoformat()
