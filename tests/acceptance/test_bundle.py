"""The bundle of a referral that went round: made by the command, verified by a bare Python, and held to every byte."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import cffi
import cryptography
import pytest
import pytest_asyncio

from adapters.simulator.population import SimPerson
from audit.terms import term
from audit.verify import NotValid, check_bundle
from schemas.ids import uuid7
from tests.acceptance.bad_input import adults, entries, referring
from tests.acceptance.command_line import Ended, Siis, run
from tests.house import House, until

on_the_loop = pytest.mark.asyncio(loop_scope="session")

CONTENTS = {
    "LEEME.txt",
    "checkpoint.txt",
    "entradas.jsonl",
    "entradas.jsonl.proof",
    "historia.html",
    "policy.txt",
    "verify.py",
}


@dataclass(frozen=True, slots=True)
class Made:
    """A referral that was closed, and the bundle that was made of it."""

    referral: str
    person: SimPerson
    file: Path
    since: UUID


@pytest.fixture(scope="module")
def siis(tmp_path_factory: pytest.TempPathFactory, house: House) -> Iterator[Siis]:
    """The command line beside the running house."""
    made = Siis(tmp_path_factory.mktemp("siis"), "es", house.settings.data_dir)
    yield made
    made.end()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def made(house: House, siis: Siis, tmp_path_factory: pytest.TempPathFactory) -> Made:
    person, since = adults(house)[80], uuid7()
    referral = await closed(house, person)
    file = tmp_path_factory.mktemp("bundle") / "expediente.zip"
    ended = await run(siis, "audit", "bundle", referral, "--out", file)
    assert ended.code == 0, ended.err
    return Made(referral, person, file, since)


async def closed(house: House, person: SimPerson) -> str:
    """Send a referral and wait until its recipient has answered it."""
    utgs = house.callers["demo-utgs"]
    answer = await utgs.post("/api/v1/referrals", referring(person, "health-control"), key=str(uuid7()))
    assert answer.status_code == 201, answer.text
    path = f"{house.issuer.url}/api/v1/referrals/{answer.json()['id']}"

    async def answered() -> bool:
        found = await house.http.get(path, headers={"Authorization": f"Bearer {utgs.token}"})
        return found.json()["state"] in ("completed", "rejected")

    await until(answered)
    return str(answer.json()["id"])


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ended]:
    """A Python that has its standard library and ``cryptography``, and nothing else."""
    packages = tmp_path_factory.mktemp("packages")
    site = Path(cryptography.__file__).parent.parent
    for name in ("cryptography", "cffi"):
        (packages / name).symlink_to(site / name)
    for library in Path(cffi.__file__).parent.parent.glob("_cffi_backend*"):
        (packages / library.name).symlink_to(library)
    environment = {"PYTHONPATH": str(packages), "PATH": os.environ["PATH"]}

    def ran(*arguments: str | Path, folder: Path) -> Ended:
        command = [sys.executable, "-S", *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        return Ended(done.returncode, done.stdout, done.stderr)

    return ran


@pytest.fixture(scope="module")
def unpacked(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laptop")
    with zipfile.ZipFile(made.file) as archive:
        archive.extractall(folder)
    return folder


def test_the_bundle_verifies_in_a_python_with_only_cryptography(
    made: Made, unpacked: Path, bare: Callable[..., Ended]
) -> None:
    program = "import cryptography, importlib.util as u; print([n for n in ('audit', 'sqlalchemy') if u.find_spec(n)])"
    assert bare("-c", program, folder=unpacked).out.strip() == "[]"
    ended = bare("verify.py", "bundle", made.file, folder=unpacked)
    assert ended.code == 0, ended.out + ended.err
    assert ended.out.startswith("VÁLIDO entradas.jsonl")
    kept = bare("verify.py", "bundle", made.file, "--policy", "policy.txt", folder=unpacked)
    assert (kept.code, "--policy" in kept.out) == (0, False)


def told_in(folder: Path) -> list[dict[str, Any]]:
    """The entries of a bundle."""
    return [json.loads(line) for line in (folder / "entradas.jsonl").read_text(encoding="utf-8").splitlines()]


def test_nothing_is_in_it_that_is_not_proven(made: Made, unpacked: Path) -> None:
    assert {path.name for path in unpacked.iterdir()} == CONTENTS
    _reports, others = check_bundle(made.file)
    assert others == []


@on_the_loop
async def test_it_holds_every_entry_of_the_referral_from_birth_to_closure(
    house: House, made: Made, unpacked: Path
) -> None:
    told = told_in(unpacked)
    places = [(each["log"], each["index"]) for each in told]
    assert places == sorted(places)
    types = {each["envelope"]["type"] for each in told}
    assert {"referral.created", "referral.sending", "referral.transmitted", "counterreferral.received"} <= types
    async with house.context() as context, context.database.connection() as connection:
        query = "SELECT id::text, type FROM audit.entry WHERE terms @> ARRAY[%s] ORDER BY id"
        there = (await connection.exec_driver_sql(query, (term("referral", made.referral),))).all()
    # Whoever asked how it stands read it while it was being made ready, and the bundling itself came after.
    before = {row.id for row in there if row.type != "log.bundled"}
    assert {each["envelope"]["id"] for each in told} <= before
    assert {row.id for row in there if row.type not in ("log.bundled", "referral.read")} <= {
        each["envelope"]["id"] for each in told
    }


def test_the_page_tells_what_the_entries_say_and_names_nobody(made: Made, unpacked: Path) -> None:
    page = (unpacked / "historia.html").read_text(encoding="utf-8")
    for told in told_in(unpacked):
        assert told["leaf_hash"] in page
        assert f"Entrada {told['index']}/{told['log']}" in page
    assert "Unidad Técnica del Gabinete Social (UTGS)" in page
    assert "Ministerio de Salud Pública y Bienestar Social (MSPBS)" in page
    person = made.person
    for path in unpacked.iterdir():
        text = path.read_text(encoding="utf-8")
        for personal in (str(person.cedula), person.given_names, person.surnames):
            assert not re.search(rf"\b{re.escape(personal)}\b", text), path.name


@on_the_loop
async def test_the_making_is_an_entry_about_the_person_and_part_of_the_next_bundle(
    house: House, siis: Siis, made: Made, tmp_path: Path
) -> None:
    [first] = await entries(house, "log.bundled", made.since)
    assert first["what"]["referral"] == made.referral
    assert set(first["what"]["files"]) >= CONTENTS - {"entradas.jsonl", "entradas.jsonl.proof"}
    assert first["actor"]["channel"] == "command-line"
    assert first["subject"]
    again = tmp_path / "otro.zip"
    assert (await run(siis, "audit", "bundle", made.referral, "--out", again)).code == 0
    with zipfile.ZipFile(again) as archive:
        assert first["id"] in archive.read("entradas.jsonl").decode()


def rewritten(made: Made, folder: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The same ZIP with other contents, its own checksums right."""
    with zipfile.ZipFile(made.file) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    target = folder / "cambiado.zip"
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target


