"""Whole trainings: what was decided once stays, running out of memory says what would have fitted, networks of one's own."""

import json
import shutil
import weakref

import pytest
import torch
from safetensors.torch import load_file
from trainer.runs import history, run, same_weights, stopped
from trainer.trainer_kit import inference_spec, training_spec

from rfuav_trainer import errors
from rfuav_trainer.data.images import TRANSFORM
from rfuav_trainer.distributed.process_group import World
from rfuav_trainer.errors import GpuOutOfMemoryError, InvalidConfigurationError
from rfuav_trainer.inference import infer
from rfuav_trainer.networks import architectures, memory_fit, precision, weights
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.reporting.progress import Progress
from rfuav_trainer.training import learner
from rfuav_trainer.training.auto_settings import resolve


def test_the_averaged_weights_are_those_that_were_validated(image_desk):
    from rfuav_trainer.data.samples import Reader

    run(image_desk, training_spec(training__emaDecay=0.9, training__precision="fp32"))
    out = image_desk / "models/out"
    card = weights.read_card(out / "last.safetensors")
    network = architectures.build(card.architecture, 3, 64)
    weights.load(out / "last.safetensors", network, architecture=card.architecture)
    job = image_desk.job("TrainingJob", training_spec(training__emaDecay=0.9, training__precision="fp32"))
    from rfuav_trainer.data.dataset import open_dataset

    samples = open_dataset(job, job.spec).validation
    reader = Reader(card.preprocessing)
    pictures = card.preprocessing.normalise(torch.stack([reader.read(sample) for sample in samples]))
    labels = torch.tensor([sample.label for sample in samples])
    with torch.no_grad():
        found = torch.nn.functional.cross_entropy(network.eval()(pictures), labels).item()
    assert found == pytest.approx(history(out)[-1]["valLoss"], rel=1e-4)


def test_what_was_decided_once_stays_on_another_machine(image_desk, monkeypatch):
    spec = training_spec(training__batchSize="auto", training__precision="auto", training__epochs=2)
    monkeypatch.setattr(precision, "resolve", lambda *_: "fp32")
    monkeypatch.setattr(memory_fit, "batch_size", lambda *_: 4)
    stopped(image_desk, spec, 2)
    monkeypatch.setattr(precision, "resolve", lambda *_: "fp16")
    monkeypatch.setattr(memory_fit, "batch_size", lambda *_: 2)
    run(image_desk, spec)
    report = json.loads((image_desk / "models/out/report.json").read_text())
    assert report["resolved"] == {"precision": "fp32", "batch_size": 4, "transform": TRANSFORM}
    monkeypatch.undo()
    run(
        image_desk,
        training_spec(
            training__batchSize=4, training__precision="fp32", training__epochs=2, output__uri="pvc://models/2"
        ),
        uid="u2",
    )
    assert same_weights(image_desk / "models/out/last.safetensors", image_desk / "models/2/last.safetensors")


# --- memory


@pytest.mark.parametrize(
    ("room", "most", "expected"), [(0, 8, 0), (1, 8, 1), (7, 8, 4), (8, 8, 8), (100, 8, 8), (100, 7, 4)]
)
def test_the_largest_that_fits(room, most, expected):
    tried = []
    assert memory_fit.largest(lambda n: tried.append(n) or n <= room, most) == expected
    assert tried == sorted(tried)


def test_auto_counts_what_a_pass_keeps_and_leaves_no_trace():
    torch.manual_seed(0)
    network = architectures.build("resnet18", 3, 64)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    cpu = torch.device("cpu")
    each = (memory_fit.kept_bytes(network, 4, 64, cpu, "fp32") - memory_fit.kept_bytes(network, 2, 64, cpu, "fp32")) / 2
    network.load_state_dict(before)
    assert 1.2e6 < each < 3e6  # some 22 MB at 224 pixels, and it goes by their number
    weights_bytes = 4 * sum(p.numel() for p in network.parameters()) * memory_fit.COPIES
    memory = 2 * (weights_bytes + 9 * each)
    assert memory_fit.batch_size(network, 64, cpu, "fp32", int(memory)) == 8
    assert memory_fit.batch_size(network, 64, cpu, "fp32", 2**40) == memory_fit.MOST["cpu"]
    assert memory_fit.batch_size(network, 64, cpu, "fp32", 0) == 1
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in network.parameters())


