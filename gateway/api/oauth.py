"""OAuth 2.0 over HTTP: token, revocation, keys and metadata; and how a refused token is answered (RFC 6750)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.identity.errors import ScopeError, TokenError
from gateway.identity.oauth import Answer, TokenServer
from schemas.text import _

MAX_FORM_BYTES = 16 * 1024
JWKS_MAX_AGE_SECONDS = 600

OnRefusal = Callable[[TokenError], Awaitable[None]]

_FORM = "application/x-www-form-urlencoded"
_CREDENTIALS = {
    "client_assertion_type": {"const": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
    "client_assertion": {"type": "string"},
    "client_id": {"type": "string"},
}


def build_router(server: TokenServer, *, on_refusal: OnRefusal) -> APIRouter:
    """Return the routes of one authorization server; ``on_refusal`` records or counts each refused request."""
    router = APIRouter(tags=["OAuth 2.0"])

    @router.post("/oauth2/token", openapi_extra=_form_of({"grant_type": {"const": "client_credentials"}, "scope": {}}))
    async def token(request: Request) -> Response:
        """Issue an access token for client credentials with ``private_key_jwt``."""
        return await _answer(request, server.token, on_refusal)

    @router.post("/oauth2/revoke", openapi_extra=_form_of({"token": {"type": "string"}}))
    async def revoke(request: Request) -> Response:
        """Revoke an access token."""
        return await _answer(request, server.revoke, on_refusal)

    @router.get("/.well-known/jwks.json")
    async def jwks() -> Response:
        """Publish the keys that sign access tokens."""
        headers = {"Cache-Control": f"public, max-age={JWKS_MAX_AGE_SECONDS}"}
        return Response(orjson.dumps(server.ring.jwks()), 200, headers, "application/jwk-set+json")

    # RFC 8414 section 3.1: the well-known part goes between the host and the issuer's path.
    @router.get(f"/.well-known/oauth-authorization-server{server.issuer.path}")
    async def metadata() -> Response:
        """Describe this authorization server."""
        headers = {"Cache-Control": f"public, max-age={JWKS_MAX_AGE_SECONDS}"}
        return Response(orjson.dumps(server.metadata()), 200, headers, "application/json")

    return router


def bearer_challenge(error: TokenError) -> str:
    """Return the ``WWW-Authenticate`` value for a refused token (RFC 6750 section 3), the same for every reason.

    A request without a bearer token gets no error code; a lack of scope names the scope (and goes with 403, the
    others with 401).
    """
    if isinstance(error, ScopeError):
        return f'Bearer realm="siis", error="insufficient_scope", scope="{error.scope}"'
    if error.reason == "missing":
        return 'Bearer realm="siis"'
    return 'Bearer realm="siis", error="invalid_token"'


async def _answer(request: Request, respond: Callable[..., Awaitable[Answer]], on_refusal: OnRefusal) -> Response:
    body = await _read(request)
    if body is None:
        answer = _too_large()
    else:
        answer = await respond(
            body,
            content_type=request.headers.get("content-type", ""),
            authorization=request.headers.get("authorization"),
        )
    if answer.refusal is not None:
        await on_refusal(answer.refusal)
    return Response(orjson.dumps(answer.body), answer.status, answer.headers, "application/json")


async def _read(request: Request) -> bytes | None:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_FORM_BYTES:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large() -> Answer:
    # RFC 6749 section 5.2 allows ASCII only in the description.
    body = {"error": "invalid_request", "error_description": _("El formulario supera 16 KiB.")}
    return Answer(413, body, {"Cache-Control": "no-store", "Connection": "close"}, TokenError("too-large"))


def _form_of(properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": {**properties, **_CREDENTIALS}}
    return {"requestBody": {"required": True, "content": {_FORM: {"schema": schema}}}}
