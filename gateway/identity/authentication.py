"""How a client proves who it is to the authorization server: by key, by certificate or, as a pilot, by secret.

One way per request (RFC 6749 section 2.3). A certificate beside an assertion is no second way: it binds the token.
"""

from __future__ import annotations

import asyncio
import binascii
from base64 import b64decode
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import unquote_plus

from authlib.oauth2 import OAuth2Request
from authlib.oauth2.rfc6749 import ClientMixin
from authlib.oauth2.rfc6749.errors import InvalidClientError, InvalidRequestError
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload

from gateway.database import Database
from gateway.identity import service
from gateway.identity.binding import UNBOUND, Binding, Presented
from gateway.identity.credentials import client_keys, credential_end, secret_matches
from gateway.identity.directory import ClientDirectory
from gateway.identity.errors import TokenError
from gateway.identity.jose import check_times, open_compact, unverified
from gateway.identity.models import Client, Credential, Issuer
from gateway.identity.operators import CLOCK_LEEWAY_SECONDS
from gateway.identity.peer import admit, in_force

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
GRANT = "client_credentials"
KEY, CERTIFICATE, BASIC, POST = "private_key_jwt", "tls_client_auth", "client_secret_basic", "client_secret_post"
METHODS = (KEY, CERTIFICATE, BASIC, POST)
ASSERTION_SECONDS = 300
# No typ, the generic one, and the one that draft-ietf-oauth-rfc7523bis registers.
_ASSERTION_TYPES = frozenset({"", "jwt", "client-authentication+jwt"})
_LONGEST_ID = 64

T = TypeVar("T")


