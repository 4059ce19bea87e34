"""The one read per decision: what our own store knows of the persons asked about, in one query for all of them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.models import ConsentFact, OpenedGlass, RepresentationFact, RestrictionFact, SubjectFacts

# What few persons have comes as JSON and is null for all others; OFFSET 0 keeps it from being read once per consent.
# DISTINCT ON: the newest answer to each agreement counts, and of two of the same instant the one that refuses.
FACTS = """
SELECT facts.*, record.*
FROM (
    SELECT asked.subject,
           (SELECT jsonb_agg(jsonb_build_array(kind, target))
            FROM consent.protective_flag AS flag WHERE flag.subject = asked.subject) AS flags,
           (SELECT jsonb_agg(purpose) FROM consent.objection WHERE objection.subject = asked.subject) AS objections,
           (SELECT jsonb_agg(jsonb_build_array(id, representative, kind, valid_from, valid_to, ended_at))
            FROM consent.representation AS mandate WHERE mandate.subject = asked.subject) AS mandates,
           (SELECT jsonb_agg(jsonb_build_array(institution, "user", dataset, incident, expires_at))
            FROM consent.break_glass AS glass WHERE glass.subject = asked.subject) AS glasses,
           (SELECT jsonb_agg(jsonb_build_array(holder, dataset, until))
            FROM consent.restriction WHERE restriction.subject = asked.subject) AS restrictions
    FROM unnest(%s::uuid[]) AS asked (subject)
    OFFSET 0
) AS facts
LEFT JOIN LATERAL (
    SELECT DISTINCT ON (agreement)
           id, agreement, purposes, fields, state, text_version, given_at, expires_at, labels, scope_sha256,
           representation
    FROM consent.consent_record
    WHERE consent_record.subject = facts.subject AND state <> 'requested'
    ORDER BY agreement, given_at DESC, (state = 'given'), id DESC
) AS record ON true
"""


async def subject_facts(conn: AsyncConnection, subject: UUID) -> SubjectFacts:
    """Read in one query what protects a person, what they objected to, who acts for them, and their newest answers.

    The registry's half is added with :func:`completed`; somebody without an id of ours is
    ``consent.models.UNKNOWN_SUBJECT`` and needs no query.
    """
    driver = (await conn.get_raw_connection()).driver_connection
    if not isinstance(driver, psycopg.AsyncConnection):
        raise TypeError("the consent room needs the psycopg driver")
    return (await facts_of(driver, [subject]))[subject]


async def facts_of(driver: psycopg.AsyncConnection[Any], subjects: Collection[UUID]) -> dict[UUID, SubjectFacts]:
    """Read what :func:`subject_facts` reads, for many persons in one query; every subject is in the result."""
    if not subjects:
        return {}
    heads: dict[UUID, list[Any]] = {}
    consents: dict[UUID, list[ConsentFact]] = {}
    async with driver.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(FACTS, (list(dict.fromkeys(subjects)),))
        for subject, flags, objections, mandates, glasses, restrictions, *record in await cursor.fetchall():
            heads[subject] = [each or () for each in (flags, objections, mandates, glasses, restrictions)]
            if record[0] is not None:
                consents.setdefault(subject, []).append(_consent_fact(*record))
    return {subject: _facts(subject, tuple(consents.get(subject, ())), *head) for subject, head in heads.items()}


def completed(facts: SubjectFacts, *, birth_date: date | None, deceased: bool) -> SubjectFacts:
    """Add the registry's half: when the person was born, in Paraguay's calendar, and whether they died."""
    # dataclasses.replace takes three times as long, and this runs once per decision.
    return SubjectFacts(
        subject=facts.subject,
        birth_date=birth_date,
        deceased=deceased,
        sealed=facts.sealed,
        court_order=facts.court_order,
        export_ban=facts.export_ban,
        barred=facts.barred,
        objections=facts.objections,
        restrictions=facts.restrictions,
        consents=facts.consents,
        representations=facts.representations,
        glasses=facts.glasses,
    )


def _facts(
    subject: UUID,
    consents: tuple[ConsentFact, ...],
    flags: Collection[list[str]],
    objections: Collection[str],
    mandates: Collection[list[Any]],
    glasses: Collection[list[Any]],
    restrictions: Collection[list[str]],
) -> SubjectFacts:
    kinds = {kind for kind, _target in flags}
    return SubjectFacts(
        subject=subject,
        sealed="sealed" in kinds,
        court_order="court-order" in kinds,
        export_ban="export-ban" in kinds,
        barred=frozenset(target for kind, target in flags if kind == "aggressor"),
        objections=frozenset(objections),
        restrictions=tuple(
            RestrictionFact(holder, dataset, date.fromisoformat(until)) for holder, dataset, until in restrictions
        ),
        consents=consents,
        representations=tuple(_representation_fact(*mandate) for mandate in mandates),
        glasses=tuple(_opened_glass(*glass) for glass in glasses),
    )


def _consent_fact(
    record_id: UUID,
    agreement: str,
    purposes: list[str],
    fields: list[str],
    state: Any,
    text_version: str,
    given_at: datetime,
    expires_at: datetime | None,
    labels: list[str],
    scope_sha256: bytes | None,
    representation: UUID | None,
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
        labels=frozenset(labels),
        scope_sha256=scope_sha256,
        representation=representation,
    )


def _representation_fact(
    mandate_id: str, representative: str, kind: Any, valid_from: str, valid_to: str | None, ended_at: str | None
) -> RepresentationFact:
    return RepresentationFact(
        id=UUID(mandate_id),
        representative=UUID(representative),
        kind=kind,
        valid_from=datetime.fromisoformat(valid_from),
        valid_to=None if valid_to is None else datetime.fromisoformat(valid_to),
        ended_at=None if ended_at is None else datetime.fromisoformat(ended_at),
    )


def _opened_glass(institution: str, user: str, dataset: str, incident: str, expires_at: str) -> OpenedGlass:
    return OpenedGlass(
        institution=institution,
        user=user,
        dataset=dataset,
        incident=incident,
        expires_at=datetime.fromisoformat(expires_at),
    )
