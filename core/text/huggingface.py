"""An autoregressive model from a Hugging Face folder as one side of fusion (optional extra `transformers`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.errors import UserError
from core.storage.checkpoint import require_finite
from core.text.tokenizer import Tokenizer


class HuggingFaceNextToken:
    """A causal language model with our tokens; its own start token (or end of text) stands for the empty context."""

    def __init__(self, model: Any, start: int, size: int) -> None:
        self._model, self._start, self._size = model, start, size

    @torch.no_grad()
    def __call__(self, ids: Tensor) -> Tensor:
        first = torch.full((len(ids), 1), self._start, dtype=torch.long, device=ids.device)
        logits: Tensor = self._model(input_ids=torch.cat((first, ids), dim=1)).logits
        return logits[..., : self._size].float()


def load_huggingface(folder: Path, tokenizer: Tokenizer, device: torch.device | str) -> HuggingFaceNextToken:
    """A local folder's model; nothing is downloaded and no code of the folder is run.

    Raises:
        UserError: `transformers` is not installed, a weight is not finite, or the folder's tokens are not the
            diffusion model's.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError:
        raise UserError(f"{folder}: a Hugging Face model needs the extra: pip install 'textdiffusion[hf]'") from None
    try:
        theirs = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: not a Hugging Face causal language model: {error}") from None
    require_finite(model.state_dict(), str(folder))
    ours = [tokenizer.decode([index]) for index in range(tokenizer.size)]
    for index, token in enumerate(ours):
        found = theirs.decode([index]) if index < len(theirs) else None
        if found != token:
            raise UserError(
                f"{folder}: tokens are not aligned: token {index} is {found!r} there and {token!r} here;"
                " fusion needs one tokenizer for both models"
            )
    start = theirs.bos_token_id if theirs.bos_token_id is not None else theirs.eos_token_id
    if start is None:
        raise UserError(f"{folder}: its tokenizer has no token to start a text with (bos_token or eos_token)")
    return HuggingFaceNextToken(model.to(device).eval(), start, tokenizer.size)
