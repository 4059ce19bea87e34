"""The token endpoint by the clauses of RFC 6749, RFC 7521 and RFC 7523."""

from __future__ import annotations

import base64
import hmac
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from integration.identity_database import (
    ISSUER,
    SCOPES,
    Deployment,
    Registered,
    forged,
    new_key,
    public_key,
    register,
    tampered,
)
from joserfc import jwt
from joserfc.jwk import RSAKey

from gateway.database import Database
from gateway.identity import service
from gateway.identity.assertions import client_assertion
from gateway.identity.authentication import ASSERTION_TYPE
from gateway.identity.errors import TokenError
from gateway.identity.oauth import TokenServer
from gateway.identity.replies import credential_text
from schemas.ids import uuid7
from schemas.text import set_language

pytest_plugins = ["integration.identity_fixtures"]


def claims_of(client: Registered, running: Deployment, **changes: Any) -> dict[str, Any]:
    """Claims that would be taken; a change of None leaves the claim out."""
    now = int(running.clock().timestamp())
    claims = {
        "iss": client.id,
        "sub": client.id,
        "aud": ISSUER.url,
        "jti": str(uuid7()),
        "iat": now,
        "exp": now + 60,
    }
    return {name: value for name, value in (claims | changes).items() if value is not None}


async def refused(running: Deployment, assertion: str, reason: str, **more: str) -> None:
    """An assertion gets invalid_client, 401, and the reason goes to the log alone."""
    answer = await running.ask(assertion, **more)
    assert answer.status_code == 401, answer.text
    assert answer.json()["error"] == "invalid_client"
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert running.refusals[-1].reason == reason


async def test_6749_5_1_answer_of_a_granted_request(deployment: Deployment) -> None:
    client = await register(deployment)
    answer = await deployment.ask(
        client_assertion(client.key, client_id=client.id, issuer=ISSUER, now=deployment.clock())
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"
    body = answer.json()
    assert set(body) == {"access_token", "token_type", "expires_in", "scope"}
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 300)
    assert set(body["scope"].split(" ")) == SCOPES
    assert deployment.refusals == []


async def test_6749_3_3_fewer_scopes_are_given_as_asked(deployment: Deployment) -> None:
    client = await register(deployment)
    token = await deployment.token(client, scope="referrals.create")
    assert deployment.checker.check(token).scopes == {"referrals.create"}


@pytest.mark.parametrize("scope", ["audit.read", "disclosures.create audit.read", "nada", "disclosures.create  x", " "])
async def test_6749_3_3_more_scope_than_registered_is_invalid_scope(deployment: Deployment, scope: str) -> None:
    client = await register(deployment)
    answer = await deployment.ask(
        client_assertion(client.key, client_id=client.id, issuer=ISSUER, now=deployment.clock()), scope=scope
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")
    assert (deployment.refusals[-1].reason, deployment.refusals[-1].client_id) == ("invalid-scope", client.id)


@pytest.mark.parametrize("audience", [ISSUER.url, ISSUER.token_endpoint, [ISSUER.url]])
async def test_7523_3_audience_is_the_issuer_or_the_token_endpoint(deployment: Deployment, audience: object) -> None:
    client = await register(deployment)
    answer = await deployment.ask(client.sign(claims_of(client, deployment, aud=audience)))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aud": "https://otro.example"}, "audience"),
        ({"aud": ISSUER.resource}, "audience"),
        ({"aud": [ISSUER.url, "https://otro.example"]}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": {}}, "audience"),
        ({"aud": None}, "audience"),
        ({"iss": "otro"}, "client-mismatch"),
        ({"iss": None}, "client-mismatch"),
        ({"sub": None}, "client-unknown"),
        ({"sub": 7}, "client-unknown"),
        ({"sub": "nadie"}, "client-unknown"),
        ({"sub": "nadie\u0000"}, "client-unknown"),
        ({"exp": None}, "claims"),
        ({"exp": "mañana"}, "claims"),
        ({"jti": None}, "claims"),
        ({"jti": ""}, "claims"),
        ({"jti": 7}, "claims"),
        ({"jti": "a\u0000b"}, "claims"),
        ({"jti": "x" * 257}, "claims"),
    ],
)
async def test_7523_3_claims_that_do_not_hold(deployment: Deployment, changes: dict[str, Any], reason: str) -> None:
    client = await register(deployment)
    await refused(deployment, client.sign(claims_of(client, deployment, **changes)), reason)


@pytest.mark.parametrize(
    ("offsets", "reason"),
    [
        ({"exp": -60}, "expired"),
        ({"exp": 361}, "too-long"),
        ({"exp": 10**30}, "too-long"),
        ({"nbf": 61}, "early"),
        ({"iat": 61}, "early"),
    ],
)
async def test_7523_3_times_that_do_not_hold(deployment: Deployment, offsets: dict[str, int], reason: str) -> None:
    client = await register(deployment)
    now = int(deployment.clock().timestamp())
    times = {name: now + offset for name, offset in offsets.items()}
    await refused(deployment, client.sign(claims_of(client, deployment, **times)), reason)
    assert deployment.refusals[-1].client_id == client.id


