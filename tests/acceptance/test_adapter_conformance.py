"""The commands that check manifests and hold them to the cases; and a package that offers a kind of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from lxml import etree

from tests.acceptance.command_line import Siis, clean

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-to" / "own-kind.md").read_text(encoding="utf-8")
SHIPPED = ROOT / "adapters" / "manifests"


def block(language: str, place: int = 0) -> str:
    """Return a code block of the page."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[place]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page shows: a package in a folder as an installer leaves it, and its manifest with examples."""
    folder = tmp_path_factory.mktemp("own-kind")
    project = tomllib.loads(block("toml"))["project"]
    name, version = project["name"].replace("-", "_"), project["version"]
    (folder / "site").mkdir()
    (folder / "site" / "siis_lineas.py").write_text(block("python"), encoding="utf-8")
    about = folder / "site" / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    [(group, points)] = project["entry-points"].items()
    lines = [f"[{group}]", *(f"{kind} = {place}" for kind, place in points.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "manifests" / "cases").mkdir(parents=True)
    (folder / "manifests" / "registro-lineas.yaml").write_text(block("yaml"), encoding="utf-8")
    (folder / "manifests" / "cases" / "registro-lineas.yaml").write_text(block("yaml", 1), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def siis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siis]:
    """The command line without any package of others."""
    command_line = Siis(tmp_path_factory.mktemp("siis"), "es", None)
    yield command_line
    command_line.end()


def with_package(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command where the package is installed, as a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "gateway.cli", "adapter", *arguments],
        env={**clean(), "PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_kind_of_an_installed_package_is_checked_and_held_to_the_cases(installed: Path, tmp_path: Path) -> None:
    site, manifests, junit = installed / "site", installed / "manifests", tmp_path / "junit.xml"
    checked = with_package(site, "check", str(manifests / "registro-lineas.yaml"))
    assert (checked.returncode, checked.stdout) == (0, f"{manifests}/registro-lineas.yaml: OK\n")
    run = with_package(site, "conformance", "registro-lineas", "--manifests", str(manifests), "--junit", str(junit))
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    assert run.stdout.startswith("✓ registro-lineas  lineas  PN-IDENT\n")
    [suite] = etree.parse(junit).getroot()
    assert int(suite.get("tests", "0")) > 30
    assert (suite.get("failures"), suite.get("errors")) == ("0", "0")


def test_without_its_package_the_kind_is_unknown(installed: Path, siis: Siis) -> None:
    file = installed / "manifests" / "registro-lineas.yaml"
    told = "registro-lineas.yaml:3: kind: no hay este tipo; los hay: file, rest, soap, sql"
    for arguments in (["check", file], ["conformance", "--manifests", file.parent]):
        run = siis("adapter", *arguments)
        assert run.code == 2
        assert told in run.out + run.err
        assert "Traceback" not in run.err


def test_what_fails_is_told_with_exit_code_1(installed: Path, tmp_path: Path) -> None:
    text = block("yaml").replace("name: registro-lineas", "name: registro-flojo").replace(", required: true", "")
    cases = tmp_path / "cases"
    cases.mkdir()
    (tmp_path / "registro-flojo.yaml").write_text(text, encoding="utf-8")
    (cases / "registro-flojo.yaml").write_text(block("yaml", 1), encoding="utf-8")
    run = with_package(installed / "site", "conformance", "registro-flojo", "--manifests", str(tmp_path), "--json")
    assert (run.returncode, run.stderr) == (1, "")
    [report] = json.loads(run.stdout)
    failed = [(case["case"], case["why"]) for case in report["cases"] if case["outcome"] == "failed"]
    assert failed == [("malformed: without a name", "Found; se esperaba Malformed")]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["conformance", "nadie"], "No hay un adaptador con ese nombre: nadie"),
        (["conformance", "--manifests", "no-hay-carpeta"], "no-hay-carpeta"),
        (["check", "no-hay.yaml"], "no-hay.yaml: /: no se puede leer"),
        (["check"], "FILE"),
    ],
)
def test_what_cannot_be_used_is_refused_with_exit_code_2(siis: Siis, arguments: list[str], told: str) -> None:
    run = siis("adapter", *arguments)
    assert run.code == 2
    assert told in run.out + run.err
    assert "Traceback" not in run.err


def test_every_shipped_manifest_passes_the_check(siis: Siis) -> None:
    files = sorted(SHIPPED.glob("*.yaml"))
    run = siis("adapter", "check", *files)
    assert (run.code, run.err) == (0, "")
    assert run.out == "".join(f"{file}: OK\n" for file in files)
