"""Every real description either loads whole, or is refused with the reason named; attacks cost next to nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from adapters.soap.catalogue import Documents, read_wsdl
from adapters.soap.examine import KINDS, Examined, Limits, examine, examine_here

CATALOGUE = Path(__file__).parent.parent.parent / "adapters" / "soap" / "catalogue"
SIFEN_XSD = "soap/py-sifen/ekuatia.set.gov.py/sifen/xsd"
XROAD_XSD = "soap/xroad/wsdl/xsd"
NS = {"w": "http://schemas.xmlsoap.org/wsdl/"}
SOAP = {"http://schemas.xmlsoap.org/wsdl/soap/": "1.1", "http://schemas.xmlsoap.org/wsdl/soap12/": "1.2"}
Document = etree._Element


@pytest.fixture(scope="module")
def wsdls(samples: Path) -> list[Path]:
    return sorted((samples / "soap").rglob("*.wsdl"))


def loads(found: Examined) -> bool:
    """Whether operations load and nothing of a binding is lost; whether our runtime can call them is another matter."""
    return bool(found.operations) and (found.usable or {problem.kind for problem in found.problems} == {"not-callable"})


def examined(wsdls: list[Path], *catalogues: Path) -> dict[Path, Examined]:
    found = {file: examine_here(file, catalogues) for file in wsdls}
    for file, result in found.items():
        assert result.usable or result.problems, file
        assert {problem.kind for problem in result.problems} <= set(KINDS), file
        assert all(problem.where and problem.what for problem in result.problems), file
    return found


@pytest.mark.parametrize(
    ("folders", "loading", "refused", "usable"),
    [((), 36, 34, 29), ((XROAD_XSD,), 36, 34, 29), ((XROAD_XSD, SIFEN_XSD), 38, 32, 31)],
)
def test_every_description_loads_or_is_refused_by_name(
    samples: Path, wsdls: list[Path], folders: tuple[str, ...], loading: int, refused: int, usable: int
) -> None:
    found = examined(wsdls, *(samples / folder for folder in folders))
    whole = [file for file, result in found.items() if loads(result)]
    assert (len(whole), len(found) - len(whole)) == (loading, refused)
    # The others that load are SOAP-encoded or never answer.
    assert sum(found[file].usable for file in whole) == usable


def test_why_descriptions_are_refused(wsdls: list[Path]) -> None:
    """Counted by the first problem named, without any catalogue but the shipped one."""
    first = Counter(result.problems[0].kind for result in examined(wsdls).values() if not loads(result))
    assert first == {
        "bad-schema": 1,
        "lost-message": 4,
        "missing-import": 2,
        "missing-name": 4,
        "no-operations": 1,
        "not-wsdl": 4,
        "undeclared-prefix": 3,
        "wrong-import": 15,
    }


@pytest.mark.filterwarnings("ignore:The wsdl.message for:UserWarning")  # The one no binding uses: see below.
def test_operations_and_messages_are_those_the_bindings_declare(samples: Path, wsdls: list[Path]) -> None:
    catalogue = samples / SIFEN_XSD
    count = 0
    for file, result in examined(wsdls, catalogue).items():
        if not loads(result):
            continue
        documents = [etree.parse(str(path)).getroot() for path in with_imports(file)]
        loaded = read_wsdl(Documents(file, [catalogue]))
        expected = list(declared(documents))
        assert [entry for entry, _messages in expected] == result.operations, file
        for entry, messages in expected:
            operation = loaded.services[entry["service"]].ports[entry["port"]].binding.get(entry["name"])
            assert [carried(operation.input), carried(operation.output)] == messages, (file, entry)
            count += 1
    assert count == 79


def test_sifen_loads_when_its_absent_schemas_are_given_and_names_them_before(samples: Path, tmp_path: Path) -> None:
    for file in sorted((samples / "soap/py-sifen/test").rglob("*.wsdl")):
        before = examine_here(file)
        [problem] = before.problems
        assert (before.usable, problem.kind, problem.where) == (False, "missing-import", f"{file.name}:5")
        assert f"{file.name}.xsd1.xsd" in problem.what
        assert "http://ekuatia.set.gov.py/sifen/xsd" in problem.what
        assert examine_here(file, [samples / SIFEN_XSD]).operations
    # The usual way: what is absent put into one folder under the name the import gives it.
    given = {"consulta-ruc.wsdl.xsd1.xsd": "WS_SiConsRUC_v141.xsd"}
    given |= {name: name for name in ("FE_Types_v141.xsd", "SIFEN_Types_v141.xsd")}
    for name, source in given.items():
        (tmp_path / name).write_bytes((samples / SIFEN_XSD / source).read_bytes())
    file = next((samples / "soap/py-sifen/test").rglob("consulta-ruc.wsdl"))
    assert [operation["soap"] for operation in examine_here(file, [tmp_path]).operations] == ["1.2"]


@pytest.mark.parametrize(
    ("file", "kind", "named"),
    [
        ("soap/ee-registers/skais2.wsdl", "lost-message", "requestHeader"),
        ("soap/ee-registers/kutseregister.wsdl", "lost-message", "pais"),
        ("soap/xroad/wsdl/warn.wsdl", "missing-name", "xroadGetRandom"),
    ],
)
def test_what_real_registers_lose_is_named(samples: Path, file: str, kind: str, named: str) -> None:
    assert any(problem.kind == kind and named in problem.what for problem in examine_here(samples / file).problems)


def test_no_other_file_is_taken_for_a_description(samples: Path) -> None:
    others = [file for place in ("soap", "attack") for file in (samples / place).rglob("*") if file.is_file()]
    kinds: Counter[str] = Counter()
    for file in others:
        if file.suffix != ".wsdl":
            found = examine_here(file)
            assert (found.usable, found.operations) == (False, []), file
            kinds[found.problems[0].kind] += 1
    assert kinds == {"doctype": 6, "not-wsdl": 210, "not-xml": 299, "undeclared-prefix": 2, "unreadable": 1}


def test_attacks_end_in_a_refusal_within_200_mb(samples: Path) -> None:
    files = sorted((samples / "attack").glob("xml-*/**/*.*"))
    assert len(files) >= 18
    for file in files:
        found = examine(file, limits=Limits(size=200 << 20))
        assert [problem.kind for problem in found.problems] in (["doctype"], ["not-xml"], ["not-wsdl"]), file


@pytest.mark.parametrize(
    ("ours", "official"),
    [
        *((f"{name}.xsd", f"{XROAD_XSD}/{name}.xsd") for name in ("xroad", "identifiers", "xml", "xmlmime", "swaref")),
        ("representation.xsd", "soap/xroad/monitoring/representation.xsd"),
        ("xmldsig-core-schema.xsd", f"{SIFEN_XSD}/xmldsig-core-schema.xsd"),
    ],
)
def test_a_shipped_schema_declares_all_that_the_official_one_does(samples: Path, ours: str, official: str) -> None:
    own, theirs = components(CATALOGUE / ours), components(samples / official)
    assert theirs <= own


def components(file: Path) -> set[tuple[str, str]]:
    root = etree.parse(str(file)).getroot()
    named = (node for node in root.iterchildren("{*}*") if node.get("name"))
    return {(etree.QName(node).localname, str(node.get("name"))) for node in named}


# -- a reading of descriptions that shares nothing with the one under test


def with_imports(file: Path) -> Iterator[Path]:
    yield file
    for node in etree.parse(str(file)).getroot().findall("w:import", NS):
        yield file.parent / str(node.get("location"))


def declared(documents: list[Document]) -> Iterator[tuple[dict[str, str], list[tuple[list[str], list[str]]]]]:
    """Each operation of each port, as the examination lists it, with the bodies and headers of its two messages."""
    for port in documents[0].iterfind("w:service/w:port", NS):
        binding = named(documents, "binding", port.get("binding"))
        soap = [child for child in binding if isinstance(child.tag, str) and etree.QName(child).namespace in SOAP]
        if not soap:
            continue
        space = str(etree.QName(soap[0]).namespace)
        port_type = named(documents, "portType", binding.get("type"))
        service = port.getparent()
        assert service is not None
        for operation in binding.findall("w:operation", NS):
            name = str(operation.get("name"))
            entry = {"service": service.get("name"), "port": port.get("name"), "name": name, "soap": SOAP[space]}
            [abstract] = [item for item in port_type.findall("w:operation", NS) if item.get("name") == name]
            ways = [message(documents, operation, abstract, way, space) for way in ("input", "output")]
            yield entry, ways


def message(
    documents: list[Document], operation: Document, abstract: Document, way: str, space: str
) -> tuple[list[str], list[str]]:
    asked, bound = abstract.find(f"w:{way}", NS), operation.find(f"w:{way}", NS)
    if asked is None or bound is None:
        return [], []
    parts = named(documents, "message", asked.get("message")).findall("w:part", NS)
    headers, in_header = [], set()
    for header in bound.iter(f"{{{space}}}header"):
        holder = named(documents, "message", header.get("message"))
        [part] = [part for part in holder.findall("w:part", NS) if part.get("name") == header.get("part")]
        headers.append(of_part(part))
        in_header.add(part)
    body = next(bound.iter(f"{{{space}}}body"), None)
    chosen = None if body is None else body.get("parts")
    names = {part.get("name") for part in parts} if chosen is None else set(chosen.split())
    return [of_part(part) for part in parts if part not in in_header and part.get("name") in names], headers


def of_part(part: Document) -> str:
    element = part.get("element")
    if element is None:
        return str(part.get("name"))
    prefix, _colon, local = element.strip().rpartition(":")
    return f"{{{part.nsmap[prefix or None]}}}{local}"


def named(documents: list[Document], tag: str, reference: str | None) -> Document:
    local = str(reference).strip().rpartition(":")[2]
    [found] = [node for root in documents for node in root.findall(f"w:{tag}", NS) if node.get("name") == local]
    return found


def carried(message: Any) -> tuple[list[str], list[str]]:
    """What zeep's message would put into the Body and the Header."""
    if message is None or message.envelope is None:
        return [], []
    headers = [element.qname.text for _name, element in message.header.type.elements]
    if message.body is None:
        return [], headers
    if message.operation.style == "rpc" or message.body.qname.localname == "Body":
        return [element.qname.text for _name, element in message.body.type.elements], headers
    return [message.body.qname.text], headers
