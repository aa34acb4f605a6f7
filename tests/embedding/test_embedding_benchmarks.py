"""Benchmarks of embedding and tuning: means over the same clips, and noise maps that are as before in the end."""

import copy
import pathlib

import torch

from benchmarks.embedding.per_frame_projection import noisy_layers, refine_with_noise
from benchmarks.embedding.results_file import Results
from benchmarks.embedding.tuning import table
from networks import checkpoints


class Pixels:
    """Squared error in the place of LPIPS."""

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) / images[0].numel() ** 0.5

    def __call__(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (self.embed(images) - self.embed(targets)).square().sum(dim=1)


def test_own_noise_maps_bring_a_frame_nearer_and_do_not_stay(tiny_generator: pathlib.Path) -> None:
    G = copy.deepcopy(checkpoints.load_generator(str(tiny_generator)))  # its layers are of another class
    layers = noisy_layers(G)
    assert layers
    for layer in layers:
        layer.noise_strength.data.fill_(0.3)
    before = [layer.noise_const.clone() for layer in layers]
    random = torch.Generator().manual_seed(0)
    code = G.mapping(torch.randn([1, G.z_dim], generator=random), torch.zeros([1, G.c_dim]))[0]
    with torch.no_grad():
        for layer in layers:
            layer.noise_const.add_(torch.randn(layer.noise_const.shape, generator=random))
        target = G.synthesis(code[None], noise_mode='const')[0].clamp(-1, 1)
        for layer, values in zip(layers, before, strict=True):
            layer.noise_const.copy_(values)
        started = float(Pixels()(G.synthesis(code[None], noise_mode='const').clamp(-1, 1), target[None]))
    found, distance, psnr = refine_with_noise(G, Pixels(), target, code, steps=40)  # type: ignore[arg-type]
    assert found.shape == code.shape
    assert 0 < distance < 0.95 * started
    assert psnr > 0
    assert all(torch.equal(layer.noise_const, values) for layer, values in zip(layers, before, strict=True))


def test_the_table_compares_generators_on_the_clips_that_all_have(tmp_path: pathlib.Path) -> None:
    results = Results(str(tmp_path / 'tuning.jsonl'))
    for clip, locality, psnr in (('a', None, 20.0), ('b', None, 30.0), ('a', 0.0, 22.0)):
        results.add({'kind': 'tuning', 'world': 'w', 'clip': clip, 'locality': locality, 'psnr': psnr})
    for evaluations in (10, 20):
        results.add({'kind': 'refinement', 'world': 'w', 'clip': 'a', 'locality': None, 'evaluations': evaluations, 'lpips': 0.1})
    rows = table(results).splitlines()
    assert '| w | before | 1 | 20.00 |' in rows
    assert '| w | plain | 1 | 22.00 |' in rows
    assert '| w | before | 20 | 1 | 0.10000 |' in rows
