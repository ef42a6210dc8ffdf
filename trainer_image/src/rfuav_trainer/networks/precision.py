"""The number format of the forward pass: the meaning of `auto`, and the autocast context.

In: training.precision and the device. Out: fp32, bf16 or fp16. Weights, their gradients and the optimizer are always
float32 (mixed precision, Micikevicius et al. 2018, arXiv 1710.03740).
"""

from __future__ import annotations

import torch

from rfuav_trainer.errors import InvalidConfigurationError

FORMATS = {"bf16": torch.bfloat16, "fp16": torch.float16}
AMPERE = 8  # the first compute capability with bfloat16 in its tensor cores


def resolve(precision: str, device: torch.device) -> str:
    """The format that `precision` means on `device`.

    auto is bf16 if the hardware supports it (NVIDIA from Ampere on; CPUs with AVX512_BF16 or AMX), fp16 on older GPUs,
    fp32 on other CPUs.

    Raises:
        InvalidConfigurationError: the GPU has no bfloat16.
    """
    if device.type == "cuda":
        modern = torch.cuda.get_device_capability(device)[0] >= AMPERE
        if precision == "auto":
            return "bf16" if modern else "fp16"
        if precision == "bf16" and not modern:
            name = torch.cuda.get_device_name(device)
            raise InvalidConfigurationError(f"training.precision bf16: a {name} has no bfloat16: write auto or fp16")
        return precision
    if precision == "auto":
        return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"  # noqa: SLF001  (there is no public function)
    return precision


def passing(precision: str, device: torch.device) -> torch.autocast:
    """The autocast context for a resolved precision."""
    return torch.autocast(device.type, FORMATS.get(precision, torch.bfloat16), enabled=precision in FORMATS)
