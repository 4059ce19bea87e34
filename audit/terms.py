"""Says by which codes an entry is found without opening it: parties, purpose, dataset, referral… and never a person.

Terms lie beside the entry in clear, so they hold codes only; a user's name becomes a keyed hash that tells nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache

from audit.models import Entry, Groups

_HASH_BYTES = 16


def term(name: str, value: str) -> str:
    """Return one search term; ``name`` is one of type, outcome, party, purpose, basis, dataset, referral, withheld."""
    return f"{name}={value}"


@lru_cache(maxsize=10_000)
def user_term(key: bytes, institution: str | None, user: str) -> str:
    """Return the search term of a user of an institution, under the log's own key (``AuditLog.search_key``)."""
    named = f"{institution or ''}\x1f{user}".encode()
    return term("user", hmac.digest(key, named, hashlib.sha256)[:_HASH_BYTES].hex())


def terms_of(entry: Entry, key: bytes) -> list[str]:
    """Return the terms of an entry, sorted; ``key`` is the log's own data key."""
    actor, why, what, exchange = (entry.groups.get(name, {}) for name in ("actor", "why", "what", "exchange"))
    found = {f"type={entry.type}", f"outcome={entry.outcome}"}
    found.update(f"party={code}" for code in parties(entry.groups))
    for name, group in (("purpose", why), ("basis", why), ("dataset", what), ("referral", exchange)):
        value = group.get(name)
        if isinstance(value, str):
            found.add(f"{name}={value}")
    if actor.get("user"):
        found.add(user_term(key, actor.get("institution"), str(actor["user"])))
    withheld = what.get("withheld")
    if isinstance(withheld, dict):
        found.update(f"withheld={reason}" for reason in withheld.values())
    return sorted(found)


def parties(groups: Groups) -> frozenset[str]:
    """Return the institutions that an entry's detail names: who asked, for whom, who held, who sent and received."""
    actor, what, exchange = (groups.get(name, {}) for name in ("actor", "what", "exchange"))
    named = {actor.get("institution"), actor.get("on_behalf_of"), what.get("holder")}
    return frozenset(name for name in (*named, exchange.get("requester"), exchange.get("recipient")) if name)