def _memory_for(count, monkeypatch):
    """A network that runs out of memory with more pictures than `count`."""
    build = architectures.build

    def small(*arguments, **options):
        network = build(*arguments, **options)

        def look(_, inputs):
            if len(inputs[0]) > count:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore")

        network.register_forward_pre_hook(look)
        return network

    monkeypatch.setattr(architectures, "build", small)


@pytest.mark.parametrize(
    ("room", "advice"),
    [
        (
            2,
            "2 fit: write batchSize: 2 with gradientAccumulation: 4, which gives steps of the same size, or batchSize: auto",
        ),
        (0, "not even one picture fits: lower imageSize"),
    ],
)
def test_out_of_memory_says_what_would_have_fitted(image_desk, monkeypatch, room, advice):
    _memory_for(room, monkeypatch)
    with pytest.raises(GpuOutOfMemoryError, match=advice) as caught:
        run(image_desk, training_spec(training__batchSize=8))
    failure = errors.describe(caught.value)
    assert (failure.exit_code, failure.reason) == (4, "GPUOutOfMemory")
    assert failure.message.startswith("the GPU ran out of memory with batchSize 8 at imageSize 64 in")


def test_what_would_have_fitted_is_tried_without_the_batch_that_did_not(image_desk, monkeypatch):
    """Its activations live as long as the error that came of it."""
    alive, tried = [], []

    def step(_learner, group, _moment):
        activations = torch.zeros(10)
        alive.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(learner.Learner, "step", step)
    monkeypatch.setattr(memory_fit, "step_fits", lambda *_: bool(tried.append(alive[0]())) or True)
    with pytest.raises(GpuOutOfMemoryError, match="4 fit: write batchSize: 4 with gradientAccumulation: 2"):
        run(image_desk, training_spec(training__batchSize=8))
    assert tried == [None, None, None]


def test_the_advice_takes_steps_as_large_as_they_were():
    found = GpuOutOfMemoryError.advising(
        size=48, fitting=32, image_size=224, accumulation=1, precision="bf16", problem="no room"
    )
    assert "32 fit: write batchSize: 24 with gradientAccumulation: 2, which gives steps of the same size" in str(found)
    found = GpuOutOfMemoryError.advising(
        size=7, fitting=4, image_size=224, accumulation=1, precision="bf16", problem="no room"
    )
    assert "write batchSize: 4 with gradientAccumulation: 2, which gives steps of 8 pictures" in str(found)


def test_trying_on_the_device_finds_what_fits(monkeypatch):
    _memory_for(4, monkeypatch)
    network = architectures.build("mobilenet_v3_small", 3, 64)
    cpu = torch.device("cpu")
    assert [memory_fit.step_fits(network, n, 64, cpu, "fp32") for n in (1, 4, 5, 8)] == [True, True, False, False]


def test_a_cpu_that_cannot_allocate_is_out_of_memory_too():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    failure = errors.describe(caught.value)
    assert (failure.exit_code, failure.reason) == (1, "OutOfHostMemory")


def test_what_auto_means_on_this_cpu():
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert precision.resolve("auto", torch.device("cpu")) == ("bf16" if fast else "fp32")
    assert precision.resolve("fp16", torch.device("cpu")) == "fp16"


@pytest.mark.parametrize(("architecture", "expected"), [("resnet18", "bf16"), ("mobilenet_v3_small", "fp32")])
def test_auto_knows_which_networks_are_slower_in_bf16(desk, monkeypatch, architecture, expected):
    monkeypatch.setattr(precision, "resolve", lambda asked, _: "bf16" if asked == "auto" else asked)
    network, cpu = architectures.build(architecture, 3, 64), torch.device("cpu")
    for asked, found in (("auto", expected), ("bf16", "bf16")):
        job = desk.job("TrainingJob", training_spec(training__precision=asked))
        assert resolve(job, job.spec, network, device=cpu, world=World(), samples=9).precision == found


