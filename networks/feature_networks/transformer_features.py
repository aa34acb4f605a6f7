"""Feature networks out of the package transformers: VideoMAE, V-JEPA 2 and DINOv2, as detectors of metrics/features.

    videomae   mean over all tokens, then the network's fc_norm where it has one: what CD-FVD (Ge et al., CVPR 2024) takes
    vjepa2     the attentive pooler of a classification checkpoint, as JEDi (Luo et al., ICLR 2025) takes that of V-JEPA; of a
               checkpoint without one the mean over all tokens
    dinov2     the class token of each frame (Stein et al., NeurIPS 2023)

`networks.checkpoints.detector_weights.transformer_weights` opens the networks, and refuses tensors that are missing or left
over. What a frame goes through first:

    videomae   to 224 x 224 (bilinear, without regard to its shape), values 0 to 1: as CD-FVD does, without the mean and
               deviation of ImageNet that the processor of such checkpoints would subtract
    vjepa2     to the size of the description likewise, then mean and deviation of ImageNet
    dinov2     to 224 x 224 (bicubic, antialiased), then mean and deviation of ImageNet
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from networks.errors import InputError

KINDS = ('videomae', 'vjepa2', 'dinov2')
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for values from 0 to 1
INPUT_SIZE = 224


class TransformerFeatures(torch.nn.Module):
    """A feature network of the package transformers.

    Args:
        kind: One of KINDS.
        network: The module of transformers, with its weights.
        description: What a protocol says of it.
    """

    smallest_num_frames = 1

    def __init__(self, kind: str, network: Any, description: dict[str, Any]) -> None:
        super().__init__()
        if kind not in KINDS:
            raise InputError(f'{kind!r} is no feature network; there are {", ".join(KINDS)}')
        self.detector_name = kind
        self.network = network.eval().requires_grad_(False)
        self.config = network.config
        self.num_features = int(self.config.hidden_size)
        self.description = description
        self.size = int(self.config.crop_size) if kind == 'vjepa2' else INPUT_SIZE
        self.smallest_num_frames = {'videomae': int(getattr(self.config, 'num_frames', 1)), 'vjepa2': 2, 'dinov2': 1}[kind]
        self.resize_rule = {
            'videomae': f'{self.size}x{self.size}, bilinear; 0 to 1',
            'vjepa2': f'{self.size}x{self.size}, bilinear; ImageNet mean and deviation',
            'dinov2': f'{self.size}x{self.size}, bicubic with antialiasing; ImageNet mean and deviation',
        }[kind]
        self._pool: Callable[[torch.Tensor], torch.Tensor] = {
            'videomae': self._videomae, 'vjepa2': self._vjepa2, 'dinov2': self._dinov2}[kind]  # fmt: skip

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames uint8 [N, T, H, W, 3] -> features [N, 1, D] of clips, or [N, T, D] of frames for dinov2.

        Raises:
            InputError: The network takes clips of another length.
        """
        count = frames.shape[1]
        if self.detector_name == 'videomae' and count != self.smallest_num_frames:
            raise InputError(f'this VideoMAE takes clips of {self.smallest_num_frames} frames, and these have {count}')
        images = frames.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        how: dict[str, Any] = {'mode': 'bicubic', 'antialias': True} if self.detector_name == 'dinov2' else {'mode': 'bilinear'}
        if tuple(images.shape[2:]) != (self.size, self.size):
            images = torch.nn.functional.interpolate(images, size=(self.size, self.size), align_corners=False, **how)
        if self.detector_name != 'videomae':
            mean, deviation = (torch.tensor(values, device=images.device).reshape(1, 3, 1, 1) for values in (MEAN, DEVIATION))
            images = (images - mean) / deviation
        pooled = self._pool(images.unflatten(0, (len(frames), count)))
        return pooled if pooled.ndim == 3 else pooled.unsqueeze(1)

    def _videomae(self, clips: torch.Tensor) -> torch.Tensor:
        encoder = getattr(self.network, 'videomae', self.network)
        tokens = encoder(pixel_values=clips).last_hidden_state
        norm = getattr(self.network, 'fc_norm', None)
        return norm(tokens.mean(dim=1)) if norm is not None else tokens.mean(dim=1)

    def _vjepa2(self, clips: torch.Tensor) -> torch.Tensor:
        encoder = getattr(self.network, 'vjepa2', self.network)
        tokens = encoder(pixel_values_videos=clips, skip_predictor=True).last_hidden_state
        pooler = getattr(self.network, 'pooler', None)
        return pooler(tokens) if pooler is not None else tokens.mean(dim=1)

    def _dinov2(self, clips: torch.Tensor) -> torch.Tensor:
        tokens = self.network(pixel_values=clips.flatten(0, 1)).last_hidden_state
        return tokens[:, 0].unflatten(0, clips.shape[:2])
