"""The door of deploy/nginx/siis.conf, tried with a real nginx: certificates, headers, limits, problems."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from audit.witness import REQUEST_BYTES
from gateway.cli.demo.processes import free_port
from gateway.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "deploy" / "nginx" / "siis.conf"
WITNESS_CONF = ROOT / "deploy" / "witness" / "nginx.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed on this machine")
# What callers have been seen to use for a certificate that a proxy vouches for (RFC 9440 and the usual inventions).
ABOUT_CERTIFICATES = (
    "Client-Cert",
    "Client-Cert-Chain",
    "X-Client-Cert",
    "X-Client-Verify",
    "X-Forwarded-Client-Cert",
    "X-SSL-Cert",
    "X-SSL-Client-Cert",
    "X-SSL-Client-S-DN",
    "X-SSL-Client-Verify",
    "X-ARR-ClientCert",
    # With underscores nginx takes no header at all; some servers behind it read both spellings as one.
    "X_SSL_Client_Cert",
)


ETAG = '"0123456789abcdef"'
# As long as that of a link: 32 bytes in base64.
TOKEN = "c2VjcmV0b3NlY3JldG9zZWNyZXRvc2VjcmV0b3NlY3I"


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def der_of(path: Path) -> bytes:
    """The certificate in a PEM file, as DER."""
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(serialization.Encoding.DER)


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Authority:
    """A certificate authority of its own."""

    def __init__(self, common: str) -> None:
        self.key, self.name = ec.generate_private_key(ec.SECP256R1()), name(common)
        self.certificate = self._sign(self.name, self.key.public_key(), authority=True)

    def issue(self, folder: Path, common: str, *, names: int = 0) -> Path:
        """Write ``common``.pem (its key after it) and ``common``.key; return the former. ``names`` make it long."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name(common), key.public_key(), authority=False, names=names)
        (folder / f"{common}.key").write_bytes(pem(key))
        path = folder / f"{common}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + pem(key))
        return path

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, authority: bool, names: int = 0
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(self.name, subject, key, x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(authority, None), critical=True)
        hosts = ["localhost", *(f"host-{number:03}.example.gov.py" for number in range(names))]
        alternatives = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
        builder = builder.add_extension(alternatives, critical=False)
        return builder.sign(self.key, hashes.SHA256())


class Echo(BaseHTTPRequestHandler):
    """Stands for the gateway: says which headers arrived, and nothing to whoever has it already."""

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        self.rfile.read(length)
        if self.headers.get("If-None-Match") == ETAG:
            self.send_response(304)
            self.send_header("ETag", ETAG)
            self.end_headers()
            return
        body = json.dumps({"path": self.path, "headers": dict(self.headers.items()), "length": length}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "public, max-age=60")
        self.send_header("ETag", ETAG)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@dataclass
