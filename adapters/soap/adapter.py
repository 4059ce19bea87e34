"""Speaks to a producer's SOAP service: messages by its WSDL file, transport by the one client."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import httpx
from jmespath.exceptions import JMESPathError

from adapters.base import ProducerAdapter, Secrets
from adapters.connections import Connection
from adapters.errors import CallFailed, ContractBroken
from adapters.http import COMMON_HEADERS, ask, close_client, open_client, receipt_headers, status_error
from adapters.manifest import Bulk, Dataset, Manifest, Polling, Sending
from adapters.models import FetchOutcome, NotFound, PollOutcome, ReferralMessage, Register, Rejected, SendOutcome
from adapters.paging import with_parameter
from adapters.reading import Otherwise, Unsayable, fetched, paged, sent, write
from adapters.resilience import Call, Guard
from adapters.session import Credentials, credentials_of, tls_of
from adapters.soap.attachments import open_answer
from adapters.soap.contract import Contract, Operation, load_contract
from adapters.soap.message import Fault
from adapters.soap.protection import Protection, Sealed, check_protection, xroad_service
from adapters.soap.schema import Unusable
from adapters.spool import Spool
from schemas.canonical import sha256
from schemas.text import _

_OFF_LOOP_BYTES = 32 * 1024
# SOAP 1.1 clause 6.2 puts faults under 500; 400 is where SOAP 1.2 and many 1.1 servers put the caller's.
_MAY_HOLD_FAULT = (400, 500)
_Spec = Dataset | Sending | Polling | Bulk


class SoapAdapter(ProducerAdapter):
    """A SOAP 1.1 or 1.2 service, document/literal or rpc/literal."""

    @classmethod
    def check(cls, manifest: Manifest) -> None:
        """Hold the manifest against its WSDL."""
        check_protection(manifest)
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
        client = open_client(manifest.limits.budget_s, transport, tls_of(manifest, connection, secret))
        credentials = credentials_of(manifest, secret, client, connection.address)
        url = connection.address + manifest.path
        for name, value in credentials.query:
            url = with_parameter(url, name, value)
        return cls(manifest, guard, client, url, credentials, Protection(manifest, secret, guard.now))

    def __init__(
        self,
        manifest: Manifest,
        guard: Guard,
        client: httpx.AsyncClient,
        address: str,
        credentials: Credentials,
        protection: Protection,
    ) -> None:
        super().__init__(manifest, guard)
        # Taken apart once: that costs more than building the request's message.
        self._client, self._address, self._credentials = client, httpx.URL(address), credentials
        self._protection, self._operations = protection, operations_of(manifest)

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
        document, fault, otherwise = await self._ask(call, spec.request, content, str(message.referral_id))
        return sent(spec, document, call, fault=fault, otherwise=otherwise)

    async def _poll(
        self, call: Call, *, spec: Polling, cursor: str | None, query: Mapping[str, Any], content: bytes
    ) -> PollOutcome:
        document, _fault, otherwise = await self._ask(call, spec.request, content)
        if otherwise is not None:
            raise otherwise
        return paged(spec, document, call)

    async def _bulk(self, call: Call, *, spec: Bulk, taken: Collection[bytes]) -> Register | NotFound | Rejected:
        content = self._encode(spec.request, write(spec.body, {}))
        document, _fault, otherwise = await self._ask(call, spec.request, content)
        if otherwise is not None:
            raise otherwise
        spool = Spool(spec)
        try:
            await asyncio.to_thread(spool.add, _items(spec, document))
            return await asyncio.to_thread(spool.outcome, call, taken)
        except BaseException:
            spool.discard()
            raise

    async def _ask(
        self, call: Call, request: Mapping[str, Any], content: bytes, issue: str | None = None
    ) -> tuple[Any, str | None, Otherwise]:
        """Call an operation: its answer, or a fault with its name and what it means without a rule."""
        operation = self._operations[request["operation"]]
        credentials = await self._credentials.headers(call)
        seal = partial(self._protection.seal, content, operation.service_code, issue)
        sealed = await asyncio.to_thread(seal) if self._protection.slow else seal()
        headers = [*COMMON_HEADERS, *operation.headers, *receipt_headers(call.receipt), *credentials]
        call.message_id = "" if sealed.xroad is None else sealed.xroad.id
        call.signature = None if sealed.signature is None else sha256(sealed.signature)
        call.sent = True
        asking = httpx.Request("POST", self._address, headers=headers, content=sealed.content)
        answer = await ask(self._client, asking, within_s=call.left_s, max_body=self.manifest.limits.max_body)
        call.took(answer.body)
        error = status_error(answer)
        if error is not None and answer.status not in _MAY_HOLD_FAULT:
            raise error
        read = partial(self._read, operation, answer.body, answer.headers.get("content-type", ""), sealed)
        try:
            if len(answer.body) > _OFF_LOOP_BYTES or self._protection.slow:
                found = await asyncio.to_thread(read)
            else:
                found = read()
        except ContractBroken as broken:
            # A web page under 500 is a server in trouble, not an answer.
            raise error or broken from None
        if isinstance(found, Fault):
            return found.document(), found.name, _meaning(found)
        if error is not None:
            raise error
        return found, None, None

    def _read(self, operation: Operation, body: bytes, media: str, sealed: Sealed) -> Any:
        envelope, attachments = open_answer(body, media)
        found = self._protection.open(envelope, attachments, sealed, operation.soap)
        return found if isinstance(found, Fault) else operation.read(found)


def operations_of(manifest: Manifest) -> dict[str, Operation]:
    """Return the operations a manifest names, held against its WSDL, which is read once for all that name it."""
    refuse = manifest.source.refuse
    try:
        folder = manifest.folder / "wsdl"
        contract = _load(folder / (manifest.wsdl or ""), _state(folder))
    except Unusable as error:
        refuse(["wsdl"], str(error))
    operations: dict[str, Operation] = {}
    for where, spec in _specs(manifest):
        name = spec.request["operation"]
        try:
            operation = operations[name] = contract.operation(name, manifest.port)
            if manifest.xroad:
                xroad_service(manifest.xroad["service"], operation.service_code, manifest.xroad.get("version"))
        except ValueError as error:
            refuse([*where, "request", "operation"], str(error))
        refusal = operation.writer.refusal(spec.body.names)
        if refusal is not None:
            parameter, what = refusal
            refuse([*where, "body", *([parameter] if parameter else [])], what)
        if not isinstance(spec, Dataset | Sending):
            _check_standing(manifest, where, spec, operation)
    return operations


def _check_standing(manifest: Manifest, where: tuple[str, ...], spec: Polling | Bulk, operation: Operation) -> None:
    """Refuse a question that nobody fills in (no person, no referral) and that cannot be asked as it stands."""
    try:
        operation.build(write(spec.body, {"cursor": None}))
    except Unsayable as error:
        manifest.source.refuse([*where, "body"], _("no se puede pedir tal como está: {why}").format(why=error))


def _specs(manifest: Manifest) -> Iterator[tuple[tuple[str, ...], _Spec]]:
    for name, dataset in manifest.datasets.items():
        yield ("datasets", name), dataset
    if manifest.send is not None:
        yield ("send",), manifest.send
    for kind, further in manifest.further.items():
        yield (kind,), further
    if manifest.poll is not None:
        yield ("poll",), manifest.poll
    for name, bulk in manifest.bulk.items():
        yield ("bulk", name), bulk


@lru_cache(maxsize=64)
def _load(file: Path, state: frozenset[tuple[str, int, int]]) -> Contract:
    return load_contract(file)


def _state(folder: Path) -> frozenset[tuple[str, int, int]]:
    """Return what changes when a description or a schema beside it does."""
    if not folder.is_dir():
        return frozenset()
    known = ((path.name, path.stat()) for path in folder.iterdir() if path.is_file())
    return frozenset((name, about.st_mtime_ns, about.st_size) for name, about in known)


def _items(spec: Bulk, document: Any) -> list[Any]:
    try:
        items = document if spec.items is None else spec.items(document)
    except JMESPathError:
        raise ContractBroken("a field of the register is of another type") from None
    if not isinstance(items, list | None):
        raise ContractBroken("the answer lacks its items")
    return items or []


def _meaning(fault: Fault) -> CallFailed | ContractBroken:
    """Say what a fault means that no rule names: the server's own trouble, or a request it does not understand."""
    # SOAP 1.1 clause 4.4.1 lets a code be made more particular with a dot.
    if fault.code.partition(".")[0] in ("Server", "Receiver"):
        return CallFailed("fault: Server")
    return ContractBroken("fault not in the contract", acted=False)
