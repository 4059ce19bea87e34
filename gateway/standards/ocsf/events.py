"""Turns an entry of the log into one OCSF event of the class API Activity (https://schema.ocsf.io/1.9.0/classes/api_activity).

OCSF has no place for purpose, basis, consent and person: they stand under ``unmapped``, as its rules ask.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from audit.models import LoggedEntry
from gateway.auditing.forms import Source

VERSION: Final = "1.9.0"
_CATEGORY, _CLASS = 6, 6003
_CREATE, _READ, _UPDATE, _OTHER = 1, 2, 3, 99
_NAMES = {_CREATE: "Create", _READ: "Read", _UPDATE: "Update"}
_INFORMATIONAL, _LOW, _MEDIUM = 1, 2, 3
_SUCCESS, _FAILURE = 1, 2
_USER, _SYSTEM = 1, 3
# The last word of a type says what was done; whatever else happened is no creating, reading or changing.
_VERBS = {
    _READ: "bundled explained exported intent read receipt released searched seen",
    _CREATE: "added created drafted given opened received refused registered requested stored",
    _UPDATE: "activated changed closed ended granted lifted revoked set signed withdrawn",
}
_ACTIVITIES = {verb: activity for activity, verbs in _VERBS.items() for verb in verbs.split()}


def event(entry: LoggedEntry, source: Source) -> dict[str, Any]:
    """Return the event of an entry; of an erased one what its envelope says."""
    envelope, detail = entry.envelope, entry.detail or {}
    actor, why, what, decision, exchange = (
        detail.get(name, {}) for name in ("actor", "why", "what", "decision", "exchange")
    )
    kind, outcome = str(envelope["type"]), str(envelope["outcome"])
    activity = _ACTIVITIES.get(kind.rpartition(".")[2], _OTHER)
    failed = outcome in ("deny", "failed")
    at = datetime.fromisoformat(envelope["at"])
    made: dict[str, Any] = {
        "activity_id": activity,
        "activity_name": _NAMES.get(activity, kind),
        "category_uid": _CATEGORY,
        "class_uid": _CLASS,
        "type_uid": _CLASS * 100 + activity,
        "severity_id": _severity(kind, failed),
        "time": round(at.timestamp() * 1000),
        "status_id": _FAILURE if failed else _SUCCESS,
        "status_code": outcome,
        "metadata": {
            "version": VERSION,
            "product": {"name": "SIIS", "vendor_name": "UTGS", "version": source.version},
            "uid": str(entry.entry_id),
            "event_code": kind,
            "log_name": f"{source.origin}/{entry.log}",
            "log_provider": envelope["recorder"],
            "sequence": entry.index,
            "original_time": envelope["at"],
        },
        "actor": _actor(actor, str(envelope["recorder"])),
        "api": {
            "operation": kind,
            "request": {"uid": envelope["correlation"] or str(entry.entry_id)},
            "response": {"message": outcome},
            "service": {"name": str(envelope["recorder"])},
        },
        "src_endpoint": _endpoint(actor, str(envelope["recorder"])),
        "dst_endpoint": {"name": str(envelope["recorder"]), "svc_name": source.address},
    }
    if envelope["correlation"]:
        made["metadata"]["correlation_uid"] = envelope["correlation"]
    if reasons := decision.get("reasons"):
        made["status_detail"] = " ".join(reasons)
    if dataset := what.get("dataset"):
        labels = {"labels": what["labels"]} if what.get("labels") else {}
        made["resources"] = [{"type": "dataset", "name": dataset, **labels}]
    made["unmapped"] = _unmapped(entry, why, what, actor, exchange)
    return made


def _severity(kind: str, failed: bool) -> int:
    if kind.startswith(("breakglass.", "breach.")):
        return _MEDIUM
    return _LOW if failed else _INFORMATIONAL


def _actor(actor: dict[str, Any], recorder: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if client := actor.get("client"):
        made["app_uid"] = client
    if user := actor.get("user"):
        made["user"] = {"uid": user, "type_id": _USER}
    elif not made:
        made["user"] = {"uid": recorder, "type_id": _SYSTEM}
    if "user" in made and (institution := actor.get("institution")):
        made["user"]["org"] = {"uid": institution, "name": institution}
    return made


def _endpoint(actor: dict[str, Any], recorder: str) -> dict[str, Any]:
    made = {"name": str(actor.get("client") or actor.get("channel") or recorder)}
    return made | ({"ip": actor["address"]} if actor.get("address") else {})


def _unmapped(
    entry: LoggedEntry, why: dict[str, Any], what: dict[str, Any], actor: dict[str, Any], exchange: dict[str, Any]
) -> dict[str, Any]:
    found = {
        "subject": entry.envelope["subject"],
        "policy_version": entry.envelope["policy_version"],
        "institution": actor.get("institution"),
        "on_behalf_of": actor.get("on_behalf_of"),
        **{name: why.get(name) for name in ("purpose", "basis", "norm", "agreement", "consent", "case", "emergency")},
        **{name: what.get(name) for name in ("holder", "asked", "released", "withheld")},
        "referral": exchange.get("referral"),
        "erased": entry.detail is None or None,
    }
    return {name: value for name, value in found.items() if value is not None}
