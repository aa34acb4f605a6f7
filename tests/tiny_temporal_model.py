"""A latent generator and a training of it that are small enough for a test to compare with plain equations."""

import torch

from networks.latent_generator import LatentGenerator
from training.latent_space import fit_latent_space
from training.latents.dataset import LatentDataset
from training.real_windows import Windows
from training.temporal_options import LatentSpaceOptions, Settings
from training.temporal_trainer import TemporalTrainer


def make_generator(**kwargs) -> LatentGenerator:
    torch.manual_seed(3)
    arguments = {
        'num_ws': 3,
        'w_dim': 5,
        'latent_dim': 6,
        'noise_dim': 6,
        'hidden_dim': 6,
        'initial_widths': [8],
        'widening_widths': [8, 12],
        **kwargs,
    }
    return LatentGenerator(**arguments).double()


def make_trainer(tiny_latents, full=False, static=False, **settings) -> TemporalTrainer:
    with LatentDataset(str(tiny_latents)) as dataset:
        space = fit_latent_space(dataset, LatentSpaceOptions(full=full))
        windows = Windows(dataset, space, 9, strides=settings.get('strides', (1,)))
    return TemporalTrainer(
        G_kwargs={'num_ws': 6, 'w_dim': 8, 'latent_dim': 8, 'noise_dim': 8, 'hidden_dim': 8, 'widening_widths': [16]},
        C_kwargs={'narrowing_widths': [8], 'temporal_channels': [8]},
        space=space,
        windows=windows,
        settings=Settings(**{'batch': 8, 'chains': 16, 'strides': (1,), 'burn_in': 4, **settings}),
        total_kimg=100,
        seed=5,
        static=static,
    )
