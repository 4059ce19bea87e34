"""Why a caller, a key or a change to a client is refused; reasons are stable codes, never the offending value."""

from __future__ import annotations


class TokenError(Exception):
    """A credential is refused.

    ``reason`` is a stable code for the log; ``client_id`` names the client only when a signature, a certificate or a
    secret proved who it is, and ``pilot`` says that it was a secret. ``scheme`` is the one the caller used, ``address``
    where the request came from.
    """

    scheme = "Bearer"
    address: str | None = None

    def __init__(self, reason: str, client_id: str | None = None, *, pilot: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.client_id, self.pilot = reason, client_id, pilot


class OperatorError(TokenError):
    """The token stands, but the operator assertion that came with it does not."""


class ProofError(TokenError):
    """The token may stand, but the DPoP proof beside it does not (RFC 9449, ``invalid_dpop_proof``)."""


class ScopeError(TokenError):
    """The token does not reach this far (RFC 6750 section 3.1, ``insufficient_scope``); ``scope`` is what it lacks."""

    def __init__(self, scope: str, client_id: str, *, pilot: bool = False) -> None:
        super().__init__("scope", client_id, pilot=pilot)
        self.scope = scope


class TooMany(TokenError):
    """Too much was asked, or too often in vain (``rate`` or ``locked``); ``retry_after_s`` says when to come again."""

    def __init__(self, reason: str, retry_after_s: int, client_id: str | None = None) -> None:
        super().__init__(reason, client_id)
        self.retry_after_s = retry_after_s


class DirectoryUnavailable(RuntimeError):
    """What is known about clients is too old to trust, so nobody can be let in."""


class KeyRefused(ValueError):
    """A file does not hold the public key that a client must register.

    ``reason``: ``unreadable``, ``private``, ``certificate``, ``type``, ``curve``, ``use`` or ``kid``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CertificateRefused(ValueError):
    """A file does not hold the certificate that a client may register.

    ``reason``: ``unreadable``, ``private`` or ``expired``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class KeyFileError(RuntimeError):
    """A signing key file is missing, unreadable or open to others; the text names the file."""


class ClientError(ValueError):
    """A change to a client that cannot be made.

    ``reason``: ``id``, ``name``, ``exists``, ``unknown``, ``disabled``, ``institution``, ``scope``, ``assurance``,
    ``key-known``, ``grace``, ``credential``, ``certificate-known``, ``certificate-unknown``, ``validity``, ``network``
    or ``not-pilot``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
