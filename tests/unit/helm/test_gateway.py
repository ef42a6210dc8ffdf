"""What the chart renders for the REST gateway."""

import re
from pathlib import Path

import pytest
import yaml

from rfuav_crds.contract import GROUP, PLURALS
from rfuav_gateway import app
from rfuav_gateway.serving.server import LAST_ANSWERS
from rfuav_gateway.settings import Settings, load
from rfuav_gateway.tasks.priorities import class_name, value

pytestmark = pytest.mark.contract

NAME = "rfuav-gateway"
ON = ("--set", "gateway.enabled=true")
COMPAT = (*ON, "--set", "gateway.settings.compat.enabled=true,gateway.settings.compat.namespace=drones")
PROXY = (*ON, "--set", "gateway.settings.proxy.addresses={10.0.0.7}")


@pytest.fixture(scope="session")
def enabled(render):
    return render(*ON)


def pod(objects):
    return objects["Deployment", NAME]["spec"]["template"]


def container(objects):
    (one,) = pod(objects)["spec"]["containers"]
    return one


def settings(objects, tmp_path: Path) -> Settings:
    file = tmp_path / "settings.yaml"
    file.write_text(objects["ConfigMap", NAME]["data"]["settings.yaml"])
    return load(file, env={})


def granted(role):
    """Verbs by resource, as the table in the gateway's app.py names it; and names where it has some."""
    found = {}
    for rule in role["rules"]:
        for url in rule.get("nonResourceURLs", ()):
            found[url] = set(rule["verbs"])
        for group in rule.get("apiGroups", ()):
            for resource in rule["resources"]:
                own = group == GROUP or not group
                found.setdefault(resource if own else f"{resource}.{group}", set()).update(rule["verbs"])
                assert (resource.partition("/")[0] in PLURALS.values()) == (group == GROUP)
    return found


def documented():
    """The table: for every gateway (""), and for those with a face of their own (the text before the colon)."""
    found = {}
    for resources, verbs, _ in re.findall(r"^\| (.*) \| (.*) \| (.*) \|$", app.__doc__, flags=re.MULTILINE)[1:]:
        face, _, named = resources.rpartition(": ")
        for resource in named.split(", "):
            found.setdefault(face, {})[resource] = set(verbs.split(", "))
    return found


def test_nothing_of_it_is_there_unless_enabled(default):
    assert not [key for key in default if NAME in key[1] or key[1].endswith("-p1")]


def test_enabled_it_adds_its_own_objects_and_changes_none(default, enabled):
    assert all(enabled[key] == one for key, one in default.items())
    added = {kind for kind, _ in set(enabled) - set(default)}
    assert added == {
        *("Deployment", "ConfigMap", "Service", "ServiceAccount", "ClusterRole", "ClusterRoleBinding"),
        "PriorityClass",
    }


def test_the_gateway_reads_the_settings_that_the_chart_writes(enabled, tmp_path):
    found = settings(enabled, tmp_path)
    image = enabled["ConfigMap", "rfuav-operator"]["data"]["settings.yaml"]
    assert found == Settings(trainer_image=yaml.safe_load(image)["jobs"]["image"])
    assert found.trainer_image
    assert {p["name"]: p["containerPort"] for p in container(enabled)["ports"]} == {
        "http": found.port,
        "health": found.health_port,
    }
    (port,) = enabled["Service", NAME]["spec"]["ports"]
    assert (port["name"], port["targetPort"]) == ("http", "http")
    assert pod(enabled)["spec"]["terminationGracePeriodSeconds"] >= found.drain_seconds + LAST_ANSWERS + 5


def test_settings_of_the_user_reach_the_gateway(render, tmp_path):
    objects = render(
        *COMPAT,
        *("--set", "gateway.settings.roots[0].path=/data,gateway.settings.roots[0].uri=pvc://captures"),
        *("--set", "gateway.settings.language=zh,gateway.settings.drainSeconds=30,gateway.settings.resources.cpu=2"),
        *("--set", "gateway.settings.limits.creates=20/minute"),
    )
    found = settings(objects, tmp_path)
    assert [(root.path, root.uri) for root in found.roots] == [("/data", "pvc://captures")]
    assert (found.compat.enabled, found.compat.namespace, found.language) == (True, "drones", "zh")
    assert (found.resources, found.limits.creates) == ({"cpu": 2}, "20/minute")
    assert pod(objects)["spec"]["terminationGracePeriodSeconds"] == 50


def test_new_settings_restart_it_and_the_operators_do_not(enabled, render):
    def checksum(objects):
        return pod(objects)["metadata"]["annotations"]["rfuav.io/settings-checksum"]

    assert checksum(enabled) != checksum(render(*ON, "--set", "gateway.settings.logLevel=debug"))
    assert checksum(enabled) == checksum(render(*ON, "--set", "settings.logLevel=debug,gateway.replicas=3"))


