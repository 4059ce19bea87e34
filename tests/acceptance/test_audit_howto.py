"""The page for auditors does what it says: its commands run in its order, from a receipt to a bundle, offline."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

import audit.verify
from audit.models import ProblemKind
from gateway.cli.app import app
from tests.acceptance.bad_input import REFERRALS, adults, referring
from tests.acceptance.command_line import Siis, run
from tests.house import House, until

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-to" / "audit.md").read_text(encoding="utf-8")
COMMANDS = [
    line.strip()
    for block in re.findall(r"^ *```sh\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
FILES = (".txt", ".json", ".csv", ".zip")


@pytest.fixture(scope="module")
def siis(tmp_path_factory: pytest.TempPathFactory, house: House) -> Iterator[Siis]:
    made = Siis(tmp_path_factory.mktemp("siis"), "es", house.settings.data_dir)
    yield made
    made.end()


def test_the_page_has_commands_of_the_gateway_of_the_laptop_and_of_the_browser() -> None:
    assert {shlex.split(command)[0] for command in COMMANDS} == {"siis", "python", "curl"}


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.startswith("siis ")])
def test_every_command_of_the_gateway_is_one_of_the_program(command: str) -> None:
    words = shlex.split(command)[1:]
    group = words[: next((place for place, word in enumerate(words) if word.startswith("-") or word.isupper()), None)]
    answer = CliRunner().invoke(app, [*group, "--help"], env={"COLUMNS": "200"})
    assert answer.exit_code == 0, answer.output
    assert all(word in answer.output for word in words if word.startswith("--"))


def test_it_names_every_kind_of_what_does_not_hold() -> None:
    named = re.findall(r"^\| `([a-z_]+)` \|", PAGE.split("## Qué quiere decir")[1].split("## Cuando")[0], re.MULTILINE)
    assert set(named) == {*get_args(ProblemKind), "malformed"}


@pytest.mark.asyncio(loop_scope="session")
async def test_the_commands_lead_from_a_receipt_to_a_verified_bundle(house: House, siis: Siis, tmp_path: Path) -> None:
    shutil.copy(audit.verify.__file__, tmp_path / "verify.py")
    utgs = house.callers["demo-utgs"]
    answer = await utgs.post(REFERRALS, referring(adults(house)[82], "health-control"), key="a-receipt")
    assert answer.status_code == 201, answer.text
    created = answer.json()
    await asyncio.to_thread((tmp_path / "recibo.json").write_text, answer.text, encoding="utf-8")
    words = {
        "PASARELA": house.issuer.url,
        "AÑO": str(datetime.now(UTC).year),
        "ENTRADA": created["receipt"]["entry_id"],
        "HASH": created["receipt"]["leaf_hash"],
        "REFERENCIA": created["id"],
    }
    for command in COMMANDS:
        filled = re.sub("|".join(words), lambda found: words[found[0]], command)
        program, *arguments = shlex.split(filled)
        if program == "siis":
            # Files lie in one folder here: what one machine writes was handed over to the other.
            ended = await run(siis, *(tmp_path / each if each.endswith(FILES) else each for each in arguments))
            assert ended.code == 0, f"{command}: {ended.err}"
            assert "verify-" not in command or ended.out.startswith("VÁLIDO")
        elif program == "curl":
            await fetched(house, arguments, tmp_path)
        else:
            assert arguments[0] == "verify.py"
            out = offline(arguments, tmp_path)
            assert out.startswith("VÁLIDO"), f"{command}: {out}"


@pytest.mark.asyncio(loop_scope="session")
async def test_no_proof_is_written_where_there_can_be_none(house: House, siis: Siis, tmp_path: Path) -> None:
    year = datetime.now(UTC).year
    await fetched(house, ["-fsS", f"{house.issuer.url}/audit/log/{year}/checkpoint", "-o", "a.txt"], tmp_path)
    note, other = tmp_path / "a.txt", tmp_path / "b.txt"
    size = int(note.read_text().splitlines()[1])
    made = tmp_path / "c.txt"
    for changes, kind in (
        ({f"\n{size}\n": f"\n{size + 10**6}\n"}, "foreign"),
        ({f"/{year}\n": f"/{year - 20}\n"}, "foreign"),
        ({f"\n{size}\n": "\n1\n"}, "not_a_prefix"),
        ({"\n\n": "\n"}, "malformed"),
    ):
        text = note.read_text()
        for before, after in changes.items():
            text = text.replace(before, after, 1)
        other.write_text(text)
        ended = await run(siis, "audit", "consistency", note, other, "--out", made)
        assert (ended.code, made.exists()) == (1, False), kind
        assert f"NO VÁLIDO ({kind})" in ended.err
    missing = await run(siis, "audit", "consistency", note, tmp_path / "none.txt", "--out", made)
    assert missing.code == 2


async def fetched(house: House, arguments: list[str], folder: Path) -> None:
    """Do what ``curl -fsS ADDRESS -o FILE`` does, once the answer is there."""
    flags, address, out, file = arguments
    assert (flags, out) == ("-fsS", "-o")
    contents: list[bytes] = []

    async def there() -> bool:
        answer = await house.http.get(address)
        contents.append(answer.content)
        return answer.status_code == 200

    await until(there)
    await asyncio.to_thread((folder / file).write_bytes, contents[-1])


_WITHOUT_SOCKETS = """
import runpy, socket, sys
socket.socket = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def offline(arguments: list[str], folder: Path) -> str:
    """Run the verifier in a process that can open no socket."""
    command = [sys.executable, "-c", _WITHOUT_SOCKETS, *arguments]
    clean = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
