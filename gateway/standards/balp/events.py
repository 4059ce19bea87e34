"""Turns an entry of the log into one FHIR AuditEvent; an entry is about one person at most, as BALP asks of an event.

A profile is claimed only where the entry holds what it requires. Persons stay the log's pseudonyms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audit.models import LoggedEntry
from gateway.auditing.forms import Source
from gateway.standards.balp import codes
from gateway.standards.balp.codes import Coding, Kind
from schemas.codes import code_list

_URI, _ADDRESS = "5", "2"
_Group = Mapping[str, Any]


def event(entry: LoggedEntry, source: Source) -> dict[str, Any]:
    """Return the AuditEvent of an entry; of an erased one what its envelope says."""
    return _Writer(entry, source).event()


class _Writer:
    def __init__(self, entry: LoggedEntry, source: Source) -> None:
        self._entry, self._source = entry, source
        self._envelope = entry.envelope
        detail = entry.detail or {}
        self._actor, self._why, self._what, self._decision, self._exchange = (
            detail.get(name, {}) for name in ("actor", "why", "what", "decision", "exchange")
        )
        self._kind: Kind = codes.kind_of(self._envelope["type"], self._envelope["outcome"])
        self._recorder = _named("Device", "urn:siis:recorder", self._envelope["recorder"])

    def event(self) -> dict[str, Any]:
        agents, entities = self._agents(), self._entities()
        profile = self._profile({agent["slice"] for agent in agents}, {entity["slice"] for entity in entities})
        envelope = self._envelope
        made: dict[str, Any] = {
            "resourceType": "AuditEvent",
            "id": str(self._entry.entry_id),
            "meta": {"source": f"{self._source.origin}/{self._entry.log}#{self._entry.index}"},
            "type": self._kind.type,
            "subtype": self._subtypes(profile),
            "action": self._kind.action,
            "recorded": envelope["at"],
            "outcome": codes.OUTCOMES[envelope["outcome"]],
        }
        if profile is not None:
            made["meta"]["profile"] = [profile]
        if reasons := self._decision.get("reasons"):
            made["outcomeDesc"] = " ".join(reasons)
        if purposes := self._purposes():
            made["purposeOfEvent"] = purposes
        made["agent"] = [_without_slice(agent) for agent in agents]
        made["source"] = {
            "site": f"{self._source.origin}/{self._entry.log}",
            "observer": self._recorder,
            "type": [codes.APPLICATION_SERVER],
        }
        if entities:
            made["entity"] = [_without_slice(entity) for entity in entities]
        return made

    def _subtypes(self, profile: str | None) -> list[Coding]:
        own = {"system": codes.TYPES, "code": self._envelope["type"]}
        match self._kind.shape:
            case "read":
                return [codes.READING, own]
            case "create":
                return [codes.CREATING, own]
            case "decision":
                # Its subtypes are those of the profile and no others.
                return [codes.DECIDED_BY_CONSENT if profile == codes.AUTHZ_CONSENT else codes.DECIDED_BY_ROLE]
            case _:
                return [own]

    def _profile(self, agents: set[str], entities: set[str]) -> str | None:
        done = codes.OUTCOMES[self._envelope["outcome"]] == "0"
        match self._kind.shape:
            case "read" | "create" as shape if done and {"client", "server"} <= agents and "data" in entities:
                plain, personal = {
                    "read": (codes.READ, codes.PATIENT_READ),
                    "create": (codes.CREATE, codes.PATIENT_CREATE),
                }[shape]
                return personal if "patient" in entities else plain
            case "decision" if {"client", "user", "userorg"} <= agents and {"patient", "consent"} <= entities:
                return codes.AUTHZ_CONSENT
            case _:
                return None

    def _agents(self) -> list[dict[str, Any]]:
        writes, decides = self._kind.shape == "create", self._kind.shape == "decision"
        user = self._actor.get("user")
        asking, holding = codes.DESTINATION_ROLE, codes.SOURCE_ROLE
        if writes:
            asking, holding = holding, asking
        agents = []
        if client := self._actor.get("client"):
            agents.append(
                _agent(
                    "client",
                    codes.APPLICATION if decides else asking,
                    _named("Device", "urn:siis:client", client),
                    requestor=user is None,
                    network=self._network(client),
                )
            )
        if decides:
            agents.append(_agent("authorizer", codes.AUTHORISER, self._recorder))
        else:
            network = {"address": self._source.address, "type": _URI}
            # Nobody else takes part in what the gateway does by itself.
            agents.append(_agent("server", holding, self._recorder, requestor=not agents and not user, network=network))
        if user is not None:
            agents.append(self._user(user, codes.AUTHOR if writes else codes.RECIPIENT))
        if institution := self._actor.get("institution"):
            agents.append(_agent("userorg", codes.ORGANISATION, _organisation(institution)))
        return agents

    def _network(self, client: str) -> dict[str, str]:
        address = self._actor.get("address")
        # The entry of an older release does not say where the client came from; what named it stands for that.
        return (
            {"address": address, "type": _ADDRESS}
            if address
            else {"address": f"urn:siis:client:{client}", "type": _URI}
        )

    def _user(self, user: str, type: Coding) -> dict[str, Any]:
        institution = self._actor.get("institution") or ""
        agent = _agent("user", type, _named("Practitioner", f"urn:siis:user:{institution}", user), requestor=True)
        if roles := self._actor.get("roles"):
            agent["role"] = [{"coding": [{"system": "urn:siis:role", "code": role}]} for role in roles]
        if purposes := self._purposes():
            agent["purposeOfUse"] = purposes
        if level := self._actor.get("assurance"):
            coding = {"system": "urn:siis:assurance", "code": str(level)}
            agent["extension"] = [{"url": codes.ASSURANCE, "valueCodeableConcept": {"coding": [coding]}}]
        return agent

    def _purposes(self) -> list[dict[str, Any]]:
        purpose = self._why.get("purpose")
        if purpose is None:
            return []
        coding = [{"system": "urn:siis:purpose", "code": purpose}]
        if concept := code_list("purposes").get(purpose, {}).get("dpv"):
            coding.append({"system": codes.DPV, "code": concept})
        return [{"coding": coding}]

    def _entities(self) -> list[dict[str, Any]]:
        found = []
        if pseudonym := self._envelope["subject"]:
            what = _named("Patient", "urn:siis:log-pseudonym", pseudonym)
            found.append({"slice": "patient", "what": what, "type": codes.PERSON, "role": codes.PATIENT})
        if consent := self._why.get("consent"):
            found.append(
                {"slice": "consent", "what": _named("Consent", "urn:siis:consent", consent), "type": codes.CONSENT}
            )
        if self._kind.shape == "decision":
            # AuthZconsent allows no other entities (its slicing is closed).
            return found
        if trace := self._envelope["correlation"]:
            found.append({"slice": "transaction", "what": {"identifier": {"value": trace}}, "type": codes.REQUEST_ID})
        if data := self._data():
            found.append(data)
        if referral := self._exchange.get("referral"):
            what = _named("ServiceRequest", "urn:siis:referral", referral)
            found.append({"slice": "referral", "what": what, "type": codes.REFERRAL})
        return found

    def _data(self) -> dict[str, Any] | None:
        dataset = self._what.get("dataset")
        if dataset is None:
            return None
        data: dict[str, Any] = {
            "slice": "data",
            "what": {"identifier": {"system": "urn:siis:dataset", "value": dataset}},
            "type": codes.OBJECT,
            "role": codes.DOMAIN_RESOURCE,
        }
        if labels := self._what.get("labels"):
            data["securityLabel"] = [{"system": "urn:siis:label", "code": label} for label in labels]
        # Which fields, never what they held.
        fields = {name: " ".join(sorted(self._what.get(name) or ())) for name in ("asked", "released", "withheld")}
        details = [{"type": name, "valueString": names} for name, names in fields.items() if names]
        if details:
            data["detail"] = details
        return data


def _agent(
    name: str, type: Coding, who: _Group, *, requestor: bool = False, network: _Group | None = None
) -> dict[str, Any]:
    agent: dict[str, Any] = {"slice": name, "type": {"coding": [type]}, "who": who, "requestor": requestor}
    return agent if network is None else {**agent, "network": network}


def _named(type: str, system: str, value: str) -> dict[str, Any]:
    return {"type": type, "identifier": {"system": system, "value": value}}


def _organisation(code: str) -> dict[str, Any]:
    name = code_list("institutions").get(code, {}).get("es")
    return _named("Organization", "urn:siis:institution", code) | ({} if name is None else {"display": name})


def _without_slice(element: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in element.items() if name != "slice"}
