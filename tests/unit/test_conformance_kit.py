"""The conformance kit can fail: bad kinds, missing examples and wrong files are found, named, and told."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from adapter_examples import CEDULA, MANIFESTS, permit
from lxml import etree

from adapters.base import ProducerAdapter
from adapters.checking import check_files
from adapters.conformance import report as told
from adapters.conformance.cases import missing, read_cases
from adapters.conformance.documents import names_in
from adapters.conformance.runner import Report, chosen, run
from adapters.connections import Connection
from adapters.errors import ContractBroken, ManifestError, PermitMismatch, UnknownAdapter
from adapters.manifest import load_manifest
from adapters.models import Found, Malformed, Provenance
from adapters.registry import connect, rehearse
from adapters.resilience import utc_now
from adapters.rest import RestAdapter
from adapters.yamlfile import YamlFile
from schemas.permit import Rehearsal

CASES = Path(read_cases.__code__.co_filename).parent / "cases"
MANIFEST = """
name: {name}
institution: PN-IDENT
kind: {name}
auth: {{type: bearer, secret: prueba}}
limits: {{budget_s: 3, max_body: 65536}}
datasets:
  identity:
    identifier: cedula
    request: {{method: GET, path: "/{{identifier}}"}}
    outcomes:
      - {{is: not-found, when: "codigo == '1'"}}
    echo: cedula
    fields:
      cedula: {{from: persona.ci, through: [strip, cedula], required: true}}
      given_names: {{from: persona.nombres, through: [collapse-spaces], required: true}}
      surnames: {{from: persona.apellidos, through: [collapse-spaces]}}
"""
EXAMPLES = """
fetch:
  identity:
    identifier: "4123456"
    found:
      answer: {json: {codigo: "0", persona: {ci: "4123456", nombres: ÑASAINDY, apellidos: AGÜERO}}}
      facts: {cedula: "4123456", given_names: ÑASAINDY, surnames: AGÜERO}
    not_found: {answer: {json: {codigo: "1"}}}
"""


class Good(RestAdapter):
    """What a package offers, as it should be: its credentials are no manifest's own affair."""


class GivesNothing(RestAdapter):
    """Answers ``None`` where there is nobody."""

    async def fetch(self, *arguments: Any, **more: Any) -> Any:
        outcome = await super().fetch(*arguments, **more)
        return outcome if isinstance(outcome, Found | Malformed) else None


class Raises(RestAdapter):
    """Lets a fault of its reading out."""

    async def fetch(self, *arguments: Any, **more: Any) -> Any:
        outcome = await super().fetch(*arguments, **more)
        if isinstance(outcome, Malformed):
            raise KeyError("persona")
        return outcome


class Stumbles(RestAdapter):
    """Has a fault of its reading, and leaves it to the guard."""

    async def _fetch(self, *arguments: Any, **more: Any) -> Any:
        try:
            return await super()._fetch(*arguments, **more)
        except ContractBroken:
            raise KeyError("persona") from None


class Swallows(RestAdapter):
    """Takes an answer without a field it needs for one with less in it."""

    async def fetch(self, *arguments: Any, **more: Any) -> Any:
        outcome = await super().fetch(*arguments, **more)
        if isinstance(outcome, Malformed) and "missing" in outcome.reason:
            return Found({"cedula": "4123456"}, outcome.provenance)
        return outcome


class WaitsForEver(RestAdapter):
    """Has its own idea of time."""

    async def fetch(self, *arguments: Any, **more: Any) -> Any:
        outcome = await super().fetch(*arguments, **more)
        while getattr(outcome, "reason", "") == "timeout":
            outcome = await super().fetch(*arguments, **more)
        return outcome


class Chatters(RestAdapter):
    """Says in a reason what it read, and in another what its key is."""

    async def fetch(self, *arguments: Any, **more: Any) -> Any:
        outcome = await super().fetch(*arguments, **more)
        if isinstance(outcome, Malformed) and "not JSON" in outcome.reason:
            return Malformed("no es JSON: ÑASAINDY", outcome.provenance)
        if isinstance(outcome, Malformed):
            return Malformed(f"con {self._credentials!r} {vars(self._credentials)}", outcome.provenance)
        return outcome


