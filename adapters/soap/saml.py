"""Decides whether a SAML assertion, kept fresh by others, may still go out; it travels as it is, never made here.

WSS 1.1 SAML Token Profile: the assertion stands in wsse:Security. Its signature is for the producer to check.
"""

from __future__ import annotations

from datetime import datetime

from lxml import etree

from adapters.errors import CallFailed, ContractBroken
from adapters.soap.security import DS, EXCLUSIVE_C14N, instant
from adapters.xmltree import parse

_NAMESPACES = ("urn:oasis:names:tc:SAML:2.0:assertion", "urn:oasis:names:tc:SAML:1.0:assertion")
_XML_DECLARATION = b"<?xml"


def read_assertion(raw: bytes, now: datetime) -> etree._Element:
    """Return the assertion (UTF-8, SAML 2.0 or 1.1) for one request.

    Raises CallFailed, never to be repeated: no assertion, not within its Conditions, or signed in a way that no
    envelope can carry (inclusive c14n takes in what surrounds it; SAML 2.0 core clause 5.4.3).
    """
    try:
        assertion = parse(raw)
    except ContractBroken:
        raise _unusable("is not plain XML") from None
    name = etree.QName(assertion)
    if name.localname != "Assertion" or name.namespace not in _NAMESPACES:
        raise _unusable("is not an assertion")
    # The parser leaves comments and instructions out, so what they were part of would no longer be what was signed.
    if b"<!--" in raw or b"<?" in raw.strip().removeprefix(_XML_DECLARATION):
        raise _unusable("holds a comment or an instruction")
    conditions = assertion.findall(f"{{{name.namespace}}}Conditions")
    if len(conditions) > 1:
        raise _unusable("has several Conditions")
    for condition in conditions:
        _check(condition, now)
    for method in assertion.iter(f"{{{DS}}}CanonicalizationMethod", f"{{{DS}}}Transform"):
        algorithm = method.get("Algorithm", "")
        if "c14n" in algorithm and not algorithm.startswith(EXCLUSIVE_C14N):
            raise _unusable("is signed with inclusive c14n")
    return assertion


def _check(conditions: etree._Element, now: datetime) -> None:
    start, end = conditions.get("NotBefore"), conditions.get("NotOnOrAfter")
    try:
        if end is not None and instant(end) <= now:
            raise _unusable("expired")
        if start is not None and instant(start) > now:
            raise _unusable("is not valid yet")
    except ValueError:
        raise _unusable("has a date that cannot be read") from None


def _unusable(why: str) -> CallFailed:
    return CallFailed(f"saml assertion {why}", acted=False, again=False)
