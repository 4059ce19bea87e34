"""Decides which producers' systems there are: reads the manifests, connects them, and finds the one for a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import httpx

from adapters.base import ProducerAdapter
from adapters.connections import Connection, read_connections, read_secret
from adapters.errors import UnknownAdapter
from adapters.kinds import kind_of
from adapters.manifest import Manifest, load_manifest
from adapters.models import (
    NOTHING,
    Adapter,
    BulkOutcome,
    FetchOutcome,
    Health,
    Identifier,
    PollOutcome,
    ReferralMessage,
    SendOutcome,
    Unavailable,
)
from adapters.resilience import Call, Guard, utc_now
from schemas.permit import Permit, Rehearsal
from schemas.text import _

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
        self, permit: Permit | Rehearsal, dataset: str, identifier: Identifier, presented: Mapping[str, str] = NOTHING
    ) -> FetchOutcome:
        """Answer that nobody was asked."""
        self.check_permit(permit, "disclosure.fetch", dataset)
        return self._unavailable()

    async def send(self, permit: Permit | Rehearsal, message: ReferralMessage) -> SendOutcome:
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


class Adapters:
    """The adapters of a deployment, by name, dataset, service and institution."""

    def __init__(self, adapters: list[ProducerAdapter]) -> None:
        self._by_name = {adapter.name: adapter for adapter in sorted(adapters, key=lambda item: item.name)}
        in_order = sorted(adapters, key=lambda item: (item.manifest.order, item.name))
        datasets = {dataset for adapter in adapters for dataset in adapter.datasets}
        self._holding: dict[str, tuple[Adapter, ...]] = {
            dataset: tuple(adapter for adapter in in_order if dataset in adapter.datasets) for dataset in datasets
        }
        self._serving = {service: adapter for adapter in adapters for service in adapter.services}

    def __iter__(self) -> Iterator[Adapter]:
        """Give all adapters, by name."""
        return iter(self._by_name.values())

    def named(self, name: str) -> Adapter:
        """Return the adapter of this name; raise :class:`~adapters.errors.UnknownAdapter`."""
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownAdapter(name) from None

    def holding(self, dataset: str) -> tuple[Adapter, ...]:
        """Return the adapters that hold a dataset, in the order they are to be asked."""
        return self._holding.get(dataset, ())

    def serving(self, service: str) -> Adapter | None:
        """Return the adapter that takes referrals to a service, ``None`` where there is none."""
        return self._serving.get(service)

    def of_institution(self, code: str) -> tuple[Adapter, ...]:
        """Return an institution's adapters, by name."""
        return tuple(adapter for adapter in self if adapter.institution == code)

    def polling(self) -> tuple[Adapter, ...]:
        """Return the adapters that are polled for counter-referrals, by name."""
        return tuple(adapter for adapter in self if adapter.polls)

    async def close(self) -> None:
        """Release all connections."""
        await asyncio.gather(*(adapter.close() for adapter in self))


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
) -> Adapters:
    """Read every manifest in the folders and connect those that have a connection.

    ``transport`` stands in for the network in tests. Raises :class:`~adapters.errors.ManifestError` for the first thing
    wrong in a manifest or connection, two manifests of one name or for one service, or a secret that is not there.
    """
    manifests = read_manifests(manifest_dirs)
    known = read_connections(connections, manifests, schemes_of)
    return Adapters(
        [connect(manifest, known.get(manifest.name), secrets_dir, transport, now) for manifest in manifests]
    )


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
