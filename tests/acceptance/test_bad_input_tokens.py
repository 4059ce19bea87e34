"""Callers who are not who they say, or no longer, or not entitled: refused alike, and told apart in the log only."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import ECKey

from gateway.cli.demo.clients import Caller, callers
from gateway.cli.token import request_token
from gateway.identity import service, tokens
from gateway.identity.assertions import client_assertion, dpop_proof, operator_assertion
from gateway.identity.keys import KeyRing, load_ring, read_public_key
from gateway.identity.models import Client, Credential, Issuer
from schemas.ids import uuid7
from tests.acceptance.bad_input import (
    DISCLOSURES,
    DUTY,
    REFERRALS,
    STATUS,
    adults,
    asking,
    entries,
    logs_are_quiet,
    new_key,
    newcomer,
    nothing_leaks,
    problem,
    referring,
    replying,
    subject,
)
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class Forge:
    """Makes tokens with the gateway's own key: what only a thief of the key, or a bug, could make."""

    issuer: Issuer
    ring: KeyRing
    client: Client

    def token(self, *, issuer: str | None = None, at: datetime | None = None) -> str:
        """A token as the gateway issues them, for another issuer or at another time if asked."""
        return tokens.issue(
            ring=self.ring,
            issuer=self.issuer if issuer is None else Issuer(issuer),
            client=self.client,
            credential=Credential("key", self.client.keys[0].kid),
            scope="disclosures.create",
            now=at or datetime.now(UTC),
        )

    def claims(self, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """A token with other claims, or another header."""
        now = int(datetime.now(UTC).timestamp())
        claims = {
            "iss": self.issuer.url,
            "sub": self.client.id,
            "aud": self.issuer.resource,
            "client_id": self.client.id,
            "iat": now,
            "exp": now + 300,
            "jti": str(uuid7()),
            "scope": "disclosures.create",
            "client_kid": self.client.keys[0].kid,
        }
        head = {"alg": "ES256", "typ": "at+jwt", "kid": self.ring.current.kid, **(header or {})}
        return jwt.encode(head, claims | changes, self.ring.current, algorithms=["ES256"])

    def signed_by_another(self) -> str:
        """A token whose signature is somebody else's, under our key's id."""
        return Forge(self.issuer, _posing(self.ring), self.client).token()


def _posing(ring: KeyRing) -> KeyRing:
    stranger = ECKey.generate_key("P-256", parameters={"kid": ring.current.kid})
    return KeyRing(stranger)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def forge(house: House) -> Forge:
    async with house.context() as context, context.database.connection() as connection:
        [client] = [each for each in await service.list_clients(connection) if each.id == "demo-mds"]
    return Forge(house.issuer, load_ring(house.settings.keys_dir, create=False), client)


async def ask(house: House, authorization: bytes | None, **more: str) -> httpx.Response:
    headers = {"Authorization": authorization} if authorization is not None else {}
    body = asking(adults(house)[10])
    return await house.http.post(house.issuer.url + DISCLOSURES, json=body, headers={**headers, **more})


def refused(answer: httpx.Response, error: str | None = "invalid_token") -> None:
    problem(answer, 401, "unauthorised")
    wanted = 'Bearer realm="siis", ' + (f'error="{error}"' if error else 'DPoP algs="ES256"')
    assert answer.headers["www-authenticate"] == wanted


async def counted(house: House, reason: str) -> float:
    """How often the gateway refused for a reason, by its own metrics."""
    text = (await house.http.get(f"{house.issuer.url}/metrics")).text
    found = re.search(rf'^siis_refused_requests_total{{reason="{reason}"}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def test_a_token_of_our_own_making_is_taken_when_nothing_is_wrong_with_it(house: House, forge: Forge) -> None:
    for token in (forge.token(), forge.claims()):
        assert (await ask(house, f"Bearer {token}".encode())).status_code == 200


@pytest.mark.parametrize("authorization", [None, b"", b"Basic c2lpczpzaWlz", b"Token abc", b"null"])
async def test_without_a_bearer_token_nothing_is_said_but_that_one_is_needed(
    house: House, authorization: bytes | None
) -> None:
    before = await counted(house, "missing")
    refused(await ask(house, authorization), error=None)
    assert await counted(house, "missing") == before + 1


STRANGE: dict[str, Callable[[Forge], bytes]] = {
    "no token": lambda forge: b"Bearer",
    "garbage": lambda forge: b"Bearer garbage",
    "three dots": lambda forge: b"Bearer a.b.c",
    "not ASCII": lambda forge: b"Bearer \xe9\xff.\xe9.\xe9",
    "over-long": lambda forge: b"Bearer " + b"x" * 9000,
    "two tokens": lambda forge: f"Bearer {forge.token()} {forge.token()}".encode(),
    "two in a list": lambda forge: f"Bearer {forge.token()},{forge.token()}".encode(),
    "tampered claims": lambda forge: f"Bearer {_tampered(forge.token())}".encode(),
    "cut signature": lambda forge: f"Bearer {forge.token()[:-8]}".encode(),
    "another's signature": lambda forge: f"Bearer {forge.signed_by_another()}".encode(),
    "unknown key": lambda forge: f"Bearer {forge.claims({'kid': 'other'})}".encode(),
    "algorithm none": lambda forge: b"Bearer eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.e30.",
    "another type": lambda forge: f"Bearer {forge.claims({'typ': 'JWT'})}".encode(),
    "unknown client": lambda forge: f"Bearer {forge.claims(client_id='nobody')}".encode(),
    "client no text": lambda forge: f"Bearer {forge.claims(client_id=7)}".encode(),
}


def _tampered(token: str) -> str:
    header, claims, signature = token.split(".")
    return f"{header}.{claims[:-2]}{'A' if claims[-2] != 'A' else 'B'}{claims[-1]}.{signature}"


@pytest.mark.parametrize("make", STRANGE.values(), ids=STRANGE)
async def test_what_proves_nobody_is_refused_alike_and_only_counted(
    house: House, forge: Forge, make: Callable[[Forge], bytes]
) -> None:
    since = uuid7()
    refused(await ask(house, make(forge)))
    assert await entries(house, "request.unauthorised", since) == []


KNOWN: dict[str, tuple[Callable[[Forge], str], str]] = {
    "expired": (lambda forge: forge.token(at=datetime.now(UTC) - timedelta(minutes=6)), "expired"),
    "from the future": (lambda forge: forge.token(at=datetime.now(UTC) + timedelta(minutes=6)), "early"),
    "another audience": (lambda forge: forge.token(issuer="http://127.0.0.1:1"), "audience"),
    "audience a list": (lambda forge: forge.claims(aud=[forge.issuer.resource]), "audience"),
    "the token endpoint's audience": (lambda forge: forge.claims(aud=forge.issuer.token_endpoint), "audience"),
    "no end": (lambda forge: forge.claims(exp=None), "claims"),
    "end in words": (lambda forge: forge.claims(exp="tomorrow"), "claims"),
    "scope a list": (lambda forge: forge.claims(scope=["disclosures.create"]), "claims"),
    "another key of the client": (lambda forge: forge.claims(client_kid="other"), "key"),
}


@pytest.mark.parametrize(("make", "reason"), KNOWN.values(), ids=KNOWN)
async def test_a_token_that_proves_somebody_and_is_no_good_has_an_entry(
    house: House, forge: Forge, make: Callable[[Forge], str], reason: str
) -> None:
    since = uuid7()
    refused(await ask(house, f"Bearer {make(forge)}".encode()))
    [entry] = await entries(house, "request.unauthorised", since)
    assert (entry["actor"], entry["what"]) == ({"client": "demo-mds", "address": "127.0.0.1"}, {"reason": reason})


async def test_a_certificate_that_no_proxy_of_ours_vouches_for_refuses_the_request_and_has_an_entry(
    house: House, forge: Forge
) -> None:
    since = uuid7()
    refused(await ask(house, f"Bearer {forge.token()}".encode(), **{"Client-Cert": ":MIIB:"}))
    [entry] = await entries(house, "request.unauthorised", since)
    assert (entry["actor"], entry["what"]) == (
        {"client": "demo-mds", "address": "127.0.0.1"},
        {"reason": "certificate-forged"},
    )
    caller, forged = house.callers["demo-mtess"], {"Client-Cert": ":MIIB:"}
    form = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION}
    signed = form | {"client_assertion": _assertion(house, caller)}
    named = {"grant_type": "client_credentials", "client_id": caller.client_id}
    before, since = await counted(house, "certificate-forged"), uuid7()
    for fields in (signed, named):
        answer = await house.http.post(house.issuer.token_endpoint, data=fields, headers=forged)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    # Who only says its name is a stranger still: counted, and in the entry of the minute.
    assert await counted(house, "certificate-forged") == before + 2
    [entry] = await entries(house, "request.unauthorised", since)
    assert (entry["actor"]["client"], entry["what"]["reason"]) == (caller.client_id, "certificate-forged")


async def test_a_token_bound_to_a_key_is_good_once_per_proof_and_no_bearer_token(house: House) -> None:
    caller = await newcomer(house, "MDS", "disclosures.create")
    key = ECKey.import_key(caller.private_key)
    token = await request_token(house.http, house.issuer, caller.client_id, caller.private_key, dpop=True)
    url, since = house.issuer.url + DISCLOSURES, uuid7()

    def proof() -> str:
        return dpop_proof(key, method="POST", url=url, now=datetime.now(UTC), token=token)

    used = proof()
    assert (await ask(house, f"DPoP {token}".encode(), DPoP=used)).status_code == 200
    for scheme, header, error in (
        ("DPoP", {"DPoP": used}, "invalid_dpop_proof"),
        ("DPoP", {"DPoP": "x"}, "invalid_dpop_proof"),
        ("DPoP", {}, "invalid_token"),
        ("Bearer", {"DPoP": proof()}, "invalid_token"),
    ):
        answer = await ask(house, f"{scheme} {token}".encode(), **header)
        problem(answer, 401, "unauthorised")
        assert f'{scheme} realm="siis", error="{error}"' in answer.headers["www-authenticate"]
    written = await entries(house, "request.unauthorised", since)
    assert [entry["what"]["reason"] for entry in reversed(written)] == [
        "proof-replayed",
        "proof-malformed",
        "proof-missing",
        "binding",
    ]
    assert {entry["actor"]["client"] for entry in written} == {caller.client_id}


async def test_every_endpoint_wants_a_token_before_it_looks_at_anything(house: House) -> None:
    for method, path in (
        ("POST", DISCLOSURES),
        ("POST", REFERRALS),
        ("POST", STATUS),
        ("GET", f"{REFERRALS}/{uuid7()}"),
        ("GET", f"{REFERRALS}/{uuid7()}/events"),
        ("POST", f"{REFERRALS}/{uuid7()}/counter-referrals"),
    ):
        answer = await house.http.request(method, house.issuer.url + path, content=b"\x00" * 100)
        refused(answer, error=None)


async def test_two_authorization_headers_are_refused_whichever_is_right(house: House, forge: Forge) -> None:
    good = f"Bearer {forge.token()}"
    for pair in ((good, "Bearer garbage"), ("Bearer garbage", good), (good, good)):
        headers = [("Authorization", value) for value in pair]
        answer = await house.http.post(house.issuer.url + DISCLOSURES, json=asking(adults(house)[10]), headers=headers)
        refused(answer)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def systems(house: House) -> dict[str, Caller]:
    """The client systems with tokens of their own."""
    return callers(house.http, house.issuer, house.settings.data_dir)


async def test_a_missing_scope_is_named_and_has_an_entry(house: House, systems: dict[str, Caller]) -> None:
    person, since = adults(house)[11], uuid7()
    cases: list[tuple[str, str, dict[str, Any], str]] = [
        ("demo-utgs", DISCLOSURES, asking(person), "disclosures.create"),
        ("demo-mds", REFERRALS, referring(person), "referrals.create"),
        ("demo-mds", STATUS, {"subject": subject(person.cedula), **DUTY}, "status.read"),
        ("demo-utgs", f"{REFERRALS}/{uuid7()}/counter-referrals", replying("accept", "m"), "referrals.reply"),
    ]
    for client, path, body, scope in cases:
        answer = await systems[client].post(path, body, key=str(uuid7()))
        assert scope in problem(answer, 403, "unauthorised", secrets=[str(person.cedula)])["detail"]
        challenge = f'Bearer realm="siis", error="insufficient_scope", scope="{scope}"'
        assert answer.headers["www-authenticate"] == challenge
    written = await entries(house, "request.unauthorised", since)
    assert [entry["actor"]["client"] for entry in reversed(written)] == [client for client, *_rest in cases]
    assert {entry["what"]["reason"] for entry in written} == {"scope"}


async def served(house: House) -> Caller:
    """A client system that has just been served."""
    caller = await newcomer(house, "MDS", "disclosures.create")
    assert (await caller.post(DISCLOSURES, asking(adults(house)[10]))).status_code == 200
    return caller


async def stopped(house: House, caller: Caller) -> None:
    async def refused_now() -> bool:
        return (await caller.post(DISCLOSURES, asking(adults(house)[10]))).status_code == 401

    await until(refused_now, within_s=20)


async def test_a_disabled_client_is_out_as_soon_as_the_gateway_hears_of_it(house: House) -> None:
    caller, since = await served(house), uuid7()
    async with house.context() as context, context.database.transaction() as connection:
        await service.disable_client(connection, client_id=caller.client_id, now=datetime.now(UTC))
    await stopped(house, caller)
    refused(await caller.post(DISCLOSURES, asking(adults(house)[10])))
    written = await entries(house, "request.unauthorised", since)
    assert {(entry["actor"]["client"], entry["what"]["reason"]) for entry in written} == {
        (caller.client_id, "client-disabled")
    }
    answer = await grant(house, _assertion(house, caller))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_a_key_replaced_without_grace_ends_its_tokens_too(house: House) -> None:
    caller, since = await served(house), uuid7()
    async with house.context() as context, context.database.transaction() as connection:
        await service.rotate_key(
            connection,
            client_id=caller.client_id,
            key=read_public_key(new_key()[1]),
            grace=timedelta(0),
            now=datetime.now(UTC),
        )
    await stopped(house, caller)
    written = await entries(house, "request.unauthorised", since)
    assert {(entry["actor"]["client"], entry["what"]["reason"]) for entry in written} == {(caller.client_id, "key")}


async def test_a_word_for_the_operator_that_does_not_hold_refuses_the_whole_request(house: House) -> None:
    caller, now = await served(house), datetime.now(UTC)
    key = ECKey.import_key(caller.private_key)

    def word(**changes: Any) -> str:
        values: dict[str, Any] = {
            "client_id": caller.client_id,
            "issuer": house.issuer,
            "operator": "ana",
            "roles": frozenset({"operator"}),
            "acr": "2",
            "now": now,
        }
        return operator_assertion(changes.pop("key", key), **values | changes)

    headers = {"Authorization": f"Bearer {caller.token}"}
    good = await house.http.post(
        house.issuer.url + DISCLOSURES, json=asking(adults(house)[10]), headers={**headers, "X-SIIS-Operator": word()}
    )
    assert good.status_code == 200
    since = uuid7()
    wrong = {
        "operator-malformed": "a.b.c",
        "operator-signature": word()[:-8] + "AAAAAAAA",
        "operator-key": word(key=ECKey.generate_key("P-256")),
        "operator-type": caller.token,
        "operator-expired": word(now=now - timedelta(hours=1)),
        "operator-early": word(now=now + timedelta(hours=1)),
        "operator-audience": word(issuer=Issuer("http://127.0.0.1:1")),
        "operator-claims": word(roles=frozenset({"Not A Role"})),
        "operator-claim": word(operator="ana-two"),
    }
    for reason, assertion in wrong.items():
        body = asking(adults(house)[10], **({"operator": {"id": "ana"}} if reason == "operator-claim" else {}))
        answer = await house.http.post(
            house.issuer.url + DISCLOSURES, json=body, headers={**headers, "X-SIIS-Operator": assertion}
        )
        told = problem(answer, 401, "unauthorised", secrets=["ana"])
        assert "X-SIIS-Operator" in told["detail"]
    written = await entries(house, "request.unauthorised", since)
    assert [entry["what"]["reason"] for entry in reversed(written)] == list(wrong)
    assert {entry["actor"]["client"] for entry in written} == {caller.client_id}


def _assertion(house: House, caller: Caller, **changes: Any) -> str:
    values = {"client_id": caller.client_id, "issuer": house.issuer, "now": datetime.now(UTC), **changes}
    key = values.pop("key", None) or ECKey.import_key(caller.private_key)
    return client_assertion(key, **values)


async def grant(house: House, assertion: str, **changes: str) -> httpx.Response:
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION,
        "client_assertion": assertion,
        **changes,
    }
    return await house.http.post(house.issuer.token_endpoint, data=form)


