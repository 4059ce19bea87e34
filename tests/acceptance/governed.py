"""Operators of an institution who call the gateway through its own system, each verified by an assertion."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
from joserfc.jwk import ECKey
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.models import Actor
from consent.roles import grant_role
from gateway.cli.context import governance_of
from gateway.cli.demo.clients import Caller
from gateway.identity.assertions import operator_assertion
from schemas.ids import uuid7
from tests.house import House


async def call(
    house: House,
    system: Caller,
    method: str,
    path: str,
    body: Any = None,
    *,
    operator: str | None = None,
    role: str = "operator",
    key: str | None = None,
) -> httpx.Response:
    """Call a path of ``/api/v1``, for a verified operator in a role if one is given; every creation has a key."""
    headers = {"Authorization": f"Bearer {await system.bearer()}"}
    if method == "POST":
        headers["Idempotency-Key"] = key or str(uuid7())
    if operator is not None:
        headers["X-SIIS-Operator"] = operator_assertion(
            ECKey.import_key(system.private_key),
            client_id=system.client_id,
            issuer=house.issuer,
            operator=operator,
            roles=frozenset({role}),
            acr="2",
            now=datetime.now(UTC),
        )
    return await house.http.request(method, f"{house.issuer.url}/api/v1/{path}", json=body, headers=headers)


async def appoint(house: House, institution: str, user: str, role: str) -> dict[str, Any]:
    """Grant a role as whoever runs the machine."""

    async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
        return await grant_role(connection, actor, institution=institution, user=user, role=role, valid_to=None, at=at)

    async with house.context() as context:
        return await governance_of(context).change_here(work)
