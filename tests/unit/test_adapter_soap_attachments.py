"""The SOAP kind and answers in several parts: MTOM, swaRef, line ends, and what a multipart message must not do."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import httpx
import pytest
from adapter_examples import connect, fetch
from lxml import etree

from adapters.errors import ContractBroken
from adapters.models import Found, Malformed
from adapters.soap.attachments import open_answer
from adapters.soap.message import SOAP_11, content_of

XOP = 'xmlns:xop="http://www.w3.org/2004/08/xop/include"'
BINARY = bytes(range(256)) + b"\r\n--other\r\n\n\r"
PDF = base64.b64encode(BINARY).decode()
MTOM = 'multipart/related; type="application/xop+xml"; start="<root@x>"; start-info="text/xml"; boundary="b-1"'
ROOT = ("Content-Type: application/xop+xml; charset=utf-8; type=text/xml", "Content-ID: <root@x>")
FILE = ("Content-Type: application/pdf", "Content-Transfer-Encoding: binary", "Content-ID: <acta 1@x>")


def soap(content: str) -> bytes:
    return f'<S:Envelope xmlns:S="{SOAP_11}" {XOP}><S:Body>{content}</S:Body></S:Envelope>'.encode()


def parts(*each: tuple[tuple[str, ...], bytes], end: bytes = b"\r\n", close: bytes = b"--") -> bytes:
    raw = b""
    for headers, content in each:
        raw += b"--b-1" + end + b"".join(line.encode() + end for line in headers) + end + content + end
    return raw + b"--b-1" + close + end


def included(href: str = "cid:acta%201@x") -> bytes:
    return soap(f'<r><acta><xop:Include href="{href}"/></acta><n>Ñ</n></r>')


def opened(body: bytes, media: str = MTOM) -> dict[str, str | None]:
    envelope, attachments = open_answer(body, media)
    content = content_of(envelope, SOAP_11)
    assert isinstance(content, etree._Element)
    attachments.place(content)
    return {child.tag: child.text for child in content}


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("preamble", [b"", b"\r\n", b"This is a message in parts\r\n"])
def test_a_part_comes_where_it_is_included_byte_for_byte(end: bytes, preamble: bytes) -> None:
    body = preamble + parts((ROOT, included()), (FILE, BINARY), end=end)
    assert opened(body) == {"acta": PDF, "n": "Ñ"}


def test_the_envelope_is_the_part_that_start_names_else_the_first() -> None:
    assert opened(parts((FILE, BINARY), (ROOT, included()))) == {"acta": PDF, "n": "Ñ"}
    plain = ("Content-Type: text/xml", "Content-ID: <acta@x>")
    body = parts((plain[:1], b"\xef\xbb\xbf" + soap("<r><n>x</n></r>")), (plain, b"other"))
    assert opened(body, "Multipart/Related; boundary=b-1; type=text/xml;") == {"n": "x"}


def test_a_text_that_is_the_address_of_a_part_becomes_the_part() -> None:
    body = parts(
        (ROOT, soap("<r><a>cid:acta 1@x</a><b>cid:nada</b><c>cid</c></r>")),
        ((*FILE[:1], "content-transfer-encoding: base64", FILE[2]), base64.encodebytes(BINARY)),
    )
    assert opened(body) == {"a": PDF, "b": "cid:nada", "c": "cid"}


def test_the_charset_is_that_of_the_part() -> None:
    latin = (ROOT[0].replace("utf-8", "iso-8859-1"), *ROOT[1:], "Content-Transfer-Encoding: quoted-printable")
    body = soap("<r><n>Ñ</n></r>").decode().replace("=", "=3D").replace("Ñ", "=D1").encode()
    assert opened(parts((latin, body))) == {"n": "Ñ"}


WHOLE = parts((ROOT, included()), (FILE, BINARY))
BROKEN = {
    "no boundary": (WHOLE, "multipart/related; type=text/xml"),
    "another boundary": (WHOLE, "multipart/related; boundary=b-2"),
    "a boundary that is none": (WHOLE, 'multipart/related; boundary="b\t1"'),
    "multipart of another kind": (WHOLE, "multipart/form-data; boundary=b-1"),
    "cut short": (WHOLE[:-20], MTOM),
    "without its end": (parts((ROOT, included()), (FILE, BINARY), close=b""), MTOM),
    "no part at all": (b"--b-1--\r\n", MTOM),
    "mixed line ends": (parts((ROOT, included()), (FILE, b"x")).replace(b"x\r\n", b"x\n"), MTOM),
    "start names nothing": (WHOLE, MTOM.replace("root@x", "nobody@x")),
    "the first part is no SOAP": (parts((FILE, BINARY)), "multipart/related; boundary=b-1"),
    "headers without end": (b"--b-1\r\nContent-Type: text/xml\r\n--b-1--\r\n", MTOM),
    "headers twice": (parts((("Content-ID: <a>", "Content-Id: <b>"), b"x")), MTOM),
    "headers too long": (parts((("X: " + "y" * 9000,), b"x")), MTOM),
    "one id twice": (parts((ROOT, included()), (FILE, b"1"), (FILE, b"2")), MTOM),
    "no such part": (parts((ROOT, included("cid:nobody")), (FILE, BINARY)), MTOM),
    "not an address of a part": (parts((ROOT, included("http://a.example/x")), (FILE, BINARY)), MTOM),
    "one part used twice": (
        parts((ROOT, included().replace(b"<n>", b'<m><xop:Include href="cid:acta%201@x"/></m><n>')), (FILE, BINARY)),
        MTOM,
    ),
    "an include beside a text": (parts((ROOT, included().replace(b"<acta>", b"<acta>x")), (FILE, BINARY)), MTOM),
    "not base64": (parts((ROOT, included()), ((*FILE[:1], "Content-Transfer-Encoding: base64", FILE[2]), b"*")), MTOM),
    "an unknown encoding": (parts((ROOT, included()), ((FILE[0], "Content-Transfer-Encoding: x", FILE[2]), b"")), MTOM),
    "too many parts": (parts((ROOT, included()), *(((f"Content-ID: <{n}>",), b"") for n in range(64))), MTOM),
    "a doctype in the part": (parts((ROOT, b"<!DOCTYPE x>" + included()), (FILE, BINARY)), MTOM),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_multipart_answer_that_is_not_well_made_is_refused(case: str) -> None:
    body, media = BROKEN[case]
    with pytest.raises(ContractBroken) as broken:
        opened(body, media)
    assert "acta" not in broken.value.reason


PERSONS = "http://identificaciones.ws.sii.senatics.gov.py/"
RECORD = "<apellido>N</apellido><cedula>4123456</cedula><fechNacim>1980-02-29</fechNacim><nombres>{}</nombres>"


def answer(record: str) -> bytes:
    name = (
        f'<n:findPersonaByCedulaResponse xmlns:n="{PERSONS}"><return>{record}</return></n:findPersonaByCedulaResponse>'
    )
    return parts((ROOT, soap(name)), (FILE, BINARY))


async def test_the_digest_of_an_answer_is_that_of_all_its_bytes(tmp_path: Path) -> None:
    body = answer(RECORD.format('<xop:Include href="cid:acta%201@x"/>'))
    replied = httpx.Response(200, content=body, headers={"content-type": MTOM})
    transport = httpx.MockTransport(lambda _request: replied)
    adapter = connect(tmp_path, "identificaciones-soap", "http://127.0.0.1:9", transport=transport)
    outcome = await fetch(adapter)
    assert isinstance(outcome, Found)
    assert outcome.facts["given_names"] == PDF
    assert outcome.provenance.raw_sha256 == hashlib.sha256(body).digest()


async def test_an_include_in_an_answer_without_parts_is_malformed(tmp_path: Path) -> None:
    body = answer(RECORD.format('<xop:Include href="cid:acta%201@x"/>'))
    body = body[body.index(b"<S:Env") : body.index(b"\r\n--b-1", 10)]
    replied = httpx.Response(200, content=body, headers={"content-type": "text/xml"})
    transport = httpx.MockTransport(lambda _request: replied)
    adapter = connect(tmp_path, "identificaciones-soap", "http://127.0.0.1:9", transport=transport)
    outcome = await fetch(adapter)
    assert isinstance(outcome, Malformed)
    assert outcome.reason == "nombres: elements where a value belongs"
