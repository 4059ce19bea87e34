"""Makes the file that a court or an ombudsman gets about one referral, to be verified without us and without a network.

All of it but the proof itself is fixed by SHA-256 in an entry of its own, made before the file is.
"""

from __future__ import annotations

import asyncio
import io
import zipfile
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy.ext.asyncio import AsyncConnection

import audit.verify
from audit.errors import AuditUnavailable, SubjectErased
from audit.export import Proven, last_line, proven, record_line, wait_for_proof, write_proof_head
from audit.keys import Epochs
from audit.models import Receipt
from audit.proofs import SignedHead, accepted_by, logs, signed_head
from audit.referral import Stamped, referral_term, stamped, subject_of, waits
from audit.search import Criteria, Cursor, RawEntry, search
from audit.service import AuditLog
from audit.verify import Policy, leaf_hash, parse_policy
from gateway import errors, evidence
from gateway.clock import PARAGUAY
from gateway.database import Database
from gateway.dossier.story import Story, tell
from schemas.canonical import canonical_json, sha256

ENTRIES, PROOF, POLICY, CHECKPOINT = "entradas.jsonl", "entradas.jsonl.proof", "policy.txt", "checkpoint.txt"
PAGE, READ_ME, VERIFIER = "historia.html", "LEEME.txt", "verify.py"
_PAUSE_S = 0.2

T = TypeVar("T")

