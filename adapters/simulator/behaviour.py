"""What a recipient does with a referral it took: the answers it will give, the same for the same seed and referral."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, replace

ACCEPTED, DECLINED, SCHEDULED, NO_SHOW = "ACEPTADA", "RECHAZADA", "AGENDADA", "NO_ACUDIO"
NOTE, OUTCOME, CANCELLED = "EN_PROCESO", "RESULTADO", "ANULADA"
# What a requester tells of a referral that is here.
CANCEL, REOPEN, REMARK = "ANULACION", "REAPERTURA", "NOTA"
NOTICES = (CANCEL, REOPEN, REMARK)
PROVIDED, PARTLY, NOT_PROVIDED = "PRESTADO", "PARCIAL", "NO_PRESTADO"

_DETAIL = {
    "SIN_CUPO": "Sin cupo en el año en curso; puede volver a derivarse",
    "NO_CUMPLE_REQUISITOS": "No reúne las condiciones del programa",
    "FALTAN_DOCUMENTOS": "Falta el certificado de nacimiento del niño o la niña",
    "NO_UBICADA": "No se ubicó a la persona en la compañía señalada",
    "YA_RECIBE": "Ya figura en la nómina de participantes",
    "NO_ACEPTA": "La persona no aceptó el acompañamiento",
    "OTRO": "Se resolvió por otra vía, según informe de la señora guía familiar",
}
_DECLINE = tuple(_DETAIL)
_NOT_PROVIDED = tuple(reason for reason in _DETAIL if reason != "YA_RECIBE")
_MISSED = ("NO_UBICADA", "NO_ACEPTA")
#: Places with ñ and the Guaraní nasal vowels that cp1252 can hold (it has ã and õ, not ẽ, ĩ, ũ, ỹ or g̃).
_PLACES = (
    "Ñemby, oficina distrital",
    "Caacupé, Centro Abierto Mitã Róga",
    "San Juan Nepomuceno, Espacio SPS Ñande Róga",
    "Ybycuí, CODENI",
    "Villeta, USF Ñu Porã",
    "Mariscal Estigarribia, puesto Tekoporã",
)
_APPOINTMENT_DAYS = (3, 5, 7, 10)


@dataclass(frozen=True, slots=True)
class Step:
    """One answer to come: event code, content, and its place between the first (0.0) and the last answer (1.0)."""

    event: str
    outcome: str = ""
    reason: str = ""
    detail: str = ""
    place: str = ""
    proof: str = ""
    appointment_days: int = 0
    message_id: str = ""
    at: float = 0.0


def plan(institution: str, seed: int, referral_id: str) -> list[Step]:
    """Return the answers to a referral in the order they are given.

    Of a hundred referrals some 86 end with the service provided, four with part of it, three without it; seven are
    declined, two of these after an appointment nobody came to.
    """
    fate = random.Random(f"{seed}:{referral_id}")
    draw, place = fate.random(), fate.choice(_PLACES)
    scheduled = Step(SCHEDULED, place=place, appointment_days=fate.choice(_APPOINTMENT_DAYS))
    if draw < 0.05:
        steps = [_declined(fate.choice(_DECLINE))]
    elif draw < 0.07:
        steps = [Step(ACCEPTED), scheduled, Step(NO_SHOW, place=place), _declined(fate.choice(_MISSED))]
    else:
        steps = [Step(ACCEPTED)]
        if fate.random() < 0.20:
            steps.append(scheduled)
        if fate.random() < 0.08:
            steps.append(Step(NOTE, place=place, detail="Visita a la familia hecha; sigue el trámite"))
        steps.append(_outcome(fate, draw, institution, place))
    return _named(institution, referral_id, steps)


def answers_to(institution: str, seed: int, referral_id: str, notice_id: str, kind: str) -> list[Step]:
    """Return the answers to a notice: a cancellation is confirmed, a referral opened again is answered anew."""
    if kind == CANCEL:
        return _named(institution, notice_id, [Step(CANCELLED)])
    if kind == REOPEN:
        return _named(institution, notice_id, plan(institution, seed, referral_id))
    return []


def refusal(institution: str, referral_id: str, reason: str) -> list[Step]:
    """Return the one answer of a recipient that could not work with what it was sent."""
    return _named(institution, referral_id, [_declined(reason)])


def _declined(reason: str) -> Step:
    return Step(DECLINED, reason=reason, detail=_DETAIL[reason])


def _outcome(fate: random.Random, draw: float, institution: str, place: str) -> Step:
    if draw < 0.10:
        reason = fate.choice(_NOT_PROVIDED)
        return Step(OUTCOME, NOT_PROVIDED, reason=reason, detail=_DETAIL[reason], place=place)
    proof = f"{institution.upper()}-ACTA-{fate.randrange(10**7):07d}"
    if draw < 0.14:
        return Step(OUTCOME, PARTLY, detail="Primera entrega hecha", place=place, proof=proof)
    return Step(OUTCOME, PROVIDED, place=place, proof=proof)


def _named(institution: str, referral_id: str, steps: list[Step]) -> list[Step]:
    """Give each step its place in time and a message id that stays the same however often it is told."""
    last = max(len(steps) - 1, 1)
    named = []
    for number, step in enumerate(steps):
        digest = hashlib.sha256(f"{institution}:{referral_id}:{number}".encode()).hexdigest()
        named.append(replace(step, at=number / last, message_id=f"{institution.upper()}-{digest[:20]}"))
    return named
