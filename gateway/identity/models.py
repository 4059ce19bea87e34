"""Who may call and who is calling; what was verified and what is only claimed are different types (DESIGN 9.6)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

from joserfc.jwk import ECKey

from gateway.identity.errors import ScopeError
from gateway.settings import SettingsError
from schemas.text import _

LOWEST_ASSURANCE, HIGHEST_ASSURANCE = 1, 3


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
class Client:
    """A registered client system; ``assurance`` is the highest level at which it may vouch for its operators."""

    id: str
    name: str
    institution: str
    active: bool
    scopes: frozenset[str]
    assurance: int
    keys: tuple[ClientKey, ...]
    created_at: datetime
    disabled_at: datetime | None

    def usable_keys(self, at: datetime) -> tuple[ClientKey, ...]:
        """Return the keys that may still sign at an instant."""
        return tuple(key for key in self.keys if key.usable(at))


@dataclass(frozen=True, slots=True)
class ClaimedOperator:
    """A person named in a request's body: recorded as a claim, verified by nobody."""

    id: str
    roles: frozenset[str]


@dataclass(frozen=True, slots=True)
class VerifiedOperator:
    """A person vouched for by an assertion under the client's registered key.

    ``acr`` is the client's word for how the person logged in, as it came; ``assurance`` is our level for it.
    """

    id: str
    roles: frozenset[str]
    acr: str
    assurance: int


@dataclass(frozen=True, slots=True)
class VerifiedCaller:
    """Who calls, as proven by an access token.

    ``assurance`` is that of the person behind the call: the lowest unless ``operator`` is verified.
    """

    client_id: str
    institution: str
    scopes: frozenset[str]
    token_id: str
    assurance: int = LOWEST_ASSURANCE
    operator: VerifiedOperator | ClaimedOperator | None = None

    def require(self, scope: str) -> None:
        """Raise :class:`ScopeError` unless the token carries ``scope``."""
        if scope not in self.scopes:
            raise ScopeError(scope, self.client_id)


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
    def jwks_uri(self) -> str:
        """Where our public keys are (RFC 7517)."""
        return f"{self.url}/.well-known/jwks.json"

    @property
    def resource(self) -> str:
        """The audience of our access tokens; differs from every audience an assertion may name."""
        return f"{self.url}/api"
