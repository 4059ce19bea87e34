"""Keeps account of what was read of rows, so that at the end each thing that was not can be named."""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.catalogue.models import Items
from gateway.standards.hsds.layout import FILES, Row, Tables, make_id
from gateway.standards.hsds.terms import CATEGORY_OF_TERM, FIELDS, TAXONOMY_OF_ID, TERM_OF_FIELD, read

_LINKS = ("link_id", "organization_id", "service_id", "location_id", "service_at_location_id")


class NotKept(NamedTuple):
    """Something that the catalogue does not keep: file, id and member, and why (a rule, never the value)."""

    where: str
    rule: str


class Account:
    """The rows of a file, what of them was read, and what the catalogue does not keep."""

    def __init__(self, tables: Tables, items: Items) -> None:
        self.tables = tables
        self.not_kept = [NotKept(where, "no-place") for where in tables.strange]
        self._items = items
        self._used: dict[tuple[str, str], set[str]] = {}
        self._hanging: dict[tuple[str, str, str], list[Row]] = {}
        for kind, rows in tables.rows.items():
            for row in rows.values():
                for name in _LINKS:
                    if name in row:
                        self._hanging.setdefault((kind, name, row[name]), []).append(row)
        self._ours()

    def fields(self, row: Row) -> dict[str, Any]:
        """Return what attributes say of a row's fields."""
        found: dict[str, Any] = {}
        for each in self.hang("attribute", "link_id", row):
            field = TERM_OF_FIELD.get(each.get("taxonomy_term_id", ""))
            if field is None:
                continue
            try:
                found[field] = read(field, each.get("value", ""))
            except ValueError:
                self.miss("attribute", each, "unreadable")
        return found

    def code_of_term(self, kind: str, attribute: Row) -> str | None:
        """Return the code of an entry of ours that an attribute names by its term."""
        term = attribute.get("taxonomy_term_id", "")
        if self.tables.rows["taxonomy_term"].get(term, {}).get("taxonomy_id") == make_id("taxonomy", kind):
            return str(self.tables.rows["taxonomy_term"][term].get("code", ""))
        known = (code for code in self._items[kind] if make_id("term", kind, code) == term)
        return next(known, None)

    def hang(self, kind: str, link: str, row: Row) -> list[Row]:
        """Return the rows of a kind that hang on a row."""
        return self._hanging.get((kind, link, row["id"]), [])

    def used(self, kind: str, row: Row) -> bool:
        """Say whether anything of a row was read already."""
        return (kind, row["id"]) in self._used

    def use(self, table: str, row: Row, *members: str) -> None:
        """Remember that members of a row were read."""
        self._used.setdefault((table, row["id"]), set()).update(members)

    def use_all(self, table: str, row: Row) -> None:
        """Remember that a whole row was read."""
        self._used.setdefault((table, row["id"]), set()).update(row)

    def miss(self, table: str, row: Row, rule: str, member: str = "") -> None:
        """Note that a row, or a member of it, is not kept."""
        self.not_kept.append(NotKept(where_of(table, row) + (f"/{member}" if member else ""), rule))
        if not member:
            self.use_all(table, row)

    def leftovers(self) -> None:
        """Note whatever nobody read."""
        for table, rows in self.tables.rows.items():
            for made, row in rows.items():
                used = self._used.get((table, made))
                if used is None:
                    rule = "names-a-person" if table == "contact" else "no-place"
                    self.not_kept.append(NotKept(where_of(table, row), rule))
                    continue
                for name in row:
                    if name not in used and name != "id" and not name.endswith("_id"):
                        self.not_kept.append(NotKept(f"{where_of(table, row)}/{name}", "no-place"))

    def _ours(self) -> None:
        """Taxonomies and terms of ours are known; an attribute under one of them says something that is read."""
        for row in self.tables.of("taxonomy"):
            if row["id"] in TAXONOMY_OF_ID:
                self.use_all("taxonomy", row)
        ours = {make_id("term", "field", name) for name in FIELDS} | CATEGORY_OF_TERM.keys()
        for row in self.tables.of("taxonomy_term"):
            if TAXONOMY_OF_ID.get(row.get("taxonomy_id", "")) is not None or row["id"] in ours:
                ours.add(row["id"])
                self.use_all("taxonomy_term", row)
        for kind in ("requirements", "packages", "routes"):
            ours |= {make_id("term", kind, code) for code in self._items[kind]}
        for row in self.tables.of("attribute"):
            if row.get("taxonomy_term_id") in ours:
                self.use_all("attribute", row)


def where_of(table: str, row: Row) -> str:
    """Return where a row stands: file and id."""
    return f"{FILES[table]}/{row['id']}"
