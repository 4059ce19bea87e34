"""Settles requests under a DPoP proof before their route sees them: the database knows which proofs were used.

Routes ask who calls without waiting (:meth:`gateway.api.request.Door.caller`); what had to be waited for is done here.
"""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api.request import Door
from gateway.identity.errors import DirectoryUnavailable, TokenError


def settle_proofs(app: ASGIApp, door: Door) -> ASGIApp:
    """Return the application with every DPoP proof (RFC 9449 section 7) taken once before it; the rest passes by."""

    async def settling(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and door.wants_proof(scope):
            request = Request(scope)
            try:
                request.state.proven = await door.prove(request)
            except (TokenError, DirectoryUnavailable, SQLAlchemyError, OSError) as error:
                # The route has its own way of answering this, and may want no token at all.
                request.state.proven = error
        await app(scope, receive, send)

    return settling
