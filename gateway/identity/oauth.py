"""The authorization server: who gets an access token, for which scopes, and who may revoke one.

Authlib's core runs the protocol (RFC 6749, 7009) in a worker thread; its waits for the database come back to the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from authlib.oauth2 import AuthorizationServer, OAuth2Error, OAuth2Request
from authlib.oauth2.rfc6749 import ClientMixin, grants
from authlib.oauth2.rfc6749.errors import (
    InvalidClientError,
    InvalidGrantError,
    InvalidRequestError,
    InvalidScopeError,
    UnsupportedGrantTypeError,
)
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7009 import RevocationEndpoint
from sqlalchemy.exc import SQLAlchemyError

from gateway.database import Database
from gateway.identity import service, tokens
from gateway.identity.directory import ClientDirectory
from gateway.identity.errors import DirectoryUnavailable, TokenError
from gateway.identity.jose import check_times, open_compact
from gateway.identity.keys import ALGORITHM, KeyRing
from gateway.identity.models import Client, Issuer
from schemas.codes import code_list
from schemas.text import _

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
AUTH_METHOD = "private_key_jwt"
GRANT = "client_credentials"
ASSERTION_SECONDS = 300
MAX_FORM_FIELDS = 20
# No typ, the generic one, and the one that draft-ietf-oauth-rfc7523bis registers.
_ASSERTION_TYPES = frozenset({"", "jwt", "client-authentication+jwt"})

T = TypeVar("T")

# Authlib logs whole tokens at debug level.
logging.getLogger("authlib.oauth2").setLevel(logging.INFO)


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer; ``refusal`` says why for the log, and is None for a success."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    refusal: TokenError | None = None


class TokenServer:
    """Token and revocation endpoints, and the document that describes them."""

    def __init__(
        self,
        *,
        issuer: Issuer,
        ring: KeyRing,
        directory: ClientDirectory,
        database: Database,
        now: Callable[[], datetime],
    ) -> None:
        """``now`` gives UTC instants."""
        self.issuer, self.ring = issuer, ring
        self._core = _Core(issuer=issuer, ring=ring, directory=directory, database=database, now=now)

    async def token(self, body: bytes, *, content_type: str, authorization: str | None) -> Answer:
        """Answer a token request (RFC 6749 section 4.4, client authentication of RFC 7523 section 2.2)."""
        return await self._run(self._core.answer_token, self.issuer.token_endpoint, body, content_type, authorization)

    async def revoke(self, body: bytes, *, content_type: str, authorization: str | None) -> Answer:
        """Answer a revocation request (RFC 7009 section 2)."""
        return await self._run(
            self._core.answer_revocation, self.issuer.revocation_endpoint, body, content_type, authorization
        )

    def metadata(self) -> dict[str, Any]:
        """Return the document of RFC 8414 section 2."""
        return {
            "issuer": self.issuer.url,
            "token_endpoint": self.issuer.token_endpoint,
            "revocation_endpoint": self.issuer.revocation_endpoint,
            "jwks_uri": self.issuer.jwks_uri,
            "scopes_supported": sorted(code_list("scopes")),
            # Required, and an empty list must be left out (RFC 8414 sections 2 and 3.2): "none" is the registered word.
            "response_types_supported": ["none"],
            "grant_types_supported": [GRANT],
            "token_endpoint_auth_methods_supported": [AUTH_METHOD],
            "token_endpoint_auth_signing_alg_values_supported": [ALGORITHM],
            "revocation_endpoint_auth_methods_supported": [AUTH_METHOD],
            "revocation_endpoint_auth_signing_alg_values_supported": [ALGORITHM],
            "ui_locales_supported": ["es", "en"],
        }

    async def _run(
        self,
        answer: Callable[[OAuth2Request], Answer],
        address: str,
        body: bytes,
        content_type: str,
        authorization: str | None,
    ) -> Answer:
        try:
            request = _read_request(address, body, content_type, authorization)
        except OAuth2Error as error:
            return _refuse(error)
        request.loop = asyncio.get_running_loop()
        try:
            return await asyncio.to_thread(answer, request)
        except (SQLAlchemyError, DirectoryUnavailable, OSError):
            return Answer(
                503,
                {"error": "temporarily_unavailable", "error_description": _("Vuelva a intentarlo en unos segundos.")},
                {"Retry-After": "2"},
                TokenError("unavailable"),
            )


class _Request(OAuth2Request):  # type: ignore[misc]
    """A form posted to one of our addresses, as configured: what a proxy says about them does not matter."""

    def __init__(self, address: str, form: dict[str, str], headers: dict[str, str]) -> None:
        super().__init__("POST", address, headers=headers)
        self.payload = BasicOAuth2Payload(form)
        self.loop: asyncio.AbstractEventLoop

    @property
    def form(self) -> dict[str, str]:
        form: dict[str, str] = self.payload.data
        return form

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` on the event loop and wait for it in this thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


class _Refused(InvalidClientError):  # type: ignore[misc]
    """Client authentication failed; carries the reason for the log."""

    status_code = 401

    def __init__(self, cause: TokenError) -> None:
        super().__init__()
        self.cause = cause


class _Authenticated(ClientMixin):  # type: ignore[misc]
    """A client that has just proven who it is, and the key it did it with."""

    def __init__(self, client: Client, kid: str) -> None:
        self.client, self.kid = client, kid

    def get_client_id(self) -> str:
        return self.client.id

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == AUTH_METHOD

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == GRANT

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """All of the client's scopes when none is asked for (RFC 6749 section 3.3); None when too much is."""
        asked = frozenset(scope.split(" ")) if scope else self.client.scopes
        return " ".join(sorted(asked)) if asked <= self.client.scopes else None


