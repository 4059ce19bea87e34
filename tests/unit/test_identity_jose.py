"""No string from outside gets past the door that believes signatures, and none breaks it."""

from __future__ import annotations

import hmac
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64encode

from gateway.identity.errors import TokenError
from gateway.identity.jose import check_times, open_compact

KEY = ECKey.generate_key("P-256", private=True)
OTHER = ECKey.generate_key("P-256", private=True)


def _open(compact: str, *keys: ECKey) -> dict[str, Any]:
    return open_compact(
        compact,
        types=frozenset({"", "jwt"}),
        find_keys=lambda kid, claims: [(str(n), key) for n, key in enumerate(keys or (KEY,))],
    ).claims


def _segment(value: bytes) -> str:
    return urlsafe_b64encode(value).decode()


def _signed(header: dict[str, Any], claims: dict[str, Any] | None = None) -> str:
    return jwt.encode({"alg": "ES256", **header}, claims or {"a": 1}, KEY, default_type=None)


def test_signed_claims_come_out_with_the_key_that_signed() -> None:
    opened = open_compact(
        _signed({"typ": "JWT"}, {"a": 1}),
        types=frozenset({"jwt"}),
        find_keys=lambda kid, claims: [("other", OTHER), ("mine", KEY)],
    )
    assert (opened.claims, opened.kid) == ({"a": 1}, "mine")


def test_unknown_header_parameters_are_ignored_as_rfc_7515_says() -> None:
    assert _open(jws_with_header({"alg": "ES256", "x": 1})) == {"a": 1}


def jws_with_header(header: dict[str, Any]) -> str:
    """Sign with a header that the library would not write."""
    start = _segment(orjson.dumps(header)) + "." + _segment(b'{"a":1}')
    signature = JWSRegistry.algorithms["ES256"].sign(start.encode(), KEY)
    return f"{start}.{_segment(signature)}"


@pytest.mark.parametrize(
    ("compact", "reason"),
    [
        ("", "malformed"),
        ("a.b", "malformed"),
        ("a.b.c.d.e", "malformed"),
        ("....", "malformed"),
        ("ñ.ñ.ñ", "malformed"),
        ("x" * 9000, "malformed"),
        (_segment(b'"alg"') + ".e30.", "malformed"),
        (_segment(b"[" * 300) + ".e30.", "malformed"),
        (_segment(b'{"alg":"ES256"}') + "." + _segment(b"[" * 5000) + ".", "malformed"),
        (_segment(b'{"alg":"ES256"}') + "." + _segment(b'{"a":"\\ud800"}') + ".", "malformed"),
        (_segment(b'{"alg":"ES256"}') + "." + _segment(b'{"a":NaN}') + ".", "malformed"),
        (_segment(b'{"alg":"ES256","kid":["x"]}') + ".e30.AA", "malformed"),
        (_segment(b'{"alg":["ES256"]}') + ".e30.AA", "algorithm"),
        (_segment(b'{"alg":"none"}') + ".e30.", "algorithm"),
        (_segment(b'{"alg":"None"}') + ".e30.", "algorithm"),
        (_segment(b"{}") + ".e30.", "algorithm"),
        (_segment(b'{"alg":"ES256"}') + ".e30.", "signature"),
        (_segment(b'{"alg":"ES256"}') + ".e30." + _segment(bytes(64)), "signature"),
        (_segment(b'{"alg":"ES256","typ":7}') + ".e30.AA", "type"),
        (_segment(b'{"alg":"ES256","typ":"at+jwt"}') + ".e30.AA", "type"),
    ],
)
def test_garbage_is_refused_with_its_reason(compact: str, reason: str) -> None:
    with pytest.raises(TokenError, match=rf"^{reason}$"):
        _open(compact)


def test_symmetric_signature_made_with_the_public_key_is_refused() -> None:
    # By hand, because no library would take a public key for a shared secret.
    start = _segment(b'{"alg":"HS256"}') + "." + _segment(b'{"a":1}')
    compact = start + "." + _segment(hmac.digest(KEY.as_pem(private=False), start.encode(), "sha256"))
    with pytest.raises(TokenError, match=r"^algorithm$"):
        _open(compact)


def test_signature_of_another_key_or_over_another_payload_is_refused() -> None:
    header, _, signature = _signed({}).split(".")
    other_payload = _segment(b'{"a":2}')
    for compact, key in ((_signed({}), OTHER), (".".join((header, other_payload, signature)), KEY)):
        with pytest.raises(TokenError, match=r"^signature$"):
            _open(compact, key)


@pytest.mark.parametrize("header", [{"crit": ["exp"], "exp": 1}, {"b64": True}, {"crit": ["b64"], "b64": False}])
def test_critical_extensions_are_refused(header: dict[str, Any]) -> None:
    with pytest.raises(TokenError, match=r"^malformed$"):
        _open(jws_with_header({"alg": "ES256"} | header))


def test_key_lookup_speaks_for_itself() -> None:
    def nobody(kid: str | None, claims: dict[str, Any]) -> list[tuple[str, ECKey]]:
        raise TokenError("key")

    with pytest.raises(TokenError, match=r"^key$"):
        open_compact(_signed({}), types=frozenset({""}), find_keys=nobody)


@given(
    st.text(max_size=200)
    | st.lists(st.binary(max_size=60), min_size=3, max_size=3).map(
        lambda parts: ".".join(_segment(part) for part in parts)
    )
)
def test_any_text_is_refused_and_raises_nothing_else(text: str) -> None:
    with pytest.raises(TokenError):
        _open(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-10, 10) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "jwk", "x5c"]), inner)
        ),
    )
)
def test_any_json_as_header_is_refused_and_raises_nothing_else(header: object) -> None:
    if isinstance(header, dict):
        header = {**header, "alg": "ES256"}
    with pytest.raises(TokenError):
        _open(_segment(orjson.dumps(header)) + ".e30." + _segment(bytes(64)))


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({}, "claims"),
        ({"exp": None}, "claims"),
        ({"exp": "1900000000"}, "claims"),
        ({"exp": True}, "claims"),
        ({"exp": NOW + 9, "iat": []}, "claims"),
        ({"exp": NOW + 9, "nbf": "x"}, "claims"),
        ({"exp": NOW - 60}, "expired"),
        ({"exp": NOW + 9, "nbf": NOW + 61}, "early"),
        ({"exp": NOW + 9, "iat": NOW + 61}, "early"),
    ],
)
def test_times_that_do_not_hold_are_refused(claims: dict[str, Any], reason: str) -> None:
    with pytest.raises(TokenError, match=rf"^{reason}$"):
        check_times(claims, NOW, leeway=60)


def test_times_hold_within_the_leeway() -> None:
    assert check_times({"exp": NOW - 59, "nbf": NOW + 60, "iat": NOW + 60}, NOW, leeway=60) == NOW - 59
    with pytest.raises(TokenError, match=r"^expired$"):
        check_times({"exp": NOW}, NOW, leeway=0)
