"""Decides whether a manifest can be used, and turns it into what the adapters work with, compiled once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema_rs

from adapters.mapping import Expression, FieldTable, compile_expression, compile_field
from adapters.models import FURTHER, Reply
from adapters.rules import Rule, compile_rule
from adapters.yamlfile import YamlFile, read_yaml
from schemas.codes import code_list
from schemas.text import _
from schemas.validation import explain

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

_SCHEMA = Path(__file__).parent.parent / "schemas" / "manifest.schema.json"
_REPLY_FIELDS = frozenset(item.name for item in fields(Reply)) - {"raw_codes"}
_REPLY_NEEDS = ("referral_id", "message_id", "event", "occurred_on")
# An appointment is kept in clear, so it is a date and never a free text.
_APPOINTMENTS = frozenset({"date-time", "date10", "date-dmy"})
_REPLY_CODES = {"event": "referral-events", "outcome": "outcomes", "reason_code": "reasons"}
_FETCH_OUTCOMES = frozenset({"not-found", "rejected", "unavailable"})
_SEND_OUTCOMES = frozenset({"taken", "already-taken", "rejected", "unavailable"})


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds a call may take in all, bytes it may read, calls under way at once; seconds for a whole register,
    attempts a second at most, rows of an SQL answer.
    """

    budget_s: float
    max_body: int = 1024 * 1024
    concurrency: int = 8
    bulk_s: float = 3600.0
    per_second: float | None = None
    rows: int = 100


@dataclass(frozen=True, slots=True)
class Breaker:
    """Failed attempts in a row that open the breaker, and seconds until a call is tried again."""

    failures: int = 5
    reset_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Retry:
    """Attempts inside one call, and the upper end of the first random wait in seconds."""

    attempts: int = 3
    first_wait_s: float = 0.05


@dataclass(frozen=True, slots=True)
class Dataset:
    """How one dataset is asked for and its answer read."""

    name: str
    identifier: str
    request: Mapping[str, Any]
    query: FieldTable
    body: FieldTable
    root: Expression | None
    rules: tuple[Rule, ...]
    echo: str | None
    table: FieldTable


@dataclass(frozen=True, slots=True)
class Sending:
    """How a referral is written and the answer to it read."""

    request: Mapping[str, Any]
    query: FieldTable
    body: FieldTable
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Polling:
    """How counter-referrals are asked for and read; files need no expressions for list, cursor and continuation."""

    request: Mapping[str, Any]
    query: FieldTable
    body: FieldTable
    items: Expression | None
    cursor: Expression | None
    more: Expression | None
    table: FieldTable


@dataclass(frozen=True, slots=True)
class Bulk:
    """How a whole register is fetched and its rows read; ``subject_field`` holds the identifier of ``system``."""

    name: str
    request: Mapping[str, Any]
    query: FieldTable
    body: FieldTable
    items: Expression | None
    system: str
    subject_field: str
    replaces: str
    sums: tuple[str, ...]
    reject_over: float
    table: FieldTable


@dataclass(frozen=True, slots=True)
class Manifest:
    """One producer's system. ``source`` is the file it came from, to blame for what only shows later."""

    source: YamlFile
    folder: Path
    name: str
    institution: str
    kind: str
    order: int
    auth: Mapping[str, Any]
    wsdl: str | None
    path: str
    port: str | None
    security: Mapping[str, Any]
    xroad: Mapping[str, Any]
    tls: Mapping[str, Any]
    options: Mapping[str, Any]
    assumed: str
    services: frozenset[str]
    deduplicates: bool
    limits: Limits
    breaker: Breaker
    retry: Retry
    datasets: Mapping[str, Dataset]
    send: Sending | None
    further: Mapping[str, Sending]
    poll: Polling | None
    bulk: Mapping[str, Bulk]


