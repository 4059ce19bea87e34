"""The documentation agrees with the program: tables, commands, routes, problems, entry types, examples, links."""

from __future__ import annotations

import ast
import importlib
import json
import re
import textwrap
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest
import typer
import yaml
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from adapters.manifest import load_manifest
from adapters.simulator.population import generate
from adapters.yamlfile import read_yaml
from audit.envelope import Link, SubjectKey, finish, read_envelope, seal
from audit.models import GROUPS, OUTCOMES, Entry, ProblemKind
from consent import records
from consent.agreements import check_agreement, demonstration_agreements, read_draft
from deploy.reference import refreshed
from gateway.api import (
    achievements,
    agreements,
    anomalies,
    audit,
    boards,
    breaches,
    catalogue,
    codes,
    consent_bb,
    consents,
    decisions,
    delivery,
    disclosures,
    emergencies,
    facts,
    forms,
    guidance,
    health,
    hsds,
    links,
    log,
    merges,
    oauth,
    people,
    problems,
    producers,
    protection,
    receipts,
    referrals,
    reports,
    rights,
    roles,
    statistics,
    subscriptions,
    usage,
    usage_abroad,
)
from gateway.cli.app import app
from gateway.identity.issuers import read_registration
from gateway.registry.protection import age_on
from gateway.rights.breaches import Told
from gateway.settings import _OTHER_NAMES, Settings
from schemas.codes import code_list
from schemas.ids import uuid7
from schemas.validation import validate

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
TUTORIAL = (DOCS / "tutorial.md").read_text(encoding="utf-8")


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def identify(path: Path) -> str:
    return str(path.relative_to(ROOT))


