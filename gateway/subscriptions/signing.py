"""Secrets of webhooks and what is signed with them: Standard Webhooks, symmetric (v1).

Source: the Standard Webhooks specification 1.0.0, sections "Webhook metadata" and "Signature scheme".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime

PREFIX = "whsec_"
_SECRET_BYTES = 32


def new_secret() -> str:
    """Make a secret: 32 random bytes in base64 behind ``whsec_``."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signed_headers(message_id: str, at: datetime, body: bytes, using: Sequence[str]) -> dict[str, str]:
    """Return the three headers of a call: id, time of this attempt (Unix seconds), a signature with each secret.

    The id stays the same in every repetition of a message; the time does not, so an old copy is told from a repetition.
    """
    stamp = str(int(at.timestamp()))
    signed = f"{message_id}.{stamp}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(_signature(secret, signed) for secret in using),
    }


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
