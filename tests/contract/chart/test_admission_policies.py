"""What a job may reach for those who may not create pods, asked as they would: one row of docs/security.md each."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from contract.chart.conftest import CHART, ROOT, Chart, manifests
from kubernetes import client, config
from kubernetes.client.rest import ApiException

from rfuav_crds.contract import GROUP, PLURALS, VERSION

pytestmark = pytest.mark.contract

TEAM, USER, MAKER = "policies", "jane", "maker"
RIGHTS = "admissionPolicies.rights.enabled=true,admissionPolicies.rights.podMetadata={example.org/team}"
SITE = "admissionPolicies.registries={registry.example.org/},admissionPolicies.maxGPUs=8,admissionPolicies.requiredLabels={cost-centre}"
TRAINING: dict[str, Any] = {
    "model": {"architecture": "resnet18", "weights": "none", "numClasses": 3},
    "dataset": {"train": {"uri": "s3://open/train"}, "validation": {"fraction": 0.2}},
    "output": {"uri": "s3://open/out"},
}
INFERENCE: dict[str, Any] = {
    "model": {"weights": "s3://open/best.safetensors"},
    "input": {"uri": "s3://open/in"},
    "output": {"uri": "s3://open/out"},
}


def job(spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A job that names nothing, but for `more` over its spec."""
    kind = "TrainingJob" if "dataset" in spec else "InferenceJob"
    labels = {"cost-centre": "radio"}
    merged = {**spec, **more}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": kind,
        "metadata": {"generateName": "try-", "namespace": TEAM, "labels": labels},
        "spec": merged,
    }


def template(**fields: Any) -> dict[str, Any]:
    """A training with this in its podTemplate."""
    return job(TRAINING, podTemplate=fields)


def volume(**source: Any) -> dict[str, Any]:
    """A training with a volume."""
    return template(volumes=[{"name": "v", **source}])


def variable(**source: Any) -> dict[str, Any]:
    """A training with a variable from elsewhere."""
    return template(env=[{"name": "STOLEN", "valueFrom": source}])


KEY = {"name": "theirs", "key": "password"}
# What a job may name: the attack, the job, and the right (resource, name) that allows it.
NAMED: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "foreign service account": (template(serviceAccountName="deployer"), ("serviceaccounts", "deployer")),
    "secret as variables": (template(envFrom=[{"secretRef": {"name": "theirs"}}]), ("secrets", "")),
    "secret as a variable": (variable(secretKeyRef=KEY), ("secrets", "")),
    "secret as files": (volume(secret={"secretName": "theirs"}), ("secrets", "")),
    "secret for a registry": (template(imagePullSecrets=[{"name": "theirs"}]), ("secrets", "")),
    "config map as variables": (template(envFrom=[{"configMapRef": {"name": "theirs"}}]), ("configmaps", "")),
    "config map as a variable": (variable(configMapKeyRef=KEY), ("configmaps", "")),
    "config map as files": (volume(configMap={"name": "theirs"}), ("configmaps", "")),
    "claim as a volume": (volume(persistentVolumeClaim={"claimName": "theirs"}), ("persistentvolumeclaims", "")),
    "volume of a CSI driver": (volume(csi={"driver": "vault.example.org"}), ("csidrivers.storage.k8s.io", "")),
    "weights of a job that may be on a claim": (
        job(INFERENCE, model={"fromTrainingJob": "theirs"}),
        ("persistentvolumeclaims", ""),
    ),
}
SECRET_OF_A_DRIVER = volume(csi={"driver": "vault.example.org", "nodePublishSecretRef": {"name": "theirs"}})
PODS = {"labels": {"app": "payments"}, "annotations": {"vault.hashicorp.com/agent-inject": "true"}}
# What no job can say, whoever makes it: the schema of the API refuses it.
UNSPEAKABLE = {
    "host path": volume(hostPath={"path": "/"}),
    "projected token": volume(projected={"sources": [{"serviceAccountToken": {"path": "t"}}]}),
    "host network": template(hostNetwork=True),
    "host processes": template(hostPID=True),
    "privilege": template(securityContext={"privileged": True}),
    "root": template(securityContext={"runAsUser": 0}),
    "capabilities": template(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}),
    "another container": template(containers=[{"name": "more", "image": "x"}]),
    "a node": template(nodeName="control-plane"),
    "a token of the API": template(automountServiceAccountToken=True),
    "labels of the operator": template(metadata={"labels": {"rfuav.io/leader": "true"}}),
}


