"""Exports of the log: every format verifies against its proof, in another program's hands, and no changed byte does."""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from audit_examples import EPOCHS, LOG, SIGNER, in_the_year, integrate
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from python_calamine import CalamineWorkbook

from audit.errors import AuditUnavailable
from audit.export import accepted_heads, last_line, proven, record_line, wait_for_proof, write_proof_head
from audit.models import Entry, LoggedEntry
from audit.search import Criteria
from audit.service import AuditLog
from audit.terms import term
from audit.verify import COSIGNATURE, NotValid, check_export, format_key, make_key, parse_policy
from gateway.auditing.exports import own_folder
from gateway.auditing.forms import COLUMNS, Form, Source
from gateway.standards.exports import FORMATS, form_of
from gateway.witnesses.policy import policy_text
from schemas.canonical import sha256
from tests.integration.audit_database import AuditDatabase, fresh_audit_database

pytestmark = pytest.mark.asyncio(loop_scope="module")
SOURCE = Source("https://siis.example", "siis.example/log", "0.1.0")
# What a spreadsheet would run, or take for something else than the text it is.
NASTY = (
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1",
    "_x0041_",
    "a\x1fb",
    "ñandú\u2028",
    "  x ",
    '"',
    "\uffff",
)
POLICY = policy_text(SIGNER, [LOG], None)


@dataclass(frozen=True)
class Filled:
    db: AuditDatabase
    log: AuditLog
    erased: UUID


