"""Which number format training runs in, chosen by what the hardware really has, with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Precision:
    """The choice: autocast type (None: fp32), whether gradients need a scaler, and why.

    `named`: the configuration names the format. Then validations and previews run in it too, and fp32 is exactly that:
    without TF32, in which GPUs multiply fp32 with 10 bits of mantissa (`core.training.numerics`).
    """

    dtype: torch.dtype | None
    scaled: bool
    reason: str
    named: bool = False

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """The context in which forward passes run. Weights, losses and normalisation statistics stay fp32."""
        return nullcontext() if self.dtype is None else torch.autocast(device.type, self.dtype)

    def looking(self, device: torch.device) -> AbstractContextManager[object]:
        """The context of validations and previews."""
        return self.autocast(device) if self.named else nullcontext()


FP32 = Precision(None, False, "fp32: requested", named=True)


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
        return FP32
    if requested == "bf16":
        return Precision(torch.bfloat16, False, "bf16: requested", named=True)
    if requested == "fp16":
        return Precision(torch.float16, True, "fp16 with gradient scaling: requested", named=True)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if has_native_bf16(device):
            return Precision(torch.bfloat16, False, f"bf16: {name} has it natively")
        return Precision(torch.float16, True, f"fp16 with gradient scaling: {name} has no native bf16")
    if has_native_bf16(device):
        return Precision(torch.bfloat16, False, "bf16: this CPU has it natively")
    return Precision(None, False, "fp32: this CPU has no native bf16")


class LossScale:
    """The factor on the loss that keeps small fp16 gradients from vanishing: torch's GradScaler, but never waited for.

    It halves after a step that is not finite, in every process alike, and doubles after 2,000 good ones. Without
    `enabled` it does nothing.
    """

    START, GROWTH, BACKOFF, INTERVAL = 2.0**16, 2.0, 0.5, 2000

    def __init__(self, device: torch.device, *, enabled: bool) -> None:
        self.enabled = enabled
        self._scale = torch.full((), self.START, device=device)
        self._good = torch.zeros((), dtype=torch.int32, device=device)  # steps since the scale last moved

    def scaled(self, loss: Tensor) -> Tensor:
        return loss * self._scale if self.enabled else loss

    @torch.no_grad()
    def unscale(self, parameters: Iterable[Tensor]) -> None:
        """Gives gradients their own size again."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.enabled and gradients:
            torch._foreach_mul_(gradients, self._scale.double().reciprocal().float())

    def update(self, bad: Tensor) -> None:
        """Moves the scale after a step; `bad`: it was not finite in some process."""
        if self.enabled:
            torch._amp_update_scale_(
                self._scale, self._good, bad.float(), self.GROWTH, self.BACKOFF, self.INTERVAL
            )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {"scale": float(self._scale), "_growth_tracker": int(self._good)} if self.enabled else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`; where it is empty, of a training in another format until now, from the beginning."""
        if self.enabled and state:
            self._scale.fill_(float(state["scale"]))
            self._good.fill_(int(state["_growth_tracker"]))
