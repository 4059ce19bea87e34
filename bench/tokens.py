"""Tokens issued and checked per second, beside joserfc alone in the same run, on a real PostgreSQL.

Issued: a token for a ``private_key_jwt`` through the authorization server, one after the other and 16 at once, each
assertion claimed in the database. Checked: an access token the first time, a remembered one, and one under a DPoP proof
with its proof claimed in the database. Usage: ``uv run python -m bench.tokens [ROUNDS] [CALLS]``. One JSON line: the
median over the rounds, per second.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from joserfc import jwt
from joserfc.jwk import ECKey

from bench.common import machine
from gateway import embedded
from gateway.cli.db import bring_up
from gateway.clock import utc_now
from gateway.database import Database, application_url
from gateway.identity import service
from gateway.identity.assertions import client_assertion, dpop_proof
from gateway.identity.authentication import ASSERTION_TYPE, GRANT
from gateway.identity.binding import Presented
from gateway.identity.directory import ClientDirectory
from gateway.identity.foreign import ForeignTokens
from gateway.identity.keys import load_ring, read_public_key
from gateway.identity.limits import ClientLimits
from gateway.identity.models import Issuer
from gateway.identity.oauth import TokenServer
from gateway.identity.peer import Peer
from gateway.identity.tokens import TokenChecker
from gateway.settings import Settings, load_settings

ISSUER = Issuer("https://siis.example.org")
CLIENT, SCOPES = "bench", frozenset({"disclosures.create"})
URL, FORM = f"{ISSUER.url}/api/v1/disclosures", "application/x-www-form-urlencoded"
AT_ONCE = 16


class Desk:
    """One process of the gateway, as far as tokens go, and the key of its one client."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.key = ECKey.generate_key("P-256", private=True)
        self.database, self.ring = database, load_ring(settings.keys_dir, create=True)
        self.directory = ClientDirectory(database, now=utc_now)
        self._foreign = ForeignTokens(database, now=utc_now)
        # Each attempt comes from an address of its own: what is measured is the work, not the limit.
        limits = ClientLimits(request_rate=1e5, registered=lambda _client_id: True)
        self.server = TokenServer(
            issuer=ISSUER, ring=self.ring, directory=self.directory, database=database, now=utc_now, limits=limits
        )
        self._callers = 0

    async def open(self) -> None:
        """Register the client and read the directories."""
        async with self.database.transaction() as connection:
            await service.add_client(
                connection,
                client_id=CLIENT,
                name="Bench",
                institution="MDS",
                scopes=SCOPES,
                assurance=1,
                key=read_public_key(self.key.as_pem(private=False)),
                now=utc_now(),
            )
        await self.directory.load()
        await self._foreign.load()

    def checker(self) -> TokenChecker:
        """Return a checker that remembers nothing."""
        return TokenChecker(ring=self.ring, issuer=ISSUER, directory=self.directory, now=utc_now, foreign=self._foreign)

    def asking(self) -> bytes:
        """Return the body of a token request, freshly signed."""
        assertion = client_assertion(self.key, client_id=CLIENT, issuer=ISSUER, now=utc_now())
        form = {"grant_type": GRANT, "client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
        return urlencode(form).encode()

    async def token(self, body: bytes, *proofs: str) -> str:
        """Ask for a token and return it."""
        self._callers += 1
        peer = Peer(f"10.{self._callers >> 16 & 255}.{self._callers >> 8 & 255}.{self._callers & 255}")
        answer = await self.server.token(body, content_type=FORM, authorization=None, presented=Presented(peer, proofs))
        if answer.status != 200:
            sys.exit(f"no token: {answer.body}")
        return str(answer.body["access_token"])

    def proof(self, token: str) -> Presented:
        """Return what comes with a bound token, its proof freshly signed."""
        signed = dpop_proof(self.key, method="POST", url=URL, now=utc_now(), token=token)
        return Presented(proofs=(signed,), method="POST", url=URL)


async def _measure(desk: Desk, calls: int) -> dict[str, float]:
    found: dict[str, float] = {}
    bodies = [desk.asking() for _ in range(calls)]
    tokens: list[str] = []

    async def issue() -> None:
        tokens.extend([await desk.token(body) for body in bodies])

    found["issued"] = calls / await _seconds(issue)
    bodies = [desk.asking() for _ in range(calls)]

    async def issue_at_once() -> None:
        waiting = iter(bodies)

        async def one() -> None:
            for body in waiting:
                await desk.token(body)

        await asyncio.gather(*(one() for _ in range(AT_ONCE)))

    found[f"issued_{AT_ONCE}_at_once"] = calls / await _seconds(issue_at_once)
    checker = desk.checker()

    async def check() -> None:
        for token in tokens:
            checker.check(f"Bearer {token}")

    found["checked_first"] = calls / await _seconds(check)
    found["checked_again"] = calls / await _seconds(check)
    first = dpop_proof(desk.key, method="POST", url=ISSUER.token_endpoint, now=utc_now())
    bound = await desk.token(desk.asking(), first)
    presented = [desk.proof(bound) for _ in range(calls)]

    async def check_proofs() -> None:
        for each in presented:
            await checker.check_once(f"DPoP {bound}", each)

    found["checked_dpop"] = calls / await _seconds(check_proofs)
    return found | await _alone(desk, calls, tokens)


async def _alone(desk: Desk, calls: int, tokens: list[str]) -> dict[str, float]:
    """Measure what the library takes for the signatures alone."""
    key, claims = desk.ring.current, {"sub": CLIENT, "aud": ISSUER.resource, "scope": " ".join(SCOPES)}

    async def sign() -> None:
        for _ in range(calls):
            jwt.encode({"alg": "ES256", "kid": key.kid}, claims, key, algorithms=["ES256"])

    async def verify() -> None:
        for token in tokens:
            jwt.decode(token, key, algorithms=["ES256"])

    return {"joserfc_sign": calls / await _seconds(sign), "joserfc_verify": calls / await _seconds(verify)}


async def _seconds(work: Callable[[], Awaitable[None]]) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


@asynccontextmanager
async def _desk(settings: Settings) -> AsyncIterator[Desk]:
    database = Database(application_url(settings))
    try:
        desk = Desk(settings, database)
        await desk.open()
        yield desk
    finally:
        await database.close()


async def _rounds(settings: Settings, rounds: int, calls: int) -> dict[str, Any]:
    async with _desk(settings) as desk:
        await _measure(desk, calls // 10)
        measured = [await _measure(desk, calls) for _ in range(rounds)]
    return {name: round(statistics.median(each[name] for each in measured)) for name in measured[0]}


def main(rounds: int, calls: int) -> None:
    told: dict[str, Any] = {"benchmark": "tokens", "rounds": rounds, "calls": calls, "machine": machine()}
    with tempfile.TemporaryDirectory(prefix="siis-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        settings = load_settings(data_dir=folder / "data")
        try:
            bring_up(settings, demonstration=True)
            told["per_second"] = asyncio.run(_rounds(settings, rounds, calls))
        finally:
            embedded.stop(settings.data_dir)
    print(json.dumps(told))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
