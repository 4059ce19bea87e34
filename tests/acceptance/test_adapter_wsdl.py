"""``siis adapter wsdl``: what an engineer who receives a description sees, and what to do next."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.command_line import Siis

WSDL = Path(__file__).parent.parent.parent / "adapters" / "manifests" / "wsdl" / "PersonaWS.wsdl"
ABSENT = '<xs:import namespace="u:tipos" schemaLocation="http://a.example/tipos.xsd"/>'


@pytest.fixture(scope="module")
def siis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siis]:
    """The command line in Spanish, on no data folder: examining a file needs none."""
    made = Siis(tmp_path_factory.mktemp("siis"), "es", None)
    yield made
    made.end()


@pytest.fixture
def lacking(tmp_path: Path) -> Path:
    """The description of the identification service, with an import nobody can follow."""
    file = tmp_path / "recibido.wsdl"
    text = WSDL.read_text(encoding="utf-8")
    place = text.index(">", text.index("<xs:schema")) + 1
    file.write_text(text[:place] + ABSENT + text[place:], encoding="utf-8")
    return file


def test_a_description_that_can_be_used_lists_its_operations(siis: Siis) -> None:
    ended = siis("adapter", "wsdl", WSDL, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.json() == {
        "usable": True,
        "operations": [
            {"service": "PersonaWSService", "port": "PersonaWSPort", "name": "findPersonaByCedula", "soap": "1.1"}
        ],
        "problems": [],
    }
    shown = siis("adapter", "wsdl", WSDL)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.splitlines()[1:] == [
        "Operaciones: 1",
        "  PersonaWSService / PersonaWSPort (SOAP 1.1)",
        "    findPersonaByCedula",
    ]


def test_a_missing_schema_is_named_with_what_to_do_and_found_in_a_catalogue(
    siis: Siis, lacking: Path, tmp_path: Path
) -> None:
    refused = siis("adapter", "wsdl", lacking)
    assert (refused.code, refused.out) == (2, "")
    for text in ("recibido.wsdl:", "missing-import", "tipos.xsd", "u:tipos", "--catalogue"):
        assert text in refused.err
    schemas = tmp_path / "esquemas" / "2026"
    schemas.mkdir(parents=True)
    schema = '<x:schema xmlns:x="http://www.w3.org/2001/XMLSchema" targetNamespace="u:tipos"/>'
    (schemas / "otro-nombre.xsd").write_text(schema, encoding="utf-8")
    ended = siis("adapter", "wsdl", lacking, "--catalogue", tmp_path, "--catalogue", schemas.parent, "--json")
    assert (ended.code, ended.json()["usable"]) == (0, True)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("no-está.wsdl", None, "unreadable"),
        ("vacío.wsdl", b"", "unreadable"),
        ("datos.csv", b"cedula;nombre\n1;Ana\n", "not-xml"),
        ("esquema.xsd", b'<x:schema xmlns:x="http://www.w3.org/2001/XMLSchema"/>', "not-wsdl"),
        ("bomba.wsdl", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "doctype"),
        ("\u009b2J.wsdl", b"<a/>", "not-wsdl"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_name(
    siis: Siis, tmp_path: Path, name: str, content: bytes | None, kind: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    ended = siis("adapter", "wsdl", file, "--json")
    assert (ended.code, ended.err) == (2, "")
    found = json.loads(ended.out)
    assert (found["usable"], found["operations"]) == (False, [])
    assert [(problem["kind"], problem["where"].partition(":")[0]) for problem in found["problems"]] == [(kind, name)]
    told = siis("adapter", "wsdl", file)
    assert (told.code, told.out) == (2, "")
    assert kind in told.err
    assert told.err.replace("\n", "").isprintable()


def test_a_folder_that_does_not_exist_is_named(siis: Siis, tmp_path: Path) -> None:
    ended = siis("adapter", "wsdl", WSDL, "--catalogue", tmp_path / "esquemas")
    assert ended.code == 2
    assert "esquemas" in ended.err


def test_without_a_file_the_command_says_how_it_is_used(siis: Siis) -> None:
    assert siis("adapter", "wsdl").code == 2
    help_ = siis("adapter", "wsdl", "--help")
    assert help_.code == 0
    assert "--catalogue" in help_.out