class TokenRequest(OAuth2Request):  # type: ignore[misc]
    """A form posted to one of our addresses, as configured: what a proxy says about them does not matter."""

    def __init__(self, address: str, form: dict[str, str], authorization: str | None, presented: Presented) -> None:
        super().__init__("POST", address, headers={"authorization": authorization} if authorization else {})
        self.payload = BasicOAuth2Payload(form)
        self.authorization, self.presented = authorization, presented
        self.proven: Authenticated | None = None
        # A refusal that the caller is not told of.
        self.unspoken: TokenError | None = None
        self.loop: asyncio.AbstractEventLoop

    @property
    def form(self) -> dict[str, str]:
        """The fields of the form that have a value."""
        form: dict[str, str] = self.payload.data
        return form

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` on the event loop and wait for it in this thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


class Refused(InvalidClientError):  # type: ignore[misc]
    """Client authentication failed; carries the reason for the log and the scheme of the challenge."""

    status_code = 401

    def __init__(self, cause: TokenError, scheme: str = "Bearer") -> None:
        super().__init__()
        self.cause, self.scheme = cause, scheme


class Authenticated(ClientMixin):  # type: ignore[misc]
    """A client that has just proven who it is, with what, and to what its token will be bound."""

    def __init__(self, client: Client, credential: Credential, method: str) -> None:
        self.client, self.credential, self.method = client, credential, method
        self.binding: Binding = UNBOUND

    def get_client_id(self) -> str:
        """Return the client's id."""
        return self.client.id

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        """Return whether this is how the client proved itself."""
        return method == self.method

    def check_grant_type(self, grant_type: str) -> bool:
        """Return whether the client may use a grant: there is one."""
        return grant_type == GRANT

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """All of the client's scopes when none is asked for (RFC 6749 section 3.3); None when too much is."""
        asked = frozenset(scope.split(" ")) if scope else self.client.scopes
        return " ".join(sorted(asked)) if asked <= self.client.scopes else None

    @property
    def pilot(self) -> bool:
        """Whether a secret was all the proof there was."""
        return self.credential.kind == "secret"


class Authenticator:
    """Says which client sent a request; runs in a worker thread."""

    def __init__(
        self, *, issuer: Issuer, directory: ClientDirectory, database: Database, now: Callable[[], datetime]
    ) -> None:
        """``now`` gives UTC instants."""
        self._issuer, self._directory, self._database, self._now = issuer, directory, database, now

    def authenticate(
        self, method: str, _query_client: Callable[[str], Client | None], request: TokenRequest
    ) -> Authenticated | None:
        """Return the client if it uses this method, None if it uses another.

        Raises InvalidRequestError for two methods at once, and :class:`Refused`.
        """
        if _method_of(request) != method:
            return None
        find = {KEY: self._by_key, CERTIFICATE: self._by_certificate, BASIC: self._by_basic, POST: self._by_post}
        try:
            client, credential = find[method](request)
        except TokenError as error:
            raise Refused(error, "Basic" if method == BASIC else "Bearer") from None
        request.proven = Authenticated(client, credential, method)
        return request.proven

    def _by_key(self, request: TokenRequest) -> tuple[Client, Credential]:
        """RFC 7523 section 2.2."""
        form, now = request.form, self._now()
        if form.get("client_assertion_type") != ASSERTION_TYPE or "client_assertion" not in form:
            raise TokenError("missing")
        candidates: list[Client] = []

        def find(kid: str | None, claims: dict[str, Any]) -> Any:
            client = self._find(claims.get("sub"))
            if client is None:
                raise TokenError("client-unknown")
            candidates.append(client)
            return client_keys(client, kid, now)

        opened = open_compact(form["client_assertion"], types=_ASSERTION_TYPES, find_keys=find)
        (client,) = candidates
        try:
            self._check_claims(opened.claims, client, form.get("client_id"), now)
            admit(client, request.presented.peer)
            jti = opened.claims.get("jti")
            if not isinstance(jti, str) or not jti.isprintable() or not 1 <= len(jti) <= 256:
                raise TokenError("claims")
            if not request.wait_for(self._claim(client.id, jti, opened.claims["exp"])):
                raise TokenError("replayed")
        except TokenError as error:
            error.client_id = client.id
            raise
        return client, Credential("key", opened.kid)

    def _by_certificate(self, request: TokenRequest) -> tuple[Client, Credential]:
        """RFC 8705 section 2: the proxy has seen the private key at work; here it counts whose certificate it was."""
        peer, now = request.presented.peer, self._now()
        if peer.forged or peer.certificate is None:
            raise TokenError("certificate-forged")
        client = self._find(request.form["client_id"])
        known = None if client is None else client.certificate(peer.certificate)
        if client is None or known is None:
            raise TokenError("certificate")
        credential = Credential("certificate", known.thumbprint)
        try:
            credential_end(client, credential, now)
            self._let_in(client, request, now)
        except TokenError as error:
            error.client_id = client.id
            raise
        return client, credential

    def _by_basic(self, request: TokenRequest) -> tuple[Client, Credential]:
        """RFC 6749 section 2.3.1, with HTTP Basic."""
        given = _basic(request.authorization or "")
        if given is None or request.form.get("client_id") not in (None, given[0]):
            raise TokenError("malformed")
        return self._by_secret(given[0], given[1], request)

    def _by_post(self, request: TokenRequest) -> tuple[Client, Credential]:
        """RFC 6749 section 2.3.1, in the form."""
        return self._by_secret(request.form.get("client_id"), request.form["client_secret"], request)

    def _by_secret(self, client_id: str | None, secret: str, request: TokenRequest) -> tuple[Client, Credential]:
        client = self._find(client_id)
        if not secret_matches(client, secret) or client is None or client.secret_id is None:
            raise TokenError("secret")
        try:
            self._let_in(client, request, self._now())
        except TokenError as error:
            error.client_id, error.pilot = client.id, True
            raise
        return client, Credential("secret", client.secret_id)

    def _let_in(self, client: Client, request: TokenRequest, now: datetime) -> None:
        in_force(client, now)
        admit(client, request.presented.peer)

    def _check_claims(self, claims: dict[str, Any], client: Client, client_id: str | None, now: datetime) -> None:
        in_force(client, now)
        if claims.get("iss") != client.id or client_id not in (None, client.id):
            raise TokenError("client-mismatch")
        # One audience only: an assertion that names another server too could come from there.
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        if len(named) != 1 or named[0] not in (self._issuer.url, self._issuer.token_endpoint):
            raise TokenError("audience")
        expires = check_times(claims, now.timestamp(), leeway=CLOCK_LEEWAY_SECONDS)
        if expires > now.timestamp() + ASSERTION_SECONDS + CLOCK_LEEWAY_SECONDS:
            raise TokenError("too-long")

    def _find(self, client_id: object) -> Client | None:
        return self._directory.find(client_id) if isinstance(client_id, str) else None

    async def _claim(self, client_id: str, jti: str, expires: float) -> bool:
        end = datetime.fromtimestamp(expires + CLOCK_LEEWAY_SECONDS, UTC)
        async with self._database.transaction() as connection:
            return await service.claim_assertion(connection, client_id, jti, end)


def claimed_client(request: TokenRequest) -> str | None:
    """Return the client that a request only claims to come from, to count its attempts by; None if it names none."""
    form = request.form
    claimed: object = form.get("client_id")
    if request.authorization is not None:
        given = _basic(request.authorization)
        claimed = claimed if given is None else given[0]
    elif claimed is None and "client_assertion" in form:
        try:
            claimed = unverified(form["client_assertion"])[1].get("sub")
        except TokenError:
            return None
    return claimed if isinstance(claimed, str) and len(claimed) <= _LONGEST_ID else None


def _method_of(request: TokenRequest) -> str:
    form = request.form
    shown = {
        KEY: "client_assertion" in form or "client_assertion_type" in form,
        BASIC: request.authorization is not None,
        POST: "client_secret" in form,
    }
    methods = [method for method, is_there in shown.items() if is_there]
    if len(methods) > 1:
        raise InvalidRequestError
    if methods == [BASIC] and not (request.authorization or "").lower().startswith("basic "):
        raise InvalidRequestError
    if methods:
        return methods[0]
    peer = request.presented.peer
    if "client_id" in form and (peer.forged or peer.certificate is not None):
        return CERTIFICATE
    raise Refused(TokenError("missing"))


def _basic(authorization: str) -> tuple[str, str] | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, colon, secret = b64decode(encoded, validate=True).decode("ascii").partition(":")
    except (binascii.Error, ValueError):
        return None
    # Both parts are form-encoded before they are joined (RFC 6749 section 2.3.1).
    return (unquote_plus(client_id), unquote_plus(secret)) if colon and client_id else None
