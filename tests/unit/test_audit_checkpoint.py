"""What the log signs, and that one key of its own opens it: no other byte, key or origin does."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import Signer, sign_checkpoint, sign_note
from audit.verify import Checkpoint, NotValid, open_signed

SIGNER = Signer("siis.example/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
ROOT = bytes(range(32))


def test_a_checkpoint_is_three_lines_and_a_signature() -> None:
    note = sign_checkpoint(SIGNER, 42, ROOT)
    text, _, signature = note.partition("\n\n")
    assert text == f"siis.example/log\n42\n{base64.b64encode(ROOT).decode()}"
    assert signature.startswith("— siis.example/log ")
    assert open_signed(note, SIGNER.verifier) == Checkpoint("siis.example/log", 42, ROOT)


def test_a_checkpoint_with_any_character_changed_is_refused() -> None:
    note = sign_checkpoint(SIGNER, 42, ROOT)
    for place, character in enumerate(note):
        for other in {"\n", " ", "A", "B", "0", "=", "+", chr(ord(character) ^ 1)} - {character}:
            changed = note[:place] + other + note[place + 1 :]
            with pytest.raises(NotValid):
                open_signed(changed, SIGNER.verifier)


def test_a_checkpoint_cut_anywhere_is_refused() -> None:
    note = sign_checkpoint(SIGNER, 42, ROOT)
    for length in range(len(note)):
        with pytest.raises(NotValid):
            open_signed(note[:length], SIGNER.verifier)


def test_the_signature_of_another_key_or_log_does_not_count() -> None:
    other = replace(SIGNER, key=Ed25519PrivateKey.generate())
    with pytest.raises(NotValid, match="signature"):
        open_signed(sign_checkpoint(other, 42, ROOT), SIGNER.verifier)
    with pytest.raises(NotValid, match="foreign"):
        open_signed(sign_checkpoint(SIGNER.of(2026), 42, ROOT), SIGNER.verifier)


def test_our_signature_under_the_origin_of_another_log_is_refused() -> None:
    text = f"siis.example/other\n42\n{base64.b64encode(ROOT).decode()}\n"
    with pytest.raises(NotValid, match="foreign"):
        open_signed(sign_note(text, SIGNER.origin, SIGNER.key), SIGNER.verifier)


@pytest.mark.parametrize("origin", ["", "two words", "a+b", "line\n"])
def test_an_origin_that_cannot_name_a_key_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="origin"):
        Signer(origin, SIGNER.key)
