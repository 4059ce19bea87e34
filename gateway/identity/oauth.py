"""The authorization server: who gets an access token, for which scopes, and who may revoke or look into one.

Authlib's core runs the protocol (RFC 6749, 7009, 7662) in a worker thread; its waits for the database come back to the
loop.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from authlib.oauth2 import AuthorizationServer, OAuth2Error
from authlib.oauth2.rfc6749 import grants
from authlib.oauth2.rfc6749.errors import InvalidRequestError
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7009 import RevocationEndpoint
from sqlalchemy.exc import SQLAlchemyError

from gateway.database import Database
from gateway.identity import service, tokens
from gateway.identity.authentication import (
    CERTIFICATE,
    GRANT,
    METHODS,
    Authenticated,
    Authenticator,
    TokenRequest,
    claimed_client,
)
from gateway.identity.binding import NOTHING, Binding, Presented, check_proof
from gateway.identity.directory import ClientDirectory
from gateway.identity.errors import DirectoryUnavailable, ProofError, TokenError, TooMany
from gateway.identity.introspection import Introspection
from gateway.identity.keys import ALGORITHM, KeyRing
from gateway.identity.limits import ClientLimits
from gateway.identity.models import Client, Issuer
from gateway.identity.replies import Answer, BadProof, refuse, too_many
from schemas.codes import code_list
from schemas.text import _

MAX_FORM_FIELDS = 20
# The same proof by certificate; RFC 8705 section 2.2 calls it so when the certificate is its own authority.
_SELF_SIGNED = "self_signed_tls_client_auth"

# Authlib logs whole tokens at debug level.
logging.getLogger("authlib.oauth2").setLevel(logging.INFO)


class TokenServer:
    """Token, revocation and introspection endpoints, and the document that describes them."""

    def __init__(
        self,
        *,
        issuer: Issuer,
        ring: KeyRing,
        directory: ClientDirectory,
        database: Database,
        now: Callable[[], datetime],
        limits: ClientLimits,
    ) -> None:
        """``now`` gives UTC instants."""
        self.issuer, self.ring, self._limits = issuer, ring, limits
        self._core = _Core(issuer=issuer, ring=ring, directory=directory, database=database, now=now)

    async def token(
        self,
        body: bytes,
        *,
        content_type: str,
        authorization: str | None,
        presented: Presented = NOTHING,
    ) -> Answer:
        """Answer a token request (RFC 6749 section 4.4; RFC 7523 2.2, 8705 2 and 9449 5 for who and to what bound)."""
        address = self.issuer.token_endpoint
        return await self._run(self._core.answer_token, address, body, content_type, authorization, presented)

    async def revoke(
        self,
        body: bytes,
        *,
        content_type: str,
        authorization: str | None,
        presented: Presented = NOTHING,
    ) -> Answer:
        """Answer a revocation request (RFC 7009 section 2)."""
        answer, address = self._core.answer_revocation, self.issuer.revocation_endpoint
        return await self._run(answer, address, body, content_type, authorization, presented)

    async def introspect(
        self,
        body: bytes,
        *,
        content_type: str,
        authorization: str | None,
        presented: Presented = NOTHING,
    ) -> Answer:
        """Answer an introspection request (RFC 7662 section 2)."""
        answer, address = self._core.answer_introspection, self.issuer.introspection_endpoint
        return await self._run(answer, address, body, content_type, authorization, presented)

    def metadata(self, *, certificates: bool) -> dict[str, Any]:
        """Return the document of RFC 8414 section 2; ``certificates``: a proxy that we trust shows us those."""
        methods = [method for method in METHODS if certificates or method != CERTIFICATE]
        endpoints = {
            "token_endpoint": self.issuer.token_endpoint,
            "revocation_endpoint": self.issuer.revocation_endpoint,
            "introspection_endpoint": self.issuer.introspection_endpoint,
        }
        document: dict[str, Any] = {
            "issuer": self.issuer.url,
            **endpoints,
            "jwks_uri": self.issuer.jwks_uri,
            "scopes_supported": sorted(code_list("scopes")),
            # Required, and an empty list must be left out (RFC 8414 sections 2 and 3.2): "none" is the registered word.
            "response_types_supported": ["none"],
            "grant_types_supported": [GRANT],
            "dpop_signing_alg_values_supported": [ALGORITHM],
            "tls_client_certificate_bound_access_tokens": certificates,
            "ui_locales_supported": ["es", "en"],
        }
        if certificates:
            methods.append(_SELF_SIGNED)
            # The same addresses ask for a certificate and take requests without one (RFC 8705 section 5).
            document["mtls_endpoint_aliases"] = endpoints
        for endpoint in endpoints:
            document[f"{endpoint}_auth_methods_supported"] = methods
            document[f"{endpoint}_auth_signing_alg_values_supported"] = [ALGORITHM]
        return document

    async def _run(
        self,
        answer: Callable[[TokenRequest], Answer],
        address: str,
        body: bytes,
        content_type: str,
        authorization: str | None,
        presented: Presented,
    ) -> Answer:
        presented = replace(presented, method="POST", url=address)
        try:
            request = _read_request(address, body, content_type, authorization, presented)
        except OAuth2Error as error:
            return refuse(error)
        request.loop = asyncio.get_running_loop()
        claimed, address = claimed_client(request), presented.peer.address
        try:
            self._limits.admit(claimed, address)
            answered = await asyncio.to_thread(answer, request)
        except TooMany as error:
            return too_many(error)
        except (SQLAlchemyError, DirectoryUnavailable, OSError):
            return Answer(
                503,
                {"error": "temporarily_unavailable", "error_description": _("Vuelva a intentarlo en unos segundos.")},
                {"Retry-After": "2"},
                TokenError("unavailable"),
            )
        if request.proven is not None:
            self._limits.succeeded(claimed, address)
        elif answered.status == 401:
            self._limits.failed(claimed, address)
        return answered


class _ClientCredentials(grants.ClientCredentialsGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    def validate_token_request(self) -> None:
        super().validate_token_request()
        self.request.client.binding = self.server.bind(self.request)


class _Generator(BearerTokenGenerator):  # type: ignore[misc]
    def generate(self, grant_type: str, client: Authenticated, *args: Any, **kwargs: Any) -> dict[str, Any]:
        token: dict[str, Any] = super().generate(grant_type, client, *args, **kwargs)
        # A certificate-bound token stays a bearer's by name (RFC 8705 section 3), one bound to a key does not.
        return token if client.binding.jkt is None else token | {"token_type": "DPoP"}


class _Token:
    """An access token of ours that a client wants to see revoked."""

    def __init__(self, claims: dict[str, Any]) -> None:
        self.client_id, self.id, self.expires = claims["client_id"], claims["jti"], claims["exp"]

    def check_client(self, client: Authenticated) -> bool:
        return bool(self.client_id == client.client.id)


class _Revocation(RevocationEndpoint):  # type: ignore[misc]
    CLIENT_AUTH_METHODS = METHODS

    def check_params(self, request: TokenRequest, client: Authenticated) -> None:
        # A hint that we do not know is ignored (RFC 7009 section 2.1); we only have one kind of token anyway.
        if "token" not in request.form:
            raise InvalidRequestError

    def query_token(self, token_string: str, token_type_hint: str | None) -> _Token | None:
        try:
            return _Token(tokens.open_access_token(token_string, ring=self.server.ring))
        except TokenError:
            # "Invalid tokens do not cause an error response" (RFC 7009 section 2.2).
            return None

    def revoke_token(self, token: _Token, request: TokenRequest) -> None:
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
        authenticator = Authenticator(issuer=issuer, directory=directory, database=database, now=now)
        for method in METHODS:
            self.register_client_auth_method(method, functools.partial(authenticator.authenticate, method))
        self.register_grant(_ClientCredentials)
        self.register_endpoint(_Revocation)
        self.register_endpoint(Introspection)
        generator = _Generator(self._access_token, expires_generator=tokens.ACCESS_TOKEN_SECONDS)
        self.register_token_generator(GRANT, generator)

    def answer_token(self, request: TokenRequest) -> Answer:
        try:
            if not request.payload.grant_type:
                raise InvalidRequestError
            answer: Answer = self.create_token_response(request)
        except OAuth2Error as error:
            return self.handle_error_response(request, error)
        return answer

    def answer_revocation(self, request: TokenRequest) -> Answer:
        return self._answer("revocation", request)

    def answer_introspection(self, request: TokenRequest) -> Answer:
        return replace(self._answer("introspection", request), refusal=request.unspoken)

    def standing(self, token: str) -> tokens.Standing:
        return tokens.standing(token, ring=self.ring, issuer=self.issuer, directory=self._directory, now=self._now())

    def bind(self, request: TokenRequest) -> Binding:
        """Say to whom the token of a request will be bound: to all that the sender has shown of itself."""
        presented = request.presented
        if not presented.proofs:
            return Binding(presented.peer.certificate)
        try:
            proof = check_proof(presented, now=self._now(), token=None)
            if not request.wait_for(self._directory.claim_proof(proof.jkt, proof.jti, proof.expires_at)):
                raise ProofError("proof-replayed")
        except ProofError as error:
            raise BadProof(error) from None
        return Binding(presented.peer.certificate, proof.jkt)

    async def revoke(self, token_id: str, expires_at: datetime) -> None:
        async with self._database.transaction() as connection:
            await service.revoke_token(connection, token_id, expires_at)
        # Other processes hear of it by themselves; this one must know before it answers.
        await self._directory.load()

    # What Authlib asks of an integration.

    def query_client(self, client_id: str) -> Client | None:
        return self._directory.find(client_id)

    def create_oauth2_request(self, request: TokenRequest) -> TokenRequest:
        return request

    def handle_response(self, status: int, body: dict[str, Any], headers: list[tuple[str, str]]) -> Answer:
        return Answer(status, body, dict(headers))

    def handle_error_response(self, request: TokenRequest, error: OAuth2Error) -> Answer:
        return refuse(error, request.proven)

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""

    def save_token(self, token: dict[str, Any], request: TokenRequest) -> None:
        """Tokens carry all there is to know; only revoked ones are stored."""

    def _answer(self, endpoint: str, request: TokenRequest) -> Answer:
        try:
            answer: Answer = self.create_endpoint_response(endpoint, request)
        except OAuth2Error as error:
            return self.handle_error_response(request, error)
        return answer

    def _access_token(self, *, client: Authenticated, grant_type: str, user: None, scope: str) -> str:
        return tokens.issue(
            ring=self.ring,
            issuer=self.issuer,
            client=client.client,
            credential=client.credential,
            binding=client.binding,
            scope=scope,
            now=self._now(),
        )


def _read_request(
    address: str, body: bytes, content_type: str, authorization: str | None, presented: Presented
) -> TokenRequest:
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
    return TokenRequest(address, given, authorization, presented)
