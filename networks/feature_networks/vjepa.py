"""V-JEPA (Bardes et al. 2024) with the attentive pooler of its classifier: the features of JEDi (Luo et al., ICLR 2025).

A vision transformer over tubelets of 2 frames and patches of 16 x 16: blocks of attention and MLP, each behind a LayerNorm, and
one LayerNorm at the end. In the pooler, one more block, a learned token attends to all tokens of the clip; what becomes of it
is the feature. Parameters have the names of the published files.

Frames enter at their own size, values 0 to 1, less mean and deviation of ImageNet, as JEDi's program takes them. The embedding of
positions belongs to clips of 16 frames of 224 x 224; for others it is interpolated, as V-JEPA's authors do. What does not fill a
patch at the right and lower edge, or a tubelet at the end, is not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from networks.feature_networks.transformer_features import DEVIATION, MEAN

TRAINED_FRAMES = 16  # of the clips that positions are embedded for
TOKEN_EPSILON, POOLER_EPSILON = 1e-6, 1e-5  # of LayerNorm


class SelfAttention(torch.nn.Module):
    """Scaled dot-product attention of tokens [N, L, D] to one another."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = torch.nn.Linear(width, 3 * width)
        self.proj = torch.nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.proj(_attend(self.num_heads, *self.qkv(tokens).chunk(3, dim=-1)))


class CrossAttention(torch.nn.Module):
    """The same of query tokens [N, Q, D] to others [N, L, D]."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = torch.nn.Linear(width, width)
        self.kv = torch.nn.Linear(width, 2 * width)
        self.proj = torch.nn.Linear(width, width)

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return self.proj(_attend(self.num_heads, self.q(queries), *self.kv(tokens).chunk(2, dim=-1)))


def _attend(num_heads: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Attention in `num_heads` parts of the width: [N, Q, D], [N, L, D] and [N, L, D] -> [N, Q, D]."""
    query, key, value = (part.unflatten(-1, (num_heads, -1)).transpose(1, 2) for part in (queries, keys, values))
    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class Block(torch.nn.Module):
    """Attention and MLP, each added to what it sees; with `query` the attention of a token to others."""

    def __init__(self, width: int, num_heads: int, hidden: int, epsilon: float, *, query: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = (torch.nn.LayerNorm(width, eps=epsilon) for _ in range(2))
        if query:
            self.xattn = CrossAttention(width, num_heads)
        else:
            self.attn = SelfAttention(width, num_heads)
        self.mlp = torch.nn.ModuleDict({'fc1': torch.nn.Linear(width, hidden), 'fc2': torch.nn.Linear(hidden, width)})

    def forward(self, tokens: torch.Tensor, others: torch.Tensor | None = None) -> torch.Tensor:
        seen = self.attn(self.norm1(tokens)) if others is None else self.xattn(tokens, self.norm1(others))
        tokens = tokens + seen
        return tokens + self.mlp['fc2'](functional.gelu(self.mlp['fc1'](self.norm2(tokens))))


class Encoder(torch.nn.Module):
    """Clips [N, 3, T, H, W] -> tokens [N, L, D].

    Args:
        width: D.
        num_blocks, num_heads, hidden: Of the transformer; `hidden` is the width within an MLP.
        tubelet: Frames and size of a patch.
        grid: Tokens in time, height and width that positions are embedded for.
    """

    def __init__(
        self, width: int, num_blocks: int, num_heads: int, hidden: int, tubelet: tuple[int, int], grid: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.grid, self.tubelet = grid, tubelet[0]
        size = (tubelet[0], tubelet[1], tubelet[1])
        self.patch_embed = torch.nn.ModuleDict({'proj': torch.nn.Conv3d(3, width, kernel_size=size, stride=size)})
        self.pos_embed = torch.nn.Parameter(torch.zeros(1, grid[0] * grid[1] * grid[2], width))
        self.blocks = torch.nn.ModuleList(Block(width, num_heads, hidden, TOKEN_EPSILON) for _ in range(num_blocks))
        self.norm = torch.nn.LayerNorm(width, eps=TOKEN_EPSILON)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        tokens = self.patch_embed['proj'](clips)
        positions = self.pos_embed.transpose(1, 2).unflatten(2, self.grid)
        if tokens.shape[2:] != positions.shape[2:]:
            positions = functional.interpolate(positions, size=tokens.shape[2:], mode='trilinear', align_corners=False)
        tokens = (tokens + positions).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


class Pooler(torch.nn.Module):
    """Tokens [N, L, D] -> one [N, 1, D]."""

    def __init__(self, width: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.query_tokens = torch.nn.Parameter(torch.zeros(1, 1, width))
        self.cross_attention_block = Block(width, num_heads, hidden, POOLER_EPSILON, query=True)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.cross_attention_block(self.query_tokens.expand(len(tokens), -1, -1), tokens)


class VJEPA(torch.nn.Module):
    """A detector as metrics.features.clip_features has them.

    Args:
        encoder: With its weights.
        pooler: Likewise.
        description: What a protocol says of it.
    """

    detector_name = 'vjepa'

    def __init__(self, encoder: Encoder, pooler: Pooler, description: Mapping[str, Any]) -> None:
        super().__init__()
        self.encoder, self.pooler, self.description = encoder, pooler, dict(description)
        self.eval().requires_grad_(False)
        self.num_features = int(encoder.pos_embed.shape[2])
        self.smallest_num_frames = encoder.tubelet
        self.resize_rule = 'own size, positions interpolated (trilinear); ImageNet mean and deviation'

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames uint8 [N, T, H, W, 3] -> features [N, 1, D] of the clips."""
        mean, deviation = (torch.tensor(values, device=frames.device).reshape(3, 1, 1, 1) for values in (MEAN, DEVIATION))
        clips = frames.permute(0, 4, 1, 2, 3).float() / 255
        return self.pooler(self.encoder((clips - mean) / deviation))