class _ClientCredentials(grants.ClientCredentialsGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = (AUTH_METHOD,)


class _Token:
    """An access token of ours that a client wants to see revoked."""

    def __init__(self, claims: dict[str, Any]) -> None:
        self.client_id, self.id, self.expires = claims["client_id"], claims["jti"], claims["exp"]

    def check_client(self, client: _Authenticated) -> bool:
        return bool(self.client_id == client.client.id)


class _Revocation(RevocationEndpoint):  # type: ignore[misc]
    CLIENT_AUTH_METHODS = (AUTH_METHOD,)

    def check_params(self, request: _Request, client: _Authenticated) -> None:
        # A hint that we do not know is ignored (RFC 7009 section 2.1); we only have one kind of token anyway.
        if "token" not in request.form:
            raise InvalidRequestError

    def query_token(self, token_string: str, token_type_hint: str | None) -> _Token | None:
        try:
            return _Token(tokens.open_access_token(token_string, ring=self.server.ring))
        except TokenError:
            # "Invalid tokens do not cause an error response" (RFC 7009 section 2.2).
            return None

    def revoke_token(self, token: _Token, request: _Request) -> None:
        request.wait_for(self.server.revoke(token.id, datetime.fromtimestamp(token.expires, UTC)))


class _Core(AuthorizationServer):  # type: ignore[misc]
    """Authlib's server without a web framework: requests and answers are plain values."""

    def __init__(
        self,
        *,
        issuer: Issuer,
        ring: KeyRing,
        directory: ClientDirectory,
        database: Database,
        now: Callable[[], datetime],
    ) -> None:
        super().__init__()
        self.issuer, self.ring, self._directory, self._database, self._now = issuer, ring, directory, database, now
        self.register_client_auth_method(AUTH_METHOD, self._authenticate)
        self.register_grant(_ClientCredentials)
        self.register_endpoint(_Revocation)
        self.register_token_generator(
            GRANT, BearerTokenGenerator(self._access_token, expires_generator=tokens.ACCESS_TOKEN_SECONDS)
        )

    def answer_token(self, request: _Request) -> Answer:
        try:
            if not request.payload.grant_type:
                raise InvalidRequestError
            answer: Answer = self.create_token_response(request)
        except OAuth2Error as error:
            return self.handle_error_response(request, error)
        return answer

    def answer_revocation(self, request: _Request) -> Answer:
        try:
            answer: Answer = self.create_endpoint_response("revocation", request)
        except OAuth2Error as error:
            return self.handle_error_response(request, error)
        return answer

    async def revoke(self, token_id: str, expires_at: datetime) -> None:
        async with self._database.transaction() as connection:
            await service.revoke_token(connection, token_id, expires_at)
        # Other processes hear of it by themselves; this one must know before it answers.
        await self._directory.load()

    # What Authlib asks of an integration.

    def query_client(self, client_id: str) -> Client | None:
        return self._directory.find(client_id)

    def create_oauth2_request(self, request: _Request) -> _Request:
        return request

    def handle_response(self, status: int, body: dict[str, Any], headers: list[tuple[str, str]]) -> Answer:
        return Answer(status, body, dict(headers))

    def handle_error_response(self, request: _Request, error: OAuth2Error) -> Answer:
        return _refuse(error, request.client.client.id if request.client else None)

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""

    def save_token(self, token: dict[str, Any], request: _Request) -> None:
        """Tokens carry all there is to know; only revoked ones are stored."""

    # What is ours: RFC 7523 and RFC 9068.

    def _authenticate(self, query_client: Callable[[str], Client | None], request: _Request) -> _Authenticated:
        form = request.form
        if "client_secret" in form or "authorization" in request.headers:
            # One way of authentication only (RFC 6749 section 2.3), and a secret is not ours.
            raise InvalidRequestError
        if form.get("client_assertion_type") != ASSERTION_TYPE or "client_assertion" not in form:
            raise _Refused(TokenError("missing"))
        try:
            return self._check_assertion(form["client_assertion"], form.get("client_id"), query_client, request)
        except TokenError as error:
            raise _Refused(error) from None

    def _check_assertion(
        self,
        assertion: str,
        client_id: str | None,
        query_client: Callable[[str], Client | None],
        request: _Request,
    ) -> _Authenticated:
        now = self._now()
        candidates: list[Client] = []

        def find(kid: str | None, claims: dict[str, Any]) -> Any:
            subject = claims.get("sub")
            client = query_client(subject) if isinstance(subject, str) else None
            if client is None:
                raise TokenError("client-unknown")
            candidates.append(client)
            return tokens.client_keys(client, kid, now)

        opened = open_compact(assertion, types=_ASSERTION_TYPES, find_keys=find)
        (client,) = candidates
        try:
            self._check_claims(opened.claims, client, client_id, now)
            jti = opened.claims.get("jti")
            if not isinstance(jti, str) or not jti.isprintable() or not 1 <= len(jti) <= 256:
                raise TokenError("claims")
            if not request.wait_for(self._claim(client.id, jti, opened.claims["exp"])):
                raise TokenError("replayed")
        except TokenError as error:
            raise TokenError(error.reason, client.id) from None
        return _Authenticated(client, opened.kid)

    def _check_claims(self, claims: dict[str, Any], client: Client, client_id: str | None, now: datetime) -> None:
        if not client.active:
            raise TokenError("client-disabled")
        if claims.get("iss") != client.id or client_id not in (None, client.id):
            raise TokenError("client-mismatch")
        # One audience only: an assertion that names another server too could come from there.
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        if len(named) != 1 or named[0] not in (self.issuer.url, self.issuer.token_endpoint):
            raise TokenError("audience")
        expires = check_times(claims, now.timestamp(), leeway=tokens.CLOCK_LEEWAY_SECONDS)
        if expires > now.timestamp() + ASSERTION_SECONDS + tokens.CLOCK_LEEWAY_SECONDS:
            raise TokenError("too-long")

    async def _claim(self, client_id: str, jti: str, expires: float) -> bool:
        end = datetime.fromtimestamp(expires + tokens.CLOCK_LEEWAY_SECONDS, UTC)
        async with self._database.transaction() as connection:
            return await service.claim_assertion(connection, client_id, jti, end)

    def _access_token(self, *, client: _Authenticated, grant_type: str, user: None, scope: str) -> str:
        return tokens.issue(
            ring=self.ring, issuer=self.issuer, client=client.client, kid=client.kid, scope=scope, now=self._now()
        )


def _read_request(address: str, body: bytes, content_type: str, authorization: str | None) -> _Request:
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise InvalidRequestError
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FORM_FIELDS)
    except ValueError:
        raise InvalidRequestError from None
    form = dict(pairs)
    if len(form) != len(pairs):
        # "Parameters MUST NOT be included more than once" (RFC 6749 section 3.2).
        raise InvalidRequestError
    # "Parameters sent without a value MUST be treated as if they were omitted" (same section).
    given = {name: value for name, value in form.items() if value}
    return _Request(address, given, {"authorization": authorization} if authorization else {})