async def test_assertion_expires_as_the_clock_moves(deployment: Deployment) -> None:
    client = await register(deployment)
    assertion = client.sign(claims_of(client, deployment))
    deployment.clock.advance(120)
    await refused(deployment, assertion, "expired")


async def test_7523_3_used_assertion_is_refused_ever_after(deployment: Deployment) -> None:
    client = await register(deployment)
    assertion = client.sign(claims_of(client, deployment))
    assert (await deployment.ask(assertion)).status_code == 200
    await refused(deployment, assertion, "replayed")
    # Still there after the store was purged, as long as the assertion could be taken.
    deployment.clock.advance(119)
    async with deployment.database.transaction() as connection:
        await service.purge_expired(connection, deployment.clock())
    await refused(deployment, assertion, "replayed")


async def test_same_jti_of_another_client_is_another_assertion(deployment: Deployment) -> None:
    for name in ("uno", "dos"):
        client = await register(deployment, name)
        assert (await deployment.ask(client.sign(claims_of(client, deployment, jti="1")))).status_code == 200


async def test_refused_assertion_does_not_use_up_its_jti(deployment: Deployment) -> None:
    client = await register(deployment)
    claims = claims_of(client, deployment)
    await refused(deployment, tampered(client.sign(claims), sub=client.id, iat=1), "signature")
    assert (await deployment.ask(client.sign(claims))).status_code == 200


async def test_algorithms_other_than_es256_are_refused(deployment: Deployment) -> None:
    client = await register(deployment)
    claims = claims_of(client, deployment)
    await refused(deployment, forged({"alg": "none"}, claims), "algorithm")
    start = forged({"alg": "HS256"}, claims).removesuffix(".")
    secret = client.key.as_pem(private=False)
    signature = base64.urlsafe_b64encode(hmac.digest(secret, start.encode(), "sha256")).decode().rstrip("=")
    await refused(deployment, f"{start}.{signature}", "algorithm")
    rsa = RSAKey.generate_key(2048)
    await refused(deployment, jwt.encode({"alg": "RS256"}, claims, rsa), "algorithm")


async def test_tampered_payload_is_refused(deployment: Deployment) -> None:
    client = await register(deployment)
    assertion = client.sign(claims_of(client, deployment))
    await refused(deployment, tampered(assertion, jti="otro"), "signature")
    assert deployment.refusals[-1].client_id is None


async def test_key_that_is_not_the_clients_is_refused(deployment: Deployment) -> None:
    client, other = await register(deployment, "uno"), await register(deployment, "dos")
    claims = claims_of(client, deployment)
    await refused(deployment, jwt.encode({"alg": "ES256"}, claims, other.key), "signature")
    await refused(deployment, jwt.encode({"alg": "ES256", "kid": other.key.thumbprint()}, claims, other.key), "key")


async def test_unknown_kid_is_refused_and_a_missing_one_is_not(deployment: Deployment) -> None:
    client = await register(deployment)
    await refused(deployment, client.sign(claims_of(client, deployment), kid="otra"), "key")
    without = jwt.encode({"alg": "ES256"}, claims_of(client, deployment), client.key)
    assert (await deployment.ask(without)).status_code == 200


async def test_missing_kid_works_while_two_keys_are_in_use(deployment: Deployment) -> None:
    client = await register(deployment)
    newer = new_key()
    async with deployment.database.transaction() as connection:
        await service.rotate_key(
            connection, client_id=client.id, key=public_key(newer), grace=timedelta(hours=1), now=deployment.clock()
        )
    await deployment.directory.load()
    for key in (client.key, newer):
        assertion = jwt.encode({"alg": "ES256"}, claims_of(client, deployment), key)
        assert (await deployment.ask(assertion)).status_code == 200


@pytest.mark.parametrize("typ", ["at+jwt", "siis-operator+jwt", "dpop+jwt"])
async def test_8725_token_of_another_kind_is_no_assertion(deployment: Deployment, typ: str) -> None:
    client = await register(deployment)
    await refused(deployment, client.sign(claims_of(client, deployment), typ=typ), "type")


@pytest.mark.parametrize("garbage", ["x", "a.b.c", "....", "e30.e30.e30", "ñ", "A" * 9000, "\u0000"])
async def test_garbage_instead_of_an_assertion(deployment: Deployment, garbage: str) -> None:
    answer = await deployment.ask(garbage)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_stranger_cannot_tell_an_unknown_client_from_a_wrong_key(deployment: Deployment) -> None:
    client = await register(deployment)
    key = new_key()
    bodies = set()
    for name in (client.id, "nadie"):
        stranger = Registered(name, key)
        bodies.add((await deployment.ask(stranger.sign(claims_of(stranger, deployment)))).content)
    assert len(bodies) == 1


