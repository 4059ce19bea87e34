"""The public code lists over HTTP, with their labels: what a caller may put where a code is asked for."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway import errors
from gateway.api.request import Door
from schemas.canonical import sha256
from schemas.codes import code_list

#: What is the catalogue's (institutions, services) and what is demonstration data are no public lists.
LISTS = (
    "breach-kinds",
    "characteristics",
    "consent-channels",
    "consent-end-reasons",
    "consent-problems",
    "datasets",
    "denial-reasons",
    "departments",
    "emergency-reasons",
    "funnel-endings",
    "funnel-spans",
    "funnel-steps",
    "event-types",
    "instruments",
    "labels",
    "legal-bases",
    "life-cycle",
    "notices",
    "obligations",
    "outcomes",
    "purposes",
    "reasons",
    "referral-events",
    "relations",
    "representation-end-reasons",
    "rights",
    "rights-outcomes",
    "roles",
    "scopes",
    "treatments",
    "withheld-reasons",
)


class _Body(NamedTuple):
    content: bytes
    etag: str


def build_router(door: Door) -> APIRouter:
    """Return the routes of the code lists."""
    router = APIRouter(tags=["Códigos"])

    @router.get("/api/v1/codes")
    async def lists(request: Request) -> Response:
        """Name the code lists."""
        request.state.verified = door.caller(request, None)
        return _answer(request, _index())

    @router.get("/api/v1/codes/{name}")
    async def one(request: Request, name: str) -> Response:
        """Show a code list: each code with its labels, and the DPV concept where there is one."""
        request.state.verified = door.caller(request, None)
        if name not in LISTS:
            raise errors.NotFound("not-found")
        return _answer(request, _list(name))

    return router


def _answer(request: Request, body: _Body) -> Response:
    # The lists change with a release only: a caller asks again with what it has (RFC 9110 clause 13.1.2).
    headers = {"ETag": body.etag, "Cache-Control": "private, no-cache"}
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if body.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(body.content, 200, headers, "application/json")


@lru_cache(maxsize=1)
def _index() -> _Body:
    return _body({"lists": [{"list": name, "codes": len(code_list(name))} for name in LISTS]})


@lru_cache(maxsize=len(LISTS))
def _list(name: str) -> _Body:
    return _body({"list": name, "codes": [{"code": code, **spec} for code, spec in code_list(name).items()]})


def _body(value: dict[str, Any]) -> _Body:
    content = orjson.dumps(value)
    return _Body(content, f'"{sha256(content).hex()[:32]}"')
