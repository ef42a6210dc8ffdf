"""The pod contract, operator's side."""

import json
from typing import Any

import pytest
from msgspec.structs import replace
from unit.core.builders import DEFAULTS, admitted, job

from rfuav_crds.unsupported import unsupported
from rfuav_operator.core.capacity.volumes import claims_in_uris
from rfuav_operator.core.job import podspec
from rfuav_operator.core.model import Kind, PodTemplate, Resources, Source

RAW = {
    "model": {"architecture": "resnet18", "fromTrainingJob": "t"},
    "dataset": {"train": {"uri": "pvc://captures/train"}, "validation": {"uri": "pvc://captures/val"}},
    "weightsCache": {"uri": "pvc://weights/torchvision"},
    "output": {"uri": "pvc://models/x"},
}


def built(made=None, **defaults):
    held = admitted(made or job(raw=RAW))[0]
    return podspec.manifest(held, held.status.assignments[0], replace(DEFAULTS, **defaults)), held


def container(manifest):
    return manifest["spec"]["containers"][0]


def env(manifest):
    return {e["name"]: e.get("value") for e in container(manifest)["env"]}


def test_identity():
    manifest, held = built()
    meta = manifest["metadata"]
    assert meta["name"] == held.status.assignments[0].pod
    assert meta["ownerReferences"] == [
        {
            "apiVersion": "rfuav.io/v1alpha1",
            "kind": "TrainingJob",
            "name": "a",
            "uid": "uid-a",
            "controller": True,
            "blockOwnerDeletion": False,
        }
    ]
    assert meta["labels"] == {
        "rfuav.io/job": "a",
        "rfuav.io/kind": "TrainingJob",
        "rfuav.io/attempt": "1",
        "rfuav.io/rank": "0",
        "rfuav.io/job-uid": "uid-a",
        "rfuav.io/pool": "default",
        "rfuav.io/node": "n1",
    }
    assert meta["annotations"] == {"rfuav.io/progress-ca": "PEM", "rfuav.io/output": "pvc://models/x"}
    terms = manifest["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert terms["nodeSelectorTerms"] == [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
    ]


def test_restricted_pod_security():
    manifest, _ = built()
    spec = manifest["spec"]
    assert spec["restartPolicy"] == "Never"
    assert spec["automountServiceAccountToken"] is False
    assert "priorityClassName" not in spec
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["fsGroup"]) == (65532, 65532)
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(manifest)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {m["mountPath"] for m in container(manifest)["volumeMounts"] if not m.get("readOnly")}
    assert writable == {"/tmp", "/home/rfuav", "/dev/shm", "/mnt/rfuav/models"}


def test_the_job_as_the_trainer_reads_it():
    manifest, _held = built()
    document = json.loads(env(manifest)["RFUAV_JOB"])
    assert document == {
        "apiVersion": "rfuav.io/v1alpha1",
        "kind": "TrainingJob",
        "name": "a",
        "namespace": "team",
        "uid": "uid-a",
        "attempt": 1,
        "rank": 0,
        "spec": RAW,
    }
    assert container(manifest)["args"] == ["run"]
    assert container(manifest)["image"] == "trainer:1"


def test_what_kubernetes_would_replace_in_the_spec_reaches_the_trainer_as_it_was_written():
    uri = "s3://captures/a$$b/$(HOME)/$c"
    manifest, _ = built(job(raw=RAW | {"data": {"uri": uri}}))
    told = env(manifest)["RFUAV_JOB"]
    assert "$(" not in told.replace("$$", "")
    assert json.loads(told.replace("$$", "$"))["spec"]["data"]["uri"] == uri


def test_a_shard_and_its_source():
    held = admitted(
        job("w", kind=Kind.INFERENCE, shards=3, parallelism=3, raw=RAW | {"model": {"fromTrainingJob": "t"}})
    )[0]
    held = replace(held, status=replace(held.status, source=Source(name="t", uid="u", weights="pvc://other/b.st")))
    manifest = podspec.manifest(held, held.status.assignments[2], DEFAULTS)
    document = json.loads(env(manifest)["RFUAV_JOB"])
    assert (document["shard"], document["shards"]) == (2, 3)
    assert document["spec"]["model"] == {"weights": "pvc://other/b.st"}
    assert manifest["metadata"]["labels"]["rfuav.io/shard"] == "2"
    assert "other" in json.loads(env(manifest)["RFUAV_MOUNTS"])


