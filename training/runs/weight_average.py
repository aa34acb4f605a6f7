"""The moving average of the weights of a network, whose samples are better than those of the weights of the moment."""

import torch


def decay_of(half_life: float, step: float) -> float:
    """The factor 2^(-step / half_life) that is left of the old average after `step`; both in the same unit."""
    return 0.5 ** (step / max(half_life, 1e-8))


@torch.no_grad()
def update_average(average: torch.nn.Module, module: torch.nn.Module, decay: float) -> None:
    """Bring the parameters of `average` nearer to those of `module`: average <- decay average + (1 - decay) module."""
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)
