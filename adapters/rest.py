"""Speaks to a producer's JSON service over HTTP."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from adapters.base import ProducerAdapter, Secrets
from adapters.connections import Connection
from adapters.errors import ContractBroken
from adapters.http import COMMON_HEADERS, Answer, Headers, ask, close_client, open_client, status_error
from adapters.manifest import Dataset, Manifest, Sending
from adapters.models import FetchOutcome, ReferralMessage, SendOutcome
from adapters.reading import Otherwise, fetched, sent
from adapters.resilience import Call, Guard
from adapters.session import Credentials, credentials_of
from schemas.errors import SchemaError
from schemas.validation import parse_json

_CHARSET = re.compile(r"charset\s*=\s*\"?([A-Za-z0-9._:-]+)", re.IGNORECASE)
_JSON_IN: Headers = (*COMMON_HEADERS, ("Accept", "application/json"))
_JSON_BOTH: Headers = (*_JSON_IN, ("Content-Type", "application/json"))


class RestAdapter(ProducerAdapter):
    """A JSON service."""

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
        client = open_client(manifest.limits.budget_s, transport)
        credentials = credentials_of(manifest, secret, client, connection.address)
        return cls(manifest, guard, client, connection.address, credentials)

    def __init__(
        self, manifest: Manifest, guard: Guard, client: httpx.AsyncClient, address: str, credentials: Credentials
    ) -> None:
        super().__init__(manifest, guard)
        self._client, self._address, self._credentials = client, address, credentials

    async def close(self) -> None:
        """Close the client."""
        await close_client(self._client)

    def _encode(self, request: Mapping[str, Any], values: dict[str, Any]) -> bytes:
        return orjson.dumps(_nested(values)) if values else b""

    async def _fetch(
        self, call: Call, *, spec: Dataset, value: str, query: Mapping[str, Any], content: bytes
    ) -> FetchOutcome:
        path = spec.request["path"].replace("{identifier}", quote(value, safe=""))
        answer = await self._ask(call, spec.request["method"], path, content)
        document, otherwise = _document(answer)
        return fetched(spec, document, value, call, status=answer.status, otherwise=otherwise)

    async def _send(
        self, call: Call, *, spec: Sending, message: ReferralMessage, query: Mapping[str, Any], content: bytes
    ) -> SendOutcome:
        header = spec.request.get("idempotency_header")
        more: Headers = () if header is None else ((header, str(message.referral_id)),)
        answer = await self._ask(call, spec.request["method"], spec.request["path"], content, more)
        document, otherwise = _document(answer)
        return sent(spec, document, call, status=answer.status, otherwise=otherwise)

    async def _ask(self, call: Call, method: str, path: str, content: bytes, more: Headers = ()) -> Answer:
        common = _JSON_BOTH if content else _JSON_IN
        credentials = await self._credentials.headers(call)
        for last in (not self._credentials.renewable, True):
            headers = [*common, *credentials, *more]
            request = httpx.Request(method, self._address + path, headers=headers, content=content or None)
            call.sent = True
            answer = await ask(self._client, request, within_s=call.left_s, max_body=self.manifest.limits.max_body)
            if answer.status != 401 or last:
                break
            call.sent = False
            credentials = await self._credentials.renew(call, credentials)
        call.took(answer.body)
        return answer


def _document(answer: Answer) -> tuple[Any, Otherwise]:
    """Parse an answer's JSON (RFC 8259), in UTF-8 unless the header says otherwise; and what its status means."""
    error = status_error(answer)
    try:
        return parse_json(_in_utf8(answer)), error
    except SchemaError:
        raise error or ContractBroken("the answer is not JSON") from None


def _in_utf8(answer: Answer) -> bytes:
    declared = _CHARSET.search(answer.headers.get("content-type", ""))
    if declared is None or declared[1].lower() in ("utf-8", "utf8"):
        return answer.body.removeprefix(BOM_UTF8)
    try:
        return answer.body.decode(declared[1]).encode()
    except (LookupError, UnicodeDecodeError):
        raise ContractBroken("the answer is not in the charset it declares") from None


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
