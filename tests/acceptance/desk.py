"""An institution's own system with its data-protection officer, over HTTP, for the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
from joserfc.jwk import ECKey

from consent import roles
from consent.models import Actor
from gateway.cli.token import request_token
from gateway.clock import utc_now
from gateway.identity import service
from gateway.identity.assertions import operator_assertion
from gateway.identity.keys import read_public_key
from schemas.ids import uuid7
from tests.house import House, until

SCOPES = frozenset({"rights.manage", "breaches.manage"})
OFFICER = "data-protection-officer"


@dataclass(frozen=True, slots=True)
class Desk:
    """A client system of an institution, and who sits at it."""

    house: House
    client_id: str
    user: str
    key: ECKey

    async def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, role: str = OFFICER, key: str | None = None
    ) -> httpx.Response:
        """Call the gateway in the name of somebody who logged in here; ``key`` is the Idempotency-Key."""
        issuer = self.house.issuer
        token = await request_token(self.house.http, issuer, self.client_id, self.key.as_pem(private=True))
        operator = operator_assertion(
            self.key,
            client_id=self.client_id,
            issuer=issuer,
            operator=self.user,
            roles=frozenset({role}),
            acr="2",
            now=utc_now(),
        )
        headers = {"Authorization": f"Bearer {token}", "X-SIIS-Operator": operator}
        if key is not None:
            headers["Idempotency-Key"] = key
        return await self.house.http.request(method, issuer.url + path, json=body, headers=headers)


async def open_desk(house: House, institution: str) -> Desk:
    """Register a system of an institution and give its officer the role; returns when the gateway knows of both."""
    key, number = ECKey.generate_key("P-256"), uuid7()
    desk = Desk(house, f"desk-{number}", f"dpo-{number}", key)
    async with house.context() as context, context.database.transaction() as connection:
        await service.add_client(
            connection,
            client_id=desk.client_id,
            name="Mesa",
            institution=institution,
            scopes=SCOPES,
            assurance=2,
            key=read_public_key(key.as_pem(private=False)),
            now=utc_now(),
        )
        await roles.grant_role(
            connection,
            Actor(institution=None, user="uid:0"),
            institution=institution,
            user=desk.user,
            role=OFFICER,
            valid_to=None,
            at=utc_now(),
        )

    async def known() -> bool:
        try:
            return (await desk.call("GET", "/api/v1/breaches?limit=1")).status_code == 200
        except httpx.HTTPStatusError:
            return False

    await until(known)
    return desk
