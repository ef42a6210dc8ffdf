"""The bodies of the model service: each field, default and bound, as its clients know them."""

import pytest
from pydantic import ValidationError

from rfuav_gateway.tasks import bodies

REQUIRED = "required"
TRAINING = {
    "model": REQUIRED,
    "num_classes": REQUIRED,
    "train_path": REQUIRED,
    "val_path": REQUIRED,
    "save_path": REQUIRED,
    "name": None,
    "batch_size": 8,
    "num_epochs": 100,
    "learning_rate": 1e-4,
    "image_size": 224,
    "device": "cuda",
    "weight_path": "",
    "pretrained": True,
    "shuffle": True,
    "task_id": None,
    "priority": 5,
    "description": None,
    "callback_url": None,
}
INFERENCE = {
    "cfg_path": REQUIRED,
    "weight_path": REQUIRED,
    "source_path": REQUIRED,
    "save_path": None,
    "name": None,
    "device": "cuda",
    "task_id": None,
    "priority": 3,
    "callback_url": None,
}
BATCH = {
    "cfg_path": REQUIRED,
    "weight_path": REQUIRED,
    "source_paths": REQUIRED,
    "save_base_path": None,
    "task_id": None,
    "device": "cuda",
    "priority": 3,
    "callback_url": None,
}
SPLIT = {
    "input_path": REQUIRED,
    "output_path": REQUIRED,
    "train_ratio": 0.8,
    "val_ratio": None,
    "task_id": None,
    "description": None,
}
AUGMENT = {"dataset_path": REQUIRED, "output_path": None, "methods": None, "task_id": None, "description": None}
CROP = {
    "input_path": REQUIRED,
    "output_path": REQUIRED,
    "x": REQUIRED,
    "y": REQUIRED,
    "width": REQUIRED,
    "height": REQUIRED,
    "task_id": None,
    "description": None,
}


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (bodies.TrainingStart, TRAINING),
        (bodies.InferenceStart, INFERENCE),
        (bodies.InferenceBatch, BATCH),
        (bodies.SplitStart, SPLIT),
        (bodies.AugmentStart, AUGMENT),
        (bodies.CropStart, CROP),
        (bodies.ResourcesConfig, {"max_concurrent": REQUIRED}),
    ],
)
def test_requests(model, fields):
    found = {name: REQUIRED if f.is_required() else f.default for name, f in model.model_fields.items()}
    assert found == fields


def named(text: str) -> set[str]:
    return set(text.split())


USE = {"training", "inference"}
GPU = named(
    "id device_name name compute_capability total_memory_gb allocated_memory_gb cached_memory_gb free_memory_gb "
    "utilization current_tasks"
)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (bodies.Action, {"status", "message", "task_id"}),
        (bodies.BatchStarted, {"status", "message", "task_ids", "total"}),
        (bodies.TaskList, {"training_tasks", "inference_tasks", "total_training", "total_inference"} | {"next_cursor"}),
        (bodies.LogEntry, {"timestamp", "level", "message", "metrics", "step", "stage", "attempt", "shard", "rank"}),
        (bodies.LogEnd, {"status", "message"}),
        (bodies.Use, USE),
        (bodies.ActiveTask, {"id", "type"} | {"namespace"}),
        (bodies.Resources, {"device_usage", "active_tasks", "limits", "gpu_info"} | {"pool", "queue"}),
        (bodies.Gpu, GPU | {"limits", "node", "node_index", "schedulable"}),
        (bodies.Gpus, {"available", "count", "cuda_version", "pytorch_version", "devices"}),
        (
            bodies.Cpu,
            {"percent", "per_cpu_percent", "cores", "physical_cores", "freq_mhz", "load_avg", "memory_percent"}
            | {"nodes"},
        ),
        (bodies.ConfigChanged, {"status", "message", "current_config"}),
        (
            bodies.Health,
            named("status timestamp version training_tasks inference_tasks active_log_streams resource_status"),
        ),
        (bodies.ResourceStatus, {"gpu_available", "gpu_count"}),
        (
            bodies.Info,
            {"app_name", "version", "environment", "supported_models", "resource_limits", "gpu_available"},
        ),
        (
            bodies.ResourceLimits,
            {f"max_{kind}_concurrent_{device}" for kind in ("training", "inference") for device in ("gpu", "cpu")},
        ),
        (
            bodies.Preparation,
            named("task_id task_type status message progress input_path output_path stats created_at updated_at"),
        ),
    ],
)
def test_answers(model, fields):
    assert set(model.model_fields) == fields


def test_networks():
    assert bodies.MODELS == (
        "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
        "vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14",
        "swin_v2_t", "swin_v2_s", "swin_v2_b", "mobilenet_v3_small", "mobilenet_v3_large",
    )  # fmt: skip


START = {"model": "resnet18", "num_classes": 37, "train_path": "data/train", "val_path": "data/val", "save_path": "out"}


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("model", ["vit_h_14"], ["custom", "resnet19", "", 5]),
        ("num_classes", [2, 10_000, "37"], [1, 0, -1, 10_001, 2.5, "many", None]),
        ("train_path", ["a", "x" * 1024], ["", "x" * 1025, "a\0b", "\ud800", None, 5]),
        ("val_path", ["a"], ["", None]),
        ("save_path", ["a"], ["", None]),
        ("name", ["run1", "", None], ["x" * 201, 5]),
        ("batch_size", [1, 65_536], [0, 65_537, True and "auto"]),
        ("num_epochs", [1, 100_000], [0, 100_001]),
        ("learning_rate", [1e-9, 1, "0.001"], [0, -1, 1.1, "nan", "inf", 1e400]),
        ("image_size", [32, 2048], [31, 2049]),
        ("device", ["cpu", "cuda", "cuda:0", "cuda:15"], ["", "gpu", "cuda:", "cuda:x", "CUDA", "cuda:0\n", "mps", 0]),
        ("weight_path", ["", "best.pth"], [None, "x" * 1025]),
        ("pretrained", [True, False, "false", 0], ["perhaps", None]),
        ("shuffle", [True, False], [2]),
        ("task_id", ["a", "x" * 253, "", None, "无人机"], ["x" * 254, 5, "\udfff"]),
        ("priority", [1, 10], [0, 11, -1, 1.5]),
        ("description", ["", None, "x" * 4096], ["x" * 4097]),
    ],
)
def test_bounds(field, good, bad):
    for value in good:
        bodies.TrainingStart(**(START | {field: value}))
    for value in bad:
        with pytest.raises(ValidationError) as error:
            bodies.TrainingStart(**(START | {field: value}))
        assert error.value.errors()[0]["loc"] == (field,)


def test_what_is_unknown_is_ignored():
    assert not hasattr(bodies.TrainingStart(**START, gpu_count=4), "gpu_count")


def test_a_batch_has_sources():
    start = {"cfg_path": "a.yaml", "weight_path": "b.pth"}
    assert bodies.InferenceBatch(**start, source_paths=["a"] * 1000)
    for sources in ([], ["a"] * 1001, [""], "a"):
        with pytest.raises(ValidationError):
            bodies.InferenceBatch(**start, source_paths=sources)
