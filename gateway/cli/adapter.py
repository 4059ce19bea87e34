"""``siis adapter``: the commands on manifests and files, the systems that are connected, and a trial question."""

from __future__ import annotations

from typing import Annotated

import typer

import adapters.cli
from schemas.text import _

app = typer.Typer(help=_("Los sistemas de las instituciones."), no_args_is_help=True, add_completion=False)
# Without a name its commands stand among these.
app.add_typer(adapters.cli.app)


@app.command("list", help=_("Mostrar los sistemas de las instituciones y cómo se los vio por última vez."))
def list_(as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False) -> None:
    """Show the adapters, what each serves, and its health as the running processes see it."""
    from gateway.cli.producers import show

    show(as_json)


@app.command("try", help=_("Hacer una consulta de prueba: decide, registra y pregunta como cualquier otra."))
def try_(
    name: Annotated[str, typer.Argument(metavar="NAME", help=_("Nombre del adaptador."))],
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help=_("Conjunto de datos."))],
    subject: Annotated[str, typer.Option(help=_("Cédula de la persona."))],
    institution: Annotated[str, typer.Option(help=_("Institución que pregunta."))] = "MDS",
    purpose: Annotated[str, typer.Option(help=_("Finalidad."))] = "service-access-determination",
    basis: Annotated[str, typer.Option(help=_("Base legal."))] = "official-authority",
    as_json: Annotated[bool, typer.Option("--json", help=_("Salida en JSON."))] = False,
) -> None:
    """Ask one adapter for a dataset about one person; exit 1 when nothing is released."""
    from gateway.cli.producers import ask

    ask(name, dataset, subject, institution, purpose, basis, as_json)
