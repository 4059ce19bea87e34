"""Decides who may search the log and which entries they see; every search is itself an entry before anything is shown.

Auditors of the coordinator see all entries, those of any other institution the entries it is party to.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from audit.errors import SubjectErased
from audit.keys import Epochs
from audit.models import OUTCOMES, Receipt
from audit.search import Criteria, Cursor, Page, is_about, pseudonym_of, search
from audit.service import AuditLog
from audit.terms import term, user_term
from consent.models import SERVICE_PREFIX, Caller
from gateway import errors, evidence
from gateway.catalogue.models import COORDINATOR
from gateway.catalogue.service import institutions, services
from gateway.governance.service import Governance
from gateway.registry import service as registry
from gateway.registry.lookup import SubjectLookup
from schemas.codes import code_list
from schemas.errors import InvalidIdentifier
from schemas.text import _

READ = "audit.read"
# No entry has this pseudonym: what is asked about somebody unknown takes the same way and finds nothing.
_NOBODY = UUID(int=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which entries an auditor asks for; all that is given must hold.

    ``institution`` is party to the entry in any part; ``user`` is one of that institution's; ``subject`` is an
    identifier's system and value; ``since`` is included, ``until`` excluded.
    """

    institution: str | None = None
    user: str | None = None
    purpose: str | None = None
    basis: str | None = None
    dataset: str | None = None
    referral: str | None = None
    outcome: str | None = None
    type: str | None = None
    withheld: str | None = None
    subject: tuple[str, str] | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Reader:
    """An authorised reading: who reads, what they asked for as the log says it, about whom, and the receipt of it."""

    actor: dict[str, Any]
    said: dict[str, Any]
    subject: UUID | None
    criteria: Criteria
    receipt: Receipt


class Auditing:
    """The log for auditors, and for whoever runs the machine (``caller`` is ``None``), who sees everything."""

    def __init__(self, *, governance: Governance, audit: AuditLog, epochs: Epochs, subjects: SubjectLookup) -> None:
        self.governance, self.audit, self.epochs, self._subjects = governance, audit, epochs, subjects

    async def search(
        self, caller: Caller | None, asked: Asked, *, after: Cursor | None, limit: int
    ) -> tuple[Page, Receipt]:
        """Return a page of entries (:func:`audit.search.search`) and the receipt of the search's own entry.

        Raises Denied; BadRequest for codes that do not exist, with those that do.
        """
        reader = await self.reader(caller, asked, {"after": None if after is None else list(after), "limit": limit})
        async with self.governance.database.connection() as connection:
            page = await search(connection, self.epochs, reader.criteria, after=after, limit=limit)
        return page, reader.receipt

    async def reader(self, caller: Caller | None, asked: Asked, more: dict[str, Any]) -> Reader:
        """Authorise a reading and put it on record, with ``more`` beside its criteria; raises as :meth:`search`."""
        if caller is not None:
            await self.governance.authorise(caller, READ)
        await self._require_codes(asked)
        limited = None if caller is None or caller.institution == COORDINATOR else caller.institution
        terms = await self._terms(caller, asked, limited)
        person = None if asked.subject is None else await self._person(asked.subject)
        pseudonym = None if asked.subject is None else await self._pseudonym(person)
        if pseudonym is not None and limited is not None and not await self._is_party(limited, pseudonym):
            # The auditor sees this entry too: what it says of a person the institution has nothing on must be the
            # same whoever that is, known to others or to nobody.
            person = None
        actor = _machine() if caller is None else evidence.actor(caller)
        said = _said(asked, terms)
        if asked.subject is not None:
            said["subject"] = "unknown" if person is None else "known"
        subject = person
        try:
            receipt = await self._record(actor, said, subject, more)
        except SubjectErased:
            # What is left of an erased person can be looked at; nothing about them can be written any more.
            subject, said["subject"] = None, "erased"
            receipt = await self._record(actor, said, None, more)
        criteria = Criteria(terms=terms, since=asked.since, until=asked.until, pseudonym=pseudonym)
        return Reader(actor, said, subject, criteria, receipt)

    async def _terms(self, caller: Caller | None, asked: Asked, limited: str | None) -> frozenset[str]:
        named = ("purpose", "basis", "dataset", "referral", "outcome", "type", "withheld")
        terms = {term(name, value) for name in named if (value := getattr(asked, name)) is not None}
        terms |= {term("party", code) for code in (asked.institution, limited) if code is not None}
        if asked.user is not None:
            institution = asked.institution or limited
            if institution is None and caller is not None:
                detail = _("Diga de qué institución es el usuario.")
                raise errors.BadRequest("user-without-institution", pointer="/criteria/institution", detail=detail)
            terms.add(user_term(await self.audit.search_key(), institution, asked.user))
        return frozenset(terms)

    async def _require_codes(self, asked: Asked) -> None:
        async with self.governance.database.connection() as connection:
            known_institutions = await institutions(connection)
            # A service that is no longer offered still stands in old entries.
            offered = {*code_list("services"), *await services(connection)}
        datasets = [*code_list("datasets"), *(SERVICE_PREFIX + service for service in offered)]
        lists: dict[str, Iterable[str]] = {
            "institution": known_institutions,
            "purpose": code_list("purposes"),
            "basis": code_list("legal-bases"),
            "dataset": datasets,
            "outcome": OUTCOMES,
            "withheld": code_list("withheld-reasons"),
        }
        for name, allowed in lists.items():
            if getattr(asked, name) not in (None, *allowed):
                raise errors.BadRequest("unknown-code", pointer=f"/criteria/{name}", allowed=sorted(allowed))
        if asked.since is not None and asked.until is not None and asked.until <= asked.since:
            detail = _("El final del período tiene que ser posterior al comienzo.")
            raise errors.BadRequest("bad-period", pointer="/criteria/until", detail=detail)

    async def _person(self, named: tuple[str, str]) -> UUID | None:
        system, value = named
        try:
            who, _facts = await self._subjects.find(system, registry.normalise(system, value))
        except InvalidIdentifier:
            raise errors.BadRequest("bad-identifier", pointer="/criteria/subject/value") from None
        return None if who is None else who.id

    async def _pseudonym(self, person: UUID | None) -> UUID:
        # The same queries for somebody unknown, so that the time does not tell them apart.
        async with self.governance.database.connection() as connection:
            return await pseudonym_of(connection, person or _NOBODY) or _NOBODY

    async def _is_party(self, institution: str, pseudonym: UUID) -> bool:
        async with self.governance.database.connection() as connection:
            return await is_about(connection, pseudonym, [term("party", institution)])

    async def _record(
        self, actor: dict[str, Any], said: dict[str, Any], subject: UUID | None, more: dict[str, Any]
    ) -> Receipt:
        entry = evidence.entry(
            "log.searched",
            "done",
            at=self.governance.now(),
            policy_version="none",
            subject=subject,
            actor=actor,
            what={"criteria": said, **more},
        )
        return await self.audit.append(entry)


def _machine() -> dict[str, Any]:
    return {"channel": "command-line", "user": f"uid:{os.getuid()}"}


def _said(asked: Asked, terms: frozenset[str]) -> dict[str, Any]:
    """Return the criteria as the log keeps them: terms and times, a user as the keyed term, a person not at all."""
    period = {"since": asked.since, "until": asked.until}
    return {"terms": sorted(terms)} | {name: at.isoformat() for name, at in period.items() if at is not None}
