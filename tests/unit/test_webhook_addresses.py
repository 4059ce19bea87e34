"""A webhook's address must not lead back to this machine, whatever its name says when it is called."""

from __future__ import annotations

import pytest

from gateway.events.calls import may_be_called, outside_address


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/avisos",
        "https://127.8.9.10:8443/avisos",
        "https://localhost/avisos",
        "https://[::1]/avisos",
        "https://[::ffff:127.0.0.1]/avisos",
        "https://0.0.0.0/avisos",
        "https://169.254.169.254/latest/meta-data",
        "https://[fe80::1]/avisos",
        "https://224.0.0.1/avisos",
        "https://no-such-name.invalid/avisos",
    ],
)
async def test_an_address_that_leads_inside_or_nowhere_is_not_called(url: str) -> None:
    assert await outside_address(url) is None


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://192.0.2.7/avisos", "192.0.2.7"),
        ("https://10.1.2.3:8443/avisos", "10.1.2.3"),
        ("https://[2001:db8::7]/avisos", "2001:db8::7"),
    ],
)
async def test_others_are_called_where_they_were_found_private_networks_too(url: str, address: str) -> None:
    assert await outside_address(url) == address


@pytest.mark.parametrize(
    ("url", "local", "may"),
    [
        ("https://mds.example/avisos", False, True),
        ("http://127.0.0.1:8000/avisos", True, True),
        ("http://127.0.0.1:8000/avisos", False, False),
        ("http://mds.example/avisos", True, False),
        ("https://user:word@mds.example/", True, False),
        ("https://mds.example/#part", True, False),
        ("https://mds.example:port/", True, False),
        ("ftp://mds.example/", True, False),
        ("https://mds.example/ avisos", True, False),
        ("https://mds .example/", True, False),
        ("https://señal.example/", True, False),
        ("https://xn--seal-hqa.example/", True, True),
        ("https://mds.example/\n", True, False),
    ],
)
def test_plain_http_is_for_this_machine_in_development_alone(url: str, local: bool, may: bool) -> None:
    assert may_be_called(url, local=local) is may
