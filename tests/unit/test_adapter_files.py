"""The file kind over a real SFTP server: a file per referral, files of replies, and rows that are bad one by one."""

from __future__ import annotations

import asyncio
import json
import os
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import pytest_asyncio
from adapter_examples import REFERRAL, closed_address, connect, permit, poll, send, server

from adapters.errors import ContractBroken, ManifestError
from adapters.files.adapter import FileAdapter
from adapters.files.folder import Entry
from adapters.files.register import FileRegister
from adapters.files.seen import MOST, Seen
from adapters.files.writing import write_row
from adapters.models import (
    Adapter,
    AlreadyTaken,
    Malformed,
    NotFound,
    Page,
    Register,
    Rejected,
    RejectedRow,
    Row,
    Taken,
    Unavailable,
)
from adapters.registry import load_adapters
from schemas.canonical import sha256

KEY = asyncssh.generate_private_key("ssh-ed25519")
OTHER = asyncssh.generate_private_key("ssh-ed25519")
IN = (
    "id_referencia;servicio;origen;tipo_documento;numero_documento;nombres;apellidos;fecha_nacimiento;sexo;"
    "departamento;distrito;motivo;detalle;prioridad;emitida;limite;recibo"
)
OUT = "id_mensaje;id_referencia;evento;fecha;resultado;motivo;detalle;lugar;comprobante"
ROW = f"M-1;{REFERRAL};RECHAZADA;23/11/2026;;SIN_CUPO;Sin cupo en el año;Ñemby;"


def public(key: asyncssh.SSHKey) -> str:
    return key.export_public_key().decode().strip()


