"""Decides whether a form can be true: days that exist and follow each other, places of the statistics office, codes.

It looks at the message and the catalogue alone; who the members are, and where they live already, is looked at later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal
from uuid import UUID

from gateway import errors
from gateway.catalogue.models import Service
from gateway.errors import Mistake
from gateway.intake.forms_wording import mistake
from gateway.registry import service as registry
from schemas import geography
from schemas.ages import age_on
from schemas.codes import code_list
from schemas.errors import InvalidIdentifier, UnknownCode
from schemas.ids import parse_uuid

Kind = Literal["full", "simplified", "community"]
#: With which instrument a form of a kind was seen; the kinds are those of the messages ``form-KIND``.
INSTRUMENTS: dict[str, str] = {
    "full": "fips",
    "simplified": "simplified-form",
    "community": "community-priorities",
}
_SEXES = ("F", "M")
_OLDEST = 130
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a household as the form has them; ``observed`` are names and values of observations."""

    pointer: str
    identifier: tuple[str, str] | None
    given_names: str | None
    surnames: str | None
    moved: bool
    observed: dict[str, str]
    services: dict[str, bool]


@dataclass(frozen=True, slots=True)
class Form:
    """A form that can be true. ``texts`` are those that are kept encrypted."""

    kind: str
    number: str | None
    observed_on: date
    department: str
    district: str
    locality: str
    texts: dict[str, str]
    household_id: UUID | None = None
    household_observed: dict[str, str] = field(default_factory=dict)
    household_services: dict[str, bool] = field(default_factory=dict)
    members: tuple[Member, ...] = ()
    priorities: tuple[str, ...] = ()
    community_services: dict[str, bool] = field(default_factory=dict)


def read_form(message: Mapping[str, Any], services: Mapping[str, Service], today: date) -> Form:
    """Return the form of a message that follows its schema; raises Invalid with every mistake there is in it."""
    reading = _Reading(services, today)
    form = reading.form(message)
    if reading.mistakes or form is None:
        raise errors.Invalid("invalid-form", reading.mistakes)
    return form


def read_day(text: str, today: date) -> date | str:
    """Return a day (``yyyy-mm-dd``) that is not ahead, or the rule that the text breaks."""
    try:
        found = date.fromisoformat(text) if _DATE.match(text) else None
    except ValueError:
        found = None
    if found is None:
        return "not-a-date"
    return "in-the-future" if found > today else found


