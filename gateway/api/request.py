"""Reads a request at the door: who calls, the body within its limit, strict JSON against its schema."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from audit.models import Receipt
from consent.models import Caller
from gateway import errors
from gateway.api import problems
from gateway.identity.binding import Presented
from gateway.identity.errors import TokenError
from gateway.identity.limits import ClientLimits
from gateway.identity.models import ClaimedOperator, Issuer, VerifiedCaller, VerifiedOperator
from gateway.identity.peer import Peer, Proxies
from gateway.identity.tokens import TokenChecker
from gateway.registry.lookup import SubjectLookup
from schemas.text import _
from schemas.validation import parse_json, validate

JSON = "application/json"
OPERATOR_HEADER = "X-SIIS-Operator"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}\Z")
_KEY = re.compile(r"[\x21-\x7e]{1,128}\Z")


class TooLarge(Exception):
    """The body is over the limit."""


class UnsupportedMediaType(Exception):
    """The body is of a media type that the route does not take; the text names those that it takes."""


@dataclass(frozen=True, slots=True)
class Door:
    """What the routes need to let a request in."""

    checker: TokenChecker
    max_body_bytes: int
    issuer: Issuer
    proxies: Proxies
    limits: ClientLimits
    subjects: SubjectLookup | None = None

    def caller(self, request: Request, scope: str | None) -> VerifiedCaller:
        """Return who calls; raises TokenError (ScopeError, TooMany) or DirectoryUnavailable. No scope: any will do."""
        headers = telling_headers(request.scope)
        try:
            verified = getattr(request.state, "proven", None)
            if isinstance(verified, Exception):
                raise verified
            if verified is None:
                authorization = _authorization(headers)
                verified = self.checker.check(authorization, self._presented(request, headers))
            # A citizen has a share of their own, not of all who come by the same issuer.
            self.limits.request(verified.client_id if verified.person is None else "\n".join(verified.person))
            if scope is not None:
                verified.require(scope)
        except TokenError as error:
            error.scheme = "DPoP" if self.wants_proof(request.scope) else "Bearer"
            error.address = address_of(request)
            raise
        return verified

    async def prove(self, request: Request) -> VerifiedCaller:
        """Return who calls under a DPoP proof, which counts once; raises as :meth:`caller`, and SQLAlchemyError."""
        headers = telling_headers(request.scope)
        return await self.checker.check_once(_authorization(headers), self._presented(request, headers))

    def wants_proof(self, scope: Scope) -> bool:
        """Return whether a request comes with a token of the DPoP scheme (RFC 9449 section 7.1)."""
        return any(name == b"authorization" and value[:5].lower() == b"dpop " for name, value in scope["headers"])

    def _presented(self, request: Request, headers: dict[bytes, list[str]]) -> Presented:
        peer = peer_of(request.scope, headers, self.proxies)
        request.state.address = peer.address or None
        proofs = headers.get(b"dpop")
        if not proofs:
            return Presented(peer)
        # The address is that of the configured issuer: what the request says of its host is not to be trusted.
        path = (request.scope.get("raw_path") or request.scope["path"].encode()).decode("latin-1").partition("?")[0]
        return Presented(peer, tuple(proofs), request.method, self.issuer.url + path)

    def with_operator(self, request: Request, verified: VerifiedCaller, message: Any) -> Caller:
        """Return the caller for a decision, with the operator that the request proves or only claims."""
        claimed = None
        named = message.get("operator") if isinstance(message, dict) else None
        if named is not None:
            claimed = ClaimedOperator(named["id"], frozenset(named.get("roles", ("operator",))))
        assertion = request.headers.get(OPERATOR_HEADER)
        proven = self.checker.with_operator(verified, assertion=assertion, claimed=claimed)
        return domain_caller(proven, address_of(request))

    async def acting(self, request: Request, verified: VerifiedCaller, message: Any) -> Caller:
        """Return the caller as :meth:`with_operator` does, or the person who comes with a token of their own.

        Raises NotFound for a person whom our store does not know.
        """
        caller = self.with_operator(request, verified, message)
        if verified.person is None or self.subjects is None:
            return caller
        who, _facts = await self.subjects.find(*verified.person)
        if who is None:
            raise errors.NotFound("not-found")
        return replace(caller, person=who.id)

    async def body(self, request: Request, *, also: str | None = None) -> bytes:
        """Read a body of JSON or, where ``also`` names one, of another media type.

        Raises :class:`UnsupportedMediaType`, or :class:`TooLarge` without reading beyond the limit.
        """
        given = media_type(request)
        # Without the header the recipient may look for itself (RFC 9110 clause 8.3): JSON is all we look for.
        if given not in ("", JSON, also):
            raise UnsupportedMediaType(f"{JSON}, {also}" if also else JSON)
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self.max_body_bytes:
            raise TooLarge
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self.max_body_bytes:
                raise TooLarge
            parts.append(part)
        return b"".join(parts)


def domain_caller(verified: VerifiedCaller, address: str | None = None) -> Caller:
    """Return a verified caller in the words of the decision; without an operator it acts as a system."""
    operator = verified.operator
    return Caller(
        client_id=verified.client_id,
        institution=verified.institution,
        user=None if operator is None else operator.id,
        user_verified=isinstance(operator, VerifiedOperator),
        roles=frozenset({"system"}) if operator is None else operator.roles,
        assurance=verified.assurance,
        pilot=verified.pilot,
        authenticated_at=operator.authenticated_at if isinstance(operator, VerifiedOperator) else None,
        address=address,
        bound_to=verified.bound_to,
    )


def address_of(request: Request) -> str | None:
    """Return where a request came from, as our proxies tell it; None before the door looked at it."""
    address: str | None = getattr(request.state, "address", None)
    return address


def peer_of(scope: Scope, headers: dict[bytes, list[str]], proxies: Proxies) -> Peer:
    """Return the far end of a request, as our proxies tell of it where it came through one."""
    client = scope.get("client")
    return proxies.peer(
        client[0] if client else "",
        client_cert=headers.get(b"client-cert", ()),
        forwarded_for=headers.get(b"x-forwarded-for", ()),
    )


def read_message(name: str, body: bytes) -> dict[str, Any]:
    """Return the message of a body, strictly read and valid; raises SchemaError."""
    message = parse_json(body)
    validate(name, message)
    return dict(message)


def media_type(request: Request) -> str:
    """Return the media type of the body without its parameters, in lower case; empty when none is given."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def correlation(request: Request) -> str | None:
    """Return the trace id of a ``traceparent`` header (W3C Trace Context), if it is one."""
    match = _TRACEPARENT.match(request.headers.get("traceparent", ""))
    return match[1] if match and match[1] != "0" * 32 else None


