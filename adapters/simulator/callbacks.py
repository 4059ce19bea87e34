"""How MSPBS tells the gateway what became of its referrals: each answer until it is taken, in order per referral."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey

from adapters.simulator.casebook import Answer, CaseBook
from adapters.simulator.switches import Switches

_EVENTS = {
    "ACEPTADA": "accept",
    "RECHAZADA": "decline",
    "AGENDADA": "schedule",
    "NO_ACUDIO": "no_show",
    "EN_PROCESO": "note",
    "RESULTADO": "outcome",
    "ANULADA": "confirm_cancel",
}
_OUTCOMES = {"PRESTADO": "provided", "PARCIAL": "partly_provided", "NO_PRESTADO": "not_provided"}
_REASONS = {
    "SIN_CUPO": "no-capacity",
    "NO_CUMPLE_REQUISITOS": "not-eligible",
    "FALTAN_DOCUMENTOS": "missing-documents",
    "NO_UBICADA": "not-found-person",
    "YA_RECIBE": "already-served",
    "NO_ACEPTA": "refused-by-person",
    "OTRO": "other",
}
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
#: Refusals that another attempt may turn: a token to renew, a gateway that asks for time.
_PASSING = {401, 408, 425, 429}
_LOOK_EVERY_S, _AT_ONCE, _TIMEOUT_S = 0.05, 16, 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0


class Callbacks:
    """The queue of one institution towards one gateway. Raises OSError or ValueError for a key it cannot use."""

    def __init__(
        self, book: CaseBook, switches: Switches, *, gateway: str, client_id: str, key_file: str, kid: str
    ) -> None:
        self._book, self._switches = book, switches
        self._gateway, self._client_id, self._kid = gateway.rstrip("/"), client_id, kid
        self._key = ECKey.import_key(Path(key_file).read_bytes())
        if self._key.curve_name != "P-256" or not self._key.is_private:
            raise ValueError("needs a private key on P-256")
        self._token, self._token_until = "", 0.0
        self._renewal = asyncio.Lock()

    async def run(self) -> None:
        """Tell what is due, until cancelled."""
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client:
            while True:
                due = self._book.due(_AT_ONCE)
                await asyncio.gather(*(self._tell(client, answer) for answer in due))
                if len(due) < _AT_ONCE:
                    await asyncio.sleep(_LOOK_EVERY_S)

    async def _tell(self, client: httpx.AsyncClient, answer: Answer) -> None:
        try:
            status = await self._post(client, answer)
            if status < 300 and self._switches.take("duplicate"):
                await self._post(client, answer)
        except httpx.HTTPError:
            status = 0
        if 200 <= status < 300 or status == 409:
            self._book.close_answers([answer.number], "given")
        elif 400 <= status < 500 and status not in _PASSING:
            self._book.close_answers([answer.number], "refused")
        else:
            if status == 401:
                self._token_until = 0.0
            self._book.put_off(answer.number, min(_FIRST_PAUSE_S * 2 ** min(answer.attempts, 10), _LONGEST_PAUSE_S))

    async def _post(self, client: httpx.AsyncClient, answer: Answer) -> int:
        headers = {
            "authorization": f"Bearer {await self._bearer(client)}",
            "idempotency-key": answer.step.message_id,
        }
        url = f"{self._gateway}/api/v1/referrals/{answer.referral_id}/counter-referrals"
        return (await client.post(url, json=message(answer), headers=headers)).status_code

    async def _bearer(self, client: httpx.AsyncClient) -> str:
        async with self._renewal:
            if time.monotonic() >= self._token_until:
                await self._renew(client)
            return self._token

    async def _renew(self, client: httpx.AsyncClient) -> None:
        """Ask for a token with a signed assertion (RFC 7523 clause 2.2); a refusal here is never final."""
        url, now = f"{self._gateway}/oauth2/token", int(datetime.now(UTC).timestamp())
        claims = {"iss": self._client_id, "sub": self._client_id, "aud": url, "jti": str(uuid4())}
        assertion = jwt.encode(
            {"alg": "ES256", "kid": self._kid}, {**claims, "iat": now, "exp": now + 60}, self._key, ["ES256"]
        )
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": _ASSERTION,
            "client_assertion": assertion,
            "scope": "referrals.reply",
        }
        response = await client.post(url, data=form)
        response.raise_for_status()
        try:
            granted = response.json()
            self._token, life = str(granted["access_token"]), float(granted.get("expires_in", 60))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise httpx.DecodingError("not a token answer") from error
        self._token_until = time.monotonic() + max(life - 10, 1)


def message(answer: Answer) -> dict[str, Any]:
    """Write an answer as the gateway's counter-referral; fields without a value are left out."""
    step, appointment = answer.step, answer.appointment
    told: dict[str, Any] = {
        "event": _EVENTS[step.event],
        "message_id": step.message_id,
        "occurred_on": answer.day.isoformat(),
        "outcome": _OUTCOMES.get(step.outcome),
        "reason": {"code": _REASONS[step.reason], "text": step.detail} if step.reason else None,
        "appointment": {"at": appointment.isoformat(), "place": step.place} if appointment else None,
        "place": None if appointment else step.place or None,
        "proof_reference": step.proof or None,
    }
    return {name: value for name, value in told.items() if value is not None}
