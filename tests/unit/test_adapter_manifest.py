"""Manifests, connections and secrets: what is shipped loads, and what is wrong is named with file, line and field."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from adapter_examples import CEDULA, MANIFESTS, permit, referral
from jsonschema import Draft202012Validator

from adapters.errors import ManifestError, PermitMismatch, UnknownAdapter
from adapters.manifest import load_manifest
from adapters.models import Health, Rejected, Unavailable
from adapters.registry import Adapters, load_adapters

SHIPPED = sorted(MANIFESTS.glob("*.yaml"))
SCHEMA = MANIFESTS.parents[1] / "schemas" / "manifest.schema.json"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJWKXkM75sj+yZkYwJY+UoX2pLkw7a+4tdg6qeLftCrW"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    (tmp_path / "secrets").mkdir()
    return tmp_path


def change(folder: Path, name: str, old: str, new: str) -> Path:
    file = folder / "manifests" / f"{name}.yaml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    return file


def load(folder: Path, connections: dict[str, Any] | None = None) -> Adapters:
    file = folder / "connections.yaml"
    if connections is not None:
        file.write_text(json.dumps(connections), encoding="utf-8")
    return load_adapters([folder / "manifests"], file, folder / "secrets")


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_manifest_loads_and_has_at_most_sixty_lines_and_some_for_further_messages(file: Path) -> None:
    manifest, lines = load_manifest(file), file.read_text(encoding="utf-8").splitlines()
    assert manifest.name == file.stem
    further = sum(line.split(":")[0] in ("cancel", "reopen", "note") for line in lines)
    assert len(lines) <= 60 + 5 * further
    assert "yaml-language-server: $schema=" in lines[0]


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(json.loads(SCHEMA.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("name", "old", "new", "blamed", "field", "what"),
    [
        ("mspbs", "name: mspbs", "name: MSPBS", "name:", "name", "no tiene la forma esperada"),
        ("mspbs", "kind: rest", "kind: ftp", "kind:", "kind", "file, rest, soap, sql"),
        ("mspbs", "institution: MSPBS", "institution: NADIE", "institution:", "institution", "desconocida"),
        ("mspbs", "budget_s: 5", "budget_s: cinco", "limits:", "limits.budget_s", "number"),
        ("mspbs", "budget_s: 5", "budget_s: 0", "limits:", "limits.budget_s", "exclusiveMinimum"),
        ("mspbs", "budget_s: 5, ", "", "limits:", "limits", "falta budget_s"),
        ("mspbs", "deduplicates", "duplicates", "duplicates:", "duplicates", "este campo no existe"),
        ("mspbs", "secret: mspbs", "password: abc, secret: mspbs", "auth:", "auth.password", "este campo no existe"),
        ("mspbs", "header: X-Api-Key, ", "", "auth:", "auth", "uno de: header, query"),
        ("mspbs", "type: api-key", "type: oauth", "auth:", "auth.type", "sii-session"),
        ("mspbs", "[prenatal-control,", "[cine,", "services: [", "services.0", "servicio desconocido"),
        ("mspbs", "[prenatal-control,", "[abrazo,", "services: [", "services.0", "de otra institución"),
        ("mspbs", "is: taken", "is: not-found", "is: not-found", "send.outcomes.0.is", "no es de este verbo"),
        ("mspbs", "when: numero,", "when: 'numero[',", "'numero['", "send.outcomes.0", "JMESPath"),
        ("mspbs", "[to-dmy]", "[to-ymd]", "to-ymd", "send.body.paciente.fecha_nacimiento.through.0", "to-dmy"),
        ("mspbs", "origen: requester", "origen: 'a..b'", "a..b", "send.body.origen", "JMESPath"),
        ("mspbs", "origen: requester", "servicio: x", "servicio: x", "send.body.servicio", "repetida"),
        ("mspbs", "origen: requester", "no: requester", "no: requester", "send.body.no", "comillas"),
        ("mspbs", "method: POST", "method: [POST", "[POST", "/", "no es YAML"),
        ("mspbs", "/api/derivaciones", "/api?x=1", "/api?x=1", "send.request.path", "no tiene la forma"),
        ("mspbs", "/api/derivaciones", "'/{referral}'", "/{referral}", "send.request.path", "no tiene la forma"),
        ("mspbs", "method: POST", "operation: X, method: POST", "request:", "send.request.operation", "no existe"),
        ("identificaciones", "  identity:", "  nothing:", "    identifier:", "datasets.nothing", "desconocido"),
        ("identificaciones", "institution: PN-IDENT", "institution: MDS", "    identifier:", "datasets.identity", "de"),
        ("identificaciones", "      sex:", "      gender:", "gender:", "datasets.identity.fields.gender", "no tiene"),
        ("identificaciones", "echo: cedula", "echo: name", "echo:", "datasets.identity.echo", "no está entre"),
        ("identificaciones", "is: rejected", "is: taken", "is: taken", "datasets.identity.outcomes.1.is", "este verbo"),
        ("identificaciones", "retry:", "poll: {request: {}, fields: {a: b}}\nretry:", "poll:", "poll", "falta items"),
        ("mds", "ACEPTADA: accept,", "ACEPTADA: taken,", "ACEPTADA", "poll.fields.event.codes.ACEPTADA", "desconocido"),
        ("mds", "through: [strip, date10], required: true", "through: [strip, date10]", "occurred_on:",
         "poll.fields.occurred_on", "required: true"),
        ("mds", "    message_id:", "    mensaje:", "mensaje: {", "poll.fields.mensaje", "no tiene este campo"),
        ("mds", "through: [strip, date-time]", "through: [strip]", "appointment_at:",
         "poll.fields.appointment_at", "debe pasar por uno de: date-dmy, date-time, date10"),
        ("mds", "wsdl: DerivacionesWS", "wsdl: Nada", "wsdl:", "wsdl", "no se puede leer Nada.wsdl"),
        ("mds", "wsdl: DerivacionesWS.wsdl\n", "", "name:", "/", "falta wsdl"),
        ("mds", "wsdl: DerivacionesWS", "wsdl: ../x", "wsdl:", "wsdl", "no tiene la forma esperada"),
        ("mds", "registrarDerivacion}", "registrar}", "registrar}", "send.request.operation", "el WSDL no tiene"),
        ("mds", "    sexo: sex", "    genero: sex", "genero:", "send.body.genero", "no tiene este parámetro"),
        ("mds", "    prioridad: priority\n", "", "idReferencia:", "send.body", "falta el parámetro prioridad"),
        ("minna", "folder: /entrada", "folder: ../entrada", "../entrada", "send.request.folder", "no tiene la forma"),
        ("minna", "encoding: cp1252", "encoding: guess", "encoding: guess", "poll.request.encoding", "utf-8"),
    ],
)  # fmt: skip
def test_a_wrong_manifest_is_refused_with_file_line_and_field(
    folder: Path, name: str, old: str, new: str, blamed: str, field: str, what: str
) -> None:
    lines = change(folder, name, old, new).read_text(encoding="utf-8").splitlines()
    for other in (folder / "manifests").glob("*.yaml"):
        if other.stem != name:
            other.unlink()
    line = next(number for number, text in enumerate(lines, start=1) if blamed in text)
    with pytest.raises(ManifestError) as caught:
        load(folder)
    error = caught.value
    assert (error.file, error.field, error.line) == (f"{name}.yaml", field, line), str(error)
    assert what in error.what
    assert str(error) == f"{name}.yaml:{line}: {field}: {error.what}"


@pytest.mark.parametrize("content", [b"", b"- a\n", b"text", b"\xff\xfe", b"a: [", b"a: *b", b"%YAML 9.9\n---\na: b"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(content)
    with pytest.raises(ManifestError, match=r"^x\.yaml"):
        load_manifest(file)


def test_two_manifests_of_one_name_or_for_one_service_are_refused(folder: Path) -> None:
    copy = folder / "manifests" / "zz.yaml"
    shutil.copy(folder / "manifests" / "mspbs.yaml", copy)
    with pytest.raises(ManifestError) as caught:
        load(folder)
    assert (caught.value.file, caught.value.field, caught.value.line) == ("zz.yaml", "name", 3)
    copy.write_text(copy.read_text(encoding="utf-8").replace("name: mspbs", "name: other"), encoding="utf-8")
    with pytest.raises(ManifestError) as caught:
        load(folder)
    assert (caught.value.file, caught.value.field) == ("zz.yaml", "services")


@pytest.mark.parametrize(
    ("connections", "field"),
    [
        ({"nobody": {"address": "https://a.example"}}, "nobody"),
        ({"mds": "https://a.example"}, "mds"),
        ({"mds": {}}, "mds"),
        ({"mds": {"address": "https://a.example", "verify": "no"}}, "mds.verify"),
        ({"mds": {"address": "https://a.example", "host_key": HOST_KEY}}, "mds"),
        ({"mds": {"address": "sftp://a.example"}}, "mds.address"),
        ({"mds": {"address": "http://ministerio.example.py"}}, "mds.address"),
        ({"mds": {"address": "http://8.8.8.8"}}, "mds.address"),
        ({"mds": {"address": "https://user:pw@a.example"}}, "mds.address"),
        ({"mds": {"address": "https://a.example?key=1"}}, "mds.address"),
        ({"mds": {"address": "https://a.example:99999"}}, "mds.address"),
        ({"mds": {"address": "https://"}}, "mds.address"),
        ({"minna": {"address": "sftp://a.example"}}, "minna"),
        ({"minna": {"address": "sftp://a.example", "host_key": "ssh-ed25519 xyz"}}, "minna.host_key"),
    ],
)
def test_a_wrong_connection_is_refused(folder: Path, connections: dict[str, Any], field: str) -> None:
    for secret in ("mds_password", "minna_password"):
        (folder / "secrets" / secret).write_text("x", encoding="utf-8")
    with pytest.raises(ManifestError) as caught:
        load(folder, connections)
    assert (caught.value.file, caught.value.field) == ("connections.yaml", field)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("content", [None, "", "\n", "two\nlines"])
def test_a_secret_that_is_not_there_is_refused_for_a_connected_manifest_only(folder: Path, content: str | None) -> None:
    if content is not None:
        (folder / "secrets" / "mds_password").write_text(content, encoding="utf-8")
    assert len(list(load(folder))) == len(SHIPPED)
    with pytest.raises(ManifestError) as caught:
        load(folder, {"mds": {"address": "https://a.example"}})
    assert (caught.value.file, caught.value.field, caught.value.line) == ("mds.yaml", "auth.secret", 9)


async def test_adapters_are_found_by_name_dataset_service_and_institution() -> None:
    adapters = load_adapters([MANIFESTS], None, None)
    assert [adapter.name for adapter in adapters] == sorted(file.stem for file in SHIPPED)
    assert [adapter.name for adapter in adapters.holding("identity")] == [
        "identificaciones",
        "identificaciones-soap",
        "sfp-persona",
    ]
    assert [adapter.name for adapter in adapters.holding("birth-entry")] == ["identificaciones-soap"]
    assert adapters.holding("nothing") == ()
    serving = adapters.serving("tekopora")
    assert serving is not None
    assert serving.name == "mds"
    assert adapters.serving("school-enrolment") is None
    assert [adapter.name for adapter in adapters.polling()] == ["mds", "minna"]
    assert adapters.named("minna").deduplicates
    with pytest.raises(UnknownAdapter):
        adapters.named("nobody")
    await adapters.close()


async def test_a_manifest_without_connection_is_listed_and_unavailable(tmp_path: Path) -> None:
    adapters = load_adapters([MANIFESTS], tmp_path / "none.yaml", None)
    mds, people = adapters.named("mds"), adapters.named("identificaciones")
    assert not mds.connected
    assert isinstance(mds.health, Health)
    assert (mds.health.ok, mds.health.reason) == (False, "not connected")
    outcomes = [
        await mds.send(permit("referral.send", "MDS", "service:tekopora"), referral("tekopora")),
        await mds.poll(permit("reply.poll", "MDS", "replies"), None),
        await people.fetch(permit("disclosure.fetch", "PN-IDENT", "identity"), "identity", CEDULA),
    ]
    for outcome in outcomes:
        assert isinstance(outcome, Unavailable)
        assert (outcome.reason, outcome.effect_unknown) == ("not connected", False)
        assert (outcome.provenance.attempts, outcome.provenance.raw_sha256) == (0, None)


@pytest.mark.parametrize("connected", [False, True])
async def test_a_permit_for_something_else_is_a_fault_of_the_caller(folder: Path, connected: bool) -> None:
    address = {"address": "http://127.0.0.1:1"}
    for secret in ("mds_password", "identificaciones_password"):
        (folder / "secrets" / secret).write_text("x", encoding="utf-8")
    adapters = load(folder, {"mds": address, "identificaciones": address} if connected else {})
    mds, people = adapters.named("mds"), adapters.named("identificaciones")
    for action, holder, dataset in (
        ("referral.send", "PN-IDENT", "identity"),
        ("disclosure.fetch", "MDS", "identity"),
        ("disclosure.fetch", "PN-IDENT", "birth-entry"),
    ):
        with pytest.raises(PermitMismatch):
            await people.fetch(permit(action, holder, dataset), "identity", CEDULA)
    with pytest.raises(PermitMismatch):
        await mds.send(permit("referral.send", "MDS", "service:universal-pension"), referral("tekopora"))
    with pytest.raises(PermitMismatch):
        await mds.poll(permit("referral.send", "MDS", "replies"), None)
    await adapters.close()


async def test_a_verb_an_adapter_does_not_have_is_rejected_as_unsupported(folder: Path) -> None:
    for secret in ("mspbs_api_key", "identificaciones_password"):
        (folder / "secrets" / secret).write_text("x", encoding="utf-8")
    address = {"address": "http://127.0.0.1:1"}
    adapters = load(folder, {"mspbs": address, "identificaciones": address})
    mspbs, people = adapters.named("mspbs"), adapters.named("identificaciones")
    outcomes = [
        await mspbs.fetch(permit("disclosure.fetch", "MSPBS", "identity"), "identity", CEDULA),
        await mspbs.poll(permit("reply.poll", "MSPBS", "replies"), None),
        await mspbs.send(permit("referral.send", "MSPBS", "service:abrazo"), referral("abrazo")),
        await people.send(permit("referral.send", "PN-IDENT", "service:abrazo"), referral("abrazo")),
    ]
    for outcome in outcomes:
        assert isinstance(outcome, Rejected)
        assert outcome.code == "unsupported"
    await adapters.close()
