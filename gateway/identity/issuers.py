"""Outside issuers: what is agreed with each, how that is kept, and what every process knows of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import httpx
import structlog
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.yamlfile import YamlFile
from gateway.database import Database
from gateway.following import follow
from gateway.identity.errors import DirectoryUnavailable
from gateway.identity.issuer_tables import token_issuer
from gateway.identity.models import HIGHEST_ASSURANCE, LOWEST_ASSURANCE
from gateway.identity.tables import client
from schemas.codes import code_list
from schemas.text import _

CHANNEL = "siis_issuers"
CITIZEN = "citizen"
# Beyond this age a disabled issuer might still be believed, so none is.
MAX_AGE_SECONDS = 180
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}

Detail = dict[str, Any]
_log = structlog.get_logger(__name__)


class IssuerError(ValueError):
    """A change to an outside issuer that cannot be made.

    ``reason``: ``exists``, ``own``, ``institution``, ``client``, ``unknown`` or ``disabled``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _secure(url: str) -> str:
    try:
        parts, port = urlsplit(str(httpx.URL(url))), urlsplit(url).port
    except (httpx.InvalidURL, ValueError):
        raise ValueError("an address") from None
    if port == 0:
        raise ValueError("an address with a port from 1 to 65535")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ValueError("an https address (http on this machine only)")
    if not parts.hostname or "@" in parts.netloc or parts.fragment or any(c.isspace() for c in url):
        raise ValueError("an address without user, fragment or spaces")
    return url


def _plain(url: str) -> str:
    # RFC 8414 section 2: an issuer has no query.
    if urlsplit(url).query:
        raise ValueError("an address without a query")
    return url


def _known(kind: str, *, without: frozenset[str] = frozenset()) -> AfterValidator:
    def check(code: str) -> str:
        codes = code_list(kind).keys() - without
        if code not in codes:
            raise ValueError("one of: " + " ".join(sorted(codes)))
        return code

    return AfterValidator(check)


_AS_TUPLE = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
_Claim = Annotated[str, Field(min_length=1, max_length=200)]
_Word = Annotated[str, Field(min_length=1, max_length=200)]
_Url = Annotated[str, Field(max_length=500), AfterValidator(_secure)]
_Words = Annotated[tuple[_Word, ...], _AS_TUPLE, Field(min_length=1, max_length=20)]
_Algorithms = Annotated[tuple[Literal["ES256", "RS256", "PS256"], ...], _AS_TUPLE, Field(min_length=1)]
_Type = Annotated[str, Field(max_length=64), AfterValidator(str.lower)]
_Types = Annotated[tuple[_Type, ...], _AS_TUPLE, Field(min_length=1, max_length=5)]
_Scopes = Annotated[tuple[Annotated[str, _known("scopes")], ...], _AS_TUPLE, Field(min_length=1)]
_Role = Annotated[str, _known("roles", without=frozenset({CITIZEN}))]
_Level = Annotated[int, Field(ge=LOWEST_ASSURANCE, le=HIGHEST_ASSURANCE)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Clients(_Strict):
    """Which claim names the client system, and which of ours each of the issuer's is; others are refused."""

    claim: _Claim = "azp"
    names: Annotated[dict[_Word, _Word], Field(min_length=1, max_length=200)]


class Roles(_Strict):
    """Which claim lists roles, and what each is called here; others count for nothing."""

    claim: _Claim
    names: Annotated[dict[_Word, _Role], Field(min_length=1, max_length=200)]


class Person(_Strict):
    """Which claim identifies the citizen, and in which system of identifiers."""

    claim: _Claim
    system: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]


class Claims(_Strict):
    """Which claims of the issuer's tokens say what; a dot leads into an object, as in ``realm_access.roles``.

    ``scopes`` names the claim with scopes; without it every token has all that the issuer may give. ``institution``
    names a claim that must say the registered institution. ``acr`` gives our level for each of the issuer's words.
    """

    subject: _Claim = "sub"
    clients: Clients | None = None
    roles: Roles | None = None
    scopes: _Claim | None = None
    institution: _Claim | None = None
    person: Person | None = None
    acr: Annotated[dict[_Word, _Level], Field(max_length=50)] = {}


class Registration(_Strict):
    """What was agreed with one outside issuer: whose tokens are believed, how far, and for how long.

    It vouches either for people and systems of one institution or, with ``claims.person``, for citizens.
    """

    issuer: Annotated[_Url, AfterValidator(_plain)]
    name: Annotated[str, Field(min_length=1, max_length=200)]
    institution: str | None = None
    jwks_uri: _Url
    audiences: _Words
    algorithms: _Algorithms
    types: _Types
    scopes: _Scopes
    claims: Claims
    valid_to: AwareDatetime | None = None


@dataclass(frozen=True, slots=True)
class OutsideIssuer:
    """A registration as it is kept (instants in UTC)."""

    registration: Registration
    created_at: datetime
    disabled_at: datetime | None

    def in_force(self, at: datetime) -> bool:
        """Return whether its tokens are believed at an instant."""
        end = self.registration.valid_to
        return self.disabled_at is None and (end is None or at < end)


