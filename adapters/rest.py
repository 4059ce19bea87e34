"""Speaks to a producer's service over HTTP: JSON or forms out, JSON or XML back, in one answer or in pages."""

from __future__ import annotations

import asyncio
import hashlib
from codecs import BOM_UTF8
from collections.abc import Collection, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import httpx
import orjson
from jmespath.exceptions import JMESPathError

from adapters.base import ProducerAdapter, Secrets
from adapters.charset import charset_in, to_utf8
from adapters.connections import Connection
from adapters.errors import CallFailed, ContractBroken
from adapters.http import (
    COMMON_HEADERS,
    Answer,
    Headers,
    ask,
    close_client,
    open_client,
    receipt_headers,
    status_error,
)
from adapters.manifest import Bulk, Dataset, Manifest, Polling, Sending
from adapters.models import FetchOutcome, NotFound, PollOutcome, ReferralMessage, Register, Rejected, SendOutcome
from adapters.paging import Paging, Reply, encoded, with_parameter
from adapters.reading import Unsayable, fetched, paged, sent, write
from adapters.resilience import Call, Guard
from adapters.session import Credentials, credentials_of, tls_of
from adapters.spool import Spool
from adapters.xmltree import read_xml
from schemas.errors import SchemaError
from schemas.text import _
from schemas.validation import parse_json

_ACCEPT = {"json": "application/json", "xml": "application/xml, text/xml;q=0.9"}
_SENT_AS = {"json": "application/json", "form": "application/x-www-form-urlencoded"}
_OFF_LOOP_BYTES = 32 * 1024
Outcome = TypeVar("Outcome")