class Proxy:
    """A running nginx, and the certificates around it."""

    port: int
    folder: Path
    echo: ThreadingHTTPServer

    def ask(
        self, method: str, path: str, *, client: str | None, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> tuple[int, dict[str, str], dict[str, object]]:
        context = ssl.create_default_context(cafile=str(self.folder / "server-ca.pem"))
        if client is not None:
            context.load_cert_chain(self.folder / f"{client}.pem")
        with closing(http.client.HTTPSConnection("localhost", self.port, context=context, timeout=10)) as connection:
            connection.request(method, path, body=body or None, headers=headers or {})
            answer = connection.getresponse()
            content = answer.read()
            told = {key.lower(): value for key, value in answer.getheaders()}
            return answer.status, told, json.loads(content) if content.startswith(b"{") else {}


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        assert process.poll() is None, "nginx ended at its start"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    pytest.fail("nginx does not listen")


def configuration(shipped: Path, served: str, folder: Path, port: int, upstream: int) -> Path:
    """Write a shipped file for this machine: other ports and folders, nothing else."""
    text = shipped.read_text(encoding="utf-8")
    for old, new in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        (f"server {served};", f"server 127.0.0.1:{upstream};"),
        ("/etc/nginx/tls/", f"{folder}/"),
        ("/dev/stdout", f"{folder}/access.log"),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "siis.conf").write_text(text, encoding="utf-8")
    temporary = "".join(
        f"  {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.getuid() == 0 else ""
    whole = folder / "nginx.conf"
    whole.write_text(
        f"{user}daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\n"
        f"events {{ }}\nhttp {{\n{temporary}  include {folder}/siis.conf;\n}}\n",
        encoding="utf-8",
    )
    return whole


@contextmanager
def running(shipped: Path, served: str, folder: Path) -> Iterator[Proxy]:
    """Run nginx with a shipped file before an :class:`Echo`."""
    assert NGINX is not None
    servers, clients, others = Authority("server-ca"), Authority("clients-ca"), Authority("other-ca")
    servers.issue(folder, "server")
    clients.issue(folder, "large", names=90)
    for authority, common in ((clients, "ministry"), (clients, "platform"), (others, "stranger")):
        authority.issue(folder, common)
    for common, authority in (("server-ca", servers), ("clients-ca", clients)):
        (folder / f"{common}.pem").write_bytes(authority.certificate.public_bytes(serialization.Encoding.PEM))
    echo = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=echo.serve_forever, daemon=True).start()
    port = free_port()
    whole = configuration(shipped, served, folder, port, echo.server_address[1])
    checked = subprocess.run([NGINX, "-t", "-c", whole, "-e", folder / "error.log"], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr.decode()
    process = subprocess.Popen([NGINX, "-c", str(whole), "-e", str(folder / "error.log")])
    try:
        wait_for(port, process)
        yield Proxy(port, folder, echo)
    finally:
        process.terminate()
        process.wait(10)
        echo.shutdown()
        echo.server_close()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with running(CONF, "serve:8080", tmp_path_factory.mktemp("nginx")) as door:
        yield door


@pytest.fixture
def office_door(tmp_path: Path) -> Iterator[Proxy]:
    with running(CONF, "serve:8080", tmp_path) as door:
        yield door


@pytest.fixture
def witness_door(tmp_path: Path) -> Iterator[Proxy]:
    with running(WITNESS_CONF, "witness:8090", tmp_path) as door:
        yield door


@needs_nginx
def test_nginx_accepts_the_file(proxy: Proxy) -> None:
    assert proxy.port


@needs_nginx
@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/disclosures",
        "/oauth2/token",
        "/docs",
        "/",
        "/audit/logs",
        "/audit/log/2026/tile/entries/x001/067",
        "/audit/log/2026/tile/entries/000.p/3",
        "/audit/log/2026/tile/entrie%73/000",
        "/audit/log//2026/tile/entries/000",
        "/audit/log/../../api/v1/audit",
        "/audit/log/%2e%2e/%2e%2e/api/v1/audit",
        "/api/v1/catalogue",
        "/api/v1/catalogue/services/abrazo/revisions",
        "/api/v1/catalogue/services/abrazo%2Frevisions",
        "/api/v1/catalogue/../people",
        "/hsdsx",
        "/hsds/../api/v1/people",
        "/enlace/../api/v1/people",
        "/enlace/%2e%2e/api/v1/people",
    ],
)
def test_a_caller_without_a_certificate_is_refused(proxy: Proxy, path: str) -> None:
    for method in ("GET", "POST"):
        status, headers, problem = proxy.ask(method, path, client=None)
        assert (status, headers["content-type"]) == (403, "application/problem+json")
        assert problem["type"] == "urn:siis:problem:client-certificate"


