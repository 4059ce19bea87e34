"""Takes what an institution says of its own services and a person without a referral: who receives them and who not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from consent.models import Actor, Caller
from gateway import errors
from gateway.catalogue.models import Service
from gateway.catalogue.service import Catalogue
from gateway.clock import local_day
from gateway.commands import Command, Done
from gateway.errors import Mistake
from gateway.governance.people import Desk, Named
from gateway.governance.service import Governance
from gateway.intake.forms_reading import given_to, read_day
from gateway.intake.forms_wording import mistake
from gateway.registry import recompute
from gateway.registry import service as registry
from gateway.registry.observations import Origin, Unit
from gateway.vault import Vault

REPORT = "fact.report"
INSTRUMENT = "institution-report"


class FactReports(Desk):
    """Where institutions report; ``caller`` is ``None`` for whoever runs this machine."""

    def __init__(self, governance: Governance, vault: Vault) -> None:
        super().__init__(governance, vault)
        self._catalogue = Catalogue(governance.database)

    async def report(
        self, caller: Caller | None, message: Mapping[str, Any], *, institution: str, command: Command | None = None
    ) -> Done:
        """Take a report that follows its schema; of a service for households it is the household that receives it.

        Raises Invalid with every mistake, Denied, and NotFound for somebody who is nobody to the caller.
        """

        async def work(connection: AsyncConnection, _actor: Actor, at: datetime) -> dict[str, Any]:
            services = await self._catalogue.services()
            days = _checked(message, services, institution, local_day(at))
            named = Named(message["subject"]["system"], message["subject"]["value"])
            who, _mandate = await self.subject(connection, caller, named, at)
            units = set()
            for each, day in zip(message["facts"], days, strict=True):
                unit = registry.unit_of(services[each["service"]], who)
                units.add(unit)
                origin = Origin(source=institution, instrument=INSTRUMENT, observed_on=day)
                await registry.record_facts(connection, {unit: {each["service"]: each["received"]}}, origin, at)
            await recompute.arrived(connection, services, **by_kind(units), at=at, because=INSTRUMENT)
            return {
                "event": "fact.reported",
                "subject": str(who.id),
                "source": institution,
                "services": [each["service"] for each in message["facts"]],
                "facts": len(days),
            }

        return await self.do(caller, REPORT, work, command)


def by_kind(units: set[Unit]) -> dict[str, list[Any]]:
    """Return units as the ones who recompute their status take them."""
    return {
        "persons": sorted(unit.id for unit in units if unit.kind == "person"),
        "households": sorted(unit.id for unit in units if unit.kind == "household"),
    }


def _checked(message: Mapping[str, Any], services: Mapping[str, Service], institution: str, today: date) -> list[date]:
    """Return the days of the facts; raises Invalid."""
    own = sorted(
        code
        for code, service in services.items()
        if service.institution == institution and not given_to(service).isdisjoint(("person", "household"))
    )
    mistakes: list[Mistake] = []
    days: list[date] = []
    for place, each in enumerate(message["facts"]):
        pointer = f"/facts/{place}"
        if each["service"] not in own:
            there = services.get(each["service"])
            rule = "unknown-service" if there is None or there.institution == institution else "foreign-service"
            mistakes.append(mistake(rule, f"{pointer}/service", own))
        found = read_day(each["observed_on"], today)
        if isinstance(found, date):
            days.append(found)
        else:
            mistakes.append(mistake(found, f"{pointer}/observed_on"))
    if mistakes:
        raise errors.Invalid("invalid-report", mistakes)
    return days
