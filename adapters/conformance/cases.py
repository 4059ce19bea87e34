"""Reads the recorded examples of a manifest and decides which of them are missing.

The examples are all an engineer writes; :mod:`adapters.conformance.faults` derives from them what a producer may do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import jsonschema_rs
from lxml import etree

from adapters.manifest import Manifest, explain_violation
from adapters.models import FURTHER
from adapters.registry import SHIPPED
from adapters.rules import Rule
from adapters.yamlfile import YamlFile, read_yaml
from schemas.text import _
from schemas.validation import explain

_SCHEMA = Path(__file__).parents[2] / "schemas" / "conformance.schema.json"
_SHIPPED_CASES = Path(__file__).parent / "cases"
#: What the kinds that come with the gateway speak to.
TRANSPORTS = {"rest": "http", "soap": "soap", "file": "folder", "sql": "sqlite"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One recorded answer: ``form`` is json, xml, text, tables or files, ``content`` what stands under it."""

    form: str
    content: Any
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """An answer, or the pages of one, and what stands beside it in the case file (facts, code, rows …)."""

    name: str
    answers: tuple[Answer, ...]
    content: Mapping[str, Any]

    @property
    def malformed(self) -> bool:
        """Whether it breaks the contract."""
        return self.name.startswith("malformed:")


@dataclass(frozen=True, slots=True)
class Cases:
    """The examples of one manifest; a section that is not there is empty."""

    transport: str
    content: Mapping[str, Any]

    def section(self, verb: str, name: str | None = None) -> Mapping[str, Any]:
        """Return what the file holds for a verb, or for one dataset or register of it."""
        found: Mapping[str, Any] = self.content.get(verb, {})
        return found if name is None else found.get(name, {})


def case_file(manifest: Manifest) -> Path:
    """Say where a manifest's examples belong: the kit's own folder, or ``cases`` beside a manifest from elsewhere."""
    folder = _SHIPPED_CASES if manifest.folder.resolve() == SHIPPED else manifest.folder / "cases"
    return folder / f"{manifest.name}.yaml"


def read_cases(manifest: Manifest) -> Cases | None:
    """Read a manifest's examples, ``None`` where there is no file.

    Raises :class:`~adapters.errors.ManifestError` naming file, line and field for what is wrong in it.
    """
    file = case_file(manifest)
    if not file.exists():
        return None
    source = read_yaml(file)
    content = {key: _plain(source, (key,), value) for key, value in source.content.items()}
    if not _check()(content):
        _refuse(source, content)
    known = {
        "fetch": set(manifest.datasets),
        "bulk": set(manifest.bulk),
        "send": set(content.get("send", ())) if manifest.send else set(),
        "poll": set(content.get("poll", ())) if manifest.poll else set(),
    }
    for kind in FURTHER:
        known[kind] = set(content.get(kind, ())) if kind in manifest.further else set()
    for verb, names in known.items():
        for name in content.get(verb, ()):
            if name not in names:
                source.refuse([verb, name], _("el manifiesto no lo tiene"))
    service = content.get("send", {}).get("service")
    if service is not None and service not in manifest.services:
        source.refuse(["send", "service"], _("el manifiesto no lo tiene"))
    return Cases(TRANSPORTS.get(manifest.kind, content.get("transport", "http")), content)


def examples(section: Mapping[str, Any]) -> dict[str, Example]:
    """Return the examples of a section by name; those under ``malformed`` by ``malformed: NAME``."""
    found = {
        name: Example(name, _answers(item["answer"]), item)
        for name, item in section.items()
        if isinstance(item, dict) and "answer" in item
    }
    for item in section.get("malformed", ()):
        name = f"malformed: {item['name']}"
        found[name] = Example(name, _answers(item["answer"]), item)
    return found


def missing(manifest: Manifest, cases: Cases) -> Iterator[str]:
    """Name every example that the manifest calls for and the file lacks, as ``fetch.identity.not_found``."""
    derived = cases.transport in ("folder", "sqlite")
    for name, dataset in manifest.datasets.items():
        needs = ["found", *_refusals(dataset.rules)]
        yield from _lacking(f"fetch.{name}", cases.section("fetch", name), needs)
    sending = {**({} if manifest.send is None else {"send": manifest.send}), **manifest.further}
    for verb, spec in sending.items():
        needs = ["taken", *_refusals(spec.rules)]
        yield from _lacking(verb, cases.section(verb), [] if derived else needs)
    if manifest.poll is not None:
        section = cases.section("poll")
        yield from _lacking("poll", section, ["page"] if derived else ["page", "empty"])
        if not derived and "cursor" not in section.get("page", {"cursor"}):
            yield "poll.page.cursor"
    for name in manifest.bulk:
        yield from _lacking(f"bulk.{name}", cases.section("bulk", name), ["found"])


def parse_example(text: str) -> etree._Element:
    """Parse XML of a case file; raise :class:`lxml.etree.XMLSyntaxError`."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True)
    return etree.fromstring(text.strip().encode(), parser)


def _refusals(rules: Sequence[Rule]) -> list[str]:
    """Name the outcomes that rules tell apart, those of a plain success and of "try later" left out."""
    outcomes = {rule.outcome for rule in rules}
    return sorted(outcome.replace("-", "_") for outcome in outcomes - {"taken", "unavailable"})


def _lacking(where: str, section: Mapping[str, Any], needs: Sequence[str]) -> Iterator[str]:
    if needs and not section:
        yield where
        return
    yield from (f"{where}.{name}" for name in needs if name not in section)
    main = section.get(needs[0] if needs else "", {})
    if "malformed" not in section and any(item.form == "text" for item in _answers(main.get("answer", ()))):
        # Nothing can be taken out of a text whose form the kit does not know.
        yield f"{where}.malformed"


def _answers(content: Any) -> tuple[Answer, ...]:
    items = content if isinstance(content, list | tuple) else [content]
    found = []
    for item in items:
        [form] = set(item) - {"status", "headers"}
        headers = tuple(item.get("headers", {}).items())
        found.append(Answer(form, item[form], item.get("status", 200), headers))
    return tuple(found)


def _plain(source: YamlFile, where: tuple[str | int, ...], value: Any) -> Any:
    """Undo what YAML makes of a day, which JSON has as a text; an instant has no one way back."""
    if isinstance(value, datetime):
        source.refuse(where, _("un instante va entre comillas"))
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _plain(source, (*where, key), item) for key, item in value.items()}
    if where[-1] == "xml" and isinstance(value, str):
        try:
            parse_example(value)
        except etree.XMLSyntaxError as error:
            source.refuse(where, _("no es XML: {why}").format(why=error.msg))
    if isinstance(value, list):
        return [_plain(source, (*where, place), item) for place, item in enumerate(value)]
    return value


def _refuse(source: YamlFile, content: Any) -> NoReturn:
    # The library that explains is slow to import, so only a refused file pays for it.
    from jsonschema.exceptions import best_match

    source.refuse(*explain_violation(best_match(explain(_schema(), content))))


@lru_cache(maxsize=1)
def _schema() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    return document


@lru_cache(maxsize=1)
def _check() -> Callable[[Any], bool]:
    return jsonschema_rs.Draft202012Validator(_schema()).is_valid