class Cluster:
    """Asks the API server as somebody."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self._rbac = client.RbacAuthorizationV1Api(chart.kube)
        self._users: dict[str, client.CustomObjectsApi] = {}

    def create(self, manifest: dict[str, Any], user: str = USER, validation: str = "Ignore") -> tuple[Any, str]:
        """A dry run: admission is asked, nothing is stored. The object, or None and why not."""
        if user not in self._users:
            made = config.new_client_from_config(str(self.chart.cluster.kubeconfig))
            made.set_default_header("Impersonate-User", user)
            self._users[user] = client.CustomObjectsApi(made)
        asked = self._users[user].create_namespaced_custom_object
        try:
            there = (GROUP, VERSION, TEAM, PLURALS[manifest["kind"]], manifest)
            return asked(*there, dry_run="All", field_validation=validation), ""
        except ApiException as error:
            return None, json.loads(error.body)["message"]

    def refuses(self, manifest: dict[str, Any], *words: str, user: str = USER) -> None:
        """It is refused by a policy, in these words."""
        made, why = self.create(manifest, user)
        assert made is None
        assert "ValidatingAdmissionPolicy" in why
        for word in words:
            assert word in why

    def takes(self, manifest: dict[str, Any], user: str = USER) -> None:
        """It is accepted."""
        made, why = self.create(manifest, user)
        assert made, why

    @contextmanager
    def granted(self, user: str, *rules: tuple[str, str, str]) -> Iterator[None]:
        """With a ClusterRole of (verb, resource, name or empty), bound cluster-wide."""
        name = f"policies-{uuid.uuid4().hex[:8]}"
        made = []
        for verb, resource, of in rules:
            plural, _, group = resource.partition(".")
            names = {"resourceNames": [of]} if of else {}
            made.append({"apiGroups": [group], "resources": [plural], "verbs": [verb], **names})
        self._rbac.create_cluster_role({"metadata": {"name": name}, "rules": made})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
        subjects = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]
        self._rbac.create_cluster_role_binding({"metadata": {"name": name}, "roleRef": reference, "subjects": subjects})
        try:
            yield
        finally:
            self._rbac.delete_cluster_role_binding(name)
            self._rbac.delete_cluster_role(name)


EARLY = job(INFERENCE, image="elsewhere/x:1", shards=12, parallelism=9, resources={"gpus": 2})
EARLY["metadata"] = {"name": "early", "namespace": TEAM}
CREATES = tuple(("create", f"{plural}.{GROUP}", "") for plural in ("trainingjobs", "inferencejobs"))


@pytest.fixture(scope="module")
def cluster(helm3: Chart) -> Iterator[Cluster]:
    """The CRDs and both policies, a user who may create jobs alone, and one who may create pods too."""
    made = Cluster(helm3)
    helm3.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    helm3.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(ROOT / "crds"))
    helm3.kubectl("create", "namespace", TEAM)
    helm3.kubectl("create", "-f", "-", text=json.dumps(EARLY))
    rendered = helm3.helm(
        *("template", "rfuav", str(CHART), "--kube-version", "1.35.4"),
        *("--set", RIGHTS, "--set", SITE, "--show-only", "templates/admission.yaml"),
    ).stdout
    helm3.kubectl("apply", "--server-side", "-f", "-", text=rendered)
    with made.granted(USER, *CREATES), made.granted(MAKER, *CREATES, ("create", "pods", "")):
        elsewhere = {"image": "elsewhere/x:1"}
        for spec in (TRAINING, INFERENCE):
            for more in ({"podTemplate": {"serviceAccountName": "x"}}, elsewhere):
                soon(lambda spec=spec, more=more: "ValidatingAdmissionPolicy" in made.create(job(spec, **more))[1], 60)
        yield made
    helm3.kubectl("delete", "-f", "-", text=rendered)
    helm3.kubectl("delete", "namespace", TEAM, "--wait=false")
    helm3.kubectl("delete", "-f", str(ROOT / "crds"))


def soon(condition: Callable[[], Any], seconds: float = 20) -> None:
    """Wait until it holds: roles and policies reach the authorizer and admission a moment after they are written."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("attack", NAMED)
