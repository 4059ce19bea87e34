"""Access tokens, their keys, their revocation and the metadata, by RFC 9068, 6750, 7517, 7009 and 8414."""

from __future__ import annotations

import base64
import hmac
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from integration.identity_database import (
    ISSUER,
    SCOPES,
    Deployment,
    Registered,
    deploy,
    forged,
    new_key,
    public_key,
    register,
    tampered,
)
from joserfc import jws, jwt
from joserfc.jwk import ECKey, KeySet

from gateway.identity import service
from gateway.identity.assertions import client_assertion
from gateway.identity.authentication import ASSERTION_TYPE
from gateway.identity.errors import TokenError
from gateway.identity.keys import load_ring
from gateway.identity.tokens import TokenChecker

pytest_plugins = ["integration.identity_fixtures"]


def claims_of(client: Registered, running: Deployment, **changes: Any) -> dict[str, Any]:
    now = int(running.clock().timestamp())
    claims = {
        "iss": ISSUER.url,
        "sub": client.id,
        "aud": ISSUER.resource,
        "client_id": client.id,
        "iat": now,
        "exp": now + 300,
        "jti": "uno",
        "scope": "referrals.create",
        "inst": "MDS",
        "client_kid": client.key.thumbprint(),
    }
    return {name: value for name, value in (claims | changes).items() if value is not None}


def ours(running: Deployment, claims: dict[str, Any], key: ECKey | None = None, **header: Any) -> str:
    """Sign with our own key, as nobody but us can."""
    current = key or running.ring.current
    return "Bearer " + jwt.encode({"alg": "ES256", "typ": "at+jwt", "kid": current.kid, **header}, claims, current)


def refused(running: Deployment, authorization: str | None, reason: str) -> TokenError:
    with pytest.raises(TokenError) as caught:
        running.checker.check(authorization)
    assert caught.value.reason == reason
    return caught.value


async def test_9068_2_header_and_claims(deployment: Deployment) -> None:
    client = await register(deployment)
    token = (await deployment.token(client)).removeprefix("Bearer ")
    jwks = KeySet.import_key_set((await deployment.http.get("/.well-known/jwks.json")).json())
    opened = jwt.decode(token, jwks, algorithms=["ES256"])
    assert opened.header == {"alg": "ES256", "typ": "at+jwt", "kid": deployment.ring.current.thumbprint()}
    now = int(deployment.clock().timestamp())
    claims = opened.claims
    assert len(claims.pop("jti")) == 36
    assert set(claims.pop("scope").split()) == SCOPES
    assert claims == {
        "iss": ISSUER.url,
        "sub": client.id,
        "aud": ISSUER.resource,
        "client_id": client.id,
        "iat": now,
        "exp": now + 300,
        "inst": "MDS",
        "client_kid": client.key.thumbprint(),
    }


async def test_issued_token_proves_its_caller(deployment: Deployment) -> None:
    client = await register(deployment)
    caller = deployment.checker.check(await deployment.token(client))
    assert (caller.client_id, caller.institution, caller.scopes) == (client.id, "MDS", SCOPES)
    assert (caller.assurance, caller.operator) == (1, None)


@pytest.mark.parametrize("authorization", [None, "", "Basic eDp5", "Bearer-x y", "DPoPx y", "beare", "\u00f1"])
async def test_6750_3_1_request_without_a_bearer_token(deployment: Deployment, authorization: str | None) -> None:
    refused(deployment, authorization, "missing")


@pytest.mark.parametrize(
    "token", ["", " ", "x", "a.b.c", "....", "e30.e30.e30", "\u00f1.\u00f1.\u00f1", "\ud800", "A" * 100_000]
)
async def test_garbage_in_the_header_is_refused(deployment: Deployment, token: str) -> None:
    with pytest.raises(TokenError):
        deployment.checker.check(f"Bearer {token}")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aud": "https://otro.example"}, "audience"),
        ({"aud": ISSUER.url}, "audience"),
        ({"aud": [ISSUER.resource, "https://otro.example"]}, "audience"),
        ({"aud": None}, "audience"),
        ({"iss": "https://otro.example"}, "audience"),
        ({"exp": None}, "claims"),
        ({"jti": None}, "claims"),
        ({"scope": None}, "claims"),
        ({"scope": ["referrals.create"]}, "claims"),
        ({"client_kid": None}, "claims"),
        ({"client_kid": "otra"}, "key"),
    ],
)
async def test_9068_4_claims_that_do_not_hold(deployment: Deployment, changes: dict[str, Any], reason: str) -> None:
    client = await register(deployment)
    error = refused(deployment, ours(deployment, claims_of(client, deployment, **changes)), reason)
    assert error.client_id == client.id


