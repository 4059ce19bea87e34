"""Takes forms: the persons found or registered, their household and community, and everything seen of them, at once.

A form is taken whole or not at all, with its entry in the log. What it says of somebody who is known already stands
beside what others said (``gateway/registry/observations.py``); names and identifiers of theirs it does not change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
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
from gateway.intake import tables
from gateway.intake.forms_reading import INSTRUMENTS, Form, Member, read_form
from gateway.intake.forms_wording import mistake
from gateway.registry import households, recompute, stand_ins
from gateway.registry import service as registry
from gateway.registry.communities import found_community
from gateway.registry.local_ids import LOCAL, new_local_id, spoken
from gateway.registry.models import NewPerson
from gateway.registry.observations import Origin, Unit, observe
from gateway.registry.stand_ins import StandIn
from gateway.vault import Vault
from schemas.ids import uuid7

RECORD = "form.record"
#: Systems whose values nobody has that we did not give them.
_OURS = frozenset({LOCAL, "siis"})


class Forms(Desk):
    """Where forms are taken; ``caller`` is ``None`` for whoever runs this machine."""

    def __init__(self, governance: Governance, vault: Vault) -> None:
        super().__init__(governance, vault)
        self._catalogue = Catalogue(governance.database)

    async def record(
        self, caller: Caller | None, message: Mapping[str, Any], *, institution: str, command: Command | None = None
    ) -> Done:
        """Take a form that follows its schema, of an institution; the answer has the ids of all that it is about.

        Raises Invalid with every mistake, Conflict for a number that the institution gave before, and Denied. A member
        of whom the caller may not know is registered as anybody unknown is (``registry/stand_ins.py``).
        """
        try:
            done = await self._record(caller, message, institution, command)
        except IntegrityError:
            # Somebody else registered the same person or form meanwhile: now it is there to be found.
            done = await self._record(caller, message, institution, command)
        return replace(done, answer=await self._with_local_ids(done.answer))

    async def _record(
        self, caller: Caller | None, message: Mapping[str, Any], institution: str, command: Command | None
    ) -> Done:
        async def work(connection: AsyncConnection, _actor: Actor, at: datetime) -> dict[str, Any]:
            services = await self._catalogue.services()
            form = read_form(message, services, local_day(at))
            await _refuse_known(connection, institution, form)
            taking = _Taking(self, connection, caller, form, institution, at)
            return await taking.take(services)

        return await self.do(caller, RECORD, work, command)

    async def _with_local_ids(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Add the local numbers of the persons, to be handed to them; they are kept nowhere but with the person."""
        persons = [UUID(person) for person in answer.get("persons", ())]
        if not persons:
            return answer
        async with self.governance.database.connection() as connection:
            numbers = await registry.identifiers_of(connection, self.vault, persons, LOCAL)
        shown = [
            {"id": str(person)} | ({"local_id": spoken(numbers[person])} if person in numbers else {})
            for person in persons
        ]
        return {**answer, "persons": shown}