def test_what_a_job_names_needs_the_right_to_read_it(cluster: Cluster, attack: str) -> None:
    manifest, (resource, name) = NAMED[attack]
    verb = "use" if resource == "serviceaccounts" else "get"
    cluster.refuses(manifest, f"`{verb}`", resource)
    cluster.takes(manifest, MAKER)
    with cluster.granted(USER, (verb, resource, name)):
        soon(lambda: cluster.create(manifest)[0])


def test_a_right_to_one_secret_is_none_to_name_secrets(cluster: Cluster) -> None:
    """One right is enough for a job that names any number of them, so it must be that to all."""
    manifest, _ = NAMED["secret as files"]
    with cluster.granted(USER, ("get", "secrets", "theirs"), ("get", "configmaps", "")):
        soon(lambda: cluster.create(NAMED["config map as files"][0])[0])
        cluster.refuses(manifest, "secrets")


def test_a_driver_s_secret_is_a_secret(cluster: Cluster) -> None:
    with cluster.granted(USER, ("get", "csidrivers.storage.k8s.io", "")):
        soon(lambda: cluster.create(NAMED["volume of a CSI driver"][0])[0])
        cluster.refuses(SECRET_OF_A_DRIVER, "Secrets")


@pytest.mark.parametrize("part", ["labels", "annotations"])
def test_labels_and_annotations_of_pods_are_for_those_who_create_pods(cluster: Cluster, part: str) -> None:
    """A Service selects by labels; injectors and networks act on annotations."""
    manifest = template(metadata={part: PODS[part]})
    cluster.refuses(manifest, "spec.podTemplate.metadata", *PODS[part])
    cluster.takes(manifest, MAKER)
    cluster.takes(template(metadata={part: {"example.org/team": "radio"}}))


def _uris() -> list[tuple[str, str]]:
    """Every field of a job's spec that may name a claim, from the CRDs: its kind and its path."""
    found = []
    for plural, kind in (("trainingjobs", "TrainingJob"), ("inferencejobs", "InferenceJob")):
        (crd,) = manifests((ROOT / f"crds/{plural}.{GROUP}.yaml").read_text())
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        todo = [("", schema)]
        while todo:
            path, node = todo.pop()
            rules = json.dumps(node.get("x-kubernetes-validations", ""))
            if node.get("type") == "string" and "pvc" in rules:
                found.append((kind, path.strip(".")))
            todo += [(f"{path}.{name}", inner) for name, inner in node.get("properties", {}).items()]
    return sorted(found)


@pytest.mark.parametrize(("kind", "path"), _uris())
def test_a_uri_on_a_claim_needs_the_right_to_read_claims(cluster: Cluster, kind: str, path: str) -> None:
    manifest = json.loads(json.dumps(job(TRAINING if kind == "TrainingJob" else INFERENCE)))
    *parents, last = path.split(".")
    node = manifest["spec"]
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = "pvc://theirs/best.safetensors"
    if path == "dataset.validation.uri":
        del node["fraction"]
    if path == "weightsCache.uri":
        manifest["spec"]["model"] = {"architecture": "resnet18", "weights": "pretrained", "numClasses": 3}
    cluster.refuses(manifest, "persistentvolumeclaims")
    cluster.takes(manifest, MAKER)


def test_all_uris_are_there() -> None:
    assert {path for _, path in _uris()} >= {
        "output.uri",
        "dataset.train.uri",
        "weightsCache.uri",
        "input.uri",
        "model.config",
    }


@pytest.mark.parametrize("spec", [TRAINING, INFERENCE], ids=["training", "inference"])
def test_a_job_that_names_nothing_is_accepted(cluster: Cluster, spec: dict[str, Any]) -> None:
    cluster.takes(job(spec))
    cluster.takes(job(spec, podTemplate={"serviceAccountName": "default", "volumes": [{"name": "v", "emptyDir": {}}]}))


@pytest.mark.parametrize("attack", UNSPEAKABLE)
def test_what_no_job_can_say(cluster: Cluster, attack: str) -> None:
    """By those who may do most: unknown fields are refused, or dropped for who asks so; others are not allowed."""
    made, why = cluster.create(UNSPEAKABLE[attack], MAKER, "Strict")
    assert made is None
    assert "ValidatingAdmissionPolicy" not in why
    loose, why = cluster.create(UNSPEAKABLE[attack], MAKER)
    if loose is not None:
        (field,) = UNSPEAKABLE[attack]["spec"]["podTemplate"]
        assert not loose["spec"]["podTemplate"].get(field), "the API server keeps it"
    else:
        assert "spec.podTemplate" in why


