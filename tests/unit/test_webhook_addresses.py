"""A webhook's address must not lead back to this machine, whatever its name says when it is called."""

from __future__ import annotations

import pytest

from gateway.standards.govstack.webhooks import _leads_inside


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
    assert await _leads_inside(url)


@pytest.mark.parametrize(
    "url",
    ["https://192.0.2.7/avisos", "https://10.1.2.3:8443/avisos", "https://[2001:db8::7]/avisos", "http://127.0.0.1/"],
)
async def test_others_are_called_private_networks_too_and_plain_http_here_in_development(url: str) -> None:
    assert not await _leads_inside(url)
