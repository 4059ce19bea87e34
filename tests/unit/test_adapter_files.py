"""The file kind over a real SFTP server: a file per referral, files of replies, and rows that are bad one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import pytest_asyncio
from adapter_examples import REFERRAL, closed_address, connect, poll, send, server

from adapters.files.csvfile import WrongFile, read_rows, write_row
from adapters.models import Adapter, AlreadyTaken, Page, Rejected, RejectedRow, Taken, Unavailable

KEY = asyncssh.generate_private_key("ssh-ed25519")
OTHER = asyncssh.generate_private_key("ssh-ed25519")
IN = (
    "id_referencia;servicio;origen;tipo_documento;numero_documento;nombres;apellidos;fecha_nacimiento;sexo;"
    "departamento;distrito;motivo;detalle;prioridad;emitida;limite"
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
        "Sin el servicio;routine;2026-11-22T10:00:00Z;22/12/2026",
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
    assert ([reply.message_id for reply in first.items], first.cursor, first.more) == (["c_1.csv"], "c_1.csv", True)
    second = await poll(minna, first.cursor)
    assert isinstance(second, Page)
    assert ([reply.message_id for reply in second.items], second.cursor, second.more) == (["c_2.csv"], "c_2.csv", False)
    third = await poll(minna, second.cursor)
    assert isinstance(third, Page)
    assert (third.items, third.cursor, third.more) == ((), "c_2.csv", False)
    assert third.provenance.raw_sha256 is None


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
    "31/02": (ROW.replace("23/11", "31/02"), "occurred_on", "no such day in the calendar"),
    "iso date": (ROW.replace("23/11/2026", "2026-11-23"), "occurred_on", "not a dd/mm/yyyy date"),
    "no referral": (ROW.replace(str(REFERRAL), ""), "referral_id", "missing"),
    "no such referral": (ROW.replace(str(REFERRAL), "17"), "referral_id", "not a UUID"),
    "unknown event": (ROW.replace("RECHAZADA", "ARCHIVADA"), "event", "unknown code"),
    "unknown reason": (ROW.replace("SIN_CUPO", "PORQUE_SI"), "reason_code", "unknown code"),
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
    assert page.rejects == (RejectedRow(3, column, what),)


async def test_a_byte_the_encoding_does_not_have_costs_its_row(folder: Folder, minna: Adapter) -> None:
    folder.put("a.csv", ROW, ROW, ROW)
    content = (folder.outbox / "a.csv").read_bytes()
    cut = content.index(b"\xd1emby", content.index(b"\xd1emby") + 1)
    (folder.outbox / "a.csv").write_bytes(content[:cut] + b"\x81" + content[cut + 1 :])
    page = await poll(minna)
    assert isinstance(page, Page)
    assert len(page.items) == 2
    assert page.rejects == (RejectedRow(2, "lugar", "not in the encoding agreed"),)


WRONG_FILES = {
    "html": b"<!DOCTYPE html><html><body><h1>Error 500</h1></body></html>",
    "empty": b"",
    "truncated in the header": b"id_mensaje;id_referencia;even",
    "noise": b"\x00\xff\xfe\x15\x80 no es un archivo \xc3\x28",
    "another delimiter": f"{OUT}\r\n{ROW}\r\n".replace(";", ",").encode("cp1252"),
    "a column twice": f"{OUT};evento\r\n{ROW};x\r\n".encode("cp1252"),
    "utf-16": f"{OUT}\r\n{ROW}\r\n".encode("utf-16"),
}


@pytest.mark.parametrize("case", WRONG_FILES)
async def test_a_file_that_is_not_the_one_agreed_is_named_and_the_next_is_reached(
    folder: Folder, minna: Adapter, case: str
) -> None:
    (folder.outbox / "a.csv").write_bytes(WRONG_FILES[case])
    folder.put("b.csv", ROW)
    page = await poll(minna)
    assert isinstance(page, Page)
    assert (page.items, page.cursor, page.more) == ((), "a.csv", True)
    assert page.rejects == (RejectedRow(0, "", "not the header agreed"),)
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
    assert (page.items, page.cursor, page.more) == ((), "a.csv", True)
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


def test_a_cell_with_delimiter_or_quote_is_read_back_as_it_was() -> None:
    spec = {"encoding": "utf-8", "delimiter": ";", "columns": ["a", "b"]}
    values = {"a": 'di "sí"; no', "b": "x"}
    assert list(read_rows(write_row(["a", "b"], values, spec), spec)) == [(1, values)]


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


def test_a_header_without_the_columns_agreed_is_a_wrong_file() -> None:
    with pytest.raises(WrongFile):
        list(read_rows(b"a;c\r\n1;2\r\n", {"encoding": "utf-8", "delimiter": ";", "columns": ["a", "b"]}))
