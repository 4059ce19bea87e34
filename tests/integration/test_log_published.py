"""The log as others read it: every C2SP address has the bytes it must have, and no other address has any."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

import httpx
import pytest
import pytest_asyncio
from audit_examples import EPOCHS, LOG, SIGNER, an_entry, integrate, run_sql
from fastapi import FastAPI

from audit.errors import LogBroken
from audit.merkle import root_of
from audit.models import Receipt
from audit.published import Published
from audit.service import AuditLog
from audit.tiles import TileKey
from audit.verify import HASH_BYTES, check_proof, leaf_hash, open_checkpoint, parse_policy
from gateway.api import log as api
from gateway.database import Database
from gateway.witnesses.policy import policy_text
from schemas.ids import uuid7
from tests.integration.audit_database import AuditDatabase, fresh_audit_database
from tests.witnessing import serving

pytestmark = pytest.mark.asyncio(loop_scope="module")
SIZE = 600
PREFIX = f"/audit/log/{LOG}"


@dataclass
class Served:
    """A log of some 600 entries, signed twice, behind a real socket; one more waits for its number."""

    db: AuditDatabase
    http: httpx.AsyncClient
    receipts: list[Receipt]
    waiting: Receipt


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Served]:
    async with fresh_audit_database() as db:
        log = AuditLog(db.app, EPOCHS, "gateway")
        receipts: list[Receipt] = []
        for end in (300, SIZE):
            receipts += await log.append_many([an_entry(number) for number in range(len(receipts), end)])
            await integrate(db.app)
        waiting = await log.append(an_entry())
        await log.close()
        database = Database(db.app_url.render_as_string(hide_password=False), pool_size=2)
        app = FastAPI()
        policy = partial(policy_text, SIGNER, witnesses_file=None)
        app.include_router(api.build_public_router(database, Published(db.app), policy))
        async with serving(app) as address, httpx.AsyncClient(base_url=address) as http:
            yield Served(db, http, receipts, waiting)
        await database.close()


async def signed_size(served: Served) -> int:
    answer = await served.http.get(f"{PREFIX}/checkpoint")
    return int(answer.text.split("\n")[1])


async def leaves(served: Served) -> list[bytes]:
    """The leaf hashes in the order of the log, from the tiles of level 0."""
    size, found = await signed_size(served), b""
    for number in range(-(-size // 256)):
        width = min(size - number * 256, 256)
        path = f"{PREFIX}/tile/0/{number:03}" + ("" if width == 256 else f".p/{width}")
        answer = await served.http.get(path)
        assert (answer.status_code, len(answer.content)) == (200, width * HASH_BYTES)
        found += answer.content
    return [found[at : at + HASH_BYTES] for at in range(0, len(found), HASH_BYTES)]


async def test_the_policy_checkpoint_and_tiles_agree(served: Served) -> None:
    policy = await served.http.get("/audit/log/policy")
    checkpoint = await served.http.get(f"{PREFIX}/checkpoint")
    for answer in (policy, checkpoint):
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert checkpoint.headers["cache-control"] == "public, max-age=2"
    signed = open_checkpoint(checkpoint.text, parse_policy(policy.text)).checkpoint
    all_leaves = await leaves(served)
    assert (signed.origin, signed.size, signed.root) == (SIGNER.of(LOG).origin, len(all_leaves), root_of(all_leaves))
    assert {receipt.leaf_hash for receipt in served.receipts} == set(all_leaves)


async def test_the_level_above_holds_the_roots_of_full_tiles(served: Served) -> None:
    all_leaves = await leaves(served)
    whole = await served.http.get(f"{PREFIX}/tile/1/000.p/2")
    assert whole.content == root_of(all_leaves[:256]) + root_of(all_leaves[256:512])
    assert whole.headers["content-type"] == "application/octet-stream"
    assert whole.headers["cache-control"] == "public, max-age=31536000, immutable"
    first = await served.http.get(f"{PREFIX}/tile/1/000.p/1")
    assert first.content == whole.content[:HASH_BYTES]


async def test_a_partial_tile_is_the_beginning_of_what_it_becomes(served: Served) -> None:
    for _ in range(2):
        full = await served.http.get(f"{PREFIX}/tile/0/000")
        part = await served.http.get(f"{PREFIX}/tile/0/000.p/17")
        assert part.content == full.content[: 17 * HASH_BYTES]


@pytest.mark.parametrize(
    "path",
    [
        "/audit/log/2025/checkpoint",
        "/audit/log/02026/checkpoint",
        "/audit/log/-1/checkpoint",
        f"/audit/log/{'9' * 400}/checkpoint",
        "/audit/log/٢٠٢٦/checkpoint",
        f"{PREFIX}/tile/0/002",
        f"{PREFIX}/tile/0/003.p/1",
        f"{PREFIX}/tile/0/002.p/200",
        f"{PREFIX}/tile/0/000.p/0",
        f"{PREFIX}/tile/0/000.p/01",
        f"{PREFIX}/tile/0/000.p/256",
        f"{PREFIX}/tile/0/000.p/-1",
        f"{PREFIX}/tile/0/000.p/",
        f"{PREFIX}/tile/0/000/",
        f"{PREFIX}/tile/0/0",
        f"{PREFIX}/tile/0/0000",
        f"{PREFIX}/tile/0/-01",
        f"{PREFIX}/tile/0/x000/000",
        f"{PREFIX}/tile/0/000/000",
        f"{PREFIX}/tile/0/x00/000",
        f"{PREFIX}/tile/0/x000",
        f"{PREFIX}/tile/0/000%2ep/17",
        f"{PREFIX}/tile/0%2f000",
        f"{PREFIX}/tile/0/x999/x999/x999/x999/x999/x999/999",
        f"{PREFIX}/tile/0/{'x999/' * 500}999",
        f"{PREFIX}/tile/1/000",
        f"{PREFIX}/tile/1/000.p/3",
        f"{PREFIX}/tile/2/000.p/1",
        f"{PREFIX}/tile/63/000",
        f"{PREFIX}/tile/64/000",
        f"{PREFIX}/tile/00/000",
        f"{PREFIX}/tile/-1/000",
        "/audit/log/2025/tile/0/000",
        f"{PREFIX}/tile/entries/000",
    ],
)
async def test_any_other_address_has_nothing(served: Served, path: str) -> None:
    assert (await served.http.get(path)).status_code == 404


async def test_a_receipt_leads_to_its_proof_once_a_checkpoint_covers_it(served: Served) -> None:
    policy = parse_policy((await served.http.get("/audit/log/policy")).text)
    for receipt in (served.receipts[0], served.receipts[299], served.receipts[-1]):
        answer = await served.http.get(f"/audit/log/proof/{receipt.entry_id}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
        signed = check_proof(answer.text, receipt.leaf_hash, policy)
        assert signed.checkpoint.origin == SIGNER.of(LOG).origin


async def test_what_waits_and_what_never_was_look_the_same(served: Served) -> None:
    answers = [await served.http.get(f"/audit/log/proof/{entry_id}") for entry_id in (served.waiting.entry_id, uuid7())]
    assert {answer.status_code for answer in answers} == {404}
    assert {answer.headers["retry-after"] for answer in answers} == {"2"}
    assert answers[0].content == answers[1].content
    assert (await served.http.get("/audit/log/proof/nothing")).status_code == 404


async def test_what_is_not_signed_yet_is_not_given_away(served: Served) -> None:
    size = await signed_size(served)
    number, width = divmod(size, 256)
    path = f"{PREFIX}/tile/0/{number:03}.p"
    assert (await served.http.get(f"{path}/{width + 1}")).status_code == 404
    await integrate(served.db.app)
    assert (await served.http.get(f"{path}/{width + 1}")).status_code == 200
    assert await signed_size(served) == size + 1


async def test_public_answers_never_look_at_the_entries(served: Served) -> None:
    paths = ["/audit/log/policy", f"{PREFIX}/checkpoint", f"{PREFIX}/tile/0/001", f"{PREFIX}/tile/1/000.p/1"]
    paths.append(f"/audit/log/proof/{served.receipts[5].entry_id}")
    await run_sql(served.db.admin, "REVOKE SELECT ON audit.entry, audit.pending FROM siis_app")
    try:
        assert [(await served.http.get(path)).status_code for path in paths] == [200] * 5
    finally:
        await run_sql(served.db.admin, "GRANT SELECT ON audit.entry, audit.pending TO siis_app")


async def test_a_bundle_holds_the_entries_as_they_were_hashed(served: Served) -> None:
    published, all_leaves = Published(served.db.app), await leaves(served)
    assert await published.covers(LOG, 1)
    assert not await published.covers(LOG, 2)
    bundle = await published.entries(LOG, 1, 40)
    assert bundle is not None
    found = []
    while bundle:
        length = int.from_bytes(bundle[:2], "big")
        found.append(leaf_hash(bundle[2 : 2 + length]))
        bundle = bundle[2 + length :]
    assert found == all_leaves[256:296]


async def test_a_tree_that_lost_a_tile_says_so(served: Served) -> None:
    published = Published(served.db.app)
    await run_sql(served.db.admin, "UPDATE audit.tile SET hashes = '' WHERE level = 0 AND number = 1")
    with pytest.raises(LogBroken):
        await published.tile(LOG, TileKey(0, 1))