# What goes into the plain text is numbers and dates, which escaping leaves alone.
_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle as written: its bytes, how many entries are in it, and the receipt of its own entry."""

    content: bytes
    records: int
    receipt: Receipt


class Bundles:
    """Makes bundles for whoever may have one; who that is, is decided before."""

    def __init__(
        self,
        *,
        database: Database,
        audit: AuditLog,
        epochs: Epochs,
        policy: Callable[[Iterable[int]], str],
        now: Callable[[], datetime],
        patience_s: float,
    ) -> None:
        """``policy`` gives the tlog-policy for logs of these years; ``patience_s`` is how long signatures may take."""
        self._database, self._audit, self._epochs = database, audit, epochs
        self._policy, self._now, self._patience_s = policy, now, patience_s

    async def make(self, referral: UUID, actor: Mapping[str, Any]) -> Bundle:
        """Make the bundle of a referral for ``actor`` (the group of the entry that says who acts).

        Raises NotFound where no entry names the referral, and :class:`~audit.errors.AuditUnavailable` when the log is
        not numbered, or not signed by log and witnesses, in time.
        """
        await self._until(lambda connection: self._all_numbered(connection, referral))
        newest = await self._newest(referral)
        if not newest:
            raise errors.NotFound("not-found")
        async with self._database.connection() as connection:
            policy = self._policy(await logs(connection))
        trusted = parse_policy(policy)
        heads = {log: await self._signed(log, index, trusted) for log, index in newest.items()}
        found = await self._entries(referral, heads)
        lines = [_line(each.entry) for each in found]
        data, at = b"".join(line + b"\n" for line in lines), self._now()
        stamps = await self._stamps(newest, heads)
        fixed = _fixed_files(referral, [each.entry for each in found], data, policy, heads, stamps, at)
        what = {
            "referral": str(referral),
            "sha256": sha256(data).hex(),
            "records": len(found),
            "format": "jsonl",
            "files": {name: sha256(content).hex() for name, content in sorted(fixed.items())},
        }
        receipt = await self._put_on_record(referral, [each.entry for each in found], what, actor, at)
        engine = self._database.engine
        own, note = await wait_for_proof(engine, self._epochs, receipt.entry_id, trusted, self._patience_s)
        proof = [write_proof_head("jsonl", {log: head.note for log, head in heads.items()}, policy)]
        proof += [record_line(each, line) for each, line in zip(found, lines, strict=True)]
        proof.append(last_line(own, note, len(found), sha256(data)))
        files = {**fixed, ENTRIES: data, PROOF: b"".join(proof)}
        return Bundle(_zipped(files, at), len(found), receipt)

    async def _newest(self, referral: UUID) -> dict[int, int]:
        """Return, per log, the number of the referral's newest entry there."""
        newest: dict[int, int] = {}
        after: Cursor | None = None
        while True:
            async with self._database.connection() as connection:
                page = await search(connection, self._epochs, _criteria(referral), after=after)
            for each in page.entries:
                if each.log is not None and each.index is not None:
                    newest[each.log] = max(each.index, newest.get(each.log, each.index))
            if page.next is None:
                return newest
            after = page.next

    async def _entries(self, referral: UUID, heads: Mapping[int, SignedHead]) -> list[Proven]:
        """Return the entries of a referral with their proofs, oldest first."""
        found: list[Proven] = []
        async with aclosing(proven(self._database.engine, self._epochs, _criteria(referral), heads)) as groups:
            async for group in groups:
                found += group
        return found[::-1]

    async def _stamps(self, newest: Mapping[int, int], heads: Mapping[int, SignedHead]) -> list[Stamped]:
        async with self._database.connection() as connection:
            found = [await stamped(connection, log, index, heads[log].size) for log, index in newest.items()]
        return [each for each in found if each is not None]

    async def _put_on_record(
        self,
        referral: UUID,
        entries: Sequence[RawEntry],
        what: Mapping[str, Any],
        actor: Mapping[str, Any],
        at: datetime,
    ) -> Receipt:
        """Write the bundle's own entry: about the person too, whose data it carries, unless their key was destroyed."""
        about = {UUID(each.envelope["subject"]) for each in entries if each.envelope["subject"]}
        async with self._database.connection() as connection:
            subjects = [await subject_of(connection, pseudonym) for pseudonym in about]
        subject = subjects[0] if len(subjects) == 1 else None

        async def written(whom: UUID | None) -> Receipt:
            told = evidence.entry(
                "log.bundled",
                "done",
                at=at,
                policy_version="none",
                subject=whom,
                actor=dict(actor),
                what=dict(what),
                exchange={"referral": str(referral)},
            )
            return await self._audit.append(told)

        try:
            return await written(subject)
        except SubjectErased:
            return await written(None)

    async def _signed(self, log: int, index: int, policy: Policy) -> SignedHead:
        """Return a checkpoint that covers an entry, signed by everybody whose signature the policy asks for."""

        accepted = accepted_by(policy)

        async def there(connection: AsyncConnection) -> SignedHead | None:
            head = await signed_head(connection, log, index, accepted)
            # Signed by the log alone it may be for a while: witnesses are asked once a minute.
            return head if head is not None and accepted(head.note) else None

        return await self._until(there)

    async def _all_numbered(self, connection: AsyncConnection, referral: UUID) -> bool | None:
        return None if await waits(connection, referral) else True

    async def _until(self, look: Callable[[AsyncConnection], Awaitable[T | None]]) -> T:
        """Look again until there is something; raises AuditUnavailable when it takes too long."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._patience_s
        while True:
            async with self._database.connection() as connection:
                found = await look(connection)
            if found is not None:
                return found
            if clock() >= deadline:
                raise AuditUnavailable("the log was not signed in time")
            await asyncio.sleep(_PAUSE_S)


def _criteria(referral: UUID) -> Criteria:
    return Criteria(terms=frozenset({referral_term(referral)}))


def _line(entry: RawEntry) -> bytes:
    """Return an entry as a line of the bundle: its place, hash, envelope, and detail (null where it was erased)."""
    detail = None if entry.groups is None else {name: group["value"] for name, group in entry.groups.items()}
    return canonical_json(
        {
            "log": entry.log,
            "index": entry.index,
            "leaf_hash": leaf_hash(entry.data).hex(),
            "envelope": entry.envelope,
            "detail": detail,
        }
    )


def _fixed_files(
    referral: UUID,
    entries: Sequence[RawEntry],
    data: bytes,
    policy: str,
    heads: Mapping[int, SignedHead],
    stamps: Sequence[Stamped],
    at: datetime,
) -> dict[str, bytes]:
    """Return the files whose SHA-256 the bundle's entry holds beside that of the entries: all but the proof."""
    entries_sha256 = sha256(data).hex()
    made_at = f"{at.astimezone(PARAGUAY):%d/%m/%Y %H:%M:%S}"
    story = tell(str(referral), entries)
    read_me = _PAGES.get_template("leeme.txt.j2")
    years = {stamp.log: _checkpoint(stamp.log, heads) for stamp in stamps}
    files = {
        PAGE: page_of(story, records=len(entries), sha256=entries_sha256, made_at=made_at).encode(),
        READ_ME: read_me.render(referral=referral, records=len(entries), made_at=made_at, stamps=years).encode(),
        POLICY: policy.encode(errors="surrogateescape"),
        VERIFIER: Path(audit.verify.__file__).read_bytes(),
    }
    for log, head in heads.items():
        files[_checkpoint(log, heads)] = head.note.encode()
    for stamp in stamps:
        # What the authority saw is the log's own note; witnesses signed later, so only the log's key is asked for here.
        lines = [line for line in policy.splitlines() if line.startswith("log ")]
        files["sello-policy.txt"] = "".join(f"{line}\n" for line in [*lines, "quorum none"]).encode()
        files[f"sello-{stamp.log}.txt"] = stamp.note.encode()
        files[f"sello-{stamp.log}.tsr"] = stamp.response
        hashes = "".join(f"{b64encode(each).decode()}\n" for each in stamp.consistency)
        files[f"sello-{stamp.log}.consistencia.txt"] = hashes.encode()
    return files


def _checkpoint(log: int, heads: Mapping[int, SignedHead]) -> str:
    """Return the name of a log's checkpoint in the bundle: that of the newest log has no year."""
    return CHECKPOINT if log == max(heads) else f"checkpoint-{log}.txt"


def page_of(story: Story, *, records: int, sha256: str, made_at: str) -> str:
    """Return the page that tells a story: HTML that needs nothing else and runs nothing."""
    return _PAGES.get_template("historia.html.j2").render(story=story, records=records, sha256=sha256, made_at=made_at)


def _zipped(files: Mapping[str, bytes], at: datetime) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            member = zipfile.ZipInfo(name, at.astimezone(PARAGUAY).timetuple()[:6])
            member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o600 << 16
            archive.writestr(member, files[name])
    return written.getvalue()