@needs_nginx
@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/jwks.json",
        "/audit/log/policy",
        "/audit/log/proof/019a0000-0000-7000-8000-000000000000",
        "/audit/log/2026/checkpoint",
        "/audit/log/2026/tile/0/x001/067",
        "/hsds",
        "/hsds/services?page=2",
        "/hsds/services/0190aaaa-0000-7000-8000-000000000000",
        "/api/v1/catalogue/services?on=2026-11-20",
        "/api/v1/catalogue/services/abrazo",
    ],
)
def test_keys_proofs_and_the_catalogue_are_read_by_everybody_and_kept_where_they_were_read(
    proxy: Proxy, path: str
) -> None:
    status, headers, answer = proxy.ask("GET", path, client=None)
    assert (status, answer["path"]) == (200, path)
    assert (headers["cache-control"], headers["etag"]) == ("public, max-age=60", ETAG)
    status, headers, _answer = proxy.ask("GET", path, client=None, headers={"If-None-Match": headers["etag"]})
    assert (status, headers["etag"]) == (304, ETAG)


@needs_nginx
@pytest.mark.parametrize("path", ["/api/v1/catalogue/changes", "/api/v1/catalogue/imports", "/hsds/services"])
def test_changing_the_catalogue_asks_for_a_certificate(proxy: Proxy, path: str) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        status, _headers, problem = proxy.ask(method, path, client=None, body=b"{}")
        assert (status, problem["type"]) == (403, "urn:siis:problem:client-certificate")
    assert proxy.ask("POST", path, client="ministry", body=b"{}")[0] == 200


@needs_nginx
def test_the_page_of_an_office_is_reached_without_a_certificate_and_kept_by_nobody(proxy: Proxy) -> None:
    for method, body in (("GET", b""), ("POST", b"pin=000000")):
        status, headers, answer = proxy.ask(method, f"/enlace/{TOKEN}", client=None, body=body)
        assert (status, answer["path"], answer["length"]) == (200, f"/enlace/{TOKEN}", len(body))
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-robots-tag"] == "noindex, nofollow"
        assert headers["x-content-type-options"] == "nosniff"
        assert "max-age" in headers["strict-transport-security"]
    arrived = {key.lower() for key in dict(answer["headers"])}  # type: ignore[call-overload]
    assert "x-forwarded-for" in arrived
    assert "client-cert" not in arrived


@needs_nginx
def test_who_tries_addresses_or_pins_is_slowed_at_once_and_told_so_as_a_page(office_door: Proxy) -> None:
    answers = [office_door.ask("POST", f"/enlace/{TOKEN}", client=None, body=b"pin=000000") for _ in range(40)]
    refused = [headers for status, headers, _answer in answers if status == 429]
    assert refused
    assert [status for status, _headers, _answer in answers[:20]] == [200] * 20
    assert refused[0]["content-type"] == "text/html; charset=utf-8"
    assert (refused[0]["cache-control"], refused[0]["retry-after"]) == ("no-store", "10")
    # What systems ask has a share of its own.
    assert office_door.ask("GET", "/hsds", client=None)[0] == 200


@needs_nginx
def test_the_address_of_an_office_is_in_no_log_whatever_became_of_the_request(office_door: Proxy) -> None:
    paths = (f"/enlace/{TOKEN}", f"//enlace%2F{TOKEN}", f"/Enlace/{TOKEN}", f"/enlace/{TOKEN}/", f"/enlace/{TOKEN}?a=b")
    for path in paths:
        office_door.ask("GET", path, client=None)
    assert office_door.ask("GET", f"/enlace/{TOKEN}", client="stranger")[0] == 400
    assert office_door.ask("POST", f"/enlace/{TOKEN}", client=None, body=b"x" * (16 * 1024 + 1))[0] == 413
    answers = [office_door.ask("GET", f"/enlace/{TOKEN}", client=None)[0] for _ in range(40)]
    assert 429 in answers
    office_door.echo.shutdown()
    office_door.echo.server_close()
    status, headers, _answer = office_door.ask("GET", f"/enlace/{TOKEN}", client="ministry")
    while status == 429:
        status, headers, _answer = office_door.ask("GET", f"/enlace/{TOKEN}", client="ministry")
    assert (status, headers["content-type"]) == (503, "text/html; charset=utf-8")
    status, headers, problem = office_door.ask("GET", "/enlace/../api/v1/enlace", client="ministry")
    assert (status, problem["status"], headers["retry-after"]) == (503, 503, "5")
    deadline, text = time.monotonic() + 10, ""
    while '"status":503' not in text and time.monotonic() < deadline:
        text = (office_door.folder / "access.log").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert {200, 400, 403, 413, 429, 503} <= {line["status"] for line in lines}
    assert {line["path"] for line in lines} == {"/enlace/"}
    assert TOKEN not in text + (office_door.folder / "error.log").read_text(encoding="utf-8")


