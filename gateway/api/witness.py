"""The witness as a server of its own (C2SP tlog-witness): ``POST /add-checkpoint``, its statuses to the letter.

It runs at another institution and shares nothing with the gateway whose log it watches.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from audit import witness
from audit.witness import REQUEST_BYTES, Witness, cosign
from gateway.database import Database

PATH = "/add-checkpoint"
_log = structlog.get_logger(__name__)
_STATUS: dict[type[witness.Refused], int] = {
    witness.Malformed: 400,
    witness.BadSignature: 403,
    witness.UnknownLog: 404,
    witness.BadProof: 422,
}


def create_witness(database: Database, who: Witness, now: Callable[[], datetime]) -> Starlette:
    """Build the application over a database with the witness's table; the caller closes the database."""

    async def add_checkpoint(request: Request) -> Response:
        try:
            body = await _body(request)
        except ClientDisconnect:
            return Response(status_code=400)
        if body is None:
            return _refusal(413, "the request is too large")
        try:
            async with database.connection() as connection:
                line = await cosign(connection, body, who, now)
        except witness.Conflict as refusal:
            # The usual case is a log that asks for the first time and learns from this where to start.
            return Response(f"{refusal.size}\n", 409, {"Content-Type": "text/x.tlog.size"})
        except witness.Refused as refusal:
            return _refusal(_STATUS[type(refusal)], str(refusal))
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            _log.error("witness.without_database", error=type(error).__name__)
            return _refusal(503, "the witness cannot store what it would sign")
        return PlainTextResponse(f"{line}\n")

    return Starlette(routes=[Route(PATH, add_checkpoint, methods=["POST"])])


async def _body(request: Request) -> bytes | None:
    """Read the body; ``None`` if it is longer than any request of the format, without reading on."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > REQUEST_BYTES:
        return None
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > REQUEST_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


def _refusal(status: int, why: str) -> Response:
    _log.info("witness.refused", status=status, why=why)
    return PlainTextResponse(f"{why}\n", status)
