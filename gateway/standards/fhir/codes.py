"""Lookups in the map between the codes of Chile's TEI messages and ours (``schemas/codes/fhir-tei.yaml``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.standards.fhir.models import Coding
from schemas.codes import require_code

_MAP = "fhir-tei"


def system(section: str) -> str:
    """Return the URI of the code system that a section translates."""
    return str(require_code(_MAP, section)["system"])


def codes(section: str) -> dict[str, dict[str, Any]]:
    """Return the codes of a section with their properties."""
    found: dict[str, dict[str, Any]] = require_code(_MAP, section)["codes"]
    return found


def properties(section: str, code: Coding | None) -> dict[str, Any]:
    """Return the properties of a received coding; empty when it is of another system or not in the map."""
    if code is None or code.code is None or code.system != system(section):
        return {}
    return codes(section).get(code.code, {})


def extension_url(name: str) -> str:
    """Return the URL of an extension that the reader knows."""
    return str(require_code(_MAP, "extensions")["urls"][name])


def default(field: str) -> str:
    """Return the value put where a message gives none."""
    return str(require_code(_MAP, "defaults")["values"][field])


def service_for(received: Iterable[Coding]) -> str | None:
    """Return our service for the first coding that names a specialty; ``None`` when none does."""
    specialty = require_code(_MAP, "specialty")
    for code in received:
        if code.system == specialty["system"] and code.code is not None:
            return str(properties("specialty", code).get("service", specialty["service"]))
    return None


def reason_for(received: Iterable[Coding]) -> str | None:
    """Return our reason for the first coding the map knows; ``None`` when it knows none."""
    for code in received:
        if found := properties("derived-for", code).get("reason"):
            return str(found)
    return None


def institution_of(service: str) -> str:
    """Return the institution that provides one of our services."""
    return str(require_code("services", service)["institution"])
