"""The Data Tracker of Estonia: who used a person's data in the shape of its usage service, OpenAPI 2.0.0.

The usage-information protocol had SOAP alone until 1.3.1 (2024-05-30); since 1.4 (2025-03-06) its REST description is
what registers serve: ``findUsage``, ``usagePeriod`` and ``heartbeat`` (e-gov/AJ, ``dumonitor-openapi-v2.yaml``).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from consent.people import PARAGUAY
from gateway import errors
from gateway.governance.people import Named
from gateway.governance.usage import Asked, Page
from gateway.governance.usage_words import Row
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_cedula, parse_uuid
from schemas.text import _
from schemas.validation import read_instant

USUAL, MOST, _FURTHEST = 1000, 1000, 1_000_000
#: An X-Road identifier of a person begins with the instance's country, as Estonia's with EE.
COUNTRY = "PY"


def asker(header: str | None) -> Named:
    """Return the person of an ``X-Road-UserId`` header; raises BadRequest unless it is ``PY`` and a cédula."""
    try:
        if header is None or not header.startswith(COUNTRY):
            raise InvalidIdentifier("cedula")
        return Named("cedula", parse_cedula(header.removeprefix(COUNTRY)))
    except InvalidIdentifier:
        raise errors.BadRequest("bad-identifier", pointer="/X-Road-UserId") from None


def person_asked_for(query: Mapping[str, str]) -> Named | None:
    """Return the person of ``userCode``; raises BadRequest for anything but our own id, ``None`` without it.

    The protocol has a national identifier there. Addresses end up in logs, so ours stays in the header.
    """
    given = query.get("userCode")
    if given is None:
        return None
    try:
        return Named("siis", str(parse_uuid(given)))
    except InvalidIdentifier:
        detail = _("En la dirección va el identificador interno de la persona, nunca la cédula.")
        raise errors.BadRequest("bad-identifier", pointer="/userCode", detail=detail) from None


def asked(query: Mapping[str, str]) -> Asked:
    """Return the period and page that ``findUsage`` asks for; raises BadRequest."""
    return Asked(
        limit=_number(query, "limit", USUAL, 1, MOST),
        skip=_number(query, "offset", 0, 0, _FURTHEST),
        since=_instant(query, "periodStart"),
        until=_instant(query, "periodEnd"),
        counted=True,
        face="findUsage",
        wanted=_by_others,
    )


def find_usage_json(page: Page) -> dict[str, Any]:
    """Return the body of ``FindUsageResponse``; ``totalUsages`` counts what is shown to this reader."""
    return {"totalUsages": page.total, "usages": [_usage(row) for row in page.rows]}


def usage_period_json(since: datetime) -> dict[str, str]:
    """Return the body of ``UsagePeriodResponse``: without an end, because it is now."""
    return {"periodStart": _told(since)}


def heartbeat_json() -> dict[str, str]:
    """Return the body of ``HeartbeatResponse`` of a service that reached its database."""
    return {"status": "OK"}


def _by_others(row: Row) -> bool:
    # What a person looked at themselves is no use of their data.
    return row.kind != "you"


def _usage(row: Row) -> dict[str, Any]:
    because = [row.purpose.title] if row.purpose else []
    of_what = [row.data.dataset.title] if row.data else []
    return {
        "logtime": _told(row.use.at),
        "action": ": ".join([row.text, ", ".join([*of_what, *because])] if of_what or because else [row.text]),
        "receiverCode": row.institution.code if row.institution else "SIIS",
        "receiverName": row.institution.title if row.institution else row.who,
        "receiverSystem": row.system or "SIIS",
    }


def _told(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _number(query: Mapping[str, str], name: str, usual: int, least: int, most: int) -> int:
    given = query.get(name, str(usual))
    if not (given.isascii() and given.isdecimal() and len(given) <= 7 and least <= int(given) <= most):
        detail = _("Escriba un número entero, de {least} a {most}.").format(least=least, most=most)
        raise errors.BadRequest("bad-page", pointer=f"/{name}", detail=detail)
    return int(given)


def _instant(query: Mapping[str, str], name: str) -> datetime | None:
    given = query.get(name)
    if given is None:
        return None
    try:
        at = datetime.fromisoformat(given.replace(" ", "+").upper())
        # The protocol's own examples have no offset: they are meant where the service is.
        return read_instant((at if at.tzinfo is not None else at.replace(tzinfo=PARAGUAY)).isoformat())
    except ValueError:
        detail = _("Escriba la fecha y la hora con su zona, por ejemplo 2026-11-22T00:00:00-03:00.")
        raise errors.BadRequest("bad-period", pointer=f"/{name}", detail=detail) from None
