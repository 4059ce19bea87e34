"""Finds in the log what stands out of a period, for a person to look at: it accuses nobody and decides nothing.

Rules and thresholds are data (``schemas/codes/anomalies.yaml``). Entries are read person after person, so that what is
kept in memory grows with the number of users, not with the log.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from audit.activity import Deed, activity, users
from audit.keys import Epochs
from audit.models import Receipt
from audit.service import AuditLog
from audit.terms import user_term
from consent.models import Caller
from consent.roles import list_assignments
from gateway import errors, evidence
from gateway.catalogue.models import COORDINATOR
from gateway.catalogue.service import institutions
from gateway.clock import PARAGUAY, local_day
from gateway.governance.service import Governance
from gateway.registry.homes import NOBODY, Home, homes
from gateway.rights import refusals
from gateway.rights.terms import is_working_day
from gateway.vault import Vault
from schemas.codes import code_list
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_cedula
from schemas.text import _

READ = "audit.read"
_LOOKUPS = (
    "disclosure.released",
    "disclosure.unanswered",
    "disclosure.denied",
    "status.released",
    "status.denied",
)
_GLASS = ("breakglass.opened", "breakglass.used")
_TYPES = (*_LOOKUPS, *_GLASS, "referral.denied")
_SAMPLE = 20
#: So many findings of one rule are shown, the largest first; the rest are counted.
_SHOWN = 100
_PAGE = 500


class Who(NamedTuple):
    """Who acted: a user of an institution, or its system where no user is named."""

    institution: str | None
    user: str | None
    client: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to look at; ``pseudonym`` is the log's name of the one person it is about, ``usual`` what others do.

    ``entries`` are the first twenty, by time.
    """

    rule: str
    institution: str | None
    user: str | None
    client: str | None
    count: int
    entries: tuple[UUID, ...]
    pseudonym: UUID | None = None
    usual: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What stood out, and per rule how many findings are not shown; ``unreadable`` entries were erased.

    ``receipt`` is that of the entry that says who asked.
    """

    receipt: Receipt
    looked_at: int
    unreadable: int
    findings: tuple[Finding, ...]
    more: dict[str, int]


class Anomalies:
    """The report, for auditors and for whoever runs the machine."""

    def __init__(self, *, governance: Governance, audit: AuditLog, vault: Vault, epochs: Epochs) -> None:
        self._governance, self._audit, self._vault, self._epochs = governance, audit, vault, epochs

    async def read(self, caller: Caller, since: datetime, until: datetime, institution: str | None) -> Report:
        """Report for an auditor: of the coordinator on anybody, of any other institution on its own users only.

        Raises Denied, NotFound for another institution, and BadRequest for times that cannot be.
        """
        await self._governance.authorise(caller, READ)
        if caller.institution != COORDINATOR:
            if institution not in (None, caller.institution):
                raise errors.NotFound("not-found")
            institution = caller.institution
        return await self.report(since, until, institution, evidence.actor(caller))

    async def report(self, since: datetime, until: datetime, institution: str | None, actor: dict[str, Any]) -> Report:
        """Report on a period, ``until`` excluded, after the entry that says that ``actor`` asked for it.

        Raises BadRequest for times that cannot be, or an institution that the catalogue does not have.
        """
        if until <= since:
            detail = _("El final del período tiene que ser posterior al comienzo.")
            raise errors.BadRequest("bad-period", pointer="/until", detail=detail)
        if institution is not None:
            async with self._governance.database.connection() as connection:
                if institution not in (listed := await institutions(connection)):
                    raise refusals.unknown_code("/institution", listed)
        asked = {"since": since.isoformat(), "until": until.isoformat(), "institution": institution}
        receipt = await self._audit.append(
            evidence.entry(
                "log.anomalies_read",
                "done",
                at=self._governance.now(),
                policy_version="none",
                actor=actor,
                what=asked,
            )
        )
        async with self._governance.database.connection() as connection:
            sieve = _Sieve(
                institution, await self._audit.search_key(), await self._colleagues(connection, since, until)
            )
            deeds_of_all = activity(connection, self._epochs, _TYPES, since, until, institution)
            async with aclosing(deeds_of_all) as groups:
                async for deeds in groups:
                    subjects = {deed.subject for deed in deeds if deed.subject is not None}
                    at_home = await homes(connection, self._vault, subjects) if subjects else {}
                    for deed in deeds:
                        sieve.take(deed, at_home)
        return sieve.report(receipt)

    async def _colleagues(self, connection: AsyncConnection, since: datetime, until: datetime) -> frozenset[str]:
        """Return the search terms of everybody who uses the system: who did anything, and who holds a role."""
        key, found = await self._audit.search_key(), set(await users(connection, since, until))
        after: UUID | None = None
        while held := await list_assignments(connection, institution=None, at=until, after=after, limit=_PAGE):
            found.update(user_term(key, each.institution, each.user) for each in held)
            after = held[-1].id
        return frozenset(found)


@dataclass(slots=True)
class _Tally:
    """How many, and the first of them; UUIDs of version 7 sort by time."""

    count: int = 0
    entries: list[UUID] = field(default_factory=list)

    def add(self, entry_id: UUID) -> None:
        self.count += 1
        insort(self.entries, entry_id)
        del self.entries[_SAMPLE:]


class _Sieve:
    """Takes deeds person after person and keeps what the rules count."""

    def __init__(self, institution: str | None, key: bytes, colleagues: frozenset[str]) -> None:
        self._institution, self._key, self._colleagues = institution, key, colleagues
        self._rules = code_list("anomalies")
        self._by_rule: dict[str, defaultdict[Who, _Tally]] = {rule: defaultdict(_Tally) for rule in self._rules}
        self._persons: defaultdict[Who, int] = defaultdict(int)
        self._roles: dict[Who, tuple[str, ...]] = {}
        self._kept = _Kept()
        self._person: UUID | None = None
        self._seen: dict[Who, _Tally] = {}
        self._relatives: dict[str | None, bool] = {}
        self._looked_at = self._unreadable = 0

    def take(self, deed: Deed, at_home: dict[UUID, Home]) -> None:
        """Count one deed; those of one person must come together."""
        if deed.pseudonym != self._person:
            self._leave_person()
            self._person = deed.pseudonym
        if deed.groups is None:
            self._unreadable += 1
            return
        actor = deed.groups.get("actor", {})
        if self._institution is not None and actor.get("institution") != self._institution:
            return
        self._looked_at += 1
        who = Who(actor.get("institution"), actor.get("user"), None if actor.get("user") else actor.get("client"))
        why, exchange = deed.groups.get("why", {}), deed.groups.get("exchange", {})
        if deed.type in _GLASS:
            self._add("break-glass", who, deed)
            return
        if deed.outcome == "deny" or exchange.get("outcome") == "NotFound":
            self._add("refused", who, deed)
        if deed.type not in _LOOKUPS:
            return
        # An emergency has its own rule, and neither a case nor office hours.
        if not why.get("emergency"):
            if not why.get("case"):
                self._add("no-case", who, deed)
            # Systems work by night; people are asked about it.
            if who.user is not None and self._out_of_hours(deed.at):
                self._add("out-of-hours", who, deed)
        if deed.subject is not None and who.user is not None:
            self._of_person(who, tuple(actor.get("roles", ())), deed, at_home.get(deed.subject, NOBODY))

    def _of_person(self, who: Who, roles: tuple[str, ...], deed: Deed, home: Home) -> None:
        if who not in self._seen:
            self._persons[who] += 1
        self._roles[who] = roles
        self._seen.setdefault(who, _Tally()).add(deed.entry_id)
        self._by_rule["many-by-one"][who].add(deed.entry_id)
        if _cedula(who.user) in home.own:
            self._add("own-record", who, deed)
        elif self._is_relative(who.institution, home):
            self._add("colleagues-home", who, deed)

    def _is_relative(self, institution: str | None, home: Home) -> bool:
        if institution not in self._relatives:
            terms = {user_term(self._key, institution, cedula) for cedula in home.others}
            self._relatives[institution] = not terms.isdisjoint(self._colleagues)
        return self._relatives[institution]

    def _leave_person(self) -> None:
        least = self._rules["one-by-many"]["at_least"]
        if len(self._seen) >= least:
            entries = sorted(entry for tally in self._seen.values() for entry in tally.entries)[:_SAMPLE]
            found = {who.institution for who in self._seen}
            self._kept.add(
                Finding(
                    rule="one-by-many",
                    institution=found.pop() if len(found) == 1 else None,
                    user=None,
                    client=None,
                    count=len(self._seen),
                    entries=tuple(entries),
                    pseudonym=self._person,
                )
            )
        self._seen, self._relatives = {}, {}

    def report(self, receipt: Receipt) -> Report:
        """Return what the rules found; nothing is taken after it."""
        self._leave_person()
        for rule, tallies in self._by_rule.items():
            if rule != "many-by-one":
                least = self._rules[rule]["at_least"]
                self._keep(rule, ((who, tally) for who, tally in tallies.items() if tally.count >= least))
        self._many()
        order = list(self._rules)
        findings = sorted(self._kept.all(), key=lambda each: (order.index(each.rule), -each.count, each.entries))
        return Report(receipt, self._looked_at, self._unreadable, tuple(findings), self._kept.more)

    def _many(self) -> None:
        spec, tallies = self._rules["many-by-one"], self._by_rule["many-by-one"]
        peers: defaultdict[tuple[str | None, tuple[str, ...]], list[Who]] = defaultdict(list)
        for who, roles in self._roles.items():
            peers[(who.institution, roles)].append(who)
        for group in peers.values():
            counts = sorted(self._persons[who] for who in group)
            for who in group:
                count = self._persons[who]
                if count < spec["at_least"]:
                    continue
                others = counts.copy()
                others.remove(count)
                # Whoever has no peers is compared with nobody: the number alone counts.
                usual = round(median(others)) if others else 0
                if count >= spec["median"] * usual:
                    self._kept.add(_finding("many-by-one", who, count, tallies[who], usual if others else None))

    def _keep(self, rule: str, tallies: Iterable[tuple[Who, _Tally]]) -> None:
        for who, tally in tallies:
            self._kept.add(_finding(rule, who, tally.count, tally))

    def _add(self, rule: str, who: Who, deed: Deed) -> None:
        self._by_rule[rule][who].add(deed.entry_id)

    def _out_of_hours(self, at: datetime) -> bool:
        hours = self._rules["out-of-hours"]
        return not (hours["from"] <= at.astimezone(PARAGUAY).hour < hours["to"] and is_working_day(local_day(at)))


class _Kept:
    """The largest findings of each rule."""

    def __init__(self) -> None:
        self._by_rule: defaultdict[str, list[Finding]] = defaultdict(list)
        self.more: dict[str, int] = {}

    def add(self, finding: Finding) -> None:
        kept = self._by_rule[finding.rule]
        insort(kept, finding, key=lambda each: -each.count)
        if len(kept) > _SHOWN:
            kept.pop()
            self.more[finding.rule] = self.more.get(finding.rule, 0) + 1

    def all(self) -> Iterable[Finding]:
        return (finding for kept in self._by_rule.values() for finding in kept)


def _finding(rule: str, who: Who, count: int, tally: _Tally, usual: int | None = None) -> Finding:
    return Finding(rule=rule, count=count, entries=tuple(tally.entries), usual=usual, **who._asdict())


def _cedula(user: str | None) -> str | None:
    try:
        return parse_cedula(user or "")
    except InvalidIdentifier:
        return None