def idempotency_key(request: Request) -> str:
    """Return the ``Idempotency-Key``; raises BadRequest unless there is one, of 1 to 128 printable characters."""
    given = request.headers.getlist("idempotency-key")
    if len(given) != 1 or not _KEY.match(given[0]):
        raise errors.BadRequest("missing-idempotency-key")
    return given[0]


def too_large(limit: int, receipt: Receipt | None = None) -> Response:
    """Build the answer to a body over the limit."""
    return problems.problem(
        413,
        "too-large",
        _("El cuerpo es demasiado grande"),
        detail=_("Se aceptan hasta {limit} bytes.").format(limit=limit),
        receipt=receipt,
        headers={"Connection": "close"},
    )


# What tells who sends a request; read in one pass, since every request pays for it.
_TELLING = frozenset({b"authorization", b"dpop", b"client-cert", b"x-forwarded-for"})


def telling_headers(scope: Scope) -> dict[bytes, list[str]]:
    """Return the headers of a request that tell who sends it, each with all its values."""
    found: dict[bytes, list[str]] = {}
    for name, value in scope["headers"]:
        if name in _TELLING:
            found.setdefault(name, []).append(value.decode("latin-1"))
    return found


def _authorization(headers: dict[bytes, list[str]]) -> str | None:
    given = headers.get(b"authorization", [])
    # A proxy in front may have believed the other one (RFC 9110 clause 5.3: this header comes once).
    if len(given) > 1:
        raise TokenError("malformed")
    return given[0] if given else None