def flipped(content: bytes, at: float) -> bytes:
    """The same bytes with one letter changed into another."""
    places = [place for place in range(int(len(content) * at), len(content)) if chr(content[place]).isalpha()]
    return content[: places[0]] + bytes([content[places[0]] ^ 1]) + content[places[0] + 1 :]


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("entradas.jsonl", {"changed"}),
        ("entradas.jsonl.proof", {"changed", "malformed", "signature", "foreign", "missing"}),
        ("historia.html", {"changed"}),
        ("LEEME.txt", {"changed"}),
        ("policy.txt", {"changed"}),
        ("verify.py", {"changed"}),
        ("checkpoint.txt", {"changed"}),
    ],
)
def test_a_byte_changed_in_any_file_is_found(made: Made, tmp_path: Path, name: str, kinds: set[str], at: float) -> None:
    def change(files: dict[str, bytes]) -> None:
        files[name] = flipped(files[name], at)

    with pytest.raises(NotValid) as refused:
        check_bundle(rewritten(made, tmp_path, change))
    assert refused.value.kind in kinds
    assert refused.value.file == (name.removesuffix(".proof") if name.endswith(".proof") else name)


LINES = "entradas.jsonl"


def lines_of(files: dict[str, bytes]) -> list[bytes]:
    return files[LINES].splitlines(keepends=True)


def drop(files: dict[str, bytes]) -> None:
    files[LINES] = b"".join(lines_of(files)[:1] + lines_of(files)[2:])


def swap(files: dict[str, bytes]) -> None:
    first, second, *rest = lines_of(files)
    files[LINES] = b"".join([second, first, *rest])


def repeat(files: dict[str, bytes]) -> None:
    files[LINES] = b"".join([lines_of(files)[0], *lines_of(files)])