def load_manifest(file: Path) -> Manifest:
    """Read and check a manifest.

    Raises :class:`~adapters.errors.ManifestError` naming file, line and field for whatever is wrong in it.
    """
    source = read_yaml(file)
    content = source.content
    if not _check()(content):
        source.refuse(*_wrong(content))
    institution = content["institution"]
    if institution not in code_list("institutions"):
        source.refuse(["institution"], _("institución desconocida"))
    poll = content.get("poll")
    return Manifest(
        source=source,
        folder=file.parent,
        name=content["name"],
        institution=institution,
        kind=content["kind"],
        order=content.get("order", 1),
        auth=content["auth"],
        wsdl=content.get("wsdl"),
        path=content.get("path", ""),
        port=content.get("port"),
        security=content.get("security", {}),
        xroad=content.get("xroad", {}),
        tls=content.get("tls", {}),
        options=content.get("options", {}),
        assumed=content.get("assumed", ""),
        services=_services(source, institution),
        deduplicates=content.get("deduplicates", False),
        limits=Limits(**content["limits"]),
        breaker=Breaker(**content.get("breaker", {})),
        retry=Retry(**content.get("retry", {})),
        datasets={name: _dataset(source, name, institution) for name in content.get("datasets", {})},
        send=_sending(source, "send") if "send" in content else None,
        further={kind: _sending(source, kind) for kind in FURTHER if kind in content},
        poll=None if poll is None else _polling(source, poll),
        bulk={name: _bulk(source, name, institution) for name in content.get("bulk", {})},
    )


@lru_cache(maxsize=1)
def _schema() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    return document


@lru_cache(maxsize=1)
def _check() -> Callable[[Any], bool]:
    return jsonschema_rs.Draft202012Validator(_schema()).is_valid


def _wrong(content: Any) -> tuple[list[str | int], str]:
    # The library that explains is slow to import, so only a refused manifest pays for it.
    from jsonschema.exceptions import best_match

    return explain_violation(best_match(explain(_schema(), content)))


def explain_violation(error: ValidationError) -> tuple[list[str | int], str]:
    """Say where a file of ours breaks its schema, and how."""
    path: list[str | int] = list(error.absolute_path)
    expected: Any = error.validator_value
    match error.validator:
        case "required":
            # One error per missing member; only its text says which.
            return path, _("falta {name}").format(name=error.message.split("'")[1])
        case "additionalProperties":
            known = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
            present = error.instance if isinstance(error.instance, dict) else {}
            extra = [name for name in present if name not in known]
            return [*path, *extra[:1]], _("este campo no existe")
        case "enum":
            return path, _("se esperaba uno de: {names}").format(names=", ".join(map(str, expected)))
        case "type":
            return path, _("se esperaba el tipo {expected}").format(expected=expected)
        case "pattern":
            return path, _("no tiene la forma esperada: {pattern}").format(pattern=expected)
        case "oneOf" | "anyOf" if all(isinstance(each, dict) and "required" in each for each in expected):
            names = ", ".join(str(name) for each in expected for name in each["required"])
            return path, _("se esperaba uno de: {names}").format(names=names)
        case "not":
            return path, _("este campo no se admite aquí")
        case rule:
            return path, _("no cumple la regla {rule}: {expected}").format(rule=rule, expected=str(expected)[:100])


def _services(source: YamlFile, institution: str) -> frozenset[str]:
    known = code_list("services")
    names = source.content.get("services", ())
    for place, name in enumerate(names):
        if name not in known:
            source.refuse(["services", place], _("servicio desconocido"))
        if known[name]["institution"] != institution:
            source.refuse(["services", place], _("el servicio es de otra institución"))
    return frozenset(names)


def _dataset(source: YamlFile, name: str, institution: str) -> Dataset:
    where, spec = ("datasets", name), source.content["datasets"][name]
    _check_fields(source, where, name, spec, institution)
    echo = spec.get("echo")
    if echo is not None and echo not in spec["fields"]:
        source.refuse([*where, "echo"], _("no está entre los campos"))
    return Dataset(
        name=name,
        identifier=spec["identifier"],
        request=spec["request"],
        query=_query(source, (*where, "request", "query"), spec),
        body=_table(source, (*where, "body"), spec.get("body", {})),
        root=_expression(source, (*where, "root"), spec.get("root")),
        rules=_rules(source, where, spec, _FETCH_OUTCOMES),
        echo=echo,
        table=_table(source, (*where, "fields"), spec["fields"]),
    )


def _check_fields(
    source: YamlFile, where: tuple[str, ...], name: str, spec: Mapping[str, Any], institution: str
) -> None:
    known = code_list("datasets").get(name)
    if known is None:
        source.refuse(where, _("conjunto de datos desconocido"))
    if known["holder"] != institution:
        source.refuse(where, _("el conjunto de datos es de otra institución"))
    for field in spec["fields"]:
        if field not in known["fields"]:
            source.refuse([*where, "fields", field], _("el conjunto de datos no tiene este campo"))