class Folder:
    """A recipient's SFTP server on loopback, its folder on disk, and the ways it can go wrong."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inbox, self.outbox = root / "entrada", root / "salida"
        self.inbox.mkdir(parents=True)
        self.outbox.mkdir()
        self.address = ""
        self.logins = 0
        self.connections: list[asyncssh.SSHServerConnection] = []
        self.on_rename: Callable[[], Any] | None = None
        self.on_list: Callable[[], Any] | None = None
        self.part_seen: list[list[str]] = []

    async def start(self) -> asyncssh.SSHAcceptor:
        folder = self

        class Doorman(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                folder.connections.append(conn)

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                folder.logins += 1
                return (username, password) == ("siis", "clave-ñ")

        class Files(asyncssh.SFTPServer):
            def __init__(self, channel: asyncssh.SSHServerChannel[bytes]) -> None:
                super().__init__(channel, chroot=str(folder.root).encode())

            async def rename(self, oldpath: bytes, newpath: bytes) -> None:
                folder.part_seen.append(sorted(file.name for file in folder.inbox.iterdir()))
                if folder.on_rename is not None:
                    await folder.on_rename()
                super().rename(oldpath, newpath)

            async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
                if folder.on_list is not None:
                    await folder.on_list()
                async for entry in super().scandir(path):
                    yield entry

        acceptor = await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[KEY], server_factory=Doorman, sftp_factory=Files, allow_scp=False
        )
        self.address = f"sftp://127.0.0.1:{acceptor.get_port()}"
        return acceptor

    def cut(self) -> None:
        for connection in self.connections:
            connection.abort()

    def put(self, name: str, *rows: str, encoding: str = "cp1252", end: str = "\r\n") -> None:
        (self.outbox / name).write_bytes("".join(row + end for row in (OUT, *rows)).encode(encoding))


@pytest_asyncio.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Folder]:
    found = Folder(tmp_path / "files")
    acceptor = await found.start()
    yield found
    acceptor.close()
    found.cut()
    await acceptor.wait_closed()


@pytest_asyncio.fixture
async def minna(folder: Folder, tmp_path: Path) -> AsyncIterator[Adapter]:
    adapter = connect(tmp_path, "minna", folder.address, host_key=public(KEY))
    yield adapter
    await adapter.close()


async def test_a_referral_becomes_one_file_by_its_id_complete_when_it_appears(folder: Folder, minna: Adapter) -> None:
    assert isinstance(await send(minna), Taken)
    assert folder.part_seen == [[f"{REFERRAL}.csv.part"]]
    [file] = folder.inbox.iterdir()
    assert file.name == f"{REFERRAL}.csv"
    assert file.read_bytes().decode("utf-8").split("\r\n") == [
        IN,
        f"{REFERRAL};abrazo;UTGS;cedula;4123456;Ñasaindy;Agüero Yvyra'i;01/05/2015;F;11;1116;protection-gap;"
        "Sin el servicio;routine;2026-11-22T10:00:00Z;22/12/2026;",
        "",
    ]


async def test_a_repeated_referral_overwrites_nothing_and_is_already_taken(folder: Folder, minna: Adapter) -> None:
    assert isinstance(await send(minna), Taken)
    before = (folder.inbox / f"{REFERRAL}.csv").read_bytes()
    assert isinstance(await send(minna, reason_text="otro"), AlreadyTaken)
    assert (folder.inbox / f"{REFERRAL}.csv").read_bytes() == before
    assert len(list(folder.inbox.iterdir())) == 1


async def test_a_name_taken_between_looking_and_renaming_is_already_taken(folder: Folder, minna: Adapter) -> None:
    async def race() -> None:
        (folder.inbox / f"{REFERRAL}.csv").write_bytes(b"first")

    folder.on_rename = race
    assert isinstance(await send(minna), AlreadyTaken)
    assert [file.read_bytes() for file in folder.inbox.iterdir()] == [b"first"]


async def test_a_connection_cut_at_the_rename_leaves_the_effect_unknown_until_the_next_attempt_looks(
    folder: Folder, tmp_path: Path
) -> None:
    async def cut_after() -> None:
        (folder.inbox / f"{REFERRAL}.csv.part").rename(folder.inbox / f"{REFERRAL}.csv")
        folder.cut()

    folder.on_rename = cut_after
    once = connect(tmp_path, "minna", folder.address, host_key=public(KEY), changes={"attempts: 3": "attempts: 1"})
    outcome = await send(once)
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.effect_unknown) == ("connection lost", True)
    (folder.inbox / f"{REFERRAL}.csv").unlink()
    again = connect(tmp_path, "minna", folder.address, host_key=public(KEY))
    outcome = await send(again)
    assert isinstance(outcome, AlreadyTaken)
    assert outcome.provenance.attempts == 2
    await asyncio.gather(once.close(), again.close())


async def test_a_connection_cut_before_the_rename_had_no_effect(folder: Folder, minna: Adapter) -> None:
    (folder.inbox / f"{REFERRAL}.csv.part").mkdir()
    outcome = await send(minna)
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason.startswith("sftp: "), outcome.effect_unknown) == (True, False)


async def test_one_connection_serves_many_calls_and_is_opened_again_when_lost(folder: Folder, minna: Adapter) -> None:
    for _ in range(3):
        assert isinstance(await poll(minna), Page)
    assert folder.logins == 1
    folder.cut()
    assert isinstance(await poll(minna), Page)
    assert folder.logins == 2


@pytest.mark.parametrize(
    ("username", "key", "reason"),
    [("siis", OTHER, "host key is not the pinned one"), ("otro", KEY, "credentials refused")],
)
async def test_a_server_that_is_not_ours_or_does_not_know_us_gets_nothing(
    folder: Folder, tmp_path: Path, username: str, key: asyncssh.SSHKey, reason: str
) -> None:
    changes = {"username: siis": f"username: {username}"}
    adapter = connect(tmp_path, "minna", folder.address, host_key=public(key), changes=changes)
    outcome = await send(adapter)
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.effect_unknown, outcome.provenance.attempts) == (reason, False, 1)
    assert folder.logins == (0 if key is OTHER else 1)
    assert list(folder.inbox.iterdir()) == []


async def test_a_server_that_is_not_there_had_no_effect(tmp_path: Path) -> None:
    adapter = connect(tmp_path, "minna", closed_address().replace("http", "sftp"), host_key=public(KEY))
    outcome = await send(adapter)
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.effect_unknown, outcome.provenance.attempts) == ("connection failed", False, 3)


async def test_a_server_that_hangs_costs_the_budget_and_its_connection(folder: Folder, tmp_path: Path) -> None:
    release = asyncio.Event()
    folder.on_list = release.wait
    changes = {"budget_s: 15": "budget_s: 0.5"}
    adapter = connect(tmp_path, "minna", folder.address, host_key=public(KEY), changes=changes)
    outcome = await poll(adapter)
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.effect_unknown) == ("timeout", False)
    folder.on_list = None
    release.set()
    assert isinstance(await poll(adapter), Page)
    assert folder.logins == 2
    await adapter.close()


async def test_a_server_that_never_greets_costs_the_budget(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with server(silent) as address:
        changes = {"budget_s: 15": "budget_s: 0.2"}
        sftp = address.replace("http", "sftp")
        adapter = connect(tmp_path, "minna", sftp, host_key=public(KEY), changes=changes)
        outcome = await send(adapter)
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.effect_unknown) == ("timeout", False)


async def test_a_missing_folder_is_unavailable(folder: Folder, minna: Adapter) -> None:
    folder.outbox.rmdir()
    outcome = await poll(minna)
    assert isinstance(outcome, Unavailable)
    assert outcome.reason == "sftp: SFTPNoSuchFile"


async def test_files_are_taken_by_name_one_a_page_after_the_cursor(folder: Folder, minna: Adapter) -> None:
    for name in ("c_2.csv", "c_1.csv", ".c_0.csv", "c_3.csv.part", "leame.txt"):
        folder.put(name, ROW.replace("M-1", name))
    (folder.outbox / "c_9.csv.d").mkdir()
    first = await poll(minna)
    assert isinstance(first, Page)
    assert ([reply.message_id for reply in first.items], first.source, first.more) == (["c_1.csv"], "c_1.csv", True)
    second = await poll(minna, first.cursor)
    assert isinstance(second, Page)
    assert ([reply.message_id for reply in second.items], second.source, second.more) == (["c_2.csv"], "c_2.csv", False)
    third = await poll(minna, second.cursor)
    assert isinstance(third, Page)
    assert (third.items, third.cursor, third.more) == ((), second.cursor, False)
    assert third.provenance.raw_sha256 is None


async def test_a_file_that_comes_late_under_a_smaller_name_is_taken_and_a_copy_of_one_taken_is_not(
    folder: Folder, minna: Adapter
) -> None:
    folder.put("b.csv", ROW)
    first = await poll(minna)
    folder.put("a.csv", ROW.replace("M-1", "M-2"))
    folder.put("c.csv", ROW)
    second = await poll(minna, first.cursor)
    assert ([reply.message_id for reply in second.items], second.source, second.more) == (["M-2"], "a.csv", True)
    third = await poll(minna, second.cursor)
    assert (third.items, third.rejects, third.more) == ((), (), False)
    assert (await poll(minna, third.cursor)).cursor == third.cursor
    (folder.outbox / "b.csv").unlink()
    assert len((await poll(minna, third.cursor)).cursor) < len(third.cursor)


async def test_a_file_that_has_grown_is_read_again(folder: Folder, minna: Adapter) -> None:
    folder.put("a.csv", ROW)
    first = await poll(minna)
    folder.put("a.csv", ROW, ROW.replace("M-1", "M-2"))
    second = await poll(minna, first.cursor)
    assert [reply.message_id for reply in second.items] == ["M-1", "M-2"]


def test_of_very_many_files_the_cursor_remembers_the_newest_and_skips_none_that_waits() -> None:
    entries = [Entry(f"{number:05}.csv", 10, 1000 + number) for number in range(MOST + 500)]
    seen = Seen(None)
    for entry in entries[:-1]:
        seen.take(entry, entry.name.encode())
    assert not Seen(seen.cursor(entries)).passes(entries[-1])
    assert Seen(seen.cursor(entries)).passes(entries[0])
    seen.take(entries[-1], b"the last")
    cursor = seen.cursor(entries)
    assert len(cursor) < 26 * MOST
    late = Entry("00000.csv", 11, 1000 + 600)
    assert [Seen(cursor).passes(entry) for entry in (*entries, late)] == [True] * len(entries) + [False]


@pytest.mark.parametrize("cursor", [None, "", "contrarreferencias_1.csv", "0 short", "x 0123456789ab0123456789ab"])
def test_a_cursor_that_is_none_is_the_beginning(cursor: str | None) -> None:
    assert not Seen(cursor).passes(Entry("a.csv", 1, 1))


async def test_a_row_is_read_in_the_encoding_agreed(folder: Folder, minna: Adapter) -> None:
    folder.put("a.csv", ROW)
    page = await poll(minna)
    assert isinstance(page, Page)
    [reply] = page.items
    assert (reply.referral_id, reply.event, reply.reason_code) == (REFERRAL, "decline", "no-capacity")
    assert (reply.reason_text, reply.place, reply.occurred_on.isoformat()) == (
        "Sin cupo en el año",
        "Ñemby",
        "2026-11-23",
    )
    assert reply.raw_codes == {"event": "RECHAZADA", "reason_code": "SIN_CUPO"}


BAD_ROWS = {
    "31/02": (ROW.replace("23/11", "31/02"), "fecha", "no such day in the calendar"),
    "iso date": (ROW.replace("23/11/2026", "2026-11-23"), "fecha", "not a dd/mm/yyyy date"),
    "no referral": (ROW.replace(str(REFERRAL), ""), "id_referencia", "missing"),
    "no such referral": (ROW.replace(str(REFERRAL), "17"), "id_referencia", "not a UUID"),
    "unknown event": (ROW.replace("RECHAZADA", "ARCHIVADA"), "evento", "unknown code"),
    "unknown reason": (ROW.replace("SIN_CUPO", "PORQUE_SI"), "motivo", "unknown code"),
    "a column less": (ROW.removesuffix(";"), "", "8 columns, not 9"),
    "a column more": (ROW + ";", "", "10 columns, not 9"),
    "a quote that never ends": (ROW.replace("Sin cupo", '"Sin cupo'), "", "unbalanced quotes"),
    "text after a quote": (ROW.replace("Sin cupo en el año", '"Sin" cupo'), "", "unbalanced quotes"),
    "a lone word": ("fin", "", "1 columns, not 9"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
async def test_a_bad_row_is_named_and_stops_nothing(folder: Folder, minna: Adapter, case: str) -> None:
    row, column, what = BAD_ROWS[case]
    good = [ROW.replace("M-1", f"M-{number}") for number in range(4)]
    folder.put("a.csv", good[0], good[1], row, "", good[2], good[3])
    page = await poll(minna)
    assert isinstance(page, Page)
    assert [reply.message_id for reply in page.items] == ["M-0", "M-1", "M-2", "M-3"]
    assert [(reject.row, reject.column, reject.what) for reject in page.rejects] == [(3, column, what)]
    assert not any(cell in page.rejects[0].masked for cell in row.split(";") if cell)


async def test_a_byte_the_encoding_does_not_have_costs_its_row(folder: Folder, minna: Adapter) -> None:
    folder.put("a.csv", ROW, ROW, ROW)
    content = (folder.outbox / "a.csv").read_bytes()
    cut = content.index(b"\xd1emby", content.index(b"\xd1emby") + 1)
    (folder.outbox / "a.csv").write_bytes(content[:cut] + b"\x81" + content[cut + 1 :])
    page = await poll(minna)
    assert isinstance(page, Page)
    assert len(page.items) == 2
    assert page.rejects == (RejectedRow(2, "lugar", "not in the encoding agreed", "¿a"),)


WRONG_FILES = {
    "html": (b"<!DOCTYPE html><html><body><h1>Error 500</h1></body></html>", "the header lacks comprobante"),
    "empty": (b"", "the file is empty"),
    "truncated in the header": (b"id_mensaje;id_referencia;even", "the header lacks comprobante"),
    "noise": (b"\x00\xff\xfe\x15\x80 no es un archivo \xc3\x28", "the header is not in the encoding agreed"),
    "another delimiter": (f"{OUT}\r\n{ROW}\r\n".replace(";", ",").encode("cp1252"), "the header lacks comprobante"),
    "a column twice": (f"{OUT};evento\r\n{ROW};x\r\n".encode("cp1252"), "the header names a column twice"),
    "utf-16": (f"{OUT}\r\n{ROW}\r\n".encode("utf-16"), "in UTF-16, not the encoding agreed"),
}


@pytest.mark.parametrize("case", WRONG_FILES)
async def test_a_file_that_is_not_the_one_agreed_is_named_and_the_next_is_reached(
    folder: Folder, minna: Adapter, case: str
) -> None:
    content, what = WRONG_FILES[case]
    (folder.outbox / "a.csv").write_bytes(content)
    folder.put("b.csv", ROW)
    page = await poll(minna)
    assert isinstance(page, Page)
    assert (page.items, page.source, page.more) == ((), "a.csv", True)
    assert page.rejects == (RejectedRow(0, "", what),)
    following = await poll(minna, page.cursor)
    assert isinstance(following, Page)
    assert len(following.items) == 1


async def test_a_file_over_the_limit_is_named_and_the_next_is_reached(folder: Folder, tmp_path: Path) -> None:
    changes = {"max_body: 4194304": "max_body: 2048"}
    adapter = connect(tmp_path, "minna", folder.address, host_key=public(KEY), changes=changes)
    folder.put("a.csv", *(ROW for _ in range(50)))
    folder.put("b.csv", ROW)
    page = await poll(adapter)
    assert isinstance(page, Page)
    assert page.rejects == (RejectedRow(0, "", "the file is longer than 2048 bytes"),)
    assert (page.items, page.source, page.more) == ((), "a.csv", True)
    await adapter.close()


async def test_a_large_file_is_read_whole_columns_more_and_other_line_ends_included(
    folder: Folder, minna: Adapter
) -> None:
    rows = [f"{ROW.replace('M-1', f'M-{number}')};x" for number in range(2000)]
    (folder.outbox / "a.csv").write_bytes("\n".join([f"{OUT};extra", *rows]).encode("cp1252"))
    page = await poll(minna)
    assert isinstance(page, Page)
    assert [reply.message_id for reply in page.items] == [f"M-{number}" for number in range(2000)]


@pytest.mark.parametrize("text", ["=1+1", "+595 21", "-x", "@SUM(A1)", "=cmd|'/c calc'!A0"])
async def test_what_a_spreadsheet_would_run_is_neutralised(folder: Folder, minna: Adapter, text: str) -> None:
    assert isinstance(await send(minna, reason_text=text, surnames=text), Taken)
    row = (folder.inbox / f"{REFERRAL}.csv").read_text(encoding="utf-8").splitlines()[1]
    assert (row.split(";")[6], row.split(";")[12]) == (f"'{text}", f"'{text}")


def test_a_character_the_encoding_does_not_have_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        write_row(["a"], {"a": "g̃uahẽ"}, {"encoding": "cp1252", "delimiter": ";"})


async def test_a_referral_the_encoding_cannot_hold_is_rejected_unsent(folder: Folder, tmp_path: Path) -> None:
    changes = {"encoding: utf-8": "encoding: cp1252"}
    adapter = connect(tmp_path, "minna", folder.address, host_key=public(KEY), changes=changes)
    outcome = await send(adapter, given_names="G̃uahẽ")
    assert isinstance(outcome, Rejected)
    assert outcome.code == "incomplete-message"
    assert folder.logins == 0


REGISTER = """
name: registro
institution: SFP
kind: file
auth: {type: none}
limits: {budget_s: 5, max_body: 4096}
retry: {attempts: 1}
bulk:
  payroll:
    request: {folder: /publicado, match: "r*", delimiter: ";"}
    subject: {system: cedula, field: cedula}
    fields: {cedula: {from: documento, through: [cedula], required: true}, surnames: apellidos}
