"""Says which services somebody may turn to, where and with what papers, asking for no more than they depend on."""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Any
from uuid import UUID

from audit.models import Receipt
from audit.service import AuditLog
from consent.models import Caller
from gateway import errors, evidence
from gateway.catalogue.models import Location, Opening, Service
from gateway.catalogue.service import Catalogue
from gateway.clock import local_day
from gateway.governance.service import Governance
from gateway.guidance.models import Advice, Description, Place
from gateway.guidance.threads import OWN
from gateway.registry import service as registry
from gateway.registry.models import PersonRef
from gateway.registry.protection import household_status, person_status
from gateway.registry.query import StatusQuery, StatusService
from gateway.vault import Vault
from schemas import geography
from schemas.codes import label
from schemas.errors import InvalidIdentifier, UnknownCode
from schemas.text import _

_PLACES = 5
_NOBODY = UUID(int=0)


class Guidance:
    """Advice for a description, for a person that an institution may ask about, or for the person who asks."""

    def __init__(
        self, *, governance: Governance, audit: AuditLog, vault: Vault, catalogue: Catalogue, statuses: StatusService
    ) -> None:
        self._governance, self._audit, self._vault = governance, audit, vault
        self._catalogue, self._statuses = catalogue, statuses

    async def describe(self, described: Description) -> list[Advice]:
        """Return the services for a description; nothing of it is kept, since it is of nobody.

        Raises BadRequest for a mark that no service asks for, a need without a route, or an unknown district.
        """
        services, routes = await self._catalogue.services(), await self._catalogue.routes()
        _require_known("/description/marks", described.marks, _marks(services.values()))
        _require_known("/description/needs", described.needs, routes)
        _require_district(described.district)
        day = local_day(self._governance.now())
        attributes = dict.fromkeys(described.marks, True)
        person = PersonRef(_NOBODY, None, _born(described.age, day), None, None, None, None, attributes)
        both = (person_status(person, services, (), day), household_status(attributes, services, (), day))
        found = {item.service: item.category for status in both for item in status.services}
        return await self._advice(found, described.needs, described.district)

    async def for_person(
        self, caller: Caller, asked: StatusQuery, district: str | None
    ) -> tuple[list[Advice], Receipt]:
        """Return the services that a person is not known to receive; to an institution it is a query of the status.

        Raises as :meth:`StatusService.query`, and BadRequest for an unknown district.
        """
        _require_district(district)
        answer, receipt = await self._statuses.query(caller, asked)
        household = answer.get("household") or {}
        listed = [*answer.get("services", ()), *household.get("services", ())]
        return await self._advice(_missing(listed), (), district), receipt

    async def for_oneself(self, caller: Caller, district: str | None) -> tuple[list[Advice], Receipt]:
        """Return the services that the person who asks is not known to receive; raises Denied, BadRequest."""
        _require_district(district)
        await self._governance.authorise(caller, OWN)
        at = self._governance.now()
        services = await self._catalogue.services()
        async with self._governance.database.connection() as connection:
            who = await registry.find_person(connection, self._vault, "siis", str(caller.person))
            if who is None:
                raise errors.NotFound("not-found")
            own, household = await registry.protection_of(connection, services, who, local_day(at))
        missing = {
            item.service: item.category
            for status in (own, household)
            if status is not None
            for item in status.services
            if item.status != "protected"
        }
        entry = evidence.entry(
            "guidance.given",
            "done",
            at=at,
            policy_version="none",
            subject=who.id,
            actor=evidence.actor(caller),
            what={"services": sorted(missing)},
        )
        receipt = await self._audit.append(entry)
        return await self._advice(missing, (), district), receipt

    async def _advice(self, found: Mapping[str, str], needs: Iterable[str], district: str | None) -> list[Advice]:
        services, routes = await self._catalogue.services(), await self._catalogue.routes()
        advice = []
        for need in sorted(needs):
            for number, step in enumerate(routes[need].steps, start=1):
                if step.service in services:
                    why = step.reason or routes[need].name
                    service = services[step.service]
                    advice.append(await self._one(service, why, district, route=need, step=number))
        for code, category in found.items():
            if code in services:
                why = label("life-cycle", category)
                advice.append(await self._one(services[code], why, district, category=category))
        return advice

    async def _one(self, service: Service, why: str, district: str | None, **where: Any) -> Advice:
        papers, items = await self._catalogue.requirements(), await self._catalogue.items()
        locations = await self._catalogue.locations(service.code, district=district)
        institution = items["institutions"][service.institution].document
        return Advice(
            service=service.code,
            name=service.name,
            institution=service.institution,
            institution_name=institution["es"],
            why=why,
            papers=tuple(papers[code].name for code in service.requirements),
            places=tuple(_places(service.code, locations)),
            response_days=service.response_days,
            **where,
        )


def _missing(listed: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    return {item["service"]: item["category"] for item in listed if item["status"] != "protected"}


def _places(service: str, locations: Iterable[Location]) -> Iterator[Place]:
    for location in list(locations)[:_PLACES]:
        offer = next(each for each in location.offers if each.service == service)
        hours = "; ".join(_hours(opening) for opening in offer.openings)
        yield Place(location.name, location.address, location.district, hours)


def _hours(opening: Opening) -> str:
    days = {
        "MO": _("lunes"),
        "TU": _("martes"),
        "WE": _("miércoles"),
        "TH": _("jueves"),
        "FR": _("viernes"),
        "SA": _("sábado"),
        "SU": _("domingo"),
    }
    order = [code for code in days if code in opening.days]
    whole = order == list(days)[list(days).index(order[0]) :][: len(order)] and len(order) > 2
    if whole:
        named = _("{first} a {last}").format(first=days[order[0]], last=days[order[-1]])
    else:
        named = ", ".join(days[code] for code in order)
    return f"{named} {opening.opens:%H:%M}–{opening.closes:%H:%M}"


def _marks(services: Iterable[Service]) -> frozenset[str]:
    return frozenset(service.requires for service in services if service.requires is not None)


def _require_known(pointer: str, given: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise errors.BadRequest("unknown-code", pointer=pointer, allowed=sorted(known))


def _require_district(code: str | None) -> None:
    if code is None:
        return
    try:
        geography.district(code)
    except (UnknownCode, InvalidIdentifier):
        raise errors.BadRequest("unknown-code", pointer="/district") from None


def _born(age: int | None, day: date) -> date | None:
    """Return a birth date that makes the age on the day."""
    if age is None:
        return None
    year = day.year - age
    leap = (day.month, day.day) == (2, 29) and not calendar.isleap(year)
    return date(year, 2, 28) if leap else day.replace(year=year)
