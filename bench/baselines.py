"""What the trainer is compared with: the reference service's way, and plain PyTorch as a careful person tunes it.

Each takes JPEG files in `<class>/` folders and trains for some epochs; both give the seconds of every epoch.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from bench import machine
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from rfuav_trainer.networks import architectures

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Folder(Dataset[tuple[torch.Tensor, int]]):
    """Pictures in class folders, opened, transformed and labelled one by one."""

    def __init__(self, root: Path, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        names = sorted(path.name for path in root.iterdir() if path.is_dir())
        self.files = [
            (path, label) for label, name in enumerate(names) for path in sorted((root / name).glob("*.[jp][pn]g"))
        ]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.files[index]
        with Image.open(path) as image:
            return self.transform(image.convert("RGB")), label


def transform(size: int) -> Callable[[Image.Image], torch.Tensor]:
    """From a picture to a network's input, as both do it."""
    to_tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    return v2.Compose([v2.Resize((size, size)), to_tensor, v2.Normalize(MEAN, STD)])


def reference(
    architecture: str,
    root: Path,
    *,
    classes: int,
    epochs: int,
    size: int,
    device: torch.device,
    order: Callable[[int, int], Sequence[int]] = lambda count, _: torch.randperm(count).tolist(),
    after: Callable[[nn.Module], None] = lambda _: None,
) -> list[float]:
    """The reference's way: float32, batch 8, no loader workers, PIL and ToTensor, `.item()` every step.

    `order` names the order of that many samples in an epoch (from 0); `after` is called with the network after each
    epoch, outside of its seconds.
    """
    folder = Folder(root, transform(size))
    network = architectures.build(architecture, classes, size).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    criterion = nn.CrossEntropyLoss()
    seconds = []
    for epoch in range(epochs):
        loader = DataLoader(folder, batch_size=8, sampler=order(len(folder), epoch), num_workers=0)
        began = time.perf_counter()
        network.train()
        total, right = 0.0, 0
        for pictures, labels in loader:
            given, wanted = pictures.to(device), labels.to(device)
            optimizer.zero_grad()
            scores = network(given)
            loss = criterion(scores, wanted)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            right += (scores.argmax(dim=1) == wanted).sum().item()
        seconds.append(time.perf_counter() - began)
        after(network)
    return seconds


@torch.no_grad()
def validate(network: nn.Module, root: Path, *, size: int, device: torch.device) -> dict[str, float]:
    """Loss and accuracy over pictures, the reference's way."""
    network.eval()
    loader = DataLoader(Folder(root, transform(size)), batch_size=8, num_workers=0)
    total, right, count = 0.0, 0, 0
    for pictures, labels in loader:
        scores, wanted = network(pictures.to(device)), labels.to(device)
        total += nn.functional.cross_entropy(scores, wanted, reduction="sum").item()
        right += int((scores.argmax(dim=1) == wanted).sum().item())
        count += len(labels)
    return {"valLoss": total / count, "valAccuracy": right / count}


def tuned(
    architecture: str,
    root: Path,
    *,
    classes: int,
    epochs: int,
    size: int,
    device: torch.device,
    batch: int,
    workers: int,
    half: bool,
    compiled: Callable[[float], None] = lambda _: None,
) -> list[float]:
    """Workers that stay, pinned memory, autocast to bfloat16, channels last, a fused optimizer, compiled on a GPU.

    Compiling is outside of the epochs' seconds: `compiled` is called with its own.
    """
    folder = Folder(root, transform(size))
    loader = DataLoader(
        folder,
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    network = architectures.build(architecture, classes, size).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
    criterion = nn.CrossEntropyLoss()
    forward = network

    def gradients(pictures: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        given = pictures.to(device, non_blocking=True, memory_format=torch.channels_last)
        wanted = labels.to(device, non_blocking=True)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = criterion(forward(given), wanted)
        loss.backward()
        return loss.detach()

    if device.type == "cuda":
        torch.compiler.reset()  # else the networks before count towards the most that torch compiles of one class
        forward = torch.compile(network, dynamic=False)
        network.train()
        began = machine.clock()
        for count in {min(batch, len(folder)), len(folder) % batch} - {0}:  # the last batch may be smaller
            for _ in range(2):  # the second finds what is to be found once for a shape
                gradients(torch.randn(count, 3, size, size), torch.zeros(count, dtype=torch.long))
        compiled(machine.clock() - began)
    seconds = []
    for _ in range(epochs):
        began = time.perf_counter()
        network.train()
        total = torch.zeros((), device=device)
        for pictures, labels in loader:
            loss = gradients(pictures, labels)
            optimizer.step()
            total += loss * len(labels)
        total.item()
        seconds.append(time.perf_counter() - began)
    return seconds


def limit(
    architecture: str, *, classes: int, size: int, device: torch.device, batch: int, half: bool, steps: int
) -> float:
    """Pictures a second of the network alone: forward, backward, optimizer, on pictures that lie on the device."""
    network = architectures.build(architecture, classes, size).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
    pictures = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, classes, (batch,), device=device)
    began = 0.0
    for step in range(steps + 1):
        if step == 1:  # the first prepares
            began = machine.clock()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = nn.functional.cross_entropy(network(pictures).float(), labels)
        loss.backward()
        optimizer.step()
    return batch * steps / (machine.clock() - began)
