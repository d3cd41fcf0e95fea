"""Attention on a CPU is done in fp32, and handed back in the format that autocast chose."""

import pytest
import torch
import torch.nn.functional as F

from core.attention import attention
from tests.core.kernels import Kernels


def inputs(dtype: torch.dtype) -> list[torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 10, 8, generator=draws).to(dtype) for _ in range(3)]


@pytest.mark.parametrize("causal", [False, True])
def test_in_fp32_it_is_torchs_own(causal: bool) -> None:
    one = inputs(torch.float32)
    assert torch.equal(attention(*one, causal=causal), F.scaled_dot_product_attention(*one, is_causal=causal))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_under_autocast_it_is_exact_up_to_the_rounding_of_what_goes_in_and_out(dtype: torch.dtype) -> None:
    one = inputs(dtype)
    mask = torch.rand(10, 10, generator=torch.Generator().manual_seed(1)) > 0.3
    wanted = F.scaled_dot_product_attention(*(x.double() for x in one), attn_mask=mask).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(*one, mask=mask)
    assert found.dtype == dtype
    torch.testing.assert_close(found, wanted, rtol=2**-8 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)


def test_on_a_cpu_its_kernel_never_sees_bf16() -> None:
    with torch.autocast("cpu", torch.bfloat16), Kernels("scaled_dot_product") as kernels:
        attention(*inputs(torch.bfloat16))
        attention(*inputs(torch.float32))
    assert kernels.seen == {torch.float32}
