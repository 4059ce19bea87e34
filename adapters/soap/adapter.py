"""Speaks to a producer's SOAP 1.1 service: messages by its WSDL file, transport by the one client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx

from adapters.base import ProducerAdapter, Secrets
from adapters.connections import Connection
from adapters.errors import CallFailed, ContractBroken
from adapters.http import COMMON_HEADERS, ask, close_client, open_client, status_error
from adapters.manifest import Dataset, Manifest, Polling, Sending
from adapters.models import FetchOutcome, PollOutcome, ReferralMessage, SendOutcome
from adapters.reading import Otherwise, fetched, paged, sent
from adapters.resilience import Call, Guard
from adapters.session import Credentials, credentials_of
from adapters.soap.contract import Operation, Unusable, load_operations
from adapters.soap.message import Fault, open_envelope
from schemas.text import _

_OFF_LOOP_BYTES = 32 * 1024
# SOAP 1.1 clause 6.2 puts faults under 500; 400 is where SOAP 1.2 and many 1.1 servers put the caller's.
_MAY_HOLD_FAULT = (400, 500)
_XML = "text/xml; charset=utf-8"


class SoapAdapter(ProducerAdapter):
    """A SOAP 1.1 document/literal service."""

    @classmethod
    def check(cls, manifest: Manifest) -> None:
        """Hold the manifest against its WSDL."""
        operations_of(manifest)

    @classmethod
    def connect(
        cls,
        manifest: Manifest,
        guard: Guard,
        connection: Connection,
        secret: Secrets,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> SoapAdapter:
        """Make the adapter."""
        client = open_client(manifest.limits.budget_s, transport)
        credentials = credentials_of(manifest, secret, client, connection.address)
        url = connection.address + manifest.path
        return cls(manifest, guard, client, url, credentials, operations_of(manifest))

    def __init__(
        self,
        manifest: Manifest,
        guard: Guard,
        client: httpx.AsyncClient,
        address: str,
        credentials: Credentials,
        operations: Mapping[str, Operation],
    ) -> None:
        super().__init__(manifest, guard)
        self._client, self._address, self._credentials = client, address, credentials
        self._operations = operations

    async def close(self) -> None:
        """Close the client."""
        await close_client(self._client)

    def _encode(self, request: Mapping[str, Any], values: dict[str, Any]) -> bytes:
        return self._operations[request["operation"]].build(values)

    async def _fetch(
        self, call: Call, *, spec: Dataset, value: str, query: Mapping[str, Any], content: bytes
    ) -> FetchOutcome:
        document, fault, otherwise = await self._ask(call, spec.request, content)
        return fetched(spec, document, value, call, fault=fault, otherwise=otherwise)

    async def _send(
        self, call: Call, *, spec: Sending, message: ReferralMessage, query: Mapping[str, Any], content: bytes
    ) -> SendOutcome:
        document, fault, otherwise = await self._ask(call, spec.request, content)
        return sent(spec, document, call, fault=fault, otherwise=otherwise)

    async def _poll(
        self, call: Call, *, spec: Polling, cursor: str | None, query: Mapping[str, Any], content: bytes
    ) -> PollOutcome:
        document, _fault, otherwise = await self._ask(call, spec.request, content)
        if otherwise is not None:
            raise otherwise
        return paged(spec, document, call)

    async def _ask(self, call: Call, request: Mapping[str, Any], content: bytes) -> tuple[Any, str | None, Otherwise]:
        """Call an operation: its answer, or a fault with the name of its detail and what it means without a rule."""
        operation = self._operations[request["operation"]]
        credentials = await self._credentials.headers(call)
        headers = [*COMMON_HEADERS, ("Content-Type", _XML), ("SOAPAction", operation.action), *credentials]
        call.sent = True
        asking = httpx.Request("POST", self._address, headers=headers, content=content)
        answer = await ask(self._client, asking, within_s=call.left_s, max_body=self.manifest.limits.max_body)
        call.took(answer.body)
        error = status_error(answer)
        if error is not None and answer.status not in _MAY_HOLD_FAULT:
            raise error
        media = answer.headers.get("content-type", "")
        try:
            if len(answer.body) > _OFF_LOOP_BYTES:
                found = await asyncio.to_thread(_read, operation, answer.body, media)
            else:
                found = _read(operation, answer.body, media)
        except ContractBroken as broken:
            # A web page under 500 is a server in trouble, not an answer.
            raise error or broken from None
        if isinstance(found, Fault):
            document = {"code": found.code, "reason": found.reason, "detail": found.content}
            return document, found.detail or found.code or "Fault", _meaning(found)
        if error is not None:
            raise error
        return found, None, None


def operations_of(manifest: Manifest) -> dict[str, Operation]:
    """Read the manifest's WSDL, once for all manifests that name it, and hold the manifest against it."""
    try:
        operations = _load(manifest.folder / "wsdl" / (manifest.wsdl or ""))
    except Unusable as error:
        manifest.source.refuse(["wsdl"], str(error))
    for dataset in manifest.datasets.values():
        _check_parameters(manifest, ("datasets", dataset.name), dataset, operations)
    if manifest.send is not None:
        _check_parameters(manifest, ("send",), manifest.send, operations)
    if manifest.poll is not None:
        _check_parameters(manifest, ("poll",), manifest.poll, operations)
    return operations


@lru_cache(maxsize=64)
def _load(file: Path) -> dict[str, Operation]:
    return load_operations(file)


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


def _read(operation: Operation, body: bytes, media: str) -> Any:
    content = open_envelope(body, media)
    return content if isinstance(content, Fault) else operation.read(content)


def _meaning(fault: Fault) -> CallFailed | ContractBroken:
    """Say what a fault means that no rule names: the server's own trouble, or a request it does not understand."""
    if fault.code in ("Server", "Receiver"):
        return CallFailed("fault: Server")
    return ContractBroken("fault not in the contract", acted=False)
