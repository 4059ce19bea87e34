"""The log's signing key in its file: made once, private, and nothing else taken for it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from audit.errors import UnsafeKeyFile
from audit.keys import load_or_create_signing_key


def test_a_key_is_made_once_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "log.pem"
    made = load_or_create_signing_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_create_signing_key(path).private_bytes_raw() == made.private_bytes_raw()
    assert [file.name for file in path.parent.iterdir()] == ["log.pem"]


def test_two_that_start_together_end_with_the_same_key(tmp_path: Path) -> None:
    barrier, keys = threading.Barrier(8), []

    def start() -> None:
        barrier.wait()
        keys.append(load_or_create_signing_key(tmp_path / "log.pem").private_bytes_raw())

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_a_file_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.pem"
    load_or_create_signing_key(path)
    path.chmod(0o640)
    with pytest.raises(UnsafeKeyFile, match="0600"):
        load_or_create_signing_key(path)


@pytest.mark.parametrize("content", [b"", b"not a key"])
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.pem"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(UnsafeKeyFile):
        load_or_create_signing_key(path)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.pem"
    path.touch(0o600)
    other = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(UnsafeKeyFile, match="Ed25519"):
        load_or_create_signing_key(path)


def test_the_file_is_plain_pem_that_other_tools_read(tmp_path: Path) -> None:
    path = tmp_path / "log.pem"
    key = load_or_create_signing_key(path)
    assert isinstance(key, Ed25519PrivateKey)
    assert path.read_text().startswith("-----BEGIN PRIVATE KEY-----\n")
