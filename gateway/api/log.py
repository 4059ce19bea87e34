"""The log as others read it, under ``/audit/log``: checkpoints, tiles, proofs, the policy (C2SP), and entry bundles.

Hashes say nothing of anybody, so they are for everyone; entry bundles hold pseudonyms, so they are for the auditors of
the coordinator, and each of their readings is an entry first.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from typing import NamedTuple, TypeVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from audit.errors import AuditUnavailable, LogBroken
from audit.proofs import accepted_by, logs, prove, signed_head
from audit.published import Published
from audit.retention import was_pruned
from audit.tiles import WIDTH, TileKey
from audit.verify import format_proof, parse_policy
from gateway import errors
from gateway.api import problems
from gateway.api.request import Door
from gateway.catalogue.models import COORDINATOR
from gateway.database import Database
from gateway.governance.service import Governance
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_uuid
from schemas.text import _

PREFIX = "/audit/log"
READ = "audit.read"
_TEXT, _BYTES = "text/plain; charset=utf-8", "application/octet-stream"
_FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}
# A checkpoint is signed each second; a proof is renewed when witnesses have signed, each minute.
_SECONDS = {"Cache-Control": "public, max-age=2"}
_A_MINUTE = {"Cache-Control": "public, max-age=60"}
_READY_IN_S = "2"
_LOG = re.compile(r"[0-9]{4}\Z", re.ASCII)
# No leading zeroes but those that fill an element up to three digits, so that a tile has one address.
_PLACE = re.compile(r"((?:x[0-9]{3}/){0,6})([0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?\Z", re.ASCII)
_LEVEL = re.compile(r"(?:[0-9]|[1-5][0-9]|6[0-3])\Z", re.ASCII)

T = TypeVar("T")


class Place(NamedTuple):
    """Which tile or bundle of a level is asked for, and how many of its entries."""

    number: int
    width: int


def build_router(
    door: Door, governance: Governance, published: Published, policy: Callable[[Iterable[int]], str]
) -> APIRouter:
    """Return all routes of the log; ``policy`` is that of :func:`build_public_router`."""
    router = APIRouter()
    # First: to the other one, "entries" is a level that does not exist.
    router.include_router(build_entries_router(door, governance, published))
    router.include_router(build_public_router(governance.database, published, policy))
    return router


def build_public_router(database: Database, published: Published, policy: Callable[[Iterable[int]], str]) -> APIRouter:
    """Return the routes for everyone; ``policy`` gives the C2SP tlog-policy to verify the logs of these years by."""
    router = APIRouter(tags=["Registro"])

    @lru_cache(maxsize=16)
    def accepted(years: tuple[int, ...]) -> Callable[[str], bool]:
        return accepted_by(parse_policy(policy(years)))

    @router.get(f"{PREFIX}/policy")
    async def read_policy() -> Response:
        """Return whose signatures count for our logs (C2SP tlog-policy)."""
        async with database.connection() as connection:
            years = await logs(connection)
        return Response(policy(years), 200, _A_MINUTE, _TEXT)

    @router.get(f"{PREFIX}/proof/{{entry_id}}")
    async def proof(entry_id: str) -> Response:
        """Return the proof that an entry is in the log (C2SP tlog-proof), for whoever has the receipt."""
        try:
            wanted = parse_uuid(entry_id)
        except InvalidIdentifier:
            return problems.not_found()
        async with database.connection() as connection:
            found = await _proven(prove(connection, wanted, accepted(tuple(await logs(connection)))))
            gone = found is None and await was_pruned(connection, wanted)
        if gone:
            return _pruned()
        if found is None:
            return _not_yet()
        text = format_proof(found.place.index, found.hashes, found.head.note)
        return Response(text, 200, _A_MINUTE, _TEXT)

    @router.get(f"{PREFIX}/{{log}}/checkpoint")
    async def checkpoint(log: str) -> Response:
        """Return the newest checkpoint of a year's log, with the signatures of witnesses (C2SP tlog-checkpoint)."""
        if not _LOG.match(log):
            return problems.not_found()
        async with database.connection() as connection:
            head = await signed_head(connection, int(log), accepted=accepted((int(log),)))
        return problems.not_found() if head is None else Response(head.note, 200, _SECONDS, _TEXT)

    @router.get(f"{PREFIX}/{{log}}/tile/{{level}}/{{place:path}}")
    async def tile(request: Request, log: str, level: str, place: str) -> Response:
        """Return 256 hashes of the tree, or fewer of a tile that still grows (C2SP tlog-tiles)."""
        asked = _place(request, log, place)
        if asked is None or not _LEVEL.match(level):
            return problems.not_found()
        hashes = await _proven(published.tile(int(log), TileKey(int(level), asked.number), asked.width))
        return problems.not_found() if hashes is None else Response(hashes, 200, _FOR_EVER, _BYTES)

    return router


def build_entries_router(door: Door, governance: Governance, published: Published) -> APIRouter:
    """Return the route for auditors of the coordinator."""
    router = APIRouter(tags=["Registro"])

    @router.get(f"{PREFIX}/{{log}}/tile/entries/{{place:path}}")
    async def entries(request: Request, log: str, place: str) -> Response:
        """Return 256 entries as they were hashed, or fewer at the end of the log (C2SP tlog-tiles)."""
        verified = door.caller(request, READ)
        request.state.verified = verified
        caller = door.with_operator(request, verified, None)
        await governance.authorise(caller, READ)
        asked = _place(request, log, place)
        if caller.institution != COORDINATOR or asked is None:
            raise errors.NotFound("not-found")
        if not await published.covers(int(log), asked.number, asked.width):
            raise errors.NotFound("not-found")
        first = asked.number * WIDTH
        await governance.note_reading(caller, "log.read", {"log": int(log), "from": first, "limit": asked.width})
        found = await published.entries(int(log), asked.number, asked.width)
        if found is None:
            raise errors.NotFound("not-found")
        return Response(found, 200, {"Cache-Control": "no-store"}, _BYTES)

    return router


def _place(request: Request, log: str, path: str) -> Place | None:
    """Read ``x001/x234/067`` or ``x001/x234/067.p/12``; ``None`` for anything that is not exactly such an address."""
    match = _PLACE.match(path)
    if match is None or not _LOG.match(log) or b"%" in (request.scope.get("raw_path") or b""):
        return None
    above, last, width = match.groups()
    # An index has one address: the first element is never that of nothing.
    if above.startswith("x000") or (width is not None and int(width) >= WIDTH):
        return None
    number = int(above.replace("x", "").replace("/", "") + last)
    return Place(number, WIDTH if width is None else int(width))


async def _proven(reading: Awaitable[T]) -> T:
    """Wait for what is read of the tree; a tree that contradicts itself is no answer for anybody."""
    try:
        return await reading
    except LogBroken as error:
        raise AuditUnavailable("the tree cannot be read") from error


def _pruned() -> Response:
    return problems.problem(
        410,
        "entry-pruned",
        _("La entrada se quitó del registro al vencer su plazo"),
        detail=_("La prueba que se guardó antes sigue valiendo; ya no se puede hacer otra."),
    )


def _not_yet() -> Response:
    return problems.problem(
        404,
        "proof-not-ready",
        _("Todavía no hay una prueba de esta entrada"),
        detail=_("Un recibo tiene su prueba segundos después; si sigue sin ella, el recibo no es de este registro."),
        headers={"Retry-After": _READY_IN_S},
    )
