"""Says why a decision went as it did, rule by rule, in words that a lawyer and the person concerned understand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from consent.models import SERVICE_PREFIX, Decision, Request
from schemas.codes import code_list, label
from schemas.text import _, language

Verdict = Literal["yes", "no", "note"]


class Line(NamedTuple):
    """One rule: its name, how it turned out, and a sentence."""

    rule: str
    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What an explanation needs of a decision: just made, or read from the detail of its entry in the log."""

    requester: str
    holder: str
    dataset: str
    action: str
    purpose: str
    basis: str
    roles: tuple[str, ...]
    released: tuple[str, ...]
    withheld: Mapping[str, str]
    reduced: Mapping[str, str]
    reasons: tuple[str, ...]
    obligations: tuple[str, ...]
    norm: str | None
    trace: tuple[str, ...]


def account_of(request: Request, decision: Decision) -> Account:
    """Return the account of a decision just made."""
    return Account(
        requester=request.requester,
        holder=request.holder,
        dataset=request.dataset,
        action=request.action,
        purpose=request.purpose,
        basis=request.basis,
        roles=tuple(sorted(request.caller.roles)),
        released=tuple(name for name in request.fields if name in decision.released),
        withheld=decision.withheld,
        reduced=decision.treatments,
        reasons=decision.reasons,
        obligations=decision.obligations,
        norm=decision.norm,
        trace=decision.trace,
    )


def account_logged(detail: Mapping[str, Any]) -> Account | None:
    """Return the account of a decision from the detail of its entry; ``None`` for an entry that records none."""
    groups = [detail.get(name) for name in ("actor", "why", "what", "decision")]
    actor, why, what, decision = groups
    if not (actor and why and what and decision and "trace" in decision):
        return None
    return Account(
        requester=actor.get("on_behalf_of") or actor["institution"],
        holder=what["holder"],
        dataset=what["dataset"],
        action=what["action"],
        purpose=why["purpose"],
        basis=why["basis"],
        roles=tuple(actor["roles"]),
        released=tuple(what["released"]),
        withheld=what["withheld"],
        reduced=what.get("reduced", {}),
        reasons=tuple(decision["reasons"]),
        obligations=tuple(decision["obligations"]),
        norm=why["norm"],
        trace=tuple(decision["trace"]),
    )


def explain(account: Account) -> list[Line]:
    """Return the explanation, in the order in which the rules were looked at; the last lines say what came of it."""
    lines = [_asked(account)]
    for step in account.trace:
        rule, _sep, rest = step.partition(":")
        lines.extend(_RULES[rule](rest, account))
    if not any(line.rule == "agreement" for line in lines) and "agreement" in account.reasons:
        lines.insert(2, Line("agreement", "no", _no_agreement(account)))
    return lines


def _asked(account: Account) -> Line:
    text = _("{requester} pide «{dataset}» a {holder}, para «{purpose}», sobre la base «{basis}».")
    return Line(
        "asked",
        "note",
        text.format(
            requester=_institution(account.requester),
            dataset=_dataset(account.dataset),
            holder=_institution(account.holder),
            purpose=label("purposes", account.purpose),
            basis=label("legal-bases", account.basis),
        ),
    )


def _request(rest: str, account: Account) -> list[Line]:
    if rest == "ok":
        roles = _listed(label("roles", role) for role in account.roles)
        text = _("Los códigos existen, ninguna institución está suspendida y el rol permite la acción: {roles}.")
        return [Line("request", "yes", text.format(roles=roles))]
    return _refused("request", rest)


def _agreement(rest: str, account: Account) -> list[Line]:
    ref, _sep, stage = rest.rpartition(":")
    code, _at, version = ref.rpartition("@")
    if stage == "fits":
        text = _("El acuerdo {code}, versión {version}, cubre el pedido.")
        return [Line("agreement", "yes", text.format(code=code, version=version))]
    why = label("denial-reasons", stage)
    if stage == "agreement":
        why = _("no está vigente para este momento o este canal")
    text = _("El acuerdo {code}, versión {version}, no lo cubre: {why}.")
    return [Line("agreement", "no", text.format(code=code, version=version, why=_inside(why)))]


