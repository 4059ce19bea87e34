"""Drafts agreements and takes their steps for the faces: what the catalogue must know, and refusals in their words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from consent.agreement_view import history_json
from consent.agreements import Step, conflicts_of, draft_agreement, read_draft, read_history, take_step
from consent.errors import InvalidAgreement, StepRefused, UnknownAgreement
from consent.models import SERVICE_PREFIX, Actor, Agreement
from gateway import errors
from gateway.catalogue.service import institutions, services
from gateway.events.service import publish
from schemas.codes import code_list
from schemas.text import _

CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]{0,79}\Z")


async def draft(
    connection: AsyncConnection, message: Mapping[str, Any], *, actor: Actor, party: str | None = None, at: datetime
) -> dict[str, Any]:
    """Store the text of a valid ``agreement-draft`` message as a draft; raises BadRequest or Conflict."""
    with _refused():
        agreement = read_draft({name: value for name, value in message.items() if name != "operator"})
        await _check_catalogue(connection, agreement)
        return await draft_agreement(connection, agreement, actor=actor, party=party, at=at)


async def step(
    connection: AsyncConnection,
    code: str,
    name: Step,
    *,
    actor: Actor,
    party: str | None = None,
    at: datetime,
    signatory: str | None = None,
    proof_reference: str | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    """Take a step (:func:`consent.agreements.take_step`) and tell its parties.

    Raises NotFound, BadRequest or Conflict.
    """
    with _refused():
        told = await take_step(
            connection,
            _of_code(code),
            name,
            actor=actor,
            party=party,
            at=at,
            signatory=signatory,
            proof_reference=proof_reference,
            reason=reason,
        )
    if told["event"] in code_list("event-types"):
        parties = (await read_history(connection, code)).parties
        facts = {"agreement": code, "status": told["status"]}
        await publish(connection, type=told["event"], at=at, institutions=parties, facts=facts)
    return told


async def show(connection: AsyncConnection, code: str, *, party: str | None = None) -> dict[str, Any]:
    """Return everything about an agreement; raises NotFound, also where ``party`` is given and is none."""
    with _refused():
        history = await read_history(connection, _of_code(code), party=party)
    return history_json(history, await conflicts_of(connection, code))


def _of_code(given: str) -> str:
    # What is no code is stored nowhere, and must not reach the database, which knows no NUL.
    if not CODE.match(given):
        raise UnknownAgreement(given)
    return given


async def _check_catalogue(connection: AsyncConnection, agreement: Agreement) -> None:
    known = await institutions(connection)
    for name, code in (("requester", agreement.requester), ("holder", agreement.holder)):
        if code not in known:
            raise InvalidAgreement(agreement.code, name, _("no está en el catálogo"), known)
    offered = {f"{SERVICE_PREFIX}{code}" for code in await services(connection)}
    for dataset in agreement.datasets:
        if dataset.startswith(SERVICE_PREFIX) and dataset not in offered:
            raise InvalidAgreement(agreement.code, f"datasets/{dataset}", _("no está en el catálogo"), offered)


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except UnknownAgreement:
        raise errors.NotFound("not-found") from None
    except StepRefused as error:
        steps = _("pasos posibles: {steps}").format(steps=", ".join(error.possible))
        raise errors.Conflict("agreement-step", detail=f"{error.what} ({steps})") from None
    except InvalidAgreement as error:
        pointer, detail = f"/{error.field}", f"{error.field}: {error.what}."
        if error.allowed:
            raise errors.BadRequest("unknown-code", pointer=pointer, detail=detail, allowed=error.allowed) from None
        raise errors.BadRequest("invalid-agreement", pointer=pointer, detail=detail) from None
