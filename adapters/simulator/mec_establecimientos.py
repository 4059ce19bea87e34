"""MEC, establishments: the CSV of its open data, with the header its own programs write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adapters.simulator.dossier import SCHOOLS
from adapters.simulator.names import NEIGHBOURHOODS, RURAL_PLACES
from adapters.simulator.publisher import Publisher, table
from adapters.simulator.settings import Settings
from schemas.geography import departments, districts

COLUMNS = (
    "anio", "codigo_establecimiento", "codigo_departamento", "nombre_departamento", "codigo_distrito",
    "nombre_distrito", "codigo_zona", "nombre_zona", "codigo_barrio_localidad", "nombre_barrio_localidad",
    "direccion", "coordenadas_y", "coordenadas_x", "latitud", "longitud",
)  # fmt: skip
_YEAR = "2026"


class MecEstablecimientos(Publisher):
    """The ministry of education's list of establishments."""

    name = "mec-establecimientos"

    def register(self, *, spoilt: bool) -> Mapping[str, bytes]:
        """Return this year's list; spoilt, a column of the header has another name."""
        columns = [name.replace("codigo_establecimiento", "cod_est") if spoilt else name for name in COLUMNS]
        return {f"publicado/establecimientos_{_YEAR}.csv": table(columns, _rows(), ",").encode()}


def _rows() -> Iterator[tuple[str, ...]]:
    """Write the schools pupils go to, and one establishment in each district."""
    schools = [(code, "11", "16", name) for code, name in SCHOOLS]
    for department in departments():
        for district in districts(department.ine):
            schools.append((f"{district.ine}901", department.ine, district.ine[2:], f"Escuela N.º {district.ine}"))
    known = {department.ine: department.name for department in departments()}
    names = {district.ine: district.name for ine in known for district in districts(ine)}
    for number, (code, department_code, district_code, name) in enumerate(schools):
        urban = number % 3 == 0
        place = (NEIGHBOURHOODS if urban else RURAL_PLACES)[number % 20]
        south, east = 7_200_000 - number * 1_300, 400_000 + number * 900
        latitude, longitude = -25.2 - number / 200, -57.5 + number / 150
        yield (
            _YEAR, code, department_code, known[department_code], district_code, names[department_code + district_code],
            "1" if urban else "6", "Urbana" if urban else "Rural", f"{number % 20 + 1:03d}", place,
            f"Calle sin nombre, {name}", f"{south}", f"{east}", f"{latitude:.6f}", f"{longitude:.6f}",
        )  # fmt: skip


def build(settings: Settings) -> MecEstablecimientos:
    """Return the institution, ready to serve."""
    return MecEstablecimientos(settings)
