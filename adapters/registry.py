"""Decides which producers' systems there are: reads the manifests, connects them, and finds the one for a task."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import orjson
import structlog

from adapters.base import ProducerAdapter
from adapters.connections import Connection, read_connections, read_secret, secret_places
from adapters.errors import ManifestError, UnknownAdapter
from adapters.kinds import kind_of
from adapters.manifest import Manifest, load_manifest
from adapters.models import (
    NOTHING,
    Adapter,
    BulkOutcome,
    EntryReceipt,
    FetchOutcome,
    Health,
    Identifier,
    PollOutcome,
    ReferralMessage,
    SendOutcome,
    Unavailable,
)
from adapters.resilience import Call, Guard, utc_now
from schemas.canonical import sha256
from schemas.permit import Permit, Rehearsal
from schemas.text import _

_log = structlog.get_logger(__name__)
# Longer than anybody takes between finding an adapter and calling it.
_GRACE_S = 30.0

#: The manifests that come with the gateway.
SHIPPED = Path(__file__).parent / "manifests"


class NotConnected(ProducerAdapter):
    """A manifest without a connection: listed, and unavailable."""

    connected = False

    @property
    def health(self) -> Health:
        """Say that there is no connection."""
        return Health(False, self.guard.health.since, "not connected")

    async def fetch(
        self,
        permit: Permit | Rehearsal,
        dataset: str,
        identifier: Identifier,
        presented: Mapping[str, str] = NOTHING,
        *,
        receipt: EntryReceipt | None = None,
    ) -> FetchOutcome:
        """Answer that nobody was asked."""
        self.check_permit(permit, "disclosure.fetch", dataset)
        return self._unavailable()

    async def send(
        self, permit: Permit | Rehearsal, message: ReferralMessage, *, receipt: EntryReceipt | None = None
    ) -> SendOutcome:
        """Answer that nothing was sent."""
        self.check_permit(permit, "referral.send", f"service:{message.service}")
        return self._unavailable()

    async def poll(self, permit: Permit | Rehearsal, cursor: str | None) -> PollOutcome:
        """Answer that nobody was asked."""
        self.check_permit(permit, "reply.poll")
        return self._unavailable()

    async def bulk(self, permit: Permit | Rehearsal, dataset: str, taken: Collection[bytes]) -> BulkOutcome:
        """Answer that nobody was asked."""
        self.check_permit(permit, "register.take", dataset)
        return self._unavailable()

    def _unavailable(self) -> Unavailable:
        return Unavailable("not connected", Call(self.guard).provenance())


@dataclass(frozen=True, slots=True)
class Sources:
    """Where adapters come from: folders of manifests, the file of connections, the folder of secrets.

    ``held`` makes what answers for an adapter's registers once they are taken.
    """

    manifest_dirs: tuple[Path, ...]
    connections: Path | None
    secrets_dir: Path | None
    transport: httpx.AsyncBaseTransport | None = None
    now: Callable[[], datetime] = utc_now
    held: Callable[[ProducerAdapter], Adapter] | None = None


class Adapters:
    """The adapters of a deployment, by name, dataset and service; read again while they are in use."""

    def __init__(self, sources: Sources) -> None:
        """Read and connect everything; raises :class:`~adapters.errors.ManifestError` for the first thing wrong."""
        self._sources = sources
        self._seen = _stamps(sources)
        self._made: dict[str, tuple[bytes, ProducerAdapter]] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        made: dict[str, tuple[bytes, ProducerAdapter]] = {}
        self._read(made)
        self._arrange(made)

    def __iter__(self) -> Iterator[Adapter]:
        """Give all adapters, by name."""
        return iter(list(self._by_name.values()))

    def named(self, name: str) -> Adapter:
        """Return the adapter of this name; raise :class:`~adapters.errors.UnknownAdapter`."""
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownAdapter(name) from None

    def holding(self, dataset: str) -> tuple[Adapter, ...]:
        """Return the adapters that hold a dataset, in the order they are to be asked."""
        return self._holding.get(dataset, ())

    def serving(self, service: str) -> ProducerAdapter | None:
        """Return the adapter that takes referrals to a service, ``None`` where there is none."""
        return self._serving.get(service)

    def sending(self) -> tuple[ProducerAdapter, ...]:
        """Return the adapters that take referrals, by name."""
        return tuple(adapter for adapter in self._by_name.values() if adapter.services)

    def polling(self) -> tuple[Adapter, ...]:
        """Return the adapters that are polled for counter-referrals, by name."""
        return tuple(adapter for adapter in self if adapter.polls)

    def taking(self) -> tuple[ProducerAdapter, ...]:
        """Return the adapters with whole registers to take, by name."""
        return tuple(adapter for adapter in self._by_name.values() if adapter.registers)

    async def close(self) -> None:
        """Release all connections."""
        # A task that has not begun would be cancelled before it holds its adapter.
        await asyncio.sleep(0)
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await asyncio.gather(*(adapter.close() for adapter in self))

    async def run(self, stop: asyncio.Event, interval_s: float = 2.0) -> None:
        """Read again what changed, until ``stop`` is set; what is wrong is logged, and what was there goes on."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), interval_s)
            try:
                self.refresh()
            except (ManifestError, OSError) as error:
                _log.error("adapters.not_reloaded", error=str(error))

    def refresh(self) -> bool:
        """Read everything again if a file changed; say whether it was so. To be called inside the event loop.

        An adapter whose manifest, connection and secrets are the same stays, with its session, breaker and health;
        another takes calls from now on, while its predecessor finishes those under way. Raises
        :class:`~adapters.errors.ManifestError`, and then nothing has changed.
        """
        stamps = _stamps(self._sources)
        if stamps == self._seen:
            return False
        # Noted first: a wrong file is told once, not every two seconds.
        self._seen = stamps
        before = {name: adapter for name, (_mark, adapter) in self._made.items()}
        made: dict[str, tuple[bytes, ProducerAdapter]] = {}
        try:
            self._read(made)
        except (ManifestError, OSError):
            self._let_go([adapter for name, (_mark, adapter) in made.items() if before.get(name) is not adapter])
            raise
        self._arrange(made)
        gone = [adapter for name, adapter in before.items() if self._by_name.get(name) is not adapter]
        self._let_go(gone)
        _log.info("adapters.reloaded", replaced=sorted(adapter.name for adapter in gone))
        return True

    def _let_go(self, gone: Sequence[ProducerAdapter]) -> None:
        for adapter in gone:
            task = asyncio.get_running_loop().create_task(self._retire(adapter))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def _retire(self, adapter: ProducerAdapter) -> None:
        """Close an adapter when those who had it in hand have long begun and ended their calls, or all are closed."""
        try:
            await asyncio.sleep(_GRACE_S)
            await adapter.guard.idle.wait()
        finally:
            await adapter.close()
            if adapter.name not in self._by_name:
                adapter.guard.forget()

    def _read(self, made: dict[str, tuple[bytes, ProducerAdapter]]) -> None:
        """Put every adapter into ``made`` as it is made; one that did not change is the one there was."""
        sources = self._sources
        manifests = read_manifests(sources.manifest_dirs)
        known = read_connections(sources.connections, manifests, schemes_of)
        for manifest in manifests:
            connection = known.get(manifest.name)
            mark = _mark(manifest, connection, sources.secrets_dir)
            old = self._made.get(manifest.name)
            if old is not None and old[0] == mark:
                made[manifest.name] = old
            else:
                made[manifest.name] = (
                    mark,
                    connect(manifest, connection, sources.secrets_dir, sources.transport, sources.now),
                )

    def _arrange(self, made: dict[str, tuple[bytes, ProducerAdapter]]) -> None:
        adapters = [adapter for _mark, adapter in made.values()]
        self._made = made
        self._by_name = {adapter.name: adapter for adapter in sorted(adapters, key=lambda item: item.name)}
        in_order = sorted(adapters, key=lambda item: (item.manifest.order, item.name))
        answering: list[Adapter] = []
        for adapter in in_order:
            answering.append(adapter)
            if adapter.registers and self._sources.held is not None:
                answering.append(self._sources.held(adapter))
        datasets = {dataset for source in answering for dataset in source.datasets}
        holding = {dataset: [source for source in answering if dataset in source.datasets] for dataset in datasets}
        # A source that is not connected is asked only where there is no other: it would be the last word of all.
        self._holding: dict[str, tuple[Adapter, ...]] = {
            dataset: tuple(source for source in sources if source.connected) or tuple(sources)
            for dataset, sources in holding.items()
        }
        self._serving = {service: adapter for adapter in adapters for service in adapter.services}


