"""The device: `prepare()` before torch is imported, then everything inside `with pretended() as counts:`."""

from __future__ import annotations

import ctypes
import linecache
import shutil
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
FREE = ("aten::detach", "aten::lift_fresh", "aten::_unsafe_view")  # of what makes no view, what starts no kernel


def unusable() -> str | None:
    """Why there can be no such device on this machine, or None."""
    if not sys.platform.startswith("linux"):
        return "torch asks no CUDA driver here"
    if shutil.which("cc") is None:
        return "no C compiler for the driver that does nothing"
    if _headers() is None:
        return "torch is installed without NVIDIA's libraries"
    return None


def _headers() -> Path | None:
    """The folder of the runtime's C headers in the wheels that torch with CUDA needs."""
    return next(
        (found.parent for place in sys.path for found in Path(place).glob("nvidia/*/include/driver_types.h")), None
    )


def prepare(folder: Path) -> None:
    """Builds the driver into `folder` and loads it, so that torch, imported later, takes it for NVIDIA's."""
    library = folder / "libcuda.so.1"
    options = ["-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", f"-I{_headers()}", f"-I{HERE}"]
    subprocess.run(["cc", *options, "-o", str(library), str(HERE / "driver.c")], check=True)
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


class Counts:
    """What the device was asked: kernels by operator, and the places where the host waits for it."""

    def __init__(self) -> None:
        self.recording = False
        self.reset()

    def reset(self) -> None:
        self.kernels: Counter[str] = Counter()
        # Reads of a value, copies to the host, copies that are not asynchronous, and in a graph all copies.
        self.waits: Counter[str] = Counter()

    @contextmanager
    def recorded(self, _: Any, pool: Any = None) -> Iterator[None]:
        self.recording = True
        try:
            yield
        finally:
            self.recording = False

    def summary(self) -> dict[str, Any]:
        return {"kernels": sum(self.kernels.values()), "waits": dict(self.waits)}


def _place() -> str:
    """The project's line that asked for it."""
    for frame, line in traceback.walk_stack(None):
        file = frame.f_code.co_filename
        if file.startswith((str(ROOT / "core"), str(ROOT / "benchmarks"))):
            return f"{Path(file).relative_to(ROOT)}: {linecache.getline(file, line).strip()}"
    return "elsewhere"


