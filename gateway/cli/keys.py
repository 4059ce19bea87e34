"""``siis keys``: shows the keys that sign access tokens and changes them, each step with its entry in the audit log."""

from __future__ import annotations

import asyncio
import os
from datetime import datetime
from typing import Annotated

import orjson
import typer
from rich.table import Table
from sqlalchemy import text

from audit.models import Entry, Outcome
from gateway import evidence
from gateway.cli.context import open_context
from gateway.cli.screen import screen
from gateway.clock import utc_now
from gateway.identity import rotation
from gateway.identity.rotation import PUBLISHED_SECONDS, Rotation, TooEarly
from gateway.settings import load_settings
from schemas.text import _

app = typer.Typer(help=_("Claves con que se firman los tokens."), no_args_is_help=True, add_completion=False)

# One change of keys at a time, whatever machine it is asked for on.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('siis.token-keys'))")


@app.command("list", help=_("Mostrar las claves: la que firma, la siguiente y la anterior."))
def list_(as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False) -> None:
    """Show the keys."""
    states = rotation.survey(load_settings().keys_dir)
    now = utc_now()
    if as_json:
        shown = [
            {
                "role": state.role,
                "kid": state.kid,
                "since": state.since,
                "until": state.until,
                "published": state.until is None or now < state.until,
            }
            for state in states
        ]
        typer.echo(orjson.dumps(shown).decode())
        return
    roles = {"current": _("firma"), "next": _("siguiente"), "previous": _("anterior")}
    table = Table(_("Clave (kid)"), _("Papel"), _("Desde"), _("Vale hasta"))
    for state in states:
        until = "" if state.until is None else f"{state.until:%Y-%m-%d %H:%M:%SZ}"
        table.add_row(state.kid, roles[state.role], f"{state.since:%Y-%m-%d %H:%M:%SZ}", until)
    screen().print(table)


@app.command(help=_("Dar el siguiente paso del cambio de clave: publicar la nueva o, tras el plazo, firmar con ella."))
def rotate(
    force: Annotated[
        bool,
        typer.Option(
            "--force", help=_("La clave se filtró: firmar ya con una nueva y no aceptar más los tokens anteriores.")
        ),
    ] = False,
) -> None:
    """Take the next step of a change of keys; run it again after some eleven minutes for the second step."""
    try:
        done = asyncio.run(_rotate(force=force))
    except TooEarly as error:
        typer.echo(
            _("La clave siguiente aún no se publicó el tiempo necesario: repita en {seconds} s.").format(
                seconds=error.wait_s
            ),
            err=True,
        )
        raise typer.Exit(1) from None
    told = {
        "prepared": _("Clave nueva publicada (kid): {kid}. Repita la orden en {seconds} s para firmar con ella."),
        "activated": _("Ahora firma la clave (kid): {kid}. La anterior vale mientras vivan sus tokens."),
        "replaced": _("Ahora firma la clave (kid): {kid}. La anterior ya no vale: los clientes pedirán otro token."),
    }
    typer.echo(told[done.step].format(kid=done.fresh, seconds=PUBLISHED_SECONDS))


async def _rotate(*, force: bool) -> Rotation:
    async with open_context() as context, context.database.transaction() as connection:
        await connection.execute(_LOCK)
        now = utc_now()
        step = rotation.plan(context.settings.keys_dir, now=now, replace=force)
        # Committed before any file changes: a rotation nobody finds in the log would be worse than an entry too many.
        await context.audit.append(_entry(step, "done", now))
        try:
            step.carry_out()
        except OSError:
            await context.audit.append(_entry(step, "failed", now))
            raise
    return step


def _entry(step: Rotation, outcome: Outcome, at: datetime) -> Entry:
    return evidence.entry(
        "admin.keys_rotated",
        outcome,
        at=at,
        policy_version="none",
        actor={"channel": "command-line", "uid": os.getuid()},
        what={"step": step.step, "signing": step.signing, "kid": step.fresh},
    )