def _stamps(sources: Sources) -> dict[str, tuple[int, int]]:
    """Tell a change of any file the adapters come from: time and size of each."""
    files = [file for folder in sources.manifest_dirs for file in (*folder.glob("*.yaml"), *folder.glob("wsdl/*"))]
    if sources.connections is not None:
        files.append(sources.connections)
    if sources.secrets_dir is not None:
        files.extend(file for file in sources.secrets_dir.glob("*") if file.is_file())
    stamps = {}
    for file in files:
        # One of them may go away between being listed and looked at.
        with contextlib.suppress(OSError):
            found = file.stat()
            stamps[str(file)] = (found.st_mtime_ns, found.st_size)
    return stamps


def _mark(manifest: Manifest, connection: Connection | None, secrets_dir: Path | None) -> bytes:
    """Sum up all that an adapter is made of: manifest, descriptions, connection, secrets."""
    parts = [orjson.dumps(manifest.source.content, option=orjson.OPT_NON_STR_KEYS)]
    if manifest.wsdl is not None:
        parts += [file.read_bytes() for file in sorted((manifest.folder / "wsdl").iterdir()) if file.is_file()]
    if connection is not None:
        parts += [connection.address.encode(), connection.host_key.encode()]
        parts += [read_secret(manifest, secrets_dir, *place).encode() for place in secret_places(manifest)]
    return sha256(b"\0".join(sha256(part) for part in parts))


