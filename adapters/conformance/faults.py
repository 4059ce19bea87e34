"""Derives from a recorded answer what an HTTP producer may do, and says what each of it must end in.

The kinds that come with the gateway are held to the letter; one of an installed package may also refuse what they
accept and is free in how it keeps a session, but never returns other facts than those recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from lxml import etree

from adapters.conformance.cases import TRANSPORTS, Example
from adapters.conformance.documents import (
    UNKNOWN_CODE,
    Document,
    JsonDocument,
    TextDocument,
    XmlDocument,
    document_of,
)
from adapters.conformance.server import Act, Request, Script, Unreachable, http
from adapters.conformance.trials import Trial
from adapters.conformance.verbs import MALFORMED, UNAVAILABLE, Bulk, Expected, Fetch, Send, Verb
from adapters.conformance.wire import Carriers, raw, says
from adapters.manifest import Manifest
from adapters.models import Malformed, NotFound, Unavailable
from schemas.text import _

_XML = "text/xml; charset=utf-8"
_HTML = b"<html><body>Mantenimiento</body></html>"
_NOISE = b"\x00\xff\xfe\x15\x80 no es un mensaje \xc3\x28"
_LATIN_1 = "iso-8859-1"
_RENEWABLE = ("sii-session", "oauth2")
#: After these a send had no effect for sure: it was refused before anything was done, or never arrived.
_NOT_ACTED = frozenset(
    {
        "not-there", "redirect", "wrong-path", "too-many-requests", "fault-client", "credentials-refused",
        "token-expired", "session-refused", "session-html",
    }
)  # fmt: skip


class HttpFaults:
    """The trials of one verb over HTTP."""

    def __init__(self, manifest: Manifest, verb: Verb, carriers: Carriers) -> None:
        self._manifest, self._verb, self._carriers, self._carrier = manifest, verb, carriers, carriers.right
        self._ours = manifest.kind in TRANSPORTS
        self._session = manifest.auth["type"] in _RENEWABLE
        self._good = verb.expected(verb.good)
        self._first = verb.good.answers[0]
        self._document = document_of(self._first)
        self._twice = verb.manifest.deduplicates or not verb.effect

    def trials(self) -> Iterator[Trial]:
        """Give them all."""
        for trial in (*self._contract(), *self._transport(), *self._content(), *self._form(), *self._credentials()):
            yield replace(trial, acted=trial.case not in _NOT_ACTED)

    def _contract(self) -> Iterator[Trial]:
        verb, good = self._verb, self._acts(self._verb.good)
        for example in verb.examples.values():
            yield self._trial(example.name, "contract", self._acts(example), verb.expected(example))
        second, acts = Expected((NotFound,)) if isinstance(verb, Bulk) else self._good, good + good
        if isinstance(verb, Send) and "already_taken" in verb.examples:
            known = verb.examples["already_taken"]
            second, acts = verb.expected(known), good + self._acts(known)
        duplicate = self._trial("duplicate", "contract", acts, self._good, second=second)
        if isinstance(verb, Send) and isinstance(duplicate.stage, Script):
            duplicate.stage.asked = _names_the_referral(str(verb.message.key))
        yield duplicate
        if isinstance(verb, Fetch):
            echo = "" if verb.dataset.echo else _("el manifiesto no tiene echo")
            yield self._trial("somebody-else", "contract", good, MALFORMED, other=True, skipped=echo)

    def _transport(self) -> Iterator[Trial]:
        good = self._acts(self._verb.good)
        recovered = self._good if self._twice else UNAVAILABLE

        def case(name: str, act: Act, expected: Expected = UNAVAILABLE, **more: Any) -> Trial:
            return self._trial(name, "transport", [act], expected, **more)

        yield Trial("not-there", "transport", Unreachable(), UNAVAILABLE)
        yield case("slow", raw(b"", "hang"), hangs=True)
        yield case("drip", raw(http(200, b"", "application/json", length=100_000), "drip"), hangs=True)
        yield case("no-answer", raw(b""))
        yield case("reset", raw(b"", "reset"))
        yield self._trial("reset-once", "transport", [raw(b"", "reset"), *good], recovered)
        yield case("half", self._halved())
        yield case("no-http", raw(_NOISE + b"\r\n\r\n"), MALFORMED)
        yield case("compressed", says(200, b"\x1f\x8b", Content_Encoding="gzip"), MALFORMED)
        yield case("redirect", says(302, b"", Location="https://otra.example/"), MALFORMED)
        yield case("wrong-path", says(404, b"<html>404</html>", "text/html"), MALFORMED)
        yield case("too-many-requests", says(429, b"", Retry_After="9"))
        yield case("unavailable", says(503, b"<html>", "text/html"))
        yield self._trial("unavailable-once", "transport", [says(503, b""), *good], recovered)
        yield case("answer-under-500", self._carrier.act(self._first, self._document, status=500))

    def _content(self) -> Iterator[Trial]:
        def case(name: str, act: Act, expected: Expected = MALFORMED, skipped: str = "") -> Trial:
            return self._trial(name, "content", [act, *self._rest()], expected, skipped=skipped)

        padding = b" " * self._manifest.limits.max_body
        yield case("html", says(200, _HTML, "text/html"))
        yield case("empty", says(200, b""))
        yield case("no-content", says(204, b""))
        yield case("noise", says(200, _NOISE))
        yield case("cut", self._changed(lambda body: body[: len(body) // 2]))
        yield case("huge", self._changed(lambda body: body + padding))
        yield case("huge-undeclared", self._changed(lambda body: body + padding, length=-1))
        if isinstance(self._document, XmlDocument):
            yield case("doctype", self._changed(_with_doctype))
        else:
            yield case("doctype", says(200, b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', _XML))
        yield case("another-envelope", says(200, b'<Envelope xmlns="urn:x"><Body/></Envelope>', _XML))
        # A send whose outcomes ask for the status alone says nothing of the answer's content.
        empty = (
            "" if not isinstance(self._verb, Send) or any(self._verb.required()) else _("solo decide el estado HTTP")
        )
        listed = isinstance(self._document, JsonDocument) and isinstance(self._document.value, list)
        yield case("another-message", says(200, b"[{}]" if listed else b"{}"), skipped=empty)
        yield case("another-type", says(200, b"{}" if listed else b"[]"), skipped=empty)
        carrier, first, document = self._carrier, self._first, self._document
        yield case("wrong-charset", carrier.act(first, document, note=True, change=_in_latin_1))
        declared = carrier.act(first, document, charset=_LATIN_1, note=True)
        yield case("declared-charset", declared, self._good if self._ours else self._or_refused())
        if self._carrier.soap:
            yield from self._soap_content(case)
        elif isinstance(self._document, JsonDocument) and isinstance(self._document.value, dict):
            repeated = self._changed(lambda body: b'{"siisExtra":1,"siisExtra":2,' + body[1:])
            yield case("repeated-member", repeated, MALFORMED if self._ours else self._or_refused())

    def _soap_content(self, case: Callable[..., Trial]) -> Iterator[Trial]:
        carrier, first = self._carrier, self._first

        def fault(status: int, old: str, new: str) -> Act:
            def wire(request: Request) -> bytes:
                body, media = carrier.write(carrier.fault(request, old, new), request, "utf-8", False)
                return http(status, body, media)

            return Act(wire)

        disagreeing = carrier.act(first, self._document, charset=_LATIN_1, told="utf-8", note=True)
        yield case("charsets-disagree", disagreeing)
        yield case("fault-server", fault(500, "Server", "Receiver"), UNAVAILABLE)
        yield case("fault-inside-200", fault(200, "Server", "Receiver"), UNAVAILABLE)
        yield case("fault-client", fault(500, "Client", "Sender"))
        yield case("empty-body", self._changed(_emptied))
        yield case("control-character", self._changed(lambda body: body.replace(b"</", b"\x15</", 1)))
        if isinstance(self._document, XmlDocument):
            root = self._document.root
            renamed = etree.fromstring(etree.tostring(root))
            renamed.tag = f"{{urn:otra}}{etree.QName(root).localname}"
            yield case("another-namespace", carrier.act(first, XmlDocument(renamed)))

    def _form(self) -> Iterator[Trial]:
        strict = self._carrier.soap
        lenient = self._good if self._ours else self._or_refused()
        yield self._formed("extra-field", lambda page: page.extra(), MALFORMED if strict else lenient)
        in_order = strict and not _order_is_free(self._manifest, self._document)
        yield self._formed("reordered", lambda page: page.reordered(), MALFORMED if in_order else lenient)
        for name, members in self._verb.required():
            spoilt = self._verb.spoilt(name, members)
            yield self._formed("missing-field", partial(_without, members), spoilt, name)
            if not isinstance(self._verb, Send):
                yield self._formed("other-type", partial(_with, members, {"siis": ["x"]}), spoilt, name)
        for name, members in self._verb.coded():
            spoilt = self._verb.spoilt(name, members, everywhere=False)
            yield self._formed("unknown-code", partial(_with, members, UNKNOWN_CODE), spoilt, name)

    def _credentials(self) -> Iterator[Trial]:
        good = self._acts(self._verb.good)
        yield self._trial("credentials-refused", "credentials", [says(401, b"")], UNAVAILABLE)
        expired = self._trial("token-expired", "credentials", [says(401, b""), *good], UNAVAILABLE)
        if self._session:
            expired = replace(expired, expected=self._good)
            for how, expected in (("refused", UNAVAILABLE), ("html", MALFORMED | Unavailable)):
                yield self._trial(f"session-{how}", "credentials", good, expected, session=how)
        elif not self._ours:
            expired = replace(expired, expected=self._good | Unavailable)
        if isinstance(expired.stage, Script) and self._ours:
            expired.stage.asked = _renewed_once if self._session else _asked_once
        yield expired
        for name, carrier in self._carriers.wrong.items():
            yield self._trial(name, "credentials", carrier.acts(self._verb.good.answers), MALFORMED)

    def _acts(self, example: Example) -> list[Act]:
        return self._carrier.acts(example.answers)

    def _rest(self) -> list[Act]:
        """Return the pages after the first."""
        return self._carrier.acts(self._verb.good.answers[1:])

    def _or_refused(self) -> Expected:
        return self._good | Malformed

    def _halved(self) -> Act:
        """Declare the whole answer and give half of it."""
        whole = self._changed(lambda body: body)
        return Act(lambda request: whole.wire(request)[: -len(self._document.raw()) // 2])

    def _changed(self, change: Callable[[bytes], bytes], *, length: int | None = None) -> Act:
        """Answer with changed bytes; ``length`` is declared in place of theirs, -1 for none."""
        first, carrier, document = self._first, self._carrier, self._document

        def wire(request: Request) -> bytes:
            body, media = carrier.write(document, request, "utf-8", False)
            return http(first.status, change(body), media, first.headers, length)

        return Act(wire)

    def _formed(
        self, case: str, change: Callable[[Document], Document | None], expected: Expected, detail: str = ""
    ) -> Trial:
        """Change every page of a register, and of another answer the first that there is something to change in."""
        pages, acts, changed = self._verb.good.answers, list[Act](), 0
        for answer in pages:
            document = document_of(answer)
            new = None if changed and not isinstance(self._verb, Bulk) else change(document)
            changed += new is not None
            acts.append(self._carrier.act(answer, document if new is None else new))
        if changed:
            return self._trial(case, "form", acts, expected, detail=detail)
        if isinstance(self._document, TextDocument):
            return self._trial(case, "form", [], expected, detail=detail, skipped=_("la respuesta es un texto"))
        if case == "missing-field":
            # A required field that cannot be taken out is not in the example: that is the example's fault.
            return Trial(case, "form", None, expected, detail)
        return self._trial(case, "form", [], expected, detail=detail, skipped=_("el ejemplo no tiene qué cambiar"))

    def _trial(
        self, case: str, group: str, acts: Sequence[Act], expected: Expected, *, session: str = "open", **more: Any
    ) -> Trial:
        path = self._manifest.auth.get("path") if self._session else None
        return Trial(case, group, Script(acts, session_path=path, session=session), expected, **more)


def _without(names: Collection[str], page: Document) -> Document | None:
    return page.without(names)


def _with(names: Collection[str], value: Any, page: Document) -> Document | None:
    return page.replaced(names, value)


def _names_the_referral(referral_id: str) -> Callable[[Script], str | None]:
    def asked(script: Script) -> str | None:
        for request in script.requests:
            told = request.target + "\n".join(request.headers.values()) + request.body.decode("utf-8", "replace")
            if referral_id not in told:
                return _("una referencia salió sin su identificador")
        return None

    return asked


def _renewed_once(script: Script) -> str | None:
    return None if script.sessions == 2 else _("{n} sesiones abiertas, no 2").format(n=script.sessions)


def _asked_once(script: Script) -> str | None:
    return None if len(script.requests) == 1 else _("volvió a preguntar con credenciales rechazadas")


def _order_is_free(manifest: Manifest, document: Document) -> bool:
    """Say whether the WSDL itself lets these elements come in any order (``xs:all``)."""
    if manifest.wsdl is None or not isinstance(document, XmlDocument):
        return False
    description = etree.parse(manifest.folder / "wsdl" / manifest.wsdl, etree.XMLParser(no_network=True))
    groups = [
        {item.get("name") for item in group} for group in description.iter("{http://www.w3.org/2001/XMLSchema}all")
    ]
    return any(document.ordered() <= names for names in groups)


def _in_latin_1(body: bytes) -> bytes:
    """Write in Latin-1 what says to be UTF-8; the word that stands for a note makes sure that it shows."""
    return body.decode().encode(_LATIN_1, "replace")


def _with_doctype(body: bytes) -> bytes:
    """Put a DOCTYPE behind the declaration, which every body written here has."""
    return body.replace(b"?>", b'?><!DOCTYPE a [<!ENTITY b "c">]>', 1)


def _emptied(body: bytes) -> bytes:
    envelope = etree.fromstring(body)
    for child in envelope[-1]:
        envelope[-1].remove(child)
    return etree.tostring(envelope)
