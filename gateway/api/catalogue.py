"""The catalogue over HTTP: what is offered, for everyone; changed by the coordinator's administrators.

Reading needs no token: no person is in it, HSDS shows the same, and a portal or a poster has none. Who changed what
names officials, so the revisions are for those who may change it.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import orjson
from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import Response

from consent.models import Actor, Caller
from gateway import errors
from gateway.api.documentation import body_of
from gateway.api.request import Door, correlation, idempotency_key, read_message
from gateway.api.supply import Answers, shown
from gateway.catalogue import changes, store
from gateway.catalogue.changes import MANAGE, MESSAGE
from gateway.catalogue.models import COORDINATOR, KINDS, Item, Items
from gateway.catalogue.service import Catalogue
from gateway.commands import Command, Done
from gateway.governance.service import Governance, Work
from gateway.standards.hsds.files import Unreadable, read_json
from gateway.standards.hsds.reading import read_tables
from schemas.text import _

_PATH = "/api/v1/catalogue"
_HSDS = "catalogue-hsds"


def build_router(door: Door, governance: Governance, catalogue: Catalogue) -> APIRouter:
    """Return the routes of the catalogue."""
    router = APIRouter(tags=["Catálogo"])
    answers = Answers()

    @router.get(f"{_PATH}/{{kind}}")
    async def entries(request: Request, kind: str) -> Response:
        """List the entries of a kind, as they are or (``?on=``) as they were at the end of a day."""
        if kind not in KINDS:
            raise errors.NotFound("not-found")
        on = _day(request)
        if on is not None:
            async with governance.database.connection() as connection:
                return shown(request, orjson.dumps(_list(kind, await store.current(connection, on=on))))
        items = await catalogue.items()
        return answers.known(request, items) or answers.make(request, _list(kind, items))

    @router.get(f"{_PATH}/{{kind}}/{{code}}")
    async def entry(request: Request, kind: str, code: str) -> Response:
        """Show one entry."""
        items = await catalogue.items()
        item = items.get(kind, {}).get(code)
        if item is None:
            raise errors.NotFound("not-found")
        return shown(request, orjson.dumps(_entry(code, item)))

    @router.get(f"{_PATH}/{{kind}}/{{code}}/revisions")
    async def revisions(request: Request, kind: str, code: str) -> Response:
        """Show every revision of an entry: who, when, and what was before and after."""
        caller = await _caller(request)
        await governance.authorise(caller, MANAGE)
        async with governance.database.connection() as connection:
            found = await store.history(connection, kind, code)
        if not found or caller.institution != COORDINATOR:
            raise errors.NotFound("not-found")
        body = {"kind": kind, "code": code, "revisions": [changes.revision_json(each) for each in found]}
        return Response(orjson.dumps(body), 200, {"Cache-Control": "no-store"}, "application/json")

    @router.post(f"{_PATH}/changes", status_code=201, openapi_extra=body_of(MESSAGE))
    async def change(request: Request) -> Response:
        """Change entries, all of the message or nothing; each is whole, null withdraws one."""
        caller, body, key = await _creating(request)
        message = read_message(MESSAGE, body)

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            return await changes.change(connection, message, actor=actor, at=at)

        return _created(await _done(request, caller, work, Command(caller.client_id, f"{MESSAGE}:{key}", body)))

    @router.post(f"{_PATH}/imports", status_code=201)
    async def import_(request: Request) -> Response:
        """Take JSON of HSDS 3.0 (an object, list or page), all of it or nothing; the answer names what is not kept."""
        caller, body, key = await _creating(request)
        try:
            tables = read_json("", body)
        except Unreadable as error:
            raise errors.BadRequest("bad-catalogue", detail=error.why) from None
        not_kept: list[dict[str, str]] = []

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            read = read_tables(tables, await store.current(connection))
            if read.mistakes:
                raise errors.Invalid("bad-catalogue", read.mistakes)
            not_kept.extend(each._asdict() for each in read.not_kept)
            return await changes.change(connection, read.message, actor=actor, at=at)

        done = await _done(request, caller, work, Command(caller.client_id, f"{_HSDS}:{key}", body))
        return _created(done, not_kept=not_kept)

    async def _caller(request: Request) -> Caller:
        verified = door.caller(request, MANAGE)
        request.state.verified = verified
        return await door.acting(request, verified, None)

    async def _creating(request: Request) -> tuple[Caller, bytes, str]:
        caller = await _caller(request)
        return caller, await door.body(request), idempotency_key(request)

    async def _done(request: Request, caller: Caller, work: Work, command: Command) -> Done:
        return await governance.change(caller, MANAGE, work, command=command, correlation=correlation(request))

    return router


def _created(done: Done, **more: Any) -> Response:
    headers = {"Idempotency-Replayed": "true"} if done.replayed else None
    said = more if not done.replayed else {}
    return Response(orjson.dumps(done.answer | said), done.status, headers, "application/json")


def _list(kind: str, items: Items) -> dict[str, Any]:
    return {kind: [_entry(code, item) for code, item in items[kind].items()]}


def _entry(code: str, item: Item) -> dict[str, Any]:
    return {"code": code, "revision": item.revision, "since": item.at, **item.document}


def _day(request: Request) -> date | None:
    given = request.query_params.get("on")
    try:
        return None if given is None else date.fromisoformat(given)
    except ValueError:
        detail = _("Se esperaba un día como 2026-11-20.")
        raise errors.BadRequest("bad-page", pointer="/on", detail=detail) from None
