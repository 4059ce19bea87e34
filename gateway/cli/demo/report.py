"""Tells what the demonstration did: one JSON object, and tables for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from gateway.cli.demo.clients import key_file
from gateway.cli.demo.story import Story
from gateway.identity.models import Issuer
from schemas.codes import code_list, label
from schemas.text import _

_REACHED = ("retried", "accepted", "rejected", "counter_referred", "provided", "partly_provided", "not_provided")


def summary(
    story: Story, reached: dict[str, int], channels: dict[str, int], lost: int, audit: dict[str, Any], fhir: bool
) -> dict[str, Any]:
    """Return what happened, in counts."""
    return {
        "referrals": {
            "sent": len(story.acknowledged),
            "refused": story.refused,
            "delivered": reached["transmitted"],
            **{name: reached[name] for name in (*_REACHED, "cancelled", "dead_letters", "withheld", "open")},
            "by_channel": {name: channels.get(name, 0) for name in ("soap", "rest", "file")},
            "fhir_messages": story.fhir,
            "fhir_samples_found": fhir,
        },
        "steps": {
            "demand": dict(story.demand),
            "orientation": dict(story.orientation),
            "outreach": {
                **story.outreach,
                **{name: reached[name] for name in ("received", "appointments", "no_shows")},
            },
            "counter_referral": {"status_changed": reached["status_changed"]},
        },
        "disclosures": {
            **{name: story.disclosures[name] for name in ("permitted", "trimmed", "denied", "failed")},
            "reasons": dict(sorted(story.reasons.items())),
        },
        "status": {"before": story.status_before, "after": story.status_after},
        "audit": {name: audit[name] for name in ("ok", "entries", "pending", "checkpoints", "root", "first_problem")},
        "lost": lost,
    }


def print_report(console: Console, told: dict[str, Any]) -> None:
    """Print the tables."""
    _print_steps(console, told)
    _print_before_and_after(console, told)
    _print_delivery(console, told["delivery"])
    _print_disclosures(console, told["disclosures"])
    audit, referrals = told["audit"], told["referrals"]
    verdict = _("íntegro") if audit["ok"] else _("NO ÍNTEGRO: {first}").format(first=audit["first_problem"])
    text = _("Registro de auditoría: {entries} entradas, {verdict}.")
    console.print(text.format(entries=audit["entries"] + audit["pending"], verdict=verdict))
    if referrals["fhir_samples_found"]:
        console.print(_("Tres mensajes FHIR del Ministerio de Salud de Chile entraron como referencias."))
    else:
        console.print(_("Los mensajes FHIR de muestra no están (SIIS_SAMPLES): esa parte se omitió."))


def _print_steps(console: Console, told: dict[str, Any]) -> None:
    referrals, steps = told["referrals"], told["steps"]
    demand, orientation, outreach = steps["demand"], steps["orientation"], steps["outreach"]

    def counts(group: dict[str, int], *names: str) -> str:
        return " / ".join(str(group.get(name, 0)) for name in names)

    table = _table(_("Paso"), "", "", title=_("Qué pasó en {seconds} segundos").format(seconds=told["seconds"]))
    rows: list[tuple[str, list[tuple[str, str]]]] = [
        (
            _("1 Demanda"),
            [
                (
                    _("fichas: completas, simplificadas, de comunidad"),
                    counts(demand, "full", "simplified", "community"),
                ),
                (_("personas nuevas; sin cédula, con número local"), counts(demand, "persons", "without_cedula")),
            ],
        ),
        (
            _("2 Orientación"),
            [
                (
                    _("servicios indicados a una descripción, a una persona"),
                    counts(orientation, "described", "personal"),
                ),
                (_("desprotecciones clasificadas que ve la Mesa"), counts(orientation, "board_gaps")),
                (_("referencias enviadas y acusadas"), counts(referrals, "sent")),
                (_("  abiertas, en partes"), f"{counts(orientation, 'open')} / {counts(outreach, 'parts')}"),
                (
                    _("  por el Canal Verde, con copia a la Mesa, en un caso"),
                    counts(orientation, "priority_track", "board_copies", "cases"),
                ),
                (
                    _("  anuladas: antes de enviarse, después"),
                    counts(orientation, "cancelled_unsent", "cancelled_sent"),
                ),
                (_("  entregadas por SOAP, REST, archivo"), counts(referrals["by_channel"], "soap", "rest", "file")),
                (_("  con reintentos"), counts(referrals, "retried")),
                (_("filas de los informes nominales, cada institución las suyas"), counts(orientation, "reported")),
            ],
        ),
        (
            _("3 Alcance"),
            [
                (_("aceptadas, rechazadas"), counts(referrals, "accepted", "rejected")),
                (_("abiertas que un servicio tomó"), counts(outreach, "claimed")),
                (_("con cita, con ausencia"), counts(outreach, "appointments", "no_shows")),
            ],
        ),
        (
            _("4 Servicio"),
            [
                (
                    _("prestados, en parte, no prestados"),
                    counts(referrals, "provided", "partly_provided", "not_provided"),
                ),
            ],
        ),
        (
            _("5 Contrarreferencia"),
            [
                (
                    _("recibidas; de ellas por enlace firmado"),
                    f"{counts(referrals, 'counter_referred')} / {counts(outreach, 'linked')}",
                ),
                (_("cambiaron el estatus de protección"), counts(steps["counter_referral"], "status_changed")),
                (_("esperan a una persona, aún sin respuesta"), counts(referrals, "dead_letters", "open")),
                (_("PERDIDAS"), str(told["lost"])),
            ],
        ),
    ]
    for name, lines in rows:
        for place, (text, value) in enumerate(lines):
            table.add_row("" if place else name, text, value)
    console.print(table)


def _print_before_and_after(console: Console, told: dict[str, Any]) -> None:
    table = _table(_("Embudo"), _("antes"), _("después"))
    for each in told["funnel"]:
        table.add_row(label("funnel-steps", each["step"]), _shown(each["before"]), _shown(each["after"]))
    console.print(table)
    table = _table(_("Logros: en protección concurrente, de los identificados"), _("antes"), _("después"))
    for number, each in enumerate(told["achievements"], start=1):
        sides = (" / ".join(_shown(each[side][name]) for name in ("n", "of")) for side in ("before", "after"))
        table.add_row(f"{number:>2} {label('life-cycle', each['category'])}", *sides)
    console.print(table)
    console.print(_("· no se muestra: son menos de cinco, o se deduciría."))


def _print_delivery(console: Console, lanes: list[dict[str, Any]]) -> None:
    table = _table(_("Entrega"), _("Esperan"), _("Sin salida"), _("Enviadas"), _("Repetidas"))
    for lane in lanes:
        counts = (str(lane[name]) for name in ("waiting", "dead", "transmitted", "retried"))
        table.add_row(lane["institution"], *counts)
    console.print(table)


def _print_disclosures(console: Console, disclosures: dict[str, Any]) -> None:
    table = _table(_("Consultas"), "")
    names = {
        "permitted": _("permitidas"),
        "trimmed": _("recortadas"),
        "denied": _("negadas"),
        "failed": _("sin respuesta de la institución"),
    }
    for name, text in names.items():
        table.add_row(text, str(disclosures[name]))
    known = code_list("denial-reasons")
    for code, number in disclosures["reasons"].items():
        text = label("denial-reasons", code) if code in known else _("No se encontró (o no se puede decir)")
        table.add_row(f"  {text}", str(number))
    console.print(table)


def _table(first: str, *others: str, title: str | None = None) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first)
    for name in others:
        table.add_column(name)
    return table


def _shown(count: int | None) -> str:
    return "·" if count is None else str(count)


def print_next(console: Console, issuer: Issuer, data_dir: Path, cedula: str) -> None:
    """Print where the documentation is, and a question ready to be asked."""
    console.print(_("Documentación de la interfaz: {url}/docs").format(url=issuer.url))
    key = key_file(data_dir, "demo-utgs")
    command = (
        f"curl -s {issuer.url}/api/v1/protection-status/query"
        f' -H "Authorization: Bearer $(uv run siis client token demo-utgs --key {key} --url {issuer.url})"'
        " -H 'Content-Type: application/json'"
        f' -d \'{{"subject": {{"system": "cedula", "value": "{cedula}"}},'
        ' "purpose": "service-access-determination", "basis": "official-authority"}\''
    )
    console.print(_("Pruebe, por ejemplo:"))
    console.print(command, soft_wrap=True, highlight=False, markup=False)
    console.print(_("Ctrl-C termina."))
