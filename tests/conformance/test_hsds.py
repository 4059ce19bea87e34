"""HSDS 3.0: what is written follows the specification's schemas and is read again; its examples are taken."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from gateway.catalogue.changes import plan
from gateway.catalogue.models import KINDS, Item
from gateway.standards.hsds.files import Unreadable, csv_files, json_files, read_json, read_path
from gateway.standards.hsds.layout import Nesting, Tables
from gateway.standards.hsds.reading import Reading, read_tables
from gateway.standards.hsds.writing import tables_of
from schemas.codes import code_list

ITEMS = {
    kind: {
        code: Item({**spec, "demonstration": True}, 1, datetime(2026, 11, 1, tzinfo=UTC))
        for code, spec in code_list("service-routes" if kind == "routes" else kind).items()
    }
    for kind in KINDS
}
# Fields that no shipped entry has.
ITEMS["services"]["tekopora"].document.update(
    hsds_id="ac148810-d857-441c-9679-408f346de14b", phone="+595 21 000 000", email="a@example.org", website="https://example.org/x"
)  # fmt: skip
ITEMS["locations"]["usf-villeta"].document.update(latitude="-25.510", longitude="-57.57", phone="021 1", email="b@c.py")
EMPTY: dict[str, dict[str, Item]] = {kind: {} for kind in KINDS}
WRITTEN: list[Callable[[Tables], Iterator[tuple[str, bytes]]]] = [json_files, csv_files]


def folder(tmp_path: Path, write: Callable[[Tables], Iterator[tuple[str, bytes]]]) -> Path:
    for name, content in write(tables_of(ITEMS)):
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("write", WRITTEN)
def test_an_export_imported_again_changes_nothing_and_nothing_of_it_is_lost(
    tmp_path: Path, write: Callable[[Tables], Iterator[tuple[str, bytes]]]
) -> None:
    read = read_tables(read_path(folder(tmp_path, write)), ITEMS)
    assert (read.mistakes, read.not_kept) == ([], [])
    assert {kind: documents.keys() for kind, documents in read.message.items()} == {
        kind: items.keys() for kind, items in ITEMS.items()
    }
    assert plan(ITEMS, read.message).changed == {}


@pytest.mark.parametrize("write", WRITTEN)
def test_another_deployment_that_imports_an_export_has_the_same_catalogue(
    tmp_path: Path, write: Callable[[Tables], Iterator[tuple[str, bytes]]]
) -> None:
    read = read_tables(read_path(folder(tmp_path, write)), EMPTY)
    for kind, items in ITEMS.items():
        for code, item in items.items():
            found = read.message[kind][code]
            assert found is not None
            # In what order a place lists its services means nothing.
            assert by_service(found) == by_service(item.document), (kind, code)


def by_service(document: dict[str, Any]) -> dict[str, Any]:
    offers = {"offers": {each["service"]: each for each in document["offers"]}} if "offers" in document else {}
    return {**document, **offers}


def test_a_part_of_an_export_takes_nothing_away(tmp_path: Path) -> None:
    tables = tables_of(ITEMS)
    nesting = Nesting(tables)
    for row in tables.of("service"):
        content = json.dumps(nesting.full("service", row)).encode()
        read = read_tables(read_json("service.json", content), ITEMS)
        assert (read.mistakes, plan(ITEMS, read.message).changed) == ([], {})


def validator(samples: Path, kind: str) -> Draft202012Validator:
    def load(uri: str) -> Resource[Any]:
        path = samples / "referral/hsds/schema" / uri.rsplit("/", 1)[-1]
        return DRAFT202012.create_resource(json.loads(path.read_text(encoding="utf-8")))

    registry: Registry[Any] = Registry(retrieve=load)  # type: ignore[call-arg]
    return Draft202012Validator({"$ref": f"{kind}.json"}, registry=registry)


@pytest.mark.parametrize("kind", ["organization", "service", "service_at_location", "taxonomy", "taxonomy_term"])
def test_what_is_written_follows_the_schemas_of_the_specification(samples: Path, kind: str) -> None:
    tables, check = tables_of(ITEMS), validator(samples, kind)
    nesting = Nesting(tables)
    assert tables.rows[kind]
    for row in tables.rows[kind].values():
        assert [error.message for error in check.iter_errors(nesting.full(kind, row))] == []
        assert [error.message for error in check.iter_errors(nesting.brief(kind, row))] == []


def example(samples: Path, name: str) -> Reading:
    return read_tables(read_path(samples / "referral/hsds/examples" / name), ITEMS)


EXAMPLES = [
    "base.json", "csv", "location.json", "organization_full.json", "organization_list.json",
    "service_at_location_full.json", "service_at_location_list.json", "service_full.json", "service_list.json",
    "tabular.json", "taxonomy.json", "taxonomy_list.json", "taxonomy_term.json", "taxonomy_term_list.json",
]  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_specification_are_taken(samples: Path, name: str) -> None:
    read = example(samples, name)
    planned = plan(ITEMS, read.message)
    assert (read.mistakes, planned.mistakes) == ([], [])
    # Somebody's name, if nothing else, is in each of them that is not a service or an organization alone.
    assert read.not_kept
    after = {
        kind: {**ITEMS[kind], **{code: Item(document or {}, 1, datetime.now(UTC)) for code, document in new.items()}}
        for kind, new in {**{kind: {} for kind in KINDS}, **planned.changed}.items()
    }
    again = read_tables(read_path(samples / "referral/hsds/examples" / name), after)
    assert plan(after, again.message).changed == {}


@pytest.mark.parametrize("name", ["csv", "tabular.json", "service_full.json"])
def test_what_cannot_be_kept_is_named_and_a_persons_name_is_nowhere(samples: Path, name: str) -> None:
    read = example(samples, name)
    named = {each.where: each.rule for each in read.not_kept}
    service = "services/ac148810-d857-441c-9679-408f346de14b"
    # No shipped service has this id here but the one that took it over from the example.
    assert named[f"{service}/licenses"] == named[f"{service}/accreditations"] == "no-place"
    assert named["locations/3a19ff88-4620-4d17-9830-ac1d859eb5d5"] == "no-district"
    assert named["service_at_location/e94c9f38-1e8f-4564-91d4-d53501ab1765"] == "unknown-location"
    assert named["contacts/1e7efce3-639b-4880-940c-b95cd30cdb50"] == "names-a-person"
    assert named["cost_options/1fdf4d39-3d80-484d-9f92-a8ffa08621e7"] == "no-place"
    assert "Persona" not in json.dumps(read.message)


def test_an_entry_of_another_catalogue_is_found_by_its_id_and_keeps_what_we_added(samples: Path) -> None:
    [document] = [each for each in example(samples, "service_full.json").message["services"].values() if each]
    assert document["es"] == "Community Counselling"
    assert (document["response_days"], document["requires"]) == (30, "poverty")


@pytest.mark.parametrize(
    ("change", "where"),
    [({"organization_id": "00000000-0000-4000-8000-000000000000"}, "/services/{id}/organization_id")],
)
def test_a_service_of_an_unknown_organization_is_a_mistake_with_the_choices(change: dict[str, Any], where: str) -> None:
    row = {"id": "00000000-0000-4000-8000-00000000000a", "name": "Sopa", "status": "active", **change}
    [mistake] = read_tables(read_json("service.json", json.dumps(row).encode()), ITEMS).mistakes
    assert mistake.pointer == where.format(id=row["id"])
    assert "MDS" in mistake.allowed


def test_a_location_of_another_catalogue_is_placed_by_the_name_of_its_district() -> None:
    organization = {
        "id": "00000000-0000-4000-8000-00000000000a",
        "name": "Comedor San Cayetano",
        "description": "-",
        "locations": [
            {
                "id": "00000000-0000-4000-8000-00000000000b",
                "location_type": "physical",
                "name": "Sede",
                "addresses": [{"id": "x", "address_1": "Calle 1", "city": "VILLETA", "state_province": "Central"}],
            }
        ],
    }
    read = read_tables(read_json("x.json", json.dumps(organization).encode()), ITEMS)
    assert read.message["locations"]["sede"] == {
        "es": "Sede",
        "institution": "COMEDOR-SAN-CAYETANO",
        "district": "1116",
        "address": "Calle 1",
        "offers": [],
        "hsds_id": "00000000-0000-4000-8000-00000000000b",
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [("services.json", b"{"), ("services.csv", b'id,name\n"x'), ("services.csv", b"id,name\nx,\xff\n")],
)
def test_a_file_that_is_none_is_refused_by_its_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Unreadable) as refused:
        read_path(tmp_path)
    assert refused.value.name == name


@pytest.mark.parametrize(
    "value", ["7", "[]", '{"id": 5}', '[{"name": "x"}]', '{"contents": 3}', '{"services": [{"id": []}]}']
)
def test_json_that_is_no_hsds_is_named_and_changes_nothing(value: str) -> None:
    read = read_tables(read_json("service.json", value.encode()), ITEMS)
    assert read.message == {}
    assert read.mistakes == []
