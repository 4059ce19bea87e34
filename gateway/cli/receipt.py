"""``siis receipt``: look whether what a receipt speaks of is in the log, from a file, from a gateway, or here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from uuid import UUID

import httpx
import typer

from adapters.errors import CallFailed, ContractBroken
from adapters.http import COMMON_HEADERS, Answer, ask, client_for
from audit import receipts
from audit.proofs import accepted_by, logs, prove
from audit.verify import NotValid, Policy, format_proof, parse_policy, read_policy, read_text
from gateway.cli.audit_offline import Json, PolicyFile, Verdict, judge, needed, proven, read_receipt
from gateway.cli.changes import fail
from gateway.cli.context import open_context
from gateway.runtime import load_signer
from gateway.witnesses.policy import policy_text
from schemas.text import _

app = typer.Typer(help=_("Recibos de lo que quedó registrado."), no_args_is_help=True, add_completion=False)

_CONNECT_S, _WITHIN_S = 5.0, 20.0
_LONGEST = 1_000_000


@dataclass(frozen=True, slots=True)
class Found:
    """The proof of an entry, and the policy of whoever gave it."""

    proof: str
    policy: str


@app.callback()
def _group() -> None:
    """Hold the commands: with one alone, Typer would leave its name out."""


@app.command(help=_("Comprobar un recibo: válido y en qué lugar, todavía sin prueba, o no válido y por qué."))
def check(
    receipt: Annotated[Path, typer.Argument(metavar="RECIBO", help=_("El recibo, o la respuesta que lo trae."))],
    proof: Annotated[Path | None, typer.Option(help=_("Archivo con la prueba, para comprobar sin red."))] = None,
    source: Annotated[str | None, typer.Option("--from", help=_("Dirección de la pasarela que lo dio."))] = None,
    policy: PolicyFile = None,
    as_json: Json = False,
) -> None:
    """Check a receipt; exit 1 unless it is proved."""
    if proof is not None and source is not None:
        fail(_("Dé --proof o --from, no los dos."), 2)

    def work() -> Verdict:
        entry_id, leaf = read_receipt(receipt)
        if proof is not None:
            return proven(read_text(proof), leaf, needed(policy))
        keys = None if policy is None else read_policy(policy)
        found = asyncio.run(_here(entry_id, leaf) if source is None else _fetched(source, entry_id, keys))
        if found is None:
            fail(_("Todavía no hay una prueba: la entrada espera su número. Repita en unos segundos."), 1)
        said, lines = proven(found.proof, leaf, keys or parse_policy(found.policy))
        if source is not None and keys is None:
            lines.append(_("Las claves son las que dio la misma pasarela: repita con --policy y claves de otra vía."))
        return said, lines

    judge(work, as_json)


async def _here(entry_id: str, leaf: bytes) -> Found | None:
    """Look into the log of the settings in force; raises NotValid for an entry that it does not have."""
    async with open_context() as context, context.database.connection() as connection:
        ours = await receipts.of(connection, UUID(entry_id))
        if ours is None:
            raise NotValid("missing", _("este registro no tiene esa entrada"))
        if ours.leaf_hash != leaf:
            raise NotValid("changed", _("la entrada de ese número es otra"))
        text = policy_text(load_signer(context.settings), await logs(connection), context.settings.witnesses)
        made = await prove(connection, ours.entry_id, accepted_by(parse_policy(text)))
        if made is None:
            return None
        return Found(format_proof(made.place.index, made.hashes, made.head.note), text)


async def _fetched(source: str, entry_id: str, keys: Policy | None) -> Found | None:
    """Ask a gateway for the proof, and for its policy where none is given; ends the command when it does not answer."""
    async with client_for(_CONNECT_S) as client:
        answer = await _get(client, f"{source.rstrip('/')}/audit/log/proof/{entry_id}")
        if answer.status == 404:
            return None
        text = _text(answer)
        if keys is not None:
            return Found(text, "")
        return Found(text, _text(await _get(client, f"{source.rstrip('/')}/audit/log/policy")))


async def _get(client: httpx.AsyncClient, address: str) -> Answer:
    try:
        request = client.build_request("GET", address, headers=list(COMMON_HEADERS))
    except (httpx.InvalidURL, ValueError):
        fail(_("La dirección no se puede usar: {address}").format(address=address), 2)
    if request.url.scheme not in ("http", "https") or not request.url.host:
        fail(_("La dirección no se puede usar: {address}").format(address=address), 2)
    try:
        async with asyncio.timeout(_WITHIN_S):
            return await ask(client, request, within_s=_WITHIN_S, max_body=_LONGEST)
    except (CallFailed, ContractBroken, TimeoutError):
        fail(_("La pasarela no responde en {address}").format(address=address), 1)


def _text(answer: Answer) -> str:
    if answer.status != 200:
        fail(_("La pasarela respondió {status}.").format(status=answer.status), 1)
    try:
        return answer.body.decode()
    except UnicodeDecodeError:
        raise NotValid("malformed", _("la respuesta no es texto en UTF-8")) from None
