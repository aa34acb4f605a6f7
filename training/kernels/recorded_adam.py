"""Adam in one call a step, also where a step is recorded as CUDA graphs (step_graphs.py).

A recorded step reads the learning rate anew each time it runs, so there it is a tensor on the device. What is saved does not
show it: a state goes on on any device.
"""

from typing import Any

import torch


def make_adam(
    module: torch.nn.Module, rate: float, betas: tuple[float, float], device: torch.device, recorded: bool
) -> torch.optim.Adam:
    """Adam on all parameters of `module`, for steps that are recorded or not."""
    lr = torch.tensor(rate, device=device) if recorded else rate
    return torch.optim.Adam(module.parameters(), lr=lr, betas=betas, fused=True, capturable=recorded)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters, in place where it is a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group['lr'], torch.Tensor):
            group['lr'].fill_(rate)
        else:
            group['lr'] = rate


def portable_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state as it is saved, whatever device it belongs to."""
    state = optimizer.state_dict()
    groups = [{**group, 'lr': float(group['lr']), 'capturable': False} for group in state['param_groups']]
    return {**state, 'param_groups': groups}


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any], device: torch.device, recorded: bool) -> None:
    """Take over a `portable_state`, of this or of another kind of device."""
    groups = [{**group, 'fused': True, 'capturable': recorded} for group in state['param_groups']]
    optimizer.load_state_dict({**state, 'param_groups': groups})
    if recorded:
        for group in optimizer.param_groups:
            group['lr'] = torch.tensor(float(group['lr']), device=device)