def test_it_runs_the_gateway_of_the_operators_image_restricted_and_read_only(enabled):
    own = container(enabled)
    assert own["image"] == enabled["Deployment", "rfuav-operator"]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert own["command"] == ["rfuav-gateway", "run"]
    assert pod(enabled)["spec"]["securityContext"]["runAsNonRoot"]
    assert pod(enabled)["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    probes = {name: own[f"{name}Probe"]["httpGet"] for name in ("liveness", "readiness", "startup")}
    assert {one["port"] for one in probes.values()} == {"health"}
    assert {"limits", "requests"} <= set(own["resources"])


def test_where_the_cluster_assigns_users_it_names_none(render, tmp_path):
    objects = render(*ON, "--set", "settings.jobs.clusterAssignsUsers=true,gateway.tlsSecret=rest")
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(pod(objects)["spec"]["securityContext"])
    assert settings(objects, tmp_path).cluster_assigns_users  # for the pods that it makes


def test_its_pods_are_not_taken_for_the_operators(enabled):
    labels = pod(enabled)["metadata"]["labels"]
    for selector in (
        enabled["Deployment", "rfuav-operator"]["spec"]["selector"]["matchLabels"],
        enabled["Service", "rfuav-operator-progress"]["spec"]["selector"],
    ):
        assert not selector.items() <= labels.items()
    for selector in (
        enabled["Deployment", NAME]["spec"]["selector"]["matchLabels"],
        enabled["Service", NAME]["spec"]["selector"],
        pod(enabled)["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
        assert (
            not selector.items()
            <= enabled["Deployment", "rfuav-operator"]["spec"]["template"]["metadata"]["labels"].items()
        )


def test_several_replicas_have_a_disruption_budget(enabled, render):
    assert ("PodDisruptionBudget", NAME) not in enabled
    several = render(*ON, "--set", "gateway.replicas=3")
    assert several["Deployment", NAME]["spec"]["replicas"] == 3
    budget = several["PodDisruptionBudget", NAME]["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"].items() <= pod(several)["metadata"]["labels"].items()


def test_it_has_exactly_the_rights_of_its_table(enabled, render):
    table = documented()
    assert set(table) == {
        *("", "compat, in its namespace", "proxy.addresses"),
        *("callbacks.secretFile, in its own namespace", "compat.changeLimits, of its pool alone"),
    }
    assert granted(enabled["ClusterRole", NAME]) == table[""]
    assert not [key for key in enabled if key[0] in ("Role", "RoleBinding") and key[1] == NAME]

    open_limits = render(*COMPAT, "--set", "gateway.settings.compat.changeLimits=true,gateway.settings.pool=p")
    rule = next(r for r in open_limits["ClusterRole", NAME]["rules"] if "resourceNames" in r)
    assert granted({"rules": [rule]}) == table["compat.changeLimits, of its pool alone"]
    assert rule["resourceNames"] == ["p"]
    compat = render(*COMPAT)
    assert granted(compat["ClusterRole", NAME]) == table[""]
    assert granted(compat["Role", NAME]) == table["compat, in its namespace"]
    for kind in ("Role", "RoleBinding"):
        assert compat[kind, NAME]["metadata"]["namespace"] == "drones"
    account = [{"kind": "ServiceAccount", "name": NAME, "namespace": "rfuav-system"}]
    assert compat["RoleBinding", NAME]["subjects"] == compat["ClusterRoleBinding", NAME]["subjects"] == account

    behind = render(*PROXY)
    assert granted(behind["ClusterRole", NAME]) == table[""] | table["proxy.addresses"]
    assert ("Role", NAME) not in behind


def test_callbacks_have_a_secret_and_rights_on_two_objects_of_the_releases_namespace(render, tmp_path):
    objects = render(*ON, "--set", "gateway.callbacksSecret=hooks,gateway.settings.callbacks.allow={10.0.0.0/8}")
    name = f"{NAME}-callbacks"
    role = objects["Role", name]
    assert granted(role) == documented()["callbacks.secretFile, in its own namespace"]
    assert {one["metadata"]["namespace"] for one in (role, objects["RoleBinding", name])} == {"rfuav-system"}
    assert all(rule["verbs"] == ["create"] or rule["resourceNames"] == [name] for rule in role["rules"])
    volume = next(v for v in pod(objects)["spec"]["volumes"] if v["name"] == "callbacks")
    assert volume["secret"]["secretName"] == "hooks"
    written = yaml.safe_load(objects["ConfigMap", NAME]["data"]["settings.yaml"])["callbacks"]
    mount = next(m for m in container(objects)["volumeMounts"] if m["name"] == "callbacks")
    assert written == {
        "allow": ["10.0.0.0/8"],
        "name": name,
        "namespace": "rfuav-system",
        "secretFile": f"{mount['mountPath']}/secret",
    }
    secret = tmp_path / "secret"
    secret.write_text(f"whsec_{'QUFB' * 8}")
    assert Settings(callbacks=written | {"secretFile": str(secret)}).callbacks.name == name


def test_whom_it_impersonates_can_be_limited(render):
    objects = render(*PROXY, "--set", "gateway.impersonates.groups={team-a,team-b}")
    rules = {
        r["resources"][0]: r.get("resourceNames")
        for r in objects["ClusterRole", NAME]["rules"]
        if "verbs" in r and "impersonate" in r["verbs"]
    }
    assert rules == {"users": None, "groups": ["team-a", "team-b"]}


def test_with_a_certificate_it_speaks_https(render, tmp_path):
    objects = render(*ON, "--set", "gateway.tlsSecret=rest,gateway.service.port=443")
    found = settings(objects, tmp_path)
    volume = next(v for v in pod(objects)["spec"]["volumes"] if v["name"] == "tls")
    mount = next(m for m in container(objects)["volumeMounts"] if m["name"] == "tls")
    assert volume["secret"]["secretName"] == "rest"
    assert {found.tls_certificate, found.tls_key} == {
        Path(mount["mountPath"]) / name for name in ("tls.crt", "tls.key")
    }
    assert objects["Service", NAME]["spec"]["ports"] == [{"name": "https", "port": 443, "targetPort": "http"}]
    assert container(objects)["readinessProbe"]["httpGet"].get("scheme", "HTTP") == "HTTP"  # of the other port


def test_a_service_of_a_node_has_the_port_that_is_asked_for(render):
    objects = render(*ON, "--set", "gateway.service.type=NodePort,gateway.service.nodePort=30080")
    spec = objects["Service", NAME]["spec"]
    assert (spec["type"], spec["ports"][0]["nodePort"]) == ("NodePort", 30080)


def test_an_ingress_leads_to_its_service(render):
    objects = render(
        *ON,
        *("--set", "gateway.ingress.enabled=true,gateway.ingress.hosts={rest.example.org},gateway.ingress.className=x"),
        *("--set", "gateway.ingress.tlsSecret=cert,gateway.service.port=8000"),
    )
    spec = objects["Ingress", NAME]["spec"]
    assert spec["ingressClassName"] == "x"
    assert spec["tls"] == [{"hosts": ["rest.example.org"], "secretName": "cert"}]
    (rule,) = spec["rules"]
    assert rule["host"] == "rest.example.org"
    assert rule["http"]["paths"][0]["backend"] == {"service": {"name": NAME, "port": {"number": 8000}}}


def test_a_route_of_the_gateway_api_leads_to_its_service(render):
    objects = render(
        *ON,
        *("--set", "gateway.httpRoute.enabled=true,gateway.httpRoute.hostnames={rest.example.org}"),
        *("--set", "gateway.httpRoute.parentRefs[0].name=public"),
    )
    spec = objects["HTTPRoute", NAME]["spec"]
    assert (spec["parentRefs"], spec["hostnames"]) == ([{"name": "public"}], ["rest.example.org"])
    assert spec["rules"][0]["backendRefs"] == [{"name": NAME, "port": 80}]
    assert spec["rules"][0]["timeouts"] == {"request": "0s"}


def test_priorities_of_the_gateway_have_classes(enabled):
    found = {name: o for (kind, name), o in enabled.items() if kind == "PriorityClass" and "-p" in name}
    wanted = [(kind, priority) for kind in ("training", "inference") for priority in range(1, 11)]
    assert {name: o["value"] for name, o in found.items()} == {class_name(*one): value(*one) for one in wanted}
    assert {o["preemptionPolicy"] for o in found.values()} == {"Never"}
    # A pool without a list of classes allows none above this one.
    assert max(o["value"] for o in found.values()) < enabled["PriorityClass", "rfuav-inference"]["value"]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ("gateway.replicas=-1", "replicas"),
        ("gateway.settings.port=1", "port"),
        ("gateway.settings.limits.creates=often", "creates"),
        ("gateway.settings.compat.namespace=Team_A", "namespace"),
        ("gateway.settings.roots[0].path=data,gateway.settings.roots[0].uri=pvc://x", "path"),
        ("gateway.service.type=ExternalName", "type"),
        ("gateway.settings.compat.enabled=true", "write the namespace of all its tasks"),
        (
            "gateway.settings.compat.enabled=true,gateway.settings.compat.namespace=a,gateway.settings.proxy.addresses={10.0.0.7}",
            "disable it, or remove",
        ),
        ("gateway.ingress.enabled=true", "write at least one host"),
        ("gateway.httpRoute.enabled=true", "write at least one Gateway"),
    ],
)
def test_values_that_cannot_be_are_rejected_by_name(run, values, named):
    done = run(*ON, "--set", values)
    assert done.returncode != 0
    assert named in done.stderr


def test_notes_warn_of_what_needs_no_credentials(notes):
    assert "WARNING" not in notes(*ON)
    assert "without credentials" in notes(*COMPAT)
    assert "drones" in notes(*COMPAT)
    assert "Set priorityClasses.inference" in notes(*ON, "--set", "priorityClasses.inference=1500")
    assert "gateway" not in notes()