@needs_nginx
def test_auditors_reach_the_entries_of_the_log(proxy: Proxy) -> None:
    path = "/audit/log/2026/tile/entries/x001/067"
    status, _headers, answer = proxy.ask("GET", path, client="ministry")
    assert (status, answer["path"]) == (200, path)


@needs_nginx
def test_a_certificate_of_another_authority_is_refused(proxy: Proxy) -> None:
    status, _headers, answer = proxy.ask("POST", "/api/v1/disclosures", client="stranger", body=b"{}")
    assert status == 400
    assert answer == {}


@needs_nginx
def test_what_a_caller_says_about_certificates_does_not_get_in_and_the_rest_does(proxy: Proxy) -> None:
    forged = dict.fromkeys(ABOUT_CERTIFICATES, "CN=ministry")
    sent = {
        **forged,
        "Authorization": "Bearer x",
        "X-SIIS-Operator": "y",
        "Idempotency-Key": "z",
        "X-Real-IP": "10.0.0.1",
        "X-Forwarded-For": "10.0.0.1",
    }
    status, _headers, answer = proxy.ask("POST", "/api/v1/referrals", client="ministry", headers=sent, body=b"{}")
    assert status == 200
    arrived = {key.lower().replace("_", "-"): value for key, value in dict(answer["headers"]).items()}  # type: ignore[call-overload]
    believed = {"client-cert"}
    assert {header.lower().replace("_", "-") for header in ABOUT_CERTIFICATES} & arrived.keys() == believed
    assert arrived["client-cert"] == f":{b64encode(der_of(proxy.folder / 'ministry.pem')).decode()}:"
    assert arrived["x-forwarded-for"] == "127.0.0.1"
    assert "x-real-ip" not in arrived
    assert arrived["authorization"] == "Bearer x"
    assert arrived["x-siis-operator"] == "y"
    assert arrived["idempotency-key"] == "z"


@needs_nginx
def test_without_a_certificate_nothing_is_said_of_one(proxy: Proxy) -> None:
    sent = dict.fromkeys(ABOUT_CERTIFICATES, "CN=ministry")
    _status, _headers, answer = proxy.ask("GET", "/.well-known/jwks.json", client=None, headers=sent)
    assert not {key.lower() for key in dict(answer["headers"])} & {header.lower() for header in ABOUT_CERTIFICATES}  # type: ignore[call-overload]


@needs_nginx
def test_a_certificate_of_three_kilobytes_gets_through_whole(proxy: Proxy) -> None:
    _status, _headers, answer = proxy.ask("POST", "/api/v1/referrals", client="large", body=b"{}")
    expected = f":{b64encode(der_of(proxy.folder / 'large.pem')).decode()}:"
    assert len(expected) > 3000
    assert dict(answer["headers"])["Client-Cert"] == expected  # type: ignore[call-overload]


@needs_nginx
def test_health_and_metrics_are_not_shown_outside(proxy: Proxy) -> None:
    for path in ("/health/live", "/health/ready", "/metrics"):
        assert proxy.ask("GET", path, client="ministry")[0] == 404


@needs_nginx
def test_a_body_over_the_limit_of_the_gateway_is_refused_as_a_problem(proxy: Proxy) -> None:
    limit = Settings.model_fields["max_body_bytes"].default
    status, _headers, answer = proxy.ask("POST", "/api/v1/referrals", client="ministry", body=b"x" * limit)
    assert (status, answer["length"]) == (200, limit)
    status, _headers, problem = proxy.ask("POST", "/api/v1/referrals", client="ministry", body=b"x" * (limit + 1))
    assert (status, problem["type"]) == (413, "urn:siis:problem:too-large")


