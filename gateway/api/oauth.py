"""OAuth 2.0 over HTTP: token, revocation, introspection, keys, metadata; and how a refused token is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response

from audit.models import Receipt
from gateway.api.request import peer_of, telling_headers
from gateway.commands import receipt_headers, receipt_json
from gateway.identity.binding import Presented
from gateway.identity.errors import ProofError, ScopeError, TokenError
from gateway.identity.keys import ALGORITHM, JWKS_MAX_AGE_SECONDS
from gateway.identity.oauth import TokenServer
from gateway.identity.peer import NOBODY, Proxies
from gateway.identity.replies import Answer
from schemas.text import _

MAX_FORM_BYTES = 16 * 1024

OnRefusal = Callable[[TokenError], Awaitable[Receipt | None]]

_FORM = "application/x-www-form-urlencoded"
_CREDENTIALS = {
    "client_assertion_type": {"const": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
    "client_assertion": {"type": "string"},
    "client_id": {"type": "string"},
    "client_secret": {"type": "string"},
}


def build_router(server: TokenServer, *, on_refusal: OnRefusal, proxies: Proxies = NOBODY) -> APIRouter:
    """Return the routes of one authorization server; ``on_refusal`` records or counts each refused request, and gives
    the receipt of what it recorded.

    What ``proxies`` say of the caller's address and certificate is believed, what others say is not.
    """
    router = APIRouter(tags=["OAuth 2.0"])

    async def answer(request: Request, respond: Callable[..., Awaitable[Answer]]) -> Response:
        headers = telling_headers(request.scope)
        presented = Presented(peer_of(request.scope, headers, proxies), tuple(headers.get(b"dpop", ())))
        return await _answer(request, respond, headers.get(b"authorization", []), presented, on_refusal)

    @router.post("/oauth2/token", openapi_extra=_form_of({"grant_type": {"const": "client_credentials"}, "scope": {}}))
    async def token(request: Request) -> Response:
        """Issue an access token for client credentials."""
        return await answer(request, server.token)

    @router.post("/oauth2/revoke", openapi_extra=_form_of({"token": {"type": "string"}}))
    async def revoke(request: Request) -> Response:
        """Revoke an access token."""
        return await answer(request, server.revoke)

    @router.post("/oauth2/introspect", openapi_extra=_form_of({"token": {"type": "string"}}))
    async def introspect(request: Request) -> Response:
        """Say whether an access token counts, and what it says."""
        return await answer(request, server.introspect)

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
        return Response(
            orjson.dumps(server.metadata(certificates=bool(proxies.networks))), 200, headers, "application/json"
        )

    return router


def bearer_challenge(error: TokenError) -> str:
    """Return the ``WWW-Authenticate`` value for a refused token, the same for every reason that the token itself gives.

    RFC 6750 section 3 and, for a token of the DPoP scheme, RFC 9449 section 7.1. A request without a token gets no
    error code and learns of both schemes; a lack of scope names the scope (and goes with 403, the others with 401).
    """
    if error.reason == "missing":
        return f'Bearer realm="siis", DPoP algs="{ALGORITHM}"'
    code = "invalid_dpop_proof" if isinstance(error, ProofError) else "invalid_token"
    if isinstance(error, ScopeError):
        code = f'insufficient_scope", scope="{error.scope}'
    if error.scheme == "DPoP":
        return f'DPoP realm="siis", error="{code}", algs="{ALGORITHM}"'
    return f'Bearer realm="siis", error="{code}"'


async def _answer(
    request: Request,
    respond: Callable[..., Awaitable[Answer]],
    authorization: list[str],
    presented: Presented,
    on_refusal: OnRefusal,
) -> Response:
    body = await _read(request)
    if body is None:
        answer = _too_large()
    else:
        answer = await respond(
            body,
            content_type=request.headers.get("content-type", ""),
            # Two of them make no way of authentication that there is.
            authorization=", ".join(authorization) if authorization else None,
            presented=presented,
        )
    headers = answer.headers
    if answer.refusal is not None:
        answer.refusal.address = presented.peer.address or None
        receipt = await on_refusal(answer.refusal)
        # RFC 6749 section 5.2 says what the body holds.
        headers = {**headers, **receipt_headers(None if receipt is None else receipt_json(receipt))}
    return Response(orjson.dumps(answer.body), answer.status, headers, "application/json")


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