def _refuse(error: OAuth2Error, client_id: str | None = None) -> Answer:
    """Answer as RFC 6749 section 5.2 has it; details go to the log, and to a caller whose signature was right."""
    headers = {"Cache-Control": "no-store", "Pragma": "no-cache"}
    if isinstance(error, _Refused):
        # RFC 9110 section 15.5.2 wants a challenge with every 401; no scheme is registered for assertions.
        headers["WWW-Authenticate"] = 'Bearer realm="siis"'
        description = _assertion_text(error.cause)
        return Answer(401, {"error": error.error, "error_description": description}, headers, error.cause)
    body = {"error": error.error, "error_description": _error_text(error)}
    return Answer(400, body, headers, TokenError(str(error.error).replace("_", "-"), client_id))


def _error_text(error: OAuth2Error) -> str:
    # RFC 6749 allows ASCII only here, so the Spanish is chosen without accents.
    if isinstance(error, UnsupportedGrantTypeError):
        return _("El campo grant_type debe ser client_credentials.")
    if isinstance(error, InvalidScopeError):
        return _("El alcance (scope) pedido supera el registrado para el cliente.")
    if isinstance(error, InvalidGrantError):
        return _("El token pertenece a otro cliente.")
    return _("Se espera un formulario x-www-form-urlencoded con client_assertion y sin campos repetidos.")


def _assertion_text(cause: TokenError) -> str:
    if cause.client_id is None:
        return _("No se pudo autenticar al cliente.")
    texts = {
        "client-disabled": _("No se pudo autenticar al cliente."),
        "client-mismatch": _("iss, sub y client_id deben nombrar al mismo cliente."),
        "audience": _("El destinatario (aud) debe ser solo este servidor."),
        "expired": _("El aserto ha vencido (exp)."),
        "early": _("El aserto viene del futuro (iat o nbf); revise el reloj."),
        "too-long": _("El aserto vale demasiado tiempo (exp); el tope es de 300 segundos."),
        "replayed": _("El aserto ya fue usado (jti)."),
    }
    return texts.get(cause.reason, _("Faltan datos en el aserto (exp, jti)."))