@needs_nginx
def test_a_caller_that_asks_for_tokens_without_end_is_slowed_and_the_others_are_not(proxy: Proxy) -> None:
    answers = [proxy.ask("POST", "/oauth2/token", client="ministry", body=b"x") for _ in range(40)]
    refused = [(headers, problem) for status, headers, problem in answers if status == 429]
    assert refused
    headers, problem = refused[0]
    assert problem["type"] == "urn:siis:problem:too-many-requests"
    assert headers["retry-after"] == "1"
    assert proxy.ask("POST", "/oauth2/token", client="platform", body=b"x")[0] == 200


@needs_nginx
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_is_refused(proxy: Proxy, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=str(proxy.folder / "server-ca.pem"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as plain,
        pytest.raises(ssl.SSLError, match=r"(?i)protocol|version|alert"),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


@needs_nginx
def test_the_access_log_has_no_header_and_no_query(proxy: Proxy) -> None:
    proxy.ask(
        "GET", "/api/v1/referrals/1?cedula=1234567", client="ministry", headers={"Authorization": "Bearer secret"}
    )
    # The line is written after the answer has left.
    deadline, text = time.monotonic() + 10, ""
    while "/api/v1/referrals/1" not in text and time.monotonic() < deadline:
        text = (proxy.folder / "access.log").read_text(encoding="utf-8")
    assert "/api/v1/referrals/1" in text
    assert "1234567" not in text
    assert "secret" not in text
    assert all(json.loads(line)["status"] for line in text.splitlines())


@needs_nginx
def test_the_door_of_a_witness_has_one_route_and_its_limits(witness_door: Proxy) -> None:
    body = b"x" * REQUEST_BYTES
    status, _headers, answer = witness_door.ask("POST", "/add-checkpoint", client=None, body=body)
    assert (status, answer["length"]) == (200, len(body))
    assert witness_door.ask("POST", "/add-checkpoint", client=None, body=body + b"x")[0] == 413
    for path in ("/", "/metrics", "/add-checkpoint/x"):
        assert witness_door.ask("POST", path, client=None, body=b"x")[0] == 404
    answers = [witness_door.ask("POST", "/add-checkpoint", client=None, body=b"x")[0] for _ in range(40)]
    assert {200, 429} == set(answers)


@pytest.mark.parametrize("conf", [CONF, WITNESS_CONF], ids=lambda conf: conf.parent.name)
def test_whatever_is_passed_on_has_a_rate(conf: Path) -> None:
    locations = re.findall(r"^  location (.+?) \{\n(.*?)^  \}", conf.read_text(encoding="utf-8"), re.M | re.S)
    passed = {where: "limit_req " in block for where, block in locations if "proxy_pass" in block}
    assert passed
    assert all(passed.values()), passed


def test_the_limit_of_the_proxy_is_that_of_the_gateway() -> None:
    found = re.search(r"client_max_body_size (\d+)k;", CONF.read_text(encoding="utf-8"))
    assert found
    assert int(found[1]) * 1024 == Settings.model_fields["max_body_bytes"].default


def test_the_proxy_waits_longer_than_all_sources_of_a_dataset_may_take() -> None:
    budgets: dict[str, float] = {}
    for path in (ROOT / "adapters" / "manifests").glob("*.yaml"):
        manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
        for dataset in manifest.get("datasets", ()):
            # One after the other is asked, while each stays silent.
            budgets[dataset] = budgets.get(dataset, 0) + manifest["limits"]["budget_s"]
    found = re.search(r"proxy_read_timeout (\d+)s;", CONF.read_text(encoding="utf-8"))
    assert found
    assert int(found[1]) > 2 * max(budgets.values())
