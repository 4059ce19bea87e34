"""Command line of the simulated institutions: ``python -m adapters.simulator NAME``."""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path

from schemas.text import _

#: Where each institution's ``build`` function lives; only the one asked for is imported.
_MODULES = {
    "identificaciones": "adapters.simulator.identificaciones",
    "identificaciones-soap": "adapters.simulator.identificaciones_soap",
    "mds": "adapters.simulator.mds",
    "mspbs": "adapters.simulator.mspbs",
    "minna": "adapters.simulator.minna",
    "registro-civil": "adapters.simulator.registro_civil",
    "ips": "adapters.simulator.ips",
    "mds-beneficios": "adapters.simulator.mds_beneficios",
    "mds-padron": "adapters.simulator.mds_padron",
    "senadis": "adapters.simulator.senadis",
    "indi": "adapters.simulator.indi",
    "migraciones": "adapters.simulator.migraciones",
    "dnit": "adapters.simulator.dnit",
    "sfp": "adapters.simulator.sfp",
    "sfp-persona": "adapters.simulator.sfp_persona",
    "mec": "adapters.simulator.mec",
    "mec-establecimientos": "adapters.simulator.mec_establecimientos",
    "mspbs-salud": "adapters.simulator.mspbs_salud",
    "minna-abrazo": "adapters.simulator.minna_abrazo",
    "mtess": "adapters.simulator.mtess",
}


def main() -> None:
    """Read the arguments and serve one institution until SIGTERM or SIGINT; bad usage ends with 2."""
    parser = argparse.ArgumentParser(
        prog="python -m adapters.simulator", description=_("Institución simulada, solo en esta máquina")
    )
    parser.add_argument("name", choices=sorted(_MODULES), help=_("cuál institución"))
    parser.add_argument("--port", type=int, default=0, help=_("puerto del servicio; 0 elige uno libre"))
    parser.add_argument("--persons", type=int, default=1000, help=_("personas del país simulado"))
    parser.add_argument("--seed", type=int, default=1, help=_("semilla del país y de las respuestas"))
    parser.add_argument("--state", type=Path, help=_("archivo donde queda lo recibido y respondido"))
    arguments = parser.parse_args()
    # Imported here so that --help and bad usage answer at once.
    from adapters.simulator.server import run
    from adapters.simulator.settings import Settings

    settings = Settings(
        persons=arguments.persons,
        seed=arguments.seed,
        state=arguments.state,
        password=os.environ.get("SIIS_SIM_PASSWORD", "simulated-password"),
    )
    run(importlib.import_module(_MODULES[arguments.name]).build(settings), arguments.port)


if __name__ == "__main__":
    main()
