"""What a decision may know of a subject: coded facts of the registry joined with consents, seals and objections."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from consent import facts
from consent.models import UNKNOWN_SUBJECT, SubjectFacts
from gateway.registry.models import PersonRef


async def subject_facts(connection: AsyncConnection, who: PersonRef | None) -> SubjectFacts:
    """Return the facts for a decision; those of an unknown subject for ``None``."""
    if who is None:
        return UNKNOWN_SUBJECT
    stored = await facts.subject_facts(connection, who.id)
    return facts.completed(stored, birth_date=who.birth_date, deceased=who.deceased_on is not None)
