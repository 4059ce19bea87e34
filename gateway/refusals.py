"""Records what was refused before a decision: an entry where the caller was known, one a minute for all the noise."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

import prometheus_client
import structlog

from audit.errors import AuditUnavailable
from audit.models import Receipt
from audit.service import AuditLog
from consent.policy import PolicyStore
from gateway import evidence
from gateway.identity.errors import TokenError
from gateway.identity.models import VerifiedCaller

_log = structlog.get_logger(__name__)
_refused = prometheus_client.Counter("siis_refused_requests_total", "Requests refused at the door", ["reason"])
_PERIOD_S = 60.0


class RefusalLog:
    """Writes the entries of refusals."""

    def __init__(self, audit: AuditLog, policies: PolicyStore, now: Callable[[], datetime]) -> None:
        self._audit, self._policies, self._now = audit, policies, now
        self._noise: Counter[str] = Counter()

    async def token(self, error: TokenError) -> Receipt | None:
        """Record a refused token or client assertion; a stranger's is only counted (DESIGN 9.13), without a receipt."""
        _refused.labels(error.reason).inc()
        if error.client_id is None:
            self._noise[error.reason] += 1
            return None
        actor = {"client": error.client_id, **evidence.origin(error.address, None, pilot=error.pilot)}
        return await self._append("request.unauthorised", actor, {"reason": error.reason})

    async def message(
        self, caller: VerifiedCaller, reasons: list[str], where: str, address: str | None = None
    ) -> Receipt | None:
        """Record a known caller's request that could not be used: rules broken and fields, nothing of the content."""
        _refused.labels("bad-request").inc()
        actor = {
            "client": caller.client_id,
            "institution": caller.institution,
            **evidence.origin(address, caller.bound_to, pilot=caller.pilot),
        }
        return await self._append("request.refused", actor, {"reasons": reasons[:20], "route": where})

    async def run(self, stop: asyncio.Event) -> None:
        """Write the aggregated entry of strangers' refusals once a minute, and the rest at the end."""
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), _PERIOD_S)
            except TimeoutError:
                await self._flush()
        await self._flush()

    async def _flush(self) -> None:
        if not self._noise:
            return
        counted, self._noise = dict(self._noise), Counter()
        await self._append("request.noise", {}, {"counts": counted})

    async def _append(self, kind: str, actor: dict[str, Any], what: dict[str, Any]) -> Receipt | None:
        entry = evidence.entry(
            kind, "deny", at=self._now(), policy_version=self._policies.current.version, actor=actor, what=what
        )
        try:
            return await self._audit.append(entry)
        except AuditUnavailable:
            # Nothing was released, so the refusal stands; the lost entry shows in the metrics and the process log.
            _log.error("refusal.not_logged", kind=kind)
            return None