def test_site_rules_are_for_everybody(cluster: Cluster) -> None:
    cluster.refuses(job(TRAINING, image="docker.io/evil:1"), "registry.example.org/", user=MAKER)
    cluster.refuses(job(TRAINING, image="registry.example.org.evil.example/x:1"), "registry.example.org/", user=MAKER)
    cluster.takes(job(TRAINING, image="registry.example.org/x:1"), MAKER)
    cluster.refuses(job(TRAINING, resources={"gpus": 9}), "at most 8 GPUs", user=MAKER)
    cluster.refuses(job(TRAINING, resources={"gpus": 4}, nodes=3), "spec.nodes", user=MAKER)
    cluster.refuses(job(INFERENCE, resources={"gpus": 2}, shards=9, parallelism=5), "spec.parallelism", user=MAKER)
    cluster.takes(job(INFERENCE, resources={"gpus": 2}, shards=9, parallelism=4), MAKER)
    nameless = job(TRAINING)
    nameless["metadata"]["labels"] = {}
    cluster.refuses(nameless, "cost-centre", user=MAKER)


def test_a_job_of_before_the_rules_can_still_be_changed(cluster: Cluster) -> None:
    """It breaks each rule. It may not get worse; its end must not hang on the rules."""
    change = ("patch", "inferencejob", "early", "--namespace", TEAM, "--type=merge", "--patch")
    refused = cluster.chart.kubectl(*change, '{"spec": {"parallelism": 10}}', check=False)
    assert "at most 8 GPUs" in refused.stderr
    for allowed in ('{"spec": {"parallelism": 8}}', '{"metadata": {"labels": {"cost-centre": "radio"}}}'):
        cluster.chart.kubectl(*change, allowed)
    refused = cluster.chart.kubectl(*change, '{"metadata": {"labels": {"cost-centre": null}}}', check=False)
    assert "cost-centre" in refused.stderr
    cluster.chart.kubectl(*change, '{"spec": {"suspend": true, "cancel": true}}')
    # The policy on rights asks at the create alone, because what it asks about cannot change.
    account = '{"spec": {"podTemplate": {"serviceAccountName": "deployer"}}}'
    refused = cluster.chart.kubectl(*change, account, check=False)
    assert "ValidatingAdmissionPolicy" not in refused.stderr
    assert "podTemplate" in refused.stderr
    cluster.chart.kubectl("delete", "inferencejob", "early", "--namespace", TEAM)


def test_the_largest_job_stays_within_the_budget(cluster: Cluster) -> None:
    """Every list full, everything named, every question asked: the API server would refuse what costs too much."""
    keys = {f"example.org/{index}": "x" for index in range(31)} | {"example.org/team": "radio"}
    manifest = template(
        serviceAccountName="deployer",
        metadata={"labels": {"example.org/team": "radio"}, "annotations": {"example.org/team": "radio"}},
        nodeSelector=keys,
        env=[
            {"name": f"V{i}", "valueFrom": {"secretKeyRef" if i == 63 else "configMapKeyRef": KEY}} for i in range(64)
        ],
        envFrom=[{"configMapRef": {"name": "c"}}] * 15 + [{"secretRef": {"name": "s"}}],
        imagePullSecrets=[{"name": f"p{i}"} for i in range(16)],
        volumes=[{"name": f"v{i}", "emptyDir": {}} for i in range(14)]
        + [
            {"name": "d", "csi": {"driver": "vault.example.org"}},
            {"name": "c", "persistentVolumeClaim": {"claimName": "c"}},
        ],
    )
    kinds = ("secrets", "configmaps", "persistentvolumeclaims", "csidrivers.storage.k8s.io")
    with cluster.granted(USER, ("use", "serviceaccounts", "deployer"), *(("get", kind, "") for kind in kinds)):
        soon(lambda: cluster.create(manifest)[0])


def test_the_api_server_finds_no_fault_in_the_expressions(cluster: Cluster) -> None:
    """Its type checker reads them against the CRDs."""

    def checked() -> list[dict[str, Any]]:
        found = cluster.chart.get("validatingadmissionpolicies")["items"]
        ours = [o for o in found if o["metadata"]["name"].startswith("rfuav-")]
        assert len(ours) == 4
        return ours

    soon(lambda: all("typeChecking" in o.get("status", {}) for o in checked()))
    assert [w for o in checked() for w in o["status"]["typeChecking"].get("expressionWarnings", [])] == []
