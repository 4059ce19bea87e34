"""Reads rows of HSDS 3.0 as a change of the catalogue, and names each thing that the catalogue cannot keep."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final, NamedTuple

from gateway.catalogue.models import Items
from gateway.errors import Mistake
from gateway.standards.hsds.account import Account, NotKept, where_of
from gateway.standards.hsds.layout import Row, Tables, make_id
from gateway.standards.hsds.matching import (
    LONGEST_CODE,
    LONGEST_INSTITUTION,
    district_name,
    district_named,
    fits,
    slug,
    whole_number,
)
from gateway.standards.hsds.terms import CATEGORY_OF_TERM, DISTRICT, SCHEME
from gateway.standards.hsds.writing import ROW_OF_KIND, TEXTS, id_of
from schemas.text import _

#: Days to answer of a service whose catalogue does not say; named in the report.
USUAL_RESPONSE_DAYS: Final = 30
_SINGULAR: Final = {
    "institutions": "institution",
    "programmes": "programme",
    "requirements": "requirement",
    "services": "service",
    "locations": "location",
}
_NUMBERS: Final = frozenset({"from_age", "to_age"})
# Written by us for readers; the fields they come from are there as well.
_DERIVED: Final = ("wait_time", "alert", "last_modified", "description")
_HOUR = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])(:[0-5][0-9])?(Z|[+-][0-9]{2}:?[0-9]{2})?\Z", re.ASCII)
_DAYS: Final = frozenset({"MO", "TU", "WE", "TH", "FR", "SA", "SU"})

Document = dict[str, Any]


class Reading(NamedTuple):
    """What was read: the ``catalogue-change`` message, what is wrong in the file, what is not kept.

    ``origins``: where in the file an entry stands, by its pointer in the message.
    """

    message: dict[str, dict[str, Document | None]]
    mistakes: list[Mistake]
    not_kept: list[NotKept]
    origins: dict[str, str]


def read_tables(tables: Tables, items: Items) -> Reading:
    """Read rows over a catalogue that is there: what has an id or code that it knows changes that entry."""
    return _Reader(tables, items).read()


class _Reader:
    def __init__(self, tables: Tables, items: Items) -> None:
        self._tables, self._items, self._account = tables, items, Account(tables, items)
        self._message: dict[str, dict[str, Document | None]] = {}
        self._mistakes: list[Mistake] = []
        self._origins: dict[str, str] = {}
        self._codes = {
            kind: {id_of(kind, code, item.document): code for code, item in items[kind].items()} for kind in ROW_OF_KIND
        }

    def read(self) -> Reading:
        """Read every kind, what others name first."""
        for row in self._tables.of("organization"):
            self._institution(row)
        for row in self._tables.of("program"):
            self._programme(row)
        self._terms("requirements")
        for row in self._tables.of("service"):
            self._service(row)
        for row in self._tables.of("location"):
            self._location(row)
        for row in self._tables.of("service_at_location"):
            self._offer(row)
        self._terms("packages")
        self._terms("routes")
        self._account.leftovers()
        message = {kind: documents for kind, documents in self._message.items() if documents}
        return Reading(message, self._mistakes, self._account.not_kept, self._origins)

    # One kind after the other

    def _institution(self, row: Row) -> None:
        said = [
            each
            for each in self._account.hang("organization_identifier", "organization_id", row)
            if each.get("identifier_scheme") == SCHEME
        ]
        for each in said:
            self._account.use_all("organization_identifier", each)
        code = str(said[0].get("identifier", "")) if said else self._codes["institutions"].get(row["id"])
        if code is None:
            code = self._new("institutions", row, slug(str(row.get("name", "")), LONGEST_INSTITUTION).upper())
        document = self._document("organization", "institutions", code, row, ours=bool(said))
        self._phone("organization", "institutions", row, document)
        self._keep("institutions", code, document, "organization", row)

    def _programme(self, row: Row) -> None:
        holder = self._holder(row) or next(
            (found for each in self._tables.of("service", program_id=row["id"]) if (found := self._holder(each))), None
        )
        code, ours = self._code("programmes", row)
        if holder is None:
            self._no_institution("program", row)
            return
        document = self._document("program", "programmes", code, row, ours=ours)
        self._keep("programmes", code, document | {"institution": holder}, "program", row)

    def _service(self, row: Row) -> None:
        code, ours = self._code("services", row)
        self._account.use("service", row, "status")
        if row.get("status", "active") != "active":
            if code in self._items["services"]:
                self._message.setdefault("services", {})[code] = None
            self._account.use_all("service", row)
            self._account.miss("service", row, "not-active")
            return
        holder = self._holder(row)
        if holder is None:
            self._no_institution("service", row)
            return
        document = self._document("service", "services", code, row, ours=ours) | {"institution": holder}
        programme = self._codes["programmes"].get(row.get("program_id", ""))
        if programme is not None:
            document["programme"] = programme
        elif "program_id" in row:
            self._account.miss("service", row, "unknown-programme", "program_id")
        categories = [
            CATEGORY_OF_TERM[each["taxonomy_term_id"]]
            for each in self._account.hang("attribute", "link_id", row)
            if each.get("taxonomy_term_id") in CATEGORY_OF_TERM
        ]
        if ours or categories:
            document["categories"] = categories
        document.setdefault("categories", [])
        if "response_days" not in document:
            document["response_days"] = USUAL_RESPONSE_DAYS
            self._account.not_kept.append(NotKept(f"{where_of('service', row)}/response_days", "assumed"))
        papers = [self._requirement(each) for each in self._account.hang("required_document", "service_id", row)]
        if found := [each for each in dict.fromkeys(papers) if each is not None]:
            document["requirements"] = found
        self._phone("service", "services", row, document)
        if ours:
            for each in self._account.hang("service_area", "service_id", row):
                self._account.use_all("service_area", each)
        self._keep("services", code, document, "service", row)

    def _requirement(self, row: Row) -> str | None:
        """Return the code of a paper, known or new."""
        for each in self._account.hang("attribute", "link_id", row):
            code = self._account.code_of_term("requirements", each)
            if code is not None:
                self._account.use_all("required_document", row)
                return code
        text = str(row.get("document", ""))
        candidate: Document = {"es": text} | ({"website": row["uri"]} if "uri" in row else {})
        for field in ("website", "es"):
            if field in candidate and not fits("requirement", field, candidate[field]):
                del candidate[field]
        if "es" not in candidate:
            self._account.miss("required_document", row, "unreadable")
            return None
        self._account.use("required_document", row, "document", *(("uri",) if "website" in candidate else ()))
        known = {code: item.document for code, item in self._items["requirements"].items()}
        for code, document in {**known, **self._message.get("requirements", {})}.items():
            if document is not None and document["es"] == text:
                return code
        code = self._new("requirements", row, slug(text, LONGEST_CODE))
        self._keep("requirements", code, candidate, "required_document", row)
        return code

    def _location(self, row: Row) -> None:
        code, ours = self._code("locations", row)
        addresses = self._account.hang("address", "location_id", row)
        district = self._district(row, addresses)
        if district is None or row.get("location_type", "physical") != "physical":
            self._account.use_all("location", row)
            self._account.miss("location", row, "no-district" if district is None else "not-physical")
            return
        holder = self._holder(row) or next(
            (
                found
                for each in self._account.hang("service_at_location", "location_id", row)
                if (found := self._holder(self._account.tables.rows["service"].get(each.get("service_id", ""), {})))
            ),
            None,
        )
        if holder is None:
            self._no_institution("location", row)
            return
        document = self._document("location", "locations", code, row, ours=ours)
        document |= {"institution": holder, "district": district}
        for name in ("latitude", "longitude"):
            if name in row and name not in self._account.fields(row):
                document[name] = str(row[name])
            self._account.use("location", row, name)
        for each in addresses[:1]:
            street = str(each.get("address_1", ""))
            if street and street != district_name(district) and fits("location", "address", street):
                document["address"] = street
            self._account.use("address", each, "address_1")
            if ours:
                self._account.use_all("address", each)
        self._phone("location", "locations", row, document)
        self._openings("schedule", "location_id", row, document)
        before = self._items["locations"].get(code)
        document["offers"] = [] if before is None else [dict(each) for each in before.document["offers"]]
        self._keep("locations", code, document, "location", row)

    def _offer(self, row: Row) -> None:
        place = self._codes["locations"].get(row.get("location_id", ""))
        location = self._message.get("locations", {}).get(place or "")
        service = self._codes["services"].get(row.get("service_id", ""))
        self._account.use("service_at_location", row, "description")
        if service is None or location is None:
            self._account.use_all("service_at_location", row)
            self._account.miss("service_at_location", row, "unknown-service" if service is None else "unknown-location")
            return
        fields = self._account.fields(row)
        offer: Document = {"service": service}
        if "districts" in fields:
            offer["districts"] = fields["districts"]
        if "description" in row:
            offer["note"] = row["description"]
        self._openings("schedule", "service_at_location_id", row, offer)
        offers: list[Document] = location["offers"]
        for number, known in enumerate(offers):
            if known["service"] == service:
                offers[number] = offer
                return
        offers.append(offer)

    def _terms(self, kind: str) -> None:
        """Read what stands in a taxonomy of ours; a term without its code is only the mention of one."""
        for row in self._tables.of("taxonomy_term", taxonomy_id=make_id("taxonomy", kind)):
            self._account.use_all("taxonomy_term", row)
            fields = self._account.fields(row)
            if "code" not in fields:
                continue
            document = {"es": row.get("name")} | {name: each for name, each in fields.items() if name != "code"}
            if "description" in row and row["description"] != row.get("name"):
                document["description"] = row["description"]
            self._keep(kind, fields["code"], document, "taxonomy_term", row)

    # What several kinds need

    def _document(self, table: str, kind: str, code: str, row: Row, *, ours: bool) -> Document:
        """Return the fields that rows and attributes say; an entry of another catalogue keeps those that we added."""
        before = self._items[kind].get(code)
        document: Document = {} if ours or before is None else dict(before.document)
        for field, member in TEXTS[table].items():
            if member not in row:
                continue
            self._account.use(table, row, member)
            value = whole_number(row[member]) if field in _NUMBERS else row[member]
            if ours or fits(_SINGULAR[kind], field, value):
                document[field] = value
            else:
                self._account.miss(table, row, "unreadable", member)
        # A member that HSDS wants there in any case.
        if document.get("description") == document.get("es"):
            document.pop("description", None)
        fields = self._account.fields(row)
        document |= {name: value for name, value in fields.items() if name != "code"}
        if row["id"] != make_id(kind, code):
            document["hsds_id"] = row["id"]
        if ours:
            self._account.use(table, row, *_DERIVED, "location_type", "external_identifier", "external_identifier_type")
        return document

    def _code(self, kind: str, row: Row) -> tuple[str, bool]:
        """Return the code of a row, and whether it says it itself: then it was written by us."""
        said = self._account.fields(row).get("code")
        known = said or self._codes[kind].get(row["id"])
        return known or self._new(kind, row, slug(str(row.get("name", "")), LONGEST_CODE)), said is not None

    def _new(self, kind: str, row: Row, wanted: str) -> str:
        taken = {*self._items[kind], *self._message.get(kind, {})}
        base = wanted or slug(f"{kind}-{row['id'][:8]}", LONGEST_CODE)
        code, number = base, 1
        while code in taken:
            number += 1
            code = f"{base[: LONGEST_INSTITUTION - 4]}-{number}"
        return code

    def _holder(self, row: Row) -> str | None:
        return self._codes["institutions"].get(row.get("organization_id", ""))

    def _no_institution(self, table: str, row: Row) -> None:
        text = _("La organización no está en el archivo ni en el catálogo.")
        known = tuple(sorted({*self._items["institutions"], *self._message.get("institutions", {})}))
        self._mistakes.append(Mistake("unknown-code", f"/{where_of(table, row)}/organization_id", text, known))
        self._account.use_all(table, row)

    def _phone(self, table: str, kind: str, row: Row, document: Document) -> None:
        for each in self._account.hang("phone", f"{table}_id", row):
            # Of several the first; a contact's is somebody's.
            text = str(each.get("number", "")).strip(' "')
            if self._account.used("phone", each) or "contact_id" in each or not fits(_SINGULAR[kind], "phone", text):
                continue
            document["phone"] = text
            self._account.use("phone", each, "number", *(("type",) if each.get("type") == "voice" else ()))
            return

    def _openings(self, table: str, link: str, row: Row, document: Document) -> None:
        found = []
        for each in self._account.hang(table, link, row):
            days = str(each.get("byday", "")).split(",")
            hours = [_HOUR.match(str(each.get(name, ""))) for name in ("opens_at", "closes_at")]
            weekly = each.get("freq", "WEEKLY") == "WEEKLY" and str(each.get("interval", 1)) == "1"
            if not weekly or None in hours or not _DAYS.issuperset(days):
                self._account.miss(table, each, "unreadable")
                continue
            opens, closes = (f"{hour[1]}:{hour[2]}" for hour in hours if hour is not None)
            found.append({"days": list(dict.fromkeys(days)), "opens": opens, "closes": closes})
            self._account.use(table, each, "byday", "opens_at", "closes_at", "freq", "timezone", "interval")
        if found:
            document["openings"] = found

    def _district(self, row: Row, addresses: Collection[Row]) -> str | None:
        if row.get("external_identifier_type") == DISTRICT:
            return str(row.get("external_identifier", ""))
        for each in addresses:
            found = district_named(str(each.get("city", "")), str(each.get("state_province", "")))
            if found is not None:
                self._account.use("address", each, "city", "state_province")
                return found
        return None

    def _keep(self, kind: str, code: str, document: Document, table: str, row: Row) -> None:
        self._message.setdefault(kind, {})[code] = document
        self._origins[f"/{kind}/{code}"] = where_of(table, row)
        if kind in self._codes:
            self._codes[kind][row["id"]] = code