def _bulk(source: YamlFile, name: str, institution: str) -> Bulk:
    where, spec = ("bulk", name), source.content["bulk"][name]
    _check_fields(source, where, name, spec, institution)
    subject = spec["subject"]["field"]
    item = spec["fields"].get(subject)
    if not isinstance(item, dict) or not item.get("required"):
        source.refuse([*where, "subject", "field"], _("debe estar entre los campos y ser obligatorio (required: true)"))
    for place, field in enumerate(spec.get("sums", ())):
        if field not in spec["fields"]:
            source.refuse([*where, "sums", place], _("no está entre los campos"))
    return Bulk(
        name=name,
        request=spec["request"],
        query=_query(source, (*where, "request", "query"), spec),
        body=_table(source, (*where, "body"), spec.get("body", {})),
        items=_expression(source, (*where, "items"), spec.get("items")),
        system=spec["subject"]["system"],
        subject_field=subject,
        replaces=spec.get("replaces", "all"),
        sums=tuple(spec.get("sums", ())),
        reject_over=spec.get("reject_over", 0.02),
        table=_table(source, (*where, "fields"), spec["fields"]),
    )


def _sending(source: YamlFile, verb: str) -> Sending:
    spec = source.content[verb]
    return Sending(
        request=spec["request"],
        query=_query(source, (verb, "request", "query"), spec),
        body=_table(source, (verb, "body"), spec["body"]),
        rules=_rules(source, (verb,), spec, _SEND_OUTCOMES),
    )


def _polling(source: YamlFile, spec: Mapping[str, Any]) -> Polling:
    for field, item in spec["fields"].items():
        if field not in _REPLY_FIELDS:
            source.refuse(["poll", "fields", field], _("una contrarreferencia no tiene este campo"))
        if field in _REPLY_CODES and isinstance(item, dict):
            known = code_list(_REPLY_CODES[field])
            for code, ours in item.get("codes", {}).items():
                if ours not in known:
                    source.refuse(["poll", "fields", field, "codes", code], _("código nuestro desconocido"))
    appointment = spec["fields"].get("appointment_at")
    through = appointment.get("through", ()) if isinstance(appointment, dict) else ()
    if appointment is not None and _APPOINTMENTS.isdisjoint(through):
        names = ", ".join(sorted(_APPOINTMENTS))
        where = ["poll", "fields", "appointment_at"]
        source.refuse(where, _("debe pasar por uno de: {names}").format(names=names))
    for field in _REPLY_NEEDS:
        item = spec["fields"].get(field)
        if not isinstance(item, dict) or not item.get("required"):
            source.refuse(["poll", "fields", field], _("debe estar y ser obligatorio (required: true)"))
    return Polling(
        request=spec["request"],
        query=_query(source, ("poll", "request", "query"), spec),
        body=_table(source, ("poll", "body"), spec.get("body", {})),
        items=_expression(source, ("poll", "items"), spec.get("items")),
        cursor=_expression(source, ("poll", "cursor"), spec.get("cursor")),
        more=_expression(source, ("poll", "more"), spec.get("more")),
        table=_table(source, ("poll", "fields"), spec["fields"]),
    )


def _rules(
    source: YamlFile, where: tuple[str, ...], spec: Mapping[str, Any], allowed: frozenset[str]
) -> tuple[Rule, ...]:
    rules = []
    for place, item in enumerate(spec.get("outcomes", ())):
        path: list[str | int] = [*where, "outcomes", place]
        if item["is"] not in allowed:
            source.refuse([*path, "is"], _("este resultado no es de este verbo"))
        try:
            rules.append(compile_rule(item))
        except ValueError as error:
            source.refuse(path, str(error))
    return tuple(rules)


def _table(source: YamlFile, where: tuple[str, ...], spec: Mapping[str, Any]) -> FieldTable:
    compiled = []
    for name, item in spec.items():
        try:
            compiled.append(compile_field(name, item))
        except ValueError as error:
            source.refuse([*where, name], str(error))
    return FieldTable(compiled)


def _query(source: YamlFile, where: tuple[str, ...], spec: Mapping[str, Any]) -> FieldTable:
    """Compile the parameters of an address; the query of a database is a text, and its kind's to read."""
    query = spec["request"].get("query", {})
    return _table(source, where, query if isinstance(query, dict) else {})


def _expression(source: YamlFile, where: tuple[str, ...], text: str | None) -> Expression | None:
    if text is None:
        return None
    try:
        return compile_expression(text)
    except ValueError as error:
        source.refuse(where, str(error))
