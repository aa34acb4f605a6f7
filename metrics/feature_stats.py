"""Statistics of features, collected batch by batch and rank by rank."""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np
import torch

from networks.checkpoints.durable_files import replacing


class FeatureStats:
    """Features [N, D], or their mean and covariance, collected batch by batch."""

    def __init__(self, capture_all: bool = False, capture_mean_cov: bool = False, max_items: int | None = None) -> None:
        self.capture_all = capture_all  # Keep all features.
        self.capture_mean_cov = capture_mean_cov  # Keep the sums for mean and covariance, in float64.
        self.max_items = max_items  # Ignore what comes after so many features; None = take all.
        self.num_items = 0
        self.num_features: int | None = None  # D, known from the first batch on.
        self.all_features: list[np.ndarray] = []
        self.raw_mean: Any = None  # [D], sum of x
        self.raw_cov: Any = None  # [D, D], sum of x x^T

    def set_num_features(self, num_features: int) -> None:
        """Fix the number of features; raises ValueError if it was another one before."""
        if self.num_features is None:
            self.num_features = num_features
            self.raw_mean = np.zeros([num_features], dtype=np.float64)
            self.raw_cov = np.zeros([num_features, num_features] if self.capture_mean_cov else [0, 0], dtype=np.float64)
        elif self.num_features != num_features:
            raise ValueError(f'the detector returned {num_features} features after {self.num_features} before')

    def is_full(self) -> bool:
        """Tell whether `max_items` have come in."""
        return self.max_items is not None and self.num_items >= self.max_items

    def append(self, x: Any) -> None:
        """Take in features [n, D]."""
        x = np.asarray(x, dtype=np.float32)
        if x.ndim != 2:
            raise ValueError(f'features must be [n, D], these are {list(x.shape)}')
        if self.max_items is not None:
            x = x[: max(self.max_items - self.num_items, 0)]
        if len(x) == 0:
            return
        self.set_num_features(x.shape[1])
        self.num_items += len(x)
        if self.capture_all:
            self.all_features.append(x)
        if self.capture_mean_cov:
            wide = x.astype(np.float64)
            self.raw_mean += wide.sum(axis=0)
            self.raw_cov += wide.T @ wide

    def append_torch(self, x: torch.Tensor, num_gpus: int = 1, rank: int = 0) -> None:
        """Take in features [n, D] of each rank, dealt out one by one: first of rank 0, first of rank 1, ..."""
        if num_gpus > 1:
            parts = [torch.empty_like(x) for _ in range(num_gpus)]
            torch.distributed.all_gather(parts, x.contiguous())
            x = torch.stack(parts, dim=1).reshape(-1, *x.shape[1:])
        self.append(x.float().cpu().numpy())

    def get_all(self) -> np.ndarray:
        """Return all features, float32 [N, D]."""
        if self.capture_all:
            return np.concatenate(self.all_features)
        raise ValueError('these statistics were made without capture_all')

    def get_all_torch(self) -> torch.Tensor:
        """Return all features, float32 [N, D], as a tensor."""
        return torch.as_tensor(self.get_all())

    def get_mean_cov(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean [D] and the covariance [D, D] (divided by N, not N - 1), float64."""
        if not self.capture_mean_cov or self.num_items == 0:
            raise ValueError('these statistics were made without capture_mean_cov, or of nothing')
        mean = self.raw_mean / self.num_items
        return mean, self.raw_cov / self.num_items - np.outer(mean, mean)

    def save(self, pkl_file: str) -> None:
        """Write everything to a file, which is complete or not there."""
        os.makedirs(os.path.dirname(os.path.abspath(pkl_file)), exist_ok=True)
        with replacing(pkl_file) as temporary, open(temporary, 'wb') as file:
            pickle.dump(dict(vars(self)), file)

    @staticmethod
    def load(pkl_file: str) -> FeatureStats:
        """Read what `save` wrote; raises pickle.UnpicklingError for a file that holds more than numbers."""
        with open(pkl_file, 'rb') as file:
            content = _NumbersUnpickler(file).load()
        stats = FeatureStats(capture_all=content['capture_all'], max_items=content['max_items'])
        vars(stats).update(content)
        return stats


class _NumbersUnpickler(pickle.Unpickler):
    """Reads arrays and plain containers, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        parts = module.split('.')
        if parts[0] == 'numpy' and name in ('_reconstruct', 'ndarray', 'dtype', 'scalar', '_frombuffer'):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f'this is no file of feature statistics: it names {module}.{name}')
