"""``siis subscription``: who is told of events, how far behind each is, and what to do about one that is stuck."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.table import Table

from gateway.api.subscriptions import subscription_json
from gateway.boards.store import acting_for
from gateway.cli.changes import number
from gateway.cli.context import Context, governance_of, open_context
from gateway.cli.rights import Json, Number, ended
from gateway.cli.screen import cell, json_line, screen
from gateway.clock import PARAGUAY
from gateway.governance.service import Work
from gateway.subscriptions.models import ACTIVE, DISABLED, UNVERIFIED, Filter, NewSubscription, Subscription
from gateway.subscriptions.service import Subscriptions
from gateway.subscriptions.signing import new_secret
from schemas.text import _

app = typer.Typer(help=_("Suscripciones a avisos."), no_args_is_help=True, add_completion=False)

_PART = 200
Codes = list[str] | None


class Channel(StrEnum):
    """How a subscription is told."""

    webhook = "webhook"
    pull = "pull"


@app.command(help=_("Suscribir a una institución; la clave de una «webhook» se muestra esta única vez."))
def create(
    institution: Annotated[str, typer.Argument(metavar="INSTITUCIÓN", help=_("Código de la institución."))],
    channel: Annotated[Channel, typer.Argument(metavar="CANAL", help=_("webhook o pull."))],
    url: Annotated[str | None, typer.Option(help=_("Dirección https a la que se llama."))] = None,
    type_: Annotated[Codes, typer.Option("--type", help=_("Solo este tipo de aviso; se puede repetir."))] = None,
    service: Annotated[Codes, typer.Option(help=_("Solo este servicio; se puede repetir."))] = None,
    department: Annotated[Codes, typer.Option(help=_("Solo este departamento; se puede repetir."))] = None,
    district: Annotated[Codes, typer.Option(help=_("Solo este distrito; se puede repetir."))] = None,
    part: Annotated[Codes, typer.Option(help=_("Solo como requester o como recipient."))] = None,
    as_json: Json = False,
) -> None:
    """Create a subscription."""
    given = {"types": type_, "services": service, "departments": department, "districts": district, "parts": part}
    wanted = Filter(**{name: frozenset(codes or ()) for name, codes in given.items()})
    new = NewSubscription(channel=channel.value, wanted=wanted, url=url, institution=institution)
    secret = new_secret() if channel is Channel.webhook else None
    _tell(_do(lambda subscriptions: subscriptions.creating(new, secret)), secret, as_json)


@app.command("list", help=_("Mostrar las suscripciones y cuánto espera en cada una."))
def list_(
    institution: Annotated[str | None, typer.Option(help=_("Solo las de esta institución."))] = None,
    as_json: Json = False,
) -> None:
    """Show subscriptions."""
    found = ended(_all(institution))
    if as_json:
        typer.echo(json_line([subscription_json(item) for item in found]))
        return
    table = Table(_("Número"), _("Institución"), _("Canal"), _("Estado"), _("Esperan"), _("Dirección"))
    for item in found:
        table.add_row(
            str(item.id), item.institution, item.channel, cell(_state(item)), str(item.waiting), cell(item.url or "")
        )
    screen().print(table)


@app.command(help=_("Dar otra clave a una «webhook»; la anterior firma también durante un día."))
def secret(subscription_id: Number, as_json: Json = False) -> None:
    """Renew a secret."""
    which, made = number(subscription_id), new_secret()
    _tell(_do(lambda subscriptions: subscriptions.renewing(which, made)), made, as_json)


@app.command(help=_("Volver a llamar ya a una «webhook» que fallaba o estaba desactivada."))
def enable(subscription_id: Number, as_json: Json = False) -> None:
    """Enable a subscription again."""
    which = number(subscription_id)
    _tell(_do(lambda subscriptions: subscriptions.enabling(which)), None, as_json)


@app.command(help=_("Eliminar una suscripción con lo que espera en ella."))
def remove(subscription_id: Number, as_json: Json = False) -> None:
    """End a subscription."""
    which = number(subscription_id)
    _tell(_do(lambda subscriptions: subscriptions.removing(which)), None, as_json)


def _tell(said: dict[str, Any], made: str | None, as_json: bool) -> None:
    if as_json:
        typer.echo(json_line({**said, **({} if made is None else {"secret": made})}))
        return
    typer.echo(_("Suscripción {id} de {institution}.").format(id=said["subscription"], institution=said["institution"]))
    if made is not None:
        typer.echo(_("  clave: {secret}").format(secret=made))
        typer.echo(_("  Se muestra esta única vez."))


def _state(item: Subscription) -> str:
    texts = {
        UNVERIFIED: _("su dirección no contestó todavía"),
        ACTIVE: _("activa"),
        DISABLED: _("desactivada"),
    }
    if item.failing_since is None:
        return texts[item.state]
    since = item.failing_since.astimezone(PARAGUAY)
    return texts[item.state] + ", " + _("falla desde {since}").format(since=f"{since:%d/%m/%Y %H:%M}")


def _do(make: Callable[[Subscriptions], Work]) -> dict[str, Any]:
    async def done() -> dict[str, Any]:
        async with open_context() as context:
            return await governance_of(context).change_here(make(_subscriptions(context)))

    return ended(done())


async def _all(institution: str | None) -> list[Subscription]:
    found: list[Subscription] = []
    async with open_context() as context:
        subscriptions = _subscriptions(context)
        while True:
            after: UUID | None = found[-1].id if found else None
            part = await subscriptions.search(institution, after=after, limit=_PART)
            found += part
            if len(part) < _PART:
                return found


def _subscriptions(context: Context) -> Subscriptions:
    return Subscriptions(
        governance=governance_of(context),
        vault=context.vault,
        boards=acting_for,
        local=context.settings.issuer.startswith("http:"),
    )
