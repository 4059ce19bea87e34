"""Decides again what of a person the recipient of a referral may see, for one or many: by the rule of delivery."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.models import Entry
from audit.service import AuditLog
from consent.decision import decide
from consent.facts import completed, facts_of
from consent.models import REFERRAL_FIELDS, SEND, UNKNOWN_SUBJECT, Caller, Decision, Request, SubjectFacts
from consent.policy import Policy
from gateway import errors, evidence
from gateway.database import driver_connection
from gateway.referrals.models import Referral
from gateway.referrals.tables import referral
from gateway.registry.models import PersonDetails, PersonRef
from gateway.registry.tables import person, person_identifier
from gateway.vault import Vault
from gateway.witnesses.quorum import STOPPED, Quorum

_REF = tuple(person.c[name] for name in PersonRef.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Release:
    """What a decision released of the person of a referral; ``person`` is ``None`` where it was no.

    ``reason_text`` is what the requester wrote to the recipient.
    """

    current: Referral
    request: Request
    decision: Decision
    facts: SubjectFacts
    person: dict[str, Any] | None
    reason_text: str

    def entry(self, event: str, *, actor: dict[str, Any], exchange: dict[str, Any]) -> Entry:
        """Build the entry of this disclosure, or of its refusal; ``actor`` is who looks.

        ``exchange`` says how; the referral is added.
        """
        built = evidence.decided(
            event,
            self.request,
            self.decision,
            subject=self.current.person_id,
            facts=self.facts,
            outcome="deny" if self.person is None else None,
            exchange={"referral": str(self.current.id), "recipient": self.current.recipient, **exchange},
        )
        # Decided as when it is sent, in the requester's name; who looks at it is somebody else.
        return replace(built, groups={**built.groups, "actor": actor})


async def releases(
    connection: AsyncConnection, vault: Vault, policy: Policy, referrals: Sequence[Referral], at: datetime
) -> list[Release]:
    """Decide over referrals in a few queries for all of them; return what is released, in their order."""
    people = await people_of(connection, vault, {each.person_id for each in referrals})
    facts = await facts_about(connection, people)
    rows = await connection.execute(
        select(referral.c.id, referral.c.texts).where(referral.c.id.in_([each.id for each in referrals]))
    )
    sealed = {row.id: row.texts for row in rows}
    found = []
    for each in referrals:
        kept = sealed.get(each.id)
        texts = {} if kept is None else json.loads(vault.open("referral.texts", each.id, kept))
        known, details = facts.get(each.person_id, UNKNOWN_SUBJECT), people.get(each.person_id)
        request = as_sent(each, texts.get("case"), at)
        decision = decide(request, known, policy)
        shown = None if decision.permit is None or details is None else given(details, decision.released)
        found.append(Release(each, request, decision, known, shown, texts.get("reason") or ""))
    return found


async def people_of(connection: AsyncConnection, vault: Vault, persons: Collection[UUID]) -> dict[UUID, PersonDetails]:
    """Return persons with names and identifiers decrypted, by the ids asked for; who was erased is left out.

    Somebody found to be another person is that person, with the identifiers of both.
    """
    asked = person.alias("asked")
    rows = (
        await connection.execute(
            select(asked.c.id.label("asked"), *_REF, person.c.names)
            .join(person, person.c.id == func.coalesce(asked.c.merged_into, asked.c.id))
            .where(asked.c.id.in_(persons), person.c.names.is_not(None))
        )
    ).all()
    known = await connection.execute(
        select(person_identifier)
        .where(person_identifier.c.person_id.in_({each for row in rows for each in (row.asked, row.id)}))
        .order_by(person_identifier.c.id)
    )
    identifiers: dict[UUID, list[tuple[str, str]]] = {}
    for item in known:
        value = vault.open("person_identifier.value", item.id, item.value)
        identifiers.setdefault(item.person_id, []).append((item.system, value))
    found = {}
    for row in rows:
        names = json.loads(vault.open("person.names", row.id, row.names))
        ref = PersonRef(*row[1 : len(_REF) + 1])
        theirs = [each for one in dict.fromkeys((row.id, row.asked)) for each in identifiers.get(one, ())]
        found[row.asked] = PersonDetails(ref, names["given_names"], names["surnames"], tuple(theirs))
    return found


async def facts_about(connection: AsyncConnection, people: Mapping[UUID, PersonDetails]) -> dict[UUID, SubjectFacts]:
    """Return what a decision may know of each of these persons, by the same ids."""
    stored = await facts_of(await driver_connection(connection), [details.ref.id for details in people.values()])
    return {
        known: completed(
            stored[details.ref.id],
            birth_date=details.ref.birth_date,
            deceased=details.ref.deceased_on is not None,
        )
        for known, details in people.items()
    }


async def refuse_while_stopped(
    audit: AuditLog, quorum: Quorum, event: str, *, actor: dict[str, Any], version: str, at: datetime
) -> None:
    """Raise EvidenceStopped, on record as ``event``, while the witnesses of the log are missing."""
    if quorum.stops(at):
        decision = {"effect": "deny", "reasons": [STOPPED]}
        entry = evidence.entry(event, "deny", at=at, policy_version=version, actor=actor, decision=decision)
        raise errors.EvidenceStopped(await audit.append(entry))


def given(details: PersonDetails, released: Collection[str]) -> dict[str, Any]:
    """Return the released fields of a person (``REFERRAL_FIELDS``) as JSON has them, and nothing else."""
    ref = details.ref
    whole: dict[str, Any] = {
        "identifiers": [{"system": system, "value": value} for system, value in details.identifiers],
        "given_names": details.given_names,
        "surnames": details.surnames,
        "birth_date": None if ref.birth_date is None else ref.birth_date.isoformat(),
        "sex": ref.sex,
        "department": ref.department,
        "district": ref.district,
    }
    return {name: whole[name] for name in REFERRAL_FIELDS if name in released}


def as_sent(current: Referral, case: str | None, at: datetime, fields: tuple[str, ...] = REFERRAL_FIELDS) -> Request:
    """Return the request that delivery decides: in the requester's name, as its caller was known then."""
    told = current.caller
    return Request(
        action=SEND,
        caller=Caller(
            client_id="siis-delivery",
            institution=current.requester,
            user_verified=told["user_verified"],
            roles=frozenset(told["roles"]),
            assurance=told["assurance"],
        ),
        holder=current.recipient,
        dataset=f"service:{current.service}",
        fields=fields,
        purpose=current.purpose,
        basis=current.basis,
        agreement=current.agreement,
        case=case,
        channel=told["channel"],
        at=at,
    )