@contextmanager
def pretended() -> Iterator[Counts]:
    """Inside it `torch.device("cuda")` is a GPU of compute capability 9.0 that computes nothing."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves, tree_map_only

    shapes, counts, cuda = FakeTensorMode(allow_non_fake_inputs=True), Counts(), torch.device("cuda", 0)

    def new(like: Any, dtype: Any = None) -> Any:
        with shapes:
            return torch.empty_strided(like.shape, like.stride(), dtype=dtype or like.dtype, device=cuda)

    def by_meta(func: Any, args: Any, kwargs: Any) -> Any:
        """For operators whose shapes torch asks cuDNN for."""
        meta = tree_map_only(
            torch.Tensor,
            lambda t: torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta"),
            (args, kwargs),
        )
        return tree_map_only(torch.Tensor, new, func(*meta[0], **meta[1]))

    def copied(func: Any, args: Any, kwargs: Any) -> Any:
        """A copy between host and device."""
        into = args[0] if func._schema.name == "aten::copy_" else None
        source = args[0] if into is None else args[1]
        target = into.device if into is not None else torch.device(kwargs.get("device") or source.device)
        asynchronous = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
        if counts.recording:
            counts.waits[f"copy in a graph: {_place()}"] += 1
        elif target.type == "cpu":
            counts.waits[f"copy to the host: {_place()}"] += 1
        elif not (asynchronous and getattr(source, "pinned", False)):
            counts.waits[f"copy to the device: {_place()}"] += 1
        if into is not None:
            return into
        dtype = kwargs.get("dtype") or source.dtype
        return new(source, dtype) if target.type == "cuda" else torch.zeros(source.shape, dtype=dtype)

    def selected(args: Any) -> Any:
        """`x[mask]`: its size must be known."""
        counts.waits[f"size of a selection: {_place()}"] += 1
        x, mask = args[0], args[1][0]
        with shapes:
            return torch.empty((max(1, mask.numel() // 2), *x.shape[mask.dim() :]), dtype=x.dtype, device=cuda)

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            name = func._schema.name
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            there = [t for t in tensors if isinstance(t, FakeTensor) and t.device.type == "cuda"]
            asked = kwargs.get("device")
            if name.startswith("prim::") or not (there or (asked is not None and torch.device(asked).type == "cuda")):
                return func(*args, **kwargs)
            if name in ("aten::_local_scalar_dense", "aten::equal"):
                counts.waits[f"value{' in a graph' * counts.recording}: {_place()}"] += 1
                return 1.0 if args[0].dtype.is_floating_point else args[0].dtype == torch.bool or 1
            if name in ("aten::_to_copy", "aten::copy_"):
                kinds = {t.device.type for t in tensors} | ({torch.device(asked).type} if asked is not None else set())
                if len(kinds) > 1:
                    return copied(func, args, kwargs)
            if name == "aten::index" and any(i is not None and i.dtype == torch.bool for i in args[1]):
                return selected(args)
            if name in ("aten::nonzero", "aten::bincount", "aten::masked_select"):
                counts.waits[f"size: {_place()}"] += 1
            if name == "aten::_fused_adamw_":  # which torch knows no shapes of where the learning rate is a tensor
                result = None
            elif name in ("aten::convolution", "aten::convolution_backward"):
                result = by_meta(func, args, kwargs)
            else:
                with shapes:
                    result = func(*args, **kwargs)
            alias = func._schema.returns[0].alias_info if func._schema.returns else None
            if "empty" not in name and name not in FREE and (alias is None or alias.is_write):
                # Of several types a GPU copies one after the other.
                mixed = name == "aten::_foreach_copy_" and len({tensor.dtype for tensor in args[0]}) > 1
                counts.kernels[name] += len(args[0]) if mixed else 1
            return result

    with _believed(torch, cuda, counts), Mode():
        yield counts


@contextmanager
def _believed(torch: Any, cuda: Any, counts: Counts) -> Iterator[None]:
    """What torch and the project ask about a GPU, answered without one."""

    def pin_memory(self: Any, *_: Any) -> Any:
        found = self.clone()
        found.pinned = True
        return found

    class Recording:
        """A CUDA graph: one launch, whatever it holds."""

        def replay(self) -> None:
            counts.kernels["replay of a graph"] += 1

        def pool(self) -> tuple[int, int]:
            return (0, 0)

    answers = {
        (torch.cuda, "CUDAGraph"): Recording,
        (torch.cuda, "graph"): counts.recorded,
        (torch.cuda, "synchronize"): lambda *_: None,
        (torch.cuda, "current_stream"): lambda *_: None,
        (torch.cuda, "is_available"): lambda: True,
        (torch.cuda, "is_bf16_supported"): lambda *_, **__: True,
        (torch.cuda, "get_device_capability"): lambda *_: (9, 0),
        (torch.cuda, "get_device_name"): lambda *_: "no GPU at all",
        (torch.cuda, "get_device_properties"): lambda *_: SimpleNamespace(total_memory=80 << 30),
        (torch.cuda, "_lazy_init"): lambda: None,
        (torch.cuda, "current_device"): lambda: 0,
        (torch.cuda, "device_count"): lambda: 1,
        (torch.cuda, "manual_seed_all"): lambda _: None,
        (torch.cuda.amp.common, "amp_definitely_not_available"): lambda: False,
        (torch, "inference_mode"): lambda mode=True: torch.no_grad() if mode else nullcontext(),  # it asks a GPU itself
        (torch.Tensor, "pin_memory"): pin_memory,
    }
    before = {key: getattr(*key) for key in answers}
    for (place, name), answer in answers.items():
        setattr(place, name, answer)
    try:
        yield
    finally:
        for (place, name), answer in before.items():
            setattr(place, name, answer)
