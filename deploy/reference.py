"""Writes the tables of docs/reference that repeat what the code knows: settings, referral states, code lists,
manifest keys, converters, the operations of the GovStack face.

Run ``python deploy/reference.py`` after a change to one of them; a test compares the pages with the code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from adapters.converters import CONVERTERS
from gateway.api.consent_bb import OPERATIONS, PREFIX
from gateway.referrals import states
from gateway.settings import Settings
from schemas.codes import code_list

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "reference"
_BLOCK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

_MEANING = {
    "data_dir": "Folder of this process: embedded database, what was signed last, exports in the making; without "
    "`SIIS_SECRETS_DIR` also keys, secrets and connections",
    "database_url": "Address of PostgreSQL for the role `siis_app`; without it the embedded server is used",
    "database_owner_url": "Address for the role `siis_owner`: `siis db upgrade`, `siis erasure`, `siis audit prune`",
    "secrets_dir": "Folder with secrets: settings as files, `keys/`, and the secrets that manifests name",
    "connections": "YAML file that says where each producer's system is; default `connections.yaml` in the data folder",
    "manifests": "Folder with the deployment's own manifests (and their `wsdl/`), read beside those shipped",
    "issuer": "Public address of the gateway, as tokens name it; `https`, except on this machine; no slash at the end",
    "host": "Address `siis serve` listens on",
    "port": "Port `siis serve` listens on",
    "recorder": "Name of this process in the entries of the audit log",
    "log_origin": "Name of the audit logs in their checkpoints, to which each adds its year; stays the same for ever",
    "witnesses": "File that says who [watches the log](../how-to/witness.md), how many are needed; without it nobody",
    "witness_interval_s": "Seconds between two rounds of asking the witnesses",
    "witness_limit_s": "Seconds without a quorum of witnesses after which ordinary disclosures stop",
    "witness_name": "What `siis witness` signs as, a name of the institution that runs it; stays the same for ever",
    "timestamp_url": "Address of a time-stamp authority (RFC 3161), asked once an hour; without it none",
    "timestamp_roots": "PEM file with the root certificates of that authority",
    "max_body_bytes": "Largest body of a request",
    "trusted_proxies": "Networks of our reverse proxies: from there `Client-Cert` and `X-Forwarded-For` are believed",
    "client_rate": "Requests that one client may make per second, in each process; twice as many at once",
    "worker_metrics_port": "Port where the worker shows Prometheus metrics, on the host of `SIIS_HOST`; 0: none.",
    "worker_concurrency": "Messages to one institution that a worker has under way at once",
    "poll_interval_s": "Seconds between two polls of a recipient",
    "retry_first_s": "Seconds before the second attempt of a delivery; doubled each time, six hours at most",
    "retry_attempts": "Attempts before a delivery waits for a person",
}

_BLOCKS_OF_MANIFEST = {
    "auth": "auth",
    "security": "security",
    "xroad": "xroad",
    "restRequest": "request (rest)",
    "paging": "request.paging (rest)",
    "soapRequest": "request (soap)",
    "sqlRequest": "request (sql)",
    "fileRequest": "request (file)",
    "dataset": "datasets.NAME",
    "send": "send",
    "poll": "poll",
    "bulk": "bulk.NAME",
    "rule": "outcomes[]",
}
_CONVERTER = {
    "after-comma": "The part after the first comma, for names written `SURNAMES, NAMES`",
    "before-comma": "The part before the first comma",
    "boolean": "`true`/`false`, also as JSON's own",
    "boolean-si-no": "`SI`/`NO` and their abbreviations, in any case, as a truth value",
    "cedula": "A cédula (no dots, no check digit); refused if it is none",
    "collapse-spaces": "One space between words, none around",
    "date-dmy": "`dd/mm/yyyy` to `yyyy-mm-dd`; no such day is refused",
    "date-dmy-loose": "As `date-dmy`, with one-digit days and months, `-` or `.` between, and a time that is cut off",
    "date-time": "A dateTime with its offset or `Z`, or a day, kept as written; any other text is refused",
    "date-ymd": "`yyyymmdd` or `yyyy/mm/dd` to `yyyy-mm-dd`",
    "date10": "The first ten characters of an ISO date or dateTime, as written: never moved through a time zone",
    "decimal": "A number with a decimal point, kept as text",
    "decimal-comma": "A number with a decimal comma and perhaps thousand dots, to one with a decimal point",
    "email": "Something of the form of an e-mail address",
    "integer": "A whole number",
    "lower": "Lower case",
    "mobile": "A Paraguayan mobile number, to `5959…`",
    "month-year": "`JUNIO/2017`, `06/2017` or `2017-6` to `2017-06`",
    "no-control": "Without control characters",
    "no-value": "`-`, `S/D`, `No tiene` and the like become absent",
    "not-future": "Refuses a day or month that lies ahead",
    "pad2": "Zeros in front, to two characters",
    "pad3": "Zeros in front, to three characters",
    "pad4": "Zeros in front, to four characters",
    "pad7": "Zeros in front, to seven characters",
    "ruc": "A RUC `number-digit`; the check digit is recomputed",
    "strip": "No white space around",
    "strip-zeros": "No zeros in front",
    "text": "A whole number may stand where a text belongs",
    "thousand-dots": "A whole number with thousand dots, as in guaraníes",
    "to-dmy": "`yyyy-mm-dd` to `dd/mm/yyyy`, on the way out",
    "upper": "Upper case",
    "uuid": "A UUID, in lower case",
}


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    return "\n".join([_row(*names), _row(*("---" for _name in names)), *(_row(*row) for row in rows)]) + "\n"


def _expected(spec: dict[str, Any]) -> str:
    options = [option for option in spec.get("anyOf", [spec]) if option.get("type") != "null"]
    [one] = options
    if one["type"] == "array":
        return "networks in CIDR form, separated by commas"
    text = {"string": "text", "integer": "whole number", "number": "number"}[one["type"]]
    if one.get("format") == "path":
        text = "path"
    if one.get("format") == "password":
        text = "`postgresql://…`, secret"
    for key, words in (("minimum", "from {}"), ("exclusiveMinimum", "over {}"), ("maximum", "to {}")):
        if key in one:
            text += " " + words.format(f"{one[key]:g}" if one[key] < 10_000 else str(one[key]))
    return text + (f", `{one['pattern']}`" if "pattern" in one else "")


def settings() -> str:
    """Return the table of settings."""
    properties = Settings.model_json_schema()["properties"]
    rows = []
    for name, spec in properties.items():
        default = spec.get("default")
        usual = "" if default is None or default == [] else f"`{default}`"
        rows.append((f"`SIIS_{name.upper()}`", _MEANING[name], _expected(spec), usual))
    return _table(("Setting", "What it is", "Expected", "Default"), rows)


def state_diagram() -> str:
    """Return the moves as a Mermaid state diagram; events between the same two states share an arrow."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, event), following in states.TRANSITIONS.items():
        arrows.setdefault((state, following), []).append(event)
    lines = [f"    {state} --> {following}: {', '.join(events)}" for (state, following), events in arrows.items()]
    ends = [f"    {state} --> [*]" for state in sorted(states.TERMINAL)]
    return "\n".join(["```mermaid", "stateDiagram-v2", f"    [*] --> {states.CREATED}", *lines, *ends, "```"]) + "\n"


