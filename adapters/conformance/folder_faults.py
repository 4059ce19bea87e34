"""Derives from a recorded file what may lie in a folder or happen on the way to it, and what that must end in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapters.conformance.cases import Example
from adapters.conformance.documents import UNKNOWN_CODE
from adapters.conformance.folders import Folder, NoFolder
from adapters.conformance.tables import files_of, table_of
from adapters.conformance.trials import Trial
from adapters.conformance.verbs import UNAVAILABLE, Bulk, Expected, Poll, Send, Verb
from adapters.manifest import Manifest
from adapters.models import AlreadyTaken, NotFound, Page, Taken, Unavailable
from schemas.text import _

_ON_THE_WAY = ("hang", "cut", "noise", "silence", "reset")
_HANGING = ("hang", "silence")


def folder_trials(manifest: Manifest, verb: Verb) -> Iterator[Trial]:
    """Give the trials of a verb."""
    # A kind of an installed package may know no SFTP.
    remote = manifest.auth["type"] == "password"
    if isinstance(verb, Send):
        yield from _sending(manifest, verb, remote)
    elif isinstance(verb, Poll | Bulk):
        yield from _Reading(manifest, verb, remote).trials()


def _sending(manifest: Manifest, verb: Send, remote: bool) -> Iterator[Trial]:
    folder: Mapping[str, Mapping[str, bytes]] = {manifest.source.content[verb.name]["request"]["folder"]: {}}
    known = Expected((AlreadyTaken,))
    for how in ("local", "serve") if remote else ("local",):
        stage = Folder(folder, how)
        stage.left = _one_whole_file(str(verb.message.key))
        yield Trial("taken", "contract", stage, Expected((Taken,)), how, second=known)
    yield Trial("no-folder", "transport", Folder({}), UNAVAILABLE, acted=False)
    if not remote:
        return
    yield from _on_the_way(folder)
    yield Trial("full", "transport", Folder(folder, "full"), UNAVAILABLE, acted=False)
    # The connection ends when the file has its name: nobody can tell, so it is asked for again, and found there.
    doubtful = known if manifest.deduplicates else UNAVAILABLE
    yield Trial("cut-at-the-end", "transport", Folder(folder, "cut-at-rename"), doubtful | Unavailable)


def _on_the_way(folder: Mapping[str, Mapping[str, bytes]]) -> Iterator[Trial]:
    yield Trial("not-there", "transport", NoFolder(), UNAVAILABLE, acted=False)
    for how in _ON_THE_WAY:
        yield Trial(how, "transport", Folder(folder, how), UNAVAILABLE, hangs=how in _HANGING, acted=False)
    for how in ("refuse", "other-key"):
        yield Trial(how, "credentials", Folder(folder, how), UNAVAILABLE, acted=False)


class _Reading:
    """The trials of a poll or a bulk."""

    def __init__(self, manifest: Manifest, verb: Poll | Bulk, remote: bool) -> None:
        self._manifest, self._verb, self._remote = manifest, verb, remote
        spec = manifest.source.content[verb.name]
        self._request: dict[str, Any] = (spec[verb.of] if verb.of else spec)["request"]
        self._good = verb.expected(verb.good)
        self._files = files_of(verb.good.answers[0].content, self._request)
        self._table = table_of(verb.good.answers[0].content, self._request)
        self._nothing = Expected((Page,), _no_items) if isinstance(verb, Poll) else Expected((NotFound,))

    def trials(self) -> Iterator[Trial]:
        """Give them all."""
        yield from self._contract()
        yield Trial("no-folder", "transport", Folder({}), UNAVAILABLE)
        if self._remote:
            yield from _on_the_way(self._in_folder(self._files))
        yield from self._content()
        yield from self._form()

    def _contract(self) -> Iterator[Trial]:
        second = self._nothing if isinstance(self._verb, Bulk) else self._good
        for example in self._verb.examples.values():
            yield self._trial(example.name, "contract", self._recorded(example), self._verb.expected(example))
        yield self._trial("duplicate", "contract", self._files, self._good, second=second)
        yield self._trial("nothing", "contract", {}, self._nothing)
        unfinished = {f".{name}": content for name, content in self._files.items()}
        yield self._trial("unfinished", "contract", unfinished, self._nothing)
        if self._remote:
            yield replace(self._trial("over-sftp", "contract", self._files, self._good), stage=self._stage("serve"))

    def _content(self) -> Iterator[Trial]:
        table, broken = self._table, self._verb.broken
        marked = table.files(change=lambda _content: b"<html><body>Mantenimiento</body></html>")
        yield self._trial("html", "content", marked, broken)
        yield self._trial("empty", "content", table.files(change=lambda _content: b""), broken)
        yield self._trial("noise", "content", table.files(change=lambda _content: b"\x00\xff\xfe\x15\x80"), broken)
        huge = {**self._files, table.name: self._files[table.name] + b"\n" * self._manifest.limits.max_body}
        yield self._trial("huge", "content", huge, broken)
        packed = table.member or self._request.get("format") == "xlsx"
        if packed or "checksum" in self._request:
            half = {**self._files, table.name: self._files[table.name][: len(self._files[table.name]) // 2]}
            yield self._trial("half", "content", half, broken)
        if self._request.get("format") != "xlsx":
            yield self._trial("wrong-charset", "content", table.files(encoding="utf-16"), broken)
            last = max(set(range(len(table.rows))) - {number - 1 for number in self._verb.bad_rows()})
            yield self._trial("damaged-row", "content", table.damaged(last).files(), self._verb.one_rejected())
            yield self._trial("short-row", "content", table.short(last).files(), self._verb.one_rejected())

    def _form(self) -> Iterator[Trial]:
        table = self._table
        if table.by_place:
            for case in ("extra-field", "reordered"):
                yield Trial(case, "form", None, self._good, skipped=_("las columnas se conocen por su lugar"))
        else:
            yield self._trial("extra-field", "form", table.extra().files(), self._good)
            yield self._trial("reordered", "form", table.reordered().files(), self._good)
        for name, columns in self._verb.required():
            less, empty = table.without(columns), table.replaced(columns, "")
            if less is None or empty is None:
                yield Trial("missing-field", "form", None, self._good, name)
                continue
            yield self._trial("missing-field", "form", less.files(), self._verb.broken, name)
            yield self._trial("empty-cell", "form", empty.files(), self._verb.spoilt(name, columns), name)
        for name, columns in self._verb.coded():
            unknown = table.replaced(columns, UNKNOWN_CODE)
            if unknown is not None:
                yield self._trial("unknown-code", "form", unknown.files(), self._verb.spoilt(name, columns), name)

    def _recorded(self, example: Example) -> dict[str, bytes]:
        return files_of(example.answers[0].content, self._request)

    def _in_folder(self, files: Mapping[str, bytes]) -> dict[str, Mapping[str, bytes]]:
        return {self._request["folder"]: files}

    def _stage(self, how: str) -> Folder:
        return Folder(self._in_folder(self._files), how)

    def _trial(
        self, case: str, group: str, files: Mapping[str, bytes], expected: Expected, detail: str = "", **more: Any
    ) -> Trial:
        return Trial(case, group, Folder(self._in_folder(files)), expected, detail, **more)


def _no_items(page: Page) -> str | None:
    return _("contrarreferencias sacadas de la nada") if page.items or page.rejects or page.more else None


def _one_whole_file(referral_id: str) -> Any:
    def left(root: Path) -> str | None:
        files = [path for path in root.rglob("*") if path.is_file()]
        if len(files) != 1:
            return _("{n} archivos en la carpeta, no uno").format(n=len(files))
        if files[0].suffix == ".part" or referral_id not in files[0].name + files[0].read_text("utf-8", "replace"):
            return _("el archivo no nombra la referencia, o está sin terminar")
        return None

    return left
