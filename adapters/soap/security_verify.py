"""Decides whether a signed SOAP answer is the producer's, unchanged, fresh and given once; all before a type is read.

xmlsec checks digests and signature. What they cover is decided here, against signature wrapping (McIntosh and Austel,
2005): every reference names one element of ours to see, and the Body that is read must be one of them.
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, cast

import xmlsec
from lxml import etree

from adapters.errors import CallFailed, ContractBroken
from adapters.soap.message import SOAP_11, SOAP_12
from adapters.soap.security import (
    DS,
    EXCLUSIVE_C14N,
    SECURITY,
    SIGNATURE_VALUE,
    TIMESTAMP,
    WSSE,
    WSSE_11,
    WSU,
    X509_V3,
    Partner,
    Registered,
    instant,
)
from schemas.canonical import sha256

_SIGNATURES = frozenset(
    f"http://www.w3.org/2001/04/xmldsig-more#{name}"
    for name in ("rsa-sha256", "rsa-sha384", "rsa-sha512", "ecdsa-sha256")
)
_DIGESTS = frozenset(
    {
        "http://www.w3.org/2001/04/xmlenc#sha256",
        "http://www.w3.org/2001/04/xmldsig-more#sha384",
        "http://www.w3.org/2001/04/xmlenc#sha512",
    }
)
# The second form is for a signature inside what it signs, as in SAML.
_TRANSFORMS = ([EXCLUSIVE_C14N], [f"{DS}enveloped-signature", EXCLUSIVE_C14N])
_SIGNATURE, _SIGNED_INFO, _REFERENCE = f"{{{DS}}}Signature", f"{{{DS}}}SignedInfo", f"{{{DS}}}Reference"
_KEY_INFO, _C14N, _METHOD = f"{{{DS}}}KeyInfo", f"{{{DS}}}CanonicalizationMethod", f"{{{DS}}}SignatureMethod"
_IN_REFERENCE = [f"{{{DS}}}Transforms", f"{{{DS}}}DigestMethod", f"{{{DS}}}DigestValue"]
_PREFIXES = f"{{{EXCLUSIVE_C14N}}}InclusiveNamespaces"
_BINARY_TOKEN = f"{{{WSSE}}}BinarySecurityToken"
_CONFIRMATION = f"{{{WSSE_11}}}SignatureConfirmation"
_XOP = "{http://www.w3.org/2004/08/xop/include}Include"
_ULTIMATE = f"{SOAP_12}/role/ultimateReceiver"

_IDS = etree.XPath("//@wsu:Id | //@Id | //@ID | //@xml:id", namespaces={"wsu": WSU})
# A plain name: of "#xpointer(…)" an XML library makes something else than an id.
_FRAGMENT = re.compile(r"#([A-Za-z_][A-Za-z0-9_.-]*)", re.ASCII)
# Each reference has its element canonicalised and hashed once more: a limit on work.
_MOST_REFERENCES = 16

_SKEW = timedelta(seconds=60)
_OLDEST = timedelta(seconds=300)
_MOST_SEEN = 65_536


class SeenAnswers:
    """Signature values of answers already used, kept while they would pass as fresh; the oldest go when it is full.

    One process only; what it cannot see, the rule that an answer is not older than its question limits.
    """

    def __init__(self) -> None:
        self._until: dict[bytes, datetime] = {}
        self._lock = threading.Lock()

    def first_time(self, value: bytes, now: datetime, until: datetime) -> bool:
        """Note a value; False where it was noted before."""
        key = sha256(value)
        with self._lock:
            if key in self._until:
                return False
            while self._until:
                oldest = next(iter(self._until))
                if self._until[oldest] >= now and len(self._until) < _MOST_SEEN:
                    break
                del self._until[oldest]
            self._until[key] = until
        return True


def verify_answer(
    envelope: etree._Element,
    partner: Partner,
    *,
    now: datetime,
    asked: datetime,
    seen: SeenAnswers,
    request_signature: bytes | None,
) -> etree._Element:
    """Return the Body of an answer that ``partner`` signed, with its Timestamp, after we ``asked`` (both aware).

    ``request_signature`` is what :func:`adapters.soap.security_sign.secure` returned: where the answer confirms a
    signature (WSS 1.1 clause 8.5), it must be that one. Parts of an MTOM answer must be in their places before (XOP
    1.0 clause 5): the signature covers what the Body holds, and no attachment. Raises ContractBroken naming the rule
    broken, and CallFailed where the very same answer was used before.
    """
    body, security = _parts(envelope)
    signatures = list(security.iter(_SIGNATURE))
    if len(signatures) != 1 or signatures[0].getparent() is not security:
        raise ContractBroken("the Security header does not hold exactly one signature of its own")
    signed = verify_signature(signatures[0], partner, now)
    if not _among(body, signed):
        raise ContractBroken("the Body is not signed")
    if next(body.iter(_XOP), None) is not None:
        raise ContractBroken("the Body refers to parts that the signature does not cover")
    until = _fresh(security, signed, now, asked)
    _confirmed(security, signed, request_signature)
    if not seen.first_time(_decoded(signatures[0].findtext(SIGNATURE_VALUE), "SignatureValue"), now, until):
        raise CallFailed("the answer was used before")
    return body


def verify_signature(signature: etree._Element, partner: Partner, now: datetime) -> list[etree._Element]:
    """Check a ds:Signature against a partner's registered certificates and return the elements that it covers.

    XML Signature 1.1 without its choices: exclusive c14n, SHA-2, references by unique id within the document. Raises
    ContractBroken naming the rule broken.
    """
    ids = _unique_ids(signature.getroottree().getroot())
    signed_info = _shape(signature)
    targets = [_target(reference, ids) for reference in signed_info.findall(_REFERENCE)]
    elements = [element for element, _attribute in targets]
    if len(set(elements)) != len(elements):
        raise ContractBroken("two references sign the same element")
    candidates = _candidates(signature, partner, ids, now)
    if not any(_verifies(signature, registered, targets) for registered in candidates):
        raise ContractBroken("the signature does not verify with the registered certificate")
    return elements


def _parts(envelope: etree._Element) -> tuple[etree._Element, etree._Element]:
    """Return the Body and the one Security header, which must be for us."""
    soap = etree.QName(envelope).namespace
    if envelope.getparent() is not None or envelope.tag not in (f"{{{SOAP_11}}}Envelope", f"{{{SOAP_12}}}Envelope"):
        raise ContractBroken("the answer is not a SOAP envelope")
    headers = list(envelope.iter(SECURITY))
    if len(headers) != 1:
        raise ContractBroken(f"the answer has {len(headers)} Security headers")
    if [child.tag for child in envelope] != [f"{{{soap}}}Header", f"{{{soap}}}Body"]:
        raise ContractBroken("the envelope is not one Header and one Body")
    if headers[0].getparent() is not envelope[0]:
        raise ContractBroken("the Security header is not in the Header")
    receiver = headers[0].get(f"{{{SOAP_11}}}actor", "") or headers[0].get(f"{{{SOAP_12}}}role", "")
    if receiver not in ("", _ULTIMATE):
        raise ContractBroken("the Security header is for another receiver")
    return envelope[1], headers[0]


def _unique_ids(root: etree._Element) -> dict[str, tuple[etree._Element, str]]:
    """Map each id of a document to its element and attribute; an id given twice is refused, used or not."""
    found: dict[str, tuple[etree._Element, str]] = {}
    for value in cast(list[Any], _IDS(root)):
        # Of white space around an id, XML processors think differently.
        name = value.strip()
        if name in found:
            raise ContractBroken("an id is given twice")
        found[name] = value.getparent(), value.attrname
    return found


def _shape(signature: etree._Element) -> etree._Element:
    """Return the SignedInfo of a signature that holds nothing unexpected and asks for allowed algorithms only."""
    tags = [child.tag for child in signature]
    if tags not in ([_SIGNED_INFO, SIGNATURE_VALUE], [_SIGNED_INFO, SIGNATURE_VALUE, _KEY_INFO]):
        raise ContractBroken("the signature is not SignedInfo, SignatureValue and KeyInfo")
    signed_info = signature[0]
    tags = [child.tag for child in signed_info]
    if tags[:2] != [_C14N, _METHOD] or not tags[2:] or set(tags[2:]) != {_REFERENCE}:
        raise ContractBroken("SignedInfo is not two methods and references")
    if len(tags) - 2 > _MOST_REFERENCES:
        raise ContractBroken("more references than we check")
    if signed_info[0].get("Algorithm") != EXCLUSIVE_C14N or not _only_prefixes(signed_info[0]):
        raise ContractBroken("CanonicalizationMethod is not exclusive c14n")
    if signed_info[1].get("Algorithm") not in _SIGNATURES or len(signed_info[1]):
        raise ContractBroken("SignatureMethod is not allowed")
    return signed_info


def _verifies(signature: etree._Element, registered: Registered, targets: list[tuple[etree._Element, str]]) -> bool:
    context = xmlsec.SignatureContext()
    # With a key set, xmlsec does not look at KeyInfo.
    context.key = registered.key
    try:
        for element, attribute in targets:
            name = etree.QName(attribute)
            context.register_id(element, name.localname, name.namespace)
        context.verify(signature)
    except xmlsec.Error:
        return False
    return True


def _target(reference: etree._Element, ids: dict[str, tuple[etree._Element, str]]) -> tuple[etree._Element, str]:
    """Return the one element that a reference names, and the attribute that holds its id."""
    if [child.tag for child in reference] != _IN_REFERENCE:
        raise ContractBroken("a reference is not Transforms, DigestMethod and DigestValue")
    transforms, digest = list(reference[0]), reference[1]
    if [child.get("Algorithm") for child in transforms] not in _TRANSFORMS:
        raise ContractBroken("a transform is not allowed")
    if any(len(child) for child in transforms[:-1]) or not _only_prefixes(transforms[-1]):
        raise ContractBroken("a transform has parameters that are not allowed")
    if digest.get("Algorithm") not in _DIGESTS or len(digest):
        raise ContractBroken("DigestMethod is not allowed")
    return _named(reference, ids)


def _named(reference: etree._Element, ids: dict[str, tuple[etree._Element, str]]) -> tuple[etree._Element, str]:
    fragment = _FRAGMENT.fullmatch(reference.get("URI", ""))
    if fragment is None or fragment[1] not in ids:
        raise ContractBroken("a reference does not name an element of the answer by its id")
    return ids[fragment[1]]


def _only_prefixes(method: etree._Element) -> bool:
    """Tell whether exclusive c14n has no parameter but the prefixes its own recommendation knows."""
    return len(method) == 0 or (len(method) == 1 and method[0].tag == _PREFIXES and len(method[0]) == 0)


def _candidates(
    signature: etree._Element, partner: Partner, ids: dict[str, tuple[etree._Element, str]], now: datetime
) -> list[Registered]:
    """Return the registered certificates that may have signed; one that the answer shows only narrows the choice."""
    found: Iterable[Registered] = partner.certificates
    shown = _shown(signature, ids)
    if shown:
        found = [registered for registered in found if registered.der in shown]
        if not found:
            raise ContractBroken("signed with a certificate that is not registered")
    valid = [registered for registered in found if registered.start <= now <= registered.end]
    if not valid:
        raise ContractBroken("the registered certificate is not valid now")
    return valid


def _shown(signature: etree._Element, ids: dict[str, tuple[etree._Element, str]]) -> list[bytes]:
    """Return the certificates (DER) that KeyInfo holds or refers to; one named in another way is not looked for."""
    shown = [_decoded(element.text, "X509Certificate") for element in signature.iter(f"{{{DS}}}X509Certificate")]
    for reference in signature.iter(f"{{{WSSE}}}Reference"):
        token, _attribute = _named(reference, ids)
        if token.tag != _BINARY_TOKEN:
            raise ContractBroken("KeyInfo does not refer to a BinarySecurityToken")
        if token.get("ValueType") == X509_V3:
            shown.append(_decoded(token.text, "BinarySecurityToken"))
    return shown


def _fresh(security: etree._Element, signed: list[etree._Element], now: datetime, asked: datetime) -> datetime:
    """Check the signed Timestamp; return until when the same answer would pass again."""
    timestamps = security.findall(TIMESTAMP)
    if len(timestamps) != 1 or not _among(timestamps[0], signed):
        raise ContractBroken("the Security header does not hold exactly one signed Timestamp")
    created = [_read_instant(element) for element in timestamps[0].findall(f"{{{WSU}}}Created")]
    expires = [_read_instant(element) for element in timestamps[0].findall(f"{{{WSU}}}Expires")]
    if len(created) != 1 or len(expires) > 1:
        raise ContractBroken("the Timestamp is not one Created and at most one Expires")
    if created[0] > now + _SKEW:
        raise ContractBroken("the Timestamp is in the future")
    if created[0] < max(asked, now - _OLDEST) - _SKEW:
        raise ContractBroken("the Timestamp is older than the question")
    if expires and expires[0] <= now - _SKEW:
        raise ContractBroken("the Timestamp has expired")
    return created[0] + _OLDEST + _SKEW


def _confirmed(security: etree._Element, signed: list[etree._Element], request: bytes | None) -> None:
    confirmations = security.findall(_CONFIRMATION)
    if not confirmations:
        return
    if len(confirmations) != 1 or not _among(confirmations[0], signed):
        raise ContractBroken("SignatureConfirmation is not given once and signed")
    value = confirmations[0].get("Value")
    if (None if value is None else _decoded(value, "SignatureConfirmation")) != request:
        raise ContractBroken("SignatureConfirmation is of another request")


def _read_instant(element: etree._Element) -> datetime:
    try:
        return instant(element.text)
    except ValueError:
        raise ContractBroken("the Timestamp is not an instant with its time zone") from None


def _decoded(text: str | None, name: str) -> bytes:
    try:
        return base64.b64decode("".join((text or "").split()), validate=True)
    except ValueError:
        raise ContractBroken(f"{name} is not base64") from None


def _among(element: etree._Element, elements: Iterable[etree._Element]) -> bool:
    # The very same node: elements that only look alike are what a wrapping attack is made of.
    return any(element is other for other in elements)
