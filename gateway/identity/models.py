"""Who may call and who is calling; what was verified and what is only claimed are different types (DESIGN 9.6)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Literal
from urllib.parse import urlsplit

from joserfc.jwk import ECKey

from gateway.identity.errors import ScopeError
from gateway.settings import SettingsError
from schemas.text import _

LOWEST_ASSURANCE, HIGHEST_ASSURANCE = 1, 3

Network = IPv4Network | IPv6Network
CredentialKind = Literal["key", "certificate", "secret"]


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A client's public key on P-256; ``not_after`` ends its use (UTC), ``None`` while it is current."""

    kid: str
    jwk: dict[str, str]
    not_after: datetime | None = None
    key: ECKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ECKey.import_key(dict(self.jwk)))

    def usable(self, at: datetime) -> bool:
        """Return whether the key may still sign at an instant."""
        return self.not_after is None or at < self.not_after


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A client's TLS certificate, known by its SHA-256 (``x5t#S256``, RFC 8705 section 3.1); instants are UTC."""

    thumbprint: str
    subject: str
    not_before: datetime
    not_after: datetime
    added_at: datetime
    removed_at: datetime | None = None

    def usable(self, at: datetime) -> bool:
        """Return whether the certificate counts at an instant."""
        return self.removed_at is None and self.not_before <= at < self.not_after


@dataclass(frozen=True, slots=True)
class Credential:
    """With what a client proved who it is: the ``kid`` of a key, the thumbprint of a certificate, the id of a secret.

    An access token names it, because a token ends with the credential that obtained it.
    """

    kind: CredentialKind
    id: str


@dataclass(frozen=True, slots=True)
class Client:
    """A registered client system; ``assurance`` is the highest level at which it may vouch for its operators.

    It counts from ``valid_from`` until before ``valid_to`` (UTC, None: no bound) and, where ``networks`` names any,
    from these addresses only. ``secret_sha256`` is there for clients marked ``pilot`` alone.
    """

    id: str
    name: str
    institution: str
    active: bool
    scopes: frozenset[str]
    assurance: int
    keys: tuple[ClientKey, ...]
    created_at: datetime
    disabled_at: datetime | None
    certificates: tuple[ClientCertificate, ...] = ()
    pilot: bool = False
    secret_sha256: bytes | None = field(default=None, repr=False)
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    networks: tuple[Network, ...] = ()

    def usable_keys(self, at: datetime) -> tuple[ClientKey, ...]:
        """Return the keys that may still sign at an instant."""
        return tuple(key for key in self.keys if key.usable(at))

    def certificate(self, thumbprint: str) -> ClientCertificate | None:
        """Return the registered certificate with this thumbprint, whether it still counts or not."""
        return next((known for known in self.certificates if known.thumbprint == thumbprint), None)

    @property
    def secret_id(self) -> str | None:
        """A name for the secret in force that tells nothing of it: the start of its hash."""
        return None if self.secret_sha256 is None else self.secret_sha256.hex()[:16]

    def valid(self, at: datetime) -> bool:
        """Return whether an instant lies in the client's time."""
        started = self.valid_from is None or self.valid_from <= at
        return started and (self.valid_to is None or at < self.valid_to)


@dataclass(frozen=True, slots=True)
class ClaimedOperator:
    """A person named in a request's body: recorded as a claim, verified by nobody."""

    id: str
    roles: frozenset[str]


@dataclass(frozen=True, slots=True)
class VerifiedOperator:
    """A person vouched for by an assertion under the client's registered key.

    ``acr`` is the client's word for how the person logged in, as it came; ``assurance`` is our level for it;
    ``authenticated_at`` is when that login was (UTC), if it was told (OpenID Connect Core section 2, ``auth_time``).
    """

    id: str
    roles: frozenset[str]
    acr: str
    assurance: int
    authenticated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class VerifiedCaller:
    """Who calls, as proven by an access token.

    ``assurance`` is that of the person behind the call: the lowest unless ``operator`` is verified. ``pilot`` marks a
    token obtained with a client secret. ``person`` is a citizen who comes with a token of an outside issuer: the
    identifier's system and value. ``bound_to`` is the thumbprint of the certificate (``x5t#S256``) or key (``jkt``) the
    token is bound to.
    """

    client_id: str
    institution: str
    scopes: frozenset[str]
    token_id: str
    assurance: int = LOWEST_ASSURANCE
    operator: VerifiedOperator | ClaimedOperator | None = None
    pilot: bool = False
    person: tuple[str, str] | None = field(default=None, repr=False)
    bound_to: str | None = None

    def require(self, scope: str) -> None:
        """Raise :class:`ScopeError` unless the token carries ``scope``."""
        if scope not in self.scopes:
            raise ScopeError(scope, self.client_id, pilot=self.pilot)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignIdentity:
    """Whom a token of a configured outside issuer speaks for, in our words (DESIGN 9.6).

    ``client_id`` and ``institution`` come from the issuer's registration, None where it names none; ``person_system``
    and ``person_value`` identify a citizen who comes in person; instants are UTC.
    """

    issuer: str
    client_id: str | None
    institution: str | None
    subject: str
    person_system: str | None
    person_value: str | None = field(repr=False)
    roles: frozenset[str]
    assurance: int
    scopes: frozenset[str]
    auth_time: datetime | None
    token_id: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Issuer:
    """Our addresses as an authorization server, all from the configured public address, never from a request."""

    url: str

    def __post_init__(self) -> None:
        """Raise :class:`SettingsError` for plain http beyond this machine and for a slash at the end."""
        parts = urlsplit(self.url)
        if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise SettingsError([("SIIS_ISSUER", _("se esperaba una dirección https (http solo en esta máquina)"))])
        if self.url.endswith("/"):
            raise SettingsError([("SIIS_ISSUER", _("se esperaba una dirección sin barra al final"))])

    @property
    def path(self) -> str:
        """The path inside the issuer's address, empty for most."""
        return urlsplit(self.url).path

    @property
    def token_endpoint(self) -> str:
        """Where tokens are issued (RFC 6749 section 3.2)."""
        return f"{self.url}/oauth2/token"

    @property
    def revocation_endpoint(self) -> str:
        """Where tokens are revoked (RFC 7009)."""
        return f"{self.url}/oauth2/revoke"

    @property
    def introspection_endpoint(self) -> str:
        """Where tokens are looked into (RFC 7662)."""
        return f"{self.url}/oauth2/introspect"

    @property
    def jwks_uri(self) -> str:
        """Where our public keys are (RFC 7517)."""
        return f"{self.url}/.well-known/jwks.json"

    @property
    def resource(self) -> str:
        """The audience of our access tokens; differs from every audience an assertion may name."""
        return f"{self.url}/api"