def test_fields_that_only_the_operator_reads_are_not_passed_to_the_container():
    """podTemplate alone may be larger than Linux lets one variable be."""
    kept = {"output": {"uri": "pvc://m/x"}, "image": "own:1", "resources": {"gpus": 1}, "parallelism": 2}
    spec = kept | {"podTemplate": {"env": [{"name": "A", "value": "b"}]}, "pool": "p", "suspend": False, "cancel": True}
    assert podspec.told(spec | {"priorityClassName": "", "backoffLimit": 3, "uncountedLimit": 4}) == kept


def test_a_file_output_keeps_the_mount_that_makes_it_last():
    """The trainer refuses one that would be lost with the pod."""
    mounts = [
        {"name": "other", "mountPath": "/other"},
        {"name": "out", "mountPath": "/out", "subPath": "x"},
        {"name": "read", "mountPath": "/out/a", "readOnly": True},
    ]
    template = {"volumes": [{"name": "out", "csi": {"driver": "d"}}], "volumeMounts": mounts, "env": [{"name": "A"}]}
    seen = podspec.told({"output": {"uri": "file:///out/a/b"}, "podTemplate": template})
    assert seen["podTemplate"] == {
        "volumes": [{"name": "out", "emptyDir": {}}],
        "volumeMounts": [{"name": "out", "mountPath": "/out"}],
    }
    assert not unsupported(seen, "TrainingJob")
    assert unsupported(podspec.told({"output": {"uri": "file:///elsewhere"}, "podTemplate": template}), "TrainingJob")


def variables(*values: str, **more: str) -> dict[str, Any]:
    env = [{"name": f"V{i}", "value": value} for i, value in enumerate(values)]
    return {"podTemplate": {"env": env + [{"name": name, "value": value} for name, value in more.items()]}}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({}, ""),
        (variables(*("x" * 4000,) * 34), ""),
        (variables(*("x" * 4096,) * 64), ""),
        (variables("x" * 131_000), ""),
        (variables("x" * 131_070), "V0 takes 131,070 bytes"),
        (variables("ä" * 70_000), "V0 takes 140,000 bytes"),
        (variables("x" * 4000, "$(V0)" * 40), "V1 takes 160,000 bytes"),  # Kubernetes puts the one into the other
        (variables("x" * 4000, "$$(V0)" * 40), ""),
        (variables("$(V1)" * 40, "x" * 4000), ""),  # those before it alone
        (variables(*("x" * 130_000,) * 16), "the variables take 2,0"),
        ({"dataset": {"classes": ["y" * 250] * 600}, "training": {"epochs": 1}}, "shorten spec.dataset (15"),
    ],
)
def test_what_no_process_can_be_started_with_is_said_before(spec, said):
    problems = "; ".join(podspec.too_long(spec))
    assert (said in problems) if said else not problems


def test_a_job_within_the_bounds_has_a_variable_within_the_bounds():
    """The check leaves enough for names and weights that are not known yet."""
    classes = ["y" * 250] * 400
    raw = {"dataset": {"classes": classes}, "model": {"fromTrainingJob": "t"}, "output": {"uri": "pvc://m/x"}}
    while not podspec.too_long(raw):
        classes.append("y" * 250)
    classes.pop()
    held = admitted(job("a" * 40, kind=Kind.INFERENCE, namespace="n" * 63, uid="u" * 36, raw=raw))[0]
    held = replace(held, status=replace(held.status, source=Source(name="t", uid="u", weights="p" * 2048)))
    text = env(podspec.manifest(held, held.status.assignments[0], DEFAULTS))["RFUAV_JOB"]
    assert 120_000 < len(text.encode()) + len("RFUAV_JOB=") + 1 <= podspec.LONGEST_STRING


