"""Decides which outcome an answer means: rules of the manifest, tried in order, over status, fault and content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jmespath.exceptions import JMESPathError

from adapters.errors import ContractBroken
from adapters.mapping import Expression, compile_expression

_LONGEST_TEXT = 500


@dataclass(frozen=True, slots=True)
class Rule:
    """When all of ``statuses``, ``fault`` and ``when`` that are given hold, the answer means ``outcome``."""

    outcome: str
    statuses: frozenset[int]
    fault: str | None
    when: Expression | None
    code: Expression | None
    reason: Expression | None
    reference: Expression | None

    def text(self, expression: Expression | None, document: Any) -> str:
        """Read a code, reason or reference: text or whole number, cut to 500 characters; empty when absent."""
        if expression is None:
            return ""
        value = _look(expression, document)
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ContractBroken("the text beside an outcome is not a text")
        return str(value).strip()[:_LONGEST_TEXT]


def compile_rule(spec: Mapping[str, Any]) -> Rule:
    """Compile a rule of a manifest (``$defs/rule`` of its schema); raise ValueError for a wrong expression."""
    status = spec.get("status", ())
    expressions = {
        name: compile_expression(spec[name]) if name in spec else None
        for name in ("when", "code", "reason", "reference")
    }
    statuses = frozenset([status] if isinstance(status, int) else status)
    return Rule(outcome=spec["is"], statuses=statuses, fault=spec.get("fault"), **expressions)


def first_match(
    rules: Sequence[Rule], document: Any, *, status: int | None = None, fault: str | None = None
) -> Rule | None:
    """Return the first rule that holds.

    A rule without ``fault`` is never for a SOAP fault, one without ``statuses`` only for an HTTP success.
    """
    success = status is None or 200 <= status < 300
    for rule in rules:
        if rule.fault != fault or not (status in rule.statuses if rule.statuses else success):
            continue
        # A false boolean and an empty text or list do not hold, as JMESPath itself has it; zero does.
        found = True if rule.when is None else _look(rule.when, document)
        if found or (found == 0 and found is not False):
            return rule
    return None


def _look(expression: Expression, document: Any) -> Any:
    try:
        return expression(document)
    except JMESPathError:
        raise ContractBroken("a field an outcome depends on is of another type") from None
