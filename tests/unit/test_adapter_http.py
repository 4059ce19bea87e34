"""The way out over HTTP on real sockets: what a failure means, how much is read, and what is never done."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from adapter_examples import (
    REFERRAL,
    answering,
    closed_address,
    connect,
    fetch,
    hanging,
    http,
    read_request,
    resetting,
    send,
    server,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from adapters.models import Malformed, Taken, Unavailable

TAKEN = http(201, b'{"numero": "7"}')
ONCE = {"attempts: 3": "attempts: 1"}


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("truncated", b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{"),
        ("truncated chunk", b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"),
        ("nothing", b""),
    ],
)
async def test_half_an_answer_is_unavailable_with_effect_unknown(tmp_path: Path, name: str, answer: bytes) -> None:
    async with server(answering(answer)) as address:
        outcome = await send(connect(tmp_path, "mspbs", address))
    assert isinstance(outcome, Unavailable)
    assert outcome.effect_unknown
    assert outcome.reason in ("answer cut short", "connection lost")
    assert outcome.provenance.attempts == 3


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\x01\x02 no HTTP\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        TAKEN.replace(b"\r\n", "\r\nX-Oficina: Asunción\r\n".encode("latin-1"), 1),
    ],
    ids=["bytes", "no status", "header not ASCII"],
)
async def test_what_is_no_http_is_malformed(tmp_path: Path, answer: bytes) -> None:
    async with server(answering(answer)) as address:
        outcome = await send(connect(tmp_path, "mspbs", address))
    assert isinstance(outcome, Malformed)
    assert (outcome.reason, outcome.effect_unknown) == ("the answer is not HTTP", True)


async def test_a_reset_after_the_request_leaves_the_effect_unknown(tmp_path: Path) -> None:
    async with server(resetting) as address:
        outcome = await send(connect(tmp_path, "mspbs", address))
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.effect_unknown) == ("connection lost", True)


async def test_a_refused_connection_had_no_effect(tmp_path: Path) -> None:
    outcome = await send(connect(tmp_path, "mspbs", closed_address()))
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.effect_unknown) == ("connection failed", False)


async def test_a_name_that_does_not_resolve_had_no_effect(tmp_path: Path) -> None:
    outcome = await send(connect(tmp_path, "mspbs", "https://nowhere.invalid"))
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.effect_unknown) == ("connection failed", False)


async def test_a_reset_is_survived_by_the_next_attempt(tmp_path: Path) -> None:
    seen = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(1)
        await (resetting if len(seen) == 1 else answering(TAKEN))(reader, writer)

    async with server(handler) as address:
        outcome = await send(connect(tmp_path, "mspbs", address))
    assert isinstance(outcome, Taken)
    assert outcome.provenance.attempts == 2


async def test_an_answer_slower_than_the_budget_is_a_timeout_and_its_connection_is_closed(tmp_path: Path) -> None:
    closed = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        assert await reader.read() == b""
        closed.set()

    async with server(handler) as address:
        outcome = await send(connect(tmp_path, "mspbs", address, changes={"budget_s: 5": "budget_s: 0.2"}))
        assert isinstance(outcome, Unavailable)
        assert (outcome.reason, outcome.effect_unknown) == ("timeout", True)
        async with asyncio.timeout(10):
            await closed.wait()


async def test_an_answer_that_drips_is_a_timeout(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 1000\r\n\r\n{")
        await hanging(reader, writer)

    async with server(handler) as address:
        outcome = await send(connect(tmp_path, "mspbs", address, changes={"budget_s: 5": "budget_s: 0.2"}))
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.effect_unknown) == ("timeout", True)


@pytest.mark.parametrize("declared", [True, False])
async def test_a_huge_answer_is_left_unread(tmp_path: Path, declared: bool) -> None:
    written = 0
    ended = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        length = b"Content-Length: 999999999\r\n" if declared else b""
        writer.write(b"HTTP/1.1 201 Created\r\n" + length + b"\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
                written += 65536
        finally:
            ended.set()

    async with server(handler) as address:
        outcome = await send(connect(tmp_path, "mspbs", address))
        async with asyncio.timeout(10):
            await ended.wait()
    assert isinstance(outcome, Malformed)
    assert outcome.reason == "the answer is longer than 65536 bytes"
    assert written < 64 * 1024 * 1024


async def test_redirects_are_not_followed_and_carry_nothing_elsewhere(tmp_path: Path) -> None:
    asked = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await read_request(reader))
        writer.write(TAKEN)

    async with server(elsewhere) as target:
        redirect = http(307, b"", Location=f"{target}/api/derivaciones")
        async with server(answering(redirect)) as address:
            outcome = await send(connect(tmp_path, "mspbs", address))
    assert isinstance(outcome, Malformed)
    assert (outcome.reason, outcome.effect_unknown) == ("http 307: redirects are not followed", False)
    assert asked == []


async def test_cookies_of_one_answer_do_not_travel_with_the_next_request(tmp_path: Path) -> None:
    asked: list[dict[str, str]] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await read_request(reader))[2])
        writer.write(http(201, b'{"numero": "7"}', Set_Cookie="paciente=4123456"))

    async with server(handler) as address:
        adapter = connect(tmp_path, "mspbs", address)
        for _ in range(2):
            assert isinstance(await send(adapter), Taken)
        assert not list(adapter._client.cookies.jar)  # type: ignore[attr-defined]
    assert [headers.get("cookie") for headers in asked] == [None, None]
    assert {headers["idempotency-key"] for headers in asked} == {str(REFERRAL)}


async def test_a_proxy_of_the_environment_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, closed_address())
    async with server(answering(TAKEN)) as address:
        assert isinstance(await send(connect(tmp_path, "mspbs", address)), Taken)


def certificate(folder: Path) -> ssl.SSLContext:
    """A certificate for this machine that no authority signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "server.pem"
    file.write_bytes(pem + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def test_a_certificate_nobody_vouches_for_is_refused_before_anything_is_said(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()

    listening = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=certificate(tmp_path))
    async with listening:
        address = f"https://localhost:{listening.sockets[0].getsockname()[1]}"
        outcome: Any = await send(connect(tmp_path, "mspbs", address))
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.effect_unknown) == ("certificate refused", False)
    assert outcome.provenance.attempts == 1
    assert b"".join(heard) == b""


