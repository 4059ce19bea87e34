"""Tells what the demonstration did: one JSON object, and a table for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gateway.cli.demo.clients import key_file
from gateway.cli.demo.scenario import Story
from gateway.identity.models import Issuer
from schemas.codes import code_list, label
from schemas.text import _


def summary(
    story: Story, reached: dict[str, int], channels: dict[str, int], lost: int, audit: dict[str, Any], fhir: bool
) -> dict[str, Any]:
    """Return what happened, in counts."""
    return {
        "referrals": {
            "sent": len(story.acknowledged),
            "refused": story.refused,
            "delivered": reached["transmitted"],
            **{name: reached[name] for name in ("retried", "accepted", "rejected", "counter_referred", "provided")},
            **{name: reached[name] for name in ("dead_letters", "withheld", "open")},
            "by_channel": {name: channels.get(name, 0) for name in ("soap", "rest", "file")},
            "fhir_messages": story.fhir,
            "fhir_samples_found": fhir,
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
    referrals, disclosures, status = told["referrals"], told["disclosures"], told["status"]
    table = Table(_("Referencias"), "", title=_("Qué pasó en {seconds} segundos").format(seconds=told["seconds"]))
    rows = [
        (_("enviadas y acusadas"), referrals["sent"]),
        (_("entregadas"), referrals["delivered"]),
        (_("  por SOAP, REST, archivo"), " / ".join(str(number) for number in referrals["by_channel"].values())),
        (_("con reintentos"), referrals["retried"]),
        (_("aceptadas"), referrals["accepted"]),
        (_("rechazadas"), referrals["rejected"]),
        (_("con contrarreferencia"), referrals["counter_referred"]),
        (_("esperan a una persona"), referrals["dead_letters"]),
        (_("aún sin respuesta"), referrals["open"]),
        (_("PERDIDAS"), told["lost"]),
    ]
    for name, value in rows:
        table.add_row(name, str(value))
    console.print(table)
    table = Table(_("Consultas"), "")
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
    table = Table(_("Estatus de protección"), _("antes"), _("después"))
    names = {
        "services_reached": _("servicios alcanzados"),
        "gaps": _("desprotecciones"),
        "persons_concurrent": _("personas en protección concurrente"),
        "households_concurrent": _("hogares en protección concurrente"),
    }
    for name, text in names.items():
        table.add_row(text, str(status["before"].get(name, 0)), str(status["after"].get(name, 0)))
    console.print(table)
    audit = told["audit"]
    verdict = _("íntegro") if audit["ok"] else _("NO ÍNTEGRO: {first}").format(first=audit["first_problem"])
    text = _("Registro de auditoría: {entries} entradas, {verdict}.")
    console.print(text.format(entries=audit["entries"] + audit["pending"], verdict=verdict))
    if referrals["fhir_samples_found"]:
        console.print(_("Tres mensajes FHIR del Ministerio de Salud de Chile entraron como referencias."))
    else:
        console.print(_("Los mensajes FHIR de muestra no están (SIIS_SAMPLES): esa parte se omitió."))


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
