"""The commands that check manifests and hold them to the cases, as processes; and a package that offers its own kind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from lxml import etree

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


def siis(*arguments: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(item) for item in (ROOT, site) if item is not None)
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "gateway.cli", "adapter", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_kind_of_an_installed_package_is_checked_and_held_to_the_cases(installed: Path, tmp_path: Path) -> None:
    manifests, junit = installed / "manifests", tmp_path / "junit.xml"
    checked = siis("check", str(manifests / "registro-lineas.yaml"), site=installed / "site")
    assert (checked.returncode, checked.stdout) == (0, f"{manifests}/registro-lineas.yaml: OK\n")
    run = siis(
        "conformance", "registro-lineas", "--manifests", str(manifests), "--junit", str(junit), site=installed / "site"
    )
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    assert run.stdout.startswith("✓ registro-lineas  lineas  PN-IDENT\n")
    [suite] = etree.parse(junit).getroot()
    assert int(suite.get("tests", "0")) > 30
    assert (suite.get("failures"), suite.get("errors")) == ("0", "0")


def test_without_its_package_the_kind_is_unknown(installed: Path) -> None:
    file = installed / "manifests" / "registro-lineas.yaml"
    for arguments in (["check", str(file)], ["conformance", "--manifests", str(file.parent)]):
        run = siis(*arguments)
        assert run.returncode == 2
        assert (
            "registro-lineas.yaml:3: kind: no hay este tipo; los hay: file, rest, soap, sql" in run.stdout + run.stderr
        )
        assert "Traceback" not in run.stderr


def test_what_fails_is_told_to_persons_and_programs_with_exit_code_1(installed: Path, tmp_path: Path) -> None:
    text = block("yaml").replace("name: registro-lineas", "name: registro-flojo").replace(", required: true", "")
    cases = tmp_path / "cases"
    cases.mkdir()
    (tmp_path / "registro-flojo.yaml").write_text(text, encoding="utf-8")
    (cases / "registro-flojo.yaml").write_text(block("yaml", 1), encoding="utf-8")
    arguments = ["conformance", "registro-flojo", "--manifests", str(tmp_path)]
    run = siis(*arguments, site=installed / "site")
    assert run.returncode == 1
    assert "✗ fetch identity · malformed: without a name: Found; se esperaba Malformed" in run.stdout
    run = siis(*arguments, "--json", site=installed / "site")
    assert run.returncode == 1
    [report] = json.loads(run.stdout)
    failed = [case["case"] for case in report["cases"] if case["outcome"] == "failed"]
    assert not report["conforms"]
    assert failed == ["malformed: without a name"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["conformance", "nadie"], "No hay un adaptador con ese nombre: nadie"),
        (["conformance", "--manifests", "no-hay-carpeta"], "no-hay-carpeta"),
        (["check", "no-hay.yaml"], "no-hay.yaml: /: no se puede leer"),
        (["check"], "FILE"),
    ],
)
def test_what_cannot_be_used_is_refused_with_exit_code_2(arguments: list[str], told: str) -> None:
    run = siis(*arguments)
    assert run.returncode == 2
    assert told in run.stdout + run.stderr
    assert "Traceback" not in run.stderr


def test_every_shipped_manifest_passes_the_check() -> None:
    files = sorted(str(file) for file in SHIPPED.glob("*.yaml"))
    run = siis("check", *files)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == "".join(f"{file}: OK\n" for file in files)
