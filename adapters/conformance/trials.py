"""One trial: what a producer does, and what the verb asked meanwhile must end in."""

from __future__ import annotations

import ssl
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from adapters.conformance.verbs import Expected
from adapters.connections import Connection
from adapters.manifest import Manifest
from adapters.yamlfile import YamlFile

#: The groups of a report, in its order.
GROUPS = ("contract", "transport", "content", "form", "credentials")


class Stage(Protocol):
    """A producer that does one thing, for the time of one trial."""

    def opened(self, place: Place) -> AbstractAsyncContextManager[Connection]:
        """Put it up on this machine; gives where it is."""
        ...

    def complaint(self) -> str | None:
        """Say what was wrong with how it was asked, once it is over; ``None`` for nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """What a stage has: an empty folder, the manifest and its secrets, and TLS where the manifest speaks of it."""

    folder: Path
    manifest: Manifest
    secrets: Path
    tls: ssl.SSLContext | None = None

    def at(self, address: str, host_key: str = "") -> Connection:
        """Make the connection to an address."""
        return Connection(address, host_key, YamlFile("connections.yaml", {}, {}))


@dataclass(frozen=True, slots=True)
class Trial:
    """A case for one verb.

    ``hangs``: the producer keeps the adapter waiting, so that the time budget is kept short. ``acted``: whether a send
    that failed may have had its effect. ``second``: what asking once more must end in. ``other``: ask about somebody
    else. ``skipped`` says why the case does not apply; then nothing is played.
    """

    case: str
    group: str
    stage: Stage | None
    expected: Expected
    detail: str = ""
    hangs: bool = False
    acted: bool = True
    second: Expected | None = None
    other: bool = False
    skipped: str = ""
