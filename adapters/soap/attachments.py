"""Decides what an answer in several parts is: its SOAP envelope, and attachments put where the envelope refers to them.

multipart/related (RFC 2387) as MTOM and XOP 1.0, SOAP with Attachments and swaRef use it. Lines may end in CRLF, or
in LF throughout: the end of the first delimiter line decides for all.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from urllib.parse import unquote

from lxml import etree

from adapters.errors import ContractBroken
from adapters.soap.message import open_envelope

_INCLUDE = "{http://www.w3.org/2004/08/xop/include}Include"
_ROOTS = ("text/xml", "application/soap+xml", "application/xop+xml")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]\Z", re.ASCII)
_MOST_PARTS = 64
_MOST_HEADER_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True)
class _Part:
    media: str
    id: str
    content: bytes


class Attachments:
    """The parts of an answer beside its envelope, by Content-ID; each may be used once."""

    def __init__(self, parts: dict[str, bytes]) -> None:
        self._parts = parts

    def place(self, element: etree._Element) -> None:
        """Put each part where a text below an element is its ``cid:`` address (swaRef), in base64."""
        if not self._parts:
            return
        for each in element.iter():
            address = (each.text or "").strip()
            if not len(each) and address.startswith("cid:") and self._known(address) is not None:
                each.text = self._taken(address)

    def include(self, envelope: etree._Element) -> None:
        """Put each part in the place of the xop:Include that names it, in base64 (XOP 1.0 clause 3.2).

        Raises ContractBroken for one that names no part, or one named before.
        """
        for include in list(envelope.iter(_INCLUDE)):
            holder = include.getparent()
            if holder is None or len(holder) != 1 or (holder.text or "").strip() or (include.tail or "").strip():
                raise ContractBroken("an xop:Include is not all that its element holds")
            text = self._taken(include.get("href", ""))
            holder.remove(include)
            holder.text = text

    def __len__(self) -> int:
        """Count the parts not used yet."""
        return len(self._parts)

    def _known(self, address: str) -> str | None:
        name = address.removeprefix("cid:")
        return next((each for each in (name, unquote(name)) if each in self._parts), None)

    def _taken(self, address: str) -> str:
        name = self._known(address) if address.startswith("cid:") else None
        if name is None:
            raise ContractBroken("the answer refers to a part that is not there, or twice to one")
        return base64.b64encode(self._parts.pop(name)).decode()


def open_answer(body: bytes, content_type: str) -> tuple[etree._Element, Attachments]:
    """Return the envelope of an answer, with what it includes in place, and its other parts.

    Raises ContractBroken, the text never holding content.
    """
    if not content_type.lstrip().lower().startswith("multipart/"):
        return open_envelope(body, content_type), Attachments({})
    header = _header(content_type)
    if header.get_content_type() != "multipart/related":
        raise ContractBroken("a multipart answer that is not multipart/related")
    parts = [_part(*each) for each in _split(body, _parameter(header, "boundary"))]
    ids = [part.id for part in parts if part.id]
    if len(set(ids)) != len(ids):
        raise ContractBroken("two parts of the answer have one Content-ID")
    start = _parameter(header, "start").strip("<>")
    root = next((part for part in parts if part.id == start), None) if start else parts[0] if parts else None
    if root is None or _header(root.media).get_content_type() not in _ROOTS:
        raise ContractBroken("the first part of the answer is not SOAP")
    envelope = open_envelope(root.content, root.media)
    attachments = Attachments({part.id: part.content for part in parts if part.id and part is not root})
    attachments.include(envelope)
    return envelope, attachments


def _header(content_type: str) -> Message:
    header = Message()
    if not (content_type.isascii() and content_type.isprintable()):
        raise ContractBroken("a Content-Type that is not plain text")
    header["Content-Type"] = content_type
    return header


def _parameter(header: Message, name: str) -> str:
    value = header.get_param(name, "")
    # A tuple is the extended form of RFC 2231, which none of these parameters needs.
    return value if isinstance(value, str) else ""


def _split(body: bytes, boundary: str) -> Iterator[tuple[dict[str, str], bytes]]:
    """Give headers and content of each part (RFC 2046 clause 5.1.1)."""
    if not _BOUNDARY.match(boundary):
        raise ContractBroken("a multipart answer without a usable boundary")
    delimiter = b"--" + boundary.encode()
    first = re.compile(rb"(?:\A|\n)" + re.escape(delimiter) + rb"[ \t]*(\r?\n)").search(body)
    if first is None:
        raise ContractBroken("the multipart answer does not begin")
    end_of_line = first[1]
    line = re.compile(
        re.escape(end_of_line + delimiter) + rb"(?:(--)[ \t]*(?:\r?\n|\Z)|[ \t]*" + re.escape(end_of_line) + rb")"
    )
    # A part without headers begins with the empty line, which then is also the end of the delimiter line.
    place = first.end() - len(end_of_line)
    for _number in range(_MOST_PARTS):
        found = line.search(body, place)
        if found is None:
            raise ContractBroken("the multipart answer is cut short")
        yield _headed(body[place : found.start()], end_of_line)
        if found[1]:
            return
        place = found.end() - len(end_of_line)
    raise ContractBroken(f"the answer has more than {_MOST_PARTS} parts")


def _headed(part: bytes, end_of_line: bytes) -> tuple[dict[str, str], bytes]:
    head, blank, content = part.partition(end_of_line * 2)
    if not blank or len(head) > _MOST_HEADER_BYTES:
        raise ContractBroken("a part of the answer has no end of its headers")
    headers: dict[str, str] = {}
    unfolded = re.sub(re.escape(end_of_line) + rb"[ \t]+", b" ", head)
    for line in unfolded.split(end_of_line):
        if not line:
            continue
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or name.lower() in headers:
            raise ContractBroken("a part of the answer has headers that cannot be read")
        headers[name.strip().lower()] = value.strip()
    return headers, content


def _part(headers: dict[str, str], content: bytes) -> _Part:
    encoding = headers.get("content-transfer-encoding", "binary").lower()
    try:
        if encoding == "base64":
            content = base64.b64decode(b"".join(content.split()), validate=True)
        elif encoding == "quoted-printable":
            content = binascii.a2b_qp(content)
        elif encoding not in ("7bit", "8bit", "binary"):
            raise ContractBroken("a part of the answer is in an unknown Content-Transfer-Encoding")
    except ValueError:
        raise ContractBroken("a part of the answer is not base64") from None
    return _Part(headers.get("content-type", "text/plain"), headers.get("content-id", "").strip("<>"), content)
