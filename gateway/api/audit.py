"""The log for auditors over HTTP: searched page by page, and taken away in files that prove themselves."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from audit.models import LoggedEntry
from audit.search import Cursor, read_cursor
from consent.models import Caller
from gateway import errors
from gateway.api import paging
from gateway.api.documentation import body_of
from gateway.api.request import Door, read_message
from gateway.auditing.exports import Exports
from gateway.auditing.forms import Source
from gateway.auditing.service import Asked, Auditing
from gateway.auditing.zipped import zipped
from gateway.commands import receipt_headers, receipt_json
from gateway.evidence import proof_address
from gateway.standards.exports import form_of
from schemas.text import _
from schemas.validation import read_instant

_SCOPE = "audit.read"
_SEARCH, _EXPORT = "audit-search", "audit-export"


def build_router(door: Door, auditing: Auditing, exports: Exports, source: Source) -> APIRouter:
    """Return the routes of auditors; ``source`` is what exported entries cannot say of themselves."""
    router = APIRouter(tags=["Auditoría"])

    @router.post("/api/v1/audit/search", openapi_extra=body_of(_SEARCH))
    async def search(request: Request) -> Response:
        """Show entries of the log, newest first; the search is an entry before anything is shown."""
        caller, message = await _message(request, _SEARCH)
        limit, after = int(message.get("limit", paging.USUAL)), _cursor(message.get("after"))
        page, receipt = await auditing.search(caller, _asked(message), after=after, limit=limit)
        body = {
            "entries": [entry_json(entry) for entry in page.entries],
            "next": None if page.next is None else str(page.next),
            "receipt": receipt_json(receipt),
        }
        return Response(orjson.dumps(body), 200, {"Cache-Control": "no-store"}, "application/json")

    @router.post("/api/v1/audit/exports", openapi_extra=body_of(_EXPORT))
    async def export(request: Request) -> Response:
        """Return a ZIP with the entries, their proof and the policy to verify them by; it is an entry as well."""
        caller, message = await _message(request, _EXPORT)
        with ExitStack() as opened:
            folder = opened.enter_context(exports.place())
            proof = opened.enter_context(tempfile.TemporaryFile(dir=folder))
            form = form_of(message["format"], source, folder)
            begun = await exports.begin(caller, _asked(message), form, proof)
            pieces = zipped(begun.members(), auditing.governance.now())
            # What goes wrong before the first piece still gets an answer that says so.
            first = await anext(pieces)
            headers = {
                "Cache-Control": "no-store",
                "Content-Disposition": 'attachment; filename="registro.zip"',
                **receipt_headers(receipt_json(begun.receipt)),
            }
            return _Sent(first, pieces, opened.pop_all(), headers)

    async def _message(request: Request, name: str) -> tuple[Caller, dict[str, Any]]:
        # The token is checked before a body is read, and the operator stands in the body.
        request.state.verified = door.caller(request, _SCOPE)
        message = read_message(name, await door.body(request))
        return door.with_operator(request, request.state.verified, message), message

    return router


class _Sent(StreamingResponse):
    """A ZIP on its way, and what must be cleared away when it is there, or cut off."""

    def __init__(
        self, first: bytes, pieces: AsyncGenerator[bytes, None], opened: ExitStack, headers: dict[str, str]
    ) -> None:
        super().__init__(_from(first, pieces), 200, headers, "application/zip")
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._opened:
            await super().__call__(scope, receive, send)


async def _from(first: bytes, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(pieces):
        yield first
        async for piece in pieces:
            yield piece


def entry_json(entry: LoggedEntry) -> dict[str, Any]:
    """Return an entry as a search shows it; ``detail`` is null once the person was erased."""
    envelope = entry.envelope
    return {
        "log": entry.log,
        "index": entry.index,
        "id": str(entry.entry_id),
        **{name: envelope[name] for name in ("at", "type", "outcome", "recorder", "policy_version", "correlation")},
        "subject": envelope["subject"],
        "detail": entry.detail,
        "erased": entry.detail is None,
        "proof": proof_address(entry.entry_id),
    }


def _asked(message: dict[str, Any]) -> Asked:
    criteria: dict[str, Any] = dict(message.get("criteria", {}))
    for name in ("since", "until"):
        if name in criteria:
            criteria[name] = read_instant(criteria[name])
    if "subject" in criteria:
        criteria["subject"] = (criteria["subject"]["system"], criteria["subject"]["value"])
    return Asked(**criteria)


def _cursor(given: str | None) -> Cursor | None:
    try:
        return None if given is None else read_cursor(given)
    except ValueError:
        raise errors.BadRequest("bad-page", pointer="/after", detail=_("Siga con lo que dio «next».")) from None
