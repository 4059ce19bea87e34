"""Decides which producers' systems there are: reads the manifests, connects them, and finds the one for a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import httpx

from adapters.base import ProducerAdapter, check_permit
from adapters.connections import Connection, read_connections, read_secret
from adapters.errors import UnknownAdapter
from adapters.files.adapter import FileAdapter
from adapters.files.sftp import SftpLink
from adapters.http import open_client
from adapters.manifest import Dataset, Manifest, Polling, Sending, load_manifest
from adapters.models import (
    Adapter,
    FetchOutcome,
    Health,
    Identifier,
    PollOutcome,
    ReferralMessage,
    SendOutcome,
    Unavailable,
)
from adapters.resilience import Call, Guard, utc_now
from adapters.rest import RestAdapter
from adapters.session import Credentials, FixedHeaders, SiiSession, basic
from adapters.soap.adapter import SoapAdapter
from adapters.soap.contract import Operation, Unusable, load_operations
from schemas.permit import Permit
from schemas.text import _

_HERE = Path(__file__).parent
_MANIFESTS = _HERE / "manifests"


class NotConnected(ProducerAdapter):
    """A manifest without a connection: listed, and unavailable."""

    connected = False

    @property
    def health(self) -> Health:
        """Say that there is no connection."""
        return Health(False, self.guard.health.since, "not connected")

    async def fetch(self, permit: Permit, dataset: str, identifier: Identifier) -> FetchOutcome:
        """Answer that nobody was asked."""
        check_permit(permit, "disclosure.fetch", self.institution, dataset)
        return self._unavailable()

    async def send(self, permit: Permit, message: ReferralMessage) -> SendOutcome:
        """Answer that nothing was sent."""
        check_permit(permit, "referral.send", self.institution, f"service:{message.service}")
        return self._unavailable()

    async def poll(self, permit: Permit, cursor: str | None) -> PollOutcome:
        """Answer that nobody was asked."""
        check_permit(permit, "reply.poll", self.institution)
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


def load_adapters(
    manifest_dir: Path | None,
    connections: Path | None,
    secrets_dir: Path | None,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    now: Callable[[], datetime] = utc_now,
) -> Adapters:
    """Read every manifest in a folder (``None``: those shipped here) and connect those that have a connection.

    ``transport`` stands in for the network in tests. Raises :class:`~adapters.errors.ManifestError` for the first thing
    wrong in a manifest or connection, two manifests of one name or for one service, or a secret that is not there.
    """
    folder = manifest_dir or _MANIFESTS
    manifests = [load_manifest(file) for file in sorted(folder.glob("*.yaml"))]
    _refuse_twins(manifests)
    known = read_connections(connections, manifests)
    wsdls: dict[Path, dict[str, Operation]] = {}
    adapters: list[ProducerAdapter] = []
    for manifest in manifests:
        operations = _operations(manifest, folder, wsdls) if manifest.wsdl else {}
        connection, guard = known.get(manifest.name), Guard(manifest, now)
        if connection is None:
            adapters.append(NotConnected(manifest, guard))
        else:
            adapters.append(_connect(manifest, guard, connection, secrets_dir, operations, transport))
    return Adapters(adapters)


def _refuse_twins(manifests: list[Manifest]) -> None:
    names: dict[str, str] = {}
    services: dict[str, str] = {}
    for manifest in manifests:
        file = manifest.source.name
        other = names.setdefault(manifest.name, file)
        if other != file:
            manifest.source.refuse(["name"], _("ya es el nombre de {file}").format(file=other))
        for service in sorted(manifest.services):
            other = services.setdefault(service, file)
            if other != file:
                manifest.source.refuse(["services"], _("{file} ya atiende {name}").format(file=other, name=service))


def _operations(manifest: Manifest, folder: Path, wsdls: dict[Path, dict[str, Operation]]) -> dict[str, Operation]:
    """Read the manifest's WSDL, once for all manifests that name it, and hold the manifest against it."""
    name = manifest.wsdl or ""
    file = folder / "wsdl" / name

    try:
        operations = wsdls[file] = wsdls.get(file) or load_operations(file)
    except Unusable as error:
        manifest.source.refuse(["wsdl"], str(error))
    for dataset in manifest.datasets.values():
        _check_parameters(manifest, ("datasets", dataset.name), dataset, operations)
    if manifest.send is not None:
        _check_parameters(manifest, ("send",), manifest.send, operations)
    if manifest.poll is not None:
        _check_parameters(manifest, ("poll",), manifest.poll, operations)
    return operations


def _check_parameters(
    manifest: Manifest, where: tuple[str, ...], spec: Dataset | Sending | Polling, operations: dict[str, Operation]
) -> None:
    refuse = manifest.source.refuse
    operation = operations.get(spec.request["operation"])
    if operation is None:
        refuse([*where, "request", "operation"], _("el WSDL no tiene esta operación"))
    for parameter in spec.body.names:
        if parameter not in operation.parameters:
            refuse([*where, "body", parameter], _("la operación no tiene este parámetro"))
    for parameter, required in operation.parameters.items():
        if required and parameter not in spec.body.names:
            refuse([*where, "body"], _("falta el parámetro {name}").format(name=parameter))


def _connect(
    manifest: Manifest,
    guard: Guard,
    connection: Connection,
    secrets_dir: Path | None,
    operations: dict[str, Operation],
    transport: httpx.AsyncBaseTransport | None,
) -> ProducerAdapter:
    secret = read_secret(manifest, secrets_dir) if "secret" in manifest.auth else ""
    if manifest.kind == "file":
        try:
            link = SftpLink(connection.address, connection.host_key, manifest.auth["username"], secret)
        except ValueError:
            connection.source.refuse([manifest.name, "host_key"], _("no es una clave pública de SSH"))
        return FileAdapter(manifest, guard, link)
    client = open_client(manifest.limits.budget_s, transport)
    if manifest.kind == "soap":
        soap_credentials = _fixed(manifest, secret)
        url = connection.address + manifest.path
        return SoapAdapter(manifest, guard, client, url, soap_credentials, operations)
    credentials: Credentials = _fixed(manifest, secret)
    if manifest.auth["type"] == "sii-session":
        url = connection.address + manifest.auth["path"]
        credentials = SiiSession(client, url, manifest.auth["username"], secret)
    return RestAdapter(manifest, guard, client, connection.address, credentials)


def _fixed(manifest: Manifest, secret: str) -> FixedHeaders:
    match manifest.auth["type"]:
        case "basic":
            return basic(manifest.auth["username"], secret)
        case "api-key":
            return FixedHeaders(((manifest.auth["header"], secret),))
    return FixedHeaders()
