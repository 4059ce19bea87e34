"""Has a time-stamp authority say when a checkpoint existed (RFC 3161), once an hour, and keeps only what verifies."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from cryptography.x509 import Certificate, load_pem_x509_certificates
from prometheus_client import Gauge
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    TimeStampResponse,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)
from sqlalchemy import text

from adapters.errors import CallFailed, ContractBroken
from adapters.http import COMMON_HEADERS, ask, client_for
from gateway.database import Database
from gateway.settings import SettingsError
from schemas.text import _

EVERY = timedelta(hours=1)
_CONNECT_S, _WITHIN_S, _MAX_BODY = 5.0, 20.0, 64 * 1024
_CLOCK_TOLERANCE = timedelta(minutes=5)
_REQUEST_TYPE, _RESPONSE_TYPE = "application/timestamp-query", "application/timestamp-reply"

_log = structlog.get_logger(__name__)
_stamped_at = Gauge("siis_log_time_stamp_timestamp_seconds", "When the log was last time-stamped; 0: never")

_LAST = text("SELECT max(at) FROM audit.time_stamp WHERE log = (SELECT max(log) FROM audit.time_stamp)")
_NEWEST = text("SELECT log, size, note FROM audit.checkpoint ORDER BY log DESC, size DESC LIMIT 1")
_KEEP = text(
    """
    INSERT INTO audit.time_stamp (log, size, response, at) VALUES (:log, :size, :response, :at)
    ON CONFLICT (log, size) DO NOTHING
    """
)


class NotStamped(Exception):
    """The authority gave nothing that can be kept; the text is a code."""


def read_roots(path: Path) -> list[Certificate]:
    """Read the authorities' root certificates (PEM); raises :class:`~gateway.settings.SettingsError`."""
    try:
        roots = load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise _wrong(path, error.strerror or type(error).__name__) from None
    except ValueError:
        raise _wrong(path, _("se esperaban certificados en PEM")) from None
    return roots


class TimeStamps:
    """Asks one authority for time stamps of the log."""

    def __init__(
        self, database: Database, url: str, roots: Sequence[Certificate], *, now: Callable[[], datetime]
    ) -> None:
        self._database, self._url, self._roots, self._now = database, url, list(roots), now

    async def stamp_if_due(self) -> bool:
        """Stamp the newest checkpoint if the last stamp is an hour old; say whether one was kept.

        An authority that fails is noted, and asked again at the next call. Raises SQLAlchemyError or OSError.
        """
        async with self._database.connection() as connection:
            last = await connection.scalar(_LAST)
            head = (await connection.execute(_NEWEST)).one_or_none()
        _stamped_at.set(0 if last is None else last.timestamp())
        if head is None or (last is not None and self._now() - last < EVERY):
            return False
        try:
            response = await self._ask(head.note.encode())
        except NotStamped as error:
            _log.warning("time_stamp.failed", reason=str(error))
            return False
        values = {"log": head.log, "size": head.size, "response": response.as_bytes(), "at": self._now()}
        async with self._database.transaction() as connection:
            await connection.execute(_KEEP, values)
        _stamped_at.set(self._now().timestamp())
        return True

    async def _ask(self, message: bytes) -> TimeStampResponse:
        builder = TimestampRequestBuilder().data(message).hash_algorithm(HashAlgorithm.SHA256)
        asked = builder.cert_request(cert_request=True).build()
        headers = [*COMMON_HEADERS, ("Content-Type", _REQUEST_TYPE), ("Accept", _RESPONSE_TYPE)]
        async with client_for(_CONNECT_S) as client:
            request = client.build_request("POST", self._url, content=asked.as_bytes(), headers=headers)
            try:
                async with asyncio.timeout(_WITHIN_S):
                    answer = await ask(client, request, within_s=_WITHIN_S, max_body=_MAX_BODY)
            except (CallFailed, ContractBroken, TimeoutError):
                raise NotStamped("unavailable") from None
        if answer.status != 200:
            raise NotStamped("refused")
        try:
            response = decode_timestamp_response(answer.body)
        except ValueError:
            raise NotStamped("garbage") from None
        check_time_stamp(response, message, self._roots, nonce=asked.nonce)
        if abs(response.tst_info.gen_time - self._now()) > _CLOCK_TOLERANCE:
            raise NotStamped("wrong-clock")
        return response


def check_time_stamp(
    response: TimeStampResponse, message: bytes, roots: Sequence[Certificate], *, nonce: int | None
) -> None:
    """Raise :class:`NotStamped` unless an authority under these roots stamped SHA-256 of the message with the nonce."""
    verifier = VerifierBuilder(roots=list(roots), nonce=nonce).build()
    try:
        verifier.verify(response, hashlib.sha256(message).digest())
    except (VerificationError, ValueError):
        raise NotStamped("not-verified") from None


def _wrong(path: Path, reason: str) -> SettingsError:
    return SettingsError([("SIIS_TIMESTAMP_ROOTS", f"{path}: {reason}")])
