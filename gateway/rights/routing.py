"""Decides which institutions a person's request goes to: a dataset's holder, or all that hold something of the person.

Who holds something is read of this one person (the log, facts, consents), not of agreements alone: to ask every
institution in the country would tell them all that the person asks. What cannot be decided safely waits for a person
at the coordinator: nobody known asks, a representative without a mandate, a protected case, somebody who died.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Uuid, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.affected import about
from audit.keys import Epochs
from audit.terms import parties
from consent import tables as consent_tables
from consent.models import SubjectFacts
from consent.people import is_sealed, mandate_between
from gateway.catalogue.models import COORDINATOR
from gateway.catalogue.service import institutions
from gateway.registry import service as registry
from gateway.registry.facts import subject_facts
from gateway.registry.merging import same_persons
from gateway.registry.models import PersonRef
from gateway.registry.tables import fact
from gateway.rights.models import Identifier
from gateway.vault import Vault
from schemas.codes import code_list

# Entries of these kinds tell of data that changed hands; those of a request itself make nobody a holder.
_EXCHANGES = ("disclosure.", "status.", "referral.", "counterreferral.")


@dataclass(frozen=True, slots=True)
class Asking:
    """Who is known to ask: the person, and who asks in their name; ``guarded`` cases are routed by a person only."""

    who: PersonRef
    facts: SubjectFacts
    representative: UUID | None = None

    @property
    def guarded(self) -> bool:
        """Whether a person must decide where this request may go."""
        return self.facts.sealed or self.facts.court_order or self.facts.deceased


async def identify(
    connection: AsyncConnection, vault: Vault, subject: Identifier, representative: Identifier | None, at: datetime
) -> Asking | None:
    """Return who asks, identifiers normalised; ``None`` for somebody unknown or a representative without a mandate."""
    who = await registry.find_person(connection, vault, *subject)
    if who is None:
        return None
    facts = await subject_facts(connection, who)
    if representative is None:
        return Asking(who, facts)
    other = await registry.find_person(connection, vault, *representative)
    if other is not None and other.id == who.id:
        return Asking(who, facts)
    if other is None or not await may_act(connection, who, other.id, at):
        return None
    return Asking(who, facts, other.id)


async def may_act(connection: AsyncConnection, who: PersonRef, representative: UUID, at: datetime) -> bool:
    """Say whether somebody may act for a person now: a mandate in force, and no protection against them."""
    if await is_sealed(connection, who.id):
        return False
    mandate = await mandate_between(connection, who.id, representative, birth_date=who.birth_date, at=at)
    return mandate is not None


async def destinations(
    connection: AsyncConnection, epochs: Epochs, asking: Asking, dataset: str | None
) -> frozenset[str]:
    """Return the institutions a request goes to; an institution barred from the case is replaced by the coordinator."""
    found = (
        await holders(connection, epochs, asking.who)
        if dataset is None
        else frozenset({str(code_list("datasets")[dataset]["holder"])})
    )
    barred = found & asking.facts.barred
    return (found - barred) | {COORDINATOR} if barred else found


async def holders(connection: AsyncConnection, epochs: Epochs, who: PersonRef) -> frozenset[str]:
    """Return the institutions that hold something of a person as far as we know, the coordinator included."""
    found = {COORDINATOR}
    same = await same_persons(connection, who.id)
    for each in same:
        async for kind, groups in about(connection, epochs, each):
            if kind.startswith(_EXCHANGES):
                found |= parties(groups)
    # Without a household the second half compares with NULL, and so holds for nothing.
    mine = or_(fact.c.person_id.in_(same), fact.c.household_id == literal(who.household_id, Uuid))
    found |= set(await connection.scalars(select(fact.c.source).where(mine).distinct()))
    agreement, record = consent_tables.agreement.c, consent_tables.consent_record.c
    parties_of = (
        select(agreement.document["requester"].astext, agreement.document["holder"].astext)
        .join(consent_tables.consent_record, record.agreement == agreement.code)
        .where(record.subject.in_(same), record.state.not_in(("requested", "refused")))
        .distinct()
    )
    for both in await connection.execute(parties_of):
        found |= set(both)
    return frozenset(found) & await institutions(connection)
