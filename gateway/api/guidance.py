"""Guidance over HTTP: which services, where and with what papers; and the threads between persons and institutions."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from consent.models import Caller
from gateway import errors
from gateway.api import paging
from gateway.api.documentation import body_of
from gateway.api.request import Door, correlation, idempotency_key, read_message
from gateway.api.rights import record_id, shown, told
from gateway.commands import Command, receipt_json
from gateway.guidance.models import Advice, Description
from gateway.guidance.service import Guidance
from gateway.guidance.threads import NewThread, Thread, Threads
from gateway.registry.query import StatusQuery
from schemas.ids import parse_uuid
from schemas.text import _

_SCOPE = "guidance.use"
_ASKED, _OPENED, _WRITTEN = "guidance-request", "guidance-thread", "guidance-message"
_PATH, _THREADS = "/api/v1/guidance", "/api/v1/guidance/threads"


def build_router(door: Door, guidance: Guidance, threads: Threads) -> APIRouter:
    """Return the routes of guidance."""
    router = APIRouter(tags=["Orientaciones"])

    @router.post(_PATH, openapi_extra=body_of(_ASKED))
    async def ask(request: Request) -> Response:
        """Say which services there are for a description of nobody, for a person known to us, or for who asks."""
        verified = door.caller(request, _SCOPE)
        request.state.verified = verified
        message = read_message(_ASKED, await door.body(request))
        if "description" in message:
            return _json({"services": [advice_json(each) for each in await guidance.describe(described(message))]})
        caller, district = await door.acting(request, verified, message), message.get("district")
        if "subject" in message:
            advice, receipt = await guidance.for_person(caller, _query(message, correlation(request)), district)
        elif caller.person is not None:
            advice, receipt = await guidance.for_oneself(caller, district)
        else:
            detail = _("Describa a la persona o indique de quién se trata.")
            raise errors.BadRequest("unusable-guidance", pointer="/description", detail=detail)
        return _json({"services": [advice_json(each) for each in advice], "receipt": receipt_json(receipt)})

    @router.post(_THREADS, status_code=201, openapi_extra=body_of(_OPENED))
    async def open_thread(request: Request) -> Response:
        """Open a thread: a person about a service, an institution about a referral that it is party to."""
        caller, message, command = await _command(request, _OPENED)
        new = NewThread(
            text=message["text"],
            service=message.get("service"),
            referral=parse_uuid(message["referral"]) if "referral" in message else None,
        )
        return told(await threads.open(caller, new, command), 201)

    @router.get(_THREADS)
    async def page(request: Request) -> Response:
        """List the person's own threads, or those that the institution answers; `?waiting=true`: for the caller."""
        request.state.verified = door.caller(request, _SCOPE)
        caller, asked = await door.acting(request, request.state.verified, None), paging.page_of(request)
        waiting = request.query_params.get("waiting") == "true"
        found = await threads.page(caller, waiting=waiting, after=asked.after, limit=asked.limit)
        return paging.answer("threads", [thread_json(each) for each in found], asked)

    @router.get(_THREADS + "/{thread_id}")
    async def read(request: Request, thread_id: str) -> Response:
        """Show a thread with its messages to its two sides."""
        request.state.verified = door.caller(request, _SCOPE)
        caller = await door.acting(request, request.state.verified, None)
        found, receipt = await threads.read(caller, record_id(thread_id))
        messages = [
            {"number": each.number, "author": each.author, "at": each.at.isoformat(), "text": each.text}
            for each in found.messages
        ]
        return shown({**thread_json(found), "messages": messages, "receipt": receipt_json(receipt)})

    @router.post(_THREADS + "/{thread_id}/messages", status_code=201, openapi_extra=body_of(_WRITTEN))
    async def write(request: Request, thread_id: str) -> Response:
        """Add a message to a thread; then it is the other side's turn."""
        caller, message, command = await _command(request, _WRITTEN)
        return told(await threads.write(caller, record_id(thread_id), message["text"], command), 201)

    @router.post(_THREADS + "/{thread_id}/close", status_code=201)
    async def close(request: Request, thread_id: str) -> Response:
        """Close a thread; either side may."""
        caller, _message, command = await _command(request, None)
        return told(await threads.close(caller, record_id(thread_id), command), 201)

    async def _command(request: Request, name: str | None) -> tuple[Caller, dict[str, Any], Command]:
        # The token is checked before a body is read, and the operator stands in the body.
        request.state.verified = door.caller(request, _SCOPE)
        body = b"" if name is None else await door.body(request)
        message = {} if name is None else read_message(name, body)
        caller = await door.acting(request, request.state.verified, message)
        # All persons of a portal come through one client, and each has keys of their own.
        key = f"guidance:{request.url.path}:{caller.person or ''}:{idempotency_key(request)}"
        return caller, message, Command(caller.client_id, key, body)

    return router


def described(message: dict[str, Any]) -> Description:
    """Return the description of a request, checked against its schema."""
    given = message["description"]
    return Description(
        age=given.get("age"),
        marks=frozenset(given.get("marks", ())),
        needs=frozenset(given.get("needs", ())),
        district=message.get("district"),
    )


def advice_json(advice: Advice) -> dict[str, Any]:
    """Return one piece of advice as every face shows it."""
    return {
        "service": advice.service,
        "name": advice.name,
        "institution": advice.institution,
        "institution_name": advice.institution_name,
        "category": advice.category,
        "why": advice.why,
        "papers": list(advice.papers),
        "places": [
            {"name": place.name, "address": place.address, "district": place.district, "hours": place.hours}
            for place in advice.places
        ],
        "response_days": advice.response_days,
        "route": advice.route,
        "step": advice.step,
    }


def thread_json(thread: Thread) -> dict[str, Any]:
    """Return a thread without its messages."""
    return {
        "id": str(thread.id),
        "institution": thread.institution,
        "service": thread.service,
        "referral": None if thread.referral is None else str(thread.referral),
        "opened_at": thread.opened_at.isoformat(),
        "moved_at": thread.moved_at.isoformat(),
        "waits_for": thread.waits_for,
    }


def _query(message: dict[str, Any], trace: str | None) -> StatusQuery:
    return StatusQuery(
        system=message["subject"]["system"],
        identifier=message["subject"]["value"],
        on=None,
        purpose=message["purpose"],
        basis=message["basis"],
        agreement=message.get("agreement"),
        case=message.get("case_number"),
        correlation=trace,
    )


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), 200, {"Cache-Control": "no-store"}, "application/json")
