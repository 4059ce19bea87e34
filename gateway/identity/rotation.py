"""Changes of our token key: what the next step is, when it is safe, and how running processes notice it.

A new key is published as ``next`` before it signs, so that nobody meets a signature of a key not yet known; the former
one stays as ``previous`` while tokens it signed may live. Each file operation leaves a ring that works, so a step that
was cut off is just done again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import prometheus_client
import structlog
from joserfc.jwk import ECKey

from gateway.identity.errors import KeyFileError
from gateway.identity.keys import (
    JWKS_MAX_AGE_SECONDS,
    RETIRED_SECONDS,
    KeyPaths,
    KeyRing,
    load_ring,
    named_since,
    new_private_pem,
    read_private,
)
from gateway.vault import write_secret

READ_SECONDS = 2.0
#: A next key may sign once every copy of the published keys that lacks it has ended.
PUBLISHED_SECONDS = JWKS_MAX_AGE_SECONDS + 60

Role = Literal["current", "next", "previous"]

_log = structlog.get_logger(__name__)
_unreadable = prometheus_client.Counter(
    "siis_token_keys_unreadable_total", "Readings of the token keys that failed; the keys known before stay in use"
)


class TooEarly(RuntimeError):
    """The next key has not been published for long enough; ``wait_s`` says how many seconds are left."""

    def __init__(self, wait_s: int) -> None:
        super().__init__("too-early")
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class KeyState:
    """One key of the ring: its part, its id, since when it has it, and until when a previous one counts (UTC)."""

    role: Role
    kid: str
    since: datetime
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Rotation:
    """One step of a change of keys, not yet done.

    ``prepared``: a new key is published; ``activated``: it signs; ``replaced``: it signs at once and the former keys
    count no more. ``signing`` is the id of the key in force before, ``fresh`` that of the new one.
    """

    step: Literal["prepared", "activated", "replaced"]
    signing: str
    fresh: str
    _paths: KeyPaths
    _new_pem: bytes | None

    def carry_out(self) -> None:
        """Change the files. Raises OSError; whatever was reached, the ring works and the step can be done again."""
        if self.step != "prepared":
            # No token that it signed is alive: its successor has signed for longer than the next key is published.
            self._paths.previous.unlink(missing_ok=True)
        if self._new_pem is not None:
            write_secret(self._paths.next, self._new_pem)
        if self.step == "activated":
            os.link(self._paths.current, self._paths.previous)
        if self.step != "prepared":
            os.replace(self._paths.next, self._paths.current)
        _flush(self._paths.current.parent)


def plan(keys_dir: Path, *, now: datetime, replace: bool) -> Rotation:
    """Say what the next step is: publish a new key, or let the published one sign.

    ``replace`` is for a key that leaked: a new one signs at once. Raises :class:`TooEarly` and
    :class:`~gateway.identity.errors.KeyFileError`.
    """
    paths = KeyPaths(keys_dir)
    signing = read_private(paths.current).kid or ""
    published = named_since(paths.next)
    if published is None:
        pem = new_private_pem()
        return Rotation("replaced" if replace else "prepared", signing, ECKey.import_key(pem).thumbprint(), paths, pem)
    fresh = read_private(paths.next).kid or ""
    if replace:
        return Rotation("replaced", signing, fresh, paths, None)
    wait_s = PUBLISHED_SECONDS - (now - published).total_seconds()
    if wait_s > 0:
        raise TooEarly(int(wait_s) + 1)
    return Rotation("activated", signing, fresh, paths, None)


def survey(keys_dir: Path) -> list[KeyState]:
    """Return the keys in the folder, the current one first. Raises :class:`~gateway.identity.errors.KeyFileError`."""
    paths = KeyPaths(keys_dir)
    files: list[tuple[Role, Path]] = [("current", paths.current), ("next", paths.next), ("previous", paths.previous)]
    read_private(paths.current)
    states = []
    for role, path in files:
        since = named_since(path)
        if since is not None:
            until = since + timedelta(seconds=RETIRED_SECONDS) if role == "previous" else None
            states.append(KeyState(role, read_private(path).kid or "", since, until))
    return states


class RingKeeper:
    """Keeps a ring like its folder: a change of keys needs no restart."""

    def __init__(
        self, ring: KeyRing, keys_dir: Path, *, now: Callable[[], datetime], every_s: float = READ_SECONDS
    ) -> None:
        """``now`` gives UTC instants; ``every_s`` is the pause between two readings in seconds."""
        self._ring, self._keys_dir, self._now, self._every_s = ring, keys_dir, now, every_s

    def read(self) -> None:
        """Read the folder now; keys that cannot be read leave those known before in use."""
        try:
            fresh = load_ring(self._keys_dir, create=False, now=self._now)
        except KeyFileError as error:
            _unreadable.inc()
            _log.warning("token_keys_unreadable", error=str(error))
            return
        if fresh.kids != self._ring.kids:
            self._ring.take_over(fresh)
            _log.info("token_keys_changed", kids=fresh.kids)

    async def run(self, stop: asyncio.Event) -> None:
        """Read the folder every few seconds until ``stop``."""
        while not stop.is_set():
            await asyncio.to_thread(self.read)
            try:
                await asyncio.wait_for(stop.wait(), self._every_s)
            except TimeoutError:
                continue


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