def read_manifests(folders: Sequence[Path]) -> list[Manifest]:
    """Read and check every manifest in the folders; raise :class:`~adapters.errors.ManifestError` for the first wrong.

    Wrong is also a second manifest of one name, or for one service.
    """
    manifests = [load_manifest(file) for folder in folders for file in sorted(folder.glob("*.yaml"))]
    refuse_twins(manifests)
    for manifest in manifests:
        kind_of(manifest).check(manifest)
    return manifests


def load_adapters(
    manifest_dirs: Sequence[Path],
    connections: Path | None,
    secrets_dir: Path | None,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    now: Callable[[], datetime] = utc_now,
    held: Callable[[ProducerAdapter], Adapter] | None = None,
) -> Adapters:
    """Read every manifest in the folders and connect those that have a connection.

    ``transport`` stands in for the network in tests; ``held`` makes what answers for an adapter's registers once they
    are taken. Raises :class:`~adapters.errors.ManifestError` for the first thing wrong in a manifest or connection, two
    manifests of one name or for one service, or a secret that is not there.
    """
    return Adapters(Sources(tuple(manifest_dirs), connections, secrets_dir, transport, now, held))


def connect(
    manifest: Manifest,
    connection: Connection | None,
    secrets_dir: Path | None,
    transport: httpx.AsyncBaseTransport | None = None,
    now: Callable[[], datetime] = utc_now,
) -> ProducerAdapter:
    """Make one manifest's adapter, for a connection or without; raise ManifestError for a secret that is not there."""
    guard = Guard(manifest, now)
    if connection is None:
        return NotConnected(manifest, guard)
    return kind_of(manifest).connect(
        manifest, guard, connection, partial(read_secret, manifest, secrets_dir), transport
    )


def rehearse(manifest: Manifest, connection: Connection, secrets_dir: Path) -> ProducerAdapter:
    """Make an adapter for the conformance kit: it takes rehearsals for permits, and speaks to this machine only.

    Raises ValueError for an address elsewhere, ManifestError for a secret that is not there.
    """
    host = urlsplit(connection.address).hostname
    if host is not None and not ip_address(host).is_loopback:
        raise ValueError("a rehearsal is with this machine only")
    adapter = connect(manifest, connection, secrets_dir)
    adapter.rehearsing = True
    return adapter


def schemes_of(manifest: Manifest) -> tuple[str, ...]:
    """Return the schemes an address of this manifest may have."""
    return kind_of(manifest).schemes


def refuse_twins(manifests: Sequence[Manifest]) -> None:
    """Raise :class:`~adapters.errors.ManifestError` for a second manifest of one name or for one service."""
    names: dict[str, Manifest] = {}
    services: dict[str, Manifest] = {}
    for manifest in manifests:
        other = names.setdefault(manifest.name, manifest)
        if other is not manifest:
            manifest.source.refuse(["name"], _("ya es el nombre de {file}").format(file=other.source.name))
        for service in sorted(manifest.services):
            other = services.setdefault(service, manifest)
            if other is not manifest:
                manifest.source.refuse(
                    ["services"], _("{file} ya atiende {name}").format(file=other.source.name, name=service)
                )
