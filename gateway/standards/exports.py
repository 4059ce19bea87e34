"""The formats in which auditors take entries away: a table, a workbook, lines of JSON, and those of two standards."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from gateway.auditing.forms import Form, Lines, Source, Table, Workbook, entry_json
from gateway.standards.balp import events as balp
from gateway.standards.ocsf import events as ocsf

FORMATS = ("csv", "xlsx", "jsonl", "fhir", "ocsf")


def form_of(kind: str, source: Source, folder: Path) -> Form:
    """Return what writes an export of one of :data:`FORMATS`; a workbook grows in ``folder``."""
    match kind:
        case "csv":
            return Table()
        case "xlsx":
            return Workbook(folder)
        case "jsonl":
            return Lines(kind, "registro.jsonl", entry_json)
        case "fhir":
            return Lines(kind, "registro-fhir.ndjson", partial(balp.event, source=source))
        case "ocsf":
            return Lines(kind, "registro-ocsf.ndjson", partial(ocsf.event, source=source))
    raise ValueError(kind)
