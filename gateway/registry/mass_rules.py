"""The rule of ``protection.py`` as SQL for DuckDB, generated from the same catalogue and code lists.

Tables it reads: ``person``, ``household``, ``community`` (see ``mass.py``) and ``known_fact``; of a chunk of units it
makes the table ``computed``, whose columns are those of ``status`` that are computed.
"""

# What goes into the statements comes from catalogue and code lists, quoted.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from gateway.catalogue.models import Service
from gateway.registry.populations import ADULT_AGE, OLDER_AGE
from gateway.registry.protection import AT_BIRTH, BEFORE_BIRTH, FIRST_YEARS, PREGNANT, turning_ages
from gateway.registry.status import INDIGENOUS, POVERTY
from schemas.codes import code_list

_DISABILITY = ("disability", "severe-disability")


def marks(services: Mapping[str, Service]) -> tuple[str, ...]:
    """Return the names of the attributes that the rule looks at, in the order of the columns ``mark_0``…"""
    needed = {PREGNANT, INDIGENOUS, POVERTY, *_DISABILITY}
    return tuple(sorted(needed | {each.requires for each in services.values() if each.requires is not None}))


def instruments() -> str:
    """Return the SQL that makes the table of instruments and their ranks."""
    rows = [f"({quoted(code)}, {properties.get('rank', 0)})" for code, properties in code_list("instruments").items()]
    return f"CREATE TABLE instrument AS SELECT * FROM (VALUES {', '.join(rows)}) AS t (code, rank)"


