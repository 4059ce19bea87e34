"""Who may look into an access token, and what is told of it (RFC 7662): of one that does not count, nothing at all."""

from __future__ import annotations

from typing import Any

from authlib.oauth2.rfc6749.errors import InvalidRequestError
from authlib.oauth2.rfc7662 import IntrospectionEndpoint

from gateway.identity.authentication import METHODS, Authenticated, TokenRequest
from gateway.identity.errors import TokenError
from gateway.identity.tokens import Standing

SCOPE = "tokens.introspect"
_TOLD = ("iss", "sub", "aud", "client_id", "iat", "exp", "jti", "inst", "cnf")


class Introspection(IntrospectionEndpoint):  # type: ignore[misc]
    """The endpoint: a client sees its own tokens, and everybody's if it has the scope for that."""

    CLIENT_AUTH_METHODS = METHODS

    def check_params(self, request: TokenRequest, client: Authenticated) -> None:
        """Want a token; a hint that we do not know is ignored, since there is one kind of token anyway."""
        if "token" not in request.form:
            raise InvalidRequestError

    def query_token(self, token_string: str, token_type_hint: str | None) -> Found | None:
        """Return the token if it counts."""
        try:
            return Found(self.server.standing(token_string))
        except TokenError:
            return None

    def check_permission(self, token: Found, client: Authenticated, request: TokenRequest) -> bool:
        """Return whether this client may look into this token; if not, the log hears of it and the client does not."""
        if token.standing.client.id == client.client.id or SCOPE in client.client.scopes:
            return True
        request.unspoken = TokenError("introspection", client.client.id, pilot=client.pilot)
        return False

    def introspect_token(self, token: Found) -> dict[str, Any]:
        """Return what RFC 7662 section 2.2 names, RFC 8705 section 3.2 and RFC 9449 section 6.2 (``cnf``)."""
        found = token.standing
        told = {name: found.claims[name] for name in _TOLD if name in found.claims}
        kind = "Bearer" if found.binding.jkt is None else "DPoP"
        return {"active": True, "token_type": kind, "scope": " ".join(sorted(found.scopes)), **told}


class Found:
    """A token that counts, in the shape the endpoint asks for."""

    def __init__(self, standing: Standing) -> None:
        self.standing = standing

    def is_expired(self) -> bool:
        """Return False: one that has expired does not count."""
        return False

    def is_revoked(self) -> bool:
        """Return False: one that was revoked does not count."""
        return False