"""
ROWS = b"documento;apellidos\n1;P\xe1ez\nx;Ruiz\n2;L\xf3pez\n"


class Published:
    """A folder of this machine with registers, and the adapter that takes them."""

    def __init__(self, root: Path, request: str = "") -> None:
        self.folder = root / "datos" / "publicado"
        self.folder.mkdir(parents=True)
        (root / "manifests").mkdir()
        text = REGISTER.replace('delimiter: ";"', f'delimiter: ";"{request}')
        (root / "manifests" / "registro.yaml").write_text(text, encoding="utf-8")
        connections = root / "connections.yaml"
        connections.write_text(f"registro: {{address: 'file://{root / 'datos'}'}}", encoding="utf-8")
        adapter = load_adapters([root / "manifests"], connections, None).named("registro")
        assert isinstance(adapter, FileAdapter)
        self.adapter = adapter
        self.adapter.still_s = 0.001

    async def bulk(self, *taken: bytes) -> Any:
        return await self.adapter.bulk(permit("register.take", "SFP", "payroll"), "payroll", taken)

    async def name(self, *taken: bytes) -> str:
        """The name of the register that comes, or of the outcome that comes instead."""
        outcome = await self.bulk(*taken)
        if isinstance(outcome, NotFound):
            return ""
        await outcome.close()
        return str(outcome.name)


async def rows_of(register: Register, after: int = 0) -> list[Row | RejectedRow]:
    return [row async for batch in register.rows(after) for row in batch]


async def test_a_register_is_read_from_its_copy_and_again_from_any_row(tmp_path: Path) -> None:
    published = Published(tmp_path)
    (published.folder / "r1.csv").write_bytes(ROWS)
    register = await published.bulk()
    (published.folder / "r1.csv").unlink()
    assert (register.name, register.sha256) == ("r1.csv", sha256(ROWS))
    assert register.provenance.raw_sha256 == sha256(ROWS)
    expected = [
        Row(1, {"cedula": "1", "surnames": "Páez"}),
        RejectedRow(2, "documento", "not a cédula", "a"),
        Row(3, {"cedula": "2", "surnames": "López"}),
    ]
    assert await rows_of(register) == expected
    assert await rows_of(register, after=1) == expected[1:]
    await register.close()
    assert await published.name(sha256(ROWS)) == ""


async def test_registers_come_by_name_each_content_once_and_unfinished_ones_not(tmp_path: Path) -> None:
    published = Published(tmp_path)
    for name in ("r2.csv", "r1.csv.part", ".r0.csv", "r0.tmp", "x.csv", "r9\n.csv"):
        (published.folder / name).write_bytes(ROWS)
    (published.folder / "r0").mkdir()
    (published.folder / "r3.csv").write_bytes(ROWS + b"3;Gim\n")
    (published.folder / "r4.csv").symlink_to(published.folder / "r2.csv")
    assert await published.name() == "r2.csv"
    assert await published.name(sha256(ROWS)) == "r3.csv"
    (published.folder / "r1.csv").write_bytes(ROWS + b"4;Sosa\n")
    assert await published.name(sha256(ROWS), sha256(ROWS + b"3;Gim\n")) == "r1.csv"
    assert await published.name(*(sha256(ROWS + more) for more in (b"", b"3;Gim\n", b"4;Sosa\n"))) == ""


async def test_a_file_that_still_grows_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = Published(tmp_path)
    (published.folder / "r1.csv").write_bytes(ROWS)

    async def grow(_seconds: float) -> None:
        with (published.folder / "r1.csv").open("ab") as file:
            file.write(b"5;Ruiz\n")

    with monkeypatch.context() as patched:
        patched.setattr("adapters.files.adapter.asyncio.sleep", grow)
        assert await published.name() == ""
    assert await published.name() == "r1.csv"


async def test_a_file_with_a_sum_is_taken_when_its_side_file_is_there_and_right(tmp_path: Path) -> None:
    published = Published(tmp_path, ", checksum: sha256")
    (published.folder / "r1.csv").write_bytes(ROWS)
    assert await published.name() == ""
    side = published.folder / "r1.csv.sha256"
    side.write_text("0" * 64, encoding="ascii")
    (published.folder / "r2.csv").write_bytes(ROWS)
    (published.folder / "r2.csv.sha256").write_text(f"{sha256(ROWS).hex()}  r2.csv\n", encoding="ascii")
    assert await published.name() == "r2.csv"
    outcome = await published.bulk(sha256(ROWS))
    assert isinstance(outcome, Malformed)
    assert outcome.reason == "not the sha256 sum agreed"
    side.write_text(sha256(ROWS).hex(), encoding="ascii")
    assert await published.name() == "r1.csv"


async def test_a_register_too_long_is_named_once_nothing_else_waits(tmp_path: Path) -> None:
    published = Published(tmp_path)
    (published.folder / "r1.csv").write_bytes(ROWS + b"3;" + b"x" * 5000)
    (published.folder / "r2.csv").write_bytes(ROWS)
    assert await published.name() == "r2.csv"
    outcome = await published.bulk(sha256(ROWS))
    assert isinstance(outcome, Malformed)
    assert outcome.reason == "the file is longer than 4096 bytes"


async def test_the_files_of_an_archive_are_one_register(tmp_path: Path) -> None:
    published = Published(tmp_path, ", zip: true")
    with zipfile.ZipFile(published.folder / "r.zip", "w") as archive:
        archive.writestr("a.csv", ROWS)
        archive.writestr("b.csv", "documento;apellidos\n7;Vera\n")
    register = await published.bulk()
    rows = await rows_of(register)
    await register.close()
    assert [row.facts["cedula"] for row in rows if isinstance(row, Row)] == ["1", "2", "7"]
    assert len({row.row for row in rows}) == 4


async def test_a_file_that_is_no_register_breaks_the_contract_when_it_is_read(tmp_path: Path) -> None:
    published = Published(tmp_path, ", columns: [documento, apellidos]")
    (published.folder / "r1.csv").write_bytes(b"<html>\n")
    register = await published.bulk()
    with pytest.raises(ContractBroken, match="the header lacks"):
        await rows_of(register)
    await register.close()


async def test_a_folder_that_leads_outside_or_is_not_there_is_unavailable(tmp_path: Path) -> None:
    published = Published(tmp_path)
    published.folder.rmdir()
    assert (await published.bulk()).reason == "folder: FileNotFoundError"
    published.folder.symlink_to(tmp_path)
    assert (await published.bulk()).reason == "folder: PermissionError"


async def test_a_register_comes_over_sftp_and_is_not_fetched_again_unchanged(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "manifests").mkdir()
    text = REGISTER.replace("auth: {type: none}", "auth: {type: password, username: siis, secret: clave}")
    (tmp_path / "manifests" / "registro.yaml").write_text(text.replace("/publicado", "/salida"), encoding="utf-8")
    (tmp_path / "clave").write_text("clave-ñ", encoding="utf-8")
    entry = {"registro": {"address": folder.address, "host_key": public(KEY)}}
    (tmp_path / "connections.yaml").write_text(json.dumps(entry), encoding="utf-8")
    adapters = load_adapters([tmp_path / "manifests"], tmp_path / "connections.yaml", tmp_path)
    adapter = adapters.named("registro")
    assert isinstance(adapter, FileAdapter)
    adapter.still_s = 0.001
    (folder.outbox / "r1.csv").write_bytes(ROWS)
    given = permit("register.take", "SFP", "payroll")
    register = await adapter.bulk(given, "payroll", ())
    assert not isinstance(register, NotFound | Rejected | Unavailable | Malformed)
    assert len(await rows_of(register)) == 3
    await register.close()
    monkeypatch.setattr("adapters.files.adapter.Spool", None)
    assert isinstance(await adapter.bulk(given, "payroll", (sha256(ROWS),)), NotFound)
    await adapters.close()


async def test_a_referral_goes_into_a_folder_of_this_machine_as_over_sftp(tmp_path: Path) -> None:
    (tmp_path / "d" / "entrada").mkdir(parents=True)
    minna = connect(tmp_path, "minna", f"file://{tmp_path / 'd'}")
    assert isinstance(await send(minna), Taken)
    assert isinstance(await send(minna), AlreadyTaken)
    assert [file.name for file in (tmp_path / "d" / "entrada").iterdir()] == [f"{REFERRAL}.csv"]


@pytest.mark.parametrize(
    ("manifest", "address", "field"),
    [
        ({}, "file://otra/carpeta", "registro.address"),
        ({}, "sftp://127.0.0.1", "auth.type"),
        ({'delimiter: ";"': 'delimiter: ";", header_rows: 0, header: [a], columns: [b]'}, "", "bulk.payroll.request"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_read(
    tmp_path: Path, manifest: dict[str, str], address: str, field: str
) -> None:
    text = REGISTER
    for old, new in manifest.items():
        text = text.replace(old, new)
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "registro.yaml").write_text(text, encoding="utf-8")
    entry = {"address": address} | ({"host_key": public(KEY)} if address.startswith("sftp") else {})
    connections = {"registro": entry} if address else {}
    (tmp_path / "connections.yaml").write_text(json.dumps(connections), encoding="utf-8")
    with pytest.raises(ManifestError) as refused:
        load_adapters([tmp_path / "manifests"], tmp_path / "connections.yaml", None)
    assert refused.value.field == field


async def test_the_newest_register_comes_last_and_ten_behind_nine(tmp_path: Path) -> None:
    published = Published(tmp_path)
    for name, modified in (("r2026_9.csv", 100), ("r2026_10.csv", 100), ("r_old.csv", 50)):
        file = published.folder / name
        file.write_bytes(ROWS + name.encode())
        os.utime(file, (modified, modified))
    names, taken = [], []
    while isinstance(outcome := await published.bulk(*taken), FileRegister):
        names.append(outcome.name)
        taken.append(outcome.sha256)
        await outcome.close()
    assert names == ["r_old.csv", "r2026_9.csv", "r2026_10.csv"]