def add(files: dict[str, bytes]) -> None:
    files[LINES] += b'{"detail":{}}\n'


def remove_the_page(files: dict[str, bytes]) -> None:
    del files["historia.html"]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (drop, "missing"),
        (swap, "reordered"),
        (repeat, "duplicated"),
        (add, "foreign"),
        (remove_the_page, "missing"),
    ],
)
def test_what_was_done_to_the_bundle_is_named(
    made: Made, tmp_path: Path, change: Callable[[dict[str, bytes]], None], kind: str
) -> None:
    with pytest.raises(NotValid) as refused:
        check_bundle(rewritten(made, tmp_path, change))
    assert refused.value.kind == kind


def test_a_file_slipped_in_is_named_as_one_that_nothing_proves(made: Made, tmp_path: Path) -> None:
    def slip_in(files: dict[str, bytes]) -> None:
        files["nota.txt"] = b"Todo estuvo bien."

    _reports, others = check_bundle(rewritten(made, tmp_path, slip_in))
    assert others == ["nota.txt"]


def test_the_bare_python_says_no_with_exit_code_1(
    made: Made, unpacked: Path, tmp_path: Path, bare: Callable[..., Ended]
) -> None:
    target = rewritten(made, tmp_path, drop)
    ended = bare("verify.py", "bundle", target, folder=unpacked)
    assert ended.code == 1
    assert ended.out.startswith("NO VÁLIDO missing")
    cut = tmp_path / "cortado.zip"
    cut.write_bytes(made.file.read_bytes()[:2000])
    ended = bare("verify.py", "bundle", cut, folder=unpacked)
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.startswith("NO VÁLIDO malformed")


def test_keys_that_come_another_way_decide_and_not_those_in_the_bundle(
    made: Made, unpacked: Path, tmp_path: Path, bare: Callable[..., Ended]
) -> None:
    other = tmp_path / "claves.txt"
    other.write_text("log example.com/otro+29fa54fe+AepOWBC8Y7KVQJzgfmcGEXPYUqARXBhUqPSUMV7U4SlI\nquorum none\n")
    ended = bare("verify.py", "bundle", made.file, "--policy", other, folder=unpacked)
    assert ended.code == 1, ended.out + ended.err
    assert ended.out.startswith("NO VÁLIDO")


@on_the_loop
@pytest.mark.parametrize(
    ("number", "code", "text"),
    [
        ("019a0000-0000-7000-8000-000000000000", 1, "ninguna entrada de una referencia"),
        ("nada", 2, "UUID"),
    ],
)
async def test_a_referral_that_the_log_does_not_know_is_refused_in_words(
    siis: Siis, tmp_path: Path, number: str, code: int, text: str
) -> None:
    target = tmp_path / "nada.zip"
    ended = await run(siis, "audit", "bundle", number, "--out", target)
    assert ended.code == code
    assert text in ended.err
    assert "Traceback" not in ended.err
    assert not target.exists()


@on_the_loop
async def test_an_existing_file_is_never_written_over(siis: Siis, made: Made, tmp_path: Path) -> None:
    target = tmp_path / "mio.zip"
    target.write_bytes(b"mine")
    ended = await run(siis, "audit", "bundle", made.referral, "--out", target)
    assert (ended.code, target.read_bytes()) == (2, b"mine")


@on_the_loop
async def test_a_referral_whose_details_were_erased_still_has_its_bundle(
    house: House, siis: Siis, tmp_path: Path, bare: Callable[..., Ended]
) -> None:
    person, target = adults(house)[81], tmp_path / "borrado.zip"
    referral = await closed(house, person)
    order = ("--norm", "Constitución Nacional, art. 135", "--ordered-by", "Juez de prueba", "--order", "AI 8/2026")
    erased = await run(siis, "erasure", "order", str(person.cedula), *order, "--ground", "court-order", "--yes")
    assert erased.code == 0, erased.err
    ended = await run(siis, "audit", "bundle", referral, "--out", target)
    assert ended.code == 0, ended.err
    with zipfile.ZipFile(io.BytesIO(target.read_bytes())) as archive:
        archive.extractall(tmp_path)
    page = (tmp_path / "historia.html").read_text(encoding="utf-8")
    assert re.search(r"Los detalles de \d+ de \d+ entradas fueron borrados", page)
    assert "Unidad Técnica" not in page
    assert bare("verify.py", "bundle", target, folder=tmp_path).code == 0
