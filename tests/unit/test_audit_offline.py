"""``siis audit verify-…`` and ``siis receipt check`` without a network: every verdict with its words and exit code."""

from __future__ import annotations

import base64
import contextvars
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from proof_examples import YEAR, a_log, cosigned, json_lines, jsonl_export, policy_text
from spreadsheet import zipped
from typer.testing import CliRunner

from audit.verify import format_proof
from gateway.cli import audit_offline, receipt
from schemas.ids import uuid7
from schemas.text import set_language

LOG = a_log(7)
ENTRY = str(uuid7())


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    """Write what an auditor carries away into a folder."""
    held = {"entry_id": ENTRY, "leaf_hash": LOG.leaf(3).hex(), "proof": f"/audit/log/proof/{ENTRY}"}
    export = jsonl_export(3)
    export.write(tmp_path)
    proof = (tmp_path / "export.jsonl.proof").read_bytes()
    (tmp_path / "bundle.zip").write_bytes(zipped({"a.jsonl": export.data, "a.jsonl.proof": proof, "notes.txt": b""}))
    (tmp_path / "broken.zip").write_bytes(zipped({"a.jsonl": export.data[:-1], "a.jsonl.proof": proof}))
    note = cosigned(LOG.note(), "w1", "w2", time=(1 << 62))
    texts = {
        "proof": format_proof(3, LOG.inclusion(3), note),
        "policy": policy_text("two"),
        "plain": policy_text(),
        "old": LOG.note(3),
        "new": LOG.note(7),
        "hashes": "".join(f"{base64.b64encode(node).decode()}\n" for node in LOG.consistency(3, 7)),
        "receipt": json.dumps(held),
        "answer": json.dumps({"subject": {"given_names": "x"}, "receipt": held}),
        "other": json.dumps({**held, "leaf_hash": LOG.leaf(2).hex()}),
        "no-receipt": json.dumps({"receipt": {"entry_id": "1", "leaf_hash": "00"}}),
        "twice": '{"receipt": {}, "receipt": {}}',
        "deep": "[" * 100_000,
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, newline="\n")
    return tmp_path


def ran(app: typer.Typer, folder: Path, arguments: str) -> tuple[int, str]:
    words = [str(folder / word) if (folder / word).exists() or word == "absent" else word for word in arguments.split()]
    done = CliRunner().invoke(app, words)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (f"verify-proof proof --leaf {LOG.leaf(3).hex()} --policy policy", 0, "VÁLIDO: es la entrada 3"),
        ("verify-proof proof --receipt receipt --policy policy", 0, f"siis.example/audit/{YEAR}"),
        ("verify-proof proof --receipt answer --policy policy", 0, "Testigo w1: 4611686018427387904"),
        ("verify-proof proof --receipt other --policy policy", 1, "NO VÁLIDO (changed)"),
        ("verify-proof proof --receipt no-receipt --policy policy", 1, "NO VÁLIDO (malformed)"),
        ("verify-proof proof --receipt twice --policy policy", 1, "NO VÁLIDO (malformed)"),
        ("verify-proof proof --receipt deep --policy policy", 1, "NO VÁLIDO (malformed)"),
        ("verify-proof proof --receipt receipt", 2, "--policy"),
        ("verify-proof proof --policy policy", 2, "--leaf"),
        ("verify-proof absent --receipt receipt --policy policy", 2, "No se puede leer"),
        ("verify-checkpoints old new --policy plain --proof hashes", 0, "VÁLIDO"),
        ("verify-checkpoints new old --policy plain", 1, "NO VÁLIDO (not_a_prefix)"),
        ("verify-checkpoints old new --policy plain", 2, "--proof"),
        ("verify-checkpoints old new", 2, "--policy"),
        ("verify-export export.jsonl", 0, "VÁLIDO: export.jsonl, 3 filas"),
        ("verify-export export.jsonl --policy plain", 0, "Sin testigos"),
        ("verify-export export.jsonl --policy policy", 1, "NO VÁLIDO (signature)"),
        ("verify-export bundle.zip", 0, "notes.txt"),
        ("verify-export broken.zip", 1, "NO VÁLIDO (malformed)"),
        ("verify-export old --proof new", 1, "NO VÁLIDO (malformed)"),
    ],
)
def test_every_command_tells_its_verdict(papers: Path, arguments: str, code: int, said: str) -> None:
    ended, shown = ran(audit_offline.app, papers, arguments)
    assert ended == code
    assert said in shown


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("check receipt --proof proof --policy policy", 0, "VÁLIDO: es la entrada 3"),
        ("check other --proof proof --policy policy", 1, "NO VÁLIDO (changed)"),
        ("check no-receipt --proof proof --policy policy", 1, "NO VÁLIDO (malformed)"),
        ("check receipt --proof proof", 2, "--policy"),
        ("check receipt --proof proof --from http://127.0.0.1:1", 2, "--from"),
        ("check receipt --from http://127.0.0.1:1", 1, "no responde"),
        ("check receipt --from ftp://127.0.0.1", 2, "no se puede usar"),
        ("check receipt --from http://", 2, "no se puede usar"),
    ],
)
def test_a_receipt_is_checked_without_our_database(papers: Path, arguments: str, code: int, said: str) -> None:
    ended, shown = ran(receipt.app, papers, arguments)
    assert ended == code
    assert said in shown


def test_what_the_verifier_finds_is_told_in_the_language_in_force(papers: Path) -> None:
    def in_english() -> tuple[int, str]:
        set_language("en")
        return ran(audit_offline.app, papers, "verify-proof proof --receipt other --policy policy")

    shown = contextvars.copy_context().run(in_english)[1]
    assert shown == "NOT VALID (changed): the entry and its path do not give the signed root (entry 3).\n"


def told(papers: Path, arguments: str) -> Any:
    return json.loads(ran(audit_offline.app, papers, f"{arguments} --json")[1])


def test_programs_read_the_verdict_as_json(papers: Path) -> None:
    valid = told(papers, "verify-proof proof --receipt receipt --policy policy")
    assert (valid["valid"], valid["index"], valid["size"], list(valid["witnesses"])) == (True, 3, 7, ["w1", "w2"])
    (papers / "export.jsonl").write_bytes(b"".join(line + b"\n" for line in reversed(json_lines(a_log(3)))))
    wrong = told(papers, "verify-export export.jsonl")
    assert (wrong["valid"], wrong["kind"], wrong["record"]) == (False, "reordered", 1)
    assert told(papers, "verify-export bundle.zip")["unproven"] == ["notes.txt"]
