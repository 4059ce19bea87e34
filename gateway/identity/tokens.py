"""Access tokens (RFC 9068): makes them, and says who a token, and what came with it, proves the caller to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from gateway.identity.binding import NOTHING, UNBOUND, Binding, Presented, Proof
from gateway.identity.credentials import credential_claim, credential_end, read_credential, text_claim
from gateway.identity.directory import ClientDirectory
from gateway.identity.errors import OperatorError, ProofError, TokenError
from gateway.identity.foreign import ForeignTokens
from gateway.identity.jose import check_times, open_compact, unverified
from gateway.identity.keys import ALGORITHM, KeyRing
from gateway.identity.models import (
    ClaimedOperator,
    Client,
    Credential,
    Issuer,
    VerifiedCaller,
    VerifiedOperator,
)
from gateway.identity.operators import check_operator
from gateway.identity.peer import admit, in_force
from schemas.ids import uuid7

ACCESS_TOKEN_SECONDS = 300
CACHE_SECONDS = 60
CACHE_ENTRIES = 20_000

ACCESS_TOKEN_TYPE = "at+jwt"  # noqa: S105 - a media type (RFC 9068 section 2.1)


def issue(
    *,
    ring: KeyRing,
    issuer: Issuer,
    client: Client,
    credential: Credential,
    scope: str,
    now: datetime,
    binding: Binding = UNBOUND,
) -> str:
    """Make an access token (RFC 9068 section 2) of 300 seconds for ``client``.

    ``credential`` is what the client asked for it with: when that ends, so do its tokens. ``binding`` says who alone
    may use it.
    """
    issued, key = int(now.timestamp()), ring.current
    claims = {
        "iss": issuer.url,
        "sub": client.id,
        "aud": issuer.resource,
        "client_id": client.id,
        "iat": issued,
        "exp": issued + ACCESS_TOKEN_SECONDS,
        "jti": str(uuid7()),
        "scope": scope,
        "inst": client.institution,
        **credential_claim(credential),
        **binding.claim(),
    }
    return jwt.encode({"alg": ALGORITHM, "typ": ACCESS_TOKEN_TYPE, "kid": key.kid}, claims, key, algorithms=[ALGORITHM])


def open_access_token(token: str, *, ring: KeyRing) -> dict[str, Any]:
    """Verify that we signed an access token and return its claims, whatever their times and audience.

    Raises :class:`TokenError`.
    """

    def find(kid: str | None, _claims: dict[str, Any]) -> list[tuple[str, ECKey]]:
        # We always write a kid, so a token without one is not ours even while there is a single key.
        key = ring.find(kid) if kid else None
        if kid is None or key is None:
            raise TokenError("key")
        return [(kid, key)]

    return open_compact(token, types=frozenset({ACCESS_TOKEN_TYPE}), find_keys=find).claims


@dataclass(frozen=True, slots=True)
class Standing:
    """An access token of ours that counts, for whom, and until when (seconds since 1970) at the latest."""

    claims: dict[str, Any]
    client: Client
    credential: Credential
    binding: Binding
    scopes: frozenset[str]
    until: float


def standing(token: str, *, ring: KeyRing, issuer: Issuer, directory: ClientDirectory, now: datetime) -> Standing:
    """Say whether an access token counts, whoever may hold it; raises :class:`TokenError` if it does not."""
    claims = open_access_token(token, ring=ring)
    client = directory.find(text_claim(claims, "client_id", 64))
    if client is None:
        raise TokenError("client-unknown")
    pilot = "client_secret_id" in claims
    try:
        if claims.get("iss") != issuer.url or claims.get("aud") != issuer.resource:
            raise TokenError("audience")
        until = check_times(claims, now.timestamp(), leeway=0)
        token_id, credential, scope = text_claim(claims, "jti", 64), read_credential(claims), claims.get("scope")
        if not isinstance(scope, str):
            raise TokenError("claims")
        in_force(client, now)
        if directory.revoked(token_id):
            raise TokenError("revoked")
        until = min(until, credential_end(client, credential, now))
        binding = Binding.of(claims)
        if binding.certificate is not None and client.certificate(binding.certificate) is not None:
            # A registered certificate that ended takes along what was bound to it; others end at the proxy.
            until = min(until, credential_end(client, Credential("certificate", binding.certificate), now))
    except TokenError as error:
        error.client_id, error.pilot = client.id, pilot
        raise
    if client.valid_to is not None:
        until = min(until, client.valid_to.timestamp())
    # What the client may do now bounds what it was given minutes ago.
    return Standing(claims, client, credential, binding, frozenset(scope.split()) & client.scopes, until)


@dataclass(frozen=True, slots=True)
class _Checked:
    """A verdict, the client and the key of ours it was reached on, and until when it needs no second look."""

    caller: VerifiedCaller
    client: Client
    until: float
    binding: Binding = UNBOUND
    kid: str | None = None


class TokenChecker:
    """Checks access tokens and operator assertions; remembers a verdict for at most a minute.

    A remembered verdict is about the token alone: who sends it, and from where, is looked at every time.
    """

    def __init__(
        self,
        *,
        ring: KeyRing,
        issuer: Issuer,
        directory: ClientDirectory,
        now: Callable[[], datetime],
        foreign: ForeignTokens,
    ) -> None:
        """``now`` gives UTC instants; ``foreign`` knows the outside issuers."""
        self._ring, self._issuer, self._directory, self._now = ring, issuer, directory, now
        self._foreign = foreign
        self._tokens: dict[bytes, _Checked] = {}
        self._operators: dict[bytes, _Checked] = {}

    def check(self, authorization: str | None, presented: Presented = NOTHING) -> VerifiedCaller:
        """Return who the ``Authorization`` header (RFC 6750 section 2.1) proves the caller to be, with what came along.

        Raises :class:`TokenError` (``missing`` when there is no token at all, ``proof-unclaimed`` for a token that
        needs :meth:`check_once`), or :class:`DirectoryUnavailable` when nobody can be let in.
        """
        caller, proof = self._examine(authorization, presented)
        if proof is not None:
            raise ProofError("proof-unclaimed", caller.client_id, pilot=caller.pilot)
        return caller

    async def check_once(self, authorization: str | None, presented: Presented) -> VerifiedCaller:
        """Do as :meth:`check`, also for tokens under a DPoP proof: each proof counts once (RFC 9449 section 11.1)."""
        caller, proof = self._examine(authorization, presented)
        if proof is not None and not await self._directory.claim_proof(proof.jkt, proof.jti, proof.expires_at):
            raise ProofError("proof-replayed", caller.client_id, pilot=caller.pilot)
        return caller

    def with_operator(
        self, caller: VerifiedCaller, *, assertion: str | None, claimed: ClaimedOperator | None
    ) -> VerifiedCaller:
        """Return the caller together with the person behind the call.

        ``assertion`` is the ``X-SIIS-Operator`` header, ``claimed`` what the body says. Where both are there the
        assertion counts, and they must name the same person; so must a token that is itself a person's. Raises
        :class:`OperatorError`.
        """
        if isinstance(caller.operator, VerifiedOperator):
            # The token speaks for a person already; nobody else can step into that place.
            if assertion is not None:
                raise OperatorError("operator-twice", caller.client_id)
            return _same_person(caller, claimed)
        if assertion is None:
            return replace(caller, operator=claimed) if claimed else caller
        digest = sha256(f"{caller.client_id}\x00{assertion}".encode(errors="replace")).digest()
        now = self._now()
        known = self._remembered(self._operators, digest, now)
        if known is None:
            known = self._check_operator(caller, assertion, now)
            _remember(self._operators, digest, known)
        proven = replace(caller, operator=known.caller.operator, assurance=known.caller.assurance)
        return _same_person(proven, claimed)

    def _examine(self, authorization: str | None, presented: Presented) -> tuple[VerifiedCaller, Proof | None]:
        scheme, _, token = (authorization or "").partition(" ")
        scheme = scheme.lower()
        if scheme not in ("bearer", "dpop"):
            raise TokenError("missing")
        digest = sha256(token.encode(errors="replace")).digest()
        now = self._now()
        known = self._remembered(self._tokens, digest, now)
        if known is None and self._from_elsewhere(token):
            return self._examine_foreign(scheme, token, presented, now)
        if known is None:
            known = self._check(token, now)
            _remember(self._tokens, digest, known)
        try:
            admit(known.client, presented.peer)
            return known.caller, known.binding.check(scheme, token, presented, now)
        except TokenError as error:
            error.client_id, error.pilot = known.client.id, known.caller.pilot
            raise

    def _remembered(self, cache: dict[bytes, _Checked], digest: bytes, now: datetime) -> _Checked | None:
        known = cache.get(digest)
        if known is None:
            return None
        # The directory keeps one object per client while nothing about it changes.
        unchanged = self._directory.find(known.caller.client_id) is known.client
        ours = known.kid is None or self._ring.find(known.kid) is not None
        if unchanged and ours and now.timestamp() < known.until and not self._directory.revoked(known.caller.token_id):
            return known
        del cache[digest]
        return None

    def _check(self, token: str, now: datetime) -> _Checked:
        found = standing(token, ring=self._ring, issuer=self._issuer, directory=self._directory, now=now)
        caller = VerifiedCaller(
            client_id=found.client.id,
            institution=found.client.institution,
            scopes=found.scopes,
            token_id=found.claims["jti"],
            pilot=found.credential.kind == "secret",
            bound_to=found.binding.thumbprint,
        )
        until = min(found.until, now.timestamp() + CACHE_SECONDS)
        return _Checked(caller, found.client, until, found.binding, unverified(token)[0]["kid"])

    def _check_operator(self, caller: VerifiedCaller, assertion: str, now: datetime) -> _Checked:
        client = self._directory.find(caller.client_id)
        if client is None or not client.active:
            raise TokenError("client-disabled", caller.client_id)
        operator, expires = check_operator(client, assertion, issuer=self._issuer, now=now)
        until = min(expires, now.timestamp() + CACHE_SECONDS)
        return _Checked(replace(caller, operator=operator, assurance=operator.assurance), client, until)

    def _from_elsewhere(self, token: str) -> bool:
        header, claims = unverified(token)
        kid, issuer = header.get("kid"), claims.get("iss")
        # What names a key of ours is ours to judge, whatever issuer it names.
        ours = isinstance(kid, str) and self._ring.find(kid) is not None
        return not ours and isinstance(issuer, str) and issuer != self._issuer.url

    def _examine_foreign(
        self, scheme: str, token: str, presented: Presented, now: datetime
    ) -> tuple[VerifiedCaller, Proof | None]:
        identity = self._foreign.check(token)
        client_id = identity.client_id or identity.issuer
        scopes, client = identity.scopes, self._directory.find(client_id)
        try:
            if client is not None:
                # An issuer speaks for its own institution's systems, not for another's that bears the same name.
                if identity.institution not in (None, client.institution):
                    raise TokenError("client-mismatch")
                in_force(client, now)
                admit(client, presented.peer)
                scopes &= client.scopes
            elif presented.peer.forged:
                raise TokenError("certificate-forged")
            binding = Binding.of(unverified(token)[1])
            proof = binding.check(scheme, token, presented, now)
        except TokenError as error:
            error.client_id = client_id
            raise
        person = (identity.person_system, identity.person_value)
        caller = VerifiedCaller(
            client_id=client_id,
            # A citizen comes for no institution; no agreement is made with the empty one.
            institution=identity.institution or "",
            scopes=scopes,
            token_id=identity.token_id,
            assurance=identity.assurance,
            operator=VerifiedOperator(
                identity.subject, identity.roles, str(identity.assurance), identity.assurance, identity.auth_time
            ),
            person=None if person[0] is None or person[1] is None else (person[0], person[1]),
            bound_to=binding.thumbprint,
        )
        return caller, proof


def _same_person(caller: VerifiedCaller, claimed: ClaimedOperator | None) -> VerifiedCaller:
    if claimed and caller.operator and claimed.id != caller.operator.id:
        raise OperatorError("operator-claim", caller.client_id, pilot=caller.pilot)
    return caller


def _remember(cache: dict[bytes, _Checked], digest: bytes, checked: _Checked) -> None:
    if len(cache) >= CACHE_ENTRIES:
        del cache[next(iter(cache))]
    cache[digest] = checked
