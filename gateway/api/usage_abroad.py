"""Who used a person's data in the shapes of others: Estonia's Data Tracker, and GovStack Digital Registries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial, wraps
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway import errors
from gateway.api import problems
from gateway.api.request import Door
from gateway.api.usage import SCOPE, usage_caller
from gateway.commands import receipt_headers
from gateway.governance.usage import Page, Usage
from gateway.refusals import RefusalLog
from gateway.standards.estonia import usage as estonia
from gateway.standards.govstack import usage as govstack
from gateway.standards.govstack.usage import CAMEL, PASCAL, Spelling

TRACKER, REGISTRIES = "/data-tracker", "/digital-registries"
USER_HEADER = "X-Road-UserId"

Answering = Callable[[Request], Awaitable[Response]]


def build_router(door: Door, usage: Usage, refusals: RefusalLog) -> APIRouter:
    """Return the routes of both."""
    router = APIRouter(tags=["Quién usó mis datos: otras formas"])

    async def find_usage(request: Request) -> Response:
        """Show who used a person's data as Estonia's Data Tracker asks for it."""
        caller, query = await usage_caller(door, request, None), _query(request)
        asked, subject = estonia.asked(query), estonia.person_asked_for(query)
        if caller.person is not None:
            # The token says who asks; the header could only claim it.
            return _page(await usage.read(caller, subject, asked), estonia.find_usage_json)
        who = estonia.asker(request.headers.get(USER_HEADER))
        page = await usage.read(caller, subject or who, asked, representative=None if subject is None else who)
        return _page(page, estonia.find_usage_json)

    async def usage_period(request: Request) -> Response:
        """Say since when uses are on record."""
        door.caller(request, SCOPE)
        return _json(estonia.usage_period_json(await usage.since_when()))

    async def heartbeat(request: Request) -> Response:
        """Say that the service works, its database included."""
        door.caller(request, SCOPE)
        await usage.since_when()
        return _json(estonia.heartbeat_json())

    def personal_data_usage(spelling: Spelling) -> Answering:
        async def answer(request: Request) -> Response:
            """Show who read a person's data as GovStack Digital Registries asks for it."""
            caller, query = await usage_caller(door, request, None), _query(request)
            subject, asked = govstack.person_asked_for(query, spelling), govstack.asked(query, spelling)
            return _page(await usage.read(caller, subject, asked), partial(govstack.usage_json, spelling=spelling))

        return answer

    routes = {
        f"{TRACKER}/findUsage": find_usage,
        f"{TRACKER}/usagePeriod": usage_period,
        f"{TRACKER}/heartbeat": heartbeat,
        f"{REGISTRIES}/data/MyPersonalDataUsage/1.0": personal_data_usage(PASCAL),
        f"{REGISTRIES}/data/myPersonalDataUsage": personal_data_usage(CAMEL),
        f"{REGISTRIES}/data/mypersonalDataUsage": personal_data_usage(CAMEL),
    }
    for path, answering in routes.items():
        router.add_api_route(path, _as_they_answer(answering, refusals, path), methods=["GET"], name=path)
    return router


def _as_they_answer(answering: Answering, refusals: RefusalLog, path: str) -> Answering:
    """Return a route that answers what is wrong with a request by 400, as both descriptions do."""

    @wraps(answering)
    async def answer(request: Request) -> Response:
        try:
            return await answering(request)
        except errors.BadRequest as error:
            error.receipt = await refusals.message(request.state.verified, [error.code], path)
            told = orjson.loads(problems.of_refusal(error).body) | {"status": 400}
            return Response(orjson.dumps(told), 400, media_type="application/problem+json")

    return answer


def _query(request: Request) -> Mapping[str, str]:
    return request.query_params


def _page(page: Page, shape: Callable[[Page], Any]) -> Response:
    # Neither shape has room for the receipt of the reading.
    return _json(shape(page), receipt_headers(page.receipt))


def _json(body: Any, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), 200, {"Cache-Control": "no-store", **(headers or {})}, "application/json")
