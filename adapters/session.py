"""How a request proves who we are: a fixed header, a key, a client certificate, or a token got with a password.

A token is got once for all who wait for it, and once more when the producer no longer takes it.
"""

from __future__ import annotations

import asyncio
import base64
import re
from typing import Any, Protocol
from urllib.parse import quote_plus, urlencode

import httpx
import orjson
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pyreqwest.client import ClientBuilder

from adapters.base import Secrets
from adapters.connections import Connection
from adapters.errors import CallFailed, ContractBroken
from adapters.http import COMMON_HEADERS, Answer, Headers, Tls, ask, status_error
from adapters.manifest import Manifest
from adapters.resilience import Call
from schemas.errors import SchemaError
from schemas.text import _
from schemas.validation import parse_json

_MAX_BODY = 64 * 1024
# RFC 6750 clause 2.1; a token of another form could not stand in a header.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{1,8192}=*\Z", re.ASCII)
# RFC 6749 clause 5.2: what may be repeated of an error answer without repeating content.
_OAUTH_ERRORS = frozenset(
    {
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)
_LEEWAY_S = 30.0


class Credentials(Protocol):
    """What a request is sent with. ``query`` are parameters for every address; ``secret`` is never to be repeated."""

    renewable: bool
    query: Headers
    secret: str

    async def headers(self, call: Call) -> Headers:
        """Return the headers to send, getting a token first where there is none."""
        ...

    async def renew(self, call: Call, refused: Headers) -> Headers:
        """Return other headers than those that were refused."""
        ...


class Fixed:
    """Headers or query parameters that never change: none, HTTP Basic (RFC 7617), a bearer token, or a key."""

    renewable = False

    def __init__(self, headers: Headers = (), query: Headers = (), secret: str = "") -> None:
        self._headers, self.query, self.secret = headers, query, secret

    async def headers(self, call: Call) -> Headers:
        """Return them."""
        return self._headers

    async def renew(self, call: Call, refused: Headers) -> Headers:
        """Return them: there are no others."""
        return self._headers


def credentials_of(manifest: Manifest, secret: Secrets, client: httpx.AsyncClient, address: str) -> Credentials:
    """Make what a manifest's ``auth`` says.

    Raises :class:`~adapters.errors.ManifestError` for a secret that is not there or that no header can carry.
    """
    auth = manifest.auth
    if auth["type"] == "none":
        return Fixed()
    key = secret("auth", "secret")
    match auth["type"]:
        case "basic":
            return Fixed((basic(auth["username"], key),), secret=key)
        case "bearer":
            if not _TOKEN.match(key):
                manifest.source.refuse(["auth", "secret"], _("no tiene la forma de un token (RFC 6750)"))
            return Fixed((("Authorization", f"Bearer {key}"),), secret=key)
        case "api-key" if "query" in auth:
            return Fixed(query=((auth["query"], key),), secret=key)
        case "api-key":
            if not (key.isascii() and key.isprintable()):
                manifest.source.refuse(["auth", "secret"], _("no cabe en una cabecera HTTP: solo ASCII en una línea"))
            return Fixed(((auth["header"], key),), secret=key)
        case "oauth2":
            url = address + auth["path"]
            return ClientCredentials(client, url, auth["username"], key, auth.get("scope", ""))
    return SiiSession(client, address + auth["path"], auth["username"], key)


def basic(username: str, password: str) -> tuple[str, str]:
    """Make the header of HTTP Basic credentials (RFC 7617), in UTF-8."""
    encoded = base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
    return "Authorization", f"Basic {encoded}"


def tls_of(manifest: Manifest, connection: Connection, secret: Secrets) -> Tls | None:
    """Read what a manifest's ``tls`` names.

    Raises :class:`~adapters.errors.ManifestError` for what is no certificate or has not its key, and for an address
    without TLS.
    """
    if not manifest.tls:
        return None
    if not connection.address.startswith("https:"):
        connection.source.refuse([manifest.name, "address"], _("el manifiesto usa tls; se esperaba https://"))
    tls = Tls(**{name: secret("tls", name) for name in manifest.tls})
    if tls.certificate and not _own_certificate(tls.certificate.encode()):
        manifest.source.refuse(["tls", "certificate"], _("no es un certificado PEM con su clave privada"))
    if tls.ca and not _certificates(tls.ca.encode()):
        manifest.source.refuse(["tls", "ca"], _("no es un certificado PEM"))
    return tls


def _own_certificate(pem: bytes) -> bool:
    """Say whether the first certificate is that of the private key beside it."""
    certificates = _certificates(pem)
    try:
        key = load_pem_private_key(pem, password=None)
        # Of the kinds of key there are, the transport knows fewer.
        ClientBuilder().identity_pem(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return bool(certificates) and certificates[0].public_key() == key.public_key()


def _certificates(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        return []


class _Session:
    """A token kept until it is about to end or the producer answers 401; then got once, however many calls saw it."""

    renewable = True
    query: Headers = ()

    def __init__(self, client: httpx.AsyncClient, secret: str) -> None:
        self._client, self.secret = client, secret
        self._headers: Headers = ()
        self._ends = 0.0
        self._lock = asyncio.Lock()

    async def headers(self, call: Call) -> Headers:
        """Return the session's headers, opening it first where there is none."""
        held = self._headers
        if held and asyncio.get_running_loop().time() < self._ends:
            return held
        return await self.renew(call, held)

    async def renew(self, call: Call, refused: Headers) -> Headers:
        """Open a new session, unless somebody has done so since ``refused`` was handed out."""
        async with self._lock:
            if self._headers is refused or self._headers == ():
                self._headers = ()
                token, life_s = await self._open(call)
                if not _TOKEN.match(token):
                    raise ContractBroken("session: no token")
                self._ends = asyncio.get_running_loop().time() + life_s
                self._headers = (("Authorization", f"Bearer {token}"),)
            return self._headers

    async def _open(self, call: Call) -> tuple[str, float]:
        """Get a token (empty where the answer has none) and the seconds it may be kept."""
        raise NotImplementedError

    async def _post(self, call: Call, url: str, headers: Headers, content: bytes) -> Answer:
        request = httpx.Request(
            "POST", url, headers=[*COMMON_HEADERS, ("Accept", "application/json"), *headers], content=content
        )
        return await ask(self._client, request, within_s=call.left_s, max_body=_MAX_BODY)


class SiiSession(_Session):
    """The session of MITIC's exchange platform: user and password against a token of unknown lifetime."""

    def __init__(self, client: httpx.AsyncClient, url: str, username: str, password: str) -> None:
        super().__init__(client, password)
        self._url = url
        self._login = orjson.dumps({"username": username, "password": password})

    async def _open(self, call: Call) -> tuple[str, float]:
        answer = await self._post(call, self._url, (("Content-Type", "application/json"),), self._login)
        error = status_error(answer)
        if error is not None:
            raise error
        content = _members(answer)
        if content is None:
            raise ContractBroken("session: the answer is not JSON")
        if not isinstance(content.get("success"), bool):
            raise ContractBroken("session: no success flag")
        if not content["success"]:
            raise CallFailed("session: credentials refused", again=False)
        token = content.get("token")
        return token if isinstance(token, str) else "", float("inf")


class ClientCredentials(_Session):
    """OAuth 2.0 client credentials (RFC 6749 clause 4.4), the client known by HTTP Basic (clause 2.3.1)."""

    def __init__(self, client: httpx.AsyncClient, url: str, username: str, password: str, scope: str) -> None:
        super().__init__(client, password)
        self._url = url
        # Both are written as in a form before they go into Basic.
        self._as = (
            ("Content-Type", "application/x-www-form-urlencoded"),
            basic(quote_plus(username), quote_plus(password)),
        )
        self._form = urlencode({"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})).encode()

    async def _open(self, call: Call) -> tuple[str, float]:
        answer = await self._post(call, self._url, self._as, self._form)
        error, content = status_error(answer), _members(answer)
        if error is not None:
            said = content.get("error") if content and answer.status in (400, 401) else None
            if isinstance(said, str) and said in _OAUTH_ERRORS:
                raise CallFailed(f"session: {said}", again=False)
            raise error
        if content is None:
            raise ContractBroken("session: the answer is not JSON")
        if str(content.get("token_type", "")).lower() != "bearer":
            raise ContractBroken("session: not a bearer token")
        token = content.get("access_token")
        return token if isinstance(token, str) else "", _kept_s(content.get("expires_in"))


def _members(answer: Answer) -> dict[str, Any] | None:
    try:
        content = parse_json(answer.body)
    except SchemaError:
        return None
    return content if isinstance(content, dict) else None


def _kept_s(expires_in: Any) -> float:
    """Say how long a token is kept: until shortly before its end; without one, until it is refused."""
    if expires_in is None:
        return float("inf")
    # RFC 6749 clause 5.1 has a number; some servers write it as text.
    if isinstance(expires_in, bool) or not str(expires_in).isdecimal() or len(str(expires_in)) > 12:
        raise ContractBroken("session: expires_in is not a number of seconds")
    life_s = float(expires_in)
    return life_s - min(_LEEWAY_S, life_s / 2)
