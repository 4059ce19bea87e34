"""A person behind a call is verified by the client's signature, or is only a claim."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from integration.identity_database import ISSUER, Deployment, Registered, forged, new_key, register, tampered

from gateway.api.request import domain_caller
from gateway.identity import service
from gateway.identity.assertions import client_assertion, operator_assertion
from gateway.identity.errors import OperatorError, TokenError
from gateway.identity.models import ClaimedOperator, VerifiedCaller, VerifiedOperator
from gateway.identity.operators import OPERATOR_TYPE

pytest_plugins = ["integration.identity_fixtures"]


def claims_of(client: Registered, running: Deployment, **changes: Any) -> dict[str, Any]:
    now = int(running.clock().timestamp())
    claims = {
        "iss": client.id,
        "sub": "rosa.benitez",
        "aud": ISSUER.url,
        "roles": ["social-worker"],
        "acr": "2",
        "iat": now,
        "exp": now + 300,
    }
    return {name: value for name, value in (claims | changes).items() if value is not None}


def asserted(client: Registered, running: Deployment, acr: str = "2") -> str:
    return operator_assertion(
        client.key,
        client_id=client.id,
        issuer=ISSUER,
        operator="rosa.benitez",
        roles=frozenset({"social-worker"}),
        acr=acr,
        now=running.clock(),
    )


async def caller_of(running: Deployment, client: Registered) -> VerifiedCaller:
    return running.checker.check(await running.token(client))


def refused(running: Deployment, caller: VerifiedCaller, assertion: str, reason: str) -> None:
    with pytest.raises(OperatorError) as caught:
        running.checker.with_operator(caller, assertion=assertion, claimed=None)
    assert (caught.value.reason, caught.value.client_id) == (f"operator-{reason}", caller.client_id)


async def test_signed_operator_is_verified_at_the_level_it_logged_in(deployment: Deployment) -> None:
    client = await register(deployment, assurance=3)
    caller = deployment.checker.with_operator(
        await caller_of(deployment, client), assertion=asserted(client, deployment), claimed=None
    )
    assert caller.operator == VerifiedOperator("rosa.benitez", frozenset({"social-worker"}), "2", 2)
    assert caller.assurance == 2


@pytest.mark.parametrize(("acr", "ceiling", "level"), [("3", 2, 2), ("3", 3, 3), ("1", 3, 1), ("urn:otro", 3, 1)])
async def test_client_vouches_for_no_more_than_its_ceiling(
    deployment: Deployment, acr: str, ceiling: int, level: int
) -> None:
    client = await register(deployment, assurance=ceiling)
    caller = deployment.checker.with_operator(
        await caller_of(deployment, client), assertion=asserted(client, deployment, acr), claimed=None
    )
    assert caller.assurance == level
    assert isinstance(caller.operator, VerifiedOperator)
    assert caller.operator.acr == acr


async def test_operator_of_the_body_is_a_claim_of_the_lowest_assurance(deployment: Deployment) -> None:
    claimed = ClaimedOperator("rosa.benitez", frozenset({"social-worker"}))
    caller = await caller_of(deployment, await register(deployment, assurance=3))
    with_claim = deployment.checker.with_operator(caller, assertion=None, claimed=claimed)
    assert (with_claim.operator, with_claim.assurance) == (claimed, 1)
    assert deployment.checker.with_operator(caller, assertion=None, claimed=None) == caller


async def test_claim_beside_an_assertion_must_name_the_same_person(deployment: Deployment) -> None:
    client = await register(deployment)
    caller, assertion = await caller_of(deployment, client), asserted(client, deployment)
    same = ClaimedOperator("rosa.benitez", frozenset({"operator"}))
    verified = deployment.checker.with_operator(caller, assertion=assertion, claimed=same)
    assert isinstance(verified.operator, VerifiedOperator)
    assert verified.operator.roles == {"social-worker"}
    with pytest.raises(OperatorError, match=r"^operator-claim$"):
        deployment.checker.with_operator(
            caller, assertion=assertion, claimed=ClaimedOperator("otra", frozenset({"social-worker"}))
        )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "otro"}, "audience"),
        ({"aud": "https://otro.example"}, "audience"),
        ({"aud": ISSUER.resource}, "audience"),
        ({"aud": None}, "audience"),
        ({"sub": None}, "claims"),
        ({"sub": ""}, "claims"),
        ({"sub": "x" * 65}, "claims"),
        ({"sub": "a\u0000b"}, "claims"),
        ({"roles": None}, "claims"),
        ({"roles": "social-worker"}, "claims"),
        ({"roles": ["Con Mayúscula"]}, "claims"),
        ({"roles": [7]}, "claims"),
        ({"roles": ["a"] * 11}, "claims"),
        ({"acr": None}, "claims"),
        ({"acr": 2}, "claims"),
        ({"iat": None}, "claims"),
        ({"exp": None}, "claims"),
    ],
)
async def test_claims_that_do_not_hold_are_refused(
    deployment: Deployment, changes: dict[str, Any], reason: str
) -> None:
    client = await register(deployment)
    caller = await caller_of(deployment, client)
    refused(deployment, caller, client.sign(claims_of(client, deployment, **changes), typ=OPERATOR_TYPE), reason)


async def test_assertion_lives_five_minutes_at_most(deployment: Deployment) -> None:
    client = await register(deployment)
    caller = await caller_of(deployment, client)
    now = int(deployment.clock().timestamp())
    long = client.sign(claims_of(client, deployment, exp=now + 301), typ=OPERATOR_TYPE)
    refused(deployment, caller, long, "too-long")
    future = client.sign(claims_of(client, deployment, iat=now + 61, exp=now + 100), typ=OPERATOR_TYPE)
    refused(deployment, caller, future, "early")
    good = client.sign(claims_of(client, deployment), typ=OPERATOR_TYPE)
    deployment.checker.with_operator(caller, assertion=good, claimed=None)
    deployment.clock.advance(360)
    refused(deployment, caller, good, "expired")


async def test_signature_must_be_of_the_calling_client(deployment: Deployment) -> None:
    client, other = await register(deployment, "uno"), await register(deployment, "dos")
    caller = await caller_of(deployment, client)
    refused(deployment, caller, asserted(other, deployment), "key")
    stranger = Registered(client.id, new_key())
    refused(deployment, caller, asserted(stranger, deployment), "key")
    good = asserted(client, deployment)
    refused(deployment, caller, tampered(good, acr="3"), "signature")
    refused(
        deployment, caller, forged({"alg": "none", "typ": OPERATOR_TYPE}, claims_of(client, deployment)), "algorithm"
    )
    refused(deployment, caller, "basura", "malformed")
    # What one client has shown is nothing another can show, remembered or not.
    deployment.checker.with_operator(caller, assertion=good, claimed=None)
    refused(deployment, await caller_of(deployment, other), good, "key")


async def test_login_assertion_of_a_client_is_no_operator_and_the_other_way_round(deployment: Deployment) -> None:
    client = await register(deployment)
    caller = await caller_of(deployment, client)
    login = client_assertion(client.key, client_id=client.id, issuer=ISSUER, now=deployment.clock())
    refused(deployment, caller, login, "type")
    as_operator = client.sign(claims_of(client, deployment, sub=client.id, jti="1"), typ=OPERATOR_TYPE)
    answer = await deployment.ask(as_operator)
    assert answer.status_code == 401
    assert deployment.refusals[-1].reason == "type"


async def test_operator_of_a_client_disabled_meanwhile_is_refused(deployment: Deployment) -> None:
    client = await register(deployment)
    caller, assertion = await caller_of(deployment, client), asserted(client, deployment)
    deployment.checker.with_operator(caller, assertion=assertion, claimed=None)
    async with deployment.database.transaction() as connection:
        await service.disable_client(connection, client_id=client.id, now=deployment.clock())
    await deployment.directory.load()
    with pytest.raises(TokenError, match=r"^client-disabled$"):
        deployment.checker.with_operator(caller, assertion=assertion, claimed=None)


async def test_time_of_the_login_is_kept_and_one_still_to_come_is_refused(deployment: Deployment) -> None:
    client = await register(deployment)
    caller, now = await caller_of(deployment, client), int(deployment.clock().timestamp())
    for at in (now - 3600, now + 60):
        assertion = client.sign(claims_of(client, deployment, auth_time=at), typ=OPERATOR_TYPE)
        proven = deployment.checker.with_operator(caller, assertion=assertion, claimed=None)
        assert isinstance(proven.operator, VerifiedOperator)
        assert proven.operator.authenticated_at == datetime.fromtimestamp(at, UTC)
        assert domain_caller(proven).authenticated_at == proven.operator.authenticated_at
    for wrong, reason in ((now + 61, "early"), ("hoy", "claims"), (True, "claims"), (-1, "claims")):
        assertion = client.sign(claims_of(client, deployment, auth_time=wrong), typ=OPERATOR_TYPE)
        refused(deployment, caller, assertion, reason)
