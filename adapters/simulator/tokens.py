"""The tokens an institution hands out and believes: MITIC's session, and OAuth 2.0 for clients."""

from __future__ import annotations

import base64
import secrets
import time
from urllib.parse import parse_qs, quote_plus

from adapters.simulator.settings import USER
from adapters.simulator.switches import Switches
from adapters.simulator.web import Reply, Request, json_reply


class Tokens:
    """Bearer tokens that live as long as the switch ``token_life_s`` says."""

    def __init__(self, password: str, switches: Switches) -> None:
        self._password, self._switches = password, switches
        self._issued: dict[bytes, float] = {}

    def believed(self, request: Request) -> bool:
        """Say whether a request carries a token of ours that is still good (RFC 6750 clause 2.1)."""
        kind, _, token = request.headers.get(b"authorization", b"").partition(b" ")
        issued = self._issued.get(token) if kind.lower() == b"bearer" else None
        if issued is None or time.monotonic() - issued >= self._switches["token_life_s"]:
            self._issued.pop(token, None)
            return False
        return True

    def session(self, request: Request) -> Reply:
        """Open a session as MITIC's platform does: refused credentials are a flag inside a 200."""
        login = request.json()
        if login is None:
            return json_reply(400, {"success": False})
        if login.get("username") != USER or login.get("password") != self._password:
            return json_reply(200, {"success": False})
        return json_reply(200, {"token": self._issue(), "success": True})

    def grant(self, request: Request) -> Reply:
        """Grant a token to a client (RFC 6749 clause 4.4), which proves itself by HTTP Basic (clause 2.3.1)."""
        # Both parts are form-encoded inside the Basic credentials, unlike in plain HTTP Basic.
        login = f"{quote_plus(USER)}:{quote_plus(self._password)}"
        expected = b"Basic " + base64.b64encode(login.encode())
        if not secrets.compare_digest(request.headers.get(b"authorization", b""), expected):
            challenge = (b"www-authenticate", b'Basic realm="oauth2"')
            refused = json_reply(401, {"error": "invalid_client"})
            return Reply(refused.status, refused.body, headers=(challenge,))
        form = parse_qs(request.body.decode("ascii", "replace"))
        if form.get("grant_type") != ["client_credentials"]:
            return json_reply(400, {"error": "unsupported_grant_type"})
        life = int(self._switches["token_life_s"])
        return json_reply(200, {"access_token": self._issue(), "token_type": "Bearer", "expires_in": life})

    def _issue(self) -> str:
        token = secrets.token_urlsafe(32)
        self._issued[token.encode()] = time.monotonic()
        return token
