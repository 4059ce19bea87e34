"""Addresses, scopes and texts of identity."""

from __future__ import annotations

import pytest

from gateway.api.oauth import bearer_challenge
from gateway.identity.errors import ScopeError, TokenError
from gateway.identity.models import Issuer, VerifiedCaller
from gateway.settings import SettingsError
from schemas.codes import code_list


def test_every_address_comes_from_the_configured_issuer() -> None:
    issuer = Issuer("https://siis.example.gov.py/puerta")
    assert issuer.token_endpoint == "https://siis.example.gov.py/puerta/oauth2/token"
    assert issuer.path == "/puerta"
    assert issuer.resource not in (issuer.url, issuer.token_endpoint)


@pytest.mark.parametrize("url", ["http://siis.example.gov.py", "ftp://x", "https://siis.example.gov.py/"])
def test_issuer_that_clients_could_not_trust_stops_the_start(url: str) -> None:
    with pytest.raises(SettingsError, match="SIIS_ISSUER"):
        Issuer(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:8080"])
def test_plain_http_is_allowed_on_this_machine(url: str) -> None:
    assert Issuer(url).url == url


def test_scope_that_the_token_lacks_is_named() -> None:
    caller = VerifiedCaller("c", "MDS", frozenset({"status.read"}), "t")
    caller.require("status.read")
    with pytest.raises(ScopeError) as caught:
        caller.require("audit.read")
    assert bearer_challenge(caught.value) == 'Bearer realm="siis", error="insufficient_scope", scope="audit.read"'


def test_challenge_is_the_same_for_every_reason() -> None:
    reasons = ("signature", "expired", "revoked", "client-disabled", "client-unknown", "operator-expired")
    assert {bearer_challenge(TokenError(reason)) for reason in reasons} == {
        'Bearer realm="siis", error="invalid_token"'
    }
    assert bearer_challenge(TokenError("missing")) == 'Bearer realm="siis", DPoP algs="ES256"'


def test_scopes_are_tokens_of_rfc_6749_with_both_labels() -> None:
    for code, labels in code_list("scopes").items():
        assert code.isascii()
        assert code.isprintable()
        assert not set(code) & set(' "\\')
        assert labels["es"]
        assert labels["en"]
