"""Reads a request at the door: who calls, the body within its limit, strict JSON against its schema."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from consent.models import Caller
from gateway import errors
from gateway.api import problems
from gateway.identity.errors import TokenError
from gateway.identity.models import ClaimedOperator, VerifiedCaller, VerifiedOperator
from gateway.identity.tokens import TokenChecker
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

    def caller(self, request: Request, scope: str) -> VerifiedCaller:
        """Return who calls; raises TokenError, ScopeError or DirectoryUnavailable."""
        given = request.headers.getlist("authorization")
        # A proxy in front may have believed the other one (RFC 9110 clause 5.3: this header comes once).
        if len(given) > 1:
            raise TokenError("malformed")
        verified = self.checker.check(given[0] if given else None)
        verified.require(scope)
        return verified

    def with_operator(self, request: Request, verified: VerifiedCaller, message: Any) -> Caller:
        """Return the caller for a decision, with the operator that the request proves or only claims."""
        claimed = None
        named = message.get("operator") if isinstance(message, dict) else None
        if named is not None:
            claimed = ClaimedOperator(named["id"], frozenset(named.get("roles", ("operator",))))
        assertion = request.headers.get(OPERATOR_HEADER)
        return domain_caller(self.checker.with_operator(verified, assertion=assertion, claimed=claimed))

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


def domain_caller(verified: VerifiedCaller) -> Caller:
    """Return a verified caller in the words of the decision; without an operator it acts as a system."""
    operator = verified.operator
    return Caller(
        client_id=verified.client_id,
        institution=verified.institution,
        user=None if operator is None else operator.id,
        user_verified=isinstance(operator, VerifiedOperator),
        roles=frozenset({"system"}) if operator is None else operator.roles,
        assurance=verified.assurance,
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


def too_large(limit: int) -> Response:
    """Build the answer to a body over the limit."""
    return problems.problem(
        413,
        "too-large",
        _("El cuerpo es demasiado grande"),
        detail=_("Se aceptan hasta {limit} bytes.").format(limit=limit),
        headers={"Connection": "close"},
    )
