"""Clients known by their TLS certificate, and tokens bound to one, by the clauses of RFC 8705 and RFC 9440."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from integration.identity_database import (
    ISSUER,
    OUTSIDE,
    RESOURCE,
    Deployment,
    Registered,
    forwarded,
    new_certificate,
    register,
)
from joserfc import jwt

from gateway.identity import service
from gateway.identity.assertions import client_assertion
from gateway.identity.authentication import ASSERTION_TYPE
from gateway.identity.certificates import read_certificate
from gateway.identity.errors import CertificateRefused
from gateway.identity.peer import thumbprint

pytest_plugins = ["integration.identity_fixtures"]

TOKEN = "/oauth2/token"
BY_CERTIFICATE = {"grant_type": "client_credentials", "client_id": "mds-sistema"}


async def by_certificate(running: Deployment, *, start: int = 0, **more: Any) -> bytes:
    """Register a client by a certificate alone, valid from ``start`` days from now; return the certificate."""
    der = new_certificate(start=running.clock() + timedelta(days=start) - timedelta(hours=1))
    certificate = read_certificate(der, now=running.clock())
    await register(running, key=None, certificate=certificate, **more)
    return der


def asserting(client: Registered, running: Deployment) -> dict[str, str]:
    assertion = client_assertion(client.key, client_id=client.id, issuer=ISSUER, now=running.clock())
    return {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion,
    }


def refused(answer: httpx.Response, running: Deployment, reason: str, client_id: str | None) -> None:
    """Refused alike at the token endpoint and at a resource; the reason and who it was are for the log."""
    assert answer.status_code == 401, answer.text
    if answer.request.url.path == TOKEN:
        assert answer.json()["error"] == "invalid_client"
    else:
        assert answer.headers["www-authenticate"] == 'Bearer realm="siis", error="invalid_token"'
    assert (running.refusals[-1].reason, running.refusals[-1].client_id) == (reason, client_id)


async def test_8705_2_registered_certificate_and_client_id_get_a_token(deployment: Deployment) -> None:
    der = await by_certificate(deployment)
    answer = await deployment.behind_proxy(TOKEN, BY_CERTIFICATE, der)
    assert answer.status_code == 200, answer.text
    assert answer.json()["token_type"] == "Bearer"
    used = await deployment.use("Bearer " + answer.json()["access_token"], certificate=der)
    assert used.json()["client"] == "mds-sistema"


async def test_8705_3_1_token_names_the_certificate_by_its_sha_256(deployment: Deployment) -> None:
    der = await by_certificate(deployment)
    token = (await deployment.behind_proxy(TOKEN, BY_CERTIFICATE, der)).json()["access_token"]
    claims = jwt.decode(token, deployment.ring.current, algorithms=["ES256"]).claims
    assert claims["cnf"] == {"x5t#S256": thumbprint(der)}


async def test_8705_3_certificate_beside_an_assertion_binds_the_token(deployment: Deployment) -> None:
    client = await register(deployment)
    der, other = (new_certificate(start=deployment.clock()) for _ in range(2))
    answer = await deployment.behind_proxy(TOKEN, asserting(client, deployment), der)
    token = "Bearer " + answer.json()["access_token"]
    assert (await deployment.use(token, certificate=der)).status_code == 200
    refused(await deployment.use(token, certificate=other), deployment, "binding", client.id)


async def test_8705_3_bound_token_without_its_certificate_is_refused_remembered_or_not(deployment: Deployment) -> None:
    der = await by_certificate(deployment)
    token = "Bearer " + (await deployment.behind_proxy(TOKEN, BY_CERTIFICATE, der)).json()["access_token"]
    other = new_certificate(start=deployment.clock())
    for _ in range(2):
        refused(await deployment.use(token), deployment, "binding", "mds-sistema")
        refused(await deployment.use(token, certificate=other), deployment, "binding", "mds-sistema")
        assert (await deployment.use(token, certificate=der)).status_code == 200


async def test_8705_2_certificate_of_another_is_refused(deployment: Deployment) -> None:
    await by_certificate(deployment)
    stranger = new_certificate(start=deployment.clock())
    refused(await deployment.behind_proxy(TOKEN, BY_CERTIFICATE, stranger), deployment, "certificate", None)
    der = await by_certificate(deployment, client_id="otro")
    refused(await deployment.behind_proxy(TOKEN, BY_CERTIFICATE, der), deployment, "certificate", None)


async def test_8705_2_client_id_is_required(deployment: Deployment) -> None:
    der = await by_certificate(deployment)
    answer = await deployment.behind_proxy(TOKEN, {"grant_type": "client_credentials"}, der)
    refused(answer, deployment, "missing", None)


async def test_certificate_before_its_time_and_after_it_is_refused(deployment: Deployment) -> None:
    der = await by_certificate(deployment, start=1)
    refused(await deployment.behind_proxy(TOKEN, BY_CERTIFICATE, der), deployment, "certificate", "mds-sistema")
    deployment.clock.advance(24 * 3600)
    answer = await deployment.behind_proxy(TOKEN, BY_CERTIFICATE, der)
    assert answer.status_code == 200
    deployment.clock.advance(30 * 24 * 3600)
    refused(await deployment.behind_proxy(TOKEN, BY_CERTIFICATE, der), deployment, "certificate", "mds-sistema")


async def test_certificate_that_ends_takes_its_tokens_along(deployment: Deployment) -> None:
    der = await by_certificate(deployment)
    deployment.clock.advance(30 * 24 * 3600 - 3600 - 100)
    token = "Bearer " + (await deployment.behind_proxy(TOKEN, BY_CERTIFICATE, der)).json()["access_token"]
    deployment.clock.advance(99)
    assert (await deployment.use(token, certificate=der)).status_code == 200
    deployment.clock.advance(1)
    refused(await deployment.use(token, certificate=der), deployment, "certificate", "mds-sistema")


async def test_removed_certificate_ends_what_was_obtained_with_it_at_once(deployment: Deployment) -> None:
    der = await by_certificate(deployment)
    token = "Bearer " + (await deployment.behind_proxy(TOKEN, BY_CERTIFICATE, der)).json()["access_token"]
    assert (await deployment.use(token, certificate=der)).status_code == 200
    async with deployment.database.transaction() as connection:
        await service.remove_certificate(
            connection, client_id="mds-sistema", thumbprint=thumbprint(der), now=deployment.clock()
        )
    await deployment.directory.load()
    refused(await deployment.use(token, certificate=der), deployment, "certificate", "mds-sistema")
    refused(await deployment.behind_proxy(TOKEN, BY_CERTIFICATE, der), deployment, "certificate", "mds-sistema")


async def test_9440_4_header_from_outside_the_proxy_is_refused_whatever_else_is_right(deployment: Deployment) -> None:
    der = await by_certificate(deployment)
    header = forwarded(der)
    client = await register(deployment, "con-clave")
    refused(await deployment.post(TOKEN, BY_CERTIFICATE, **header), deployment, "certificate-forged", None)
    answer = await deployment.post(TOKEN, asserting(client, deployment), **header)
    refused(answer, deployment, "certificate-forged", client.id)
    token = await deployment.token(client)
    used = await deployment.http.get(RESOURCE, headers={"Authorization": token} | header)
    refused(used, deployment, "certificate-forged", client.id)
    assert (await deployment.http.get(RESOURCE, headers={"Authorization": token})).status_code == 200


@pytest.mark.parametrize("value", ["", ":", "::", "x", ":x", ":!!!!:", ":\u00f1:", ":" + "A" * 20_000 + ":"])
async def test_9440_2_2_header_that_our_proxy_would_not_write_is_refused(deployment: Deployment, value: str) -> None:
    client = await register(deployment)
    headers = [("Authorization", await deployment.token(client)), ("Client-Cert", value.encode("latin-1"))]
    used = await deployment.proxied.get(RESOURCE, headers=headers)  # type: ignore[arg-type]
    refused(used, deployment, "certificate-forged", client.id)


async def test_9440_2_2_header_that_comes_twice_is_refused(deployment: Deployment) -> None:
    client = await register(deployment)
    header = forwarded(new_certificate(start=deployment.clock()))["Client-Cert"]
    headers = [("Authorization", await deployment.token(client)), ("Client-Cert", header), ("Client-Cert", header)]
    refused(await deployment.proxied.get(RESOURCE, headers=headers), deployment, "certificate-forged", client.id)


@pytest.mark.parametrize(
    ("allowed", "address", "welcome"),
    [
        ("203.0.113.0/24", OUTSIDE, True),
        ("203.0.113.0/24", f"::ffff:{OUTSIDE}", True),
        ("203.0.113.0/24", f"10.0.0.1, {OUTSIDE}", True),
        ("203.0.113.0/24", f"{OUTSIDE}, 198.51.100.1", False),
        ("203.0.113.0/24", "198.51.100.1", False),
        ("203.0.113.0/24", "basura", False),
        ("2001:db8::/32", "2001:db8::7", True),
        ("2001:db8::/32", OUTSIDE, False),
    ],
)
async def test_client_comes_from_its_networks_alone(
    deployment: Deployment, allowed: str, address: str, welcome: bool
) -> None:
    client = await register(deployment)
    token = await deployment.token(client)
    async with deployment.database.transaction() as connection:
        await service.change_networks(connection, client_id=client.id, networks=(ip_network(allowed),))
    await deployment.directory.load()
    answers = [
        await deployment.proxied.post(TOKEN, data=asserting(client, deployment), headers=forwarded(None, address)),
        await deployment.proxied.get(RESOURCE, headers={"Authorization": token} | forwarded(None, address)),
    ]
    for answer in answers:
        if welcome:
            assert answer.status_code == 200, answer.text
        else:
            assert answer.status_code == 401
    assert [(error.reason, error.client_id) for error in deployment.refusals] == [("network", client.id)] * (
        0 if welcome else 2
    )


async def test_address_that_a_stranger_says_it_comes_from_is_not_believed(deployment: Deployment) -> None:
    client = await register(deployment, networks=(ip_network("198.51.100.0/24"),))
    headers = forwarded(None, "198.51.100.7")
    refused(await deployment.post(TOKEN, asserting(client, deployment), **headers), deployment, "network", client.id)


async def test_client_counts_within_its_time_alone(deployment: Deployment) -> None:
    start = deployment.clock() + timedelta(hours=1)
    client = await register(deployment, valid_from=start, valid_to=start + timedelta(minutes=2))
    refused(await deployment.post(TOKEN, asserting(client, deployment)), deployment, "client-validity", client.id)
    deployment.clock.advance(3600)
    token = await deployment.token(client)
    assert (await deployment.use(token)).status_code == 200
    deployment.clock.advance(120)
    refused(await deployment.use(token), deployment, "client-validity", client.id)
    refused(await deployment.post(TOKEN, asserting(client, deployment)), deployment, "client-validity", client.id)


async def test_8705_2_client_with_a_certificate_revokes_its_token(deployment: Deployment) -> None:
    der = await by_certificate(deployment)
    token = (await deployment.behind_proxy(TOKEN, BY_CERTIFICATE, der)).json()["access_token"]
    form = {"client_id": "mds-sistema", "token": token}
    assert (await deployment.behind_proxy("/oauth2/revoke", form, der)).status_code == 200
    refused(await deployment.use(f"Bearer {token}", certificate=der), deployment, "revoked", "mds-sistema")


async def test_7800_3_1_binding_that_we_do_not_know_is_no_binding_that_holds(deployment: Deployment) -> None:
    client = await register(deployment)
    token = (await deployment.token(client)).removeprefix("Bearer ")
    claims = jwt.decode(token, deployment.ring.current, algorithms=["ES256"]).claims
    header = {"alg": "ES256", "typ": "at+jwt", "kid": deployment.ring.current.kid}
    for cnf in ({"jwk": {}}, {}, None, "x", {"jkt": 7}, {"jkt": "a", "otro": "b"}):
        other = jwt.encode(header, claims | {"cnf": cnf}, deployment.ring.current)
        refused(await deployment.use(f"Bearer {other}"), deployment, "binding", client.id)


async def test_certificate_file_that_cannot_be_registered_says_why(deployment: Deployment) -> None:
    der = new_certificate(start=deployment.clock())
    for data, reason in (
        (b"", "unreadable"),
        (b"\x00basura", "unreadable"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "unreadable"),
        (b"-----BEGIN PRIVATE KEY-----\n", "private"),
        (der + bytes(70_000), "unreadable"),
    ):
        with pytest.raises(CertificateRefused, match=f"^{reason}$"):
            read_certificate(data, now=deployment.clock())
    with pytest.raises(CertificateRefused, match=r"^expired$"):
        read_certificate(der, now=deployment.clock() + timedelta(days=30))
