"""Writes the catalogue as rows of HSDS 3.0; what HSDS has no member for goes along as attributes: nothing is lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.catalogue.models import Item, Items
from gateway.standards.hsds.layout import Tables, make_id
from gateway.standards.hsds.terms import DISTRICT, FIELDS, SCHEME, TAXONOMIES, written
from schemas import geography
from schemas.codes import code_list

# Paraguay has kept this offset all year since 2024; HSDS wants it with every hour.
_OFFSET, _HOURS = "-03:00", -3
_DEMONSTRATION = "Contenido de demostración, no oficial."
# Members of HSDS for fields of ours, by kind of row.
TEXTS = {
    "organization": {"es": "name", "description": "description", "email": "email", "website": "website"},
    "program": {"es": "name", "description": "description"},
    "service": {
        "es": "name",
        "description": "description",
        "email": "email",
        "website": "url",
        "application": "application_process",
        "fees": "fees_description",
        "eligibility": "eligibility_description",
        "from_age": "minimum_age",
        "to_age": "maximum_age",
    },
    "location": {"es": "name", "description": "description", "website": "url"},
    "taxonomy_term": {"es": "name", "description": "description"},
}
ROW_OF_KIND = {
    "institutions": "organization",
    "programmes": "program",
    "services": "service",
    "locations": "location",
}


def tables_of(items: Items) -> Tables:
    """Return the whole catalogue as HSDS rows."""
    return _Writer(items).write()


def id_of(kind: str, code: str, document: Mapping[str, Any]) -> str:
    """Return the UUID of an entry: the one that another catalogue gave it, else one made of its code."""
    return str(document.get("hsds_id") or make_id(kind, code))


class _Writer:
    def __init__(self, items: Items) -> None:
        self._items, self._tables = items, Tables()
        self._ids = {
            kind: {code: id_of(kind, code, item.document) for code, item in items[kind].items()} for kind in ROW_OF_KIND
        }

    def write(self) -> Tables:
        """Write every kind; the order is that of the rows in files."""
        self._taxonomies()
        for code, item in self._items["institutions"].items():
            self._institution(code, item.document)
        for code, item in self._items["programmes"].items():
            self._programme(code, item.document)
        for code, item in self._items["services"].items():
            self._service(code, item)
        for code, item in self._items["locations"].items():
            self._location(code, item.document)
        return self._tables

    def _institution(self, code: str, document: dict[str, Any]) -> None:
        row = self._row("organization", "institutions", code, document)
        # The member must be there.
        row.setdefault("description", row["name"])
        self._tables.put("organization", row)
        self._tables.put(
            "organization_identifier",
            {
                "id": make_id("identifier", code),
                "organization_id": row["id"],
                "identifier_scheme": SCHEME,
                "identifier_type": FIELDS["code"],
                "identifier": code,
            },
        )
        self._phone("organization", row["id"], document)
        self._rest("organization", row["id"], {}, document, done={"phone"})

    def _programme(self, code: str, document: dict[str, Any]) -> None:
        row = self._row("program", "programmes", code, document)
        row.setdefault("description", row["name"])
        self._tables.put("program", row | {"organization_id": self._ids["institutions"][document["institution"]]})
        self._rest("program", row["id"], {"code": code}, document, done={"institution"})

    def _service(self, code: str, item: Item) -> None:
        document = item.document
        row = self._row("service", "services", code, document)
        row |= {
            "organization_id": self._ids["institutions"][document["institution"]],
            "program_id": self._ids["programmes"].get(document.get("programme", "")),
            "status": "active",
            "wait_time": f"Respuesta en {document['response_days']} días",
            "last_modified": item.at.isoformat(timespec="milliseconds"),
        }
        if document.get("demonstration"):
            row["alert"] = _DEMONSTRATION
        self._tables.put("service", row)
        self._phone("service", row["id"], document)
        for requirement in document.get("requirements", ()):
            asked = self._items["requirements"][requirement].document
            made = make_id("document", code, requirement)
            paper = {"id": made, "service_id": row["id"], "document": asked["es"], "uri": asked.get("website")}
            self._tables.put("required_document", paper)
            self._link("required_document", made, "requirements", requirement)
        for category in document["categories"]:
            self._link("service", row["id"], "life-cycle", category)
        # For readers: the terms say all of it.
        for kind, members in (("packages", "services"), ("routes", "steps")):
            for name, each in self._items[kind].items():
                if code in [one if isinstance(one, str) else one["service"] for one in each.document[members]]:
                    self._link("service", row["id"], kind, name)
        self._rest(
            "service",
            row["id"],
            {"code": code},
            document,
            done={"institution", "programme", "requirements", "categories", "phone"},
        )

    def _location(self, code: str, document: dict[str, Any]) -> None:
        row = self._row("location", "locations", code, document)
        district = geography.district(document["district"])
        department = geography.department(district.department).name
        row |= {
            "organization_id": self._ids["institutions"][document["institution"]],
            "location_type": "physical",
            "external_identifier": document["district"],
            "external_identifier_type": DISTRICT,
        }
        exact: dict[str, str] = {}
        for name in ("latitude", "longitude"):
            if name in document:
                row[name] = float(document[name])
                exact |= {} if str(row[name]) == document[name] else {name: document[name]}
        self._tables.put("location", row)
        self._tables.put(
            "address",
            {
                "id": make_id("address", code),
                "location_id": row["id"],
                "address_1": document.get("address", district.name),
                "city": district.name,
                "state_province": department,
                # The member must be there; nobody uses these numbers.
                "postal_code": "-",
                "country": "PY",
                "address_type": "physical",
            },
        )
        self._phone("location", row["id"], document)
        self._schedules("location", row["id"], code, document)
        for offer in document["offers"]:
            self._offer(row["id"], code, document, offer)
        done = {"institution", "district", "address", "phone", "latitude", "longitude", "openings", "offers"}
        self._rest("location", row["id"], {"code": code, **exact}, document, done=done)

    def _offer(self, location: str, code: str, document: dict[str, Any], offer: dict[str, Any]) -> None:
        made = make_id("offer", code, offer["service"])
        service = self._ids["services"][offer["service"]]
        row = {"id": made, "service_id": service, "location_id": location, "description": offer.get("note")}
        self._tables.put("service_at_location", row)
        self._schedules("service_at_location", made, f"{code}:{offer['service']}", offer)
        if "districts" in offer:
            self._field("service_at_location", made, "districts", offer["districts"])
        for district in offer.get("districts", (document["district"],)):
            place = geography.district(district)
            self._tables.put(
                "service_area",
                {
                    "id": make_id("area", offer["service"], district),
                    "service_id": service,
                    "name": f"{place.name}, {geography.department(place.department).name}",
                    "extent": district,
                    "extent_type": "text",
                },
            )

    def _schedules(self, kind: str, made: str, name: str, document: dict[str, Any]) -> None:
        for number, opening in enumerate(document.get("openings", ())):
            row = {
                "id": make_id("schedule", name, number),
                f"{kind}_id": made,
                "timezone": _HOURS,
                "freq": "WEEKLY",
                "byday": ",".join(opening["days"]),
                "opens_at": opening["opens"] + _OFFSET,
                "closes_at": opening["closes"] + _OFFSET,
            }
            self._tables.put("schedule", row)

    def _taxonomies(self) -> None:
        for name, (title, description) in TAXONOMIES.items():
            row = {"id": make_id("taxonomy", name), "name": title, "description": description}
            self._tables.put("taxonomy", row)
        for name, title in FIELDS.items():
            self._term("field", name, {"es": title})
        for code, spec in code_list("life-cycle").items():
            self._term("life-cycle", code, {"es": spec["es"]})
        for kind in ("requirements", "packages", "routes"):
            for code, item in self._items[kind].items():
                made = self._term(kind, code, item.document)
                self._rest("taxonomy_term", made, {"code": code}, item.document, done=set())

    def _term(self, taxonomy: str, code: str, document: dict[str, Any]) -> str:
        made = make_id("term", taxonomy, code)
        row = {
            "id": made,
            "code": code,
            "name": document["es"],
            "description": document.get("description", document["es"]),
            "taxonomy": TAXONOMIES[taxonomy][0],
            "taxonomy_id": make_id("taxonomy", taxonomy),
            "language": "es",
        }
        self._tables.put("taxonomy_term", row)
        return made

    def _row(self, table: str, kind: str, code: str, document: dict[str, Any]) -> dict[str, Any]:
        row = {"id": id_of(kind, code, document)}
        return row | {theirs: document[ours] for ours, theirs in TEXTS[table].items() if ours in document}

    def _phone(self, kind: str, made: str, document: dict[str, Any]) -> None:
        if "phone" in document:
            row = {"id": make_id("phone", made), f"{kind}_id": made, "number": document["phone"], "type": "voice"}
            self._tables.put("phone", row)

    def _rest(self, kind: str, made: str, more: dict[str, Any], document: dict[str, Any], *, done: set[str]) -> None:
        """Write as attributes what no member has said."""
        said = {*TEXTS[kind], *done, "hsds_id"}
        for name, value in {**more, **{name: each for name, each in document.items() if name not in said}}.items():
            self._field(kind, made, name, value)

    def _field(self, kind: str, made: str, name: str, value: Any) -> None:
        self._link(kind, made, "field", name, written(name, value))

    def _link(self, kind: str, made: str, taxonomy: str, code: str, value: str | None = None) -> None:
        row = {
            "id": make_id("attribute", made, taxonomy, code),
            "link_id": made,
            "link_entity": kind,
            "taxonomy_term_id": make_id("term", taxonomy, code),
            "value": value,
        }
        self._tables.put("attribute", row)
