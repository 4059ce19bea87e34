"""Consents and the texts that persons are asked, over HTTP; a person with a token of their own handles theirs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from consent.models import Caller
from consent.records import ConsentText, NewConsent
from gateway import errors
from gateway.api import paging
from gateway.api.documentation import body_of
from gateway.api.request import Door, idempotency_key, read_message
from gateway.commands import Command, Done
from gateway.governance.consents import Consents
from gateway.governance.people import Looked, Named
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_uuid
from schemas.text import _
from schemas.validation import read_instant

SCOPE = "consents.manage"
_ANSWER, _STEP, _SEARCH, _TEXT = "consent-answer", "consent-step", "consent-search", "consent-text"


def build_router(door: Door, consents: Consents) -> APIRouter:
    """Return the routes of consents."""
    router = APIRouter(tags=["Consentimientos"])

    @router.post("/api/v1/consents", status_code=201, openapi_extra=body_of(_ANSWER))
    async def record(request: Request) -> Response:
        """Record that a person consented or refused, or was asked."""
        caller, message, command = await command_of(door, request, SCOPE, _ANSWER)
        state = message.get("state", "given")
        done = await consents.record(caller, named(message, "subject"), _new(message), state=state, command=command)
        return done_answer(done, created=True)

    @router.post("/api/v1/consents/search", openapi_extra=body_of(_SEARCH))
    async def search(request: Request) -> Response:
        """Show a person's consents under agreements that the caller's institution is party to."""
        caller, message = await message_of(door, request, SCOPE, _SEARCH)
        page = paging.page_of(request)
        looked = await consents.search(
            caller,
            named(message, "subject"),
            agreement=message.get("agreement"),
            after=page.after,
            limit=page.limit,
        )
        return paging.answer("consents", looked.shown, page, receipt=looked.receipt)

    @router.get("/api/v1/consents/{consent_id}")
    async def read(request: Request, consent_id: str) -> Response:
        """Show one consent."""
        return looked_answer(await consents.read(await caller_of(door, request, SCOPE), record_id(consent_id)))

    @router.get("/api/v1/consents/{consent_id}/receipt")
    async def receipt(request: Request, consent_id: str) -> Response:
        """Issue the receipt that the person keeps: the ISO/IEC TS 27560 record and a plain text, with their hashes."""
        return looked_answer(await consents.receipt(await caller_of(door, request, SCOPE), record_id(consent_id)))

    @router.post("/api/v1/consents/{consent_id}/steps", openapi_extra=body_of(_STEP))
    async def step(request: Request, consent_id: str) -> Response:
        """Withdraw a consent, or revoke or invalidate it: the next decision sees it."""
        caller, message = await message_of(door, request, SCOPE, _STEP)
        which = record_id(consent_id)
        return done_answer(await consents.step(caller, which, message["step"], reason=message.get("reason")))

    @router.post("/api/v1/consent-texts", status_code=201, openapi_extra=body_of(_TEXT))
    async def publish(request: Request) -> Response:
        """Publish what persons are asked under an agreement; a published version never changes."""
        caller, message, command = await command_of(door, request, SCOPE, _TEXT)
        words = {name: message[name] for name in ("agreement", "version", "language", "text")}
        return done_answer(await consents.publish(caller, **words, command=command), created=True)

    @router.get("/api/v1/consent-texts")
    async def texts(request: Request) -> Response:
        """Show the published texts of ``?agreement=CODE``, in every language."""
        caller = await caller_of(door, request, SCOPE)
        agreement = request.query_params.get("agreement")
        if not agreement or not agreement.isprintable():
            raise errors.BadRequest("missing-agreement", pointer="/agreement", detail=_("Diga de qué acuerdo."))
        after, limit = _page(request)
        found = await consents.texts(caller, agreement, after=after, limit=limit)
        following = f"{found[-1].version}/{found[-1].language}" if len(found) == limit else None
        body = orjson.dumps({"consent_texts": [_text_json(each) for each in found], "next": following})
        return Response(body, 200, {"Cache-Control": "no-store"}, "application/json")

    return router


def _new(message: dict[str, Any]) -> NewConsent:
    ends, mandate = message.get("expires_at"), message.get("representation")
    return NewConsent(
        agreement=message["agreement"],
        purposes=frozenset(message["purposes"]),
        fields=frozenset(message["fields"]),
        labels=frozenset(message.get("labels", ())),
        text_version=message["text"]["version"],
        language=message["text"]["language"],
        channel=message["channel"],
        proof_reference=message["proof_reference"],
        representation=None if mandate is None else parse_uuid(mandate),
        expires_at=None if ends is None else read_instant(ends),
    )


def _page(request: Request) -> tuple[tuple[str, str], int]:
    """Read the page of a list whose items are told apart by version and language, as ``VERSION/LANGUAGE``."""
    version, slash, language = request.query_params.get("after", "/").rpartition("/")
    if not slash or "\x00" in version + language:
        raise errors.BadRequest("bad-page", pointer="/after", detail=_("Siga con lo que dio «next»."))
    return (version, language), paging.limit_of(request)


def _text_json(text: ConsentText) -> dict[str, Any]:
    return {
        "agreement": text.agreement,
        "version": text.version,
        "language": text.language,
        "text": text.text,
        "text_sha256": text.text_sha256.hex(),
        "published_at": text.published_at.isoformat(),
    }


async def caller_of(door: Door, request: Request, scope: str) -> Caller:
    """Return who calls: staff or a system of an institution, or a person with a token of their own."""
    verified = door.caller(request, scope)
    request.state.verified = verified
    return await door.acting(request, verified, None)


async def message_of(door: Door, request: Request, scope: str, name: str) -> tuple[Caller, dict[str, Any]]:
    """Return who calls, with the operator that a message names, and the message."""
    caller, message, _body = await _read(door, request, scope, name)
    return caller, message


async def command_of(door: Door, request: Request, scope: str, name: str) -> tuple[Caller, dict[str, Any], Command]:
    """Return who calls, a message that creates something, and what makes its repetition harmless."""
    caller, message, body = await _read(door, request, scope, name)
    # Two persons may come through one client; neither gets the other's answer.
    who = "" if caller.person is None else f"{caller.person}:"
    return caller, message, Command(caller.client_id, f"{name}:{who}{idempotency_key(request)}", body)


async def _read(door: Door, request: Request, scope: str, name: str) -> tuple[Caller, dict[str, Any], bytes]:
    verified = door.caller(request, scope)
    request.state.verified = verified
    body = await door.body(request)
    message = read_message(name, body)
    return await door.acting(request, verified, message), message, body


def named(message: dict[str, Any], name: str) -> Named | None:
    """Return the person that a member of a message names."""
    found = message.get(name)
    return None if found is None else Named(found["system"], found["value"])


def record_id(text: str) -> UUID:
    """Read the id of a record in an address; raises NotFound for what is no id, as for one that is nobody's."""
    try:
        return parse_uuid(text)
    except InvalidIdentifier:
        raise errors.NotFound("not-found") from None


def done_answer(done: Done, *, created: bool = False) -> Response:
    """Build the answer to a change: 201 where something was created, else 200."""
    headers = {"Idempotency-Replayed": "true"} if done.replayed else None
    return Response(orjson.dumps(done.answer), done.status if created else 200, headers, "application/json")


def looked_answer(looked: Looked) -> Response:
    """Build the answer that shows one thing, with the receipt of the look."""
    body = orjson.dumps({**looked.shown, "receipt": looked.receipt})
    return Response(body, 200, {"Cache-Control": "no-store"}, "application/json")