def read_registration(file: YamlFile) -> Registration:
    """Read a registration from a file; raises :class:`~adapters.errors.ManifestError` naming line and field."""
    try:
        found = Registration.model_validate(file.content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        what = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        file.refuse([part for part in first["loc"] if part != "[key]"], _("se esperaba: {what}").format(what=what))
    if (found.institution is None) == (found.claims.person is None):
        file.refuse(["institution"], _("indique la institución, o claims.person si responde por personas"))
    if found.institution is None and (found.claims.roles or found.claims.institution):
        file.refuse(["claims", "roles"], _("quien responde por personas no da roles de una institución"))
    return found


async def add_issuer(connection: AsyncConnection, registration: Registration, *, own: str, now: datetime) -> Detail:
    """Accept an outside issuer's tokens from now on; return what the audit entry says.

    ``own`` is our own address as an issuer. A disabled one may be registered anew. Raises :class:`IssuerError`:
    ``own``, ``client``, ``institution`` or ``exists``.
    """
    if registration.issuer == own:
        raise IssuerError("own")
    clients = registration.claims.clients
    if clients is not None:
        ours = set(clients.names.values())
        found = await connection.scalars(
            select(client.c.id).where(client.c.id.in_(ours), client.c.institution == registration.institution)
            if registration.institution
            else select(client.c.id).where(client.c.id.in_(ours))
        )
        if set(found) != ours:
            raise IssuerError("client")
    values = registration.model_dump(mode="json") | {
        "claims": registration.claims.model_dump(mode="json", exclude_none=True),
        "valid_to": registration.valid_to,
        "created_at": now,
        "disabled_at": None,
    }
    statement = insert(token_issuer).values(values)
    statement = statement.on_conflict_do_update(
        index_elements=["issuer"], set_=values, where=token_issuer.c.disabled_at.is_not(None)
    )
    try:
        added = await connection.execute(statement.returning(token_issuer.c.issuer))
    except IntegrityError:
        # The institutions are rows of the catalogue, which stands above us: its foreign key answers.
        raise IssuerError("institution") from None
    if added.first() is None:
        raise IssuerError("exists")
    await _notify(connection, registration.issuer)
    return registration.model_dump(mode="json", exclude_none=True)


async def disable_issuer(connection: AsyncConnection, issuer: str, *, now: datetime) -> Detail:
    """Believe an issuer's tokens no longer; return what the audit entry says.

    Raises :class:`IssuerError`: ``unknown`` or ``disabled``.
    """
    row = (
        await connection.execute(
            select(token_issuer.c.disabled_at).where(token_issuer.c.issuer == issuer).with_for_update()
        )
    ).first()
    if row is None:
        raise IssuerError("unknown")
    if row.disabled_at is not None:
        raise IssuerError("disabled")
    await connection.execute(update(token_issuer).where(token_issuer.c.issuer == issuer).values(disabled_at=now))
    await _notify(connection, issuer)
    return {"issuer": issuer}


async def list_issuers(connection: AsyncConnection) -> list[OutsideIssuer]:
    """Return every outside issuer by address; a row this release cannot read is left out, which the log says."""
    issuers = []
    for row in (await connection.execute(select(token_issuer).order_by(token_issuer.c.issuer))).mappings():
        values = {name: row[name] for name in Registration.model_fields}
        values["valid_to"] = row["valid_to"] and row["valid_to"].astimezone(UTC)
        try:
            registration = Registration.model_validate(values)
        except ValidationError:
            _log.error("outside_issuer_unreadable", issuer=row["issuer"])
            continue
        issuers.append(OutsideIssuer(registration, row["created_at"], row["disabled_at"]))
    return issuers


class IssuerDirectory:
    """Outside issuers by address, in memory: read at start, again at each change, at least once a minute."""

    def __init__(
        self, database: Database, *, changed: asyncio.Event, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """``changed`` is set whenever something was read anew; ``monotonic`` gives seconds for the age of it."""
        self._database, self._changed, self._monotonic = database, changed, monotonic
        self._issuers: dict[str, OutsideIssuer] = {}
        self._stale_at = float("-inf")

    def find(self, issuer: str) -> OutsideIssuer | None:
        """Return an issuer, disabled ones too, or None.

        Raises :class:`DirectoryUnavailable` when the last reading is older than three minutes.
        """
        if self._monotonic() > self._stale_at:
            raise DirectoryUnavailable("directory of issuers is stale")
        return self._issuers.get(issuer)

    def in_force(self, at: datetime) -> list[OutsideIssuer]:
        """Return those whose tokens are believed at an instant, as far as is known."""
        return [issuer for issuer in self._issuers.values() if issuer.in_force(at)]

    async def load(self) -> None:
        """Read everything now."""
        started = self._monotonic()
        async with self._database.connection() as connection:
            found = await list_issuers(connection)
        self._issuers = {each.registration.issuer: each for each in found}
        self._stale_at = started + MAX_AGE_SECONDS
        self._changed.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Keep up with changes until ``stop``."""
        await follow(self._database.url, CHANNEL, self.load, stop)


async def _notify(connection: AsyncConnection, issuer: str) -> None:
    await connection.execute(select(func.pg_notify(CHANNEL, issuer)))
