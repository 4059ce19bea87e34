"""What deploy/ says of the program is true: commands, settings, routes, metrics; and it holds no secret."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast

import pytest
import typer
import yaml
from prometheus_client import REGISTRY

import gateway.api.app  # noqa: F401 - registers the metrics that serve shows
from adapters.connections import read_connections
from adapters.models import AlreadyTaken, Taken
from adapters.registry import schemes_of
from gateway.api import health
from gateway.cli.app import app
from gateway.database import Database
from gateway.registry.mass import MEMORY_MIB
from gateway.settings import Settings
from gateway.witnesses.asking import CONTRADICTIONS

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
IMAGE = "siis-gateway"
TEXTS = sorted(path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix not in (".pyc", ".py"))
# Made by whoever deploys, and never committed.
TEXTS = [path for path in TEXTS if not {"secrets", "tls"} & set(path.relative_to(DEPLOY).parts)]
# What the metrics of delivery, deadlines and events begin with.
LOOP = ("siis_delivery_", "siis_referrals_", "siis_subscription")
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


def compose(of: str = "compose.yaml") -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / of).read_text(encoding="utf-8"))
    return document


def objects(kind: str) -> list[dict[str, Any]]:
    found = [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))]
    return [document for document in found if document["kind"] == kind]


def pods() -> dict[str, dict[str, Any]]:
    owners = [*objects("StatefulSet"), *objects("Job")]
    return {owner["metadata"]["name"]: owner["spec"]["template"]["spec"] for owner in owners}


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for target in targets())


def targets() -> Iterator[dict[str, Any]]:
    for path in sorted((DEPLOY / "grafana").glob("*.json")):
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        yield from (target for panel in dashboard["panels"] for target in panel["targets"])


def metrics_of(expression: str) -> set[str]:
    return set(re.findall(r"(?<![\w\"])(?:up|siis_\w+|process_\w+|python_\w+)", expression))


def test_every_file_of_data_can_be_read() -> None:
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".yaml":
            assert list(yaml.safe_load_all(text)), path
        elif path.suffix == ".json":
            json.loads(text)


def test_compose_has_the_parts_of_the_gateway_in_their_order() -> None:
    services = compose()["services"]
    assert set(services) == {"database", "migrate", "serve", "worker", "proxy"}
    assert services["database"]["image"] == "postgres:16"
    for name in ("serve", "worker"):
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert services["migrate"]["depends_on"]["database"]["condition"] == "service_healthy"
    assert services["migrate"]["restart"] == "no"


def test_compose_of_a_witness_has_its_parts() -> None:
    services = compose("witness/compose.yaml")["services"]
    assert set(services) == {"database", "witness", "proxy"}
    ours = compose()["services"]
    for part in ("image", "environment", "healthcheck", "secrets"):
        assert services["database"][part] == ours["database"][part]
    assert services["witness"]["image"] == ours["serve"]["image"]
    assert services["witness"]["depends_on"]["database"]["condition"] == "service_healthy"
    assert services["proxy"]["image"] == ours["proxy"]["image"]


@pytest.mark.parametrize("of", ["compose.yaml", "witness/compose.yaml"])
def test_only_the_proxy_is_reached_from_outside_and_the_database_reaches_nothing(of: str) -> None:
    parts = compose(of)
    assert [name for name, service in parts["services"].items() if "ports" in service] == ["proxy"]
    assert parts["services"]["database"]["networks"] == ["data"]
    assert parts["networks"]["data"]["internal"] is True
    assert "data" not in parts["services"]["proxy"]["networks"]


@pytest.mark.parametrize(
    ("of", "name"),
    [*(("compose.yaml", name) for name in ("migrate", "serve", "worker")), ("witness/compose.yaml", "witness")],
)
def test_containers_of_compose_cannot_write_their_image_nor_gain_rights(of: str, name: str) -> None:
    service = compose(of)["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]


def test_only_migrations_are_given_the_owners_secrets() -> None:
    services = compose()["services"]
    folders = {name: services[name]["volumes"][0].split(":")[0] for name in ("migrate", "serve", "worker")}
    assert folders == {"migrate": "./secrets/migrate", "serve": "./secrets/gateway", "worker": "./secrets/gateway"}
    for name, pod in pods().items():
        named = "siis-database-owner" in json.dumps(pod)
        assert named == (name == "siis-migrate"), name


def test_every_command_of_the_image_is_a_command_of_the_program() -> None:
    services = [*compose()["services"].values(), *compose("witness/compose.yaml")["services"].values()]
    given = [service["command"] for service in services if IMAGE in service["image"]]
    given += [
        container["args"] for pod in pods().values() for container in pod["containers"] if container["image"] == IMAGE
    ]
    assert sorted(map(tuple, given)) == sorted(
        [("db", "upgrade"), ("serve",), ("worker",)] * 2 + [("witness", "serve")]
    )
    for words in given:
        command = typer.main.get_command(app)
        for word in words:
            command = cast(Any, command).get_command(None, word)
            assert command is not None


def test_the_image_holds_every_package_and_installs_by_hash_without_root() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    for package in ("gateway", "adapters", "schemas", "consent", "audit"):
        assert f"COPY {package} /app/{package}" in text
        assert f"!{package}" in (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert "--require-hashes -r pyproject.toml -c requirements.txt" in text
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert '"python", "-m", "gateway.cli"' in text
    assert all(line.split()[1] == "python:3.11-slim" for line in text.splitlines() if line.startswith("FROM"))


def test_every_setting_named_exists() -> None:
    known = {f"SIIS_{name.upper()}" for name in Settings.model_fields}
    for path in TEXTS:
        text = "\n".join(line.split("#")[0] for line in path.read_text(encoding="utf-8").splitlines())
        named = set(re.findall(r"\bSIIS_[A-Z0-9_]+\b", text))
        assert named <= known, f"{path.name}: {named - known}"


def test_settings_given_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    [given] = [each["data"] for each in objects("ConfigMap") if each["metadata"]["name"] == "siis-settings"]
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert str(settings.secrets_dir) == "/run/siis"
    assert settings.issuer.startswith("https://")


def test_probes_ask_routes_that_exist_on_the_port_served() -> None:
    routes = {getattr(route, "path", "") for route in health.build_router(cast(Database, None)).routes}
    [serve] = pods()["siis-serve"]["containers"]
    probes = {name: serve[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe["path"] for probe in probes.values()} == {"/health/live", "/health/ready"} <= routes
    assert probes["readinessProbe"]["path"] == "/health/ready"
    assert probes["livenessProbe"]["path"] == "/health/live"
    port = {"name": "http", "containerPort": 8080}
    assert port in serve["ports"]
    assert {probe["port"] for probe in probes.values()} == {"http"}
    assert {"name": "SIIS_PORT", "value": str(port["containerPort"])} in serve["env"]
    test = " ".join(compose()["services"]["serve"]["healthcheck"]["test"])
    assert "127.0.0.1:8080/health/ready" in test


@pytest.mark.parametrize("name", ["siis-serve", "siis-worker", "siis-migrate"])
def test_pods_run_without_rights_and_without_variables_of_services(name: str) -> None:
    pod = pods()[name]
    # A Service called siis-serve would set SIIS_SERVE_PORT, and a setting that does not exist stops the start.
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_the_base_lists_its_files_and_selectors_meet_their_pods() -> None:
    [base] = objects("Kustomization")
    assert sorted(base["resources"]) == [path.name for path in MANIFESTS if path.name != "kustomization.yaml"]
    sets = {each["metadata"]["name"]: each["spec"] for each in objects("StatefulSet")}
    labels = {name: spec["template"]["metadata"]["labels"] for name, spec in sets.items()}
    assert {name: spec["replicas"] for name, spec in sets.items()} == {"siis-serve": 2, "siis-worker": 2}
    for name, spec in sets.items():
        assert spec["serviceName"] == name
        assert spec["selector"]["matchLabels"].items() <= labels[name].items()
    for budget in objects("PodDisruptionBudget"):
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels[budget["metadata"]["name"]].items()
    [service] = objects("Service")
    assert service["spec"]["selector"].items() <= labels["siis-serve"].items()
    assert len(objects("NetworkPolicy")) == 5


def test_webhooks_leave_workers_by_https_only_and_never_to_the_clusters_machines() -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in objects("NetworkPolicy")}
    policy = policies["siis-webhooks"]
    assert policy["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "siis-worker"}}
    [way] = policy["egress"]
    assert way["ports"] == [{"protocol": "TCP", "port": 443}]
    refused = {ip_network(each) for peer in way["to"] for each in peer["ipBlock"]["except"]}
    assert all(each.is_link_local or each.is_loopback for each in refused)
    assert ip_network("169.254.0.0/16") in refused
    # And nothing else of the gateway goes out to everywhere but the database, names and the institutions' systems.
    ports = {
        name: {port["port"] for way in spec.get("egress", ()) for port in way["ports"]}
        for name, spec in policies.items()
    }
    assert {name: found for name, found in ports.items() if found} == {
        "siis-gateway": {53, 5432},
        "siis-producers": {443, 22},
        "siis-webhooks": {443},
    }


def test_a_worker_has_the_memory_and_the_room_that_computing_everybody_may_take() -> None:
    [worker] = [each for each in objects("StatefulSet") if each["metadata"]["name"] == "siis-worker"]
    [container] = worker["spec"]["template"]["spec"]["containers"]
    limit = container["resources"]["limits"]["memory"]
    assert limit.endswith("Gi")
    assert int(limit[:-2]) * 1024 >= MEMORY_MIB + 1024
    [claim] = worker["spec"]["volumeClaimTemplates"]
    assert int(claim["spec"]["resources"]["requests"]["storage"][:-2]) >= 10


def test_volumes_mounted_are_declared() -> None:
    claimed = {each["metadata"]["name"]: claims(each) for each in objects("StatefulSet")}
    for name, pod in pods().items():
        declared = {volume["name"] for volume in pod["volumes"]} | claimed.get(name, set())
        mounted = {
            mount["name"]
            for container in [*pod.get("initContainers", []), *pod["containers"]]
            for mount in container["volumeMounts"]
        }
        assert declared == mounted, name


def claims(owner: dict[str, Any]) -> set[str]:
    return {claim["metadata"]["name"] for claim in owner["spec"]["volumeClaimTemplates"]}


def test_what_was_signed_last_is_on_a_volume_of_its_own_that_outlives_the_process() -> None:
    signers = ("serve", "worker")
    parts = compose()
    volumes = []
    for name in signers:
        folder = parts["services"][name]["environment"]["SIIS_DATA_DIR"]
        volumes += [each.split(":")[0] for each in parts["services"][name]["volumes"] if each.endswith(f":{folder}")]
    assert volumes == list(signers)
    assert parts["volumes"].keys() >= set(volumes)
    # A new volume has the owner and mode of the folder in the image: nobody but the process reads it.
    assert f"install -d -m 0700 -o 10001 -g 10001 {folder}\n" in (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    [settings] = [each["data"] for each in objects("ConfigMap") if each["metadata"]["name"] == "siis-settings"]
    for owner in objects("StatefulSet"):
        pod = owner["spec"]["template"]["spec"]
        [main] = pod["containers"]
        [mounted] = [each for each in main["volumeMounts"] if each["mountPath"] == settings["SIIS_DATA_DIR"]]
        assert mounted["name"] in claims(owner)
        assert not mounted.get("readOnly", False)
        assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


def test_exports_of_a_pod_end_with_it() -> None:
    pod = pods()["siis-serve"]
    mounts = {each["mountPath"]: each["name"] for each in pod["containers"][0]["volumeMounts"]}
    [volume] = [each for each in pod["volumes"] if each["name"] == mounts["/var/lib/siis/exports"]]
    assert volume.keys() == {"name", "emptyDir"}
    assert "medium" not in volume["emptyDir"]


def test_prometheus_reaches_the_worker_which_may_be_the_one_that_asks_the_witnesses() -> None:
    [worker] = pods()["siis-worker"]["containers"]
    [port] = worker["ports"]
    assert {"name": "SIIS_WORKER_METRICS_PORT", "value": str(port["containerPort"])} in worker["env"]
    assert {each["name"]: each.get("value") for each in worker["env"]}["SIIS_HOST"].startswith("0.")
    [policy] = [each["spec"] for each in objects("NetworkPolicy") if each["metadata"]["name"] == "siis-worker"]
    assert policy["ingress"][0]["ports"] == [{"protocol": "TCP", "port": port["name"]}]


def test_no_file_holds_a_secret_or_names_where_packages_come_from() -> None:
    assert objects("Secret") == []
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"BEGIN [A-Z ]*PRIVATE KEY", text), path
        assert not re.search(r"://[^/\s:$]+:[^@\s$/]+@", text), path
        assert not re.search(r"(?i)password\s*[:=]\s*['\"]?[a-z0-9]{6,}", text), path
        hosts = set(re.findall(r"https?://([a-z0-9.-]+\.[a-z]{2,})", text))
        assert all(host.endswith("example.org") for host in hosts), f"{path.name}: {hosts}"


def test_connections_shipped_connect_nobody_and_can_be_read() -> None:
    assert read_connections(DEPLOY / "connections.yaml", [], schemes_of) == {}


def test_alerts_and_dashboard_use_metrics_that_serve_shows() -> None:
    shown = {"up"}
    for metric in REGISTRY.collect():
        shown |= {metric.name, f"{metric.name}_total"} if metric.type == "counter" else {metric.name}
    used = {name for text in expressions() for name in metrics_of(text)}
    assert used <= shown, used - shown
    assert {"siis_refused_requests_total", "siis_delivery_dead", "siis_subscriptions_disabled"} <= used


def test_labels_asked_for_are_labels_of_the_metrics_asked() -> None:
    # What a metric without samples shows names no label.
    labels = {
        name: set(getattr(collector, "_labelnames", ()))
        for collector, names in REGISTRY._collector_to_names.items()
        for name in names
    }
    for text in expressions():
        asked = {name for each in re.findall(r"by \(([^)]*)\)", text) for name in each.split(", ")}
        asked |= {name for each in re.findall(r"\{([^}]*)\}", text) for name in re.findall(r"(\w+)[!=~]+\"", each)}
        known = set.union({"job", "instance"}, *(labels.get(name, set()) for name in metrics_of(text)))
        assert asked <= known, text
    shown = [(rule["annotations"]["summary"], rule["expr"], r"\$labels\.(\w+)") for rule in rules()]
    shown += [(target["legendFormat"], target["expr"], r"\{\{(\w+)\}\}") for target in targets()]
    for told, expression, pattern in shown:
        grouped = {name for each in re.findall(r"by \(([^)]*)\)", expression) for name in each.split(", ")}
        assert set(re.findall(pattern, told)) <= (grouped or {"job", "instance"}), told


def test_an_attempt_that_transmitted_is_called_as_the_program_calls_it() -> None:
    [asked] = {
        value
        for text in expressions()
        for value in re.findall(r'siis_delivery_attempts_total\{outcome=~"([^"]+)"', text)
    }
    assert set(asked.split("|")) == {Taken.__name__, AlreadyTaken.__name__}


def test_whatever_waits_for_others_has_an_alert_of_its_own() -> None:
    watched = {name for rule in rules() for name in metrics_of(rule["expr"])}
    loop = {name for names in REGISTRY._collector_to_names.values() for name in names if name.startswith(LOOP)}
    # How much waits is no trouble by itself: how long it has waited is.
    assert {name for name in loop - watched if "seconds" in name or "dead" in name or "disabled" in name} == set()
    assert {"siis_delivery_paused", "siis_delivery_silent", "siis_referrals_overdue"} <= watched
    assert "siis_audit_log_broken_total" in watched


def test_a_worker_is_missed_by_what_only_workers_show() -> None:
    [rule] = [rule for rule in rules() if rule["alert"] == "SiisNoWorker"]
    [name] = metrics_of(rule["expr"])
    # A gauge with labels has no sample before somebody sets it, and nobody but couriers does.
    [labels] = [each._labelnames for each, names in REGISTRY._collector_to_names.items() if name in names]  # type: ignore[attr-defined]
    assert labels
    setters = [path for path in (ROOT / "gateway").rglob("*.py") if "refresh_metrics(" in path.read_text("utf-8")]
    assert {path.name for path in setters} == {"status.py", "courier.py"}


def test_alerts_ask_for_reasons_the_program_gives() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "gateway").rglob("*.py"))
    reasons = {
        reason
        for text in expressions()
        for value in re.findall(r'reason[!=~]+"([^"]+)"', text)
        for reason in value.split("|")
    }
    assert reasons == {"unavailable", "bad-request"}
    assert all(f'"{reason}"' in source for reason in reasons)


def test_the_alert_on_contradictions_asks_for_all_of_them() -> None:
    texts = [text for text in expressions() if "siis_witness_answers_total" in text]
    [asked] = {value for text in texts for value in re.findall(r'outcome=~"([^"]+)"', text)}
    assert set(asked.split("|")) == CONTRADICTIONS


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "action"}
