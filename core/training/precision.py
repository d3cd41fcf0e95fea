"""Which number format training runs in, chosen by what the hardware really has, with the reason."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Precision:
    """The choice: autocast type (None: fp32), whether gradients need a scaler, and why."""

    dtype: torch.dtype | None
    scaled: bool
    reason: str

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """The context in which forward passes run. Weights, losses and normalisation statistics stay fp32."""
        return nullcontext() if self.dtype is None else torch.autocast(device.type, self.dtype)


def has_native_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16: Ampere and later, AVX512-BF16, AMX. Emulated, it is slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def choose(device: torch.device, requested: str = "auto") -> Precision:
    """The precision for `device`; `requested` is auto, fp32, bf16 or fp16.

    bf16 where the hardware has it; fp16 with a gradient scaler on older GPUs such as the T4; fp32 otherwise.
    """
    if requested == "fp32":
        return Precision(None, False, "fp32: requested")
    if requested == "bf16":
        return Precision(torch.bfloat16, False, "bf16: requested")
    if requested == "fp16":
        return Precision(torch.float16, True, "fp16 with gradient scaling: requested")
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if has_native_bf16(device):
            return Precision(torch.bfloat16, False, f"bf16: {name} has it natively")
        return Precision(torch.float16, True, f"fp16 with gradient scaling: {name} has no native bf16")
    if has_native_bf16(device):
        return Precision(torch.bfloat16, False, "bf16: this CPU has it natively")
    return Precision(None, False, "fp32: this CPU has no native bf16")


def back_off(scaler: torch.amp.GradScaler) -> None:
    """What `scaler.update()` does after an overflow, in every process alike, also where there was none."""
    if not scaler.is_enabled():
        return
    scaler.update(scaler.get_scale() * scaler.get_backoff_factor())
    scaler.load_state_dict({**scaler.state_dict(), "_growth_tracker": 0})
