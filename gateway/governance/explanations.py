"""Says to those entitled why something was decided: a past request, by its entry in the log, or a supposed one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from audit.keys import Epochs
from audit.models import Receipt
from audit.search import one
from audit.service import AuditLog
from consent.decision import decide
from consent.explain import Line, account_logged, account_of, explain
from consent.models import FETCH, Caller, EmergencyClaim, Request, SubjectFacts
from consent.policy import PolicyStore
from consent.volume import Volume
from gateway import errors, evidence
from gateway.catalogue.models import COORDINATOR
from gateway.clock import utc_now
from gateway.database import Database
from gateway.governance.service import Governance
from gateway.lawful import require_codes
from gateway.registry import service as registry
from gateway.registry.lookup import SubjectLookup
from schemas.codes import code_list
from schemas.errors import InvalidIdentifier

EXPLAIN, OWN = "decision.explain", "own.explain"
AUDITOR = "auditor"
# Somebody of whom nothing stands in the way, for a question that names nobody.
_ANYBODY = SubjectFacts(subject=UUID(int=1), birth_date=date(1990, 1, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Supposed:
    """A request that nobody made: who would ask what of whom; ``subject`` an identifier's system and value."""

    institution: str
    roles: frozenset[str]
    assurance: int
    dataset: str
    fields: tuple[str, ...]
    purpose: str
    basis: str
    subject: tuple[str, str] | None = None
    agreement: str | None = None
    on_behalf_of: str | None = None
    emergency: EmergencyClaim | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What was decided and why; ``entry`` is that of the request explained, ``receipt`` that of the explanation."""

    effect: str
    lines: list[Line]
    entry: UUID | None
    receipt: Receipt


class Explanations:
    """Explains decisions; every explanation is an entry of the log before it leaves."""

    def __init__(
        self,
        *,
        database: Database,
        epochs: Epochs,
        audit: AuditLog,
        policies: PolicyStore,
        volume: Volume,
        subjects: SubjectLookup,
        governance: Governance,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database, self._epochs, self._audit, self._policies = database, epochs, audit, policies
        self._volume, self._subjects, self._governance, self._now = volume, subjects, governance, now

    async def of_entry(self, caller: Caller | None, entry_id: UUID) -> Explanation:
        """Explain a decision of the past; ``caller`` is None for whoever runs this machine.

        Officers see those of their institution, as requester or holder, auditors all, a person their own as long as no
        protection stands. Raises Denied, and NotFound for an entry that is none of theirs or records no decision.
        """
        if caller is not None:
            await self._governance.authorise(caller, EXPLAIN, OWN)
        async with self._database.connection() as connection:
            found = await one(connection, self._epochs, entry_id)
        account = None if found is None or found[0].detail is None else account_logged(found[0].detail)
        if found is None or account is None:
            raise errors.NotFound("not-found")
        logged, subject = found
        if caller is not None and caller.person is not None:
            await self._require_own(caller.person, subject)
        elif caller is not None:
            self._require_party(caller, account.requester, account.holder)
        receipt = await self._record(caller, subject, {"entry": str(entry_id)})
        return Explanation(
            effect=str(logged.envelope["outcome"]), lines=explain(account), entry=entry_id, receipt=receipt
        )

    async def of_request(self, caller: Caller | None, supposed: Supposed) -> Explanation:
        """Explain what would be decided now; raises BadRequest, Denied, or NotFound for parties that are not theirs."""
        dataset = code_list("datasets").get(supposed.dataset)
        if dataset is None or dataset.get("internal"):
            raise errors.BadRequest("unknown-dataset", pointer="/dataset", allowed=code_list("datasets"))
        for place, name in enumerate(supposed.fields):
            if name not in dataset["fields"]:
                raise errors.BadRequest("unknown-field", pointer=f"/fields/{place}", allowed=dataset["fields"])
        require_codes(supposed.purpose, supposed.basis)
        if caller is not None:
            await self._governance.authorise(caller, EXPLAIN)
            self._require_party(caller, supposed.on_behalf_of or supposed.institution, dataset["holder"])
            if supposed.subject is not None and not self._oversees(caller):
                # Parties explain what was decided; trying it on anybody would tell who is under protection.
                raise errors.NotFound("not-found")
        facts = await self._facts(supposed.subject)
        request = _request(supposed, dataset["holder"], self._now())
        decision = decide(request, facts, self._policies.current, self._volume.used)
        what: dict[str, Any] = {"dataset": supposed.dataset, "asked": sorted(supposed.fields), "supposed": True}
        receipt = await self._record(caller, None if facts is _ANYBODY else facts.subject, what)
        # The permit of a question that nobody asked ends here, unused.
        return Explanation(
            effect=decision.effect, lines=explain(account_of(request, decision)), entry=None, receipt=receipt
        )

    async def _facts(self, subject: tuple[str, str] | None) -> SubjectFacts:
        if subject is None:
            return _ANYBODY
        system, value = subject
        try:
            _who, facts = await self._subjects.find(system, registry.normalise(system, value))
        except InvalidIdentifier:
            raise errors.BadRequest("bad-identifier", pointer="/subject/value") from None
        return facts

    def _require_party(self, caller: Caller, requester: str, holder: str) -> None:
        if caller.institution not in (requester, holder) and not self._oversees(caller):
            raise errors.NotFound("not-found")

    def _oversees(self, caller: Caller) -> bool:
        """Say whether a caller is an auditor of the coordinator: those of a party are appointed by its own officer."""
        return caller.institution == COORDINATOR and AUDITOR in self._governance.roles_of(caller)

    async def _require_own(self, person: UUID, subject: UUID | None) -> None:
        if subject != person:
            raise errors.NotFound("not-found")
        _who, facts = await self._subjects.find("siis", str(person))
        # Whoever a case is protected from may hold the person's token; the hiding is told by the denial's absence only.
        if facts.sealed or facts.court_order or facts.barred:
            raise errors.NotFound("not-found")

    async def _record(self, caller: Caller | None, subject: UUID | None, what: dict[str, Any]) -> Receipt:
        actor = {"channel": "command-line"} if caller is None else evidence.actor(caller)
        entry = evidence.entry(
            "decision.explained",
            "done",
            at=self._now(),
            policy_version=self._policies.current.version,
            subject=subject,
            actor=actor,
            what=what,
        )
        return await self._audit.append(entry)


def _request(supposed: Supposed, holder: str, at: datetime) -> Request:
    caller = Caller(
        client_id="supposed",
        institution=supposed.institution,
        user="supposed",
        user_verified=supposed.assurance > 1,
        roles=supposed.roles,
        assurance=supposed.assurance,
        authenticated_at=at,
    )
    return Request(
        action=FETCH,
        caller=caller,
        holder=holder,
        dataset=supposed.dataset,
        fields=supposed.fields,
        purpose=supposed.purpose,
        basis=supposed.basis,
        agreement=supposed.agreement,
        on_behalf_of=supposed.on_behalf_of,
        emergency=supposed.emergency,
        at=at,
    )
