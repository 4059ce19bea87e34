"""Looking into an access token, by the clauses of RFC 7662."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from integration.identity_database import (
    ISSUER,
    SCOPES,
    Deployment,
    Registered,
    new_certificate,
    register,
    tampered,
)
from joserfc import jwt

from gateway.identity import service
from gateway.identity.assertions import client_assertion, dpop_proof
from gateway.identity.authentication import ASSERTION_TYPE
from gateway.identity.introspection import SCOPE
from gateway.identity.peer import thumbprint

pytest_plugins = ["integration.identity_fixtures"]

PATH = "/oauth2/introspect"


def asserting(client: Registered, running: Deployment) -> dict[str, str]:
    assertion = client_assertion(client.key, client_id=client.id, issuer=ISSUER, now=running.clock())
    return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}


async def introspect(running: Deployment, client: Registered, token: str, **more: str) -> httpx.Response:
    return await running.post(PATH, asserting(client, running) | {"token": token} | more)


async def bare(running: Deployment, client: Registered) -> str:
    return (await running.token(client)).removeprefix("Bearer ")


async def test_7662_2_2_own_token_is_told_with_its_claims(deployment: Deployment) -> None:
    client = await register(deployment)
    answer = await introspect(deployment, client, await bare(deployment, client), token_type_hint="lo que sea")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    now = int(deployment.clock().timestamp())
    assert set(told.pop("scope").split()) == SCOPES
    assert len(told.pop("jti")) == 36
    assert told == {
        "active": True,
        "token_type": "Bearer",
        "iss": ISSUER.url,
        "sub": client.id,
        "aud": ISSUER.resource,
        "client_id": client.id,
        "iat": now,
        "exp": now + 300,
        "inst": "MDS",
    }


async def test_8705_3_2_and_9449_6_2_binding_is_told(deployment: Deployment) -> None:
    client = await register(deployment)
    der = new_certificate(start=deployment.clock())
    form = {"grant_type": "client_credentials", **asserting(client, deployment)}
    proof = dpop_proof(client.key, method="POST", url=ISSUER.token_endpoint, now=deployment.clock())
    token = (await deployment.behind_proxy("/oauth2/token", form, der, DPoP=proof)).json()["access_token"]
    told = (await introspect(deployment, client, token)).json()
    assert told["cnf"] == {"x5t#S256": thumbprint(der), "jkt": client.key.thumbprint()}
    assert told["token_type"] == "DPoP"


async def test_7662_2_1_stranger_is_told_nothing(deployment: Deployment) -> None:
    client = await register(deployment)
    answer = await deployment.post(PATH, {"token": await bare(deployment, client)})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    answer = await deployment.post(PATH, asserting(client, deployment))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_7662_4_token_of_another_is_inactive_without_the_scope_and_the_log_knows(deployment: Deployment) -> None:
    owner, other = await register(deployment, "uno"), await register(deployment, "dos")
    token = await bare(deployment, owner)
    answer = await introspect(deployment, other, token)
    assert (answer.status_code, answer.json()) == (200, {"active": False})
    assert (deployment.refusals[-1].reason, deployment.refusals[-1].client_id) == ("introspection", "dos")
    partner = await register(deployment, "tres", scopes=frozenset({SCOPE}))
    assert (await introspect(deployment, partner, token)).json()["client_id"] == "uno"


async def test_7662_2_2_token_that_does_not_count_is_inactive_and_nothing_else(deployment: Deployment) -> None:
    client = await register(deployment)
    good = await bare(deployment, client)
    claims = jwt.decode(good, deployment.ring.current, algorithms=["ES256"]).claims

    def ours(**changes: Any) -> str:
        header = {"alg": "ES256", "typ": "at+jwt", "kid": deployment.ring.current.kid}
        return jwt.encode(header, claims | changes, deployment.ring.current)

    for token in (
        "x",
        "a.b.c",
        tampered(good, scope="audit.read"),
        ours(aud="https://otro.example"),
        ours(exp=int(deployment.clock().timestamp())),
        ours(client_id="nadie"),
        ours(client_kid="otra"),
        client_assertion(client.key, client_id=client.id, issuer=ISSUER, now=deployment.clock()),
    ):
        assert (await introspect(deployment, client, token)).json() == {"active": False}
    revoked = asserting(client, deployment) | {"token": good}
    assert (await deployment.post("/oauth2/revoke", revoked)).status_code == 200
    assert (await introspect(deployment, client, good)).json() == {"active": False}


@pytest.mark.parametrize("change", ["disabled", "expired"])
async def test_token_of_a_client_that_counts_no_more_is_inactive(deployment: Deployment, change: str) -> None:
    owner = await register(deployment, "uno")
    partner = await register(deployment, "dos", scopes=frozenset({SCOPE}))
    token = await bare(deployment, owner)
    assert (await introspect(deployment, partner, token)).json()["active"] is True
    async with deployment.database.transaction() as connection:
        if change == "disabled":
            await service.disable_client(connection, client_id="uno", now=deployment.clock())
        else:
            await service.change_validity(connection, client_id="uno", valid_from=None, valid_to=deployment.clock())
    await deployment.directory.load()
    assert (await introspect(deployment, partner, token)).json() == {"active": False}
