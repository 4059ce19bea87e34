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
from datetime import datetime
from typing import Any

from adapters.models import (
    Adapter,
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
from consent.decision import decide
from consent.models import Caller, Decision, Request, SubjectFacts
from consent.policy import PolicyStore
from gateway import errors, evidence
from gateway.clock import utc_now
from gateway.registry import service as registry
from gateway.registry.lookup import SubjectLookup
from gateway.registry.models import PersonRef
from schemas.codes import code_list
from schemas.errors import InvalidIdentifier
from schemas.permit import Permit


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """What is released: facts by field, neutral codes of the withheld fields, the source, and the receipt."""

    dataset: str
    facts: dict[str, Any]
    withheld: tuple[str, ...]
    outcome: Found
    obligations: tuple[str, ...]
    receipt: Receipt


class Exchange:
    """Carries out disclosures over the rooms below."""

    def __init__(
        self,
        *,
        subjects: SubjectLookup,
        audit: AuditLog,
        policies: PolicyStore,
        adapters: Adapters,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._subjects, self._audit = subjects, audit
        self._policies, self._adapters, self._now = policies, adapters, now
        # By dataset: a register held here says no far sooner than a system far away does.
        self._not_found_times: defaultdict[str, deque[float]] = defaultdict(lambda: deque([0.02], maxlen=64))

    async def disclose(self, caller: Caller, asked: DisclosureRequest, *, adapter: Adapter | None = None) -> Disclosure:
        """Answer a request for facts about one person, from one adapter only if it is given.

        Raises :class:`~gateway.errors.BadRequest`, ``Denied``, ``NotFound`` or ``ProducerFailed``; every one of them,
        and the answer, has its entry in the log before it leaves. AuditUnavailable when the log cannot be written.
        """
        started = time.monotonic()
        dataset = code_list("datasets").get(asked.dataset)
        if dataset is None or dataset.get("internal"):
            raise errors.BadRequest("unknown-dataset", pointer="/dataset")
        for place, name in enumerate(asked.fields):
            if name not in dataset["fields"]:
                raise errors.BadRequest("unknown-field", pointer=f"/fields/{place}")
        for name in asked.presented:
            if name not in dataset.get("presents", ()):
                raise errors.BadRequest("unknown-field", pointer=f"/presented/{name}")
        if adapter is not None and asked.dataset not in adapter.datasets | adapter.registers:
            raise errors.BadRequest("dataset-not-connected", pointer="/dataset")
        identifier = _identifier(asked)
        who, facts = await self._subjects.find(identifier.system, identifier.value)
        request = _request(caller, asked, dataset["holder"], self._now())
        decision = decide(request, facts, self._policies.current)
        if decision.permit is None:
            await self._refuse(request, decision, facts, asked.correlation, started)
        sources = self._adapters.holding(request.dataset)
        if adapter is not None:
            # Its own system, or the register taken of it.
            sources = tuple(source for source in sources if source.name == adapter.name)
        if not sources:
            raise errors.BadRequest("dataset-not-connected", pointer="/dataset")
        known_by = await self._known_by(sources[0], request.dataset, who, identifier)
        if known_by is None:
            await self._refuse(request, decision, facts, asked.correlation, started)
        return await self._ask(request, decision, decision.permit, who, known_by, asked, started, sources)

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
        identifier: Identifier | None,
        asked: DisclosureRequest,
        started: float,
        sources: tuple[Adapter, ...],
    ) -> Disclosure:
        if permit is None or identifier is None:
            raise TypeError("nobody is asked without a permit and an identifier")
        subject, correlation = None if who is None else who.id, asked.correlation
        intent = evidence.decided("disclosure.intent", request, decision, subject=subject, correlation=correlation)
        await self._audit.append(intent)
        outcome, silent = await self._fetch(permit, identifier, asked.presented, sources)
        exchange = {"intent": str(intent.id), **_told(outcome)}
        if silent:
            # They were told whom it is about, whether they answered or not.
            exchange["asked_before"] = silent
        if not isinstance(outcome, Found):
            receipt = await self._audit.append(
                evidence.decided(
                    "disclosure.unanswered",
                    request,
                    decision,
                    subject=subject,
                    correlation=correlation,
                    outcome="failed",
                    exchange=exchange,
                )
            )
            if isinstance(outcome, NotFound):
                self._not_found_times[request.dataset].append(time.monotonic() - started)
                raise errors.NotFound("not-found", receipt=receipt, source=outcome.provenance)
            raise errors.ProducerFailed(
                type(outcome).__name__.lower(), receipt, getattr(outcome, "retry_after_s", None)
            )
        released = {name: outcome.facts.get(name) for name in request.fields if name in decision.released}
        receipt = await self._audit.append(
            evidence.decided(
                "disclosure.released",
                request,
                decision,
                subject=subject,
                correlation=correlation,
                exchange=exchange,
            )
        )
        return Disclosure(
            dataset=request.dataset,
            facts=released,
            withheld=tuple(name for name in request.fields if name not in decision.released),
            outcome=outcome,
            obligations=decision.obligations,
            receipt=receipt,
        )

    async def _fetch(
        self, permit: Permit, identifier: Identifier, presented: Mapping[str, str], sources: tuple[Adapter, ...]
    ) -> tuple[FetchOutcome, list[str]]:
        """Ask one source after the other; return the last outcome and the names of those that were silent before."""
        silent: list[str] = []
        outcome = await sources[0].fetch(permit, permit.dataset, identifier, presented)
        for adapter in sources[1:]:
            # Only silence passes the question on: an answer, even a refusal, is the source's answer.
            if not isinstance(outcome, Unavailable):
                break
            silent.append(outcome.provenance.adapter)
            outcome = await adapter.fetch(permit, permit.dataset, identifier, presented)
        return outcome, silent

    async def _refuse(
        self, request: Request, decision: Decision, facts: SubjectFacts, correlation: str | None, started: float
    ) -> None:
        receipt = await self._audit.append(
            evidence.decided(
                "disclosure.denied",
                request,
                decision,
                subject=facts.subject,
                correlation=correlation,
            )
        )
        # A permit without an identifier the source knows ends here too, and looks like any person not found.
        if decision.permit is None and not decision.hides_subject:
            raise errors.Denied(decision.reasons, receipt)
        # The answer takes as long as a producer's "not found" lately took, so the clock tells nothing either.
        pause = random.choice(self._not_found_times[request.dataset]) - (time.monotonic() - started)  # noqa: S311
        await asyncio.sleep(max(pause, 0.0))
        raise errors.NotFound("not-found", receipt=receipt)


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
    )


def _told(outcome: FetchOutcome) -> dict[str, Any]:
    provenance = outcome.provenance
    told: dict[str, Any] = {
        "outcome": type(outcome).__name__,
        "adapter": provenance.adapter,
        "institution": provenance.institution,
        "at": provenance.at.isoformat(),
        "duration_ms": provenance.duration_ms,
        "attempts": provenance.attempts,
    }
    if provenance.register:
        told["register"] = provenance.register
    if provenance.raw_sha256 is not None:
        told["answer_sha256"] = provenance.raw_sha256.hex()
    if isinstance(outcome, Malformed | Unavailable):
        told["reason"] = outcome.reason
    if isinstance(outcome, Rejected):
        told["reason"] = outcome.code
    return told
