"""Client secrets, for pilots alone, by RFC 6749 section 2.3.1; and the wait that guessing one ends in."""

from __future__ import annotations

from base64 import b64encode

import httpx
import pytest
from integration.identity_database import Deployment, register

from gateway.identity import service
from gateway.identity.credentials import new_secret, secret_hash
from gateway.identity.errors import ClientError
from gateway.identity.limits import LOCK_FAILURES

pytest_plugins = ["integration.identity_fixtures"]

GRANT = {"grant_type": "client_credentials"}


async def pilot(running: Deployment, client_id: str = "piloto") -> str:
    """Register a client by a secret alone and return the secret."""
    secret = new_secret()
    await register(running, client_id, key=None, secret_sha256=secret_hash(secret))
    return secret


def basic(client_id: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{client_id}:{secret}".encode()).decode()}


def refused(answer: httpx.Response, running: Deployment, scheme: str, reason: str = "secret") -> None:
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client"), answer.text
    assert answer.headers["www-authenticate"] == f'{scheme} realm="siis"'
    assert (running.refusals[-1].reason, running.refusals[-1].client_id) == (reason, None)


async def test_6749_2_3_1_secret_in_the_header_or_in_the_form_gets_a_token_marked_pilot(deployment: Deployment) -> None:
    secret = await pilot(deployment)
    answers = [
        await deployment.post("/oauth2/token", GRANT, **basic("piloto", secret)),
        await deployment.post("/oauth2/token", GRANT | {"client_id": "piloto", "client_secret": secret}),
        await deployment.post("/oauth2/token", GRANT | {"client_id": "piloto"}, **basic("piloto", secret)),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        used = await deployment.use("Bearer " + answer.json()["access_token"])
        assert used.json() == {"client": "piloto", "pilot": True}
    other = await register(deployment)
    assert (await deployment.use(await deployment.token(other))).json()["pilot"] is False


async def test_refusals_of_a_pilot_are_marked_too(deployment: Deployment) -> None:
    secret = await pilot(deployment)
    answer = await deployment.post("/oauth2/token", GRANT | {"scope": "audit.read"}, **basic("piloto", secret))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")
    assert (deployment.refusals[-1].client_id, deployment.refusals[-1].pilot) == ("piloto", True)
    answer = await deployment.post("/oauth2/token", GRANT | {"scope": "disclosures.create"}, **basic("piloto", secret))
    assert (await deployment.use("Bearer " + answer.json()["access_token"])).status_code == 403
    assert (deployment.refusals[-1].reason, deployment.refusals[-1].pilot) == ("scope", True)


async def test_6749_5_2_wrong_secret_and_unknown_client_look_the_same(deployment: Deployment) -> None:
    await pilot(deployment)
    await register(deployment, "con-clave")
    bodies = set()
    for client_id in ("piloto", "con-clave", "nadie", "\u00f1"):
        answer = await deployment.post("/oauth2/token", GRANT | {"client_id": client_id, "client_secret": "x"})
        refused(answer, deployment, "Bearer")
        bodies.add(answer.content)
        if client_id.isascii():
            refused(await deployment.post("/oauth2/token", GRANT, **basic(client_id, "x")), deployment, "Basic")
    assert len(bodies) == 1


@pytest.mark.parametrize("credentials", ["", "!", "cGlsb3Rv", "OnNlY3JldA==", "w7E6w7E="])
async def test_7617_2_credentials_that_are_none(deployment: Deployment, credentials: str) -> None:
    answer = await deployment.post("/oauth2/token", GRANT, Authorization=f"Basic {credentials}")
    refused(answer, deployment, "Basic", "malformed")


async def test_6749_2_3_1_secret_without_a_client_or_with_two_is_refused(deployment: Deployment) -> None:
    secret = await pilot(deployment)
    refused(await deployment.post("/oauth2/token", GRANT | {"client_secret": secret}), deployment, "Bearer")
    answer = await deployment.post("/oauth2/token", GRANT | {"client_id": "otro"}, **basic("piloto", secret))
    refused(answer, deployment, "Basic", "malformed")


@pytest.mark.parametrize("scheme", ["Bearer x", "Digest x", "Basic"])
async def test_6749_2_3_other_schemes_and_two_ways_at_once_are_invalid_request(
    deployment: Deployment, scheme: str
) -> None:
    secret = await pilot(deployment)
    for form, headers in (
        (GRANT, {"Authorization": scheme}),
        (GRANT | {"client_id": "piloto", "client_secret": secret}, basic("piloto", secret)),
    ):
        answer = await deployment.post("/oauth2/token", form, **headers)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_secret_of_a_client_that_is_no_pilot_any_more_counts_no_more_nor_do_its_tokens(
    deployment: Deployment,
) -> None:
    secret = await pilot(deployment)
    token = (
        "Bearer " + (await deployment.post("/oauth2/token", GRANT, **basic("piloto", secret))).json()["access_token"]
    )
    fresh = new_secret()
    async with deployment.database.transaction() as connection:
        await service.change_secret(connection, client_id="piloto", secret_sha256=secret_hash(fresh))
    await deployment.directory.load()
    assert (await deployment.use(token)).status_code == 401
    assert deployment.refusals[-1].reason == "secret"
    refused(await deployment.post("/oauth2/token", GRANT, **basic("piloto", secret)), deployment, "Basic")
    assert (await deployment.post("/oauth2/token", GRANT, **basic("piloto", fresh))).status_code == 200
    async with deployment.database.transaction() as connection:
        await service.change_secret(connection, client_id="piloto", secret_sha256=None)
    await deployment.directory.load()
    refused(await deployment.post("/oauth2/token", GRANT, **basic("piloto", fresh)), deployment, "Basic")
    with pytest.raises(ClientError, match=r"^not-pilot$"):
        async with deployment.database.transaction() as connection:
            await service.change_secret(connection, client_id="piloto", secret_sha256=secret_hash(fresh))


async def test_database_holds_no_secret(deployment: Deployment) -> None:
    secret = await pilot(deployment)
    async with deployment.database.connection() as connection:
        [client] = await service.list_clients(connection)
    assert client.secret_sha256 == secret_hash(secret)
    assert len(secret) >= 43
    assert secret not in repr(client)
    assert repr(client.secret_sha256) not in repr(client)


async def test_6585_4_whoever_guesses_must_wait_and_the_log_hears_of_it(deployment: Deployment) -> None:
    secret = await pilot(deployment)
    for _ in range(LOCK_FAILURES):
        refused(await deployment.post("/oauth2/token", GRANT, **basic("piloto", "x")), deployment, "Basic")
    answer = await deployment.post("/oauth2/token", GRANT, **basic("piloto", secret))
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert "access_token" not in answer.json()
    assert (deployment.refusals[-1].reason, deployment.refusals[-1].client_id) == ("locked", "piloto")
