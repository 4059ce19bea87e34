"""Says who is protected and who is not: everybody, from the stored status, with somebody to write to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# Of a household the eldest living member stands for it.
_UNITS = text("""
SELECT s.kind, s.services, s.categories, s.applicable, s.concurrent, CASE s.kind WHEN 'person' THEN s.unit ELSE (
    SELECT p.id FROM siis.person AS p
    WHERE p.household_id = s.unit AND p.deceased_on IS NULL AND p.merged_into IS NULL
    ORDER BY p.birth_date LIMIT 1
) END AS person_id
FROM siis.status AS s WHERE s.kind IN ('person', 'household') AND s.categories <> '{}' ORDER BY s.kind, s.unit
""")


@dataclass(frozen=True, slots=True)
class Classified:
    """One unit with the status of each service; ``person_id``: the person, or one living member of the household."""

    kind: str
    person_id: UUID
    services: dict[str, str]
    concurrent: bool

    @property
    def gaps(self) -> tuple[str, ...]:
        """Codes of the applicable services that are not known to be reached."""
        return tuple(code for code, status in sorted(self.services.items()) if status != "protected")


async def classify(connection: AsyncConnection) -> AsyncIterator[Classified]:
    """Yield every person and household in the order of their ids; memory stays flat."""
    async with connection.stream(_UNITS) as result:
        async for row in result:
            services = {code: item["status"] for code, item in row.services.items()}
            concurrent = bool(row.applicable) and row.applicable == row.concurrent
            yield Classified(row.kind, row.person_id, services, concurrent)
