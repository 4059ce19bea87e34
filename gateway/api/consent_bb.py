"""The GovStack Consent building block over HTTP: every operation of its OpenAPI 1.1.0-rc1, below ``/consent-bb``.

Its addresses, parameters and bodies are followed to the letter; it knows the statuses 200 and 400 only, so what is
wrong with a request, not there, or in the way is a 400 here, with a problem as its body.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import Response

from consent.models import Actor, Caller
from gateway import errors
from gateway.api import problems
from gateway.api.documentation import body_of
from gateway.api.request import Door, correlation, read_message
from gateway.governance.service import Governance
from gateway.refusals import RefusalLog
from gateway.standards.govstack import agreements, consents, individuals, policies, shown, webhooks
from gateway.standards.govstack.models import Answer, Call
from gateway.vault import Vault

PREFIX = "/consent-bb"
INDIVIDUAL_HEADER = "X-ConsentBB-IndividualId"
_USUAL, _MOST, _FURTHEST = 50, 200, 100_000
_IN_PATH = re.compile(r"\{(\w+)\}")

Handler = Callable[[Call], Awaitable[Answer]]


class Operation(NamedTuple):
    """One operation: where it is, which scope (one of several) and role action it needs, what it takes, what it does.

    ``required`` are the query parameters that must be there.
    """

    method: str
    path: str
    handler: Handler
    scopes: tuple[str, ...]
    actions: tuple[str, ...]
    message: str | None = None
    required: tuple[str, ...] = ()


_AGREEMENTS, _CONSENTS = ("agreements.manage",), ("consents.manage",)
_AUDIT = ("audit.read", "consents.manage")
_KEEP = ("agreement.manage",)
_LOOK = ("agreement.manage", "agreement.sign")
_RECORD = ("consent.record",)
_ANY = ("consent.record", "agreement.manage", "agreement.sign")
_AUDITING = ("audit.read", "consent.manage")

_POLICY = "/config/policy/{policyId}/"
_AGREEMENT = "/config/data-agreement/{dataAgreementId}/"
_WEBHOOK = "/config/webhook/{webhookId}/"
_MINE = "/service/individual/record/data-agreement/{dataAgreementId}/"
_RECORDS = "/service/individual/record/consent-record/"
_ONE_RECORD = "/service/individual/record/consent-record/{consentRecordId}/"
_PERSON = ("individualId",)

OPERATIONS = (
    Operation("POST", "/config/policy/", policies.create, _AGREEMENTS, _KEEP, "consent-bb-policy"),
    Operation("GET", _POLICY, policies.show, _AGREEMENTS, _LOOK),
    Operation("PUT", _POLICY, policies.change, _AGREEMENTS, _KEEP, "consent-bb-policy"),
    Operation("DELETE", _POLICY, policies.remove, _AGREEMENTS, _KEEP),
    Operation("GET", f"{_POLICY}revisions/", policies.show_revisions, _AGREEMENTS, _LOOK),
    Operation("GET", "/config/policies/", policies.show_all, _AGREEMENTS, _LOOK),
    Operation("POST", "/config/data-agreement/", agreements.create, _AGREEMENTS, _KEEP, "consent-bb-data-agreement"),
    Operation("GET", _AGREEMENT, agreements.show, _AGREEMENTS, _LOOK),
    Operation("PUT", _AGREEMENT, agreements.change, _AGREEMENTS, _KEEP, "consent-bb-data-agreement"),
    Operation("DELETE", _AGREEMENT, agreements.remove, _AGREEMENTS, _KEEP),
    Operation("GET", "/config/data-agreements/", agreements.show_all, _AGREEMENTS, _LOOK),
    # Persons are nobody's to configure: whoever keeps agreements sees none of them.
    Operation("POST", "/config/individual/", individuals.create, _CONSENTS, _RECORD, "consent-bb-individual"),
    Operation("GET", "/config/individual/{individualId}/", individuals.show, _CONSENTS, _RECORD),
    Operation("GET", "/config/individuals/", individuals.show_all, _CONSENTS, _RECORD),
    Operation("POST", "/config/webhook/", webhooks.create, _AGREEMENTS, _KEEP, "consent-bb-webhook"),
    Operation("GET", _WEBHOOK, webhooks.show, _AGREEMENTS, _KEEP),
    Operation("PUT", _WEBHOOK, webhooks.change, _AGREEMENTS, _KEEP, "consent-bb-webhook"),
    Operation("DELETE", _WEBHOOK, webhooks.remove, _AGREEMENTS, _KEEP),
    Operation("GET", "/config/webhooks/", webhooks.show_all, _AGREEMENTS, _KEEP),
    Operation("POST", "/service/individual/", individuals.create, _CONSENTS, _RECORD, "consent-bb-individual"),
    Operation("GET", "/service/individual/{individualId}/", individuals.show, _CONSENTS, _RECORD),
    Operation(
        "PUT", "/service/individual/{individualId}/", individuals.change, _CONSENTS, _RECORD, "consent-bb-individual"
    ),
    Operation("GET", "/service/individuals/", individuals.show_all, _CONSENTS, _RECORD),
    Operation("GET", "/service/data-agreement/{dataAgreementId}/", agreements.show, _CONSENTS, _ANY),
    Operation("GET", "/service/policy/{policyId}/", policies.show_governing, _CONSENTS, _ANY),
    Operation("GET", "/service/verification/data-agreements/", agreements.show_active, _CONSENTS, _ANY),
    Operation("GET", "/service/verification/consent-records/", shown.show_all, _CONSENTS, _RECORD),
    Operation("GET", "/service/verification/consent-record/{consentRecordId}/", shown.show, _CONSENTS, _RECORD),
    Operation("POST", _MINE, consents.request, _CONSENTS, _RECORD, required=_PERSON),
    Operation("GET", _MINE, shown.show_for_agreement, _CONSENTS, _RECORD),
    Operation("GET", f"{_MINE}all/", shown.show_history, _CONSENTS, _RECORD),
    Operation("POST", f"{_RECORDS}draft/", consents.draft, _CONSENTS, _RECORD, required=(*_PERSON, "dataAgreementId")),
    Operation("POST", _RECORDS, consents.create_signed, _CONSENTS, _RECORD, "consent-bb-signed-record"),
    Operation("GET", _RECORDS, shown.show_current, _CONSENTS, _RECORD),
    Operation("PUT", _ONE_RECORD, consents.change, _CONSENTS, _RECORD, "consent-bb-record"),
    Operation(
        "POST",
        f"{_ONE_RECORD}signature/",
        consents.prepare_signature,
        _CONSENTS,
        _RECORD,
        "consent-bb-signature-request",
    ),
    Operation("PUT", f"{_ONE_RECORD}signature/", consents.sign, _CONSENTS, _RECORD, "consent-bb-signature"),
    Operation("DELETE", "/service/individual/record/", consents.remove_all, _CONSENTS, _RECORD),
    Operation("GET", "/audit/consent-records/", shown.audit_all, _AUDIT, _AUDITING),
    Operation("GET", "/audit/consent-record/{consentRecordId}/", shown.audit_one, _AUDIT, _AUDITING),
    Operation("GET", "/audit/data-agreements/", agreements.audit_all, _AUDIT, _AUDITING),
    Operation("GET", "/audit/data-agreement/{dataAgreementId}/", agreements.audit_one, _AUDIT, _AUDITING),
)


def build_router(door: Door, governance: Governance, vault: Vault, refusals: RefusalLog) -> APIRouter:
    """Return the routes of the building block."""
    router = APIRouter(prefix=PREFIX, tags=["GovStack Consent BB"])
    face = _Face(door, governance, vault, refusals)
    for operation in OPERATIONS:
        router.add_api_route(
            operation.path,
            face.endpoint(operation),
            methods=[operation.method],
            description=operation.handler.__doc__,
            openapi_extra=_described(operation),
            name=f"{operation.method} {operation.path}",
        )
    return router


def _described(operation: Operation) -> dict[str, Any]:
    """Return what our OpenAPI description says of the parameters and the body of an operation."""
    named = [(name, "path", True) for name in _IN_PATH.findall(operation.path)]
    named += [(name, "query", True) for name in operation.required]
    if operation.method == "GET" and operation.handler in _LISTS:
        named += [(name, "query", False) for name in ("offset", "limit")]
    if operation.path.startswith("/service/individual/record/") and not operation.required:
        named.append((INDIVIDUAL_HEADER, "header", operation.message != "consent-bb-signed-record"))
    parameters = [
        {"name": name, "in": place, "required": required, "schema": {"type": "string"}}
        for name, place, required in named
    ]
    return {"parameters": parameters, **({} if operation.message is None else body_of(operation.message))}


class _Face:
    """What all operations share: who calls, what is asked, one transaction with its entry, the answer."""

    def __init__(self, door: Door, governance: Governance, vault: Vault, refusals: RefusalLog) -> None:
        self._door, self._governance, self._vault, self._refusals = door, governance, vault, refusals

    def endpoint(self, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
        """Return the route of an operation."""

        async def answer(request: Request) -> Response:
            try:
                return await self._answer(operation, request)
            except (errors.BadRequest, errors.NotFound, errors.Conflict) as error:
                verified = getattr(request.state, "verified", None)
                if verified is not None:
                    where = f"{PREFIX}{operation.path}"
                    error.receipt = error.receipt or await self._refusals.message(verified, [error.code], where)
                return _as_bad_input(error)

        return answer

    async def _answer(self, operation: Operation, request: Request) -> Response:
        caller = await self._caller(operation, request)
        message: dict[str, Any] = {}
        if operation.message is not None:
            message = read_message(operation.message, await self._door.body(request))
        offset, limit = _number(request, "offset", 0, 0, _FURTHEST), _number(request, "limit", _USUAL, 1, _MOST)
        query = _query(request, operation.required)

        async def run(connection: AsyncConnection, actor: Actor, at: datetime) -> Answer:
            return await operation.handler(
                Call(
                    connection=connection,
                    vault=self._vault,
                    actor=actor,
                    institution=caller.institution,
                    at=at,
                    path=request.path_params,
                    query=query,
                    individual=request.headers.get(INDIVIDUAL_HEADER),
                    message=message,
                    offset=offset,
                    limit=limit,
                    local=self._door.issuer.url.startswith("http:"),
                )
            )

        return await self._done(operation, request, caller, run)

    async def _done(
        self,
        operation: Operation,
        request: Request,
        caller: Caller,
        run: Callable[[AsyncConnection, Actor, datetime], Awaitable[Answer]],
    ) -> Response:
        if operation.method == "GET" and operation.handler in _UNLOGGED:
            actor = await self._governance.authorise(caller, *operation.actions)
            async with self._governance.database.transaction() as connection:
                _said, body = await run(connection, actor, self._governance.now())
            return _json(body)
        bodies: list[dict[str, Any]] = []

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            said, body = await run(connection, actor, at)
            bodies.append(body)
            if said is None:
                raise TypeError("what is logged must say what happened")
            return said

        done = await self._governance.change(caller, operation.actions, work, correlation=correlation(request))
        return _json({**bodies[0], "receipt": done.answer["receipt"]})

    async def _caller(self, operation: Operation, request: Request) -> Caller:
        verified = self._door.caller(request, None)
        request.state.verified = verified
        if verified.scopes.isdisjoint(operation.scopes):
            self._door.caller(request, operation.scopes[0])
        return await self._door.acting(request, verified, None)


# What comes in pages.
_LISTS = frozenset(
    {
        policies.show_revisions,
        policies.show_all,
        agreements.show_all,
        agreements.show_active,
        agreements.audit_all,
        individuals.show_all,
        webhooks.show_all,
        shown.show_all,
        shown.show_current,
        shown.show_history,
        shown.audit_all,
    }
)
# What shows agreements, policies and webhooks only, to their parties: nobody's data, so no entry.
_UNLOGGED = frozenset(
    {
        policies.show,
        policies.show_revisions,
        policies.show_all,
        policies.show_governing,
        agreements.show,
        agreements.show_all,
        agreements.show_active,
        webhooks.show,
        webhooks.show_all,
    }
)


def _query(request: Request, required: tuple[str, ...]) -> dict[str, str]:
    for name in required:
        if not request.query_params.get(name):
            raise errors.BadRequest("missing-parameter", pointer=f"/{name}")
    return dict(request.query_params)


def _number(request: Request, name: str, usual: int, least: int, most: int) -> int:
    given = request.query_params.get(name, str(usual))
    if not (given.isascii() and given.isdecimal() and len(given) <= 6 and least <= int(given) <= most):
        raise errors.BadRequest("bad-page", pointer=f"/{name}")
    return int(given)


def _as_bad_input(error: errors.Refusal) -> Response:
    """Build the answer that the OpenAPI knows for everything that is wrong with a request."""
    told = orjson.loads(problems.of_refusal(error).body) | {"status": 400}
    return Response(orjson.dumps(told), 400, media_type="application/problem+json")


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), 200, {"Cache-Control": "no-store"}, "application/json")