def an_entry(number: int, subject: UUID | None) -> Entry:
    nasty = NASTY[number % len(NASTY)]
    return Entry(
        at=datetime(2026, 10, 13, 14, tzinfo=UTC) + timedelta(seconds=number),
        type="disclosure.released",
        outcome="permit",
        policy_version="1",
        correlation="0" * 31 + "1",
        subject=subject,
        groups={
            "actor": {"institution": "MDS", "client": "demo-mds", "user": nasty, "roles": ["operator"]},
            "why": {"purpose": "service-provision", "basis": "official-authority", "case": nasty},
            "what": {"holder": "PN-IDENT", "dataset": "identity", "released": ["given_names"]},
        },
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled() -> AsyncIterator[Filled]:
    async with fresh_audit_database() as db:
        log = AuditLog(db.app, EPOCHS, "gateway-1")
        erased, other = uuid4(), uuid4()
        await log.append_many([an_entry(number, [None, erased, other][number % 3]) for number in range(600)])
        await integrate(db.app)
        async with db.admin.begin() as conn:
            await conn.exec_driver_sql("UPDATE audit.subject_key SET wrapped_key = NULL WHERE subject = %s", (erased,))
        yield Filled(db, log, erased)
        await log.close()


async def write(filled: Filled, form: Form, folder: Path, criteria: Criteria) -> Path:
    """Write an export as the gateway does, its own entry included; return DATA."""
    policy, data = parse_policy(POLICY), folder / form.name
    heads = await accepted_heads(filled.db.app, policy, 0)
    count, lines = 0, [write_proof_head(form.kind, {log: head.note for log, head in heads.items()}, POLICY)]
    with data.open("wb") as file:
        file.write(form.begin())
        async for group in proven(filled.db.app, EPOCHS, criteria, heads):
            for each in group:
                groups = each.entry.groups
                detail = None if groups is None else {name: group["value"] for name, group in groups.items()}
                envelope = each.entry.envelope
                logged = LoggedEntry(UUID(envelope["id"]), each.entry.log, each.entry.index, envelope, detail)
                record, piece = form.add(logged)
                file.write(piece)
                lines.append(record_line(each, record))
                count += 1
        file.writelines(form.end())
    digest = sha256(data.read_bytes())
    said = {"sha256": digest.hex(), "records": count, "format": form.kind}
    groups = {"what": said, "actor": {"user": "auditora"}}
    own = Entry(at=in_the_year()(), type="log.exported", outcome="done", policy_version="none", groups=groups)
    receipt = await filled.log.append(own)
    await integrate(filled.db.app)
    shown, note = await wait_for_proof(filled.db.app, EPOCHS, receipt.entry_id, policy, 5)
    lines.append(last_line(shown, note, count, digest))
    data.with_name(f"{data.name}.proof").write_bytes(b"".join(lines))
    return data


async def test_what_a_killed_export_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    left = tmp_path / "tmp1"
    left.mkdir()
    (left / "registro.xlsx").write_bytes(b"Ana")
    with own_folder(tmp_path) as first:
        (first / "registro.xlsx").write_bytes(b"Ana")
        with own_folder(tmp_path) as second:
            assert set(os.listdir(tmp_path)) == {first.name, second.name}
        assert os.listdir(first) == ["registro.xlsx"]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", FORMATS)
async def test_every_format_verifies_with_the_keys_of_the_log(filled: Filled, kind: str, tmp_path: Path) -> None:
    criteria = Criteria(until=datetime(2026, 10, 14, tzinfo=UTC))
    data = await write(filled, form_of(kind, SOURCE, tmp_path), tmp_path, criteria)
    report = check_export(data, policy=parse_policy(POLICY))
    assert (report.kind, report.records, report.bare, report.trusted) == (kind, 600, 200, True)
    # Who exported is nobody's business who gets the file.
    assert b"auditora" not in data.with_name(f"{data.name}.proof").read_bytes()


@pytest.mark.parametrize("kind", FORMATS)
async def test_an_export_of_nothing_verifies_as_well(filled: Filled, kind: str, tmp_path: Path) -> None:
    criteria = Criteria(terms=frozenset({term("party", "NOBODY")}))
    data = await write(filled, form_of(kind, SOURCE, tmp_path), tmp_path, criteria)
    assert check_export(data, policy=parse_policy(POLICY)).records == 0


@pytest.mark.parametrize("kind", FORMATS)
async def test_one_changed_byte_does_not_verify(filled: Filled, kind: str, tmp_path: Path) -> None:
    criteria = Criteria(until=datetime(2026, 10, 13, 14, 0, 20, tzinfo=UTC))
    data = await write(filled, form_of(kind, SOURCE, tmp_path), tmp_path, criteria)
    proof = data.with_name(f"{data.name}.proof")
    for file in (data, proof):
        whole = file.read_bytes()
        for place in range(7, len(whole), len(whole) // 25):
            file.write_bytes(whole[:place] + bytes((whole[place] ^ 1,)) + whole[place + 1 :])
            with pytest.raises(NotValid):
                check_export(data, policy=parse_policy(POLICY))
        file.write_bytes(whole)
    check_export(data, policy=parse_policy(POLICY))


async def test_nothing_in_a_cell_is_run(filled: Filled, tmp_path: Path) -> None:
    criteria = Criteria(since=datetime(2026, 10, 13, 14, tzinfo=UTC), until=datetime(2026, 10, 14, tzinfo=UTC))
    table = (await write(filled, form_of("csv", SOURCE, tmp_path), tmp_path, criteria)).read_bytes()
    assert table.startswith(b"\xef\xbb\xbflog,index,id,")
    rows = list(csv.DictReader(io.StringIO(table.decode("utf-8-sig"), newline="")))
    assert len(rows) == 600
    users = {row["user"] for row in rows if not row["erased"]}
    assert len(users) >= len(NASTY) - 3
    for row in rows:
        for cell in row.values():
            assert not cell.lstrip().startswith(("=", "+", "-", "@", "＝")), cell
    whole = [json.loads(row["detail"]) for row in rows if row["detail"]]
    assert {detail["actor"]["user"] for detail in whole} == set(NASTY)
    path = await write(filled, form_of("xlsx", SOURCE, tmp_path), tmp_path, criteria)
    read = CalamineWorkbook.from_path(str(path)).get_sheet_by_index(0).to_python()
    assert tuple(read[0]) == COLUMNS
    assert {type(cell) for row in read for cell in row} == {str}
    with zipfile.ZipFile(path) as book:
        assert b"<f>" not in book.read("xl/worksheets/sheet1.xml")


async def test_what_no_checkpoint_covers_is_not_exported_and_not_awaited_for_ever(filled: Filled) -> None:
    policy = parse_policy(POLICY)
    waiting = await filled.log.append(an_entry(9_000, None))
    heads = await accepted_heads(filled.db.app, policy, 0)
    found = [
        each.entry.envelope["id"] async for group in proven(filled.db.app, EPOCHS, Criteria(), heads) for each in group
    ]
    assert str(waiting.entry_id) not in found
    assert len(found) == heads[LOG].size
    with pytest.raises(AuditUnavailable):
        await wait_for_proof(filled.db.app, EPOCHS, waiting.entry_id, policy, 0)


async def test_nothing_is_exported_before_the_witnesses_of_the_policy_have_signed(filled: Filled) -> None:
    key = make_key("witness.example/w1", COSIGNATURE, Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    witness = f"witness w1 {format_key(key.name, key.kind, key.key)}\nquorum w1\n"
    policy = parse_policy(POLICY.replace("quorum none\n", witness))
    with pytest.raises(AuditUnavailable):
        await accepted_heads(filled.db.app, policy, 0)
