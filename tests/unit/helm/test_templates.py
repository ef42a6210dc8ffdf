"""What the chart renders, through the helm that the local cluster is made with."""

import subprocess
from pathlib import Path

import pytest
import yaml

from rfuav_operator.configuration import SettingsError
from rfuav_operator.settings import Settings, load

pytestmark = pytest.mark.contract

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "helm" / "rfuav-operator"


def deployment(objects):
    return objects["Deployment", "rfuav-operator"]["spec"]


def container(objects):
    return deployment(objects)["template"]["spec"]["containers"][0]


def settings(objects, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(objects["ConfigMap", "rfuav-operator"]["data"]["settings.yaml"])
    return load(file, env={"POD_NAMESPACE": "rfuav-system", "POD_NAME": "pod"})


def test_lint(helm):
    done = subprocess.run([helm, "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_operator_reads_the_settings_that_the_chart_writes(default, tmp_path):
    found = settings(default, tmp_path)
    assert found.jobs.image == yaml.safe_load((CHART / "values.yaml").read_text())["trainer"]["image"]
    assert not found.jobs.allow_cpu
    service = default["Service", found.progress.service]
    assert service["spec"]["ports"][0]["port"] == found.progress.service_port
    ports = {p["name"]: p["containerPort"] for p in container(default)["ports"]}
    assert ports == {"progress": found.progress.port, "health": found.health.port}
    assert found.progress_url == "https://rfuav-operator-progress.rfuav-system.svc"


def test_settings_of_the_user_reach_the_operator(render, tmp_path):
    objects = render("--set", "settings.leader.leaseSeconds=30,settings.jobs.allowCpu=true,priorityClasses.training=7")
    found = settings(objects, tmp_path)
    assert (found.leader.lease_seconds, found.jobs.allow_cpu, found.jobs.training_priority) == (30, True, 7)
    assert objects["PriorityClass", "rfuav-training-7"]["value"] == 7


def test_what_is_not_set_keeps_the_operators_defaults(default, tmp_path):
    found = settings(default, tmp_path)
    for section in ("retries", "writes"):
        assert getattr(found, section) == getattr(Settings(), section)


def test_new_settings_restart_the_operator(default, render):
    def checksum(objects):
        return deployment(objects)["template"]["metadata"]["annotations"]["rfuav.io/settings-checksum"]

    assert checksum(default) != checksum(render("--set", "settings.logLevel=debug"))
    assert checksum(default) == checksum(render("--set", "replicas=1"))


def test_the_operator_runs_restricted_and_read_only(default):
    pod = deployment(default)["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(default)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"limits", "requests"} <= set(container(default)["resources"])
    assert {"livenessProbe", "readinessProbe", "startupProbe"} <= set(container(default))
    names = {e["name"]: e["valueFrom"]["fieldRef"]["fieldPath"] for e in container(default)["env"]}
    assert names == {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace"}


def test_where_the_cluster_assigns_users_no_pod_names_one(render, tmp_path):
    objects = render("--set", "settings.jobs.clusterAssignsUsers=true")
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(deployment(objects)["template"]["spec"]["securityContext"])
    assert deployment(objects)["template"]["spec"]["securityContext"]["runAsNonRoot"]
    assert settings(objects, tmp_path).defaults("").cluster_assigns_users


def test_progress_goes_to_the_leader_alone(default):
    selector = default["Service", "rfuav-operator-progress"]["spec"]["selector"]
    labels = deployment(default)["template"]["metadata"]["labels"]
    assert selector.pop("rfuav.io/leader") == "true"
    assert selector.items() <= labels.items()
    assert "rfuav.io/leader" not in labels


GRANTED = {
    "rfuav.io": {
        "trainingjobs": {"get", "list", "watch", "delete"},
        "inferencejobs": {"get", "list", "watch", "delete"},
        "gpupools": {"get", "list", "watch"},
        "gpuquotas": {"get", "list", "watch"},
        "trainingjobs/status": {"patch"},
        "inferencejobs/status": {"patch"},
        "gpupools/status": {"patch"},
        "gpuquotas/status": {"patch"},
    },
    "": {
        "pods": {"get", "list", "watch", "create", "delete"},
        "services": {"create"},
        "nodes": {"list", "watch"},
        "namespaces": {"list", "watch"},
        "resourcequotas": {"list", "watch"},
        "persistentvolumeclaims": {"list", "watch"},
        "persistentvolumes": {"list", "watch"},
    },
    "scheduling.k8s.io": {"priorityclasses": {"list", "watch"}},
    "events.k8s.io": {"events": {"create", "patch"}},
}


def test_the_operator_has_exactly_the_rights_that_it_uses(default):
    """The table in the operator's app.py, by hand: who widens one says so here."""
    found, named = {}, {}
    for rule in default["ClusterRole", "rfuav-operator"]["rules"]:
        for group in rule.get("apiGroups", []):
            for resource in rule["resources"]:
                into = named if "resourceNames" in rule else found
                into.setdefault(group, {}).setdefault(resource, set()).update(rule["verbs"])
                assert rule.get("resourceNames", ["default"]) == ["default"]
    assert found == GRANTED
    assert named == {"rfuav.io": {"gpupools": {"create", "patch"}}}
    urls = [rule for rule in default["ClusterRole", "rfuav-operator"]["rules"] if "nonResourceURLs" in rule]
    assert [(set(r["nonResourceURLs"]), r["verbs"]) for r in urls] == [
        ({"/.well-known/openid-configuration", "/openid/v1/jwks"}, ["get"]),
        ({"/readyz"}, ["get"]),
    ]


def test_secrets_and_leases_are_granted_by_name_in_the_own_namespace(default):
    role = default["Role", "rfuav-operator"]
    assert role["metadata"]["namespace"] == "rfuav-system"
    rules = {(r["resources"][0], tuple(r.get("resourceNames", ()))): set(r["verbs"]) for r in role["rules"]}
    assert rules == {
        ("leases", ()): {"create"},
        ("leases", ("rfuav-operator",)): {"get", "update"},
        ("secrets", ()): {"create"},
        ("secrets", ("rfuav-operator-progress-ca",)): {"get"},
        ("pods", ()): {"patch"},
    }


def test_the_lease_that_releases_share_is_granted_in_its_namespace(default, render):
    role = default["Role", "rfuav-operator-rfuav-system"]
    binding = default["RoleBinding", "rfuav-operator-rfuav-system"]
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "kube-system"
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "rfuav-operator", "namespace": "rfuav-system"}]
    rules = {(r["resources"][0], tuple(r.get("resourceNames", ()))): set(r["verbs"]) for r in role["rules"]}
    assert rules == {("leases", ()): {"create"}, ("leases", ("rfuav-operator",)): {"get", "update"}}
    elsewhere = render("--set", "settings.leader.clusterNamespace=default")
    assert elsewhere["Role", "rfuav-operator-rfuav-system"]["metadata"]["namespace"] == "default"
    assert ("Role", "rfuav-operator-rfuav-system") not in render("--set", "settings.leader.clusterNamespace=")


def test_the_lease_that_releases_share_is_not_the_release_s_own(run):
    done = run("--set", "settings.leader.clusterNamespace=rfuav-system")
    assert done.returncode != 0
    assert "set another existing namespace" in done.stderr


def test_with_namespaces_the_operator_writes_in_them_alone(render, tmp_path):
    """Cluster-wide it reads, and writes the status of pools, and the pool `default`."""
    objects = render("--set", "watchNamespaces={team-a,rfuav-system}")
    assert settings(objects, tmp_path).watch_namespaces == ["team-a", "rfuav-system"]
    found = _granted(objects["ClusterRole", "rfuav-operator"])
    wide = {(resource, verb) for resource, verbs in found.items() for verb in verbs if verb in {*WRITING}}
    assert wide == {("gpupools/status", "patch"), ("gpupools", "create"), ("gpupools", "patch")}
    everything = {r: v for by_resource in GRANTED.values() for r, v in by_resource.items()}
    in_namespaces = {
        resource: written
        for resource, verbs in everything.items()
        if resource != "gpupools/status" and (written := verbs & WRITING)
    }
    assert _granted(objects["Role", "rfuav-operator-jobs"]) == in_namespaces
    off = render("--set", "watchNamespaces={team-a},defaultPool.enabled=false")
    assert not _granted(off["ClusterRole", "rfuav-operator"])["gpupools"] & WRITING


def test_each_namespace_has_its_role(run):
    done = run("--set", "watchNamespaces={team-a,rfuav-system}")
    roles = [
        (o["kind"], o["metadata"]["namespace"])
        for o in yaml.safe_load_all(done.stdout)
        if o["metadata"]["name"] == "rfuav-operator-jobs"
    ]
    assert sorted(roles) == [(k, n) for k in ("Role", "RoleBinding") for n in ("rfuav-system", "team-a")]


def _granted(role):
    found = {}
    for rule in role["rules"]:
        for resource in rule.get("resources", ()):
            found.setdefault(resource, set()).update(rule["verbs"])
    return found


def test_two_replicas_that_a_drain_and_a_failed_node_leave_one_of(default, render):
    assert deployment(default)["replicas"] == 2
    budget = default["PodDisruptionBudget", "rfuav-operator"]["spec"]
    labels = deployment(default)["template"]["metadata"]["labels"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    (spread,) = deployment(default)["template"]["spec"]["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    assert spread["labelSelector"]["matchLabels"].items() <= labels.items()
    zones = "topologySpreadConstraints[0].maxSkew=1,topologySpreadConstraints[0].topologyKey=zone,topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule"
    (own,) = deployment(render("--set", zones))["template"]["spec"]["topologySpreadConstraints"]
    assert own == {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}


def test_a_digest_names_the_image(render):
    digest = "sha256:" + "0" * 64
    objects = render("--set", f"image.digest={digest},image.tag=ignored,gateway.enabled=true")
    for name in ("rfuav-operator", "rfuav-gateway"):
        (one,) = objects["Deployment", name]["spec"]["template"]["spec"]["containers"]
        assert one["image"] == f"rfuav-operator@{digest}"


def test_a_class_whose_value_changes_gets_another_name_and_the_old_one_stays(default, render, notes, tmp_path):
    """A PriorityClass's value cannot change."""
    assert {name for kind, name in default if kind == "PriorityClass"} == {"rfuav-training", "rfuav-inference"}
    objects = render("--set", "priorityClasses.training=1500,priorityClasses.inference=1000000000")
    classes = {name: o for (kind, name), o in objects.items() if kind == "PriorityClass"}
    assert {name: o["value"] for name, o in classes.items()} == {
        "rfuav-training-1500": 1500,
        "rfuav-inference-1000000000": 1_000_000_000,
    }
    for one in (*classes.values(), default["PriorityClass", "rfuav-training"]):
        assert one["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    jobs = settings(objects, tmp_path).jobs
    assert (jobs.training_priority_class, jobs.training_priority) == ("rfuav-training-1500", 1500)
    told = notes("--set", "priorityClasses.training=1500")
    assert "rfuav-training-1500" in told
    assert "rfuav-inference-" not in told
    assert "PriorityClass" not in notes()
    own = render("--set", "priorityClasses.training=1500,settings.jobs.trainingPriorityClass=ours")
    assert settings(own, tmp_path).jobs.training_priority_class == "ours"


def test_extras_reach_the_pods(render, tmp_path):
    extras = {
        "extraArgs": ["--set", "logLevel=debug"],
        "extraEnv": [{"name": "A", "value": "b"}],
        "extraVolumes": [{"name": "v", "configMap": {"name": "c"}}],
        "extraVolumeMounts": [{"name": "v", "mountPath": "/v"}],
        "topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
    }
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({**extras, "gateway": {"enabled": True, **extras}}))
    objects = render("--values", str(file))
    for name in ("rfuav-operator", "rfuav-gateway"):
        pod = objects["Deployment", name]["spec"]["template"]["spec"]
        (one,) = pod["containers"]
        assert one["args"][-2:] == extras["extraArgs"]
        assert one["env"][-1:] == extras["extraEnv"]
        assert one["volumeMounts"][-1:] == extras["extraVolumeMounts"]
        assert pod["volumes"][-1:] == extras["extraVolumes"]
        assert pod["topologySpreadConstraints"] == extras["topologySpreadConstraints"]


def test_prometheus_scrapes_every_replica(render, tmp_path):
    objects = render("--set", "serviceMonitor.enabled=true,serviceMonitor.labels.release=prom,gateway.enabled=true")
    for name, port in (("rfuav-operator", 8080), ("rfuav-gateway", 8081)):
        service, monitor = objects["Service", f"{name}-metrics"], objects["ServiceMonitor", name]
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        matching = [
            o["metadata"]["name"]
            for (kind, _), o in objects.items()
            if kind == "Service" and wanted <= o["metadata"]["labels"].items()
        ]
        assert matching == [f"{name}-metrics"]
        pod = objects["Deployment", name]["spec"]["template"]
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        (offered,) = service["spec"]["ports"]
        ports = {p["name"]: p["containerPort"] for p in pod["spec"]["containers"][0]["ports"]}
        assert ports[offered["targetPort"]] == port
        assert [e["port"] for e in monitor["spec"]["endpoints"]] == [offered["name"]]
        assert monitor["metadata"]["labels"]["release"] == "prom"


def test_network_policies_let_in_reports_metrics_and_requests_alone(render):
    objects = render("--set", "networkPolicy.enabled=true,gateway.enabled=true,watchNamespaces={team-a}")
    operator, gateway = (objects["NetworkPolicy", name]["spec"] for name in ("rfuav-operator", "rfuav-gateway"))
    for name, policy in (("rfuav-operator", operator), ("rfuav-gateway", gateway)):
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        pod = objects["Deployment", name]["spec"]["template"]
        assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        named = {p["name"] for p in pod["spec"]["containers"][0]["ports"]}
        assert {p["port"] for rule in policy["ingress"] for p in rule["ports"]} <= named
        assert [sorted(p["port"] for p in rule["ports"]) for rule in policy["egress"]] == [[53, 53], [443, 6443]]
    anybody = [{"namespaceSelector": {}}]
    teams = [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["team-a"]}]
    assert [rule.get("from") for rule in operator["ingress"]] == [
        [{"namespaceSelector": {"matchExpressions": teams}}],
        anybody,
    ]
    assert [rule.get("from") for rule in gateway["ingress"]] == [None, anybody]
    closed = render(
        "--set",
        "networkPolicy.enabled=true,gateway.enabled=true,networkPolicy.metricsFrom[0].podSelector.matchLabels.a=b",
    )
    further = render(
        "--set", "networkPolicy.enabled=true,gateway.enabled=true,networkPolicy.gatewayTo[0].ipBlock.cidr=10.1.0.0/16"
    )
    ways = {name: further["NetworkPolicy", name]["spec"]["egress"] for name in ("rfuav-operator", "rfuav-gateway")}
    assert (len(ways["rfuav-operator"]), ways["rfuav-gateway"][2:]) == (
        2,
        [{"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}],
    )
    peers = [rule["from"] for rule in closed["NetworkPolicy", "rfuav-operator"]["spec"]["ingress"]]
    assert peers == [anybody, [{"podSelector": {"matchLabels": {"a": "b"}}}]]


def test_policies_for_jobs_are_off_until_they_are_asked_for(default, render):
    def policies(objects):
        return {name for kind, name in objects if kind == "ValidatingAdmissionPolicy"}

    def both(end):
        return {f"rfuav-{plural}-{end}" for plural in ("trainingjobs", "inferencejobs")}

    assert policies(default) == set()
    assert policies(render("--set", "admissionPolicies.rights.enabled=true")) == both("rights")
    for rule in ("maxGPUs=8", "registries={registry.example.org/}", "requiredLabels={team}"):
        objects = render("--set", f"admissionPolicies.{rule}")
        assert policies(objects) == both("site")
        for name in both("site"):
            assert len(objects["ValidatingAdmissionPolicy", name]["spec"]["validations"]) == 1
            assert objects["ValidatingAdmissionPolicyBinding", name]["spec"]["policyName"] == name


def test_the_gateways_own_tasks_may_name_claims(render):
    """In compat it creates jobs as itself, and may not create pods."""
    compat = "gateway.enabled=true,gateway.settings.compat.enabled=true,gateway.settings.compat.namespace=drones"
    role = ("Role", "rfuav-gateway")
    assert "persistentvolumeclaims" not in _granted(render("--set", compat)[role])
    limited = render("--set", f"{compat},admissionPolicies.rights.enabled=true")
    assert _granted(limited[role])["persistentvolumeclaims"] == {"get"}


def test_two_renders_are_identical(run):
    values = ("--set", "gateway.enabled=true,networkPolicy.enabled=true,serviceMonitor.enabled=true")
    assert run(*values).stdout == run(*values).stdout


WRITING = {"create", "update", "patch", "delete", "deletecollection"}


def test_nobody_who_is_limited_may_write_limits(default):
    """No role that the chart adds to a built-in one (view, edit, admin) writes quotas or pools; all of them read both."""
    aggregated = {}
    for (kind, name), role in default.items():
        into = [label for label in role["metadata"].get("labels", {}) if "/aggregate-to-" in label]
        if kind == "ClusterRole" and into:
            aggregated[name] = {(r, v) for rule in role["rules"] for r in rule["resources"] for v in rule["verbs"]}
            assert into != ["rbac.authorization.k8s.io/aggregate-to-admin"]
    assert set(aggregated) == {"rfuav-view", "rfuav-edit"}
    for resource in ("gpupools", "gpuquotas"):
        granted = {(r, v) for rights in aggregated.values() for r, v in rights if r == resource}
        assert granted == {(resource, verb) for verb in ("get", "list", "watch")}
    assert not any("/" in resource or resource == "*" for rights in aggregated.values() for resource, _ in rights)


def test_everyone_who_is_logged_in_may_read_pools_and_nothing_else(default):
    (subject,) = default["ClusterRoleBinding", "rfuav-pools"]["subjects"]
    assert (subject["kind"], subject["name"]) == ("Group", "system:authenticated")
    (rule,) = default["ClusterRole", "rfuav-pools"]["rules"]
    assert rule == {"apiGroups": ["rfuav.io"], "resources": ["gpupools"], "verbs": ["get", "list", "watch"]}


def test_limits_are_written_by_a_role_of_their_own(default, render):
    for objects in (default, render("--set", "rbac.aggregateToDefaultRoles=false")):
        role = objects["ClusterRole", "rfuav-limits-admin"]
        assert not [label for label in role["metadata"]["labels"] if "aggregate" in label]
        (rule,) = role["rules"]
        assert set(rule["resources"]) == {"gpupools", "gpuquotas"}
        assert set(rule["verbs"]) >= WRITING


def test_the_crds_are_the_generated_ones_and_survive_the_chart(default, render):
    crds = {name: o for (kind, name), o in default.items() if kind == "CustomResourceDefinition"}
    generated = [yaml.safe_load(file.read_text()) for file in (ROOT / "crds").glob("*.yaml")]
    assert crds == {o["metadata"]["name"]: o for o in generated}
    assert len(crds) == 4
    assert all(o["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for o in crds.values())
    assert not [kind for kind, _ in render("--set", "crds.enabled=false") if kind == "CustomResourceDefinition"]


@pytest.mark.parametrize(
    ("switch", "gone"),
    [
        ("priorityClasses.enabled=false", {("PriorityClass", "rfuav-training"), ("PriorityClass", "rfuav-inference")}),
        ("replicas=1", {("PodDisruptionBudget", "rfuav-operator")}),
        ("rbac.poolsForAuthenticated=false", {(f"ClusterRole{b}", "rfuav-pools") for b in ("", "Binding")}),
    ],
)
def test_switches(default, render, switch, gone):
    assert set(default) - set(render("--set", switch)) == gone


def test_the_roles_for_users_are_there_without_aggregation_too(render):
    objects = render("--set", "rbac.aggregateToDefaultRoles=false")
    for name in ("rfuav-view", "rfuav-edit"):
        assert not [label for label in objects["ClusterRole", name]["metadata"]["labels"] if "aggregate" in label]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("replicaz=2", "replicaz"),
        ("replicas=two", "replicas"),
        ("image.repository=", "repository"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("trainer.image=", "image"),
        ("settings.logLevel=loud", "logLevel"),
        ("settings.leader.leaseSeconds=1", "leaseSeconds"),
        ("settings.leader.leaseSeconds=601", "leaseSeconds"),
        ("settings.jobs.image=x", "image"),
        ("settings.progress.url=http://x", "url"),
        ("priorityClasses.training=2000000000", "training"),
        ("image.digest=latest", "digest"),
        ("imagePullSecrets[0].nam=x", "nam"),
        ("watchNamespaces={Team A}", "watchNamespaces"),
        ("resources.limit.cpu=1", "limit"),
        ("tolerations[0].kee=x", "kee"),
        ("affinity.nodeAfinity=x", "nodeAfinity"),
        ("extraVolumes[0].name=x,extraVolumes[0].hostPath.path=/", "hostPath"),
        ("networkPolicy.metricsFrom[0].pods=x", "pods"),
        ("defaultPool.spec.perGpu=1", "perGpu"),
        ("defaultPool.spec.perGPU[0].trainings=1", "trainings"),
        ("defaultPool.spec.placement=Anywhere", "placement"),
        ("defaultPool.spec.scaleUp.podz=1", "podz"),
        ("gateway.extraEnv[0].valu=x", "valu"),
        ("admissionPolicies.registries={docker.io}", "registries"),
        ("admissionPolicies.right.enabled=true", "right"),
    ],
)
def test_values_that_cannot_be_are_rejected_by_name(run, value, named):
    done = run("--set", value)
    assert done.returncode != 0
    assert named in done.stderr


def test_the_demos_values_fit_the_chart(render, tmp_path):
    objects = render("--values", str(ROOT / "demo/values.yaml"))
    found = settings(objects, tmp_path)
    assert found.jobs.allow_cpu
    assert found.default_pool.spec["perGPU"][0]["inference"] == 2


def test_the_default_pool_is_in_no_manifest_so_that_nothing_deletes_and_makes_it_again(default, render, tmp_path):
    """Helm and Argo delete a hook before they make it; the operator applies the pool in place instead."""
    assert not [kind for kind, _ in default if kind == "GPUPool"]
    assert not [o for o in default.values() if "helm.sh/hook" in o["metadata"].get("annotations", {})]
    assert settings(default, tmp_path).default_pool.enabled
    assert len(settings(default, tmp_path).default_pool.spec["perGPU"]) == 3
    off = render("--set", "defaultPool.enabled=false")
    assert not settings(off, tmp_path).default_pool.enabled
    assert not [r for r in off["ClusterRole", "rfuav-operator"]["rules"] if "resourceNames" in r]


def test_a_pool_that_breaks_a_rule_is_refused_by_the_operator(render, tmp_path):
    """The schema of the values has the fields of the CRD, not its rules in CEL."""
    with pytest.raises(SettingsError, match="defaultPool.spec.*minMemory"):
        settings(render("--set", "defaultPool.spec.perGPU[0].minMemory=22GB"), tmp_path)
