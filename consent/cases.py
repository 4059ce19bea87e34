"""Three worked cases on the demonstration agreements: by public duty, by consent, and a case under protection.

``siis consent explain`` prints them and ``docs/explanation/decision.md`` walks through them; the persons are made up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from consent.agreements import demonstration_agreements
from consent.decision import decide
from consent.explain import Line, account_of, explain
from consent.models import FETCH, Caller, ConsentFact, RepresentationFact, Request, SubjectFacts
from consent.policy import Policy, build_policy
from schemas.codes import code_list
from schemas.text import _

AT = datetime(2026, 11, 16, 13, 0, tzinfo=UTC)
_PERSON = UUID("0193a000-0000-7000-8000-000000000001")
_MANDATE = UUID("0193a000-0000-7000-8000-000000000002")
_CONSENT = UUID("0193a000-0000-7000-8000-000000000003")
_MOTHER = UUID("0193a000-0000-7000-8000-000000000004")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request about somebody made up, and what a lawyer should see in it."""

    code: str
    title: str
    story: str
    request: Request
    facts: SubjectFacts


def cases() -> list[Case]:
    """Return the three cases, titles and stories in the language in force."""
    return [_pension(), _health(), _violence()]


def policy() -> Policy:
    """Return the policy of a new database: the demonstration agreements and compartments."""
    held = {
        (institution, role): frozenset(labels)
        for institution, roles in code_list("compartments").items()
        for role, labels in roles.items()
    }
    agreements = [replace(agreement, version=1) for agreement in demonstration_agreements()]
    return build_policy(agreements, compartments=held)


def explained(case: Case, rules: Policy) -> list[Line]:
    """Decide a case and say why it went so."""
    return explain(account_of(case.request, decide(case.request, case.facts, rules)))


def _operator(institution: str) -> Caller:
    return Caller(
        client_id="ejemplo",
        institution=institution,
        user="operador-7",
        user_verified=True,
        roles=frozenset({"operator"}),
        assurance=2,
    )


def _request(institution: str, holder: str, dataset: str, fields: tuple[str, ...], purpose: str, basis: str) -> Request:
    return Request(
        action=FETCH,
        caller=_operator(institution),
        holder=holder,
        dataset=dataset,
        fields=fields,
        purpose=purpose,
        basis=basis,
        at=AT,
        case="2026-0117",
    )


def _pension() -> Case:
    fields = ("cedula", "certificate_number", "match", "degree", "valid_until")
    return Case(
        code="pension",
        title=_("Cruce para la pensión universal, por obligación legal"),
        story=_(
            "Un operador del MDS pregunta a la SENADIS por el certificado de discapacidad de quien pide la pensión. "
            "La ley manda cruzar los datos, así que no se pide consentimiento."
        ),
        request=_request(
            "MDS", "SENADIS", "disability-certificate", fields, "service-access-determination", "legal-obligation"
        ),
        facts=SubjectFacts(subject=_PERSON, birth_date=date(1961, 3, 5)),
    )


def _health() -> Case:
    mandate = RepresentationFact(
        id=_MANDATE, representative=_MOTHER, kind="parent", valid_from=AT - timedelta(days=400)
    )
    agreement = next(each for each in demonstration_agreements() if each.code == "DEMO-MINNA-MSPBS-CONSENT")
    consent = ConsentFact(
        id=_CONSENT,
        agreement=agreement.code,
        purposes=frozenset({"service-provision"}),
        fields=frozenset({"controls", "last_control_on", "last_control_kind"}),
        labels=frozenset({"health"}),
        state="given",
        text_version="1",
        given_at=AT - timedelta(days=30),
        scope_sha256=agreement.scope_sha256(),
        representation=_MANDATE,
    )
    return Case(
        code="health",
        title=_("Un dato de salud, por consentimiento"),
        story=_(
            "Una operadora del MINNA pide al MSPBS los controles de una niña. Su madre consintió por ella y nombró los "
            "datos de salud; no nombró los de embarazo."
        ),
        request=_request(
            "MINNA",
            "MSPBS",
            "health-controls",
            ("controls", "last_control_on", "last_control_kind", "establishment"),
            "service-provision",
            "consent",
        ),
        facts=SubjectFacts(
            subject=_PERSON, birth_date=date(2016, 8, 20), consents=(consent,), representations=(mandate,)
        ),
    )


def _violence() -> Case:
    return Case(
        code="violence",
        title=_("Un caso de violencia, protegido"),
        story=_(
            "Un operador del MDS pregunta al MINNA por la participación en Abrazo de un niño cuyo caso está protegido. "
            "Quien pregunta recibe la misma respuesta que si el niño no existiera; esta explicación la ven solo el "
            "auditor y los responsables de protección de datos."
        ),
        request=_request(
            "MDS",
            "MINNA",
            "abrazo-participation",
            ("status", "since", "centre"),
            "service-access-determination",
            "official-authority",
        ),
        facts=SubjectFacts(subject=_PERSON, birth_date=date(2014, 2, 11), sealed=True),
    )
