"""What an institution is started with, and the part every institution has in common."""

from __future__ import annotations

import base64
import hmac
import socket
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.simulator.switches import Switches
from adapters.simulator.web import Reply, Request, not_found

USER = "siis"
_RECEIPTS_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Settings:
    """Size and seed of the simulated country, file that outlives the process, password of the user ``siis``."""

    persons: int
    seed: int
    state: Path | None
    password: str


class Office:
    """An institution with nothing but its switches and a counter; all build on it."""

    name = ""
    scheme = "http"
    media = ""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.switches = Switches()
        self.requests = 0
        #: What the gateway's log gave this institution to hold, the newest last.
        self.receipts: deque[str] = deque(maxlen=_RECEIPTS_KEPT)

    async def handle(self, request: Request) -> Reply:
        """Answer a request that came by HTTP."""
        return not_found()

    async def control(self, request: Request) -> Reply:
        """Answer a request to the control API that not every institution has."""
        return not_found()

    def keep(self, receipt: str) -> None:
        """Keep the receipt that came with a message, where one did."""
        if receipt:
            self.receipts.append(receipt)

    def ledger(self) -> dict[str, Any]:
        """Return what the institution took and answered."""
        return {}

    async def start(self, sock: socket.socket) -> dict[str, str]:
        """Start what runs beside HTTP; return what the ready line has to add."""
        return {}

    async def stop(self) -> None:
        """End what :meth:`start` started, and close the files."""

    def authenticated(self, request: Request) -> bool:
        """Check HTTP Basic credentials (RFC 7617) of the user ``siis``."""
        expected = base64.b64encode(f"{USER}:{self.settings.password}".encode())
        return hmac.compare_digest(request.headers.get(b"authorization", b""), b"Basic " + expected)
