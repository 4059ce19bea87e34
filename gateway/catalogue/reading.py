"""Turns documents of the catalogue, as they are kept, into its types."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time
from typing import Any

from gateway.catalogue.models import (
    Branch,
    Institution,
    Location,
    Offer,
    Opening,
    Programme,
    Requirement,
    RouteStep,
    Service,
    ServicePackage,
    ServiceRoute,
)

Document = Mapping[str, Any]


def institution(code: str, document: Document) -> Institution:
    """Read an institution."""
    return Institution(
        code=code,
        names=names(document),
        phone=document.get("phone"),
        email=document.get("email"),
        website=document.get("website"),
    )


def programme(code: str, document: Document) -> Programme:
    """Read a programme."""
    return Programme(
        code=code,
        institution=document["institution"],
        names=names(document),
        description=document.get("description"),
    )


def requirement(code: str, document: Document) -> Requirement:
    """Read a requirement."""
    return Requirement(code=code, names=names(document), issuer=document.get("issuer"), website=document.get("website"))


def service(code: str, document: Document) -> Service:
    """Read a service."""
    return Service(
        code=code,
        institution=document["institution"],
        names=names(document),
        categories=frozenset(document["categories"]),
        requires=document.get("requires"),
        from_age=document.get("from_age"),
        response_days=document["response_days"],
        to_age=document.get("to_age"),
        coverage_days=document.get("coverage_days"),
        capacity=document.get("capacity"),
        programme=document.get("programme"),
        requirements=tuple(document.get("requirements", ())),
        description=document.get("description"),
        application=document.get("application"),
        eligibility=document.get("eligibility"),
        fees=document.get("fees"),
    )


def location(code: str, document: Document) -> Location:
    """Read a location; an offer without hours or districts of its own has the location's."""
    hours, district = document.get("openings", ()), document["district"]
    return Location(
        code=code,
        names=names(document),
        institution=document["institution"],
        department=district[:2],
        district=district,
        address=document.get("address"),
        phone=document.get("phone"),
        email=document.get("email"),
        latitude=document.get("latitude"),
        longitude=document.get("longitude"),
        offers=tuple(
            Offer(
                service=each["service"],
                openings=tuple(_opening(one) for one in each.get("openings", hours)),
                districts=tuple(each.get("districts", (district,))),
                note=each.get("note"),
            )
            for each in document["offers"]
        ),
    )


def package(code: str, document: Document) -> ServicePackage:
    """Read a package."""
    return ServicePackage(
        code=code,
        names=names(document),
        kind=document["kind"],
        category=document["category"],
        services=tuple(document["services"]),
        populations=frozenset(document.get("populations", ())),
    )


def route(code: str, document: Document) -> ServiceRoute:
    """Read a route; a step that does not say where it goes on goes on to the next, the last one ends."""
    steps = document["steps"]
    following = [(Branch(to=each["id"]),) for each in steps[1:]] + [()]
    return ServiceRoute(
        code=code,
        names=names(document),
        description=document.get("description"),
        populations=frozenset(document.get("populations", ())),
        steps=tuple(
            RouteStep(
                id=each["id"],
                service=each["service"],
                reason=each.get("reason"),
                next=tuple(_branch(one) for one in each["next"]) if "next" in each else usual,
            )
            for each, usual in zip(steps, following, strict=True)
        ),
    )


def names(document: Document) -> dict[str, str]:
    """Return the names of an entry; where nobody translated it, English readers get the Spanish one."""
    return {"es": document["es"], "en": document.get("en", document["es"])}


def _opening(document: Document) -> Opening:
    return Opening(
        days=tuple(document["days"]),
        opens=time.fromisoformat(document["opens"]),
        closes=time.fromisoformat(document["closes"]),
    )


def _branch(document: Document) -> Branch:
    return Branch(to=document.get("to"), after=document.get("after"), when=document.get("when"))
