"""Asks the institutions a crossing needs, each through the exchange: decided, recorded, and only then answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime

from consent.models import Caller
from gateway import errors
from gateway.clock import local_day, utc_now
from gateway.commands import receipt_json
from gateway.crossing import pension
from gateway.crossing.models import Advice, Answer, State
from gateway.exchange import DisclosureRequest, Exchange
from schemas.codes import code_list

PURPOSE, BASIS = "service-access-determination", "legal-obligation"
#: The fields whose name a person may show together with a certificate's number.
_NAMES = ("given_names", "surnames")


class Crossing:
    """Crosses facts for officials of the institution that is to decide."""

    def __init__(self, exchange: Exchange, now: Callable[[], datetime] = utc_now) -> None:
        self._exchange, self._now = exchange, now

    async def pension(self, caller: Caller, cedula: str, certificate: str | None = None) -> tuple[Advice, str]:
        """Return the advice on an application for the universal pension, and the applicant's name where it is known.

        ``certificate`` is the number of the disability certificate the applicant shows. Raises
        :class:`~gateway.errors.BadRequest` for a number that is no cédula.
        """
        today = local_day(self._now())
        identity = await self._ask(caller, cedula, "identity", {})
        answers = {"identity": identity}
        name = " ".join(str(identity.facts.get(field) or "") for field in _NAMES).strip()
        if identity.state == "found":
            shown = {} if certificate is None else {"certificate_number": certificate}
            needed = sorted(pension.asked(identity, today, certificate=certificate is not None))
            presented = {
                "disability-certificate": shown | {field: str(identity.facts.get(field) or "") for field in _NAMES}
            }
            found = await asyncio.gather(
                *(self._ask(caller, cedula, dataset, presented.get(dataset, {})) for dataset in needed)
            )
            answers |= {answer.dataset: answer for answer in found}
        return pension.advise(answers, today), name

    async def _ask(self, caller: Caller, cedula: str, dataset: str, presented: Mapping[str, str]) -> Answer:
        asked = DisclosureRequest(
            system="cedula",
            identifier=cedula,
            dataset=dataset,
            fields=pension.QUESTIONS[dataset],
            purpose=PURPOSE,
            basis=BASIS,
            agreement=None,
            case=None,
            correlation=None,
            presented=presented,
        )
        holder = code_list("datasets")[dataset]["holder"]
        try:
            released = await self._exchange.disclose(caller, asked)
        except errors.NotFound as refusal:
            if refusal.source is None:
                # The decision said so and nobody was asked; why is not for this caller to learn.
                return _without(dataset, "denied", holder, "nobody was asked", refusal)
            source = refusal.source
            receipt = None if refusal.receipt is None else str(receipt_json(refusal.receipt)["entry_id"])
            return Answer(dataset, "absent", {}, source.institution, source.adapter, source.at, receipt)
        except errors.Denied as refusal:
            return _without(dataset, "denied", holder, ", ".join(refusal.reasons), refusal)
        except errors.ProducerFailed as refusal:
            return _without(dataset, "unavailable", holder, refusal.kind, refusal)
        except errors.EvidenceStopped as refusal:
            return _without(dataset, "unavailable", holder, refusal.code, refusal)
        source = released.outcome.provenance
        receipt = str(receipt_json(released.receipt)["entry_id"])
        if released.withheld:
            reason = "withheld: " + ", ".join(released.withheld)
            return Answer(dataset, "denied", {}, source.institution, source.adapter, source.at, receipt, reason)
        return Answer(dataset, "found", released.facts, source.institution, source.adapter, source.at, receipt)


def _without(dataset: str, state: State, holder: str, reason: str, refusal: errors.Refusal) -> Answer:
    receipt = None if refusal.receipt is None else str(receipt_json(refusal.receipt)["entry_id"])
    return Answer(dataset, state, {}, holder, "", None, receipt, reason)
