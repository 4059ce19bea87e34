"""GovStack Digital Registries 1.3.0, "my personal data usage": who read a person's data, in both spellings in use."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any, NamedTuple

from gateway import errors, evidence
from gateway.governance.people import Named
from gateway.governance.usage import Asked, Page
from gateway.governance.usage_words import Row
from schemas.codes import code_list
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_uuid
from schemas.text import _

#: The building block has no paging; this is how many lines an answer holds.
MOST = 1000
#: Whoever asks for no database in particular asks for all of them.
EVERYTHING = "SIIS"


class Spelling(NamedTuple):
    """How one edition of the building block spells parameters and members."""

    user: str
    database: str
    members: tuple[str, ...]
    reference: str


#: The OpenAPI 1.3.0, with its own "Refrences".
PASCAL = Spelling(
    "userID",
    "DatabaseID",
    (
        "ID",
        "ReaderID",
        "ReaderInitials",
        "ReaderInstitutionID",
        "ReaderInstitutionName",
        "ReaderApplicationName",
        "SearchDateTime",
        "Refrences",
    ),
    "ReferenceID",
)
#: The specification since 23Q4.
CAMEL = Spelling(
    "userId",
    "databaseId",
    (
        "id",
        "readerId",
        "readerInitials",
        "readerInstitutionId",
        "readerInstitutionName",
        "readerApplicationName",
        "searchDateTime",
        "refrences",
    ),
    "ReferenceId",
)


def person_asked_for(query: Mapping[str, str], spelling: Spelling) -> Named:
    """Return the person asked for; raises BadRequest for none, or for anything but our own id.

    The standard puts the person into the address, which ends up in logs: a cédula is refused there.
    """
    try:
        return Named("siis", str(parse_uuid(query.get(spelling.user, ""))))
    except InvalidIdentifier:
        detail = _("En la dirección va el identificador interno de la persona, nunca la cédula.")
        raise errors.BadRequest("bad-identifier", pointer=f"/{spelling.user}", detail=detail) from None


def asked(query: Mapping[str, str], spelling: Spelling) -> Asked:
    """Return what is asked for: the lines of one dataset of ours, or of everything; raises BadRequest."""
    given = query.get(spelling.database, "")
    known = (EVERYTHING, *code_list("datasets"))
    if given not in known:
        raise errors.BadRequest("unknown-code", pointer=f"/{spelling.database}", allowed=known)

    def wanted(row: Row) -> bool:
        of_it = given == EVERYTHING or (row.data is not None and row.data.dataset.code == given)
        # Only who read something is a reader; what was refused or failed is at our own face.
        return of_it and row.kind != "you" and row.use.outcome not in ("deny", "failed")

    return Asked(limit=MOST, face="myPersonalDataUsage", wanted=wanted)


def usage_json(page: Page, spelling: Spelling) -> list[dict[str, Any]]:
    """Return the records; who the official was is hidden, so the reader's identifier and initials are empty."""
    return [_record(row, spelling) for row in page.rows]


def _record(row: Row, spelling: Spelling) -> dict[str, Any]:
    references = [evidence.proof_address(row.use.entry_id)] if row.data is None else [row.data.dataset.code]
    values = (
        str(row.use.entry_id),
        "",
        "",
        row.institution.code if row.institution else EVERYTHING,
        row.institution.title if row.institution else row.who,
        row.system or EVERYTHING,
        row.use.at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        [{spelling.reference: reference} for reference in references],
    )
    return dict(zip(spelling.members, values, strict=True))
