"""What the commands say of witnesses and of the log's keys, and what an unusable file does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from governed import migrated
from typer.testing import CliRunner

from audit.verify import parse_key
from gateway.cli import audit_witnesses
from gateway.cli.mistakes import told
from gateway.clock import utc_now
from tests.witnessing import a_witness, vkey_of


@pytest.fixture
def run(folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    folder = folders("commands")
    monkeypatch.setenv("SIIS_DATA_DIR", str(folder))
    runner = CliRunner()

    def call(*words: str) -> tuple[int, str]:
        with migrated(folder):
            done = runner.invoke(audit_witnesses.app, list(words))
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            found = told(done.exception)  # type: ignore[arg-type]
            assert found is not None, done.exception
            return found[1], "\n".join(found[0])
        return done.exit_code, done.stdout

    return call


def test_the_commands_say_who_answers_and_which_keys_witnesses_need(
    run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run("witnesses", "--json") == (
        0,
        '{"state": "none", "met_at": null, "missing_since": null, "witnesses": []}\n',
    )
    code, out = run("log-keys", "--until", str(utc_now().year + 2))
    keys = [parse_key(line) for line in out.splitlines()]
    assert (code, [key.name for key in keys]) == (0, [f"siis.gov.py/audit/{utc_now().year + n}" for n in range(3)])
    assert len({key.key for key in keys}) == 3
    file = tmp_path / "witnesses.txt"
    file.write_text(f"witness uno {vkey_of(a_witness())} http://127.0.0.1:1\nquorum uno\n")
    monkeypatch.setenv("SIIS_WITNESSES", str(file))
    code, out = run("witnesses", "--ask", "--json")
    found = json.loads(out)
    assert (code, found["state"]) == (1, "missing")
    assert [(each["name"], each["last"]) for each in found["witnesses"]] == [("uno", None)]
    code, out = run("witnesses")
    assert (code, "uno" in out) == (1, True)
    file.write_text("witness uno\n")
    assert run("witnesses") == (2, f"SIIS_WITNESSES: {file}:1: una línea de la política está mal escrita")