def _fields(_rest: str, account: Account) -> list[Line]:
    text = _("Nada de lo pedido puede entregarse.")
    return [Line("fields", "no", text), *_kept_back(account)]


def _person(rest: str, _account: Account) -> list[Line]:
    if rest == "ok":
        return [Line("person", "yes", _("Ninguna protección ni oposición de la persona lo impide."))]
    return _refused("person", rest)


def _consent(rest: str, _account: Account) -> list[Line]:
    code, _sep, why = rest.rpartition(":")
    text = _("Consentimiento de la persona bajo el acuerdo {code}: {why}.")
    told = text.format(code=code, why=label("consent-problems", why))
    return [Line("consent", "yes" if why == "given" else "no", told)]


def _narrower(rest: str, _account: Account) -> list[Line]:
    text = _("Varios acuerdos cubren el pedido ({codes}): donde se contradicen vale el más estrecho.")
    return [Line("narrower", "note", text.format(codes=_listed(rest.split(","))))]


def _emergency(rest: str, _account: Account) -> list[Line]:
    if rest == "ok":
        text = _("El operador tiene el rol de emergencias, se identificó hace poco y no tiene revisiones vencidas.")
        return [Line("emergency", "yes", text)]
    return _refused("emergency", rest)


def _clause(_rest: str, _account: Account) -> list[Line]:
    return [Line("clause", "no", f"{label('denial-reasons', 'emergency-clause')}.")]


def _effect(rest: str, account: Account) -> list[Line]:
    if rest == "deny":
        return [Line("effect", "no", _("Se deniega."))]
    lines = [
        Line("effect", "yes", _("Se entrega: {fields}.").format(fields=_listed(_names(account, account.released))))
    ]
    lines.extend(_kept_back(account))
    for name, how in account.reduced.items():
        text = _("{field}: {how}.").format(field=_names(account, [name])[0], how=_inside(label("treatments", how)))
        lines.append(Line("treatment", "note", text))
    if account.norm:
        lines.append(Line("norm", "note", _("Norma: {norm}.").format(norm=account.norm)))
    for obligation in account.obligations:
        lines.append(Line("obligation", "note", f"{label('obligations', obligation)}."))
    return lines


def _kept_back(account: Account) -> list[Line]:
    by_reason: dict[str, list[str]] = {}
    for name, why in account.withheld.items():
        by_reason.setdefault(why, []).append(name)
    text = _("No se entrega {fields}: {why}.")
    return [
        Line(
            "withheld",
            "no",
            text.format(fields=_listed(_names(account, names)), why=_inside(label("withheld-reasons", why))),
        )
        for why, names in by_reason.items()
    ]


def _refused(rule: str, reasons: str) -> list[Line]:
    return [Line(rule, "no", f"{label('denial-reasons', reason)}.") for reason in reasons.split(",")]


def _no_agreement(account: Account) -> str:
    text = _("No hay acuerdo por el que {requester} pueda pedir «{dataset}» a {holder}.")
    return text.format(
        requester=_institution(account.requester),
        dataset=_dataset(account.dataset),
        holder=_institution(account.holder),
    )


def _names(account: Account, fields: Iterable[str]) -> list[str]:
    declared = code_list("datasets").get(account.dataset, {"fields": {}})["fields"]
    spoken = language()
    return [str(declared[name][spoken]) if name in declared else name for name in fields]


def _dataset(code: str) -> str:
    if code.startswith(SERVICE_PREFIX):
        return label("services", code.removeprefix(SERVICE_PREFIX))
    return label("datasets", code)


def _institution(code: str) -> str:
    found = code_list("institutions").get(code)
    return code if found is None else f"{found['es']} ({code})"


def _inside(sentence: str) -> str:
    """Return a sentence of a code list as part of another one."""
    return sentence[:1].lower() + sentence[1:]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


_RULES = {
    "request": _request,
    "agreement": _agreement,
    "fields": _fields,
    "person": _person,
    "consent": _consent,
    "narrower": _narrower,
    "emergency": _emergency,
    "clause": _clause,
    "effect": _effect,
}