def test_a_job_all_of_whose_data_is_in_a_store_mounts_no_claim():
    """The credentials for it come with podTemplate.envFrom."""
    raw = {"model": {"fromTrainingJob": "t"}, "input": {"uri": "s3://in/x"}, "output": {"uri": "s3://out/x"}}
    held = admitted(job("w", kind=Kind.INFERENCE, raw=raw))[0]
    held = replace(held, status=replace(held.status, source=Source(name="t", uid="u", weights="s3://m/b.st")))
    manifest = podspec.manifest(held, held.status.assignments[0], DEFAULTS)
    assert json.loads(env(manifest)["RFUAV_JOB"])["spec"]["model"] == {"weights": "s3://m/b.st"}
    assert json.loads(env(manifest)["RFUAV_MOUNTS"]) == {}


def test_claims_are_mounted_read_only_unless_written_to():
    manifest, _ = built()
    assert json.loads(env(manifest)["RFUAV_MOUNTS"]) == {
        "captures": "/mnt/rfuav/captures",
        "models": "/mnt/rfuav/models",
        "weights": "/mnt/rfuav/weights",
    }
    volumes = {
        v["name"]: v["persistentVolumeClaim"]["claimName"]
        for v in manifest["spec"]["volumes"]
        if "persistentVolumeClaim" in v
    }
    mounts = {volumes[m["name"]]: m for m in container(manifest)["volumeMounts"] if m["name"] in volumes}
    assert mounts["captures"]["readOnly"] is True
    assert "readOnly" not in mounts["models"]


@pytest.mark.parametrize(
    ("spec", "claims"),
    [
        ({"output": {"uri": "pvc://one/out"}, "input": {"uri": "pvc://one/in"}}, {"one": True}),
        ({"input": {"uri": "s3://bucket/x"}}, {}),
        ({"model": {"weights": "pvc://w/x.safetensors"}}, {"w": False}),
        ({"podTemplate": {"env": [{"name": "X", "value": "pvc://no/x"}]}}, {}),
        ({"a": [{"uri": "pvc://l/x"}, "pvc:///nothing"]}, {"l": False}),
    ],
)
def test_claims_in_uris(spec, claims):
    assert claims_in_uris(spec) == claims


def test_progress_is_reported_where_the_token_is_good():
    manifest, _ = built()
    assert env(manifest)["KUBEFLOW_TRAINER_SERVER_URL"] == (
        "https://progress.rfuav:8443/apis/rfuav.io/v1alpha1/namespaces/team/trainingjobs/a/status"
    )
    volume = next(v for v in manifest["spec"]["volumes"] if v["name"] == "rfuav-progress")
    token, ca = volume["projected"]["sources"]
    assert token["serviceAccountToken"]["audience"] == "rfuav.io/progress"
    assert ca["downwardAPI"]["items"][0]["fieldRef"]["fieldPath"] == "metadata.annotations['rfuav.io/progress-ca']"
    folder = next(m for m in container(manifest)["volumeMounts"] if m["name"] == "rfuav-progress")["mountPath"]
    assert env(manifest)["KUBEFLOW_TRAINER_SERVER_TOKEN"] == f"{folder}/token"
    assert env(manifest)["KUBEFLOW_TRAINER_SERVER_CA_CERT"] == f"{folder}/ca.crt"
    bare, _ = built(progress_url="")
    assert not any(name.startswith("KUBEFLOW") for name in env(bare))
    assert not any(v["name"] == "rfuav-progress" for v in bare["spec"]["volumes"])


def test_resources():
    full = Resources(gpus=1, cpu="4", memory="16Gi", shared_memory="2Gi")
    manifest, _ = built(job(raw=RAW, resources=full))
    assert container(manifest)["resources"] == {
        "requests": {"cpu": "4", "memory": "16Gi"},
        "limits": {"memory": "16Gi", "nvidia.com/gpu": "1"},
    }
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in manifest["spec"]["tolerations"]
    shm = next(v for v in manifest["spec"]["volumes"] if v["name"] == "rfuav-shm")
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}
    manifest, _ = built(job(raw=RAW, resources=Resources(gpus=0, cpu="4")))
    assert container(manifest)["resources"]["limits"] == {}
    assert manifest["spec"]["tolerations"] == []


