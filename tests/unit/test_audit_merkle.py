"""The tree against RFC 6962: known leaves and roots, proofs of every small size, and proofs that must not pass."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.merkle import Frontier, Span, consistency_spans, inclusion_spans, root_of
from audit.verify import EMPTY_ROOT, leaf_hash, node_hash, verify_consistency, verify_inclusion

# The entries and roots that Certificate Transparency implementations have tested with since RFC 6962.
ENTRIES = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
ENTRIES.append(bytes(range(0x60, 0x70)))
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [leaf_hash(str(number).encode()) for number in range(33)]


def by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962 clause 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(by_definition(leaves[:split]), by_definition(leaves[split:]))


def test_known_roots_come_out() -> None:
    frontier = Frontier()
    for entry, root in zip(ENTRIES, ROOTS, strict=True):
        frontier.append(leaf_hash(entry))
        assert frontier.root().hex() == root


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert Frontier().root() == EMPTY_ROOT == by_definition([])


def roots(leaves: list[bytes], spans: list[Span]) -> list[bytes]:
    """What a proof is made of."""
    return [root_of(leaves[start:end]) for start, end in spans]


@given(st.integers(0, 300))
def test_the_frontier_gives_the_root_of_the_definition(size: int) -> None:
    leaves = [leaf_hash(bytes([number % 256, number // 256])) for number in range(size)]
    assert root_of(leaves) == by_definition(leaves)


@given(st.integers(0, 100), st.integers(0, 100))
def test_a_stored_frontier_goes_on_where_it_stopped(before: int, after: int) -> None:
    leaves = [leaf_hash(bytes([number])) for number in range(before + after)]
    first = Frontier()
    first.extend(leaves[:before])
    second = Frontier(first.size, first.to_bytes())
    second.extend(leaves[before:])
    assert second.root() == by_definition(leaves)


@pytest.mark.parametrize(("size", "data"), [(-1, b""), (0, bytes(32)), (1, b""), (3, bytes(32)), (2, bytes(33))])
def test_a_frontier_that_does_not_fit_its_size_is_refused(size: int, data: bytes) -> None:
    with pytest.raises(ValueError, match="frontier"):
        Frontier(size, data)


@pytest.mark.parametrize("size", range(1, 34))
def test_every_inclusion_proof_holds_and_holds_for_nothing_else(size: int) -> None:
    leaves = LEAVES[:size]
    root = root_of(leaves)
    for index, leaf in enumerate(leaves):
        proof = roots(leaves, inclusion_spans(index, size))
        assert verify_inclusion(leaf, index, size, proof, root)
        assert not verify_inclusion(leaf_hash(b"other"), index, size, proof, root)
        assert not verify_inclusion(leaf, index, size, [*proof, LEAVES[0]], root)
        assert not verify_inclusion(leaf, index, size, proof, leaf_hash(b"other"))
        others = [other for other in range(size) if other != index]
        assert not any(verify_inclusion(leaf, other, size, proof, root) for other in others)
        if proof:
            assert not verify_inclusion(leaf, index, size, proof[:-1], root)
            assert not verify_inclusion(leaf, index, size, [bytes(32), *proof[1:]], root)


@pytest.mark.parametrize("size", range(1, 34))
def test_every_consistency_proof_holds_and_holds_for_nothing_else(size: int) -> None:
    leaves = LEAVES[:size]
    root = root_of(leaves)
    for old_size in range(1, size + 1):
        old_root = root_of(leaves[:old_size])
        proof = roots(leaves, consistency_spans(old_size, size))
        assert verify_consistency(old_size, size, old_root, root, proof)
        assert not verify_consistency(old_size, size, leaf_hash(b"other"), root, proof)
        assert not verify_consistency(old_size, size, old_root, leaf_hash(b"other"), proof)
        assert not verify_consistency(old_size, size, old_root, root, [*proof, LEAVES[0]])
        if proof:
            assert not verify_consistency(old_size, size, old_root, root, proof[:-1])
            assert not verify_consistency(old_size, size, old_root, root, [bytes(32), *proof[1:]])


def test_nothing_is_proved_from_an_empty_tree_or_from_numbers_out_of_range() -> None:
    root = root_of(LEAVES)
    assert verify_consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, [])
    assert not verify_consistency(0, 0, root, root, [])
    assert not verify_consistency(0, 33, EMPTY_ROOT, root, [])
    assert not verify_consistency(33, 5, root, root, [])
    assert not verify_consistency(5, 33, b"", b"", [])
    assert not verify_consistency(-1, 33, root, root, [])
    assert not verify_inclusion(LEAVES[0], 0, 0, [], EMPTY_ROOT)
    assert not verify_inclusion(LEAVES[0], -1, 1, [], LEAVES[0])
    assert not verify_inclusion(b"", 0, 1, [], b"")


def test_a_proof_that_goes_on_above_the_root_is_refused() -> None:
    two = LEAVES[:2]
    assert verify_inclusion(two[1], 1, 2, [two[0]], root_of(two))
    assert not verify_inclusion(two[1], 0, 1, [two[0]], root_of(two))
    old, new, above = root_of(LEAVES[:3]), root_of(LEAVES[:4]), LEAVES[5]
    proof = roots(LEAVES, consistency_spans(3, 4))
    assert verify_consistency(3, 4, old, new, proof)
    assert not verify_consistency(3, 4, node_hash(above, old), node_hash(above, new), [*proof, above])


@pytest.mark.parametrize("index", [-1, 33])
def test_no_proof_is_made_for_a_leaf_that_is_not_there(index: int) -> None:
    with pytest.raises(IndexError):
        inclusion_spans(index, 33)


@pytest.mark.parametrize("old_size", [0, 34])
def test_no_proof_is_made_from_a_size_that_never_was(old_size: int) -> None:
    with pytest.raises(IndexError):
        consistency_spans(old_size, 33)
