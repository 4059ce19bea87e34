"""Grows the Merkle tree of RFC 6962: the frontier that takes a leaf more, its root, and what a proof is made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from audit.verify import EMPTY_ROOT, HASH_BYTES, node_hash

#: Leaves from the first number to before the second.
Span = tuple[int, int]

_sha256 = hashlib.sha256


class Frontier:
    """The right edge of a tree: the roots of its perfect subtrees, largest first; enough to append and to sign."""

    __slots__ = ("hashes", "size")

    def __init__(self, size: int = 0, data: bytes = b"") -> None:
        """Read a stored frontier: ``size`` leaves, and one hash of 32 bytes for each bit set in ``size``.

        Raises :class:`ValueError` if the two do not fit.
        """
        if size < 0 or len(data) != HASH_BYTES * size.bit_count():
            raise ValueError("frontier does not fit its size")
        self.size = size
        self.hashes = [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        size, hashes = self.size, self.hashes
        self.size = size + 1
        while size & 1:
            leaf = _sha256(b"\x01" + hashes.pop() + leaf).digest()
            size >>= 1
        hashes.append(leaf)

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaf hashes in order."""
        for leaf in leaves:
            self.append(leaf)

    def root(self) -> bytes:
        """Return the root hash; SHA-256 of nothing for the empty tree (RFC 6962 clause 2.1)."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return root

    def to_bytes(self) -> bytes:
        """Return the hashes as they are stored."""
        return b"".join(self.hashes)


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Return the root of a tree of leaf hashes."""
    frontier = Frontier()
    frontier.extend(leaves)
    return frontier.root()


def inclusion_spans(index: int, size: int) -> list[Span]:
    """Return the spans of leaves whose roots are the inclusion proof of ``index`` (RFC 9162 clause 2.1.3.1).

    Raises :class:`IndexError` out of range.
    """
    if not 0 <= index < size:
        raise IndexError("no such leaf")
    start, end, spans = 0, size, []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    spans.reverse()
    return spans


def consistency_spans(old_size: int, size: int) -> list[Span]:
    """Return the spans of leaves whose roots prove ``old_size`` leaves a prefix (RFC 9162 clause 2.1.4.1).

    Raises :class:`IndexError` unless 0 < ``old_size`` <= ``size``.
    """
    if not 0 < old_size <= size:
        raise IndexError("no such size")
    start, end, spans = 0, size, []
    while old_size != end:
        middle = start + _split(end - start)
        if old_size <= middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    # The subtree where both trees end together; the verifier knows it already when it is the whole old tree.
    if start > 0:
        spans.append((start, end))
    spans.reverse()
    return spans


def _split(size: int) -> int:
    """Return the largest power of two smaller than ``size``."""
    return 1 << ((size - 1).bit_length() - 1)
