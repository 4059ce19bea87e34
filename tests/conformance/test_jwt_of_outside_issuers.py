"""Tokens of outside issuers that must not be believed, by RFC 8725 (best practice), 7519, 7515 and 9068."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from integration.identity_database import Deployment, forged, tampered
from integration.outside_issuer import AUDIENCE, House, document, house, until
from joserfc.jwk import ECKey, RSAKey
from joserfc.util import urlsafe_b64decode, urlsafe_b64encode

from gateway.identity.errors import TokenError

pytest_plugins = ["integration.identity_fixtures"]

STRANGER = RSAKey.generate_key(2048)
STRANGER_EC = ECKey.generate_key("P-256")


@pytest.fixture
async def staff(deployment: Deployment) -> AsyncIterator[House]:
    async with house(deployment) as running:
        yield running


def reason(running: House, token: str) -> str:
    """Say why a token is refused; "believed" if it is not."""
    try:
        running.foreign.check(token)
    except TokenError as error:
        return error.reason
    return "believed"


def header_of(token: str) -> dict[str, Any]:
    header: dict[str, Any] = orjson.loads(urlsafe_b64decode(token.split(".")[0].encode()))
    return header


def hs256(running: House, secret: bytes) -> str:
    signed = running.token()
    header, claims = header_of(signed) | {"alg": "HS256"}, running.issuer.claims(running.clock())
    start = ".".join(urlsafe_b64encode(orjson.dumps(part)).decode() for part in (header, claims))
    return f"{start}.{urlsafe_b64encode(hmac.digest(secret, start.encode(), 'sha256')).decode()}"


async def test_8725_3_1_algorithms_are_those_agreed(staff: House) -> None:
    for algorithm in ("none", "None", "nOnE", "", None, 7, "ES384", "RS512", "EdDSA"):
        token = forged(header_of(staff.token()) | {"alg": algorithm}, staff.issuer.claims(staff.clock()), b"x" * 64)
        assert reason(staff, token) == "algorithm"


async def test_8725_2_1_a_public_key_is_no_secret(staff: House) -> None:
    public = staff.issuer.keys["uno"].as_pem(private=False)
    for secret in (public, public.strip(), orjson.dumps(staff.issuer.keys["uno"].as_dict(private=False)), b""):
        assert reason(staff, hs256(staff, secret)) == "algorithm"


async def test_8725_2_1_a_key_serves_the_algorithm_it_was_published_for(staff: House) -> None:
    # The key was published for RS256, and is of another family than ES256's.
    for key, algorithm, expected in (
        (STRANGER, "RS256", "signature"),
        (STRANGER, "PS256", "key"),
        (STRANGER_EC, "ES256", "key"),
    ):
        assert reason(staff, staff.token(key=key, header={"alg": algorithm})) == expected


async def test_a_key_published_for_no_algorithm_serves_those_of_its_kind(staff: House) -> None:
    assert reason(staff, staff.token(header={"alg": "PS256"})) == "key"
    staff.issuer.body = orjson.dumps({"keys": [{**staff.issuer.keys["uno"].as_dict(private=False), "kid": "uno"}]})
    staff.ticks.seconds += 600
    await staff.read_again()
    await until(lambda: reason(staff, staff.token(header={"alg": "PS256"})) == "believed")
    assert reason(staff, staff.token()) == "believed"


async def test_an_algorithm_agreed_with_another_issuer_only_is_refused(deployment: Deployment) -> None:
    async with house(deployment, lambda issuer: document(issuer, algorithms=["RS256"])) as running:
        assert reason(running, running.token(key=STRANGER_EC)) == "algorithm"


async def test_7515_4_1_keys_and_addresses_in_the_header_are_not_looked_at(staff: House) -> None:
    own = {"jwk": STRANGER_EC.as_dict(private=False)}
    asked = staff.issuer.asked
    for more in (own, {"jku": f"{staff.issuer.address}/keys"}, {"x5u": "https://x"}, {"x5c": ["AAAA"]}):
        assert reason(staff, staff.token(key=STRANGER, header=more)) == "signature"
    assert staff.issuer.asked == asked


async def test_7515_4_1_11_extensions_nobody_understands_are_refused(staff: House) -> None:
    signed = staff.token().split(".")
    for more in ({"crit": ["exp"], "exp": 1}, {"crit": ["b64"], "b64": False}, {"b64": False}, {"kid": 7}):
        start = urlsafe_b64encode(orjson.dumps(header_of(".".join(signed)) | more)).decode()
        assert reason(staff, ".".join((start, *signed[1:]))) == "malformed"


async def test_7515_4_1_4_without_kid_there_must_be_one_key(deployment: Deployment) -> None:
    async with house(deployment) as running:
        assert reason(running, running.token(header={"kid": None})) == "believed"
        running.issuer.keys["dos"] = RSAKey.generate_key(2048)
        running.ticks.seconds += 600
        await running.read_again()
        await until(lambda: reason(running, running.token()) == "believed")
        assert reason(running, running.token(header={"kid": None})) == "key"


async def test_8725_3_8_an_issuer_vouches_with_its_own_keys_only(staff: House, deployment: Deployment) -> None:
    assert reason(staff, staff.token(iss="https://nobody")) == "issuer"
    assert reason(staff, staff.token(iss=staff.issuer.url + "/")) == "issuer"
    for odd in (None, 7, [staff.issuer.url]):
        assert reason(staff, staff.token(iss=odd)) == "issuer"
    async with house(deployment, register_the_client=False) as other:
        # Signed by one issuer in the name of the other, under the key's name there.
        crossed = other.issuer.sign(staff.clock(), key=staff.issuer.keys["uno"])
        assert reason(other, crossed) == "signature"
        assert reason(other, staff.issuer.sign(staff.clock(), iss=other.issuer.url)) == "signature"


async def test_8725_3_9_a_token_for_somebody_else_is_refused(staff: House) -> None:
    for aud in (None, "account", ["account"], [], AUDIENCE + "/", [7], {"aud": AUDIENCE}, 7):
        assert reason(staff, staff.token(aud=aud)) == "audience", aud


async def test_8725_3_11_the_type_is_one_agreed(staff: House) -> None:
    for typ in ("JWT", "jwt", "at+jwt", "application/at+JWT"):
        assert reason(staff, staff.token(header={"typ": typ})) == "believed", typ
    for typ in ("logout+jwt", "dpop+jwt", "siis-operator+jwt", "", None):
        assert reason(staff, staff.token(header={"typ": typ})) == "type", typ
    for odd in (7, ["JWT"], None, False):
        token = forged(header_of(staff.token()) | {"typ": odd}, staff.issuer.claims(staff.clock()), b"x" * 256)
        assert reason(staff, token) == "type", odd


async def test_9068_4_what_keycloak_made_for_something_else_is_no_access_token(staff: House) -> None:
    for kind in ("ID", "Refresh", "Offline", "Logout"):
        assert reason(staff, staff.token(typ=kind)) == "type", kind


TIMES = [
    ("exp", -59, "believed"),
    ("exp", -60, "expired"),
    ("exp", 24 * 3600, "believed"),
    ("exp", 24 * 3600 + 1, "too-long"),
    ("nbf", 60, "believed"),
    ("nbf", 61, "early"),
    ("iat", 60, "believed"),
    ("iat", 61, "early"),
    ("auth_time", 60, "believed"),
    ("auth_time", 61, "claims"),
]


async def test_7519_4_1_times_hold_within_a_minute(staff: House) -> None:
    now = int(staff.clock().timestamp())
    for name, seconds, expected in TIMES:
        assert reason(staff, staff.token(**{name: now + seconds})) == expected, (name, seconds)


UNUSABLE: list[dict[str, Any]] = [
    {"exp": None},
    {"exp": "tomorrow"},
    {"exp": True},
    {"nbf": "now"},
    {"sub": None},
    {"sub": ""},
    {"sub": 7},
    {"sub": "x" * 256},
    {"sub": "a\u0000b"},
    {"auth_time": "now"},
    {"auth_time": -1},
    {"realm_access": {"roles": "operator"}},
    {"scope": {"a": 1}},
]


async def test_7519_4_claims_that_cannot_be_used_are_refused(staff: House) -> None:
    for changes in UNUSABLE:
        assert reason(staff, staff.token(**changes)) == "claims", changes


async def test_9068_2_2_3_words_nobody_agreed_on_give_nothing(staff: House) -> None:
    cases: list[tuple[dict[str, Any], set[str], int]] = [
        ({"realm_access": None, "acr": None}, set(), 1),
        ({"realm_access": {"roles": [7, None, "siis-operadora"]}, "acr": 3}, {"operator"}, 3),
        ({"realm_access": {"roles": []}, "acr": "gold"}, set(), 1),
        ({"realm_access": 7, "acr": ["3"]}, set(), 1),
    ]
    for changes, roles, assurance in cases:
        found = staff.foreign.check(staff.token(**changes))
        assert (found.roles, found.assurance) == (roles, assurance), changes


async def test_9068_4_a_system_of_the_issuer_that_was_not_agreed_on_is_refused(staff: House) -> None:
    for azp in ("another", None, 7, ["portal-social"]):
        assert reason(staff, staff.token(azp=azp)) == "client-unknown"


async def test_an_issuer_speaks_for_its_own_institution_only(deployment: Deployment) -> None:
    def describe(issuer: Any) -> dict[str, Any]:
        fields = document(issuer)
        return fields | {"claims": fields["claims"] | {"institution": "https://siis.gov.py/institution"}}

    async with house(deployment, describe, probe={"https://siis.gov.py/institution": "MDS"}) as running:
        says = "https://siis.gov.py/institution"
        assert reason(running, running.token(**{says: "MDS"})) == "believed"
        assert reason(running, running.token(**{says: "MSPBS"})) == "claims"
        assert reason(running, running.token()) == "claims"


async def test_7515_5_2_what_was_changed_after_signing_is_refused(staff: House) -> None:
    token = staff.token()
    assert reason(staff, tampered(token, sub="somebody-else")) == "signature"
    assert reason(staff, token[:-8] + "AAAAAAAA") == "signature"
    assert reason(staff, token.rsplit(".", 1)[0] + ".") == "signature"


async def test_7515_7_1_what_is_no_token_is_refused(staff: House) -> None:
    token = staff.token()
    for odd in ("", token + ".x", "x" * 9000, "é" + token, token.replace(".", "", 1)):
        assert reason(staff, odd) == "malformed"


async def test_a_refusal_names_the_client_only_once_the_signature_proved_it(staff: House) -> None:
    for token, named in (
        (staff.token(aud="x"), "mds-sistema"),
        (staff.token(aud="x", key=STRANGER), None),
    ):
        with pytest.raises(TokenError) as caught:
            staff.foreign.check(token)
        assert caught.value.client_id == named