class Rules:
    """The statements for one catalogue and one day."""

    def __init__(self, services: Mapping[str, Service], day: date) -> None:
        self._services = list(services.values())
        self._day = f"DATE '{day.isoformat()}'"
        self._mark = {name: f"mark_{place}" for place, name in enumerate(marks(services))}

    def persons(self, condition: str) -> list[str]:
        """Return the statements that compute the persons for whom a condition on ``unit`` holds."""
        categories = "concat_ws(',', before_birth, at_birth, by_age)"
        base = f"""
        CREATE OR REPLACE TEMP TABLE base AS
        WITH aged AS (
            SELECT p.*, h.community AS community, coalesce(h.{self._mark[POVERTY]}, false) AS poor,
                p.merged IS NULL AND NOT coalesce(p.died <= {self._day}, false) AS counts,
                CASE WHEN p.born <= {self._day} THEN {self._age("p.born")} END AS age
            FROM person AS p LEFT JOIN household AS h ON h.unit = p.household WHERE {condition.format("p.unit")}
        ), placed AS (
            SELECT *, CASE WHEN {self._mark[PREGNANT]} THEN '{BEFORE_BIRTH}' END AS before_birth,
                CASE WHEN age < {FIRST_YEARS} THEN '{AT_BIRTH}' END AS at_birth, {_category()} AS by_age
            FROM aged
        )
        SELECT unit, 'person' AS kind, department, district, community, age, before_birth, at_birth, by_age, counts,
            {", ".join(self._mark.values())},
            CASE WHEN counts THEN {self._populations()} ELSE '' END AS populations,
            CASE WHEN counts THEN {categories} ELSE '' END AS categories,
            CASE WHEN counts THEN least(CASE WHEN died > {self._day} THEN died END, {self._turn()}) END AS turns
        FROM placed
        """
        return [base, *self._rest(self._applies_to_persons())]

    def shared(self, kind: str, condition: str) -> list[str]:
        """Return the statements that compute households or communities."""
        populations = ", ".join(f"CASE WHEN {self._mark[name]} THEN '{name}' END" for name in (INDIGENOUS, POVERTY))
        base = f"""
        CREATE OR REPLACE TEMP TABLE base AS
        SELECT unit, '{kind}' AS kind, department, district, community, counts, {", ".join(self._mark.values())},
            CASE WHEN counts THEN concat_ws(',', {populations}) ELSE '' END AS populations,
            CASE WHEN counts THEN '{kind}' ELSE '' END AS categories, CAST(NULL AS DATE) AS turns
        FROM {kind} WHERE {condition.format("unit")}
        """
        applies = [
            f"SELECT unit, {quoted(each.code)} AS service, '{kind}' AS category FROM base"
            f" WHERE counts AND {self._required(each)}"
            for each in self._services
            if kind in each.categories
        ]
        return [base, *self._rest(applies)]

    def _rest(self, applies: list[str]) -> list[str]:
        """From ``base`` and what applies to it to ``computed``; every step is over the units of the chunk alone."""
        nothing = "SELECT unit, '' AS service, '' AS category FROM base WHERE false"
        # Nearly everybody has one fact about a service: only of those with more anything is sorted.
        return [
            f"CREATE OR REPLACE TEMP TABLE applies AS {' UNION ALL '.join(applies or [nothing])}",
            """
            CREATE OR REPLACE TEMP TABLE near AS
            SELECT * FROM known_fact
            WHERE unit BETWEEN (SELECT min(unit) FROM base) AND (SELECT max(unit) FROM base)
            """,
            f"""
            CREATE OR REPLACE TEMP TABLE seen AS
            SELECT unit, service, count(*) FILTER (observed <= {self._day}) AS facts,
                any_value(fact) FILTER (observed <= {self._day}) AS fact,
                any_value(protected) FILTER (observed <= {self._day}) AS protected,
                any_value(observed) FILTER (observed <= {self._day}) AS observed,
                min(observed) FILTER (observed > {self._day}) AS later
            FROM near GROUP BY unit, service
            """,
            f"""
            CREATE OR REPLACE TEMP TABLE chosen AS
            WITH ranked AS (
                SELECT n.*, coalesce(i.rank, 0) AS rank FROM near AS n
                SEMI JOIN (SELECT unit, service FROM seen WHERE facts > 1) AS many
                    ON many.unit = n.unit AND many.service = n.service
                LEFT JOIN instrument AS i ON i.code = n.instrument
                WHERE n.observed <= {self._day}
            ), ordered AS (
                SELECT *, row_number() OVER w AS place, lead(observed) OVER w AS next_observed,
                    lead(rank) OVER w AS next_rank
                FROM ranked WINDOW w AS (
                    PARTITION BY unit, service ORDER BY observed DESC, rank DESC, recorded DESC, fact DESC
                )
            )
            SELECT unit, service, fact, protected, observed, CASE WHEN observed <> next_observed THEN 'newest'
                WHEN rank <> next_rank THEN 'instrument' ELSE 'recorded-last' END AS rule
            FROM ordered WHERE place = 1
            """,
            f"""
            CREATE OR REPLACE TEMP TABLE stated AS
            WITH joined AS (
                SELECT a.unit, a.service, a.category, s.later, coalesce(c.fact, s.fact) AS fact,
                    coalesce(c.protected, s.protected) AS protected, coalesce(c.observed, s.observed) AS observed,
                    coalesce(c.rule, CASE WHEN s.facts = 1 THEN 'only-fact' ELSE 'no-fact' END) AS rule,
                    {self._by_service("coverage_days")} AS coverage, {self._core()} AS core
                FROM applies AS a
                LEFT JOIN seen AS s ON s.unit = a.unit AND s.service = a.service
                LEFT JOIN chosen AS c ON c.unit = a.unit AND c.service = a.service
            )
            SELECT *, CASE WHEN fact IS NULL THEN 'unknown' WHEN NOT protected THEN 'unprotected'
                WHEN observed + coverage < {self._day} THEN 'expired' ELSE 'protected' END AS status
            FROM joined
            """,
            _SUMMED,
            _COMPUTED,
        ]

    def _age(self, born: str) -> str:
        day = self._day
        birthday_to_come = f"month({day}) * 100 + day({day}) < month({born}) * 100 + day({born})"
        return f"year({day}) - year({born}) - CASE WHEN {birthday_to_come} THEN 1 ELSE 0 END"

    def _turn(self) -> str:
        """Return the expression of the day on which the next age that matters is completed."""
        turns = " ".join(f"WHEN age < {age} THEN {_birthday(age)}" for age in turning_ages(self._services))
        return f"CASE WHEN born > {self._day} THEN born {turns} END"

    def _populations(self) -> str:
        disability = " OR ".join(self._mark[name] for name in _DISABILITY)
        belongs = {
            "women": "sex = 'F'",
            "children": f"age < {ADULT_AGE}",
            "older": f"age >= {OLDER_AGE}",
            "disability": disability,
            "indigenous": self._mark[INDIGENOUS],
            "poverty": "poor",
        }
        whens = [f"CASE WHEN {when} THEN '{code}' END" for code, when in belongs.items()]
        return f"concat_ws(',', {', '.join(whens)})"

    def _applies_to_persons(self) -> list[str]:
        found = []
        for each in self._services:
            ages = sorted(each.categories - {BEFORE_BIRTH, AT_BIRTH})
            reached = [
                "before_birth" if BEFORE_BIRTH in each.categories else None,
                "at_birth" if AT_BIRTH in each.categories else None,
                f"CASE WHEN by_age IN ({', '.join(map(quoted, ages))}) THEN by_age END" if ages else None,
            ]
            named = [one for one in reached if one is not None]
            if not named:
                continue
            bounds = [f"age >= {each.from_age}"] if each.from_age is not None else []
            bounds += [f"age <= {each.to_age}"] if each.to_age is not None else []
            of_age = f"(age IS NULL OR {' AND '.join(bounds)})" if bounds else "true"
            found.append(
                f"SELECT unit, {quoted(each.code)} AS service, coalesce({', '.join(named)}) AS category FROM base"
                f" WHERE counts AND {self._required(each)} AND {of_age} AND coalesce({', '.join(named)}) IS NOT NULL"
            )
        return found

    def _required(self, service: Service) -> str:
        return "true" if service.requires is None else self._mark[service.requires]

    def _by_service(self, name: str) -> str:
        values = {each.code: getattr(each, name) for each in self._services if getattr(each, name) is not None}
        whens = " ".join(f"WHEN {quoted(code)} THEN {value}" for code, value in values.items())
        return f"CASE a.service {whens} END" if whens else "CAST(NULL AS INTEGER)"

    def _core(self) -> str:
        outside = [
            f"(a.service = {quoted(each.code)} AND a.category IN ({', '.join(map(quoted, sorted(each.outside_core)))}))"
            for each in self._services
            if each.outside_core
        ]
        return f"NOT ({' OR '.join(outside)})" if outside else "true"


