"""Tells a referral's story from its entries in the log alone, so that each sentence can be checked against one of them.

Always in Spanish: it is written for a court or an ombudsman of Paraguay. Institutions and the users' ids are named as
the entries name them; the person is only ever the pseudonym of the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from audit.search import RawEntry
from audit.verify import leaf_hash
from gateway.clock import PARAGUAY
from gateway.referrals import states
from schemas.codes import code_list

_UNTOLD = "no consta"
_SOMEBODY = "una institución que no consta"
_TITLES = {
    "referral.created": "La institución creó la referencia",
    "referral.sending": "La pasarela volvió a decidir y empezó a transmitir",
    "referral.transmitted": "El sistema del destinatario la recibió",
    "referral.undelivered": "No se pudo transmitir y quedó para que la vea una persona",
    "referral.withheld": "No se transmitió: la decisión anterior al envío fue negativa",
    "referral.read": "Alguien leyó la referencia",
    "referral.reviewed": "Un revisor agregó una nota",
    "referral.step": "Quien refirió",
    "referral.claimed": "Un servicio la asumió y recibió los datos de la persona",
    "referral.claim_denied": "Un servicio quiso asumirla y se le negó",
    "referral.split": "El destinatario la repartió entre varios servicios",
    "referral.summed_up": "Se cerró su última parte, y con ella la referencia",
    "referral.refused": "Alguien quiso hacer con ella algo que no correspondía",
    "counterreferral.received": "El destinatario informó",
    "log.bundled": "Se preparó un expediente como este",
}
_OUTCOMES = {
    "permit": "permitido",
    "permit_redacted": "permitido en parte",
    "deny": "denegado",
    "done": "hecho",
    "failed": "sin éxito",
}
_STATES = {
    states.OPEN: "abierta, la puede asumir cualquiera de los servicios nombrados",
    states.CREATED: "creada",
    states.RECEIVED: "recibida por el destinatario",
    states.ACCEPTED: "aceptada",
    states.REJECTED: "rechazada por el destinatario",
    states.ACTIVE: "en curso",
    states.SCHEDULED: "con cita",
    states.UNATTENDED: "la persona no acudió a la cita",
    states.APPOINTMENT_CANCELLED: "cita anulada",
    states.EVENT_DONE: "atendida, sin resultado todavía",
    states.ON_HOLD: "en espera",
    states.CANCEL_REQUESTED: "anulación pedida",
    states.CANCELLED: "anulada",
    states.COMPLETED: "terminada con un resultado",
}
_TASKS = {
    states.RECEIVED: "aceptar o rechazar la referencia",
    states.ACCEPTED: "prestar el servicio e informar",
    states.ACTIVE: "prestar el servicio e informar",
    states.SCHEDULED: "atender a la persona en la cita",
    states.UNATTENDED: "dar otra cita o informar",
    states.APPOINTMENT_CANCELLED: "dar otra cita o informar",
    states.EVENT_DONE: "informar el resultado",
    states.ON_HOLD: "reanudar la atención o informar",
    states.CANCEL_REQUESTED: "confirmar la anulación",
}
_FAILURES = {
    "no-adapter": "ningún sistema del destinatario está conectado",
    "rejected": "el sistema del destinatario la rechazó",
    "effect-unknown": "no se sabe si el sistema del destinatario la recibió",
    "unavailable": "el sistema del destinatario no respondió de manera útil",
}
_FIELDS = {
    "identifiers": "Números que identifican a la persona",
    "department": "Departamento",
    "district": "Distrito",
}
# What the recipient does, and what moves a referral beside that.
_RECIPIENTS = frozenset({"counterreferral.received", "referral.claimed", "referral.split"})
_MOVING = frozenset({"referral.step", "referral.summed_up"})
_RESULTS = frozenset({"counterreferral.received", "referral.summed_up"})
_READING = frozenset({"referral.read", "log.bundled"})


@dataclass(frozen=True, slots=True)
class Step:
    """One entry told; ``facts`` are pairs of what and which, ``withheld`` pairs of field and reason."""

    number: str
    entry_id: str
    leaf: str
    at: str
    title: str
    outcome: str
    facts: tuple[tuple[str, str], ...]
    withheld: tuple[tuple[str, str], ...]
    reading: bool
    erased: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """Who had to do what, since when and until when (empty while it lasts), and the entry it began with."""

    who: str
    task: str
    since: str
    until: str
    number: str


@dataclass(frozen=True, slots=True)
class Story:
    """A referral as its entries tell it; ``person`` is a pseudonym, ``received`` what the person got."""

    referral: str
    person: str
    summary: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...]
    turns: tuple[Turn, ...]
    received: tuple[tuple[str, str], ...]
    erased: int
    closed: bool


@dataclass(slots=True)
class _Turns:
    """Who is responsible, entry after entry."""

    requester: str = _SOMEBODY
    recipient: str = _SOMEBODY
    turns: list[Turn] = field(default_factory=list)
    state: str = ""

    def take(self, kind: str, groups: Mapping[str, Any], at: str, number: str) -> None:
        actor, what, exchange = (groups.get(name, {}) for name in ("actor", "what", "exchange"))
        if kind == "referral.created":
            self.requester = _institution(actor.get("on_behalf_of") or actor.get("institution"))
            self.recipient = _institution(exchange.get("recipient") or what.get("holder"))
            self.state = exchange.get("state_after") or states.CREATED
            if self.state == states.OPEN:
                self._next("Los servicios nombrados", "asumir la referencia", at, number)
                return
            self._next(f"La pasarela, por encargo de {self.requester}", "transmitir la referencia", at, number)
        elif kind == "referral.transmitted" and self.state == states.CREATED:
            self._reach(states.RECEIVED, at, number)
        elif kind in ("referral.undelivered", "referral.withheld"):
            self._next(self.requester, "revisar por qué no salió y resolver", at, number)
        elif kind in _RECIPIENTS and exchange.get("state_after") in _TASKS.keys() | states.TERMINAL:
            self.recipient = _institution(actor.get("institution"))
            self._reach(exchange["state_after"], at, number)
        elif kind in _MOVING and exchange.get("state_after") in _TASKS.keys() | states.TERMINAL:
            self._reach(exchange["state_after"], at, number)

    def _reach(self, state: str, at: str, number: str) -> None:
        self.state = state
        if state in states.TERMINAL:
            self._end(at)
        else:
            self._next(self.recipient, _TASKS[state], at, number)

    def _next(self, who: str, task: str, at: str, number: str) -> None:
        if self.turns and not self.turns[-1].until and (self.turns[-1].who, self.turns[-1].task) == (who, task):
            return
        self._end(at)
        self.turns.append(Turn(who, task, at, "", number))

    def _end(self, at: str) -> None:
        if self.turns and not self.turns[-1].until:
            last = self.turns[-1]
            self.turns[-1] = Turn(last.who, last.task, last.since, at, last.number)


def tell(referral: str, entries: Sequence[RawEntry]) -> Story:
    """Tell the story of a referral from its entries, by their time; what is erased is said to be so."""
    steps, turns, received = [], _Turns(), list[tuple[str, str]]()
    summary: tuple[tuple[str, str], ...] = ()
    # Numbers follow the order of writing within a second only writer by writer.
    for entry in sorted(entries, key=lambda each: str(each.envelope["at"])):
        kind, groups = str(entry.envelope["type"]), _values(entry)
        at, number = local_time(str(entry.envelope["at"])), place(entry)
        turns.take(kind, groups, at, number)
        steps.append(_step(entry, kind, groups, at, number))
        exchange = groups.get("exchange", {})
        if kind == "referral.created" and groups:
            summary = _summary(groups, at, number)
        if kind in _RESULTS and exchange.get("outcome"):
            text = _label("outcomes", exchange["outcome"])
            why = f" ({_label('reasons', exchange['reason'])})" if exchange.get("reason") else ""
            received.append((f"{at}, entrada {number}", text + why))
    persons = {str(entry.envelope["subject"]) for entry in entries if entry.envelope["subject"]}
    ended = _STATES.get(turns.state, _UNTOLD)
    return Story(
        referral=referral,
        person=", ".join(sorted(persons)) or _UNTOLD,
        summary=(*summary, ("Estado al preparar este expediente", ended)),
        steps=tuple(steps),
        turns=tuple(turns.turns),
        received=tuple(received),
        erased=sum(step.erased for step in steps),
        closed=turns.state in states.TERMINAL,
    )


def place(entry: RawEntry) -> str:
    """Return where an entry stands, as people write it: number and year of the log."""
    return f"{entry.index}/{entry.log}"


def local_time(at: str) -> str:
    """Return an instant (RFC 3339) as a clock and calendar in Paraguay show it."""
    return f"{datetime.fromisoformat(at).astimezone(PARAGUAY):%d/%m/%Y %H:%M:%S}"


def _values(entry: RawEntry) -> dict[str, Any]:
    return {} if entry.groups is None else {name: group["value"] for name, group in entry.groups.items()}


def _summary(groups: Mapping[str, Any], at: str, number: str) -> tuple[tuple[str, str], ...]:
    actor, why, what, exchange = (groups.get(name, {}) for name in ("actor", "why", "what", "exchange"))
    service = str(what.get("dataset", "")).removeprefix("service:")
    told = [
        ("Quién pidió", _institution(actor.get("on_behalf_of") or actor.get("institution"))),
        ("Quién actuó", _actor(actor)),
        ("Cuándo", f"{at}, entrada {number}"),
        ("A quién se dirigió", _institution(exchange.get("recipient") or what.get("holder"))),
        ("Para qué servicio", _label("services", service)),
        *_grounds(why),
    ]
    return tuple((name, value) for name, value in told if value)


def _grounds(why: Mapping[str, Any]) -> list[tuple[str, str]]:
    agreement, emergency = why.get("agreement"), why.get("emergency")
    return [
        ("Finalidad", _label("purposes", why.get("purpose"))),
        ("Base legal", _label("legal-bases", why.get("basis"))),
        ("Norma", str(why.get("norm") or "")),
        ("Acuerdo", " versión ".join(map(str, agreement)) if agreement else ""),
        ("Consentimiento", str(why.get("consent") or "")),
        ("Número de caso", str(why.get("case") or "")),
        ("Emergencia", _label("emergency-reasons", emergency["reason"]) if emergency else ""),
    ]


def _step(entry: RawEntry, kind: str, groups: Mapping[str, Any], at: str, number: str) -> Step:
    what = groups.get("what", {})
    facts = [(name, value) for name, value in _facts(kind, groups) if value]
    withheld = [(_field(name), _label("withheld-reasons", why)) for name, why in what.get("withheld", {}).items()]
    return Step(
        number=number,
        entry_id=str(entry.envelope["id"]),
        leaf=leaf_hash(entry.data).hex(),
        at=at,
        title=_title(kind, groups),
        outcome=_OUTCOMES.get(str(entry.envelope["outcome"]), str(entry.envelope["outcome"])),
        facts=tuple(facts),
        withheld=tuple(withheld),
        reading=kind in _READING,
        erased=entry.groups is None,
    )


def _title(kind: str, groups: Mapping[str, Any]) -> str:
    title, exchange = _TITLES.get(kind, kind), groups.get("exchange", {})
    if kind == "referral.sending" and exchange.get("attempt"):
        return f"{title} (intento {exchange['attempt']})"
    if kind == "referral.step" and exchange.get("event") == "note":
        return f"{title} envió una nota al destinatario"
    if kind in ("counterreferral.received", "referral.step") and exchange.get("event"):
        return f"{title}: {_label('referral-events', exchange['event'])}"
    return title


def _facts(kind: str, groups: Mapping[str, Any]) -> list[tuple[str, str]]:
    actor, why, what, decision, exchange = (
        groups.get(name, {}) for name in ("actor", "why", "what", "decision", "exchange")
    )
    before, after = exchange.get("state_before"), exchange.get("state_after")
    told = [
        ("Institución", _institution(actor.get("institution")) if actor.get("institution") else ""),
        ("En nombre de", _institution(actor["on_behalf_of"]) if actor.get("on_behalf_of") else ""),
        ("Quién actuó", _actor(actor) if actor else ""),
        ("Destinatario", _institution(exchange["recipient"]) if exchange.get("recipient") else ""),
        *_grounds(why),
        ("Se entregó", ", ".join(map(_field, what.get("released", ())))),
        ("Se entregó reducido", ", ".join(map(_field, what.get("reduced", {})))),
        ("Motivos de la decisión", "; ".join(_label("denial-reasons", code) for code in decision.get("reasons", ()))),
        ("Estado", f"{_STATES.get(before, before)} → {_STATES.get(after, after)}" if before and after else ""),
        ("Resultado", _label("outcomes", exchange.get("outcome")) if kind in _RESULTS else ""),
        ("Motivo", _reason(kind, exchange.get("reason"))),
        ("Cita", _instant(exchange.get("appointment_at"))),
        ("Intentos", str(exchange.get("attempts") or "")),
        ("SHA-256 de las entradas de ese expediente", str(what.get("sha256") or "")),
    ]
    return told


def _reason(kind: str, code: str | None) -> str:
    if code is None:
        return ""
    return _FAILURES.get(code, code) if kind == "referral.undelivered" else _label("reasons", code)


def _instant(value: str | None) -> str:
    if not value:
        return ""
    try:
        return local_time(value)
    except ValueError:
        # As the recipient wrote it, perhaps a plain day.
        return value


def _institution(code: str | None) -> str:
    if code is None:
        return _SOMEBODY
    named = _label("institutions", code)
    return code if named == code else f"{named} ({code})"


def _actor(actor: Mapping[str, Any]) -> str:
    user, client = actor.get("user"), actor.get("client")
    system = f"sistema {client}" if client else ""
    if actor.get("channel") == "command-line":
        return f"quien administra la pasarela ({user})" if user else "quien administra la pasarela"
    if user is None:
        return system
    sure = ""
    if "user_verified" in actor:
        sure = " (identidad verificada)" if actor["user_verified"] else " (según dijo su institución)"
    return f"usuario {user}{sure}" + (f", {system}" if system else "")


def _field(name: str) -> str:
    if name in _FIELDS:
        return _FIELDS[name]
    spec: Mapping[str, Any] = code_list("datasets")["identity"]["fields"].get(name, {})
    return str(spec.get("es", name))


def _label(codes: str, code: str | None) -> str:
    """Return a code's Spanish label, whatever language is in force."""
    return "" if code is None else str(code_list(codes).get(code, {}).get("es", code))