async def test_token_expires_when_its_time_is_over_not_a_second_later(deployment: Deployment) -> None:
    client = await register(deployment)
    token = await deployment.token(client)
    deployment.checker.check(token)
    deployment.clock.advance(299)
    deployment.checker.check(token)
    deployment.clock.advance(1)
    assert refused(deployment, token, "expired").client_id == client.id


async def test_algorithms_other_than_es256_are_refused(deployment: Deployment) -> None:
    client = await register(deployment)
    claims = claims_of(client, deployment)
    header = {"typ": "at+jwt", "kid": deployment.ring.current.kid}
    refused(deployment, "Bearer " + forged(header | {"alg": "none"}, claims), "algorithm")
    start = forged(header | {"alg": "HS256"}, claims).removesuffix(".")
    signature = hmac.digest(deployment.ring.current.as_pem(private=False), start.encode(), "sha256")
    refused(deployment, f"Bearer {start}." + base64.urlsafe_b64encode(signature).decode().rstrip("="), "algorithm")


async def test_tampered_token_is_refused(deployment: Deployment) -> None:
    token = (await deployment.token(await register(deployment))).removeprefix("Bearer ")
    refused(deployment, "Bearer " + tampered(token, scope="audit.read"), "signature")


async def test_token_of_a_key_that_is_not_ours_is_refused(deployment: Deployment) -> None:
    client = await register(deployment)
    stranger = ECKey.generate_key("P-256", private=True)
    stranger.ensure_kid()
    refused(deployment, ours(deployment, claims_of(client, deployment), stranger), "key")
    current = deployment.ring.current.kid
    refused(deployment, ours(deployment, claims_of(client, deployment), stranger, kid=current), "signature")


async def test_one_key_or_not_a_token_without_kid_is_refused(deployment: Deployment) -> None:
    client = await register(deployment)
    token = jwt.encode({"alg": "ES256", "typ": "at+jwt"}, claims_of(client, deployment), deployment.ring.current)
    refused(deployment, "Bearer " + token, "key")


@pytest.mark.parametrize("typ", ["JWT", "jwt", "siis-operator+jwt"])
async def test_9068_4_type_must_be_that_of_an_access_token(deployment: Deployment, typ: str) -> None:
    client = await register(deployment)
    refused(deployment, ours(deployment, claims_of(client, deployment), typ=typ), "type")


async def test_assertion_of_a_client_is_no_access_token(deployment: Deployment) -> None:
    client = await register(deployment)
    assertion = client_assertion(client.key, client_id=client.id, issuer=ISSUER, now=deployment.clock())
    # It names the client as its issuer, and no such issuer is known.
    refused(deployment, "Bearer " + assertion, "issuer")


async def test_token_of_a_client_that_is_not_registered_is_refused(deployment: Deployment) -> None:
    stranger = Registered("nadie", new_key())
    assert refused(deployment, ours(deployment, claims_of(stranger, deployment)), "client-unknown").client_id is None


async def test_scopes_of_a_token_are_bounded_by_what_the_client_may_do_now(deployment: Deployment) -> None:
    client = await register(deployment)
    token = ours(deployment, claims_of(client, deployment, scope="referrals.create audit.read"))
    assert deployment.checker.check(token).scopes == {"referrals.create"}


async def test_key_change_without_grace_ends_the_tokens_of_the_former_key(deployment: Deployment) -> None:
    client = await register(deployment)
    token = await deployment.token(client)
    deployment.checker.check(token)
    newer = new_key()
    async with deployment.database.transaction() as connection:
        await service.rotate_key(
            connection, client_id=client.id, key=public_key(newer), grace=timedelta(0), now=deployment.clock()
        )
    await deployment.directory.load()
    refused(deployment, token, "key")
    deployment.checker.check(await deployment.token(Registered(client.id, newer)))


async def test_key_change_with_grace_lets_both_keys_work_until_it_ends(deployment: Deployment) -> None:
    client = await register(deployment)
    token = await deployment.token(client)
    async with deployment.database.transaction() as connection:
        await service.rotate_key(
            connection,
            client_id=client.id,
            key=public_key(new_key()),
            grace=timedelta(seconds=30),
            now=deployment.clock(),
        )
    await deployment.directory.load()
    deployment.checker.check(token)
    deployment.clock.advance(30)
    refused(deployment, token, "key")