async def test_a_caller_who_goes_away_gets_no_outcome_and_leaves_the_place_free(tmp_path: Path) -> None:
    arrived = asyncio.Event()
    answers = iter([False, True])

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if next(answers):
            await answering(TAKEN)(reader, writer)
            return
        await read_request(reader)
        arrived.set()
        await reader.read()

    async with server(handler) as address:
        adapter = connect(tmp_path, "mspbs", address, changes={"concurrency: 16": "concurrency: 1"})
        gone = asyncio.create_task(send(adapter))
        await arrived.wait()
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert isinstance(await send(adapter), Taken)


async def test_a_large_answer_within_the_limit_is_read_whole(tmp_path: Path) -> None:
    text = "x" * 60000
    async with server(answering(http(422, json.dumps({"codigo": "C", "mensaje": text}).encode()))) as address:
        outcome = await send(connect(tmp_path, "mspbs", address))
    assert len(outcome.reason) == 500


async def test_a_person_query_names_its_subject_nowhere_in_a_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = await fetch(connect(tmp_path, "identificaciones", closed_address(), changes=ONCE))
    assert isinstance(outcome, Unavailable)
    told = repr(outcome) + caplog.text + "".join(capsys.readouterr())
    assert "4123456" not in told
    assert "clave" not in told


class Authority:
    """A certificate authority of a test, and what it signs for this machine, each as a PEM of certificate and key."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.pem = self._certificate(self._name, self._key, authority=True)

    def issue(self) -> bytes:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self._certificate(name, key, authority=False) + private

    def _certificate(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> bytes:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


OURS, THEIRS, STRANGE = Authority("nuestra"), Authority("suya"), Authority("ajena")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("tls", "secrets", "reason"),
    [
        (["certificate", "ca"], {"certificate": OURS.issue(), "ca": THEIRS.pem}, None),
        (["ca"], {"ca": THEIRS.pem}, "handshake refused"),
        (["certificate", "ca"], {"certificate": STRANGE.issue(), "ca": THEIRS.pem}, "handshake refused"),
        (["certificate"], {"certificate": OURS.issue()}, "certificate refused"),
        (["certificate", "ca"], {"certificate": OURS.issue(), "ca": STRANGE.pem}, "certificate refused"),
    ],
    ids=["both", "we show none", "ours is not theirs", "theirs is unknown", "theirs is another's"],
)
async def test_both_sides_show_a_certificate_the_other_believes(
    tmp_path: Path, version: ssl.TLSVersion, tls: list[str], secrets: dict[str, bytes], reason: str | None
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=OURS.pem.decode())
    (tmp_path / "server.pem").write_bytes(THEIRS.issue())
    context.load_cert_chain(tmp_path / "server.pem")
    heard: list[bytes] = []

    def serve() -> None:
        """Answer each connection; where the handshake fails, let the other side read why."""
        while True:
            try:
                raw, _peer = listening.accept()
            except OSError:
                return
            with raw:
                try:
                    with context.wrap_socket(raw, server_side=True) as line:
                        heard.append(line.recv(65536))
                        line.sendall(TAKEN)
                except OSError:
                    with contextlib.suppress(OSError):
                        raw.shutdown(socket.SHUT_WR)
                        while raw.recv(65536):
                            pass

    (tmp_path / "secrets").mkdir()
    for name, pem in secrets.items():
        (tmp_path / "secrets" / f"mspbs_{name}").write_bytes(pem)
    named = ", ".join(f"{name}: mspbs_{name}" for name in tls)
    changes = {"kind: rest": f"kind: rest\ntls: {{{named}}}"}
    listening = socket.create_server(("127.0.0.1", 0))
    serving = threading.Thread(target=serve)
    serving.start()
    try:
        adapter = connect(tmp_path, "mspbs", f"https://localhost:{listening.getsockname()[1]}", changes=changes)
        outcome: Any = await send(adapter)
        await adapter.close()
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        serving.join()
    if reason is None:
        assert isinstance(outcome, Taken)
    else:
        assert (type(outcome), outcome.reason, outcome.effect_unknown) == (Unavailable, reason, False)
        assert heard == []