@pytest.mark.parametrize(
    ("capability", "asked", "expected"),
    [((9, 0), "auto", "bf16"), ((7, 5), "auto", "fp16"), ((7, 5), "fp32", "fp32"), ((8, 0), "bf16", "bf16")],
)
def test_what_auto_means_on_a_gpu(monkeypatch, capability, asked, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert precision.resolve(asked, torch.device("cuda", 0)) == expected


def test_bf16_on_an_old_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    with pytest.raises(InvalidConfigurationError, match="a Tesla T4 has no bfloat16: write auto or fp16"):
        precision.resolve("bf16", torch.device("cuda", 0))


def test_augmentations_of_recordings_are_refused_for_pictures(image_desk):
    with pytest.raises(InvalidConfigurationError, match="AddNoise, TimeCrop work on raw recordings"):
        run(image_desk, training_spec(training__augment=["TimeCrop", "CLAHE", "AddNoise"]))


# --- a network of one's own

CUSTOM = """
from torch import nn
def build(classes, size):
    return nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(3 * 64, classes))
def wrong(classes, size):
    return nn.Flatten()
def nothing(classes, size):
    return classes
def broken(classes, size):
    raise KeyError("x")
def tied(classes, size):
    one, two = nn.Linear(192, 192), nn.Linear(192, 192)
    two.weight = one.weight
    return nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), one, two, nn.Linear(192, classes))
class Extra(nn.Flatten):
    def get_extra_state(self):
        return {"seen": 1}
    def set_extra_state(self, state):
        pass
class Views(nn.Module):
    def __init__(self, classes, mode):
        super().__init__()
        self.body, self.head, self.mode = nn.Conv2d(3, 4, 3, stride=8), nn.LazyLinear(classes), mode
    def forward(self, pictures):
        found = self.body(pictures)
        return self.head(found.view(len(found), -1) if self.training is self.mode else found.flatten(1))
def views(classes, size, mode=True):
    from torch import zeros
    network = Views(classes, mode)
    network.train(not mode)(zeros(1, 3, size, size))
    return network
def views_at_last(classes, size):
    return views(classes, size, mode=False)
class Stuck(nn.Sequential):
    def forward(self, pictures):
        return super().forward(pictures).detach()
def stuck(classes, size):
    return Stuck(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(192, classes))
class Auxiliary(nn.Sequential):
    def forward(self, pictures):
        found = super().forward(pictures)
        return (found, found) if self.training else found
def auxiliary(classes, size):
    return Auxiliary(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(192, classes))
def lazy(classes, size):
    return nn.Sequential(nn.LazyConv2d(4, 3, stride=8), nn.Flatten(), nn.LazyLinear(classes))
def volume(classes, size):
    return nn.Sequential(nn.Unflatten(1, (3, 1)), nn.Conv3d(3, 4, (1, 3, 3)), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, classes))
def normed(classes, size):
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, classes))
def unsaved(classes, size):
    return nn.Sequential(nn.AdaptiveAvgPool2d(8), Extra(), nn.Linear(192, classes))
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(CUSTOM)
    (tmp_path / "my_torn.py").write_text("def build(")
    monkeypatch.syspath_prepend(tmp_path)


def custom_spec(function, **changes):
    return training_spec(model={"architecture": "custom", "custom": function}, **changes)


def test_a_network_of_ones_own_trains_and_infers(image_desk, own_module):
    run(image_desk, custom_spec("my_networks:build"))
    assert load_file(image_desk / "models/out/last.safetensors")["2.weight"].shape == (3, 192)
    shutil.copytree(image_desk / "captures/train", image_desk / "captures/test")
    with pytest.raises(InvalidConfigurationError, match=r"write model.custom: module:function"):
        infer.run(image_desk.job("InferenceJob", inference_spec()), Progress(None), StopSignal())
    job = image_desk.job("InferenceJob", inference_spec(model__custom="my_networks:build"))
    infer.run(job, Progress(None), StopSignal())
    assert len((image_desk / "results/out/predictions-0.jsonl").read_text().splitlines()) == 24


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("my_networks:absent", "cannot be imported"),
        ("no_such_module_here:build", "cannot be imported.*PYTHONPATH"),
        ("my_networks:nothing", "returns a int: return a torch.nn.Module"),
        ("my_networks:broken", "fails: KeyError"),
        ("my_torn:build", "cannot be imported .SyntaxError"),
        ("my_networks:views", r"in train\(\) .*fails for pictures .*RuntimeError: view size.*write reshape or flatten"),
        ("my_networks:views_at_last", r"in eval\(\) .*RuntimeError: view size.*write reshape or flatten"),
        ("my_networks:stuck", "fails: RuntimeError: element 0 of tensors does not require grad"),
        (
            "my_networks:auxiliary",
            r"in train\(\) .* maps two pictures to a tuple: return one tensor \(2, 3\), without",
        ),
        ("my_networks:unsaved", r"weights of my_networks:unsaved cannot be saved .* tensors"),
        ("my_networks:wrong", r"maps two pictures to \(2, 12288\): return one tensor \(2, 3\)"),
    ],
)
def test_what_is_wrong_with_it_is_said_at_once(image_desk, own_module, function, message):
    with pytest.raises(InvalidConfigurationError, match=message) as caught:
        run(image_desk, custom_spec(function))
    assert caught.value.reason == "CustomModel"


@pytest.mark.parametrize("function", ["volume", "lazy"])
def test_weights_of_five_dimensions_or_without_a_shape_train_and_infer(image_desk, own_module, function):
    run(image_desk, custom_spec(f"my_networks:{function}", training__epochs=1))
    shutil.copytree(image_desk / "captures/train", image_desk / "captures/test")
    job = image_desk.job("InferenceJob", inference_spec(model__custom=f"my_networks:{function}"))
    infer.run(job, Progress(None), StopSignal())
    assert len((image_desk / "results/out/predictions-0.jsonl").read_text().splitlines()) == 24


def test_a_batch_of_one_picture_never_ends_a_training(image_desk, own_module):
    """18 pictures in batches of 17 leave one, and so does a damaged file in a batch of two."""
    run(image_desk, custom_spec("my_networks:normed", training__batchSize=17, training__epochs=2))
    (image_desk / "captures/train/alpha/003.png").write_bytes(b"damaged")
    spec = custom_spec("my_networks:normed", training__batchSize=2, training__epochs=2, dataset__errorThreshold=0.5)
    run(image_desk, {**spec, "output": {"uri": "pvc://models/other"}})
    assert len((image_desk / "models/other/history.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("decay", [None, 0.9])
def test_weights_that_layers_share_are_saved_and_read(image_desk, own_module, decay):
    run(image_desk, custom_spec("my_networks:tied", training__epochs=1, training__emaDecay=decay))
    state = load_file(image_desk / "models/out/best.safetensors")
    assert torch.equal(state["2.weight"], state["3.weight"])
    again = custom_spec("my_networks:tied", training__epochs=1, output__uri="pvc://models/again")
    again["model"]["weights"] = "pvc://models/out/best.safetensors"
    run(image_desk, again, uid="u2")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"custom": "my_networks:tied"}, "custom: .my_networks:build. in the checkpoint, .my_networks:tied. now"),
        (
            {"weights": "pvc://models/out/last.safetensors"},
            "weights: .none. in the checkpoint, .*last.safetensors. now",
        ),
    ],
)
def test_a_checkpoint_of_another_function_or_start_is_refused(image_desk, own_module, other, message):
    run(image_desk, custom_spec("my_networks:build", training__epochs=1))
    (image_desk / "models/out/_SUCCESS").unlink()
    spec = custom_spec("my_networks:build", training__epochs=1)
    spec["model"] |= other
    with pytest.raises(InvalidConfigurationError, match=message) as caught:
        run(image_desk, spec)
    assert caught.value.reason == "CheckpointMismatch"
