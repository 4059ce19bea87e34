"""Decides where the next page of an answer is, and when there are no more; how one page is asked for is the caller's.

A link is followed to where the first page came from and nowhere else, and a producer that goes in a circle is noticed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit

import httpx
from jmespath.exceptions import JMESPathError

from adapters.errors import ContractBroken
from adapters.http import Answer
from adapters.mapping import Expression, compile_expression
from adapters.reading import Otherwise
from schemas.canonical import sha256


@dataclass(slots=True)
class Reply:
    """One answer, its document, and what its status means where no rule of the manifest deals with it."""

    answer: Answer
    document: Any
    otherwise: Otherwise


class Paging:
    """How a request of a manifest is paged (``$defs/paging`` of its schema); raises ValueError for a wrong expression.

    ``lone``: a list of one looks like no list, as in XML.
    """

    def __init__(self, spec: Mapping[str, Any], *, lone: bool) -> None:
        self._by, self._most, self._lone = spec["by"], spec.get("most", 100), lone
        self._parameter = spec.get("parameter", "")
        self._start = spec.get("start", 0 if self._by == "offset" else 1)
        self._next: Expression | None = compile_expression(spec["next"]) if "next" in spec else None
        self._place = () if spec["items"] == "@" else tuple(spec["items"].split("."))

    async def pages(
        self, url: str, ask: Callable[[str], Awaitable[Reply]]
    ) -> AsyncGenerator[tuple[Reply, list[Any]], None]:
        """Ask for page after page, from an address on; give each with its items.

        The first one may be a failure, for the caller to look at. Raises ContractBroken for more pages than the
        manifest allows, one that comes twice, a link to elsewhere, or a list that is none; a later page's failure.
        """
        position: int = self._start
        address = url if self._by in ("cursor", "link") else with_parameter(url, self._parameter, str(position))
        seen = set[bytes]()
        for number in range(self._most + 1):
            reply = await ask(address)
            if reply.otherwise is not None:
                if number:
                    raise reply.otherwise
                yield reply, []
                return
            items = self._items(reply.document)
            page = sha256(reply.answer.body)
            if items and number == self._most:
                break
            if items and page in seen:
                raise ContractBroken("a page came twice")
            seen.add(page)
            # Found before the page is handed over, which may change it.
            onward = self._onward(address, reply, bool(items))
            if onward is not None and self._look(reply.document) is None:
                raise ContractBroken("a page with another behind it lacks its items")
            yield reply, items
            if onward is None:
                return
            position += len(items) if self._by == "offset" else 1
            address = onward if self._by == "link" else with_parameter(url, self._parameter, onward or str(position))
        raise ContractBroken(f"more than {self._most} pages")

    def merge(self, document: Any, items: list[Any]) -> Any:
        """Put the items of all pages where the first page's are; a document that has neither list nor items stays."""
        if not self._place:
            return items
        if not items and self._look(document) is None:
            return document
        place = document = document if isinstance(document, dict) else {}
        for name in self._place[:-1]:
            if not isinstance(place.get(name), dict):
                place[name] = {}
            place = place[name]
        place[self._place[-1]] = items
        return document

    def _items(self, document: Any) -> list[Any]:
        found = self._look(document)
        if found is None or found == "":
            return []
        if isinstance(found, list):
            return found
        if self._lone:
            return [found]
        raise ContractBroken("the items of a page are no list")

    def _look(self, document: Any) -> Any:
        for name in self._place:
            document = document.get(name) if isinstance(document, dict) else None
        return document

    def _onward(self, address: str, reply: Reply, filled: bool) -> str | None:
        """Return the next cursor or address, "" where the position says it, ``None`` at the end."""
        if self._next is None:
            if self._by == "link":
                return _linked(address, _link_header(reply.answer.headers))
            return "" if filled else None
        try:
            told = self._next(reply.document)
        except JMESPathError:
            raise ContractBroken("the next page is of another type") from None
        if self._by in ("page", "offset"):
            return "" if told else None
        if told in (None, "", False):
            return None
        if isinstance(told, bool) or not isinstance(told, str | int):
            raise ContractBroken("the next page is of another type")
        return _linked(address, str(told)) if self._by == "link" else str(told)


def with_parameter(url: str, name: str, value: str) -> str:
    """Return an address with a query parameter set to a value, whatever it was before; without its fragment."""
    parts = urlsplit(url)
    pairs = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != name]
    return parts._replace(query=encoded([*pairs, (name, value)]), fragment="").geturl()


def encoded(pairs: list[tuple[str, str]]) -> str:
    """Write query parameters, in UTF-8 and percent-encoded (RFC 3986 clause 2.1)."""
    return urlencode(pairs, quote_via=quote)


def _link_header(headers: httpx.Headers) -> str:
    """Return the target of the first link of relation ``next`` (RFC 8288 clause 3); of those about this page only."""
    for link in httpx.Response(200, headers=headers).links.values():
        if "next" in link.get("rel", "").lower().split() and "anchor" not in link:
            return link["url"]
    return ""


def _linked(address: str, link: str) -> str | None:
    """Resolve a link (RFC 3986 clause 5); raise ContractBroken where it leaves the origin (RFC 6454 clause 4)."""
    if not link:
        return None
    try:
        here, there = httpx.URL(address), httpx.URL(urljoin(address, link))
    except (ValueError, httpx.InvalidURL):
        raise ContractBroken("the link to the next page is no address") from None
    if (here.scheme, here.host, here.port) != (there.scheme, there.host, there.port) or there.userinfo:
        raise ContractBroken("the next page is at another origin")
    return str(there)
