"""The disclosure journey: decide, record the intent, ask the producer, record the disclosure, release.

Nothing leaves before its entry is committed, and no producer is asked before the intent is (DESIGN 3 and 9.1).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any, NoReturn
from uuid import UUID

import orjson

from adapters.models import (
    Adapter,
    EntryReceipt,
    FetchOutcome,
    Found,
    Identifier,
    Malformed,
    NotFound,
    Rejected,
    Unavailable,
)
from adapters.registry import Adapters
from audit.models import Receipt
from audit.service import AuditLog
from consent.decision import decide, may_break_glass
from consent.errors import EmergencyEnded
from consent.models import (
    AUDIT_BEFORE_RELEASE,
    NO_ONWARD_SHARING,
    NOTIFY_OFFICER,
    NOTIFY_SUBJECT,
    RETENTION,
    REVIEW_DUE,
    WATERMARK,
    Caller,
    Decision,
    EmergencyClaim,
    Request,
    SubjectFacts,
)
from consent.policy import PolicyStore
from consent.volume import Volume
from gateway import errors, evidence
from gateway.clock import local_day, utc_now
from gateway.database import Database
from gateway.governance.emergencies import open_emergency
from gateway.lawful import require_codes
from gateway.registry import service as registry
from gateway.registry.lookup import SubjectLookup
from gateway.registry.models import PersonRef
from gateway.witnesses.quorum import NO_WITNESSES, Quorum, refuse_while_stopped
from schemas.canonical import sha256
from schemas.codes import code_list
from schemas.errors import InvalidIdentifier
from schemas.permit import Permit
from schemas.reduction import reduced

# Until a producer said so once.
_USUAL_NOT_FOUND_S = 0.02
# The obligations this journey keeps; a decision with another one is carried out as a denial.
_KEPT = frozenset(
    {AUDIT_BEFORE_RELEASE, NO_ONWARD_SHARING, RETENTION, WATERMARK, NOTIFY_OFFICER, NOTIFY_SUBJECT, REVIEW_DUE}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DisclosureRequest:
    """A request as the caller wrote it, already checked against its schema."""

    system: str
    identifier: str
    dataset: str
    fields: tuple[str, ...]
    purpose: str
    basis: str
    agreement: str | None
    case: str | None
    correlation: str | None
    #: What the person showed, to be matched at the source; it goes to the producer and nowhere else.
    presented: Mapping[str, str] = field(default_factory=dict)
    on_behalf_of: str | None = None
    emergency: EmergencyClaim | None = None
    #: SHA-256 of the request as it was received.
    digest: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """What is released: facts by field, neutral codes of the withheld fields, the source, and the receipt."""

    dataset: str
    facts: dict[str, Any]
    withheld: tuple[str, ...]
    outcome: Found
    obligations: tuple[str, ...]
    receipt: Receipt
    reduced: Mapping[str, str] = field(default_factory=dict)
    retain_until: date | None = None


class Exchange:
    """Carries out disclosures over the rooms below."""

    def __init__(
        self,
        *,
        database: Database,
        subjects: SubjectLookup,
        audit: AuditLog,
        policies: PolicyStore,
        volume: Volume,
        adapters: Adapters,
        public_address: str,
        quorum: Quorum = NO_WITNESSES,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """``public_address`` is where producers find the proofs of the receipts they get."""
        self._database, self._subjects, self._audit, self._volume = database, subjects, audit, volume
        self._policies, self._adapters, self._quorum, self._now = policies, adapters, quorum, now
        self._public_address = public_address
        # By dataset: a register held here says no far sooner than a system far away does.
        self._not_found_times: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=64))
        # How the last question of each dataset failed: who is refused for the person's sake is told the same.
        self._failing: dict[str, tuple[str, float | None]] = {}

    async def disclose(self, caller: Caller, asked: DisclosureRequest, *, adapter: Adapter | None = None) -> Disclosure:
        """Answer a request for facts about one person, from one adapter only if it is given.

        Raises :class:`~gateway.errors.BadRequest`, ``Denied``, ``NotFound``, ``ProducerFailed`` or
        ``EvidenceStopped``; every one of them, and the answer, has its entry in the log before it leaves.
        AuditUnavailable when the log cannot be written.
        """
        started = time.monotonic()
        dataset = code_list("datasets").get(asked.dataset)
        if dataset is None or dataset.get("internal"):
            external = [code for code, spec in code_list("datasets").items() if not spec.get("internal")]
            raise errors.BadRequest("unknown-dataset", pointer="/dataset", allowed=external)
        for place, name in enumerate(asked.fields):
            if name not in dataset["fields"]:
                raise errors.BadRequest("unknown-field", pointer=f"/fields/{place}", allowed=dataset["fields"])
        for name in asked.presented:
            if name not in dataset.get("presents", ()):
                allowed = dataset.get("presents", ())
                raise errors.BadRequest("unknown-field", pointer=f"/presented/{name}", allowed=allowed)
        require_codes(asked.purpose, asked.basis)
        reasons = code_list("emergency-reasons")
        if asked.emergency is not None and asked.emergency.reason not in reasons:
            raise errors.BadRequest("unknown-code", pointer="/emergency/reason", allowed=reasons)
        if adapter is not None and asked.dataset not in adapter.datasets | adapter.registers:
            raise errors.BadRequest("dataset-not-connected", pointer="/dataset")
        sources = self._adapters.holding(asked.dataset)
        if adapter is not None:
            # Its own system, or the register taken of it.
            sources = tuple(source for source in sources if source.name == adapter.name)
        if not sources:
            raise errors.BadRequest("dataset-not-connected", pointer="/dataset")
        identifier = _identifier(asked)
        request = _request(caller, asked, dataset["holder"], self._now())
        # Before anything depends on the person, so that the stop tells nothing about anybody.
        stopped = self._quorum.stops(request.at)
        if stopped and not may_break_glass(request, self._policies.current):
            version = self._policies.current.version
            await refuse_while_stopped(self._audit, "disclosure.stopped", request, version, asked.correlation)
        who, facts = await self._subjects.find(identifier.system, identifier.value)
        # What passes the stop is an emergency, with its notices and review, even where an agreement would have done.
        decision = decide(request, facts, self._policies.current, self._volume.used, only_emergency=stopped)
        if decision.permit is None or not _KEPT.issuperset(decision.obligations):
            await self._refuse(request, decision, facts, asked.correlation, started)
        known_by = await self._known_by(sources[0], request.dataset, who, identifier)
        if known_by is None:
            await self._refuse(request, decision, facts, asked.correlation, started)
        return await self._ask(request, decision, decision.permit, who, facts, known_by, asked, started, sources)

    async def _known_by(
        self, source: Adapter, dataset: str, who: PersonRef | None, identifier: Identifier
    ) -> Identifier | None:
        """Return the identifier the source knows the person by: the one asked with, or another one registered here."""
        system = source.asks_by(dataset)
        if identifier.system == system or who is None:
            return identifier if identifier.system == system else None
        value = await self._subjects.other_identifier(who.id, system)
        return None if value is None else Identifier(system, value)

    async def _ask(
        self,
        request: Request,
        decision: Decision,
        permit: Permit | None,
        who: PersonRef | None,
        facts: SubjectFacts,
        identifier: Identifier | None,
        asked: DisclosureRequest,
        started: float,
        sources: tuple[Adapter, ...],
    ) -> Disclosure:
        if permit is None or identifier is None:
            raise TypeError("nobody is asked without a permit and an identifier")
        self._volume.count(decision)
        glass = None
        if decision.emergency:
            glass = await self._break_glass(request, decision, facts, asked.correlation, started)
        entry = partial(
            evidence.decided,
            request=request,
            decision=decision,
            subject=None if who is None else who.id,
            facts=facts,
            emergency=glass,
            correlation=asked.correlation,
        )
        received = {} if asked.digest is None else {"request_sha256": asked.digest.hex()}
        intent = entry("disclosure.intent", exchange=received)
        receipt = evidence.to_hand_over(await self._audit.append(intent), self._public_address)
        outcome, protocol, silent = await self._fetch(permit, identifier, asked.presented, sources, receipt)
        self._note(request.dataset, outcome)
        exchange = {"intent": str(intent.id), **received, **_told(outcome, protocol)}
        if silent:
            # They were told whom it is about, whether they answered or not.
            exchange["asked_before"] = silent
        if not isinstance(outcome, Found):
            failed = await self._audit.append(entry("disclosure.unanswered", outcome="failed", exchange=exchange))
            if isinstance(outcome, NotFound):
                self._not_found_times[request.dataset].append(time.monotonic() - started)
                raise errors.NotFound("not-found", receipt=failed, source=outcome.provenance)
            raise errors.ProducerFailed(*_failure(outcome), receipt=failed)
        today = local_day(request.at)
        released = {
            name: reduced(decision.treatments.get(name, "keep"), outcome.facts.get(name), today)
            for name in request.fields
            if name in decision.released
        }
        exchange["facts_sha256"] = sha256(orjson.dumps(released, option=orjson.OPT_SORT_KEYS)).hex()
        return Disclosure(
            dataset=request.dataset,
            facts=released,
            withheld=tuple(name for name in request.fields if name not in decision.released),
            outcome=outcome,
            obligations=decision.obligations,
            receipt=await self._audit.append(entry("disclosure.released", exchange=exchange)),
            reduced=decision.treatments,
            retain_until=None if decision.retention_days is None else today + timedelta(days=decision.retention_days),
        )

    async def _break_glass(
        self, request: Request, decision: Decision, facts: SubjectFacts, correlation: str | None, started: float
    ) -> UUID:
        """Commit the emergency with its notices and entry before anybody is asked; return the entry's id."""
        try:
            async with self._database.transaction() as connection:
                opened = await open_emergency(connection, self._audit, request, decision, facts, correlation)
            return opened.entry_id
        except EmergencyEnded:
            # Its day ended, or a verdict came, since the facts were read.
            await self._refuse(request, decision, facts, correlation, started)

    def _note(self, dataset: str, outcome: FetchOutcome) -> None:
        """Remember whether the source of a dataset answers at all."""
        if isinstance(outcome, Unavailable | Malformed):
            self._failing[dataset] = _failure(outcome)
        else:
            self._failing.pop(dataset, None)

    async def _fetch(
        self,
        permit: Permit,
        identifier: Identifier,
        presented: Mapping[str, str],
        sources: tuple[Adapter, ...],
        receipt: EntryReceipt,
    ) -> tuple[FetchOutcome, str, list[str]]:
        """Ask one source after the other; return the last outcome, the protocol it came by, and the names of those that
        were silent before.
        """
        silent: list[str] = []
        asked = sources[0]
        outcome = await asked.fetch(permit, permit.dataset, identifier, presented, receipt=receipt)
        for adapter in sources[1:]:
            # Only silence passes the question on: an answer, even a refusal, is the source's answer.
            if not isinstance(outcome, Unavailable):
                break
            silent.append(outcome.provenance.adapter)
            asked = adapter
            outcome = await asked.fetch(permit, permit.dataset, identifier, presented, receipt=receipt)
        return outcome, asked.kind, silent

    async def _refuse(
        self, request: Request, decision: Decision, facts: SubjectFacts, correlation: str | None, started: float
    ) -> NoReturn:
        denied = evidence.decided(
            "disclosure.denied",
            request,
            decision,
            subject=facts.subject,
            facts=facts,
            correlation=correlation,
        )
        # A permit without an identifier the source knows ends here too, and looks like any person not found.
        if decision.permit is None and not decision.hides_subject:
            raise errors.Denied(decision.reasons, await self._audit.append(denied))
        # A person really not found leaves two entries, and the size of the log is there for everybody to read.
        concealed = evidence.entry(
            "disclosure.concealed",
            "done",
            at=request.at,
            policy_version=decision.policy_version,
            subject=facts.subject,
            correlation=correlation,
            actor=evidence.actor(request.caller),
            what={"holder": request.holder, "dataset": request.dataset},
            decision={"id": str(decision.id)},
        )
        [receipt, _second] = await self._audit.append_many([denied, concealed])
        failing = self._failing.get(request.dataset)
        if failing is not None:
            raise errors.ProducerFailed(*failing, receipt=receipt)
        # The answer takes as long as a producer's "not found" lately took, so the clock tells nothing either.
        lately = self._not_found_times[request.dataset] or (_USUAL_NOT_FOUND_S,)
        pause = random.choice(lately) - (time.monotonic() - started)  # noqa: S311
        await asyncio.sleep(max(pause, 0.0))
        raise errors.NotFound("not-found", receipt=receipt)


def _failure(outcome: FetchOutcome) -> tuple[str, float | None]:
    return type(outcome).__name__.lower(), getattr(outcome, "retry_after_s", None)


def _identifier(asked: DisclosureRequest) -> Identifier:
    try:
        return Identifier(asked.system, registry.normalise(asked.system, asked.identifier))
    except InvalidIdentifier:
        raise errors.BadRequest("bad-identifier", pointer="/subject/value") from None


def _request(caller: Caller, asked: DisclosureRequest, holder: str, at: datetime) -> Request:
    return Request(
        action="disclosure.fetch",
        caller=caller,
        holder=holder,
        dataset=asked.dataset,
        fields=asked.fields,
        purpose=asked.purpose,
        basis=asked.basis,
        agreement=asked.agreement,
        case=asked.case,
        at=at,
        on_behalf_of=asked.on_behalf_of,
        emergency=asked.emergency,
    )


def _told(outcome: FetchOutcome, protocol: str) -> dict[str, Any]:
    told = {"outcome": type(outcome).__name__, **evidence.told(outcome.provenance, protocol)}
    if isinstance(outcome, Malformed | Unavailable):
        told["reason"] = outcome.reason
    if isinstance(outcome, Rejected):
        told["reason"] = outcome.code
    return told