async def test_disabled_client_gets_no_token_and_is_known_to_the_log(deployment: Deployment) -> None:
    client = await register(deployment)
    async with deployment.database.transaction() as connection:
        await service.disable_client(connection, client_id=client.id, now=deployment.clock())
    await deployment.directory.load()
    await refused(deployment, client.sign(claims_of(client, deployment)), "client-disabled")
    assert deployment.refusals[-1].client_id == client.id


async def test_7521_4_2_client_id_must_be_the_asserted_one(deployment: Deployment) -> None:
    client = await register(deployment)
    await refused(deployment, client.sign(claims_of(client, deployment)), "client-mismatch", client_id="otro")
    answer = await deployment.ask(client.sign(claims_of(client, deployment)), client_id=client.id)
    assert answer.status_code == 200


async def test_6749_2_3_no_second_way_of_authentication(deployment: Deployment) -> None:
    client = await register(deployment)
    answer = await deployment.ask(client.sign(claims_of(client, deployment)), client_secret="x")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": client.sign(claims_of(client, deployment)),
    }
    answer = await deployment.post("/oauth2/token", form, Authorization="Basic eDp5")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"client_id": "mds-sistema"},
        {"client_assertion": "x"},
        {"client_assertion": "x", "client_assertion_type": "urn:otro"},
        {"client_assertion_type": ASSERTION_TYPE},
        {"client_assertion": "", "client_assertion_type": ASSERTION_TYPE},
    ],
)
async def test_request_without_an_assertion_is_invalid_client(deployment: Deployment, form: dict[str, str]) -> None:
    answer = await deployment.post("/oauth2/token", {"grant_type": "client_credentials"} | form)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert deployment.refusals[-1].reason == "missing"


@pytest.mark.parametrize(
    "grant", ["password", "authorization_code", "refresh_token", "implicit", "cualquiera ñ \u0000"]
)
async def test_6749_5_2_other_grants_are_unsupported(deployment: Deployment, grant: str) -> None:
    answer = await deployment.post("/oauth2/token", {"grant_type": grant})
    assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_grant_type")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "application/x-www-form-urlencoded"),
        (b"scope=x", "application/x-www-form-urlencoded"),
        (b"grant_type=", "application/x-www-form-urlencoded"),
        (b"grant_type=client_credentials&grant_type=client_credentials", "application/x-www-form-urlencoded"),
        (b"grant_type=client_credentials&scope=&scope=x", "application/x-www-form-urlencoded"),
        (b"grant_type=\xff", "application/x-www-form-urlencoded"),
        (b"grant_type=%ff", "application/x-www-form-urlencoded"),
        (b"&".join(b"a%d=1" % n for n in range(30)), "application/x-www-form-urlencoded"),
        (b"grant_type=client_credentials", "text/plain"),
        (b"grant_type=client_credentials", ""),
        (orjson.dumps({"grant_type": "client_credentials"}), "application/json"),
    ],
)
async def test_6749_3_2_malformed_request_is_invalid_request(
    deployment: Deployment, body: bytes, content_type: str
) -> None:
    answer = await deployment.http.post("/oauth2/token", content=body, headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_form_beyond_the_limit_is_refused_unread(deployment: Deployment) -> None:
    answer = await deployment.http.post("/oauth2/token", content=b"a" * 20_000)
    assert (answer.status_code, answer.json()["error"]) == (413, "invalid_request")


async def test_6749_5_2_descriptions_stay_within_ascii_in_both_languages(deployment: Deployment) -> None:
    reasons = ("audience", "expired", "early", "too-long", "replayed", "client-mismatch", "client-disabled", "claims")
    set_language("es")
    texts = [credential_text(TokenError(reason, "c")) for reason in reasons] + [credential_text(TokenError("key"))]
    for char in "".join(texts):
        assert 0x20 <= ord(char) <= 0x7E
        assert char not in '"\\'


async def test_database_out_of_reach_is_temporary_and_gives_no_token(deployment: Deployment) -> None:
    client = await register(deployment)
    nowhere = Database("postgresql://nadie@/nada?host=/no/hay/tal/carpeta")
    server = TokenServer(
        issuer=ISSUER,
        ring=deployment.ring,
        directory=deployment.directory,
        database=nowhere,
        now=deployment.clock,
        limits=deployment.limits,
    )
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": client.sign(claims_of(client, deployment)),
    }
    answer = await server.token(
        urlencode(form).encode(), content_type="application/x-www-form-urlencoded", authorization=None
    )
    await nowhere.close()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
    assert "access_token" not in answer.body
