"""Adapters of manifests that a test writes itself, as far as no shipped manifest does what is tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
from adapter_examples import CEDULA, permit

from adapters.models import Adapter, Identifier, Row
from adapters.registry import load_adapters

FIELDS = {
    "cedula": {"from": "ci", "through": ["strip", "cedula"], "required": True},
    "given_names": {"from": "nombres", "through": ["collapse-spaces"], "required": True},
    "birth_date": {"from": "nacimiento", "through": ["date10"]},
}


def manifest(kind: str, **parts: Any) -> dict[str, Any]:
    """A manifest about identity; ``parts`` stand in for its members."""
    content: dict[str, Any] = {
        "name": "prueba",
        "institution": "PN-IDENT",
        "kind": kind,
        "auth": {"type": "none"},
        "limits": {"budget_s": 5, "max_body": 65536},
        "retry": {"attempts": 2, "first_wait_s": 0.001},
    }
    return {**content, **parts}


def asking(request: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """The dataset of such a manifest."""
    return {"identity": {"identifier": "cedula", "request": request, "echo": "cedula", "fields": FIELDS, **parts}}


def taking(request: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """The register of such a manifest."""
    subject = {"system": "cedula", "field": "cedula"}
    return {"identity": {"request": request, "subject": subject, "fields": FIELDS, **parts}}


def load(
    folder: Path,
    content: dict[str, Any],
    address: str,
    *,
    secrets: dict[str, str] | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Adapter:
    """Write a manifest, its connection and its secrets, and connect it."""
    (folder / "manifests").mkdir(exist_ok=True)
    (folder / "secrets").mkdir(exist_ok=True)
    # JSON is YAML; a line for each member, so that a complaint names one.
    (folder / "manifests" / "prueba.yaml").write_text(json.dumps(content, indent=1), encoding="utf-8")
    for name, secret in (secrets or {}).items():
        (folder / "secrets" / name).write_text(secret, encoding="utf-8")
    (folder / "connections.yaml").write_text(json.dumps({"prueba": {"address": address}}), encoding="utf-8")
    manifests, connections = folder / "manifests", folder / "connections.yaml"
    return load_adapters([manifests], connections, folder / "secrets", transport=transport).named("prueba")


async def fetch(adapter: Adapter, identifier: Identifier = CEDULA, presented: dict[str, str] | None = None) -> Any:
    """Ask for the identity of somebody."""
    given = permit("disclosure.fetch", "PN-IDENT", "identity")
    return await adapter.fetch(given, "identity", identifier, presented or {})


async def take(adapter: Adapter, taken: tuple[bytes, ...] = ()) -> Any:
    """Take the register of identities."""
    return await adapter.bulk(permit("register.take", "PN-IDENT", "identity"), "identity", taken)


async def rows_of(register: Any, after: int = 0) -> list[Any]:
    """Read a register to its end."""
    return [row async for batch in register.rows(after) for row in batch]


def names(rows: list[Any]) -> list[str]:
    """The names in rows that could be read."""
    return [row.facts["given_names"] for row in rows if isinstance(row, Row)]
