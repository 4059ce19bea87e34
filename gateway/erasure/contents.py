"""Says, table by table, what is destroyed of a person and what stays as somebody else's evidence.

What stays stands under internal ids and holds codes, dates and officials only: that a referral or a consent there was,
who acted, in which states. Texts, proofs, numbers of other systems and every fact about the person go. Tables not named
hold nothing of persons: agreements, roles, clients and tokens of officials and systems, counters, jobs (which carry the
id of a referral), files' names and hashes, rejects (which show the shape of a value alone).
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.rights import store
from gateway.vault import Vault

Identifier = tuple[str, str]

# In this order, because what identifies goes last: the steps before find by it. Each is (kind, statement); the kinds
# are what the command shows. Conditions let a second run find only what was written meanwhile.
_STEPS: tuple[tuple[str, str], ...] = (
    (
        "answers",
        """
        UPDATE siis.idempotency AS i SET answer = '{}', request_sha256 = decode(repeat('00', 32), 'hex')
        FROM audit.entry AS e JOIN audit.subject_key AS k ON k.pseudonym = e.pseudonym
        WHERE k.subject = :person AND i.answer -> 'receipt' ->> 'entry_id' = e.id::text
        """,
    ),
    (
        "answers",
        """
        UPDATE siis.idempotency AS i SET answer = '{}', request_sha256 = decode(repeat('00', 32), 'hex')
        FROM siis.rights_request AS r WHERE r.person_id = :person AND i.answer ->> 'request' = r.id::text
        """,
    ),
    (
        "texts",
        """
        UPDATE siis.referral_event AS e SET texts = NULL
        FROM siis.referral AS r WHERE r.id = e.referral_id AND r.person_id = :person AND e.texts IS NOT NULL
        """,
    ),
    (
        "texts",
        """
        UPDATE siis.message AS m SET texts = NULL,
            delivery_reason = CASE WHEN m.delivery IN ('pending', 'dead') THEN 'not-released'
                ELSE m.delivery_reason END,
            delivery = CASE WHEN m.delivery IN ('pending', 'dead') THEN 'withheld' ELSE m.delivery END
        FROM siis.referral AS r
        WHERE r.id = m.referral_id AND r.person_id = :person
            AND (m.texts IS NOT NULL OR m.delivery IN ('pending', 'dead'))
        """,
    ),
    (
        "referrals",
        """
        UPDATE siis.referral SET texts = NULL, foreign_system = NULL, foreign_value = NULL, recipient_reference = NULL,
            department = NULL, district = NULL, category = NULL, population = '{}', gap_since = NULL,
            delivery_reason = CASE WHEN delivery IN ('pending', 'dead') THEN 'not-released' ELSE delivery_reason END,
            delivery = CASE WHEN delivery IN ('pending', 'dead') THEN 'withheld' ELSE delivery END
        WHERE person_id = :person AND texts IS NOT NULL
        """,
    ),
    (
        "links",
        """
        UPDATE siis.link AS l SET revoked_at = :at, revoked_by = 'erasure'
        FROM siis.referral AS r WHERE r.id = l.referral_id AND r.person_id = :person AND l.revoked_at IS NULL
        """,
    ),
    ("cases", "UPDATE siis.case_file SET texts = NULL WHERE person_id = :person AND texts IS NOT NULL"),
    (
        "cases",
        """
        UPDATE siis.case_task AS t SET what = NULL
        FROM siis.case_file AS c WHERE c.id = t.case_id AND c.person_id = :person AND t.what IS NOT NULL
        """,
    ),
    (
        "cases",
        """
        UPDATE siis.case_note AS n SET text = NULL
        FROM siis.case_file AS c WHERE c.id = n.case_id AND c.person_id = :person AND n.text IS NOT NULL
        """,
    ),
    (
        "cases",
        """
        DELETE FROM siis.case_barrier AS b USING siis.case_file AS c
        WHERE c.id = b.case_id AND (c.person_id = :person
            OR b.referral_id IN (SELECT r.id FROM siis.referral AS r WHERE r.person_id = :person))
        """,
    ),
    (
        "requests",
        """
        UPDATE siis.rights_part AS p SET answer = NULL, sha256 = NULL,
            state = CASE WHEN state = 'answered' THEN state ELSE 'withdrawn' END
        FROM siis.rights_request AS r
        WHERE r.id = p.request_id AND r.person_id = :person
            AND (p.answer IS NOT NULL OR p.sha256 IS NOT NULL OR p.state NOT IN ('answered', 'withdrawn'))
        """,
    ),
    (
        "requests",
        "UPDATE siis.rights_request SET text = NULL WHERE person_id = :person AND text IS NOT NULL",
    ),
    (
        "breaches",
        """
        WITH gone AS (DELETE FROM siis.breach_person WHERE person_id = :person RETURNING breach_id)
        UPDATE siis.breach AS b SET affected = b.affected - 1, erased = coalesce(b.erased, 0) + 1
        FROM gone WHERE b.id = gone.breach_id
        """,
    ),
    (
        "threads",
        """
        UPDATE siis.guidance_message AS m SET text = NULL
        FROM siis.guidance_thread AS t WHERE t.id = m.thread_id AND t.person_id = :person AND m.text IS NOT NULL
        """,
    ),
    (
        "threads",
        """
        UPDATE siis.guidance_thread SET service = NULL, referral_id = NULL, waits_for = 'nobody'
        WHERE person_id = :person AND (service IS NOT NULL OR referral_id IS NOT NULL OR waits_for <> 'nobody')
        """,
    ),
    ("notices", "DELETE FROM siis.notice WHERE person = :person"),
    ("notices", "UPDATE siis.notice SET subject = NULL WHERE subject = :person"),
    (
        "signatures",
        """
        DELETE FROM siis.govstack_signature AS s USING consent.consent_record AS c
        WHERE c.subject = :person AND c.id IN (s.record, s.answer)
        """,
    ),
    (
        "revisions",
        """
        UPDATE siis.govstack_revision AS r SET snapshot = ''
        WHERE r.snapshot <> '' AND (r.individual = :person OR r.object_id = CAST(:person AS text)
            OR r.object_id IN (SELECT c.id::text FROM consent.consent_record AS c WHERE c.subject = :person))
        """,
    ),
    ("individuals", "DELETE FROM siis.govstack_individual WHERE person_id = :person"),
    (
        "consents",
        "UPDATE consent.consent_record SET proof_reference = '' WHERE subject = :person AND proof_reference <> ''",
    ),
    (
        "mandates",
        """
        UPDATE consent.representation SET proof_reference = '',
            end_reason = CASE WHEN ended_at IS NULL THEN 'ended' ELSE end_reason END,
            ended_at = coalesce(ended_at, :at)
        WHERE :person IN (subject, representative) AND (proof_reference <> '' OR ended_at IS NULL)
        """,
    ),
    ("protection", "DELETE FROM consent.protective_flag WHERE subject = :person"),
    ("protection", "DELETE FROM consent.objection WHERE subject = :person"),
    ("protection", "DELETE FROM consent.restriction WHERE subject = :person"),
    (
        "emergencies",
        "UPDATE consent.break_glass SET incident = id::text WHERE subject = :person AND incident <> id::text",
    ),
    (
        "answers",
        """
        UPDATE siis.idempotency AS i SET answer = '{}', request_sha256 = decode(repeat('00', 32), 'hex')
        FROM siis.observation AS o WHERE o.person_id = :person AND i.answer ->> 'form' = o.form_id::text
        """,
    ),
    (
        "forms",
        """
        UPDATE siis.form AS f SET texts = NULL, number = NULL
        FROM siis.observation AS o
        WHERE o.person_id = :person AND f.id = o.form_id AND (f.texts IS NOT NULL OR f.number IS NOT NULL)
        """,
    ),
    ("observations", "DELETE FROM siis.observation WHERE person_id = :person"),
    (
        "observations",
        """
        DELETE FROM siis.observation AS b USING siis.person AS p
        WHERE p.id = :person AND b.household_id = p.household_id AND NOT EXISTS (
            SELECT FROM siis.person AS o
            WHERE o.household_id = p.household_id AND o.id <> p.id AND o.names IS NOT NULL
        )
        """,
    ),
    ("facts", "DELETE FROM siis.fact WHERE person_id = :person"),
    (
        "facts",
        """
        DELETE FROM siis.fact AS f USING siis.person AS p
        WHERE p.id = :person AND f.household_id = p.household_id AND NOT EXISTS (
            SELECT FROM siis.person AS o
            WHERE o.household_id = p.household_id AND o.id <> p.id AND o.names IS NOT NULL
        )
        """,
    ),
    ("merges", "DELETE FROM siis.person_merge WHERE undoes IS NOT NULL AND :person IN (survivor, absorbed)"),
    ("merges", "DELETE FROM siis.person_merge WHERE :person IN (survivor, absorbed)"),
    ("status", "DELETE FROM siis.status WHERE unit = :person"),
    ("status", "DELETE FROM siis.status_past WHERE unit = :person"),
    (
        "status",
        """
        DELETE FROM siis.status AS s USING siis.person AS p
        WHERE p.id = :person AND s.unit = p.household_id AND NOT EXISTS (
            SELECT FROM siis.person AS o
            WHERE o.household_id = p.household_id AND o.id <> p.id AND o.names IS NOT NULL
        )
        """,
    ),
    (
        "status",
        """
        DELETE FROM siis.status_past AS s USING siis.person AS p
        WHERE p.id = :person AND s.unit = p.household_id AND NOT EXISTS (
            SELECT FROM siis.person AS o
            WHERE o.household_id = p.household_id AND o.id <> p.id AND o.names IS NOT NULL
        )
        """,
    ),
    (
        "household",
        """
        UPDATE siis.household AS h SET department = NULL, district = NULL, community_id = NULL, attributes = '{}'
        FROM siis.person AS p
        WHERE p.id = :person AND h.id = p.household_id AND NOT EXISTS (
            SELECT FROM siis.person AS o
            WHERE o.household_id = p.household_id AND o.id <> p.id AND o.names IS NOT NULL
        )
        """,
    ),
    ("wards", "UPDATE siis.person SET guardian_id = NULL WHERE guardian_id = :person"),
    ("registers", "DELETE FROM siis.register_row WHERE subject = ANY(:indexes)"),
    ("identifiers", "DELETE FROM siis.stand_in WHERE :person IN (person_id, subject)"),
    ("identifiers", "DELETE FROM siis.person_identifier WHERE person_id = :person"),
    (
        "person",
        """
        UPDATE siis.person SET names = NULL, household_id = NULL, birth_date = NULL, sex = NULL, department = NULL,
            district = NULL, deceased_on = NULL, guardian_id = NULL, merged_into = NULL, attributes = '{}'
        WHERE id = :person AND names IS NOT NULL
        """,
    ),
)
_UNRESOLVED = text("SELECT id, identity FROM siis.rights_request WHERE identity IS NOT NULL FOR UPDATE")
_RECOGNISE = text("UPDATE siis.rights_request SET person_id = :person, identity = NULL WHERE id = :id")
_KEEP_IDENTITY = text("UPDATE siis.rights_request SET identity = :identity WHERE id = :id")
_PERSON_INDEXES = bindparam("indexes", type_=ARRAY(BYTEA))


_CHANGED = re.compile(r"(?:UPDATE|DELETE FROM)\s+([a-z]+\.[a-z_]+)")


class Whom(NamedTuple):
    """The person to erase: internal id, and the identifiers known while there are any.

    ``absorbed`` are the ids of those found to be them and of those who stand in for them, who are erased with them.
    """

    id: UUID
    identifiers: tuple[Identifier, ...]
    absorbed: tuple[UUID, ...] = ()

    @property
    def ids(self) -> tuple[UUID, ...]:
        """All ids of the person, the one that the others lead to last."""
        return (*self.absorbed, self.id)


def changed() -> frozenset[str]:
    """Return the tables of which something is destroyed."""
    return frozenset(table for _kind, statement in _STEPS for table in _CHANGED.findall(statement))


async def empty(connection: AsyncConnection, vault: Vault, whom: Whom, at: datetime) -> dict[str, int]:
    """Destroy what the gateway holds of a person in the caller's transaction; return how many rows of each kind.

    The caller has locked the person's row. The log's key is not destroyed here.
    """
    values: dict[str, Any] = {
        "at": at,
        "indexes": [vault.register_index(system)(value) for system, value in whom.identifiers],
    }
    done = {"requests": await _recognised(connection, vault, whom)}
    for each in whom.ids:
        values["person"] = each
        for kind, statement in _STEPS:
            query = text(statement)
            if ":indexes" in statement:
                query = query.bindparams(_PERSON_INDEXES)
            named = {name: value for name, value in values.items() if f":{name}" in statement}
            result = await connection.execute(query, named)
            done[kind] = done.get(kind, 0) + result.rowcount
    return done


async def _recognised(connection: AsyncConnection, vault: Vault, whom: Whom) -> int:
    """Recognise the person in requests whose asker nobody has recognised yet, and forget as whom they came."""
    found = 0
    theirs = set(whom.identifiers)
    for row in (await connection.execute(_UNRESOLVED)).all() if theirs else ():
        subject, other = store.presented(vault, row)
        if subject in theirs:
            await connection.execute(_RECOGNISE, {"id": row.id, "person": whom.id})
        elif other in theirs:
            identity = store.seal_identity(vault, row.id, subject, None)
            await connection.execute(_KEEP_IDENTITY, {"id": row.id, "identity": identity})
        else:
            continue
        found += 1
    return found
