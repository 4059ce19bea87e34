"""Answers about what is offered: public, because no person is in it, kept for as long as an edit may take to count."""

from __future__ import annotations

from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway.catalogue.models import Items
from gateway.catalogue.service import MAX_AGE_S
from schemas.canonical import sha256

_MOST: Final = 256
_KEPT: Final = {"Cache-Control": f"public, max-age={MAX_AGE_S:.0f}"}


class Answers:
    """Answers made of the catalogue, each built once for as long as the catalogue stays the same."""

    def __init__(self) -> None:
        self._items: Items | None = None
        self._made: dict[str, bytes] = {}

    def known(self, request: Request, items: Items) -> Response | None:
        """Return the answer to a request that came before, unless the catalogue changed since."""
        if items is not self._items:
            self._items, self._made = items, {}
        content = self._made.get(_asked(request))
        return None if content is None else shown(request, content)

    def make(self, request: Request, value: Any) -> Response:
        """Return an answer, remembered for whoever asks the same."""
        content = orjson.dumps(value)
        if len(self._made) >= _MOST:
            self._made.clear()
        self._made[_asked(request)] = content
        return shown(request, content)


def shown(request: Request, content: bytes) -> Response:
    """Return JSON with its ETag, or 304 to whoever has it (RFC 9110 clause 13.1.2)."""
    etag = f'"{sha256(content).hex()[:32]}"'
    headers = {"ETag": etag, **_KEPT}
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(content, 200, headers, "application/json")


def _asked(request: Request) -> str:
    return f"{request.url.path}?{request.url.query}"