def test_a_cpu_limit_is_set_where_the_job_asks_for_one():
    asked = Resources(gpus=0, cpu="500m", cpu_limit=2, memory="1Gi")
    manifest, _ = built(job(raw=RAW, resources=asked))
    assert container(manifest)["resources"] == {
        "requests": {"cpu": "500m", "memory": "1Gi"},
        "limits": {"cpu": "2", "memory": "1Gi"},
    }


def test_where_the_cluster_assigns_users_pods_name_only_what_their_job_names():
    def security(**wanted):
        manifest, _ = built(job(raw={**RAW, "podTemplate": {"securityContext": wanted}}), cluster_assigns_users=True)
        found = manifest["spec"]["securityContext"]
        assert found["runAsNonRoot"] is True
        return {name: found[name] for name in ("runAsUser", "runAsGroup", "fsGroup") if name in found}

    assert security() == {}
    assert security(runAsUser=1000) == {"runAsUser": 1000, "runAsGroup": 1000}
    assert security(fsGroup=2000) == {"fsGroup": 2000}
    manifest, _ = built(cluster_assigns_users=True)
    volume = next(v for v in manifest["spec"]["volumes"] if v["name"] == "rfuav-progress")
    assert volume["projected"]["defaultMode"] == 0o444


def test_the_pod_receives_the_size_of_its_scratch_space():
    manifest, _ = built()
    told = next(e for e in container(manifest)["env"] if e["name"] == "RFUAV_EPHEMERAL_STORAGE")
    field = {"containerName": "trainer", "resource": "limits.ephemeral-storage"}
    assert told["valueFrom"] == {"resourceFieldRef": field}


@pytest.mark.parametrize(("gpus", "seen"), [(0, "void"), (1, None)])
def test_a_job_sees_no_gpu_that_it_does_not_ask_for(gpus, seen):
    """The device plugin says which GPUs those of a job are; the pod's own variable would count before its word."""
    asks = {**RAW, "podTemplate": {"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]}}
    manifest, _ = built(job(raw=asks, resources=Resources(gpus=gpus, cpu="1", memory="1Gi")))
    assert env(manifest).get("NVIDIA_VISIBLE_DEVICES") == seen
    assert len({e["name"] for e in container(manifest)["env"]}) == len(container(manifest)["env"])


def test_without_a_gpu_only_where_it_is_allowed():
    assert "RFUAV_ALLOW_CPU" not in env(built()[0])
    assert env(built(allow_cpu=True)[0])["RFUAV_ALLOW_CPU"] == "1"


def test_the_pod_template_is_merged_and_cannot_take_our_labels():
    template = {
        "metadata": {"labels": {"team": "rf", "rfuav.io/job": "forged"}, "annotations": {"note": "x"}},
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "team", "operator": "Exists"}],
        "env": [{"name": "A", "value": "1"}],
        "envFrom": [{"secretRef": {"name": "s"}}],
        "imagePullSecrets": [{"name": "pull"}],
        "serviceAccountName": "runner",
        "securityContext": {"runAsUser": 1000, "fsGroup": 2000},
        "volumes": [{"name": "extra", "emptyDir": {}}],
        "volumeMounts": [{"name": "extra", "mountPath": "/extra"}],
    }
    raw = {**RAW, "podTemplate": template}
    manifest, _ = built(job(raw=raw, pod_template=PodTemplate(), image="other:2", termination_grace_period_seconds=7))
    meta, spec = manifest["metadata"], manifest["spec"]
    assert (meta["labels"]["team"], meta["labels"]["rfuav.io/job"]) == ("rf", "a")
    assert meta["annotations"]["note"] == "x"
    assert (spec["nodeSelector"], spec["serviceAccountName"]) == ({"zone": "a"}, "runner")
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert spec["tolerations"][0] == {"key": "team", "operator": "Exists"}
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["fsGroup"]) == (1000, 2000)
    assert spec["terminationGracePeriodSeconds"] == 7
    assert env(manifest)["A"] == "1"
    assert container(manifest)["envFrom"] == [{"secretRef": {"name": "s"}}]
    assert container(manifest)["volumeMounts"][-1] == {"name": "extra", "mountPath": "/extra"}
    assert container(manifest)["image"] == "other:2"


def test_two_builds_are_equal():
    assert built()[0] == built()[0]
