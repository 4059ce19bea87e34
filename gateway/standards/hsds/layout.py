"""How HSDS 3.0 lays a catalogue out: flat tables as in its CSV files, objects in objects as in its JSON.

Both are the same rows, so reading and writing work on tables and only this module knows about nesting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from uuid import UUID, uuid5

VERSION: Final = "3.0"
#: Everything of ours that HSDS wants a UUID for gets one from its code, the same in every deployment.
_NAMESPACE = uuid5(UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8"), "urn:siis:catalogue")

#: Kind of row → its CSV file, without the suffix, in the order in which files are written.
FILES: Final = {
    "organization": "organizations",
    "program": "programs",
    "service": "services",
    "location": "locations",
    "service_at_location": "service_at_location",
    "address": "addresses",
    "phone": "phones",
    "schedule": "schedules",
    "service_area": "service_areas",
    "required_document": "required_documents",
    "organization_identifier": "organization_identifiers",
    "attribute": "attributes",
    "taxonomy": "taxonomies",
    "taxonomy_term": "taxonomy_terms",
    "contact": "contacts",
    "funding": "funding",
    "language": "languages",
    "accessibility": "accessibility",
    "cost_option": "cost_options",
    "metadata": "metadata",
    "meta_table_description": "meta_table_descriptions",
}
# Members that hold a list of rows of another kind. Attributes may hang on anything.
_LISTS: Final = {
    "organization": {
        "organization_identifiers": "organization_identifier",
        "phones": "phone",
        "programs": "program",
        "locations": "location",
        "services": "service",
        "funding": "funding",
        "contacts": "contact",
    },
    "service": {
        "phones": "phone",
        "schedules": "schedule",
        "service_areas": "service_area",
        "service_at_locations": "service_at_location",
        "required_documents": "required_document",
        "languages": "language",
        "funding": "funding",
        "cost_options": "cost_option",
        "contacts": "contact",
    },
    "service_at_location": {"schedules": "schedule", "phones": "phone", "contacts": "contact"},
    "location": {
        "addresses": "address",
        "phones": "phone",
        "schedules": "schedule",
        "languages": "language",
        "accessibility": "accessibility",
        "contacts": "contact",
    },
    "contact": {"phones": "phone"},
    "phone": {"languages": "language"},
}
_EVERYWHERE: Final = {"attributes": "attribute", "metadata": "metadata"}
# Members that hold one row of another kind.
_ONES: Final = {
    "service": {"organization": "organization", "program": "program"},
    "service_at_location": {"location": "location", "service": "service"},
    "attribute": {"taxonomy_term": "taxonomy_term"},
    "taxonomy_term": {"taxonomy_detail": "taxonomy"},
}
Row = dict[str, Any]


def make_id(*parts: object) -> str:
    """Return the UUID of something of ours; the first part says what it is."""
    return str(uuid5(_NAMESPACE, ":".join(map(str, parts))))


class Tables:
    """Rows by kind and id."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Row]] = {kind: {} for kind in FILES}
        #: Where something stood that has no place in the layout at all.
        self.strange: list[str] = []

    def put(self, kind: str, row: Mapping[str, Any]) -> None:
        """Add a row, or what it says more of one that is there; HSDS repeats the same row in many places."""
        known = self.rows[kind].setdefault(str(row["id"]), {})
        known.update({name: value for name, value in row.items() if value is not None and value != ""})

    def of(self, kind: str, **links: str) -> list[Row]:
        """Return the rows whose members are these."""
        return [row for row in self.rows[kind].values() if all(row.get(name) == value for name, value in links.items())]

    def flatten(self, kind: str, value: object, where: str, **links: str) -> None:
        """Take an object apart, with everything in it; ``links`` are the rows it hangs on."""
        if not isinstance(value, dict) or not isinstance(value.get("id"), str):
            self.strange.append(where)
            return
        row: Row = {"id": value["id"], **links}
        lists, ones = {**_LISTS.get(kind, {}), **_EVERYWHERE}, _ONES.get(kind, {})
        for name, member in value.items():
            here = f"{where}/{name}"
            if name in lists and isinstance(member, list):
                back = {"link_id": row["id"]} if name == "attributes" else {f"{kind}_id": row["id"]}
                if name == "metadata":
                    back = {"resource_id": row["id"]}
                for number, each in enumerate(member):
                    self.flatten(lists[name], each, f"{here}/{number}", **back)
            elif name in ones and isinstance(member, dict):
                self.flatten(ones[name], member, here)
                row[f"{ones[name]}_id"] = member.get("id")
            elif isinstance(member, dict | list):
                self.strange.append(here)
            else:
                row[name] = member
        self.put(kind, row)


class Nesting:
    """Tables as objects in objects; looks up what hangs on a row once, however many rows are asked for."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._hanging: dict[tuple[str, str, str], list[Row]] = {}
        for kind, rows in tables.rows.items():
            for row in rows.values():
                for name, value in row.items():
                    if name.endswith("_id"):
                        self._hanging.setdefault((kind, name, value), []).append(row)

    def brief(self, kind: str, row: Row) -> Row:
        """Return a row with the single rows that it refers to, as lists of HSDS show it."""
        made = self._plain(kind, row, "")
        for name, other in _ONES.get(kind, {}).items():
            if (linked := self._linked(other, row)) is not None:
                made[name] = self.brief(other, linked)
        return made

    def full(self, kind: str, row: Row, inside: tuple[str, Row] | None = None) -> Row:
        """Return a row with everything that hangs on it; ``inside`` is the kind and row in which it stands already."""
        made = self._plain(kind, row, "" if inside is None else inside[0])
        for name, other in _ONES.get(kind, {}).items():
            linked = self._linked(other, row)
            # An object does not repeat the one that holds it.
            if linked is not None and (inside is None or linked is not inside[1]):
                made[name] = self.full(other, linked, (kind, row)) if other == "location" else self.brief(other, linked)
        for name, other in {**_LISTS.get(kind, {}), "attributes": "attribute"}.items():
            link = "link_id" if name == "attributes" else f"{kind}_id"
            if found := self._hanging.get((other, link, row["id"]), ()):
                made[name] = [self.full(other, each, (kind, row)) for each in found]
        return made

    def _plain(self, kind: str, row: Row, inside: str) -> Row:
        ones = {f"{other}_id" for other in _ONES.get(kind, {}).values()}
        gone = {"link_id"} if kind == "attribute" else {f"{inside}_id"}
        return {name: value for name, value in row.items() if name not in ones | gone}

    def _linked(self, kind: str, row: Row) -> Row | None:
        return self._tables.rows[kind].get(row.get(f"{kind}_id", ""))


def columns(rows: Iterable[Row]) -> list[str]:
    """Return the members of rows in the order in which they come, the id first."""
    return list(dict.fromkeys(["id", *(name for row in rows for name in row)]))