def moves() -> str:
    """Return the one next state per state and event."""
    names = code_list("referral-events")
    rows = [
        (f"`{state}`", f"`{event}`", names[event]["es"], names[event]["actor"], f"`{following}`")
        for (state, event), following in states.TRANSITIONS.items()
    ]
    return _table(("State", "Event", "In Spanish", "Reported by", "Next state"), rows)


def refused_moves() -> str:
    """Return per state what is refused with 409, and what is filled in so that it is not."""
    events = tuple(code_list("referral-events"))
    rows = []
    for state in states.BUSINESS_STATUS:
        ways = {event: states.path(state, event) for event in events}
        filled = [f"`{event}` (after {_ticks(way[:-1])})" for event, way in ways.items() if way and len(way) > 1]
        rows.append((f"`{state}`", ", ".join(filled), _ticks(event for event, way in ways.items() if way is None)))
    return _table(("State", "Taken with what went unreported", "Refused"), rows)


def business_status() -> str:
    """Return the states with their BSeR business status codes."""
    rows = [
        (f"`{state}`", code, "yes" if state in states.TERMINAL else "")
        for state, code in states.BUSINESS_STATUS.items()
    ]
    return _table(("State", "`business_status`", "Final"), rows)


def _codes(name: str, **columns: Callable[[dict[str, Any]], str]) -> Callable[[], str]:
    def build() -> str:
        head = ("Code", "Spanish", "English", *(title.replace("_", " ").capitalize() for title in columns))
        rows = [
            (f"`{code}`", spec["es"], spec["en"], *(read(spec) for read in columns.values()))
            for code, spec in code_list(name).items()
        ]
        return _table(head, rows)

    return build


