"""What of ours HSDS 3.0 has no member for, and says by attributes: taxonomies of ours, and how values are written."""

from __future__ import annotations

from typing import Any, Final

import orjson

from gateway.standards.hsds.layout import make_id
from schemas.codes import code_list

#: Scheme of the identifiers of organizations, which are the codes of institutions.
SCHEME: Final = "PY-SIIS"
#: What the external identifier of a location is: a district of the statistics office's list.
DISTRICT: Final = "PY-INE-DISTRITO"

# Taxonomy → name and description.
TAXONOMIES: Final = {
    "field": ("Campos del catálogo del SIIS", "Lo que HSDS no tiene; el valor está en «value»."),
    "life-cycle": ("Ciclo de vida del SPS", "A quiénes alcanza un servicio por sí mismo."),
    "requirements": ("Requisitos", "Lo que la persona presenta."),
    "packages": ("Paquetes de servicios del SPS", "Núcleo, ampliado y diferencial, por categoría del ciclo de vida."),
    "routes": ("Rutas de servicios del SPS", "El orden de los servicios para una situación."),
}
#: Field of a document → how people are told of it. Those whose value is no text are written as JSON.
FIELDS: Final = {
    "code": "Código en el SIIS",
    "en": "Nombre en inglés",
    "demonstration": "Contenido de demostración, no oficial",
    "requires": "Condición",
    "response_days": "Días para responder",
    "coverage_days": "Días que cubre una prestación",
    "capacity": "Referencias abiertas que toma",
    "districts": "Distritos que cubre",
    "email": "Correo electrónico",
    "latitude": "Latitud exacta",
    "longitude": "Longitud exacta",
    "issuer": "Institución que lo expide",
    "website": "Dónde se pide",
    "kind": "Clase de paquete",
    "category": "Categoría del ciclo de vida",
    "services": "Servicios, en orden",
    "populations": "Poblaciones",
    "steps": "Pasos, en orden",
}
_TEXTS: Final = frozenset(
    {"code", "en", "requires", "email", "latitude", "longitude", "issuer", "website", "kind", "category"}
)

TERM_OF_FIELD: Final = {make_id("term", "field", name): name for name in FIELDS}
CATEGORY_OF_TERM: Final = {make_id("term", "life-cycle", code): code for code in code_list("life-cycle")}
TAXONOMY_OF_ID: Final = {make_id("taxonomy", name): name for name in TAXONOMIES}


def written(field: str, value: Any) -> str:
    """Return the value of a field as an attribute has it."""
    return str(value) if field in _TEXTS else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def read(field: str, value: str) -> Any:
    """Return what an attribute says; raises ValueError for what is no such value."""
    return value if field in _TEXTS else orjson.loads(value)
