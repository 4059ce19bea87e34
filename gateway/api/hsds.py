"""The catalogue as Open Referral's API of HSDS 3.0, below ``/hsds``: for everyone, reading only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway import errors
from gateway.api.supply import Answers, shown
from gateway.catalogue.models import Items
from gateway.catalogue.service import Catalogue
from gateway.standards.hsds.files import page
from gateway.standards.hsds.layout import VERSION, Nesting, Row, Tables
from gateway.standards.hsds.matching import slug
from gateway.standards.hsds.writing import tables_of
from schemas.canonical import canonical_json
from schemas.text import _

PREFIX = "/hsds"
_KINDS: Final = {
    "services": "service",
    "organizations": "organization",
    "service_at_locations": "service_at_location",
    "taxonomies": "taxonomy",
    "taxonomy_terms": "taxonomy_term",
}
_USUAL, _MOST, _FURTHEST = 50, 200, 1_000_000
_TEXT = 200
_TRUE: Final = {"true": True, "1": True, "false": False, "0": False}

Rule = Callable[[Row], bool]


def build_router(catalogue: Catalogue, public_address: str) -> APIRouter:
    """Return the operations of HSDS 3.0; ``public_address`` is the gateway's own, for the addresses in answers."""
    router = APIRouter(tags=["HSDS"])
    face = _Face(catalogue)

    @router.get(PREFIX)
    @router.get(f"{PREFIX}/")
    async def about(request: Request) -> Response:
        """Say which version of HSDS this is."""
        told = {
            "version": VERSION,
            "profile": f"{public_address}/docs",
            "openapi_url": f"{public_address}/openapi.json",
        }
        return shown(request, canonical_json(told))

    for collection in _KINDS:
        router.add_api_route(f"{PREFIX}/{collection}", face.list_of(collection), methods=["GET"])
        router.add_api_route(f"{PREFIX}/{collection}/{{id}}", face.one_of(collection), methods=["GET"])
    return router


class _Face:
    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue, self._answers = catalogue, Answers()
        self._items: Items | None = None
        self._tables, self._nesting = Tables(), Nesting(Tables())

    def list_of(self, collection: str) -> Callable[[Request], Any]:
        """Return the operation that lists a collection, in pages."""

        async def listing(request: Request) -> Response:
            items = await self._fresh()
            return self._answers.known(request, items) or self._answers.make(request, self._page(request, collection))

        listing.__doc__ = f"List {collection} (HSDS 3.0)."
        return listing

    def one_of(self, collection: str) -> Callable[[Request, str], Any]:
        """Return the operation that shows one of a collection, with all that belongs to it."""

        async def one(request: Request, id: str) -> Response:
            items = await self._fresh()
            kind = _KINDS[collection]
            row = self._tables.rows[kind].get(id)
            if row is None:
                raise errors.NotFound("not-found")
            return self._answers.known(request, items) or self._answers.make(request, self._nesting.full(kind, row))

        one.__doc__ = f"Show one of {collection}, with all that belongs to it (HSDS 3.0)."
        return one

    async def _fresh(self) -> Items:
        items = await self._catalogue.items()
        if items is not self._items:
            self._tables = tables_of(items)
            self._nesting, self._items = Nesting(self._tables), items
        return items

    def _page(self, request: Request, collection: str) -> dict[str, Any]:
        kind, asked = _KINDS[collection], request.query_params
        for name in ("postcode", "proximity"):
            if name in asked:
                detail = _("Este filtro no se usa: no hay códigos postales en el catálogo.")
                raise errors.BadRequest("bad-page", pointer=f"/{name}", detail=detail)
        if asked.get("format", "json") != "json":
            detail = _("Solo se responde en JSON.")
            raise errors.BadRequest("bad-page", pointer="/format", detail=detail, allowed=("json",))
        rules = list(self._rules(request, kind))
        rows = [row for row in self._tables.rows[kind].values() if all(rule(row) for rule in rules)]
        if _flag(request, "minimal") and kind == "service":
            # All in one call, as the specification asks.
            brief = [{"id": row["id"], "last_modified": row["last_modified"]} for row in rows]
            return page(brief, 1, max(len(brief), 1))
        number, size = _number(request, "page", 1, _FURTHEST), _number(request, "per_page", _USUAL, _MOST)
        found = page(rows, number, size)
        whole = _flag(request, "full") or (kind == "organization" and _flag(request, "full_service"))
        build = self._nesting.full if whole else self._nesting.brief
        return found | {"contents": [build(kind, row) for row in found["contents"]]}

    def _rules(self, request: Request, kind: str) -> Iterable[Rule]:
        asked = request.query_params
        if text := slug(asked.get("search", "")[:_TEXT], _TEXT):
            yield lambda row: text in slug(_words(row, self._nesting, kind), 10_000)
        if (organization := asked.get("organization_id")) is not None:
            yield lambda row: self._service(kind, row).get("organization_id") == organization
        if kind in ("service", "service_at_location"):
            if (since := asked.get("modified_after")) is not None:
                moment = _moment(since)
                yield lambda row: datetime.fromisoformat(self._service(kind, row)["last_modified"]) >= moment
            for name in ("taxonomy_term_id", "taxonomy_id"):
                if (wanted := asked.get(name)) is not None:
                    linked = self._linked(name, wanted)
                    yield lambda row, linked=linked: self._service(kind, row).get("id") in linked  # type: ignore[misc]
        if kind == "taxonomy_term":
            if _flag(request, "top_only"):
                yield lambda row: "parent_id" not in row
            for name in ("taxonomy_id", "parent_id"):
                if (wanted := asked.get(name)) is not None:
                    yield lambda row, name=name, wanted=wanted: row.get(name) == wanted  # type: ignore[misc]

    def _service(self, kind: str, row: Row) -> Row:
        return self._tables.rows["service"].get(row["service_id"], {}) if kind == "service_at_location" else row

    def _linked(self, name: str, wanted: str) -> frozenset[str]:
        """Return what carries an attribute under a term, or under any term of a taxonomy."""
        terms = self._tables.rows["taxonomy_term"]
        return frozenset(
            row["link_id"]
            for row in self._tables.rows["attribute"].values()
            if wanted
            == (
                row["taxonomy_term_id"] if name == "taxonomy_term_id" else terms[row["taxonomy_term_id"]]["taxonomy_id"]
            )
        )


def _words(row: Row, nesting: Nesting, kind: str) -> str:
    """Return the words of a row that a search looks through: of a service at a location those of both."""
    shown = [row]
    if kind == "service_at_location":
        brief = nesting.brief(kind, row)
        shown += [brief.get("service", {}), brief.get("location", {})]
    return " ".join(str(each.get(name, "")) for each in shown for name in ("name", "description", "code"))


def _number(request: Request, name: str, usual: int, most: int) -> int:
    given = request.query_params.get(name, str(usual))
    if not (given.isascii() and given.isdecimal() and len(given) <= 7 and 1 <= int(given) <= most):
        raise errors.BadRequest("bad-page", pointer=f"/{name}", detail=_("Pida de 1 a {most}.").format(most=most))
    return int(given)


def _flag(request: Request, name: str) -> bool:
    given = request.query_params.get(name, "false").lower()
    if given not in _TRUE:
        detail = _("Es «true» o «false».")
        raise errors.BadRequest("bad-page", pointer=f"/{name}", detail=detail, allowed=("true", "false"))
    return _TRUE[given]


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        detail = _("Se esperaba una hora como 2026-11-20T08:00:00Z.")
        raise errors.BadRequest("bad-page", pointer="/modified_after", detail=detail) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