class RestAdapter(ProducerAdapter):
    """A service over HTTP."""

    @classmethod
    def check(cls, manifest: Manifest) -> None:
        """Refuse requests that could not be made as they are written."""
        if "{" in manifest.auth.get("path", ""):
            manifest.source.refuse(["auth", "path"], _("{identifier} solo en consultas sobre una persona"))
        for name, dataset in manifest.datasets.items():
            _check(manifest, ("datasets", name), dataset, {"identifier", "paging"})
        if manifest.send is not None:
            _check(manifest, ("send",), manifest.send, {"idempotency_header"})
        for kind, further in manifest.further.items():
            _check(manifest, (kind,), further, {"idempotency_header"})
        if manifest.poll is not None:
            _check(manifest, ("poll",), manifest.poll, {"paging"})
        for name, bulk in manifest.bulk.items():
            _check(manifest, ("bulk", name), bulk, {"paging"})

    @classmethod
    def connect(
        cls,
        manifest: Manifest,
        guard: Guard,
        connection: Connection,
        secret: Secrets,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> RestAdapter:
        """Make the adapter."""
        client = open_client(manifest.limits.budget_s, transport, tls_of(manifest, connection, secret))
        credentials = credentials_of(manifest, secret, client, connection.address)
        return cls(manifest, guard, client, connection.address, credentials)

    def __init__(
        self, manifest: Manifest, guard: Guard, client: httpx.AsyncClient, address: str, credentials: Credentials
    ) -> None:
        super().__init__(manifest, guard)
        self._client, self._address, self._credentials = client, address, credentials
        self._paging = {id(request): _paging(request) for request in _requests(manifest) if "paging" in request}

    async def close(self) -> None:
        """Close the client."""
        await close_client(self._client)

    def _encode(self, request: Mapping[str, Any], values: dict[str, Any]) -> bytes:
        if not values:
            return b""
        if request.get("format") == "form":
            return urlencode([(name, _text(value)) for name, value in values.items()]).encode("ascii")
        return orjson.dumps(_nested(values))

    async def _fetch(
        self, call: Call, *, spec: Dataset, value: str, query: Mapping[str, Any], content: bytes
    ) -> FetchOutcome:
        path = spec.request["path"].replace("{identifier}", quote(value, safe=""))
        reply = await self._reply(call, spec.request, self._url(path, query), content)
        status, otherwise = reply.answer.status, reply.otherwise
        return self._unsaid(fetched(spec, reply.document, value, call, status=status, otherwise=otherwise))

    async def _send(
        self, call: Call, *, spec: Sending, message: ReferralMessage, query: Mapping[str, Any], content: bytes
    ) -> SendOutcome:
        header = spec.request.get("idempotency_header")
        more: Headers = () if header is None else ((header, str(message.key)),)
        reply = await self._reply(call, spec.request, self._url(spec.request["path"], query), content, more)
        status, otherwise = reply.answer.status, reply.otherwise
        return self._unsaid(sent(spec, reply.document, call, status=status, otherwise=otherwise))

    async def _poll(
        self, call: Call, *, spec: Polling, cursor: str | None, query: Mapping[str, Any], content: bytes
    ) -> PollOutcome:
        reply = await self._reply(call, spec.request, self._url(spec.request["path"], query), content)
        if reply.otherwise is not None:
            raise reply.otherwise
        return paged(spec, reply.document, call)

    async def _bulk(self, call: Call, *, spec: Bulk, taken: Collection[bytes]) -> Register | NotFound | Rejected:
        """Transfer a register page by page onto disk; memory holds one page."""
        request, query = spec.request, write(spec.query, {})
        content, url = self._encode(request, write(spec.body, {})), self._url(request["path"], query)
        paging = self._paging.get(id(request))
        # What a whole register may take is far too long to wait for one page of it.
        page_s = call.left_s if paging is None else self.manifest.limits.budget_s
        digest = hashlib.sha256()

        pages_asked = 0

        async def get(address: str) -> Reply:
            nonlocal pages_asked
            pages_asked += 1
            # The attempt itself has had its turn.
            if pages_asked > 1:
                await self.guard.turn(call)
            within_s = min(page_s, call.left_s)
            try:
                async with asyncio.timeout(within_s):
                    reply = await self._ask(
                        call, request, address, content, self.manifest.limits.max_body, digest, within_s=within_s
                    )
            except TimeoutError:
                raise CallFailed("timeout", again=False) from None
            if reply.otherwise is not None:
                raise reply.otherwise
            return reply

        spool = Spool(spec)
        try:
            if paging is None:
                await asyncio.to_thread(_keep, spool, spec, (await get(url)).document)
            else:
                first = True
                async with aclosing(paging.pages(url, get)) as pages:
                    async for reply, items in pages:
                        # The page behind the last one may say so by having no list at all.
                        if items or first:
                            await asyncio.to_thread(_keep, spool, spec, paging.merge(reply.document, items))
                        first = False
            return spool.outcome(call, taken)
        except BaseException:
            spool.discard()
            raise

    async def _reply(
        self, call: Call, request: Mapping[str, Any], url: str, content: bytes, more: Headers = ()
    ) -> Reply:
        """Ask, and read the answer; one in pages becomes the first page with the items of all."""
        left, digest = self.manifest.limits.max_body, hashlib.sha256()
        paging = self._paging.get(id(request))
        if paging is None:
            return await self._ask(call, request, url, content, left, digest, more)

        async def get(address: str) -> Reply:
            nonlocal left
            # The attempt itself has had its turn.
            if left < self.manifest.limits.max_body:
                await self.guard.turn(call)
            reply = await self._ask(call, request, address, content, left, digest)
            left -= len(reply.answer.body)
            return reply

        async with aclosing(paging.pages(url, get)) as pages:
            first, merged = await anext(pages)
            async for _reply, items in pages:
                merged = merged + items
        if first.otherwise is None:
            first.document = paging.merge(first.document, merged)
        return first

    async def _ask(
        self,
        call: Call,
        request: Mapping[str, Any],
        url: str,
        content: bytes,
        most: int,
        digest: hashlib._Hash,
        more: Headers = (),
        within_s: float | None = None,
    ) -> Reply:
        """Ask once, or twice where our token is no longer taken; at most ``most`` bytes of an answer are read."""
        wanted = request.get("answer", "json")
        common = [*COMMON_HEADERS, ("Accept", _ACCEPT[wanted]), *receipt_headers(call.receipt), *more]
        if content:
            common.append(("Content-Type", _SENT_AS[request.get("format", "json")]))
        # A link to the next page may hold the key already: it is set, not added.
        for name, value in self._credentials.query:
            url = with_parameter(url, name, value)
        credentials = await self._credentials.headers(call)
        for last in (not self._credentials.renewable, True):
            asking = httpx.Request(request["method"], url, headers=[*common, *credentials], content=content or None)
            call.sent = True
            answer = await ask(self._client, asking, within_s=within_s or call.left_s, max_body=most)
            if answer.status != 401 or last:
                break
            call.sent = False
            credentials = await self._credentials.renew(call, credentials)
        digest.update(answer.body)
        call.raw_sha256 = digest.digest()
        read = _xml if wanted == "xml" else _json
        otherwise = status_error(answer)
        try:
            if len(answer.body) > _OFF_LOOP_BYTES:
                return Reply(answer, await asyncio.to_thread(read, answer), otherwise)
            return Reply(answer, read(answer), otherwise)
        except ContractBroken:
            if otherwise is not None:
                raise otherwise from None
            raise

    def _url(self, path: str, query: Mapping[str, Any]) -> str:
        written = encoded([(name, _text(value)) for name, value in query.items()])
        return f"{self._address}{path}?{written}" if written else f"{self._address}{path}"

    def _unsaid(self, outcome: Outcome) -> Outcome:
        """Leave our own key out of what a producer says when it refuses: some repeat the whole address."""
        secret = self._credentials.secret
        if not secret or not isinstance(outcome, Rejected):
            return outcome
        code, reason = outcome.code, outcome.reason
        for told in (secret, quote(secret, safe="")):
            code, reason = code.replace(told, "***"), reason.replace(told, "***")
        return replace(outcome, code=code, reason=reason)


def _check(
    manifest: Manifest, where: tuple[str, ...], spec: Dataset | Sending | Polling | Bulk, allowed: Collection[str]
) -> None:
    refuse, request = manifest.source.refuse, spec.request
    if "{identifier}" in request["path"] and "identifier" not in allowed:
        refuse([*where, "request", "path"], _("{identifier} solo en consultas sobre una persona"))
    for name in ("paging", "idempotency_header"):
        if name in request and name not in allowed:
            refuse([*where, "request", name], _("este campo no se admite aquí"))
    if spec.body.names and request["method"] == "GET":
        refuse([*where, "body"], _("GET no lleva cuerpo; los parámetros van en request.query"))
    if "paging" in request:
        try:
            _paging(request)
        except ValueError as error:
            refuse([*where, "request", "paging", "next"], str(error))
    if isinstance(spec, Bulk):
        try:
            write(spec.query, {})
            write(spec.body, {})
        except Unsayable as error:
            refuse(where, _("un registro completo se pide sin datos de nadie: {why}").format(why=error))


def _paging(request: Mapping[str, Any]) -> Paging:
    return Paging(request["paging"], lone=request.get("answer") == "xml")


def _requests(manifest: Manifest) -> Iterator[Mapping[str, Any]]:
    for dataset in manifest.datasets.values():
        yield dataset.request
    for bulk in manifest.bulk.values():
        yield bulk.request
    if manifest.poll is not None:
        yield manifest.poll.request


def _keep(spool: Spool, spec: Bulk, document: Any) -> None:
    try:
        items = spec.items(document) if spec.items is not None else None
    except JMESPathError:
        items = None
    if not isinstance(items, list):
        raise ContractBroken("the answer lacks its items")
    spool.add(items)


def _json(answer: Answer) -> Any:
    """Parse an answer's JSON (RFC 8259), in UTF-8 unless the header says otherwise."""
    try:
        return parse_json(_in_utf8(answer))
    except SchemaError:
        raise ContractBroken("the answer is not JSON") from None


def _xml(answer: Answer) -> Any:
    return read_xml(answer.body, answer.headers.get("content-type", ""))


def _in_utf8(answer: Answer) -> bytes:
    declared = charset_in(answer.headers.get("content-type", ""))
    if declared in (None, "utf-8"):
        return answer.body.removeprefix(BOM_UTF8)
    return to_utf8(answer.body, declared)


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Make members of members out of names with dots."""
    document: dict[str, Any] = {}
    for name, value in values.items():
        *parents, last = name.split(".")
        place = document
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return document


def _text(value: str | int | bool) -> str:
    """Write a value of a query or form; booleans as JSON has them."""
    return str(value).lower() if isinstance(value, bool) else str(value)
