"""What goes back to a FHIR sender: R4 OperationOutcome, for a refusal and for what was kept or filled in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gateway.standards.fhir.errors import FhirError
from gateway.standards.fhir.models import Kept, ReferralEvent
from schemas.text import _

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*\Z")


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing to say: R4 *issue-severity* and *issue-type* codes, a text, and JSON Pointers into the message."""

    severity: str
    code: str
    text: str
    pointers: tuple[str, ...] = ()


def operation_outcome(issues: Iterable[Issue]) -> dict[str, Any]:
    """Build an OperationOutcome (R4). Raises ValueError without issues: R4 wants at least one."""
    listed = [
        {
            "severity": issue.severity,
            "code": issue.code,
            "details": {"text": issue.text},
            **({"expression": [expression(pointer) for pointer in issue.pointers]} if issue.pointers else {}),
        }
        for issue in issues
    ]
    if not listed:
        raise ValueError("an OperationOutcome has at least one issue")
    return {"resourceType": "OperationOutcome", "issue": listed}


def refusal(error: FhirError) -> Issue:
    """Return the issue that tells the sender why the message was not taken."""
    return Issue("error", error.code, error.what, (error.pointer,))


def notices(event: ReferralEvent) -> list[Issue]:
    """Return what the sender should know of a message that was taken: contradiction, values filled in, leaves kept.

    The kept leaves come as one issue per entry of the Bundle, naming all of them, without their values.
    """
    issues = []
    if event.review is not None and event.review.contradictory:
        text = _("la pertinencia y doNotPerform se contradicen: quedan como llegaron")
        issues.append(Issue("warning", "conflict", text))
    for default in event.defaults:
        text = _("falta, está incompleto o no usa un código conocido: se toma {value}").format(value=default.value)
        issues.append(Issue("information", "informational", text, (default.pointer,)))
    grouped: dict[str, list[Kept]] = {}
    for leaf in event.kept:
        steps = leaf.pointer.split("/", 3)
        grouped.setdefault(steps[2] if steps[1] == "entry" and len(steps) > 2 else "", []).append(leaf)
    text = _("el modelo no tiene lugar para estos datos: quedan guardados con el evento")
    for leaves in grouped.values():
        issues.append(Issue("information", "informational", text, tuple(leaf.pointer for leaf in leaves)))
    return issues


def expression(pointer: str) -> str:
    """Rewrite a JSON Pointer as the FHIRPath subset of R4 ``OperationOutcome.issue.expression``.

    The extensions of a primitive, ``_name`` in JSON, are members of ``name`` in FHIRPath.
    """
    path = "Bundle"
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if name.isascii() and name.isdigit():
            path += f"[{name}]"
            continue
        plain = name.removeprefix("_")
        if not _NAME.match(plain):
            plain = "`" + plain.replace("\\", "\\\\").replace("`", "\\`") + "`"
        path += f".{plain}"
    return path
