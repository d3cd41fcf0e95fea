"""The first model of this project as it was, to show why it collapsed into punctuation.

Embeddings of standard deviation .02, linear betas over 1,000 steps, epsilon prediction, no positions. With embeddings
that small 90 % of the steps hold nothing that identifies a token, so nearly all of training and sampling is spent
where the only thing to learn is which tokens are frequent; and without positions the network cannot know order.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.randomness import Noise
from core.text.config import TextModel
from core.text.transformer import Transformer

STEPS = 1000
EMBEDDING_STD = 0.02


class Original(nn.Module):
    """Predicts the noise on embeddings, and rounds clean embeddings to tokens by a linear layer."""

    kept: Tensor

    def __init__(self, vocabulary: int, config: TextModel) -> None:
        super().__init__()
        width = config.transformer.width
        self.vocabulary, self.context = vocabulary, config.context
        self.table = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.table.weight, std=EMBEDDING_STD)
        self.time = nn.Linear(1, width)
        self.transformer = Transformer(config.transformer)
        self.noise, self.rounding = nn.Linear(width, width), nn.Linear(width, vocabulary)
        betas = torch.linspace(1e-4, 2e-2, STEPS, dtype=torch.float64)
        self.register_buffer("kept", (1 - betas).cumprod(0).float())

    def forward(self, z: Tensor, step: Tensor) -> Tensor:
        """The noise [B, L, D] in z [B, L, D] at steps [B]."""
        x = z + self.time(step.float()[:, None] / STEPS)[:, None]
        nowhere = torch.zeros(z.shape[1], dtype=torch.long, device=z.device)
        noise: Tensor = self.noise(self.transformer(x, nowhere))
        return noise

    def loss(self, tokens: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """Squared error of the noise plus cross-entropy of rounding *clean* embeddings: [B]."""
        x = self.table(tokens)
        kept = self.kept[step][:, None, None]
        noise_seen = self.forward(kept.sqrt() * x + (1 - kept).sqrt() * noise, step)
        rounding = F.cross_entropy(self.rounding(x).flatten(0, 1), tokens.flatten(), reduction="none")
        return (noise_seen - noise).square().mean(dim=(1, 2)) + rounding.view(tokens.shape).mean(dim=1)


@torch.no_grad()
def generate(model: Original, length: int, steps: int, noise: Noise) -> Tensor:
    """Tokens [B, length], a row of `noise` each, by DDIM over `steps` of the 1,000, rounded at the end."""
    device = model.kept.device
    z = noise.normal(length, model.table.embedding_dim)
    grid = torch.linspace(STEPS - 1, 0, min(steps, STEPS)).round().long()
    for index, step in enumerate(grid.tolist()):
        error = model(z, torch.full((len(z),), step, device=device))
        kept = model.kept[step]
        after = model.kept[int(grid[index + 1])] if index + 1 < len(grid) else torch.ones((), device=device)
        z = after.sqrt() * (z - (1 - kept).sqrt() * error) / kept.sqrt() + (1 - after).sqrt() * error
    return model.rounding(z).argmax(dim=-1)
