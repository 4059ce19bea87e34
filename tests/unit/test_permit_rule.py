"""Only the decision issues permits, and only three places of the gateway call a producer: read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.permit import Permit

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("gateway", "adapters", "schemas", "consent", "audit")
ISSUER = "consent/decision.py"
DEFINITION = "schemas/permit.py"
MAY_CALL = ("gateway/exchange.py", "gateway/delivery/", "gateway/intake/", "adapters/")
VERBS = frozenset({"fetch", "send", "poll", "bulk"})
# A permit of their own would be forged by these as well as by calling the class.
FORGERS = frozenset({"issue", "_SEAL"})


def permit_breaches(source: str) -> Iterator[int]:
    """Yield the lines that issue, build, copy with changes or unseal a permit."""
    tree = ast.parse(source)
    modules = {"permit"}
    classes = {"Permit"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "schemas":
            modules |= {name.asname or name.name for name in node.names if name.name == "permit"}
        elif isinstance(node, ast.Import):
            modules |= {name.asname for name in node.names if name.name == "schemas.permit" and name.asname}
        elif isinstance(node, ast.ImportFrom) and node.module == "schemas.permit":
            classes |= {name.asname or name.name for name in node.names if name.name == "Permit"}
            if any(name.name in FORGERS or name.name == "*" for name in node.names):
                yield node.lineno
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in FORGERS and _last_name(node.value) in modules:
            yield node.lineno
        elif isinstance(node, ast.Call):
            made = _last_name(node.func) in classes
            unmade = _last_name(node.func) in ("__new__", "__setattr__", "replace") and _mentions_permit(node)
            if made or unmade:
                yield node.lineno


def _last_name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def _mentions_permit(call: ast.Call) -> bool:
    return any("permit" in (_last_name(argument) or "").lower() for argument in call.args)


def verb_breaches(source: str) -> Iterator[int]:
    """Yield the lines that call a verb as an adapter has it (a permit and more), or pass it on."""
    tree = ast.parse(source)
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in VERBS:
            call = called.get(id(node))
            if call is None or _takes_a_permit(call):
                yield node.lineno
        elif isinstance(node, ast.Call) and _last_name(node.func) in ("getattr", "methodcaller", "attrgetter"):
            named = {each.value for each in node.args if isinstance(each, ast.Constant)}
            yield from [node.lineno] * bool(named & VERBS)


def _takes_a_permit(call: ast.Call) -> bool:
    starred = any(isinstance(each, ast.Starred) for each in call.args) or any(not each.arg for each in call.keywords)
    return starred or len(call.args) + len(call.keywords) > 1


def files() -> list[tuple[str, str]]:
    found = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return [(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in found]


def test_the_five_packages_are_read() -> None:
    read = {name.split("/")[0] for name, _ in files()}
    assert read == set(PACKAGES)
    assert {ISSUER, DEFINITION} <= {name for name, _ in files()}


def test_only_the_decision_issues_permits() -> None:
    breaches = [
        f"{name}:{line}"
        for name, source in files()
        if name not in (ISSUER, DEFINITION)
        for line in permit_breaches(source)
    ]
    assert breaches == []


def test_the_decision_is_seen_issuing_one() -> None:
    assert list(permit_breaches((ROOT / ISSUER).read_text(encoding="utf-8")))


def test_producers_are_called_from_the_exchange_delivery_and_intake_only() -> None:
    breaches = [
        f"{name}:{line}" for name, source in files() if not name.startswith(MAY_CALL) for line in verb_breaches(source)
    ]
    assert breaches == []


@pytest.mark.parametrize(
    "source",
    [
        "from schemas.permit import issue",
        "from schemas.permit import issue as give",
        "from schemas.permit import *",
        "from schemas.permit import _SEAL",
        "import schemas.permit\nschemas.permit.issue()",
        "import schemas.permit as p\np.issue()",
        "from schemas import permit\npermit.issue()",
        "from schemas import permit as p\nforge = p.issue",
        "from schemas import permit as p\np._SEAL",
        "from schemas.permit import Permit\nPermit(action='x')",
        "from schemas.permit import Permit as P\nP(action='x')",
        "import schemas.permit\nschemas.permit.Permit()",
        "object.__new__(Permit)",
        "object.__setattr__(permit, 'released', everything)",
        "dataclasses.replace(decision.permit, released=everything)",
    ],
)
def test_every_way_to_forge_a_permit_is_seen(source: str) -> None:
    assert list(permit_breaches(source))


@pytest.mark.parametrize(
    "source",
    [
        "from schemas.permit import Permit\ndef send(permit: Permit) -> None: ...",
        "permit = decide(request, facts, policy).permit",
        "ledger.issue()",
        "text.replace('a', 'b')",
    ],
)
def test_using_a_permit_is_no_breach(source: str) -> None:
    assert not list(permit_breaches(source))


@pytest.mark.parametrize(
    "source",
    [
        "adapter.fetch(permit, dataset, identifier)",
        "adapter.send(permit=permit, message=message)",
        "adapters[0].poll(permit, None)",
        "adapter.bulk(permit, dataset, taken)",
        "adapter.poll(*arguments)",
        "adapter.poll(**arguments)",
        "call_later(adapter.fetch)",
        "getattr(adapter, 'fetch')(permit, dataset, identifier)",
    ],
)
def test_every_way_to_a_producer_is_seen(source: str) -> None:
    assert list(verb_breaches(source))


@pytest.mark.parametrize("source", ["process.poll()", "await send(message)", "client.send(request)", "fetch(a, b)"])
def test_verbs_of_other_things_are_no_breach(source: str) -> None:
    assert not list(verb_breaches(source))


def test_a_permit_cannot_be_built_by_hand() -> None:
    fields = dict.fromkeys(Permit.__dataclass_fields__)
    with pytest.raises(TypeError):
        Permit(**fields)
    with pytest.raises(TypeError):
        Permit(**{name: value for name, value in fields.items() if name != "_seal"})
