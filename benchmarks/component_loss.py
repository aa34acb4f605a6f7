"""What is lost when codes are seen through their principal components: renders both and compares the pictures.

python benchmarks/component_loss.py --data=latents.zip --network=G.pkl
"""

import pathlib
import sys

import click

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from training.commands import command_line


# fmt: off
@command_line.command()
@click.option('--data',    help='Latent data set', metavar='ZIP|DIR', required=True)
@click.option('--network', help='Image generator of the codes', metavar='PKL|URL', required=True)
@click.option('--frames',  help='Frames to compare, evenly spread', metavar='INT', type=command_line.POSITIVE_INT, default=200)
@command_line.clear_errors
def main(data: str, network: str, frames: int) -> None:
    """Print, for several shares of the variance, how many components hold it and the PSNR of the rendered projection."""
    import numpy as np
    import torch

    from networks.checkpoints import load_generator
    from training.latent_space import fit_latent_space
    from training.latents.dataset import LatentDataset
    from training.temporal_options import LatentSpaceOptions
    from training.videos.synthesis import render_codes

    G = load_generator(network)
    with LatentDataset(data) as dataset:
        codes = np.concatenate([dataset.load_clip(index) for index in range(len(dataset.clips))])
        codes = codes[np.linspace(0, len(codes) - 1, min(frames, len(codes))).round().astype(int)]
        wanted = np.stack(list(render_codes(G, torch.from_numpy(codes)))).astype(np.float64)
        print('| share of variance | components | PSNR against all of w, dB | worst frame, dB |')
        print('|---|---|---|---|')
        for variance in (0.9, 0.95, 0.99, 0.999, 0.9999):
            space = fit_latent_space(dataset, LatentSpaceOptions(variance=variance))
            assert space.basis is not None
            projected = (space.mean + space.encode(codes) @ space.basis).reshape(codes.shape)
            made = np.stack(list(render_codes(G, projected))).astype(np.float64)
            error = np.square(made - wanted).mean(axis=(1, 2, 3))
            psnr = 10 * np.log10(255 ** 2 / np.maximum(error, 1e-9))
            print(f'| {variance:g} | {space.num_coordinates} | {psnr.mean():.1f} | {psnr.min():.1f} |')
# fmt: on


if __name__ == '__main__':
    main()