def first_cells(text: str) -> set[str]:
    """Return what the first cells of a page's tables name in code type."""
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `")]
    return {name for cell in rows for name in re.findall(r"`([^`]+)`", cell)}


# Links


def headings(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=identify)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), f"{target} leads nowhere"
        assert not anchor or anchor in headings(file), f"{target}: no such heading"


def test_every_page_is_in_the_navigation_and_the_other_way_round() -> None:
    def listed(item: Any) -> Iterator[str]:
        if isinstance(item, str):
            yield item
        else:
            for each in item.values() if isinstance(item, dict) else item:
                yield from listed(each)

    navigation = set(listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert navigation == pages


# Reference


@pytest.mark.parametrize("path", sorted((DOCS / "reference").glob("*.md")), ids=identify)
def test_generated_tables_are_those_of_the_code(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("<!-- generated: ") == text.count("<!-- end -->")
    assert refreshed(text) == text, "run: python deploy/reference.py"


def test_every_code_list_a_caller_needs_is_on_the_page_of_codes() -> None:
    apart = {"agreements", "compartments", "departments", "fhir-tei", "referral-events"}
    lists = {path.stem for path in (ROOT / "schemas" / "codes").glob("*.yaml")} - apart
    assert set(re.findall(r"<!-- generated: ([a-z-]+) -->", page("reference/codes.md"))) == lists | {"fields"}


def commands() -> dict[str, typer.core.TyperCommand]:
    found: dict[str, typer.core.TyperCommand] = {}
    nothing = cast(Any, None)

    def walk(words: str, command: Any) -> None:
        if hasattr(command, "list_commands"):
            for name in command.list_commands(nothing):
                walk(f"{words} {name}", command.get_command(nothing, name))
        if not hasattr(command, "list_commands") or command.invoke_without_command:
            found[words] = command

    walk("siis", typer.main.get_command(app))
    return found


def test_every_command_has_its_section_with_all_its_options() -> None:
    sections = dict(re.findall(r"^### (siis .+?)\n(.*?)(?=^##|\Z)", page("reference/commands.md"), re.M | re.S))
    assert sections.keys() == commands().keys()
    for name, command in commands().items():
        options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        assert set(re.findall(r"--[a-z-]+", sections[name])) == options - {"--help"}, name


def routes() -> set[str]:
    nothing = cast(Any, None)
    server = cast(Any, SimpleNamespace(issuer=SimpleNamespace(path="")))
    routers = [
        oauth.build_router(server, on_refusal=nothing),
        disclosures.build_router(nothing_async),
        referrals.build_router(nothing, nothing, nothing),
        producers.build_router(nothing, nothing, nothing),
        protection.build_router(nothing, nothing),
        achievements.build_router(nothing, nothing),
        merges.build_router(nothing, nothing),
        statistics.build_router(nothing, nothing, nothing),
        receipts.build_router(nothing, nothing),
        audit.build_router(nothing, nothing, nothing, nothing),
        anomalies.build_router(nothing, nothing),
        log.build_entries_router(nothing, nothing, nothing),
        log.build_public_router(nothing, nothing, nothing),
        codes.build_router(nothing),
        catalogue.build_router(nothing, nothing, nothing),
        hsds.build_router(nothing, nothing),
        agreements.build_router(nothing, nothing),
        roles.build_router(nothing, nothing),
        emergencies.build_router(nothing, nothing),
        consents.build_router(nothing, nothing),
        people.build_router(nothing, nothing),
        rights.build_router(nothing, nothing),
        breaches.build_router(nothing, nothing),
        delivery.build_router(nothing, nothing),
        reports.build_router(nothing, nothing),
        boards.build_router(nothing, nothing, nothing, nothing),
        links.build_router(nothing, nothing),
        subscriptions.build_router(nothing, nothing),
        forms.build_router(nothing, nothing),
        guidance.build_router(nothing, nothing, nothing),
        facts.build_router(nothing, nothing),
        decisions.build_router(nothing, nothing),
        usage.build_router(nothing, nothing),
        usage_abroad.build_router(nothing, nothing, nothing),
        consent_bb.build_router(nothing, nothing, nothing, nothing),
        health.build_router(nothing),
    ]
    found = [cast(APIRoute, route) for router in routers for route in router.routes]
    return {f"{method} {route.path.replace(':path}', '}')}" for route in found for method in route.methods or ()}


async def nothing_async(_request: Request) -> Response:
    return Response()


def test_every_router_of_the_application_is_among_those_of_this_file() -> None:
    mounted = set(
        re.findall(r"include_router\((\w+)", (ROOT / "gateway" / "api" / "app.py").read_text(encoding="utf-8"))
    )
    here = set(re.findall(r"^        (\w+)\.build_\w*router", Path(__file__).read_text(encoding="utf-8"), re.MULTILINE))
    # The disclosure route stands ahead of the application under another name.
    assert here == mounted - {"asking"} | {"disclosures"}


def test_every_route_is_on_the_page_of_http() -> None:
    tables = page("reference/http.md").split("## Headers")[0], page("reference/govstack.md").split("## Operations")[1]
    assert set().union(*map(first_cells, tables)) == routes()


def test_every_problem_is_on_its_page() -> None:
    raised: set[str] = {"malformed-json", "invalid-message"} | {
        f"producer-{kind}" for kind in ("unavailable", "malformed", "rejected")
    }
    raised |= problems._conflicts().keys() | problems._bad_requests().keys()
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            place = {"problem": 1, "BadRequest": 0, "Conflict": 0, "NotFound": 0, "NotMergeable": 0}.get(name)
            if place is not None and len(node.args) > place:
                code = node.args[place]
                if isinstance(code, ast.Constant) and isinstance(code.value, str):
                    raised.add(code.value)
    assert first_cells(page("reference/problems.md")) == raised


def entry_types() -> set[str]:
    """Return the types of entries that are written, read from the source.

    They are what a function takes as its ``event``, what stands under ``event`` in what it reports, or the ``type`` of
    an entry that the log makes by itself; two words are put together when the program runs.
    """
    paths = [path for room in ("gateway", "consent", "audit") for path in (ROOT / room).rglob("*.py")]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    places = {"entry": {0}, "decided": {0}, "_append": {0}, "_carry_out": {0}, "carry_out": {0}}
    for each in (each for tree in trees for each in ast.walk(tree)):
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and "event" in (names := parameters(each)):
            places.setdefault(each.name, set()).add(names.index("event"))
    found = {f"consent.{word}" for word in (*get_args(records.Answer), *records._AFTER.values())}
    found |= {f"breach.told_{word}" for word in get_args(Told)}
    for tree in trees:
        named = dict(assigned(tree))
        for node in ast.walk(tree):
            for value in events_in(node, places):
                found |= set(dotted(value, named))
    return found


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Return the names of a function's parameters as a call counts them."""
    return [argument.arg for argument in function.args.args if argument.arg != "self"]


def assigned(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Return what the names of a module stand for."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            yield statement.targets[0].id, statement.value


def events_in(node: ast.AST, places: dict[str, set[int]]) -> Iterator[ast.expr]:
    """Return the expressions of a node that say what an entry is called."""
    if isinstance(node, ast.Dict):
        told = zip(node.keys, node.values, strict=True)
        yield from (value for key, value in told if isinstance(key, ast.Constant) and key.value == "event")
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and "event" in parameters(node):
        yield from node.args.defaults
    elif isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        yield from (node.args[place] for place in places.get(name, ()) if len(node.args) > place)
        if name == "Entry":
            yield from (keyword.value for keyword in node.keywords if keyword.arg == "type")


def dotted(value: ast.expr, named: dict[str, ast.expr]) -> Iterator[str]:
    """Return the names of entries in an expression, those behind the names of its module too."""
    for each in ast.walk(value):
        if isinstance(each, ast.Constant) and re.fullmatch(r"[a-z]+\.[a-z_]+", str(each.value)):
            # The start of a word that is put together when the program runs.
            if not str(each.value).endswith("_"):
                yield each.value
        elif isinstance(each, ast.Name) and each.id in named:
            yield from dotted(named[each.id], {})


def test_every_type_of_entry_is_on_the_page_of_the_log() -> None:
    section = page("reference/log.md").split("## Types")[1].split("## Tree")[0]
    assert first_cells(section) == entry_types()


def test_the_page_of_the_log_names_every_field_group_outcome_and_kind_of_problem() -> None:
    text = page("reference/log.md")
    assert first_cells(text.split("## Detail")[1].split("## Types")[0]) == GROUPS
    assert all(f"`{word}`" in text for word in (*OUTCOMES, *get_args(ProblemKind)))
    at = datetime(2026, 11, 22, tzinfo=UTC)
    entry = Entry(at=at, type="log.read", outcome="done", policy_version="none", statement={"log": 2026})
    row = finish(seal(entry, SubjectKey(uuid7(), bytes(32)), "x", bytes(32)), Link(0, 0, bytes(32)))
    assert first_cells(text.split("## Envelope")[1].split("## Detail")[0]) == read_envelope(row.envelope).keys()


# Examples


def tutorial_messages() -> list[dict[str, Any]]:
    text = TUTORIAL.replace("'$(TZ=America/Asuncion date +%F)'", "2026-11-22")
    return [json.loads(body) for body in re.findall(r"-d '(\{.*?\})'", text, re.DOTALL)]


def test_the_messages_of_the_tutorial_follow_their_schemas() -> None:
    names = ["disclosure-request"] * 2 + ["protection-status-query", "referral-request", "counter-referral"]
    messages = tutorial_messages()
    assert len(messages) == len(names)
    for name, message in zip(names, messages, strict=True):
        validate(name, message)


def test_the_person_of_the_tutorial_is_there_with_the_gap_it_tells_of() -> None:
    [cedula] = {message["subject"]["value"] for message in tutorial_messages() if "subject" in message}
    assert "--persons 1000 --seed 1" in TUTORIAL
    [person] = [member for home in generate(1000, 1) for member in home.members if member.cedula == cedula]
    assert person.sex == "F"
    assert age_on(person.birth_date, date(2026, 11, 22)) > 60
    assert person.deceased_on is None
    assert "health-control" not in person.services


def test_the_agreements_of_the_demonstration_answer_as_the_tutorial_says() -> None:
    trimmed, denied, _status, referral, _reply = tutorial_messages()
    agreements = {agreement.code: agreement for agreement in demonstration_agreements()}
    identity = agreements["DEMO-MSPBS-IDENT"]
    assert set(trimmed["fields"]) - identity.datasets["identity"] == {"marital_status"}
    assert trimmed["purpose"] in identity.purposes
    assert denied["purpose"] not in identity.purposes
    assert denied["purpose"] in code_list("purposes")
    assert f"service:{referral['service']}" in agreements["DEMO-UTGS-MSPBS-REFERRAL"].datasets


def yaml_blocks() -> list[Any]:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", page("how-to/institution.md"), re.MULTILINE | re.DOTALL)
    return [yaml.safe_load(block) for block in blocks]


def test_the_example_of_a_manifest_loads(tmp_path: Path) -> None:
    manifest, _agreement, connection = yaml_blocks()
    file = tmp_path / "snpp.yaml"
    file.write_text(yaml.safe_dump(manifest), encoding="utf-8")
    loaded = load_manifest(file)
    assert loaded.services == {"vocational-training"}
    assert connection.keys() == {loaded.name}


def test_the_example_of_an_agreement_can_be_stored() -> None:
    _manifest, agreement, _connection = yaml_blocks()
    validate("agreement-draft", agreement)
    check_agreement(read_draft(agreement))


def test_the_examples_of_outside_issuers_can_be_registered(tmp_path: Path) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", page("how-to/issuer.md"), re.MULTILINE | re.DOTALL)
    file = tmp_path / "issuer.yaml"
    found = []
    for block in blocks:
        file.write_text(block, encoding="utf-8")
        found.append(read_registration(read_yaml(file)))
    assert [issuer.institution for issuer in found] == ["MDS", None]


def test_python_in_the_pages_names_what_exists() -> None:
    found = [
        textwrap.dedent(block)
        for path in PAGES
        for block in re.findall(r"^ *```python\n(.*?)^ *```$", path.read_text(encoding="utf-8"), re.M | re.S)
    ]
    assert len(found) == 3
    for block in found:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names), node.module


def test_settings_named_in_the_pages_exist() -> None:
    known = {f"SIIS_{name.upper()}" for name in Settings.model_fields} | _OTHER_NAMES | {"SIIS_SERVE_PORT", "SIIS_"}
    for path in PAGES:
        named = set(re.findall(r"\bSIIS_[A-Z_]*", path.read_text(encoding="utf-8")))
        assert named <= known, f"{path.name}: {named - known}"


def test_commands_named_in_the_pages_exist() -> None:
    words = set(commands())
    groups = {" ".join(name.split()[:2]) for name in words}
    for path in PAGES:
        for line in re.findall(r"(?:uv run |`)(siis(?: [a-z]+)+)", path.read_text(encoding="utf-8")):
            parts = line.split()
            assert " ".join(parts[:3]) in words or " ".join(parts[:2]) in words | groups, f"{path.name}: {line}"


def test_options_in_the_examples_exist() -> None:
    known = commands()
    for path in PAGES:
        for block in re.findall(r"^ *```sh\n(.*?)^ *```$", path.read_text(encoding="utf-8"), re.M | re.S):
            for line in re.findall(r"(?:^|run |\()(siis .*)", block, re.MULTILINE):
                words = re.split(r" --| [^a-z-]", line)[0].split()
                name = next(" ".join(words[:n]) for n in (4, 3, 2) if " ".join(words[:n]) in known)
                options = {option for parameter in known[name].params for option in parameter.opts}
                named = set(re.findall(r" (--[a-z-]+)", re.sub(r'"[^"]*"', "", line.split(")")[0])))
                assert named <= options, f"{path.name}: {line}: {named - options}"