class Nameless(RestAdapter):
    """Says that somebody else answered."""

    async def fetch(self, *arguments: Any, **more: Any) -> Any:
        outcome = await super().fetch(*arguments, **more)
        if isinstance(outcome, Found):
            return Found(outcome.facts, Provenance("otro", self.institution, utc_now(), None, 1, 1))
        return outcome


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of manifests, and a package installed beside it that offers the kinds above."""
    kinds = (Good, GivesNothing, Raises, Stumbles, Swallows, WaitsForEver, Chatters, Nameless)
    module = SimpleNamespace(**{kind.__name__: kind for kind in kinds}, NotOne=object)
    monkeypatch.setitem(sys.modules, "otros_tipos", module)
    installed = tmp_path / "site" / "otros-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: otros\nVersion: 1.0\n", encoding="utf-8")
    points = "".join(f"{name.lower()} = otros_tipos:{name}\n" for name in vars(module))
    (installed / "entry_points.txt").write_text(f"[siis.adapters]\n{points}", encoding="utf-8")
    monkeypatch.syspath_prepend(installed.parent)
    (tmp_path / "manifests" / "cases").mkdir(parents=True)
    return tmp_path / "manifests"


def write(folder: Path, name: str, examples: str = EXAMPLES) -> None:
    (folder / f"{name}.yaml").write_text(MANIFEST.format(name=name), encoding="utf-8")
    (folder / "cases" / f"{name}.yaml").write_text(examples, encoding="utf-8")


async def held(folder: Path, name: str) -> Report:
    [report] = await run(chosen([folder], [name]), everything=False)
    return report


async def test_a_kind_of_an_installed_package_is_held_to_the_same_cases(packages: Path) -> None:
    write(packages, "good")
    report = await held(packages, "good")
    assert [(result.case, result.wrong) for result in report.failures] == []
    assert {"found", "not_found", "token-expired", "reordered", "slow"} <= {result.case for result in report.results}


@pytest.mark.parametrize(
    ("name", "cases", "complaint"),
    [
        ("givesnothing", {"not_found"}, "NoneType, que no es un resultado; se esperaba NotFound"),
        ("raises", {"html", "empty", "cut", "missing-field"}, "excepción KeyError en test_conformance_kit.py:"),
        ("stumbles", {"html", "empty", "missing-field"}, "un defecto del adaptador en lugar de un resultado"),
        ("swallows", {"missing-field"}, "Found; se esperaba Malformed"),
        ("waitsforever", {"slow", "drip"}, "sin resultado dentro de su tiempo"),
        ("chatters", {"empty", "noise"}, "el motivo muestra contenido de la respuesta"),
        ("chatters", {"redirect", "missing-field"}, "el resultado muestra un secreto"),
        ("nameless", {"found", "duplicate"}, "con la procedencia de otro adaptador"),
    ],
)
async def test_a_kind_that_breaks_the_contract_fails_where_it_does(
    packages: Path, name: str, cases: set[str], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.conformance.runner._GRACE_S", 0.3)
    write(packages, name)
    report = await held(packages, name)
    assert {result.case for result in report.failures if result.wrong.startswith(complaint)} >= cases
    assert {"found", "reset"} - {result.case for result in report.failures if name != "nameless"}


async def test_an_installed_kind_without_a_manifest_is_a_failure_of_the_whole_run(packages: Path) -> None:
    write(packages, "good")
    reports = await run(chosen([packages], ["good"]), everything=True)
    unused = {report.name for report in reports if report.failures}
    assert unused == {
        "givesnothing",
        "raises",
        "stumbles",
        "swallows",
        "waitsforever",
        "chatters",
        "nameless",
        "notone",
    }


async def test_a_manifest_without_examples_fails_naming_what_is_missing(packages: Path) -> None:
    write(packages, "good", EXAMPLES.replace("    not_found:", "    rejected:").replace('"1"}}}', '"1"}}, code: x}'))
    report = await held(packages, "good")
    assert [result.detail for result in report.failures if result.case == "examples"] == ["fetch.identity.not_found"]
    (packages / "cases" / "good.yaml").unlink()
    report = await held(packages, "good")
    assert [(result.detail, result.wrong) for result in report.failures] == [("todo el archivo", "falta en good.yaml")]


@pytest.mark.parametrize(
    ("name", "dropped", "lacking"),
    [
        ("mds", ("send", "already_taken"), "send.already_taken"),
        ("mds", ("poll", "empty"), "poll.empty"),
        ("mspbs", ("send",), "send"),
        ("identificaciones-soap", ("fetch", "birth-entry"), "fetch.birth-entry"),
        ("dnit", ("bulk",), "bulk.ruc"),
    ],
)
def test_every_verb_dataset_and_outcome_of_a_manifest_needs_its_example(
    name: str, dropped: tuple[str, ...], lacking: str
) -> None:
    manifest = load_manifest(MANIFESTS / f"{name}.yaml")
    cases = read_cases(manifest)
    assert cases is not None
    assert list(missing(manifest, cases)) == []
    section: Any = cases.content
    for key in dropped[:-1]:
        section = section[key]
    del section[dropped[-1]]
    assert list(missing(manifest, cases)) == [lacking]


@pytest.mark.parametrize(
    ("old", "new", "line", "field"),
    [
        ("    identifier:", "    identificador:", 4, "fetch.identity.identificador"),
        ("  identity:", "  persona:", 4, "fetch.persona"),
        ("      answer: {json:", "      answer: {xml: <a, json:", 6, "fetch.identity.found.answer.xml"),
        ("fetch:", "bulk: {identity: {found: {answer: {json: 1}, rows: [{a: b}]}}}\nfetch:", 2, "bulk.identity"),
        ("facts: {", "facts: {birth_date: 2026-11-22T10:00:00Z, ", 7, "fetch.identity.found.facts.birth_date"),
        ("fetch:", "fetch: [", None, "/"),
    ],
)
def test_a_wrong_case_file_is_refused_with_its_line(
    packages: Path, old: str, new: str, line: int | None, field: str
) -> None:
    assert old in EXAMPLES
    write(packages, "good", EXAMPLES.replace(old, new, 1))
    with pytest.raises(ManifestError) as refused:
        read_cases(load_manifest(packages / "good.yaml"))
    assert (refused.value.file, refused.value.field) == ("good.yaml", field)
    assert line is None or refused.value.line == line


def test_a_name_that_nobody_has_is_refused() -> None:
    with pytest.raises(UnknownAdapter):
        chosen([], ["nadie"])


def test_every_shipped_case_file_belongs_to_a_manifest() -> None:
    assert {file.stem for file in CASES.glob("*")} <= {file.stem for file in MANIFESTS.glob("*.yaml")}


async def test_the_report_counts_for_persons_programs_and_build_servers(packages: Path, tmp_path: Path) -> None:
    write(packages, "swallows")
    report = await held(packages, "swallows")
    total, failed = len(report.results), len(report.failures)
    skipped = sum(bool(result.skipped) for result in report.results)
    assert 0 < failed < total

    lines = list(told.lines([report]))
    assert lines[0] == "✗ swallows  swallows  PN-IDENT"
    assert any("falta un campo obligatorio · given_names: Found; se esperaba Malformed" in line for line in lines)
    assert lines[-1].startswith("1 de 1 adaptadores no cumplen")

    [as_json] = told.as_json([report])
    outcomes = [case["outcome"] for case in as_json["cases"]]
    assert (len(outcomes), outcomes.count("failed"), as_json["conforms"]) == (total, failed, False)

    told.write_junit([report], tmp_path / "junit.xml")
    [suite] = etree.parse(tmp_path / "junit.xml").getroot()
    assert suite.tag == "testsuite"
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == [
        str(total), str(failed), "0", str(skipped),
    ]  # fmt: skip
    assert len(suite.findall("testcase/failure")) == failed
    names = [case.get("name") for case in suite]
    assert len(set(names)) == len(names)


def test_the_reference_names_every_case() -> None:
    page = (MANIFESTS.parents[1] / "docs" / "reference" / "conformance.md").read_text(encoding="utf-8")
    cases = page.split("## The cases")[1].split("## The examples")[0]
    assert set(re.findall(r"`([a-z_0-9-]+)`", cases)) >= set(told.titles()) - {"examples"}


async def test_a_rehearsal_is_with_this_machine_and_stands_in_for_no_permit(packages: Path, tmp_path: Path) -> None:
    (tmp_path / "prueba").write_text("clave", encoding="utf-8")
    write(packages, "good")
    manifest = load_manifest(packages / "good.yaml")

    def at(address: str) -> Connection:
        return Connection(address, "", YamlFile("connections.yaml", {}, {}))

    for elsewhere in ("https://10.0.0.1", "https://[2001:db8::1]"):
        with pytest.raises(ValueError, match="this machine"):
            rehearse(manifest, at(elsewhere), tmp_path)
    opened: list[tuple[ProducerAdapter, Any]] = [
        (rehearse(manifest, at("http://127.0.0.1:9"), tmp_path), permit("disclosure.fetch", "PN-IDENT", "identity")),
        (connect(manifest, at("http://127.0.0.1:9"), tmp_path), Rehearsal()),
    ]
    for adapter, wrong in opened:
        with pytest.raises(PermitMismatch):
            await adapter.fetch(wrong, "identity", CEDULA)
        await adapter.close()


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("cedula", {"cedula"}),
        ("a.b.c", {"c"}),
        ("join(' ', [persona.nombre, apellido])", {"nombre", "apellido"}),
        ("lista[0].ci", {"ci"}),
        ("ids[?system=='cedula'].value | [0]", {"value"}),
        ('acta."@cedula"', {"@cedula"}),
        ('acta.numero."#text"', {"numero"}),
        ("length(dosis)", {"dosis"}),
    ],
)
def test_what_a_field_is_called_in_an_answer_is_read_off_its_expression(expression: str, names: set[str]) -> None:
    assert names_in(expression) == names


def checked(*files: Path, connections: Path | None = None, secrets: Path | None = None) -> list[str]:
    return [complaint for _file, complaint in check_files(files, connections, secrets)]


def test_checking_names_what_is_wrong_in_every_file_and_not_only_in_the_first(tmp_path: Path) -> None:
    text = (MANIFESTS / "mspbs.yaml").read_text(encoding="utf-8")
    wrong = {
        "bien": text,
        "convertidor": text.replace("through: [to-dmy]", "through: [al-reves]"),
        "tipo": text.replace("kind: rest", "kind: paloma"),
        "gemelo": text.replace("name: mspbs", "name: minna"),
        "servicio": text.replace("name: mspbs", "name: otro"),
    }
    files = []
    for name, content in wrong.items():
        (tmp_path / f"{name}.yaml").write_text(content, encoding="utf-8")
        files.append(tmp_path / f"{name}.yaml")
    # The shipped one of this name and these services is not among the files.
    good, converter, kind, twin, service = checked(*files)
    assert good == f"{tmp_path}/bien.yaml:3: name: ya es el nombre de mspbs.yaml"
    assert converter.startswith(f"{tmp_path}/convertidor.yaml:23: send.body.paciente.fecha_nacimiento")
    assert kind.startswith(f"{tmp_path}/tipo.yaml:5: kind: no hay este tipo; los hay: ")
    assert twin == f"{tmp_path}/gemelo.yaml:3: name: ya es el nombre de minna.yaml"
    assert service.startswith(f"{tmp_path}/servicio.yaml:12: services: mspbs.yaml ya atiende")
    assert checked(MANIFESTS / "mspbs.yaml") == [""]


def test_checking_with_connections_asks_for_the_secret_and_the_connection(tmp_path: Path) -> None:
    file, connections, secrets = MANIFESTS / "minna.yaml", tmp_path / "connections.yaml", tmp_path / "secrets"
    secrets.mkdir()
    connections.write_text(
        yaml.safe_dump({"minna": {"address": "sftp://10.0.0.1", "host_key": "ssh-ed25519 no"}}), encoding="utf-8"
    )
    line = next(n for n, text in enumerate(file.read_text(encoding="utf-8").splitlines(), 1) if text.startswith("auth"))
    [missing_secret] = checked(file, secrets=secrets)
    assert missing_secret == f"{file}:{line}: auth.secret: no hay un archivo de secreto minna_password"
    (secrets / "minna_password").write_text("clave", encoding="utf-8")
    assert checked(file, secrets=secrets) == [""]
    [wrong_key] = checked(file, connections=connections, secrets=secrets)
    assert wrong_key == f"{connections}:3: minna.host_key: no es una clave pública de SSH"
    connections.write_text("nadie: {address: 'https://a.example'}\n", encoding="utf-8")
    assert checked(file, connections=connections) == [
        f"{connections}:1: nadie: no hay manifiesto con este nombre",
        "",
    ]
