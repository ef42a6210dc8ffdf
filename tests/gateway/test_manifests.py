"""The jobs that creates ask for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfuav_crds import InferenceJob, TrainingJob, load_object
from rfuav_gateway.tasks import manifests
from rfuav_gateway.tasks.bodies import MODELS, InferenceBatch, InferenceStart, TrainingStart
from rfuav_gateway.tasks.manifests import Terms
from rfuav_gateway.tasks.roots import Places
from rfuav_gateway.tasks.words import ENGLISH, RefusedError

PLACES = Places(roots={"/data": "pvc://captures", "/data/models": "pvc://models"}, base="/data")
TERMS = Terms(places=PLACES, weights_cache="pvc://models/imagenet")
TRAINING = {
    "model": "resnet18",
    "num_classes": 3,
    "train_path": "data/train",
    "val_path": "/data/val",
    "save_path": "models/output_3",
}
INFERENCE = {"cfg_path": "cfg.yaml", "weight_path": "models/best.pth", "source_path": "flights/day 1"}


def training(terms=TERMS, task_id="my task", **changes):
    return manifests.training(
        TrainingStart(**(TRAINING | changes)), namespace="team-a", task_id=task_id, terms=terms, created_by="eve"
    )


def inference(terms=TERMS, task_id="my task", **changes):
    return manifests.inference(
        InferenceStart(**(INFERENCE | changes)), namespace="team-a", task_id=task_id, terms=terms, created_by="eve"
    )


def test_a_training_as_old_clients_start_it():
    manifest, notes = training()
    digest = manifest["metadata"]["annotations"].pop("rfuav.io/task-digest")
    assert len(digest) == 64
    assert manifest == {
        "apiVersion": "rfuav.io/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {
            "name": manifest["metadata"]["name"],
            "namespace": "team-a",
            "annotations": {
                "rfuav.io/task-id": "my task",
                "rfuav.io/task-device": "cuda",
                "rfuav.io/created-by": "eve",
            },
        },
        "spec": {
            "model": {"architecture": "resnet18", "numClasses": 3, "weights": "pretrained"},
            "dataset": {
                "train": {"uri": "pvc://captures/data/train"},
                "validation": {"uri": "pvc://captures/val"},
                "imageSize": 224,
            },
            "training": {"epochs": 100, "batchSize": 8, "optimizer": {"name": "adam", "learningRate": 1e-4}},
            "output": {"uri": "pvc://models/output_3", "overwrite": True},
            "weightsCache": {"uri": "pvc://models/imagenet"},
            "resources": {"gpus": 1},
            "pool": "default",
            "priorityClassName": "rfuav-training-p5",
        },
    }
    assert manifest["metadata"]["name"].startswith("my-task-")
    assert notes == ()


def test_the_rest_is_as_the_service_trained():
    """The defaults of the CRD were made from it; a change of them would change what its clients get."""
    job = load_object(training().manifest)
    assert isinstance(job, TrainingJob)
    loop = job.spec.training
    assert (loop.schedule.name, loop.schedule.warmup_epochs, loop.optimizer.weight_decay) == ("constant", 0, 0)
    assert (loop.label_smoothing, loop.mixup, loop.ema_decay, loop.class_weights, loop.augment) == (0, 0, 0, "none", [])
    assert (loop.early_stopping, loop.gradient_accumulation, loop.clip_norm, job.spec.nodes) == (None, 1, None, 1)


@pytest.mark.parametrize(
    ("changes", "path", "value"),
    [
        ({"model": "vit_b_16"}, "model.architecture", "vit_b_16"),
        ({"num_classes": 37}, "model.numClasses", 37),
        ({"train_path": "s3://bucket/train"}, "dataset.train.uri", "s3://bucket/train"),
        ({"val_path": "v"}, "dataset.validation.uri", "pvc://captures/v"),
        ({"save_path": "/data/models"}, "output.uri", "pvc://models"),
        ({"name": "run 1"}, "output.uri", "pvc://models/output_3/run 1"),
        ({"name": ""}, "output.uri", "pvc://models/output_3"),
        ({"batch_size": 16}, "training.batchSize", 16),
        ({"num_epochs": 5}, "training.epochs", 5),
        ({"learning_rate": 0.01}, "training.optimizer.learningRate", 0.01),
        ({"image_size": 64}, "dataset.imageSize", 64),
        ({"device": "cpu"}, "resources.gpus", 0),
        ({"device": "cuda:3"}, "resources.gpus", 1),
        ({"weight_path": "models/a.pth"}, "model.weights", "pvc://models/a.pth"),
        ({"pretrained": False}, "model.weights", "none"),
        ({"priority": 1}, "priorityClassName", "rfuav-training-p1"),
    ],
)
def test_where_each_field_goes(changes, path, value):
    found = training(**changes).manifest["spec"]
    for step in path.split("."):
        found = found[step]
    assert found == value


def test_fields_that_are_annotations():
    annotations = training(description="first try", device="cuda:3").annotations
    assert annotations["rfuav.io/task-description"] == "first try"
    assert annotations["rfuav.io/task-device"] == "cuda:3"


def test_what_is_not_as_asked_is_said():
    assert [note.text(ENGLISH) for note in training(device="cuda:3", shuffle=False).notes] == [
        "device cuda:3: the cluster chooses the GPU",
        ENGLISH.always_shuffled,
    ]


def test_the_cache_is_named_only_where_it_is_read():
    assert "weightsCache" not in training(weight_path="models/a.pth").manifest["spec"]
    assert "weightsCache" not in training(pretrained=False).manifest["spec"]


def test_an_inference_as_old_clients_start_it():
    manifest, notes = inference()
    name = manifest["metadata"]["name"]
    assert len(manifest["metadata"]["annotations"].pop("rfuav.io/task-digest")) == 64
    assert manifest == {
        "apiVersion": "rfuav.io/v1alpha1",
        "kind": "InferenceJob",
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "annotations": {
                "rfuav.io/task-id": "my task",
                "rfuav.io/task-device": "cuda",
                "rfuav.io/created-by": "eve",
            },
        },
        "spec": {
            "model": {"weights": "pvc://models/best.pth", "config": "pvc://captures/cfg.yaml"},
            "input": {"uri": "pvc://captures/flights/day 1"},
            "output": {
                "uri": f"pvc://captures/flights/day 1_results/{name}",
                "annotate": "all",
                "overwrite": True,
            },
            "resources": {"gpus": 1},
            "pool": "default",
            "priorityClassName": "rfuav-inference-p3",
        },
    }
    assert notes == ()


@pytest.mark.parametrize(
    ("changes", "terms", "uri"),
    [
        ({"save_path": "out"}, TERMS, "pvc://captures/out"),
        ({"save_path": "out", "name": "a"}, TERMS, "pvc://captures/out/a"),
        ({"name": "a"}, TERMS, "pvc://captures/flights/day 1_results/a"),
        ({"name": "a"}, Terms(places=PLACES, results="s3://results/all"), "s3://results/all/a"),
        ({"source_path": "hf://datasets/o/n", "save_path": "out"}, TERMS, "pvc://captures/out"),
        ({"source_path": "hf://datasets/o/n", "name": "a"}, Terms(places=PLACES, results="pvc://r"), "pvc://r/a"),
    ],
)
def test_where_results_go(changes, terms, uri):
    assert inference(terms, **changes).manifest["spec"]["output"]["uri"] == uri


def test_other_tasks_have_other_folders():
    one, other = (inference(task_id=task_id).manifest["spec"]["output"]["uri"] for task_id in "ab")
    assert one != other


def test_the_settings_of_all_jobs():
    terms = Terms(
        places=PLACES,
        weights_cache="pvc://w",
        pool="lab",
        resources={"cpu": "1", "memory": "4Gi", "gpuMemory": "8Gi", "sharedMemory": "1Gi"},
    )
    spec = training(terms).manifest["spec"]
    assert spec["pool"] == "lab"
    assert spec["resources"] == {"cpu": "1", "memory": "4Gi", "gpuMemory": "8Gi", "sharedMemory": "1Gi", "gpus": 1}
    assert inference(terms, device="cpu").manifest["spec"]["resources"] == {
        "cpu": "1",
        "memory": "4Gi",
        "sharedMemory": "1Gi",
        "gpus": 0,
    }
    assert terms.resources["gpuMemory"] == "8Gi"


def refused(make, *arguments, **changes):
    with pytest.raises(RefusedError) as error:
        make(*arguments, **changes)
    return [(one.field, one.index, one.what.text(ENGLISH)) for one in error.value.problems]


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"train_path": "/etc"}, "train_path", "/etc is outside of the folders"),
        ({"val_path": "../x"}, "val_path", "../x leaves /data"),
        ({"save_path": "hf://owner/name"}, "save_path", "write pvc://CLAIM/path, s3://bucket/prefix or file:///path"),
        ({"save_path": "x" * 600}, "save_path", "string should have at most 512 characters"),
        ({"train_path": "a\nb"}, "train_path", "write pvc://CLAIM/path"),
        ({"train_path": "s3://bucket/../x"}, "train_path", "write the path without '.' and '..' steps"),
        ({"train_path": "pvc://Upper/x"}, "train_path", "write pvc://CLAIM/path"),
        ({"name": "a/b"}, "name", "a/b is not the name of one folder"),
        ({"model": "vit_b_16", "image_size": 100}, "image_size", "vit_b_16 and vit_l_16 cut pictures into patches"),
        ({"weight_path": "/etc/x.pth"}, "weight_path", "/etc/x.pth is outside of"),
    ],
)
def test_what_a_training_is_refused_for(changes, field, words):
    ((found, index, text),) = refused(training, **changes)
    assert (found, index) == (field, None)
    assert text.startswith(words)


def test_pretrained_weights_need_a_folder():
    ((field, _, text),) = refused(training, Terms(places=PLACES))
    assert field == "pretrained"
    assert text.startswith("No folder with ImageNet weights is configured (weightsCache of the gateway)")
    training(Terms(places=PLACES), pretrained=False)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"source_path": "/etc"}, "source_path", "/etc is outside of"),
        ({"cfg_path": "/etc/x"}, "cfg_path", "/etc/x is outside of"),
        ({"weight_path": "/etc/x"}, "weight_path", "/etc/x is outside of"),
        ({"save_path": "../x"}, "save_path", "../x leaves /data"),
        ({"save_path": "x", "name": ".."}, "name", ".. is not the name of one folder"),
        ({"source_path": "/data"}, "save_path", "/data has no folder beside it"),
        ({"source_path": "hf://datasets/o/n"}, "save_path", "hf://datasets/o/n has no folder beside it"),
    ],
)
def test_what_an_inference_is_refused_for(changes, field, words):
    ((found, _, text),) = refused(inference, **changes)
    assert found == field
    assert text.startswith(words)


def batch(sources, **changes):
    body = InferenceBatch(
        **({"cfg_path": "cfg.yaml", "weight_path": "models/b.pth", "source_paths": sources} | changes)
    )
    ids = [f"id-{number}" for number in range(len(sources))]
    return manifests.batch(body, namespace="team-a", task_ids=ids, terms=TERMS, created_by="eve")


def test_a_batch_is_a_job_for_each_source():
    made = batch(["a/x.iq", "b/x.iq", "c/", "a/x.iq"], save_base_path="out", priority=1, device="cpu")
    assert [one.manifest["spec"]["output"]["uri"] for one in made] == [
        "pvc://captures/out/x.iq",
        "pvc://captures/out/x.iq-2",
        "pvc://captures/out/c",
        "pvc://captures/out/x.iq-3",
    ]
    assert [one.annotations["rfuav.io/task-id"] for one in made] == ["id-0", "id-1", "id-2", "id-3"]
    assert {one.manifest["spec"]["priorityClassName"] for one in made} == {"rfuav-inference-p1"}
    assert {one.manifest["spec"]["resources"]["gpus"] for one in made} == {0}


def test_a_batch_without_a_folder_writes_beside_each_source():
    (one,) = batch(["a/x.iq"])
    assert one.manifest["spec"]["output"]["uri"].startswith("pvc://captures/a/x.iq_results/id-0-")


def test_sources_that_look_like_numbered_ones_keep_folders_of_their_own():
    made = batch(["x", "x-2", "a/x", ".", "a/" + "无" * 100], save_base_path="out")
    folders = [one.manifest["spec"]["output"]["uri"].rpartition("/")[2] for one in made]
    assert folders == ["x", "x-2", "x-3", "source", "无" * 60]


@pytest.mark.parametrize(
    ("sources", "changes", "problem"),
    [
        (["a", "/etc"], {"save_base_path": "out"}, ("source_paths", 1)),
        (["a"], {"save_base_path": "/etc"}, ("save_base_path", None)),
        (["a", "/data"], {}, ("save_base_path", None)),
        (["a"], {"cfg_path": "/etc"}, ("cfg_path", None)),
        (["a\\b"], {"save_base_path": "out"}, ("source_paths", 0)),
    ],
)
def test_a_batch_names_the_source_that_is_refused(sources, changes, problem):
    ((field, index, _),) = refused(batch, sources, **changes)
    assert (field, index) == problem


@given(st.data())
def test_every_body_is_a_job_or_refused(data):
    """What the gateway builds, the API server's own rules accept."""
    text = st.text(min_size=1, max_size=20)
    body = TrainingStart(
        model=data.draw(st.sampled_from(MODELS)),
        num_classes=data.draw(st.integers(2, 10_000)),
        train_path=data.draw(st.just("t") | text.filter(lambda s: "\0" not in s)),
        val_path="v",
        save_path="models/o",
        name=data.draw(st.none() | st.just("a") | text.filter(lambda s: "\0" not in s)),
        image_size=data.draw(st.integers(32, 2048)),
        device=data.draw(st.sampled_from(["cpu", "cuda", "cuda:0"])),
        pretrained=data.draw(st.booleans()),
        priority=data.draw(st.integers(1, 10)),
    )
    try:
        made = manifests.training(body, namespace="n", task_id="t", terms=TERMS)
    except RefusedError as error:
        assert {one.field for one in error.problems} <= {"train_path", "name", "image_size", "save_path"}
    else:
        assert isinstance(load_object(made.manifest), TrainingJob)


def test_an_inference_is_one_of_the_crd():
    assert isinstance(load_object(inference().manifest), InferenceJob)
