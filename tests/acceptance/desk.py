"""An institution's own system with its data-protection officer, over HTTP, for the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from gateway.cli.demo.clients import Caller
from schemas.ids import uuid7
from tests.acceptance.bad_input import newcomer
from tests.acceptance.governed import appoint, call
from tests.house import House, until

OFFICER = "data-protection-officer"


@dataclass(frozen=True, slots=True)
class Desk:
    """A client system of an institution, and who sits at it."""

    house: House
    system: Caller
    user: str

    async def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, role: str = OFFICER, key: str | None = None
    ) -> httpx.Response:
        """Call a path of ``/api/v1`` in the name of who sits here; ``key`` is the Idempotency-Key."""
        return await call(self.house, self.system, method, path, body, operator=self.user, role=role, key=key)


async def open_desk(house: House, institution: str) -> Desk:
    """Register a system of an institution and give its officer the role; returns when the gateway knows of both."""
    user = f"dpo-{uuid7()}"
    desk = Desk(house, await newcomer(house, institution, "rights.manage", "breaches.manage"), user)
    await appoint(house, institution, user, OFFICER)

    async def known() -> bool:
        return (await desk.call("GET", "breaches?limit=1")).status_code == 200

    await until(known)
    return desk
