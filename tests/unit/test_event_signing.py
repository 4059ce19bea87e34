"""Signatures of webhooks are those of Standard Webhooks 1.0.0."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

from gateway.subscriptions.signing import new_secret, signed_headers

# The example that the specification's own libraries are tested with.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, AT, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", datetime.fromtimestamp(1614265330, UTC), b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_example_of_the_specification_is_signed_as_there() -> None:
    headers = signed_headers(ID, AT, BODY, [SECRET])
    assert headers == {"webhook-id": ID, "webhook-timestamp": "1614265330", "webhook-signature": SIGNATURE}


def test_each_secret_has_a_signature_of_its_own_behind_a_space() -> None:
    first, second = signed_headers(ID, AT, BODY, [new_secret(), SECRET])["webhook-signature"].split(" ")
    assert second == SIGNATURE
    assert first != second


def test_a_secret_holds_as_many_bytes_as_the_specification_asks_for() -> None:
    made = new_secret()
    assert made.startswith("whsec_")
    assert 24 <= len(base64.b64decode(made.removeprefix("whsec_"), validate=True)) <= 64
    assert made != new_secret()