class _Taking:
    """One form being taken, in one transaction."""

    def __init__(
        self, desk: Forms, connection: AsyncConnection, caller: Caller | None, form: Form, source: str, at: datetime
    ) -> None:
        self._desk, self._connection, self._caller = desk, connection, caller
        self._form, self._source, self._at = form, source, at
        self._id, self._mistakes = uuid7(), list[Mistake]()

    async def take(self, services: Mapping[str, Service]) -> dict[str, Any]:
        """Write everything, and return what the log says of it."""
        form, connection = self._form, self._connection
        known = [await self._known(member) for member in form.members]
        homes = await households.hold(connection, [person for person in known if person is not None])
        household = await self._household(known, homes) if form.members else None
        if self._mistakes:
            raise errors.Invalid("invalid-form", self._mistakes)
        community = await found_community(
            connection, department=form.department, district=form.district, name=form.locality
        )
        if form.members and household is None:
            household = await households.new_household(connection)
        persons = await self._register(known)
        seen, received = self._said(persons, household, community)
        origin = Origin(
            source=self._source,
            instrument=INSTRUMENTS[form.kind],
            observed_on=form.observed_on,
            form_id=self._id,
        )
        await self._keep(household, community)
        observations = await observe(connection, seen, origin, self._at)
        facts = await registry.record_facts(connection, received, origin, self._at)
        await recompute.arrived(
            connection,
            dict(services),
            persons=persons,
            households=sorted({home for home in (*homes.values(), household) if home is not None}),
            communities=[community],
            at=self._at,
            because="form",
        )
        return {
            "event": "form.recorded",
            "form": str(self._id),
            "kind": form.kind,
            "source": self._source,
            "household": None if household is None else str(household),
            "community": str(community),
            "persons": [str(person) for person in persons],
            "registered": known.count(None),
            "observations": observations,
            "facts": facts,
        }

    async def _known(self, member: Member) -> UUID | None:
        """Return who a member is, None for somebody to register.

        Somebody closed to the caller is anybody unknown: found again is who was registered under their identifier.
        """
        if member.identifier is not None:
            system, value = member.identifier
            who = await self._desk.shown(self._connection, self._caller, Named(system, value), self._at)
            if who is not None:
                return who.id
            if (other := await stand_ins.find(self._connection, self._desk.vault, system, value)) is not None:
                return other
            if system in _OURS:
                self._mistakes.append(mistake("unknown-person", f"{member.pointer}/identifier/value"))
        for name in ("given_names", "surnames"):
            if getattr(member, name) is None:
                self._mistakes.append(mistake("missing-name", f"{member.pointer}/{name}"))
        return None

    async def _household(self, known: Sequence[UUID | None], homes: Mapping[UUID, UUID | None]) -> UUID | None:
        """Return the household that the form is about, None for a new one; whoever is elsewhere must have moved."""
        form = self._form
        if form.household_id is not None and not await households.exists(self._connection, form.household_id):
            self._mistakes.append(mistake("unknown-household", "/household/id"))
        # By place on the form: where those live who are known and did not move.
        staying = {
            place: home
            for place, person in enumerate(known)
            if person is not None and not form.members[place].moved and (home := homes[person]) is not None
        }
        household = form.household_id
        if household is None:
            household = await households.made_up_by(self._connection, homes.keys(), set(staying.values()))
        for place, home in staying.items():
            if home != household:
                self._mistakes.append(mistake("member-elsewhere", form.members[place].pointer))
        return household

    async def _register(self, known: Sequence[UUID | None]) -> list[UUID]:
        """Register who is not known; without a cédula they get a number of ours. Return everybody in their order."""
        persons: list[UUID] = []
        new: list[NewPerson] = []
        standing: list[tuple[StandIn, tuple[str, str]]] = []
        for member, person in zip(self._form.members, known, strict=True):
            persons.append(uuid7() if person is None else person)
            if person is None:
                own = () if member.identifier is None else (member.identifier,)
                local = () if own and own[0][0] == "cedula" else ((LOCAL, new_local_id()),)
                closed = await self._closed(member)
                if closed is not None and member.identifier is not None:
                    standing.append((StandIn(persons[-1], closed, self._id, self._at), member.identifier))
                    own = ()
                new.append(
                    NewPerson(
                        id=persons[-1],
                        given_names=member.given_names or "",
                        surnames=member.surnames or "",
                        identifiers=(*own, *local),
                    )
                )
        if new:
            await registry.register(self._connection, self._desk.vault, new)
        for each, identifier in standing:
            await stand_ins.keep(self._connection, self._desk.vault, each, *identifier)
        return persons

    async def _closed(self, member: Member) -> UUID | None:
        """Return who has the identifier of somebody to register: a person of whom the caller may not know."""
        if member.identifier is None:
            return None
        who = await self._desk.find(self._connection, Named(*member.identifier), self._caller)
        return None if who is None else who.id

    def _said(
        self, persons: Sequence[UUID], household: UUID | None, community: UUID
    ) -> tuple[dict[Unit, dict[str, str]], dict[Unit, dict[str, bool]]]:
        """Return what the form says: what is observed of each unit, and which services each receives."""
        form = self._form
        seen: dict[Unit, dict[str, str]] = {}
        received: dict[Unit, dict[str, bool]] = {}
        if form.priorities:
            seen[Unit("community", community)] = {"priorities": " ".join(form.priorities)}
        received[Unit("community", community)] = form.community_services
        if household is not None:
            home = Unit("household", household)
            seen[home] = {"district": form.district, "community": str(community), **form.household_observed}
            received[home] = form.household_services
            for member, person in zip(form.members, persons, strict=True):
                place = {"district": form.district, "household": str(household)}
                seen[Unit("person", person)] = place | member.observed
                received[Unit("person", person)] = member.services
        return seen, received

    async def _keep(self, household: UUID | None, community: UUID) -> None:
        form, sealed = self._form, None
        if form.texts:
            sealed = self._desk.vault.seal("form.texts", self._id, json.dumps(form.texts, ensure_ascii=False))
        await self._connection.execute(
            insert(tables.form).values(
                id=self._id,
                kind=form.kind,
                source=self._source,
                number=form.number,
                observed_on=form.observed_on,
                household_id=household,
                community_id=community,
                texts=sealed,
                recorded_at=self._at,
            )
        )


async def _refuse_known(connection: AsyncConnection, source: str, form: Form) -> None:
    if form.number is None:
        return
    taken = select(tables.form.c.id).where(tables.form.c.source == source, tables.form.c.number == form.number)
    if (known := await connection.scalar(taken)) is not None:
        raise errors.Conflict("form-known", form=str(known))