def _ticks(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _term(spec: dict[str, Any]) -> str:
    return f"{spec['days']} days" if "days" in spec else f"{spec['working_days']} working days"


def fields() -> str:
    """Return the fields of every dataset."""
    rows = [
        (f"`{dataset}`", f"`{field}`", label["es"], label["en"], label["label"])
        for dataset, spec in code_list("datasets").items()
        for field, label in spec["fields"].items()
    ]
    return _table(("Dataset", "Field", "Spanish", "English", "Label"), rows)


def consent_bb() -> str:
    """Return the operations of the GovStack face."""
    rows = [
        (
            f"`{each.method} {PREFIX}{each.path}`",
            " or ".join(f"`{scope}`" for scope in each.scopes),
            " or ".join(f"`{action}`" for action in each.actions),
            (each.handler.__doc__ or "").partition("\n")[0].rstrip(".").replace("``", "`"),
        )
        for each in OPERATIONS
    ]
    return _table(("Operation", "Scope", "Role action", "What it does"), rows)


def manifest() -> str:
    """Return every key a manifest may have, with its place, from the schema."""
    schema = json.loads((ROOT / "schemas" / "manifest.schema.json").read_text(encoding="utf-8"))
    rows = [(f"`{key}`", _kind(spec, schema), _told(spec, schema)) for key, spec in schema["properties"].items()]
    for block in ("limits", "breaker", "retry", "tls"):
        rows += _members(block, schema["properties"][block], schema)
    for name in _BLOCKS_OF_MANIFEST:
        rows += _members(_BLOCKS_OF_MANIFEST[name], schema["$defs"][name], schema)
    return _table(("Key", "Type", "Meaning"), rows)


def _members(prefix: str, spec: dict[str, Any], schema: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(f"`{prefix}.{key}`", _kind(each, schema), _told(each, schema)) for key, each in spec["properties"].items()]


def _told(spec: dict[str, Any], schema: dict[str, Any]) -> str:
    target = schema["$defs"][spec["$ref"].rpartition("/")[2]] if "$ref" in spec else {}
    told = spec.get("description") or target.get("description", "")
    return f"{told} Default `{json.dumps(spec['default'])}`.".strip() if "default" in spec else told


def _kind(spec: dict[str, Any], schema: dict[str, Any]) -> str:
    if "$ref" in spec:
        name = spec["$ref"].rpartition("/")[2]
        target = schema["$defs"][name]
        return name if target.get("type") == "object" else _kind(target, schema) if "type" in target else name
    if "enum" in spec:
        return ", ".join(f"`{json.dumps(value)}`" for value in spec["enum"])
    found = spec.get("type", "any")
    return found if isinstance(found, str) else " or ".join(found)


def converters() -> str:
    """Return the converters by name with what each does."""
    return _table(("Converter", "What it does"), [(f"`{name}`", _CONVERTER[name]) for name in sorted(CONVERTERS)])


BLOCKS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "manifest": manifest,
    "converters": converters,
    "state-diagram": state_diagram,
    "moves": moves,
    "refused-moves": refused_moves,
    "business-status": business_status,
    "scopes": _codes("scopes"),
    "roles": _codes(
        "roles",
        may=lambda spec: _ticks(spec["actions"]),
        granted_by=lambda spec: _ticks(spec.get("granted_by", ())),
        not_beside=lambda spec: _ticks(spec.get("excludes", ())),
        for_another_institution=lambda spec: "yes" if spec.get("acts_for_others") else "",
    ),
    "labels": _codes(
        "labels",
        sensitive=lambda spec: "yes" if spec.get("sensitive") else "",
        compartment=lambda spec: "yes" if spec.get("compartment") else "",
        lowest_assurance=lambda spec: str(spec.get("minimum_assurance", "")),
        bases=lambda spec: _ticks(spec.get("bases", ())),
    ),
    "treatments": _codes("treatments"),
    "obligations": _codes("obligations"),
    "emergency-reasons": _codes("emergency-reasons"),
    "notices": _codes("notices"),
    "barriers": _codes("barriers"),
    "case-states": _codes("case-states"),
    "consent-channels": _codes("consent-channels"),
    "consent-problems": _codes("consent-problems"),
    "consent-end-reasons": _codes("consent-end-reasons", ends_by=lambda spec: f"`{spec['step']}`"),
    "merge-reasons": _codes("merge-reasons", step=lambda spec: f"`{spec['step']}`"),
    "representation-end-reasons": _codes("representation-end-reasons", ends_by=lambda spec: f"`{spec['step']}`"),
    "rights": _codes("rights", term=_term, outcomes=lambda spec: _ticks(spec["outcomes"])),
    "rights-outcomes": _codes("rights-outcomes", norm_and_reason=lambda spec: "yes" if spec.get("reasoned") else ""),
    "breach-kinds": _codes("breach-kinds"),
    "event-types": _codes("event-types", to=lambda spec: _ticks(spec["to"])),
    "retention": _codes("retention", years=lambda spec: str(spec["years"]), counted=lambda spec: spec["counted"]),
    "erasure-grounds": _codes(
        "erasure-grounds",
        before_the_term_is_over=lambda spec: "yes" if spec["before_term"] else "",
        norm=lambda spec: spec["norm"],
    ),
    "anomalies": _codes(
        "anomalies",
        from_how_many=lambda spec: str(spec["at_least"]),
        explanation=lambda spec: spec["explanation"]["es"],
    ),
    "usage-acts": _codes("usage-acts", fields_shown=lambda spec: spec.get("shows", "")),
    "usage-hiding": _codes("usage-hiding"),
    "consent-bb": consent_bb,
    "datasets": _codes("datasets", holder=lambda spec: f"`{spec['holder']}`"),
    "fields": fields,
    "purposes": _codes(
        "purposes",
        dpv=lambda spec: f"`{spec['dpv']}`",
        who_it_is_matters=lambda spec: "yes" if spec.get("identified", True) else "no",
    ),
    "legal-bases": _codes(
        "legal-bases",
        dpv=lambda spec: f"`{spec['dpv']}`",
        public_duty=lambda spec: "yes" if spec["public_duty"] else "",
        emergencies=lambda spec: "yes" if spec.get("emergency") else "",
    ),
    "denial-reasons": _codes("denial-reasons", the_caller_sees=lambda spec: "404" if spec["subject"] else "403"),
    "withheld-reasons": _codes("withheld-reasons"),
    "institutions": _codes("institutions"),
    "characteristics": _codes("characteristics", of=lambda spec: spec["unit"]),
    "instruments": _codes("instruments", rank=lambda spec: str(spec["rank"])),
    "relations": _codes("relations"),
    "services": _codes(
        "services",
        institution=lambda spec: f"`{spec['institution']}`",
        days_to_answer=lambda spec: str(spec["response_days"]),
    ),
    "programmes": _codes("programmes", institution=lambda spec: f"`{spec['institution']}`"),
    "requirements": _codes("requirements", given_by=lambda spec: f"`{spec['issuer']}`" if "issuer" in spec else ""),
    "packages": _codes("packages", services=lambda spec: _ticks(spec["services"])),
    "service-routes": _codes("service-routes", steps=lambda spec: _ticks(step["service"] for step in spec["steps"])),
    "locations": _codes(
        "locations",
        district=lambda spec: spec["district"],
        services=lambda spec: _ticks(offer["service"] for offer in spec["offers"]),
    ),
    "populations": _codes("populations"),
    "protection-states": _codes("protection-states"),
    "status-rules": _codes("status-rules"),
    "funnel-steps": _codes("funnel-steps"),
    "funnel-endings": _codes("funnel-endings"),
    "funnel-spans": _codes("funnel-spans"),
    "reasons": _codes("reasons", used_to=lambda spec: ", ".join(spec["use"]).replace("_", " ")),
    "outcomes": _codes("outcomes", protected_afterwards=lambda spec: "yes" if spec["protected"] else "no"),
    "life-cycle": _codes("life-cycle", unit=lambda spec: spec["unit"]),
}


def refreshed(text: str) -> str:
    """Return a page with its generated blocks as the code has them now; KeyError for an unknown block."""
    return _BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]()}{found[3]}", text)


def main() -> None:
    """Rewrite the blocks of every reference page."""
    for page in sorted(PAGES.glob("*.md")):
        page.write_text(refreshed(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