async def test_7517_5_published_keys_are_public_and_may_be_cached(deployment: Deployment) -> None:
    answer = await deployment.http.get("/.well-known/jwks.json")
    assert answer.headers["content-type"] == "application/jwk-set+json"
    assert answer.headers["cache-control"] == "public, max-age=600"
    (key,) = answer.json()["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert (key["crv"], key["use"], key["alg"]) == ("P-256", "sig", "ES256")


async def test_our_keys_change_without_a_gap(deployment: Deployment, tmp_path: Path) -> None:
    client = await register(deployment)
    old = await deployment.token(client)
    (tmp_path / "token-current.pem").rename(tmp_path / "token-previous.pem")
    async with deploy(deployment.database, deployment.clock, tmp_path) as restarted:
        assert restarted.ring.current.kid != deployment.ring.current.kid
        restarted.checker.check(old)
        new = await restarted.token(client)
        restarted.checker.check(new)
        jwks = KeySet.import_key_set((await restarted.http.get("/.well-known/jwks.json")).json())
        for token in (old, new):
            jwt.decode(token.removeprefix("Bearer "), jwks, algorithms=["ES256"])
    (tmp_path / "token-previous.pem").unlink()
    ring = load_ring(tmp_path, create=False)
    later = TokenChecker(
        ring=ring, issuer=ISSUER, directory=deployment.directory, now=deployment.clock, foreign=deployment.foreign
    )
    with pytest.raises(TokenError, match=r"^key$"):
        later.check(old)


async def test_8414_3_metadata_validates_and_names_only_what_there_is(deployment: Deployment) -> None:
    answer = await deployment.http.get("/.well-known/oauth-authorization-server")
    document = answer.json()
    AuthorizationServerMetadata(document).validate()
    assert document["issuer"] == ISSUER.url
    assert document["grant_types_supported"] == ["client_credentials"]
    assert document["dpop_signing_alg_values_supported"] == ["ES256"]
    assert document["tls_client_certificate_bound_access_tokens"] is True
    for name in ("token_endpoint", "revocation_endpoint", "introspection_endpoint"):
        assert document[f"{name}_auth_methods_supported"] == [
            "private_key_jwt",
            "tls_client_auth",
            "client_secret_basic",
            "client_secret_post",
            "self_signed_tls_client_auth",
        ]
        assert document[f"{name}_auth_signing_alg_values_supported"] == ["ES256"]
        assert document["mtls_endpoint_aliases"][name] == document[name]
        path = httpx.URL(document[name]).path
        assert (await deployment.http.post(path)).status_code == 400
    without = deployment.server.metadata(certificates=False)
    AuthorizationServerMetadata(without).validate()
    assert without["tls_client_certificate_bound_access_tokens"] is False
    assert "tls_client_auth" not in without["token_endpoint_auth_methods_supported"]
    assert (await deployment.http.get(httpx.URL(document["jwks_uri"]).path)).status_code == 200


async def revoke(running: Deployment, client: Registered, token: str, **more: str) -> httpx.Response:
    assertion = client_assertion(client.key, client_id=client.id, issuer=ISSUER, now=running.clock())
    form = {"token": token, "client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
    return await running.post("/oauth2/revoke", form | more)


async def test_7009_2_revoked_token_is_refused_at_once(deployment: Deployment) -> None:
    client = await register(deployment)
    token, other = await deployment.token(client), await deployment.token(client)
    deployment.checker.check(token)
    hint = {"token_type_hint": "lo que sea"}
    assert (await revoke(deployment, client, token.removeprefix("Bearer "), **hint)).status_code == 200
    assert refused(deployment, token, "revoked").client_id == client.id
    deployment.checker.check(other)
    assert (await revoke(deployment, client, token.removeprefix("Bearer "))).status_code == 200


async def test_7009_2_1_token_of_another_client_stays(deployment: Deployment) -> None:
    owner, other = await register(deployment, "uno"), await register(deployment, "dos")
    token = await deployment.token(owner)
    answer = await revoke(deployment, other, token.removeprefix("Bearer "))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    deployment.checker.check(token)


@pytest.mark.parametrize("token", ["x", "a.b.c", "\u00f1"])
async def test_7009_2_2_invalid_token_is_no_error(deployment: Deployment, token: str) -> None:
    assert (await revoke(deployment, await register(deployment), token)).status_code == 200


async def test_7009_2_1_revocation_asks_who_is_there(deployment: Deployment) -> None:
    client = await register(deployment)
    token = await deployment.token(client)
    answer = await deployment.post("/oauth2/revoke", {"token": token.removeprefix("Bearer ")})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    answer = await revoke(deployment, client, "")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    deployment.checker.check(token)


async def test_tokens_verify_with_plain_jws_so_partners_need_no_library_of_ours(deployment: Deployment) -> None:
    token = (await deployment.token(await register(deployment))).removeprefix("Bearer ")
    key = ECKey.import_key((await deployment.http.get("/.well-known/jwks.json")).json()["keys"][0])
    assert jws.deserialize_compact(token, key, algorithms=["ES256"]).headers()["typ"] == "at+jwt"