# As ``status.py`` writes the services and their digests; the order of a JSON object's keys is of no account.
_SUMMED = f"""
CREATE OR REPLACE TEMP TABLE summed AS
WITH written AS (
    SELECT unit, category, status, core,
        least(later, CASE WHEN status = 'protected' THEN observed + coverage + 1 END) AS due,
        concat('"', service, '":{{"status":"', status, '","category":"', category, '","core":', core, ',"fact":',
            coalesce('"' || fact || '"', 'null'), ',"rule":"', rule, '"}}') AS piece
    FROM stated
)
SELECT unit, string_agg(piece, ',') AS services, bit_xor(md5_number(piece)) AS digest, min(due) AS due_on,
    bool_and(status = 'protected') FILTER (core AND category = '{BEFORE_BIRTH}') AS before_birth,
    bool_and(status = 'protected') FILTER (core AND category = '{AT_BIRTH}') AS at_birth,
    bool_and(status = 'protected') FILTER (core AND category NOT IN ('{BEFORE_BIRTH}', '{AT_BIRTH}')) AS other,
    any_value(category) FILTER (category NOT IN ('{BEFORE_BIRTH}', '{AT_BIRTH}')) AS category
FROM written GROUP BY unit
"""
_COMPUTED = f"""
CREATE OR REPLACE TEMP TABLE computed AS
WITH found AS (
    SELECT b.unit, b.kind, b.department, b.district, b.community, b.populations, b.categories,
        concat_ws(',', CASE WHEN s.before_birth IS NOT NULL THEN '{BEFORE_BIRTH}' END,
            CASE WHEN s.at_birth IS NOT NULL THEN '{AT_BIRTH}' END,
            CASE WHEN s.other IS NOT NULL THEN s.category END) AS applicable,
        concat_ws(',', CASE WHEN s.before_birth THEN '{BEFORE_BIRTH}' END, CASE WHEN s.at_birth THEN '{AT_BIRTH}' END,
            CASE WHEN s.other THEN s.category END) AS concurrent,
        concat('{{', s.services, '}}') AS services, coalesce(s.digest, 0::UHUGEINT) AS services_digest,
        least(b.turns, s.due_on) AS due_on
    FROM base AS b LEFT JOIN summed AS s ON s.unit = b.unit
)
SELECT * EXCLUDE (services_digest), CAST(lpad(to_hex(xor(services_digest, md5_number(concat(kind, '|', department,
    '|', district, '|', community, '|', populations, '|', categories, '|', concurrent, '|', due_on)))), 32, '0')
    AS UUID) AS digest
FROM found
"""


def quoted(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _category() -> str:
    whens = " ".join(
        f"WHEN age BETWEEN {bounds['from_age']} AND {bounds['to_age']} THEN {quoted(code)}"
        for code, bounds in code_list("life-cycle").items()
        if "from_age" in bounds
    )
    return f"CASE {whens} END"


def _birthday(age: int) -> str:
    """Return the expression of the day on which an age is completed; born 29 February, 1 March of common years."""
    day = f"(born + INTERVAL {age} YEAR)"
    return f"CAST({day} + CASE WHEN day({day}) < day(born) THEN INTERVAL 1 DAY ELSE INTERVAL 0 DAY END AS DATE)"
