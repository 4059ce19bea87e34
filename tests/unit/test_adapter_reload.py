"""Adapters read again while in use: what changed is replaced, what did not stays, what is wrong changes nothing."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from adapter_examples import CEDULA, MANIFESTS, http, permit, read_request, server

from adapters import registry
from adapters.errors import ManifestError
from adapters.models import Found, NotFound, Unavailable
from adapters.registry import Adapters, load_adapters
from adapters.registry import connect as make

NAMES = ("identificaciones-soap", "mspbs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("manifests", "secrets"):
        (tmp_path / name).mkdir()
    (tmp_path / "manifests" / "wsdl").symlink_to(MANIFESTS / "wsdl")
    for name in NAMES:
        (tmp_path / "manifests" / f"{name}.yaml").write_bytes((MANIFESTS / f"{name}.yaml").read_bytes())
    for name in ("identificaciones_password", "mspbs_api_key"):
        (tmp_path / "secrets" / name).write_text("x", encoding="utf-8")
    return tmp_path


def connect(folder: Path, address: str = "http://127.0.0.1:1") -> None:
    connections = {name: {"address": address} for name in NAMES}
    (folder / "connections.yaml").write_text(json.dumps(connections), encoding="utf-8")


def load(folder: Path) -> Adapters:
    return load_adapters([folder / "manifests"], folder / "connections.yaml", folder / "secrets")


async def test_what_did_not_change_stays_as_it_is(folder: Path) -> None:
    connect(folder)
    adapters = load(folder)
    before = [adapters.named(name) for name in NAMES]
    assert not adapters.refresh()
    manifest = folder / "manifests" / "mspbs.yaml"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("budget_s: 5", "budget_s: 6"), encoding="utf-8")
    assert adapters.refresh()
    assert [adapters.named(name) is old for name, old in zip(NAMES, before, strict=True)] == [True, False]
    assert adapters.serving("vaccination") is adapters.named("mspbs")
    await adapters.close()


@pytest.mark.parametrize("changed", ["secrets/mspbs_api_key", "connections.yaml"])
async def test_a_new_secret_or_address_makes_a_new_adapter(folder: Path, changed: str) -> None:
    connect(folder)
    adapters = load(folder)
    before = adapters.named("mspbs")
    file = folder / changed
    file.write_text(file.read_text(encoding="utf-8").replace("127.0.0.1:1", "127.0.0.1:2") + " ", encoding="utf-8")
    (folder / "secrets" / "mspbs_api_key").write_text("another" if "secrets" in changed else "x", encoding="utf-8")
    assert adapters.refresh()
    assert adapters.named("mspbs") is not before
    await adapters.close()


async def test_a_manifest_that_comes_is_taken_in_and_one_that_goes_is_let_go(folder: Path) -> None:
    adapters = load(folder)
    assert [adapter.connected for adapter in adapters] == [False, False]
    connect(folder)
    assert adapters.refresh()
    assert [adapter.connected for adapter in adapters] == [True, True]
    (folder / "connections.yaml").unlink()
    (folder / "manifests" / "mspbs.yaml").unlink()
    assert adapters.refresh()
    assert [adapter.name for adapter in adapters] == ["identificaciones-soap"]
    assert adapters.serving("vaccination") is None
    await adapters.close()


async def test_what_is_wrong_is_named_once_and_what_was_there_goes_on(folder: Path) -> None:
    connect(folder)
    adapters = load(folder)
    before = adapters.named("mspbs")
    (folder / "manifests" / "mspbs.yaml").write_text("name: x\n", encoding="utf-8")
    with pytest.raises(ManifestError, match="mspbs"):
        adapters.refresh()
    assert adapters.named("mspbs") is before
    assert not adapters.refresh()
    await adapters.close()


async def test_a_call_under_way_is_answered_by_the_adapter_it_began_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_GRACE_S", 0.0)
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked.set()
        await go_on.wait()
        envelope = (
            b'<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><p:findPersonaByCedulaResponse '
            b'xmlns:p="http://identificaciones.ws.sii.senatics.gov.py/"><return><error>Persona no encontrada.</error>'
            b"</return></p:findPersonaByCedulaResponse></e:Body></e:Envelope>"
        )
        writer.write(http(200, envelope, "text/xml; charset=utf-8"))
        await writer.drain()

    async with server(slow) as address:
        connect(folder, address)
        adapters = load(folder)
        given = permit("disclosure.fetch", "PN-IDENT", "identity")
        calling = asyncio.create_task(adapters.named(NAMES[0]).fetch(given, "identity", CEDULA))
        await asked.wait()
        connect(folder)
        assert adapters.refresh()
        assert isinstance(await adapters.named(NAMES[0]).fetch(given, "identity", CEDULA), Unavailable)
        go_on.set()
        outcome = await calling
        assert isinstance(outcome, NotFound | Found), outcome
        await adapters.close()


async def test_adapters_that_were_replaced_are_closed_with_the_others(folder: Path) -> None:
    connect(folder)
    adapters = load(folder)
    before = [adapters.named(name) for name in NAMES]
    connect(folder, "http://127.0.0.1:2")
    assert adapters.refresh()
    await adapters.close()
    assert [adapter._client.is_closed for adapter in before] == [True, True]  # type: ignore[attr-defined]


async def test_what_was_made_before_something_wrong_was_found_is_closed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    def noting(*arguments: Any) -> Any:
        made.append(make(*arguments))
        return made[-1]

    connect(folder)
    adapters = load(folder)
    monkeypatch.setattr(registry, "connect", noting)
    connect(folder, "http://127.0.0.1:2")
    (folder / "secrets" / "mspbs_api_key").write_text("ñ", encoding="utf-8")
    with pytest.raises(ManifestError):
        adapters.refresh()
    await adapters.close()
    assert [adapter.name for adapter in made] == ["identificaciones-soap"]
    assert made[0]._client.is_closed


async def test_a_folder_among_the_descriptions_or_an_unreadable_file_does_not_end_the_watch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wsdl = folder / "manifests" / "wsdl"
    wsdl.unlink()
    shutil.copytree(MANIFESTS / "wsdl", wsdl)
    (wsdl / "antes").mkdir()
    connect(folder)
    adapters = load(folder)
    stop, asked = asyncio.Event(), []

    def unreadable() -> bool:
        asked.append(1)
        if len(asked) == 2:
            stop.set()
        raise PermissionError(13, "no")

    monkeypatch.setattr(adapters, "refresh", unreadable)
    async with asyncio.timeout(10):
        await adapters.run(stop, 0.001)
    assert len(asked) == 2
    await adapters.close()


async def test_an_adapter_that_is_gone_is_gone_from_the_metrics(folder: Path) -> None:
    connect(folder)
    adapters = load(folder)
    given = permit("disclosure.fetch", "PN-IDENT", "identity")
    await adapters.named(NAMES[0]).fetch(given, "identity", CEDULA)
    read, labels = prometheus_client.REGISTRY.get_sample_value, {"adapter": NAMES[0]}
    assert read("siis_producer_up", labels) == 0
    (folder / "connections.yaml").unlink()
    (folder / "manifests" / f"{NAMES[0]}.yaml").unlink()
    assert adapters.refresh()
    await adapters.close()
    assert read("siis_producer_up", labels) is None
    assert read("siis_producer_since_seconds", labels) is None
