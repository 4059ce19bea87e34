"""How a request proves who we are: fixed headers, or the token of an SII session, renewed once for all callers."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable
from typing import Any, Protocol

import httpx
import orjson

from adapters.errors import CallFailed, ContractBroken
from adapters.http import COMMON_HEADERS, Headers, ask, status_error
from adapters.manifest import Manifest
from adapters.resilience import Call
from schemas.errors import SchemaError
from schemas.validation import parse_json

_MAX_BODY = 64 * 1024
# RFC 6750 clause 2.1; a token of another form could not stand in a header.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{1,8192}=*\Z", re.ASCII)


class Credentials(Protocol):
    """What a request is sent with."""

    renewable: bool

    async def headers(self, call: Call) -> Headers:
        """Return the headers to send, opening a session first where there is none."""
        ...

    async def renew(self, call: Call, refused: Headers) -> Headers:
        """Return other headers than those that were refused."""
        ...


class FixedHeaders:
    """Headers that never change: none, HTTP Basic (RFC 7617), or a key."""

    renewable = False

    def __init__(self, headers: Headers = ()) -> None:
        self._headers = headers

    async def headers(self, call: Call) -> Headers:
        """Return them."""
        return self._headers

    async def renew(self, call: Call, refused: Headers) -> Headers:
        """Return them: there are no others."""
        return self._headers


def credentials_of(
    manifest: Manifest, secret: Callable[..., str], client: httpx.AsyncClient, address: str
) -> Credentials:
    """Make what a manifest's ``auth`` says."""
    auth = manifest.auth
    match auth["type"]:
        case "basic":
            return basic(auth["username"], secret("auth", "secret"))
        case "api-key":
            return FixedHeaders(((auth["header"], secret("auth", "secret")),))
        case "sii-session":
            return SiiSession(client, address + auth["path"], auth["username"], secret("auth", "secret"))
    return FixedHeaders()


def basic(username: str, password: str) -> FixedHeaders:
    """Make HTTP Basic credentials (RFC 7617), in UTF-8."""
    encoded = base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
    return FixedHeaders((("Authorization", f"Basic {encoded}"),))


class SiiSession:
    """The session of MITIC's exchange platform: user and password against a token of unknown lifetime.

    The token is kept until the platform answers 401; then it is renewed once, however many calls saw the 401.
    """

    renewable = True

    def __init__(self, client: httpx.AsyncClient, url: str, username: str, password: str) -> None:
        self._client, self._url = client, url
        self._login = orjson.dumps({"username": username, "password": password})
        self._headers: Headers = ()
        self._lock = asyncio.Lock()

    async def headers(self, call: Call) -> Headers:
        """Return the session's headers, opening it first where there is none."""
        return self._headers or await self.renew(call, ())

    async def renew(self, call: Call, refused: Headers) -> Headers:
        """Open a new session, unless somebody has done so since ``refused`` was handed out."""
        async with self._lock:
            if self._headers is refused or self._headers == ():
                self._headers = ()
                self._headers = (("Authorization", f"Bearer {await self._open(call)}"),)
            return self._headers

    async def _open(self, call: Call) -> str:
        headers = [*COMMON_HEADERS, ("Content-Type", "application/json"), ("Accept", "application/json")]
        request = httpx.Request("POST", self._url, headers=headers, content=self._login)
        answer = await ask(self._client, request, within_s=call.left_s, max_body=_MAX_BODY)
        error = status_error(answer)
        if error is not None:
            raise error
        try:
            content: Any = parse_json(answer.body)
        except SchemaError:
            raise ContractBroken("session: the answer is not JSON") from None
        if not isinstance(content, dict) or not isinstance(content.get("success"), bool):
            raise ContractBroken("session: no success flag")
        if not content["success"]:
            raise CallFailed("session: credentials refused", again=False)
        token = content.get("token")
        if not isinstance(token, str) or not _TOKEN.match(token):
            raise ContractBroken("session: no token")
        return token
