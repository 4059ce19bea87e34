"""Checkpoints and signed notes: the published example verifies, and no other byte does."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.checkpoint import (
    Checkpoint,
    Signer,
    key_id,
    open_checkpoint,
    open_note,
    parse_checkpoint,
    sign_checkpoint,
    sign_note,
)
from audit.errors import InvalidNote

# The example of the Go implementation from which the signed-note format comes (golang.org/x/mod/sumdb/note).
PUBLISHED_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PUBLISHED_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
SIGNER = Signer("siis.example/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
ROOT = bytes(range(32))


def test_the_published_note_verifies_under_the_published_key() -> None:
    name, hexadecimal, encoded = PUBLISHED_KEY.split("+")
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(encoded)[1:])
    assert key_id(name, key).hex() == hexadecimal
    assert open_note(PUBLISHED_NOTE, name, key).endswith("your problem is.\n")


def test_a_checkpoint_is_three_lines_and_a_signature() -> None:
    note = sign_checkpoint(SIGNER, 42, ROOT)
    text, _, signature = note.partition("\n\n")
    assert text == f"siis.example/log\n42\n{base64.b64encode(ROOT).decode()}"
    assert signature.startswith("— siis.example/log ")
    assert open_checkpoint(note, SIGNER.origin, SIGNER.public_key) == Checkpoint("siis.example/log", 42, ROOT)


def test_a_checkpoint_with_any_character_changed_is_refused() -> None:
    note = sign_checkpoint(SIGNER, 42, ROOT)
    for place, character in enumerate(note):
        for other in {"\n", " ", "A", "B", "0", "=", "+", chr(ord(character) ^ 1)} - {character}:
            changed = note[:place] + other + note[place + 1 :]
            with pytest.raises(InvalidNote):
                open_checkpoint(changed, SIGNER.origin, SIGNER.public_key)


def test_a_checkpoint_cut_anywhere_is_refused() -> None:
    note = sign_checkpoint(SIGNER, 42, ROOT)
    for length in range(len(note)):
        with pytest.raises(InvalidNote):
            open_checkpoint(note[:length], SIGNER.origin, SIGNER.public_key)


def test_the_signature_of_another_key_or_log_does_not_count() -> None:
    other = replace(SIGNER, key=Ed25519PrivateKey.generate())
    with pytest.raises(InvalidNote, match="not signed"):
        open_checkpoint(sign_checkpoint(other, 42, ROOT), SIGNER.origin, SIGNER.public_key)
    elsewhere = replace(SIGNER, origin="siis.example/other")
    with pytest.raises(InvalidNote, match="not signed"):
        open_checkpoint(sign_checkpoint(elsewhere, 42, ROOT), SIGNER.origin, SIGNER.public_key)


def test_our_signature_under_the_origin_of_another_log_is_refused() -> None:
    text = f"siis.example/other\n42\n{base64.b64encode(ROOT).decode()}\n"
    with pytest.raises(InvalidNote, match="another log"):
        open_checkpoint(sign_note(text, SIGNER.origin, SIGNER.key), SIGNER.origin, SIGNER.public_key)


def test_signatures_of_strangers_beside_ours_are_ignored() -> None:
    text = f"{SIGNER.origin}\n42\n{base64.b64encode(ROOT).decode()}\n"
    witness = sign_note(text, "witness.example", Ed25519PrivateKey.generate()).rpartition("\n\n")[2]
    both = sign_checkpoint(SIGNER, 42, ROOT) + witness
    assert open_checkpoint(both, SIGNER.origin, SIGNER.public_key).size == 42


def test_one_false_signature_under_our_name_condemns_the_note() -> None:
    note = sign_checkpoint(SIGNER, 42, ROOT)
    false = sign_checkpoint(SIGNER, 43, ROOT).rpartition("\n\n")[2]
    with pytest.raises(InvalidNote, match="does not verify"):
        open_checkpoint(note + false, SIGNER.origin, SIGNER.public_key)


def test_extension_lines_are_read_over() -> None:
    text = f"{SIGNER.origin}\n42\n{base64.b64encode(ROOT).decode()}\nsomething\n"
    assert parse_checkpoint(text) == Checkpoint(SIGNER.origin, 42, ROOT)


@pytest.mark.parametrize("size", ["", "042", "-1", "+1", "4 2", "1e3", "٤٢", "9" * 20])
def test_a_size_that_is_not_a_plain_number_is_refused(size: str) -> None:
    with pytest.raises(InvalidNote):
        parse_checkpoint(f"origin\n{size}\n{base64.b64encode(ROOT).decode()}\n")


@pytest.mark.parametrize("root", ["", "AAAA", "not base64", base64.b64encode(ROOT).decode()[:-1]])
def test_a_root_that_is_not_a_hash_is_refused(root: str) -> None:
    with pytest.raises(InvalidNote):
        parse_checkpoint(f"origin\n42\n{root}\n")


@pytest.mark.parametrize("note", ["x" * 200_000, "a\x00b\n\n— x AAAA\n", "a\ud800\n\n— x AAAA\n"])
def test_what_is_no_note_at_all_is_refused(note: str) -> None:
    with pytest.raises(InvalidNote):
        open_note(note, "x", SIGNER.public_key)


@pytest.mark.parametrize("origin", ["", "two words", "a+b", "line\n"])
def test_an_origin_that_cannot_name_a_key_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="origin"):
        Signer(origin, SIGNER.key)