class _Reading:
    """One reading of a form, with the mistakes found so far."""

    def __init__(self, services: Mapping[str, Service], today: date) -> None:
        self._services, self._today = services, today
        self.mistakes: list[Mistake] = []

    def form(self, message: Mapping[str, Any]) -> Form | None:
        observed_on = self._day(message["observed_on"], "/observed_on")
        department, district = self._place(message["place"])
        home = message.get("household", {})
        household_id = self._household(home.get("id"))
        of_home = self._characteristics(home.get("characteristics", {}), "household", "/household/characteristics")
        services_of_home = self._received(home.get("services", {}), "household", "/household/services")
        members = tuple(self._members(message, observed_on))
        priorities = tuple(self._priorities(message.get("priorities", ())))
        community_services = self._received(message.get("services", {}), "community", "/services")
        if observed_on is None:
            return None
        texts = {"address": message["place"].get("address"), "notes": message.get("notes")}
        return Form(
            kind=message["kind"],
            number=message.get("number"),
            observed_on=observed_on,
            department=department,
            district=district,
            locality=message["place"]["locality"],
            texts={name: text for name, text in texts.items() if text},
            household_id=household_id,
            household_observed=of_home,
            household_services=services_of_home,
            members=members,
            priorities=priorities,
            community_services=community_services,
        )

    def _day(self, text: str, pointer: str) -> date | None:
        found = read_day(text, self._today)
        if isinstance(found, date):
            return found
        self._wrong(found, pointer)
        return None

    def _wrong(self, rule: str, pointer: str, allowed: Any = ()) -> None:
        self.mistakes.append(mistake(rule, pointer, allowed))

    def _place(self, place: Mapping[str, Any]) -> tuple[str, str]:
        department, district = place["department"], place["district"]
        try:
            there = [item.ine for item in geography.districts(department)]
        except (InvalidIdentifier, UnknownCode):
            rule = "tax-authority-code" if _of_tax_authority(department, "departments") else "unknown-department"
            self._wrong(rule, "/place/department", [item.ine for item in geography.departments()])
            return department, district
        if district not in there:
            self._wrong(_district_rule(district), "/place/district", there)
        return department, district

    def _household(self, text: str | None) -> UUID | None:
        try:
            return None if text is None else parse_uuid(text)
        except InvalidIdentifier:
            self._wrong("unknown-household", "/household/id")
            return None

    def _members(self, message: Mapping[str, Any], observed_on: date | None) -> Iterator[Member]:
        if "members" in message and not message["members"]:
            self._wrong("no-members", "/members")
        before: set[tuple[str, str]] = set()
        for place, member in enumerate(message.get("members", ())):
            pointer = f"/members/{place}"
            identifier = self._identifier(member.get("identifier"), pointer)
            if identifier is not None and identifier in before:
                self._wrong("twice-on-the-form", f"{pointer}/identifier/value")
            before |= {identifier} if identifier is not None else set()
            observed = self._characteristics(member.get("characteristics", {}), "person", f"{pointer}/characteristics")
            yield Member(
                pointer=pointer,
                identifier=identifier,
                given_names=_whole(member.get("given_names")),
                surnames=_whole(member.get("surnames")),
                moved=member.get("moved", False),
                observed=observed | self._life(member, pointer, observed_on) | self._codes(member, pointer),
                services=self._received(member.get("services", {}), "person", f"{pointer}/services"),
            )

    def _identifier(self, given: Mapping[str, str] | None, pointer: str) -> tuple[str, str] | None:
        if given is None:
            return None
        try:
            return given["system"], registry.normalise(given["system"], given["value"])
        except InvalidIdentifier:
            self._wrong("bad-identifier", f"{pointer}/identifier/value")
            return None

    def _life(self, member: Mapping[str, Any], pointer: str, observed_on: date | None) -> dict[str, str]:
        days = {
            name: self._day(member[name], f"{pointer}/{name}")
            for name in ("birth_date", "deceased_on")
            if name in member
        }
        born, died = days.get("birth_date"), days.get("deceased_on")
        if born is not None and observed_on is not None:
            if born > observed_on:
                self._wrong("born-later", f"{pointer}/birth_date")
            elif age_on(born, observed_on) > _OLDEST:
                self._wrong("impossible-age", f"{pointer}/birth_date")
        if born is not None and died is not None and died < born:
            self._wrong("died-before-birth", f"{pointer}/deceased_on")
        return {name: day.isoformat() for name, day in days.items() if day is not None}

    def _codes(self, member: Mapping[str, Any], pointer: str) -> dict[str, str]:
        for name, allowed in (("sex", _SEXES), ("relation", tuple(code_list("relations")))):
            if name in member and member[name] not in allowed:
                self._wrong("unknown-code", f"{pointer}/{name}", allowed)
        return {name: member[name] for name in ("sex", "relation") if name in member}

    def _characteristics(self, given: Mapping[str, bool], unit: str, pointer: str) -> dict[str, str]:
        allowed = [code for code, spec in code_list("characteristics").items() if spec["unit"] == unit]
        for code in given:
            if code not in allowed:
                self._wrong("unknown-code", f"{pointer}/{code}", allowed)
        return {code: "true" if applies else "false" for code, applies in given.items()}

    def _received(self, given: Mapping[str, bool], unit: str, pointer: str) -> dict[str, bool]:
        allowed = [code for code, service in self._services.items() if unit in given_to(service)]
        for code in given:
            if code not in allowed:
                self._wrong("unknown-service", f"{pointer}/{code}", allowed)
        return dict(given)

    def _priorities(self, given: Any) -> Iterator[str]:
        for place, code in enumerate(given):
            if code not in self._services:
                self._wrong("unknown-service", f"/priorities/{place}", self._services)
            elif code in given[:place]:
                self._wrong("twice-in-the-list", f"/priorities/{place}")
            yield code


def given_to(service: Service) -> frozenset[str]:
    """Return the kinds of unit to which a service is given: what is given to no category is given to persons."""
    shared = service.categories & {"household", "community"}
    return shared | ({"person"} if service.categories - shared or not shared else frozenset())


def _district_rule(code: str) -> str:
    try:
        geography.district(code)
    except (InvalidIdentifier, UnknownCode):
        return "tax-authority-code" if _of_tax_authority(code, "districts") else "unknown-district"
    return "district-of-another-department"


def _of_tax_authority(code: str, places: Literal["departments", "districts"]) -> bool:
    translate = geography.translate_department if places == "departments" else geography.translate_district
    try:
        translate(code, "sifen", "ine")
    except (InvalidIdentifier, UnknownCode):
        return False
    return True


def _whole(text: str | None) -> str | None:
    """Return a name with single blanks, None where there is nothing of it."""
    return " ".join(text.split()) or None if text is not None else None