async def test_the_token_endpoint_refuses_in_its_own_words_and_notes_who_proved_themselves(house: House) -> None:
    caller = Caller(house.http, house.issuer, "demo-mtess", house.callers["demo-mtess"].private_key)
    used = _assertion(house, caller)
    assert (await grant(house, used)).status_code == 200
    since = uuid7()
    now = datetime.now(UTC)
    cases: list[tuple[httpx.Response, int, str, str | None]] = [
        (await grant(house, used), 401, "invalid_client", "replayed"),
        (await grant(house, _assertion(house, caller, now=now - timedelta(hours=1))), 401, "invalid_client", "expired"),
        (await grant(house, _assertion(house, caller, now=now + timedelta(hours=1))), 401, "invalid_client", "early"),
        (
            await grant(house, _assertion(house, caller, issuer=Issuer("http://127.0.0.1:1"))),
            401,
            "invalid_client",
            "audience",
        ),
        (await grant(house, _assertion(house, caller), client_id="demo-mds"), 401, "invalid_client", "client-mismatch"),
        (await grant(house, _assertion(house, caller), scope="audit.read"), 400, "invalid_scope", "invalid-scope"),
        (await grant(house, _assertion(house, caller, client_id="nobody")), 401, "invalid_client", None),
        (await grant(house, _assertion(house, caller, client_id="demo-mds")), 401, "invalid_client", None),
        (await grant(house, "a.b.c"), 401, "invalid_client", None),
        (await grant(house, _assertion(house, caller), grant_type="password"), 400, "unsupported_grant_type", None),
        (await grant(house, _assertion(house, caller), client_secret="x"), 400, "invalid_request", None),
    ]
    for answer, status, error, _reason in cases:
        assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
        assert answer.json()["error_description"]
        assert answer.headers["cache-control"] == "no-store"
        nothing_leaks(answer)
    written = await entries(house, "request.unauthorised", since)
    assert [entry["what"]["reason"] for entry in reversed(written)] == [case[3] for case in cases if case[3]]
    assert {entry["actor"]["client"] for entry in written} == {"demo-mtess"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"grant_type=%ff%fe", 400),
        (b"grant_type=client_credentials&grant_type=client_credentials", 400),
        (b"\xff\xfe", 400),
        (b"&".join(b"a%d=b" % number for number in range(2000)), 400),
        (b"a=" + b"b" * 17_000, 413),
    ],
    ids=["empty", "no UTF-8", "twice", "bytes", "many fields", "over the limit"],
)
async def test_a_form_that_is_none_is_refused(house: House, body: bytes, status: int) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await house.http.post(house.issuer.token_endpoint, content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (status, "invalid_request")
    nothing_leaks(answer)


async def test_the_process_logs_tell_no_traceback_and_no_person(house: House) -> None:
    logs_are_quiet(house)
