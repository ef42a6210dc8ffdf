"""The two sides that `bench.infer` measures ours against: files in, lines of predictions out, nothing else written.

`reference_*` do what the reference service does: one input after the other in float32, PIL and torchvision's transforms
for images; SciPy's transform and a figure of matplotlib for each frame of a recording. `tuned` is plain PyTorch as a
good tutorial has it: a DataLoader with workers, batches, channels last, bfloat16 where the processor multiplies it; on
a GPU with pinned memory too.
"""

import io
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from PIL import Image
from scipy.signal import stft, windows
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

mpl.use("Agg")
SIZE = 224
BATCH = {"cpu": 16, "cuda": 256}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FRAME, POINTS, RATE = 10_000_000, 1024, 100e6
TRANSFORM = transforms.Compose(
    [transforms.Resize((SIZE, SIZE)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
)


def _line(stream: Any, name: str, scores: torch.Tensor) -> None:
    best = scores.topk(5)
    top = [[int(i), round(float(s), 6)] for i, s in zip(best.indices, best.values, strict=True)]
    stream.write(json.dumps({"path": name, "top": top}) + "\n")


# --- the reference's way


def reference_images(network: nn.Module, files: list[Path], output: Path) -> None:
    """One image at a time, on the network's device."""
    device = next(network.parameters()).device
    with output.open("w") as stream, torch.no_grad():
        for path in files:
            image = TRANSFORM(Image.open(path).convert("RGB"))
            _line(stream, path.name, functional.softmax(network(image.unsqueeze(0).to(device)), dim=1)[0].cpu())


def reference_iq(network: nn.Module, recording: Path, frames: int, output: Path) -> None:
    """A frame at a time: transform, decibels, a figure in colours, back from PNG, through the network."""
    device = next(network.parameters()).device
    with output.open("w") as stream, torch.no_grad():
        for frame in range(frames):
            values = np.fromfile(recording, dtype=np.float32, count=2 * FRAME, offset=frame * FRAME * 8)
            samples = values[0::2] + 1j * values[1::2]
            window = windows.hamming(POINTS)
            _, _, found = stft(
                samples, RATE, window=window, nperseg=POINTS, noverlap=POINTS // 2, return_onesided=False
            )
            levels = 10 * np.log10(np.abs(np.fft.fftshift(found, axes=0)) + 1e-15)
            plt.figure()
            plt.imshow(levels, aspect="auto", origin="lower", cmap="jet")
            plt.axis("off")
            buffer = io.BytesIO()
            plt.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0)
            plt.close()
            image = TRANSFORM(Image.open(buffer).convert("RGB"))
            _line(stream, f"{frame}", functional.softmax(network(image.unsqueeze(0).to(device)), dim=1)[0].cpu())


# --- tuned plain PyTorch


class Images(Dataset[torch.Tensor]):
    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        tensor: torch.Tensor = TRANSFORM(Image.open(self.files[index]).convert("RGB"))
        return tensor


class Frames(Dataset[torch.Tensor]):
    def __init__(self, recording: Path, frames: int) -> None:
        self.recording, self.frames = recording, frames

    def __len__(self) -> int:
        return self.frames

    def __getitem__(self, index: int) -> torch.Tensor:
        values = torch.from_numpy(np.fromfile(self.recording, np.float32, 2 * FRAME, offset=index * FRAME * 8))
        samples = torch.view_as_complex(values.view(-1, 2))
        window = torch.hamming_window(POINTS)
        found = torch.stft(
            samples, POINTS, POINTS // 2, window=window, center=False, onesided=False, return_complex=True
        )
        levels = 10 * torch.log10(torch.fft.fftshift(found, dim=0).abs().clamp_min(1e-15))
        small = functional.interpolate(levels[None, None], (SIZE, SIZE), mode="bilinear", antialias=True)[0]
        return ((small - small.min()) / (small.max() - small.min())).expand(3, -1, -1)


def tuned(
    network: nn.Module,
    dataset: Images | Frames,
    output: Path,
    *,
    workers: int,
    autocast: torch.autocast,
) -> None:
    """Batches from worker processes, on the network's device."""
    device = next(network.parameters()).device
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    gpu = device.type == "cuda"
    size = BATCH[device.type]
    if gpu:  # such large batches would leave workers without any
        size = max(1, min(size, len(dataset) // max(1, workers)))
    number = 0
    with output.open("w") as stream, torch.inference_mode(), autocast:
        for batch in DataLoader(dataset, size, num_workers=workers, pin_memory=gpu):
            given = batch.to(device, non_blocking=True, memory_format=torch.channels_last)
            for row in network(given).float().softmax(dim=1).cpu():
                _line(stream, f"{number}", row)
                number += 1
