"""Which changes that a webhook makes to a pod as it is created are not accepted."""

import copy

import pytest
from unit.core.builders import DEFAULTS, admitted, job, whole

from rfuav_crds import contract
from rfuav_operator.core.job import podspec
from rfuav_operator.core.job.altered import altered
from rfuav_operator.core.model import Resources


def asked(**changes):
    (one,) = admitted(job(**changes), nodes=[whole()])
    return podspec.manifest(one, one.status.assignments[0], DEFAULTS)


def container(made):
    return made["spec"]["containers"][0]


def variable(made, name):
    return next(one for one in container(made)["env"] if one["name"] == name)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda p: p["metadata"].pop("labels"), "its label rfuav.io/"),
        (lambda p: p["metadata"]["labels"].pop(contract.LABEL_POOL), "its label rfuav.io/pool"),
        (lambda p: p["metadata"]["labels"].update({contract.LABEL_ATTEMPT: "7"}), "its label rfuav.io/attempt"),
        (lambda p: p["metadata"].pop("ownerReferences"), "its owner"),
        (lambda p: p["metadata"]["ownerReferences"][0].update(controller=False), "its owner"),
        (lambda p: p["spec"].update(restartPolicy="Always"), "its restartPolicy"),
        (lambda p: container(p).update(name="main"), "the name of its container trainer"),
        (lambda p: container(p).pop("env"), "the variable RFUAV_JOB of its container trainer"),
        (lambda p: variable(p, contract.JOB).update(value="{}"), "the variable RFUAV_JOB of"),
        (
            lambda p: container(p)["env"].append({"name": contract.PROGRESS_URL, "value": "https://elsewhere"}),
            f"the variable {contract.PROGRESS_URL} of",
        ),
        (lambda p: container(p)["resources"]["limits"].update({contract.GPU: "3"}), "the GPUs of its container"),
        (lambda p: container(p)["resources"]["limits"].pop(contract.GPU), "the GPUs of its container"),
    ],
)
def test_what_a_job_cannot_be_without(change, what):
    made = copy.deepcopy(asked())
    change(made)
    assert altered(asked(), made).startswith(what)


def test_a_pod_without_gpus_that_is_shown_all_of_them():
    plan = asked(resources=Resources(gpus=0, cpu="1", memory="1Gi"))
    made = copy.deepcopy(plan)
    container(made)["env"].append({"name": contract.VISIBLE_DEVICES, "value": "all"})
    assert altered(plan, made) == "the variable NVIDIA_VISIBLE_DEVICES of its container trainer"


@pytest.mark.parametrize(
    "change",
    [
        lambda p: None,
        lambda p: p["metadata"].update(uid="u", resourceVersion="1", finalizers=["mesh"]),
        lambda p: p["metadata"]["labels"].update(mesh="on"),
        lambda p: p["spec"]["containers"].insert(0, {"name": "proxy", "image": "mesh"}),
        lambda p: p["spec"].update(initContainers=[{"name": "setup"}], nodeName="n2", priority=0),
        lambda p: container(p).update(command=["/wrapper"], imagePullPolicy="Always"),
        lambda p: container(p)["env"].append({"name": "HTTPS_PROXY", "value": "http://proxy"}),
        lambda p: variable(p, "TMPDIR").update(value="/scratch"),
        lambda p: container(p)["resources"]["requests"].update({"cpu": "4", contract.GPU: "1"}),
        lambda p: p["spec"].pop("affinity"),  # it counts where it is bound
    ],
)
def test_what_others_may_change(change):
    made = copy.deepcopy(asked())
    change(made)
    assert altered(asked(), made) == ""
