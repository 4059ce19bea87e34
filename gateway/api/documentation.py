"""What the OpenAPI description says of bodies that we read ourselves: the same JSON Schema that checks them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from schemas.validation import schema


@lru_cache(maxsize=16)
def _schema(name: str) -> dict[str, Any]:
    return {key: value for key, value in schema(name).items() if key != "$schema"}


def body_of(name: str, *, also: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the ``requestBody`` of a route that takes one of our messages, or (``also``) other media types."""
    content: dict[str, Any] = {"application/json": {"schema": _schema(name)}}
    for media_type in also:
        content[media_type] = {"schema": {"type": "object"}}
    return {"requestBody": {"required": True, "content": content}}
