"""Exports and bundles: valid as written in every format, and the first wrong record named after any change."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proof_examples import (
    NEXT,
    SIGNER,
    Export,
    SmallLog,
    a_log,
    an_export,
    cosigned,
    json_lines,
    jsonl_export,
    policy_text,
    vkey,
)
from spreadsheet import texts, xlsx, zipped

from audit import verify
from audit.checkpoint import Signer
from audit.verify import NotValid, check_bundle, check_export, main, parse_policy

POLICY = parse_policy(policy_text("two"))
HEADING = ("entry_id", "n")


def an_xlsx(log: SmallLog, *, shared: bool = False) -> Export:
    """Export as a workbook; the second column of every other row is absent, as spreadsheets leave empty cells out."""
    ids = [json.loads(envelope)["id"] for envelope in log.envelopes]
    rows = [(each, str(number) if number % 2 else "") for number, each in enumerate(ids)]
    if shared:
        strings = "".join(f"<si><r><t>{each[:5]}</t></r><r><t>{each[5:]}</t></r></si>" for each in ids)
        written = "".join(
            f'<row><c r="A{number + 2}" t="s"><v>{number}</v></c>'
            + (f'<c r="B{number + 2}"><v>{value}</v></c>' if value else "")
            + "</row>"
            for number, (_each, value) in enumerate(rows)
        )
        data = xlsx(texts(1, *HEADING) + written)
        data = _with_member(data, "xl/sharedStrings.xml", f"<sst>{strings}</sst>".encode())
    else:
        written = "".join(texts(number, *(cell for cell in row if cell)) for number, row in enumerate(rows, 2))
        data = xlsx(texts(1, *HEADING) + written)
    return an_export(log, "xlsx", data, ["\x1f".join(row).encode() for row in rows])


def _with_member(archive: bytes, name: str, content: bytes) -> bytes:
    members = _members(archive)
    return zipped({**members, name: content})


def _members(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def a_csv(log: SmallLog) -> Export:
    records = [f"{json.loads(envelope)['id']},{number}".encode() for number, envelope in enumerate(log.envelopes)]
    return an_export(log, "csv", b"\n".join([",".join(HEADING).encode(), *records, b""]), records)


def a_jsonl(log: SmallLog, kind: str = "jsonl") -> Export:
    records = json_lines(log)
    return an_export(log, kind, b"".join(record + b"\n" for record in records), records)


WRITERS: dict[str, Callable[[SmallLog], Export]] = {
    "jsonl": a_jsonl,
    "fhir": lambda log: a_jsonl(log, "fhir"),
    "ocsf": lambda log: a_jsonl(log, "ocsf"),
    "csv": a_csv,
    "xlsx": an_xlsx,
    "xlsx with shared strings": lambda log: an_xlsx(log, shared=True),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("entries", [1, 7])
def test_an_export_verifies_in_every_format(tmp_path: Path, kind: str, entries: int) -> None:
    report = check_export(WRITERS[kind](a_log(entries)).write(tmp_path))
    assert (report.records, report.bare, report.trusted) == (entries, 0, False)
    assert report.place == (SIGNER.origin, entries)


def test_an_export_of_nothing_is_valid(tmp_path: Path) -> None:
    assert check_export(an_export(a_log(3), "jsonl", b"", []).write(tmp_path)).records == 0


def test_entries_whose_detail_was_erased_stay_proved(tmp_path: Path) -> None:
    export = jsonl_export()
    export.lines[2]["groups"] = {}
    del export.lines[3]["groups"]
    assert check_export(export.write(tmp_path)).bare == 2


def test_entries_may_stand_newest_first(tmp_path: Path) -> None:
    log = a_log(7)
    records = json_lines(log)[::-1]
    data = b"".join(record + b"\n" for record in records)
    export = an_export(log, "jsonl", data, records, newest_first=True)
    assert check_export(export.write(tmp_path)).records == 7


def changed(export: Export) -> None:
    export.data = export.data.replace(b'"n":3', b'"n":9')


def missing(export: Export) -> None:
    lines = export.data.splitlines(keepends=True)
    export.data = b"".join(lines[:3] + lines[4:])


def cut(export: Export) -> None:
    export.data = b"".join(export.data.splitlines(keepends=True)[:3])


def duplicated(export: Export) -> None:
    lines = export.data.splitlines(keepends=True)
    export.data = b"".join(lines[:3] + lines[1:2] + lines[3:])


def duplicated_at_the_end(export: Export) -> None:
    export.data += export.data.splitlines(keepends=True)[2]


def reordered(export: Export) -> None:
    lines = export.data.splitlines(keepends=True)
    export.data = b"".join([*lines[:3], lines[5], lines[4], lines[3], *lines[6:]])


def foreign(export: Export) -> None:
    lines = export.data.splitlines(keepends=True)
    export.data = b"".join([*lines[:3], b'{"id":"stranger"}\n', *lines[3:]])


def foreign_at_the_end(export: Export) -> None:
    export.data += b'{"id":"stranger"}\n'


@pytest.mark.parametrize(
    ("damage", "kind", "record"),
    [
        (changed, "changed", 4),
        (missing, "missing", 4),
        (cut, "missing", 4),
        (duplicated, "duplicated", 4),
        (duplicated_at_the_end, "duplicated", 8),
        (reordered, "reordered", 4),
        (foreign, "foreign", 4),
        (foreign_at_the_end, "foreign", 8),
    ],
)
def test_the_first_wrong_record_is_named(
    tmp_path: Path, damage: Callable[[Export], None], kind: str, record: int
) -> None:
    export = jsonl_export()
    damage(export)
    with pytest.raises(NotValid) as caught:
        check_export(export.write(tmp_path))
    assert (caught.value.kind, caught.value.record) == (kind, record)


def _swap(export: Export) -> None:
    lines = export.lines
    lines[2], lines[3] = lines[3], lines[2]
    data = export.data.splitlines(keepends=True)
    data[1], data[2] = data[2], data[1]
    export.data = b"".join(data)


def _twice(export: Export) -> None:
    export.lines.insert(3, export.lines[2])
    data = export.data.splitlines(keepends=True)
    export.data = b"".join([*data[:2], *data[1:]])


def _of_another_entry(export: Export) -> None:
    record = export.lines[2]["record"]
    export.lines[2] = {**export.lines[7], "record": record}


def _without_one(export: Export) -> None:
    del export.lines[3]
    lines = export.data.splitlines(keepends=True)
    export.data = b"".join(lines[:2] + lines[3:])


def _set(place: int, *path: str | int, to: Any) -> Callable[[Export], None]:
    def damage(export: Export) -> None:
        value: Any = export.lines[place]
        for step in path[:-1]:
            value = value[step]
        value[path[-1]] = to

    return damage


def _last_line_gone(export: Export) -> None:
    del export.lines[-1]


def _more_lines(export: Export) -> None:
    export.lines.append(export.lines[1])


def _next_log(export: Export) -> None:
    export.lines[0]["policy"] = f"log {vkey(NEXT.verifier)}\n{policy_text()}"
    export.lines[0]["checkpoints"]["2026"] = _NEXT.note()


def _note(note: str) -> Callable[[Export], None]:
    return _set(0, "checkpoints", "2026", to=note)


_NEXT = SmallLog(signer=NEXT, envelopes=a_log(7).envelopes)


@pytest.mark.parametrize(
    ("damage", "kind", "record"),
    [
        (_swap, "reordered", 3),
        (_twice, "duplicated", 3),
        (_of_another_entry, "foreign", 2),
        (_without_one, "changed", None),
        (_last_line_gone, "missing", None),
        (_more_lines, "malformed", None),
        (_set(2, "envelope", to="{}"), "changed", 2),
        (_set(2, "index", to=5), "changed", 2),
        (_set(2, "index", to=7), "missing", 2),
        (_set(2, "index", to=-1), "missing", 2),
        (_set(2, "index", to=True), "malformed", 2),
        (_set(2, "log", to=2027), "foreign", 2),
        (_set(2, "proof", to=[]), "changed", 2),
        (_set(2, "proof", to=["A" * 44] * 1_000), "malformed", 2),
        (_set(2, "proof", 0, to=None), "malformed", 2),
        (_set(2, "groups", "why", "value", "purpose", to="otra"), "changed", 2),
        (_set(2, "groups", "what", to={"salt": "QUFBQQ==", "value": {}}), "changed", 2),
        (_set(2, "groups", "why", "more", to=1), "malformed", 2),
        (_set(2, "groups", to=[]), "malformed", 2),
        (_set(2, "record", to="0" * 64), "changed", 2),
        (_set(2, "more", to=1), "malformed", 2),
        (_set(0, "format", to="siis-export-proof/2"), "malformed", None),
        (_set(0, "kind", to="csv"), "missing", 1),
        (_set(0, "kind", to="ocsf"), "changed", None),
        (_set(0, "kind", to="pdf"), "malformed", 1),
        (_set(0, "policy", to=""), "malformed", None),
        (_set(0, "policy", to="quorum none\n"), "foreign", None),
        (_set(0, "policy", to=policy_text("w1")), "signature", None),
        (_note(""), "malformed", None),
        (_note(_NEXT.note()), "foreign", None),
        (_next_log, "foreign", None),
        (_note(a_log(3).note()), "changed", 1),
        (_set(-1, "checkpoint", to=cosigned(a_log(6).note(), "w1")), "missing", None),
        (_set(-1, "records", to=6), "changed", None),
        (_set(-1, "sha256", to="0" * 64), "changed", None),
        (_set(-1, "export", "groups", "what", "value", "records", to=6), "changed", None),
        (_set(-1, "export", "groups", to={}), "changed", None),
    ],
)
def test_a_proof_file_that_was_changed_is_named(
    tmp_path: Path, damage: Callable[[Export], None], kind: str, record: int | None
) -> None:
    export = jsonl_export()
    damage(export)
    with pytest.raises(NotValid) as caught:
        check_export(export.write(tmp_path))
    assert (caught.value.kind, caught.value.record) == (kind, record)


@pytest.mark.parametrize(
    "lie",
    [
        {"detail": {"actor": {"institution": "MDS", "user": "otra"}}},
        {"detail": None},
        {"erased": True},
        {"envelope": {}},
        {"index": 3},
        {"log": True},
        {"leaf_hash": "0" * 64},
    ],
)
def test_a_line_that_says_other_than_its_entry_is_found_though_its_exporter_put_it_on_record(
    tmp_path: Path, lie: dict[str, Any]
) -> None:
    log = a_log(3)
    rows = [
        {
            "id": json.loads(envelope)["id"],
            "log": 2026,
            "index": index,
            "leaf_hash": log.leaf(index).hex(),
            "envelope": json.loads(envelope),
            "detail": {name: group["value"] for name, group in log.groups[index].items()},
            "erased": False,
        }
        for index, envelope in enumerate(log.envelopes)
    ]

    def exported(rows: list[dict[str, Any]]) -> Path:
        records = [json.dumps(row).encode() for row in rows]
        written = SmallLog(envelopes=log.envelopes[:3], groups=log.groups[:3])
        return an_export(written, "jsonl", b"".join(line + b"\n" for line in records), records).write(tmp_path)

    assert check_export(exported(rows)).records == 3
    rows[1] = {**rows[1], **lie}
    with pytest.raises(NotValid) as caught:
        check_export(exported(rows))
    assert (caught.value.kind, caught.value.record, caught.value.index) == ("changed", 2, 1)


def test_logs_of_two_operators_are_not_mixed(tmp_path: Path) -> None:
    export, other = jsonl_export(3), SmallLog(Signer("other.example/audit/2026", Ed25519PrivateKey.generate()))
    other.envelopes, other.groups = a_log(5).envelopes, a_log(5).groups
    own = other.add("log.exported", what=export.lines[-1]["export"]["groups"]["what"]["value"])
    export.lines[-1].update(export=other.told(own), checkpoint=other.note())
    policy = parse_policy(f"log {vkey(other.signer.verifier)}\n{policy_text()}")
    with pytest.raises(NotValid, match="foreign"):
        check_export(export.write(tmp_path), policy=policy)


def test_an_entry_that_is_no_export_does_not_stand_for_one(tmp_path: Path) -> None:
    export = jsonl_export()
    log = a_log(7)
    place = log.add("disclosure.permitted", what=export.lines[-1]["export"]["groups"]["what"]["value"])
    export.lines[-1].update(export=log.told(place), checkpoint=log.note())
    with pytest.raises(NotValid, match="foreign"):
        check_export(export.write(tmp_path))


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"null\n",
        b"[]\n",
        b'{"a":1,"a":2}\n',
        b'{"a":1.5}\n',
        b'{"a":NaN}\n',
        b'{"a":' + b"9" * 5_000 + b"}\n",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
        b'{"a":"\\ud800"}\n',
        b'{"a":"\xff"}\n',
        '{"format":1}\n'.encode("utf-16"),
        b'{"a":"' + b"x" * 5_000_000 + b'"}\n',
    ],
)
@pytest.mark.parametrize("place", [0, 2])
def test_a_hostile_line_is_not_valid(tmp_path: Path, line: bytes, place: int) -> None:
    path = jsonl_export().write(tmp_path)
    proof = path.with_name(f"{path.name}.proof")
    lines = proof.read_bytes().splitlines(keepends=True)
    lines[place] = line
    proof.write_bytes(b"".join(lines))
    with pytest.raises(NotValid) as caught:
        check_export(path)
    assert caught.value.kind == "malformed"


def _with_line(folder: Path, old: bytes, new: bytes) -> Path:
    path = jsonl_export().write(folder)
    proof = path.with_name(f"{path.name}.proof")
    content = proof.read_bytes()
    assert old in content
    proof.write_bytes(content.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"index": 2,', b'"index": 9, "index": 2,'),
        (b'"kind": "jsonl"', b'"kind": "csv", "kind": "jsonl"'),
        ('"purpose": "protección"'.encode(), b'"purpose": "\\udc80"'),
    ],
)
def test_what_two_readers_could_read_in_two_ways_is_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    with pytest.raises(NotValid, match="malformed"):
        check_export(_with_line(tmp_path, old, new))


@cache
def _signed_pair() -> tuple[bytes, bytes]:
    export = jsonl_export(3, witnesses=["w1", "w3"], quorum="two")
    # Under a policy that was received apart, the one in the file is not read at all.
    export.lines[0]["policy"] = ""
    proof = b"".join(
        json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for line in export.lines
    )
    return export.data, proof


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_byte_of_an_export_or_its_proof_can_be_another(tmp_path: Path, data: st.DataObject) -> None:
    files = list(_signed_pair())
    which = data.draw(st.sampled_from([0, 1, 1, 1]))
    place = data.draw(st.integers(0, len(files[which]) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != files[which][place]))
    files[which] = files[which][:place] + bytes([byte]) + files[which][place + 1 :]
    with pytest.raises(NotValid):
        _check_pair(tmp_path, *files)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_an_export_or_its_proof_cut_anywhere_is_not_valid(tmp_path: Path, data: st.DataObject) -> None:
    files = list(_signed_pair())
    _check_pair(tmp_path, *files)
    which = data.draw(st.sampled_from([0, 1]))
    files[which] = files[which][: data.draw(st.integers(0, len(files[which]) - 1))]
    with pytest.raises(NotValid):
        _check_pair(tmp_path, *files)


def _check_pair(folder: Path, data: bytes, proof: bytes) -> None:
    (folder / "x.jsonl").write_bytes(data)
    (folder / "x.proof").write_bytes(proof)
    check_export(folder / "x.jsonl", folder / "x.proof", POLICY)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.data())
def test_a_damaged_workbook_or_bundle_is_not_valid(tmp_path: Path, data: st.DataObject) -> None:
    export = _workbook()
    bundle = _bundle()
    book = data.draw(st.booleans())
    raw = export.data if book else bundle
    place = data.draw(st.integers(0, len(raw) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "repeat"]))
    flipped = bytes([raw[place] ^ data.draw(st.integers(1, 255))])
    raw = {"flip": raw[:place] + flipped + raw[place + 1 :], "cut": raw[:place], "repeat": raw + raw[: place + 1]}[how]
    if book:
        with pytest.raises(NotValid):
            check_export(Export(raw, export.lines).write(tmp_path))
        return
    (tmp_path / "bundle.zip").write_bytes(raw)
    # What surrounds the files in a ZIP (times, attributes) is nobody's claim: only what is proved counts.
    try:
        reports, _others = check_bundle(tmp_path / "bundle.zip")
    except NotValid:
        return
    assert {report.sha256 for report in reports.values()} == {_sha256()}


@cache
def _workbook() -> Export:
    return an_xlsx(a_log(3), shared=True)


@cache
def _pair() -> Export:
    return jsonl_export(3)


def _sha256() -> str:
    return str(_pair().lines[-1]["sha256"])


@cache
def _bundle() -> bytes:
    export = _pair()
    proof = b"".join(json.dumps(line).encode() + b"\n" for line in export.lines)
    return zipped({"policy.txt": b"", "entries.jsonl": export.data, "entries.jsonl.proof": proof})


@pytest.mark.parametrize(
    "part",
    [
        b'<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]><worksheet/>',
        b"<worksheet>",
        b"<a/><b/>",
        b'<worksheet><row><c t="s"><v>99</v></c></row></worksheet>',
        b'<worksheet><row><c t="s"><v>-1</v></c></row></worksheet>',
        b'<worksheet><row><c r="ZZZZZ1"><v>1</v></c></row></worksheet>',
        b'<worksheet><row><c r="1"><v>1</v></c></row></worksheet>',
        b"<worksheet><row><c><v>" + b"1" * 5_000_000 + b"</v></c></row></worksheet>",
        b"<worksheet>" + b"<a>" * 200_000,
        b"<worksheet><row>" + b"<c/>" * 200_000 + b"</row></worksheet>",
        b'<worksheet><row><c r="ZZZ1"><v>1</v></c></row>' + b"<row/>" * 300_000 + b"</worksheet>",
        b"<worksheet>" + b"<row/>" * 1_100_000 + b"</worksheet>",
        b'<worksheet a="' + b"x" * 5_000_000 + b'"/>',
        b"\xff\xfe\x00",
    ],
)
def test_a_hostile_sheet_is_not_valid(tmp_path: Path, part: bytes) -> None:
    export = an_xlsx(a_log(3))
    heading = {**_members(export.data), "xl/worksheets/sheet1.xml": part}
    with pytest.raises(NotValid) as caught:
        check_export(Export(zipped(heading), export.lines).write(tmp_path))
    assert caught.value.kind in ("malformed", "missing", "changed")
    assert ("DOCTYPE" in caught.value.what) == (b"DOCTYPE" in part)


def test_a_zip_that_swells_or_repeats_a_name_is_not_unpacked(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.proof", "w") as member:
        for _ in range(200):
            member.write(bytes(1_000_000))
    repeated = tmp_path / "repeated.zip"
    with zipfile.ZipFile(repeated, "w") as archive:
        archive.writestr("x", b"")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x", b"")
    many = tmp_path / "many.zip"
    with zipfile.ZipFile(many, "w") as archive:
        for number in range(10_001):
            archive.writestr(str(number), b"")
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x", b"x")
    for path in (bomb, repeated, many, packed):
        with pytest.raises(NotValid, match="malformed"):
            check_bundle(path)


@pytest.mark.parametrize(
    "name", ["ENTRIES.jsonl", "../a.html", "/a.html", "b/../a.html", "./a.html", "b\\a.html", "c:a"]
)
def test_a_zip_that_would_unpack_one_file_over_another_is_not_valid(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        for each, content in {**_members(_bundle()), name: b""}.items():
            archive.writestr(each, content)
    with pytest.raises(NotValid, match="malformed"):
        check_bundle(tmp_path / "bundle.zip")


def test_a_bundle_tells_what_is_proved_and_what_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(_bundle())
    reports, others = check_bundle(path)
    assert (list(reports), others) == (["entries.jsonl"], ["policy.txt"])
    (tmp_path / "policy.txt").write_text(policy_text())
    assert main(["bundle", str(path), "--policy", str(tmp_path / "policy.txt")]) == 0
    shown = capsys.readouterr().out
    assert "VÁLIDO entries.jsonl jsonl 3" in shown
    assert "policy.txt" in shown
    path.write_bytes(zipped({"a.jsonl": b"", "a.jsonl.proof": b"{}\n"}))
    assert main(["export", str(path)]) == 1
    assert "NO VÁLIDO malformed file=a.jsonl" in capsys.readouterr().out
    path.write_bytes(zipped({"a.jsonl": b""}))
    assert main(["bundle", str(path)]) == 1
    path.write_bytes(b"no zip")
    assert main(["bundle", str(path)]) == 1


def test_the_other_files_that_a_bundle_fixes_are_verified(tmp_path: Path) -> None:
    page = b"<html></html>"
    log = a_log(3)
    lines = json_lines(log)
    files = {"historia.html": hashlib.sha256(page).hexdigest()}
    export = an_export(log, "jsonl", b"".join(line + b"\n" for line in lines), lines, files=files)
    proof = b"".join(json.dumps(line).encode() + b"\n" for line in export.lines)
    whole = {"a.jsonl": export.data, "a.jsonl.proof": proof, "historia.html": page, "more.txt": b""}
    path = tmp_path / "bundle.zip"
    path.write_bytes(zipped(whole))
    assert check_bundle(path)[1] == ["more.txt"]
    for kind, page_there in (("changed", {"historia.html": b"<html> </html>"}), ("missing", {})):
        rest = {name: content for name, content in whole.items() if name != "historia.html"}
        path.write_bytes(zipped({**rest, **page_there}))
        with pytest.raises(NotValid) as caught:
            check_bundle(path)
        assert (caught.value.kind, caught.value.file) == (kind, "historia.html")


def test_the_output_says_whose_keys_were_believed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = jsonl_export().write(tmp_path)
    (tmp_path / "policy").write_text(policy_text())
    assert main(["export", str(path)]) == 0
    assert "--policy" in capsys.readouterr().out
    assert main(["export", str(path), "--policy", str(tmp_path / "policy")]) == 0
    assert "--policy" not in capsys.readouterr().out
    assert main(["export", str(tmp_path / "absent")]) == 2


def test_two_faces_of_a_log_in_one_export_are_seen(tmp_path: Path) -> None:
    export = jsonl_export(3)
    # The exported entries are the same in both; what comes behind them differs.
    other = SmallLog(envelopes=[*(line["envelope"].encode() for line in export.lines[1:4]), b"another"])
    export.lines[0]["checkpoints"]["2026"] = other.note()
    for line in export.lines[1:4]:
        line["proof"] = [base64.b64encode(node).decode() for node in other.inclusion(line["index"])]
    with pytest.raises(NotValid, match="not_a_prefix"):
        check_export(export.write(tmp_path))


def test_a_forged_export_with_its_own_keys_is_found_by_the_policy_received_apart(tmp_path: Path) -> None:
    forger = Signer(SIGNER.origin, Ed25519PrivateKey.generate())
    log = a_log(3)
    log.signer = forger
    records = json_lines(log)
    path = an_export(log, "jsonl", b"".join(record + b"\n" for record in records), records).write(tmp_path)
    assert not check_export(path).trusted
    with pytest.raises(NotValid, match="signature"):
        check_export(path, policy=parse_policy(policy_text()))


_MEASURED = """
import sys
from verify import main
code = main(["export", sys.argv[1]])
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
sys.exit(code)
"""


@pytest.fixture
def bare(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return how to run the verifier in a Python that has nothing but ``cryptography``."""
    folder = tmp_path / "bare"
    folder.mkdir()
    shutil.copy(verify.__file__, folder / "verify.py")
    packages = Path(sysconfig.get_path("purelib"))
    for name in ("cryptography", "cffi", "pycparser"):
        (folder / name).symlink_to(packages / name)
    for extension in packages.glob("_cffi_backend*"):
        (folder / extension.name).symlink_to(extension)

    def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        # -I -S: neither the current folder, nor variables, nor site-packages are on the path.
        start = f"import sys; sys.path.append({str(folder)!r}); sys.argv[0] = 'verify.py'\n"
        command = [sys.executable, "-I", "-S", "-W", "error", "-c", start + code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=dict(os.environ))

    return run


def test_the_verifier_runs_with_cryptography_and_nothing_of_ours(
    tmp_path: Path, bare: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert bare("import audit").returncode == 1
    assert bare("import orjson").returncode == 1
    path = tmp_path / "bundle.zip"
    path.write_bytes(_bundle())
    code = "import runpy; runpy.run_module('verify', run_name='__main__')"
    valid = bare(code, "bundle", str(path))
    assert (valid.returncode, valid.stderr) == (0, "")
    assert "VÁLIDO entries.jsonl" in valid.stdout
    path.write_bytes(_bundle()[:-30])
    broken = bare(code, "bundle", str(path))
    assert (broken.returncode, broken.stderr) == (1, "")
    assert "NO VÁLIDO malformed" in broken.stdout


def test_memory_does_not_grow_with_the_export(
    tmp_path: Path, bare: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    peaks = []
    for entries in (10, 8_000):
        path = jsonl_export(entries).write(tmp_path, f"{entries}.jsonl")
        run = bare(_MEASURED, str(path))
        assert run.returncode == 0
        peaks.append(int(run.stdout.splitlines()[-1]))
    # KiB; the larger proof alone has 14 MB.
    assert peaks[1] - peaks[0] < 4_000
