"""Decides what the facts advise on an application for the universal pension (Ley 7322/2024, Decreto 3139/2024).

The rules as they are publicly told: 65 years; 60 with a certificate of severe disability; 55 in a registered indigenous
community; thirty years of residence for foreigners, five since naturalisation; not who is on the public payroll, draws
another pension, is insured by work or pays taxes; nobody dead. Who is owed the pension is for a person to decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from gateway.crossing.models import Advice, Answer, Finding, Verdict, Weight
from schemas.ages import age_on
from schemas.text import _

AGE, AGE_DISABLED, AGE_INDIGENOUS = 65, 60, 55
YEARS_FOREIGN, YEARS_NATURALISED = 30, 5
_PAYROLL_MONTHS = 3

#: The fields asked of each dataset: what the rules read, and no more.
QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "identity": ("given_names", "surnames", "birth_date", "nationality"),
    "birth": ("birth_date",),
    "death": ("death_date",),
    "disability-certificate": ("match", "degree", "valid_until"),
    "indigenous-community": ("community", "registered"),
    "residence": ("given_names", "surnames", "birth_date", "entry_date"),
    "payroll": ("year", "month", "entity"),
    "social-insurance": ("insured_type", "enrolled", "employer", "last_period"),
    "ruc": ("status",),
    "pension-roll": ("status", "since"),
}
#: Rules of the law for which no source is connected; told with every advice.
UNASKED = ("cattle",)


def asked(identity: Answer, today: date, *, certificate: bool) -> frozenset[str]:
    """Return the datasets that matter for this applicant beside identity: nobody is asked for what decides nothing."""
    needed = set(QUESTIONS) - {"identity", "disability-certificate", "indigenous-community"}
    born = _day(identity.facts.get("birth_date"))
    if born is not None and age_on(born, today) < AGE:
        if age_on(born, today) >= AGE_DISABLED and certificate:
            needed.add("disability-certificate")
        if age_on(born, today) >= AGE_INDIGENOUS:
            needed.add("indigenous-community")
    if not _foreign_born(identity):
        needed.discard("residence")
    return frozenset(needed)


def advise(answers: Mapping[str, Answer], today: date) -> Advice:
    """Weigh the answers, by dataset, on a day of Asunción."""
    identity = answers["identity"]
    if identity.state != "found":
        return Advice("incomplete", (), (), (_why_missing(identity),))
    findings: list[Finding] = []
    findings += _alive(answers)
    findings += _old_enough(answers, today)
    findings += _resident(answers, today)
    findings += _excluded(answers, today)
    missing = tuple(_why_missing(answer) for answer in answers.values() if answer.state in ("denied", "unavailable"))
    told = {finding.answer.dataset for finding in findings}
    absent = tuple(answer for name, answer in sorted(answers.items()) if answer.state == "absent" and name not in told)
    return Advice(_verdict(findings, missing), tuple(findings), absent, missing)


def _verdict(findings: list[Finding], missing: tuple[str, ...]) -> Verdict:
    weights = {finding.weight for finding in findings}
    if "against" in weights:
        return "does-not-meet"
    if missing:
        return "incomplete"
    return "look" if "look" in weights else "meets"


def _alive(answers: Mapping[str, Answer]) -> list[Finding]:
    death, roll = answers["death"], answers["pension-roll"]
    findings = []
    if death.state == "found":
        text = _("Falleció el {day}.").format(day=_shown(death.facts["death_date"]))
        findings.append(Finding("deceased", "against", text, death))
    if roll.state == "found" and roll.facts.get("status") == "active":
        since = _shown(roll.facts.get("since"))
        if death.state == "found":
            text = _("Sigue activo en el padrón desde el {day}: hay que darlo de baja.").format(day=since)
            findings.append(Finding("dead-on-roll", "against", text, roll))
        else:
            text = _("Ya cobra la pensión desde el {day}.").format(day=since)
            findings.append(Finding("already-on-roll", "against", text, roll))
    return findings


def _old_enough(answers: Mapping[str, Answer], today: date) -> list[Finding]:
    identity = answers["identity"]
    born = _day(identity.facts.get("birth_date"))
    if born is None:
        return [Finding("age", "look", _("La identidad no trae fecha de nacimiento."), identity)]
    age = age_on(born, today)
    findings = _same_birth(answers, born)
    if age >= AGE:
        text = _("Tiene {age} años (nació el {day}).").format(age=age, day=_shown(born.isoformat()))
        return [Finding("age-65", "for", text, identity), *findings]
    exceptions = [*_disabled(answers, age, today), *_indigenous(answers, age)]
    opens = [finding for finding in exceptions if finding.weight == "for"]
    if opens:
        return [*opens, *findings]
    text = _("Tiene {age} años y nada que permita menos de {least}.").format(age=age, least=AGE)
    unsure = any(_unanswered(answers, name) for name in ("disability-certificate", "indigenous-community"))
    return [Finding("age", "look" if unsure else "against", text, identity), *exceptions, *findings]


def _unanswered(answers: Mapping[str, Answer], dataset: str) -> bool:
    return dataset in answers and answers[dataset].state in ("denied", "unavailable")


def _same_birth(answers: Mapping[str, Answer], born: date) -> list[Finding]:
    birth = answers["birth"]
    if birth.state != "found" or _day(birth.facts.get("birth_date")) == born:
        return []
    text = _("El acta de nacimiento dice {record}, la cédula {card}.").format(
        record=_shown(birth.facts["birth_date"]), card=_shown(born.isoformat())
    )
    return [Finding("birth-dates-differ", "look", text, birth)]


def _disabled(answers: Mapping[str, Answer], age: int, today: date) -> list[Finding]:
    certificate = answers.get("disability-certificate")
    if certificate is None or age < AGE_DISABLED:
        return []
    if certificate.state == "absent":
        return [Finding("no-certificate", "note", _("SENADIS no tiene un certificado con ese número."), certificate)]
    if certificate.state != "found":
        return []
    facts = certificate.facts
    if facts.get("match") is not True:
        text = _("El certificado presentado no es de esta persona según SENADIS: pida el original.")
        return [Finding("certificate-of-another", "look", text, certificate)]
    until = _day(facts.get("valid_until"))
    if until is None or until < today:
        text = _("El certificado venció el {day}.").format(day=_shown(facts.get("valid_until")))
        return [Finding("certificate-expired", "note", text, certificate)]
    if facts.get("degree") != "severe":
        return [Finding("disability-not-severe", "note", _("La discapacidad certificada no es severa."), certificate)]
    text = _("Tiene {age} años y discapacidad severa certificada hasta el {day}.").format(
        age=age, day=_shown(until.isoformat())
    )
    return [Finding("age-60-disability", "for", text, certificate)]


def _indigenous(answers: Mapping[str, Answer], age: int) -> list[Finding]:
    community = answers.get("indigenous-community")
    if community is None or age < AGE_INDIGENOUS or community.state != "found":
        return []
    name = community.facts.get("community")
    if community.facts.get("registered") is not True:
        text = _("La comunidad {name} no está registrada en el INDI.").format(name=name)
        return [Finding("community-not-registered", "note", text, community)]
    text = _("Tiene {age} años y pertenece a la comunidad registrada {name}.").format(age=age, name=name)
    return [Finding("age-55-indigenous", "for", text, community)]


def _foreign_born(identity: Answer) -> bool:
    """Say whether residence matters; a nationality that is not told may be any."""
    return str(identity.facts.get("nationality") or "").upper() not in ("PARAGUAYA", "PARAGUAYO")


def _resident(answers: Mapping[str, Answer], today: date) -> list[Finding]:
    identity, residence = answers["identity"], answers.get("residence")
    if residence is None or residence.state in ("denied", "unavailable"):
        return []
    naturalised = "NATURALIZAD" in str(identity.facts.get("nationality") or "").upper()
    if residence.state == "absent":
        return [Finding("residence", "look", _("Migraciones no tiene su radicación."), residence)]
    if not _same_person(identity, residence):
        text = _("La radicación con ese documento es de otro nombre o fecha de nacimiento.")
        return [Finding("residence-of-another", "look", text, residence)]
    since = _day(residence.facts.get("entry_date"))
    if since is None:
        return [Finding("residence", "look", _("La radicación no trae fecha."), residence)]
    years, day = age_on(since, today), _shown(since.isoformat())
    if naturalised and years >= YEARS_NATURALISED:
        text = _(
            "Nacionalidad por naturalización, radicación desde el {day}; ninguna fuente dice su fecha: pida la carta."
        )
        return [Finding("naturalised", "look", text.format(day=day), residence)]
    least = YEARS_NATURALISED if naturalised else YEARS_FOREIGN
    weight: Weight = "for" if years >= least else "against"
    text = _("Radicación desde el {day}: {years} años de los {least} que pide la ley.")
    return [Finding("residence", weight, text.format(day=day, years=years, least=least), residence)]


def _same_person(identity: Answer, other: Answer) -> bool:
    """Compare what a source that does not repeat the identifier says of the person with the identity."""
    if _day(identity.facts.get("birth_date")) != _day(other.facts.get("birth_date")):
        return False
    return all(
        str(identity.facts.get(name) or "").casefold() == str(other.facts.get(name) or "").casefold()
        for name in ("given_names", "surnames")
    )


def _excluded(answers: Mapping[str, Answer], today: date) -> list[Finding]:
    findings = []
    payroll, insurance, taxes = answers["payroll"], answers["social-insurance"], answers["ruc"]
    if payroll.state == "found":
        year, month = int(payroll.facts["year"]), int(payroll.facts["month"])
        paid = f"{month:02}/{year}"
        recent = (today.year - year) * 12 + today.month - month <= _PAYROLL_MONTHS
        text = _("En la nómina pública de {month}: {entity}.").format(month=paid, entity=payroll.facts.get("entity"))
        findings.append(Finding("on-payroll", "against" if recent else "note", text, payroll))
    if insurance.state == "found":
        kind, enrolled = insurance.facts.get("insured_type"), insurance.facts.get("enrolled")
        last = _shown_month(insurance.facts.get("last_period"))
        if kind == "pensioner":
            findings.append(
                Finding("other-pension", "against", _("Cobra una jubilación o pensión del IPS."), insurance)
            )
        elif kind == "holder" and enrolled is True:
            text = _("Con seguro del IPS por su trabajo; último aporte {month}.").format(month=last)
            findings.append(Finding("insured", "against", text, insurance))
        else:
            text = _("Sin aportes vigentes al IPS; último {month}.").format(month=last)
            findings.append(Finding("not-contributing", "note", text, insurance))
    if taxes.state == "found":
        active = taxes.facts.get("status") == "active"
        text = (
            _("RUC activo; el registro no dice qué impuestos paga.") if active else _("Tuvo un RUC; ya no está activo.")
        )
        findings.append(Finding("taxpayer", "against" if active else "note", text, taxes))
    return findings


def _why_missing(answer: Answer) -> str:
    why = {
        "absent": _("{institution} no tiene {dataset}."),
        "denied": _("No se permitió preguntar {dataset} a {institution}: {reason}."),
        "unavailable": _("{institution} no respondió por {dataset}: {reason}."),
    }[answer.state]
    return why.format(institution=answer.institution, dataset=answer.dataset, reason=answer.reason)


def _day(text: object) -> date | None:
    return date.fromisoformat(text) if isinstance(text, str) and text else None


def _shown_month(text: object) -> str:
    return f"{text[5:]}/{text[:4]}" if isinstance(text, str) and len(text) == 7 else "—"


def _shown(text: object) -> str:
    """Write a date as people here read it."""
    day = _day(text)
    return "—" if day is None else day.strftime("%d/%m/%Y")
