"""Says in plain words what an entry of the log means to the person it is about, and nothing of who the official was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from audit.models import Groups
from audit.usage import Use
from consent.authority import CITIZEN
from consent.models import SERVICE_PREFIX
from gateway import evidence
from schemas.codes import code_list, label
from schemas.text import _, language

Kind = Literal["you", "person", "official", "system", "gateway"]
_ACTS, _OTHER = "usage-acts", "other"


class Coded(NamedTuple):
    """A code with its label in the language in force."""

    code: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Which data it was about: the dataset (or service), who holds it, and the fields asked for or handed over."""

    dataset: Coded
    holder: Coded | None
    fields: tuple[Coded, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of "who saw my data".

    ``kind`` says who acted: the reader in person, another person, an official, a system alone, or whoever runs the
    gateway; ``who`` says it in words. ``hidden`` is the rule (``usage-hiding``) by which somebody else than who keeps
    protected cases would not see it.
    """

    use: Use
    text: str
    kind: Kind
    who: str
    institution: Coded | None
    system: str | None
    on_behalf_of: Coded | None
    purpose: Coded | None
    basis: Coded | None
    norm: str | None
    data: Data | None
    emergency: bool
    hidden: str | None = None

    @property
    def permitted(self) -> bool:
        """Whether it was allowed; what was allowed and then failed for another reason counts as allowed."""
        return self.use.outcome != "deny"


def row_of(use: Use, reader: UUID, hidden: str | None) -> Row:
    """Return the line of an entry for somebody who reads; ``reader`` is our id of the person who looks at it."""
    actor, why, what = (_group(use.groups, name) for name in ("actor", "why", "what"))
    recipient = _group(use.groups, "exchange").get("recipient")
    act = use.type if use.type in code_list(_ACTS) else _OTHER
    institution = _coded("institutions", actor.get("institution") or recipient)
    kind = _kind(actor, institution, reader)
    return Row(
        use=use,
        text=label(_ACTS, act),
        kind=kind,
        who=_who(kind, institution),
        institution=institution,
        system=actor.get("client"),
        on_behalf_of=_coded("institutions", actor.get("on_behalf_of")),
        purpose=_coded("purposes", why.get("purpose") or what.get("purpose")),
        basis=_coded("legal-bases", why.get("basis")),
        norm=why.get("norm"),
        data=_data(what, code_list(_ACTS)[act].get("shows")),
        emergency=why.get("emergency") is not None or use.type.startswith("breakglass."),
        hidden=hidden,
    )


def is_own(use: Use, person: UUID) -> bool:
    """Say whether a person did this themselves, with a token of their own."""
    actor = _group(use.groups, "actor")
    return CITIZEN in actor.get("roles", ()) and actor.get("user") == str(person)


def labels_of(use: Use) -> frozenset[str]:
    """Return the labels (``labels``) of the fields that an entry names as asked for."""
    what = _group(use.groups, "what")
    asked = what.get("asked")
    return labels_of_fields(str(what.get("dataset")), asked if isinstance(asked, list) else ())


def labels_of_fields(dataset: str, names: Iterable[str]) -> frozenset[str]:
    """Return the labels (``labels``) of fields of a dataset."""
    fields = code_list("datasets").get(dataset, {}).get("fields", {})
    return frozenset(fields[name]["label"] for name in names if name in fields)


def row_json(row: Row) -> dict[str, Any]:
    """Return a line as JSON; ``proof`` is where its inclusion proof is, once ``proven``."""
    use, data = row.use, row.data
    shown: dict[str, Any] = {
        "id": str(use.entry_id),
        "at": _instant(use.at),
        "type": use.type,
        "text": row.text,
        "who": {"kind": row.kind, "text": row.who, "institution": _json(row.institution), "system": row.system},
        "on_behalf_of": _json(row.on_behalf_of),
        "purpose": _json(row.purpose),
        "basis": None if row.basis is None else {**row.basis._asdict(), "norm": row.norm},
        "data": None
        if data is None
        else {
            "dataset": _json(data.dataset),
            "holder": _json(data.holder),
            "fields": [field._asdict() for field in data.fields],
        },
        "permitted": row.permitted,
        "outcome": use.outcome,
        "emergency": row.emergency,
        "log": {
            "log": use.log,
            "index": use.index,
            "leaf_hash": use.leaf_hash.hex(),
            "proven": use.proven,
            "proof": evidence.proof_address(use.entry_id),
        },
    }
    # Only who asked for it, and keeps protected cases, gets such a line at all.
    return shown if row.hidden is None else {**shown, "hidden": _json(_coded("usage-hiding", row.hidden))}


def _group(groups: Groups, name: str) -> Mapping[str, Any]:
    return groups.get(name, {})


def _kind(actor: Mapping[str, Any], institution: Coded | None, reader: UUID) -> Kind:
    if CITIZEN in actor.get("roles", ()):
        return "you" if actor.get("user") == str(reader) else "person"
    if institution is None or actor.get("channel") == "command-line":
        return "gateway"
    return "official" if actor.get("user") else "system"


def _who(kind: Kind, institution: Coded | None) -> str:
    if kind == "you":
        return _("usted")
    if kind == "person":
        return _("otra persona, con su propia identificación")
    if kind == "gateway" or institution is None:
        return _("quien opera la pasarela")
    words = _("un funcionario de: {institution}") if kind == "official" else _("un sistema de: {institution}")
    return words.format(institution=institution.title)


def _data(what: Mapping[str, Any], shows: str | None) -> Data | None:
    dataset = what.get("dataset")
    if not isinstance(dataset, str):
        return None
    fields: Iterable[str] = what.get(shows or "released") or ()
    if dataset.startswith(SERVICE_PREFIX):
        named = Coded(dataset, label("services", dataset.removeprefix(SERVICE_PREFIX)))
    else:
        named = Coded(dataset, label("datasets", dataset))
    titles = code_list("datasets").get(dataset, {}).get("fields", {})
    return Data(
        dataset=named,
        holder=_coded("institutions", what.get("holder")),
        fields=tuple(Coded(name, _field(name, titles)) for name in fields),
    )


def _field(name: str, titles: Mapping[str, Mapping[str, str]]) -> str:
    # What a referral carries of a person is no dataset of its own.
    of_referrals = {
        "identifiers": _("Identificadores"),
        "department": _("Departamento"),
        "district": _("Distrito"),
    }
    spec = titles.get(name) or code_list("datasets")["identity"]["fields"].get(name)
    return of_referrals.get(name, name) if spec is None else str(spec[language()])


def _coded(codes: str, code: object) -> Coded | None:
    return Coded(code, label(codes, code)) if isinstance(code, str) else None


def _json(coded: Coded | None) -> dict[str, str] | None:
    return None if coded is None else coded._asdict()


def _instant(at: datetime) -> str:
    return at.isoformat()
