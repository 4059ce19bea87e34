"""Tokens bound to a key that signs each request, by the clauses of RFC 9449."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from integration.identity_database import (
    ISSUER,
    RESOURCE,
    Deployment,
    deploy,
    forged,
    new_certificate,
    new_key,
    register,
    tampered,
)
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64encode

from gateway.identity import service
from gateway.identity.assertions import client_assertion, dpop_proof
from gateway.identity.authentication import ASSERTION_TYPE
from gateway.identity.binding import Presented, hash_of
from gateway.identity.errors import ProofError
from gateway.identity.peer import SOMEWHERE, thumbprint
from schemas.ids import uuid7

pytest_plugins = ["integration.identity_fixtures"]

URL = ISSUER.url + RESOURCE


def public(key: ECKey) -> dict[str, Any]:
    return {name: value for name, value in key.as_dict(private=False).items() if name in ("kty", "crv", "x", "y")}


def proof(key: ECKey, running: Deployment, token: str | None, header: Any = None, **changes: Any) -> str:
    """A proof that would be taken, but for the changes; a change of None leaves the claim out."""
    now = int(running.clock().timestamp())
    claims = {"jti": str(uuid7()), "htm": "GET", "htu": URL, "iat": now, "ath": hash_of(token or "")} | changes
    head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": public(key)} | (header or {})
    return jwt.encode(head, {name: value for name, value in claims.items() if value is not None}, key)


def signed_with(key: ECKey, header: dict[str, Any], claims: dict[str, Any]) -> str:
    """Sign under a header that the library would not write."""
    start = forged(header, claims).removesuffix(".")
    signature = JWSRegistry.algorithms["ES256"].sign(start.encode(), key)
    return f"{start}.{urlsafe_b64encode(signature).decode()}"


async def ask(running: Deployment, key: ECKey, *proofs: str, client_id: str = "mds-sistema") -> httpx.Response:
    """Ask for a token with proofs."""
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": client_assertion(key, client_id=client_id, issuer=ISSUER, now=running.clock()),
    }
    return await running.http.post("/oauth2/token", data=form, headers=[("DPoP", each) for each in proofs])


async def bound(running: Deployment) -> tuple[str, ECKey]:
    """Register a client and get a token bound to a key of its own."""
    client, key = await register(running), new_key()
    at_endpoint = dpop_proof(key, method="POST", url=ISSUER.token_endpoint, now=running.clock())
    answer = await ask(running, client.key, at_endpoint)
    assert answer.status_code == 200, answer.text
    assert answer.json()["token_type"] == "DPoP"
    return answer.json()["access_token"], key


def refused(answer: httpx.Response, running: Deployment, reason: str, error: str, scheme: str = "DPoP") -> None:
    assert answer.status_code == 401
    algorithms = ', algs="ES256"' if scheme == "DPoP" else ""
    assert answer.headers["www-authenticate"] == f'{scheme} realm="siis", error="{error}"{algorithms}'
    assert (running.refusals[-1].reason, running.refusals[-1].client_id) == (reason, "mds-sistema")


async def test_9449_5_token_is_bound_to_the_key_of_the_proof(deployment: Deployment) -> None:
    token, key = await bound(deployment)
    claims = jwt.decode(token, deployment.ring.current, algorithms=["ES256"]).claims
    assert claims["cnf"] == {"jkt": key.thumbprint()}


async def test_9449_7_1_bound_token_is_used_with_a_fresh_proof_each_time(deployment: Deployment) -> None:
    token, key = await bound(deployment)
    for _ in range(3):
        fresh = dpop_proof(key, method="GET", url=URL, now=deployment.clock(), token=token)
        answer = await deployment.use(f"DPoP {token}", proofs=(fresh,))
        assert (answer.status_code, answer.json()["client"]) == (200, "mds-sistema")


async def test_9449_7_2_bound_token_is_no_bearer_token_and_the_other_way_round(deployment: Deployment) -> None:
    token, key = await bound(deployment)
    for proofs in ((), (proof(key, deployment, token),)):
        refused(
            await deployment.use(f"Bearer {token}", proofs=proofs), deployment, "binding", "invalid_token", "Bearer"
        )
    client = await register(deployment, "otro")
    bearer = (await deployment.token(client)).removeprefix("Bearer ")
    answer = await deployment.use(f"DPoP {bearer}", proofs=(proof(key, deployment, bearer),))
    assert (answer.status_code, deployment.refusals[-1].reason) == (401, "binding")


async def test_9449_7_1_another_key_than_the_bound_one_is_invalid_token(deployment: Deployment) -> None:
    token, _key = await bound(deployment)
    answer = await deployment.use(f"DPoP {token}", proofs=(proof(new_key(), deployment, token),))
    refused(answer, deployment, "binding", "invalid_token")


async def test_9449_7_1_without_a_proof_the_token_is_invalid(deployment: Deployment) -> None:
    token, _key = await bound(deployment)
    refused(await deployment.use(f"DPoP {token}"), deployment, "proof-missing", "invalid_token")


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "no jti": ({"jti": None}, "proof-claims"),
    "jti empty": ({"jti": ""}, "proof-claims"),
    "jti no text": ({"jti": 7}, "proof-claims"),
    "jti too long": ({"jti": "x" * 257}, "proof-claims"),
    "jti not printable": ({"jti": "a\u0000b"}, "proof-claims"),
    "no method": ({"htm": None}, "proof-method"),
    "another method": ({"htm": "POST"}, "proof-method"),
    "method in lower case": ({"htm": "get"}, "proof-method"),
    "no address": ({"htu": None}, "proof-address"),
    "another path": ({"htu": ISSUER.url + "/api/v1/otro"}, "proof-address"),
    "another host": ({"htu": "https://otro.example" + RESOURCE}, "proof-address"),
    "another scheme": ({"htu": URL.replace("https", "http")}, "proof-address"),
    "another port": ({"htu": URL.replace(".gov.py", ".gov.py:444")}, "proof-address"),
    "no address at all": ({"htu": "https://[basura"}, "proof-address"),
    "no time": ({"iat": None}, "proof-claims"),
    "time in words": ({"iat": "ahora"}, "proof-claims"),
    "time a truth": ({"iat": True}, "proof-claims"),
    "time beyond all": ({"iat": 10**30}, "proof-time"),
    "no token": ({"ath": None}, "proof-token"),
    "another token": ({"ath": hash_of("otro")}, "proof-token"),
}


@pytest.mark.parametrize(("changes", "reason"), CHANGES.values(), ids=CHANGES)
async def test_9449_4_3_claims_that_do_not_hold(deployment: Deployment, changes: dict[str, Any], reason: str) -> None:
    token, key = await bound(deployment)
    wrong = proof(key, deployment, token, **changes)
    refused(await deployment.use(f"DPoP {token}", proofs=(wrong,)), deployment, reason, "invalid_dpop_proof")


@pytest.mark.parametrize(("offset", "welcome"), [(-61, False), (-60, True), (60, True), (61, False)])
async def test_9449_11_1_proof_is_fresh_to_a_minute(deployment: Deployment, offset: int, welcome: bool) -> None:
    token, key = await bound(deployment)
    signed = proof(key, deployment, token, iat=int(deployment.clock().timestamp()) + offset)
    answer = await deployment.use(f"DPoP {token}", proofs=(signed,))
    if welcome:
        assert answer.status_code == 200
    else:
        refused(answer, deployment, "proof-time", "invalid_dpop_proof")


@pytest.mark.parametrize(
    "url",
    [
        URL + "?a=b",
        URL + "#x",
        URL.replace("https://siis", "HTTPS://SIIS"),
        URL.replace(".gov.py", ".gov.py:443"),
    ],
)
async def test_9449_4_3_9_other_spellings_of_the_same_address_are_the_same(deployment: Deployment, url: str) -> None:
    token, key = await bound(deployment)
    answer = await deployment.use(f"DPoP {token}", proofs=(proof(key, deployment, token, htu=url),))
    assert answer.status_code == 200


async def test_address_is_that_of_the_issuer_whatever_host_the_request_names(deployment: Deployment) -> None:
    token, key = await bound(deployment)

    async def named(host: str, htu: str) -> httpx.Response:
        signed = proof(key, deployment, token, htu=htu)
        headers = {"Authorization": f"DPoP {token}", "DPoP": signed, "Host": host}
        return await deployment.proxied.get(RESOURCE, headers=headers)

    assert (await named("serve:8080", URL)).status_code == 200
    refused(
        await named("otro.example", "https://otro.example" + RESOURCE),
        deployment,
        "proof-address",
        "invalid_dpop_proof",
    )


async def test_9449_4_3_header_that_does_not_hold(deployment: Deployment) -> None:
    token, key = await bound(deployment)
    claims = jwt.decode(proof(key, deployment, token), key, algorithms=["ES256"]).claims
    rsa = RSAKey.generate_key(2048)
    rsa_jwk = {name: value for name, value in rsa.as_dict(private=False).items() if name in ("kty", "n", "e")}
    private = public(key) | {"d": key.as_dict(private=True)["d"]}
    head = {"typ": "dpop+jwt", "alg": "ES256"}
    wrong = {
        "proof-type": [proof(key, deployment, token, {"typ": kind}) for kind in ("JWT", "at+jwt")],
        "proof-algorithm": [
            forged({"typ": "dpop+jwt", "alg": "none", "jwk": public(key)}, claims),
            forged({"typ": "dpop+jwt", "alg": "HS256", "jwk": public(key)}, claims, b"x" * 32),
        ],
        "proof-key": [
            signed_with(key, head | {"jwk": jwk}, claims)
            for jwk in (private, {}, None, "x", public(new_key("P-384")), {"kty": "oct", "k": "x"})
        ]
        + [signed_with(key, head | {"jwk": public(key) | changed}, claims) for changed in ({"x": "AA"}, {"y": 7})],
        "proof-signature": [
            proof(key, deployment, token, {"jwk": public(new_key())}),
            tampered(proof(key, deployment, token), jti="otro"),
        ],
        "proof-malformed": [
            *("x", "a.b.c", "....", "e30.e30.e30.", "A" * 9000),
            # An RSA key does not fit into what is read of a header.
            jwt.encode({"typ": "dpop+jwt", "alg": "RS256", "jwk": rsa_jwk}, claims, rsa),
            signed_with(key, head | {"jwk": public(key), "crit": ["b64"], "b64": True}, claims),
        ],
    }
    for reason, proofs in wrong.items():
        for each in proofs:
            answer = await deployment.use(f"DPoP {token}", proofs=(each,))
            refused(answer, deployment, reason, "invalid_dpop_proof")


async def test_9449_4_3_1_more_than_one_proof_is_none(deployment: Deployment) -> None:
    token, key = await bound(deployment)
    both = tuple(proof(key, deployment, token) for _ in range(2))
    refused(await deployment.use(f"DPoP {token}", proofs=both), deployment, "proof-malformed", "invalid_dpop_proof")


async def test_9449_11_1_used_proof_is_refused_here_and_in_another_process(
    deployment: Deployment, tmp_path: Path
) -> None:
    token, key = await bound(deployment)
    signed = proof(key, deployment, token)
    assert (await deployment.use(f"DPoP {token}", proofs=(signed,))).status_code == 200
    async with deploy(deployment.database, deployment.clock, tmp_path) as other:
        for running in (deployment, other):
            answer = await running.use(f"DPoP {token}", proofs=(signed,))
            refused(answer, running, "proof-replayed", "invalid_dpop_proof")
    deployment.clock.advance(59)
    async with deployment.database.transaction() as connection:
        await service.purge_expired(connection, deployment.clock())
    answer = await deployment.use(f"DPoP {token}", proofs=(signed,))
    refused(answer, deployment, "proof-replayed", "invalid_dpop_proof")


async def test_refused_request_does_not_use_up_its_proof(deployment: Deployment) -> None:
    token, key = await bound(deployment)
    signed = proof(key, deployment, token)
    assert (await deployment.use(f"DPoP {token}x", proofs=(signed,))).status_code == 401
    assert (await deployment.use(f"DPoP {token}", proofs=(signed,))).status_code == 200


async def test_9449_5_proof_at_the_token_endpoint_is_checked_and_counts_once(deployment: Deployment) -> None:
    client, key = await register(deployment), new_key()
    good = dpop_proof(key, method="POST", url=ISSUER.token_endpoint, now=deployment.clock())
    assert (await ask(deployment, client.key, good)).status_code == 200
    for proofs, reason in (
        ((good,), "proof-replayed"),
        (("x",), "proof-malformed"),
        ((proof(key, deployment, None),), "proof-method"),
        ((dpop_proof(key, method="POST", url=URL, now=deployment.clock()),), "proof-address"),
        ((good, good), "proof-malformed"),
    ):
        answer = await ask(deployment, client.key, *proofs)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")
        assert "access_token" not in answer.json()
        assert (deployment.refusals[-1].reason, deployment.refusals[-1].client_id) == (reason, client.id)


async def test_token_may_be_bound_to_a_certificate_and_a_key_at_once(deployment: Deployment) -> None:
    client, key = await register(deployment), new_key()
    der = new_certificate(start=deployment.clock())
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": client_assertion(client.key, client_id=client.id, issuer=ISSUER, now=deployment.clock()),
    }
    signed = dpop_proof(key, method="POST", url=ISSUER.token_endpoint, now=deployment.clock())
    token = (await deployment.behind_proxy("/oauth2/token", form, der, DPoP=signed)).json()["access_token"]
    claims = jwt.decode(token, deployment.ring.current, algorithms=["ES256"]).claims
    assert claims["cnf"] == {"x5t#S256": thumbprint(der), "jkt": key.thumbprint()}
    for certificate, key_used, status in ((der, key, 200), (None, key, 401), (der, new_key(), 401)):
        signed = proof(key_used, deployment, token)
        answer = await deployment.use(f"DPoP {token}", proofs=(signed,), certificate=certificate)
        assert answer.status_code == status


async def test_proof_that_nobody_asked_the_database_about_opens_nothing(deployment: Deployment) -> None:
    token, key = await bound(deployment)
    presented = Presented(SOMEWHERE, (proof(key, deployment, token),), "GET", URL)
    with pytest.raises(ProofError, match=r"^proof-unclaimed$"):
        deployment.checker.check(f"DPoP {token}", presented)
    assert (await deployment.checker.check_once(f"DPoP {token}", presented)).client_id == "mds-sistema"


async def test_9449_7_1_request_without_a_token_learns_of_both_schemes(deployment: Deployment) -> None:
    answer = await deployment.http.get(RESOURCE)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="siis", DPoP algs="ES256"'
