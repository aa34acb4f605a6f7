"""Measures what makes the optimisation of codes fast: optimisers, starts, and the weight of smoothness, on a few chunks.

    python -m benchmarks.embedding.inversion_choices --network=G.pkl --encoder=E.pkl --data=recordings/ --clips=4

Of each clip, frames 16 to 23 are optimised, after frames 8 to 15 have given the code of the frame before. Prints tables in
Markdown: averages over all frames after some evaluations of the loss, which take nearly all of the time in every variant.
"""

import dataclasses
import types
from collections.abc import Callable
from typing import Any

import click
import numpy as np
import torch

from training.commands import command_line
from training.embedding.batched_lbfgs import minimize
from training.embedding.clip_review import second_differences
from training.embedding.inversion import Inversion, InversionOptions, smoothness

LOOKS = (5, 10, 20, 40)
Function = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclasses.dataclass
class Piece:
    """Frames to optimise, and what is known of the frame before them."""

    targets: torch.Tensor
    encoded: torch.Tensor
    before: torch.Tensor
    before_encoded: torch.Tensor


class Variants:
    """The ways to search, on one image generator."""

    def __init__(self, inversion: Inversion) -> None:
        self.inversion = inversion

    def function(self, piece: Piece) -> Function:
        """The loss of the frames of a piece without smoothness, rows h `[n, num_ws * w_dim]`."""
        lpips = self.inversion.lpips
        assert lpips is not None
        with torch.no_grad():
            wanted = lpips.embed(piece.targets)

        def evaluate(rows: torch.Tensor, active: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            h = rows.detach().requires_grad_()
            losses = self.inversion._losses(h.reshape(-1, *piece.encoded.shape[1:]), piece.targets[active], wanted[active])
            return losses.detach(), torch.autograd.grad(losses.sum(), h)[0]

        return evaluate

    def adam(self, piece: Piece, start: torch.Tensor, steps: int, lr: float) -> torch.Tensor:
        """Adam in the coordinates h, with a step size that rises over a twentieth and falls over the second half."""
        h, evaluate, everyone = self.inversion.whiten(start).flatten(1), self.function(piece), torch.arange(len(start))
        h = h.clone().requires_grad_()
        optimizer = torch.optim.Adam([h], betas=(0.9, 0.99))
        for step in range(steps - 1):
            t = step / steps
            optimizer.param_groups[0]['lr'] = lr * min(1, (t + 0.01) / 0.05) * (1 if t < 0.5 else np.cos(np.pi * (t - 0.5)) ** 2)
            h.grad = evaluate(h, everyone)[1]
            optimizer.step()
        return self.unwhiten(h.detach(), start)

    def lbfgs(self, piece: Piece, start: torch.Tensor, steps: int, *, curvature: bool, smooth: float = 0) -> torch.Tensor:
        """L-BFGS from the measured curvature or from a multiple of the identity."""
        h = self.inversion.whiten(start).flatten(1)
        blocks = self.inversion.inverse_curvature
        scale = blocks.diagonal(dim1=1, dim2=2).mean()

        def inverse_hessian(rows: torch.Tensor) -> torch.Tensor:
            if not curvature:
                return scale * rows
            return torch.einsum('nld,lde->nle', rows.reshape(-1, *start.shape[1:]), blocks).flatten(1)

        coupling = smoothness(len(h), self.inversion.whiten(piece.before[None]).flatten(), smooth / h.shape[1])
        h = minimize(self.function(piece), h, inverse_hessian=inverse_hessian, steps=steps, coupling=coupling)
        return self.unwhiten(h, start)

    def unwhiten(self, h: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """Codes of rows h."""
        return self.inversion.w_avg + h.reshape(start.shape) @ self.inversion.basis.T

    def starts(self, piece: Piece) -> dict[str, torch.Tensor]:
        """Where a search may begin."""
        return {
            'average code': self.inversion.average(len(piece.encoded)),
            'encoder': piece.encoded,
            'frame before': piece.before.expand_as(piece.encoded),
            'encoder + correction': piece.encoded + piece.before - piece.before_encoded,
        }


def measure(inversion: Inversion, pieces: list[Piece], find: Callable[[Piece], torch.Tensor]) -> str:
    """Cells with PSNR, LPIPS and jitter of what `find` gives."""
    rows, jitter = [], []
    for piece in pieces:
        codes = find(piece)
        rows += inversion.measure(codes, piece.targets)
        jitter.append(float(second_differences(inversion.whiten(torch.cat([piece.before[None], codes]))).mean()))
    psnr, lpips = (np.mean([row[key] for row in rows]) for key in ('psnr', 'lpips'))
    return f'{psnr:.2f} dB, {lpips:.4f}, {np.mean(jitter):.3f}'


def load_pieces(opts: types.SimpleNamespace, inversion: Inversion) -> list[Piece]:
    """Read the clips and embed what comes before the frames in question."""
    import itertools

    from networks.checkpoints import load_encoder
    from training.embedding.encoder_loss import shrink
    from training.footage.clips import fit, open_footage
    from training.footage.frame_bank import frames_to_images

    encoder: Any = load_encoder(opts.encoder)
    found = open_footage(opts.data)
    pieces = []
    for clip in found[:: max(len(found) // opts.clips, 1)][: opts.clips]:
        raw = [fit(frame, int(inversion.image_generator.img_resolution)) for frame in itertools.islice(clip.frames(), 8, 24)]
        images = frames_to_images(np.stack(raw))
        with torch.no_grad():
            encoded = encoder(images)
        targets = shrink(images, inversion.resolution)
        before = inversion.fit_chunk(targets[:8], encoded[:8], None)[-1]
        pieces.append(Piece(targets[8:], encoded[8:], before, encoded[7]))
    return pieces


# fmt: off
@command_line.command()
@click.option('--network', help='Image generator', metavar='FILE', required=True)
@click.option('--encoder', help='Its encoder', metavar='FILE', required=True)
@click.option('--data',    help='Footage', metavar='FOOTAGE', required=True)
@click.option('--clips',   help='How many clips of it', metavar='INT', type=command_line.POSITIVE_INT, default=4)
@command_line.clear_errors
def main(**options: Any) -> None:
    """Measure the choices of the optimisation."""
    from networks.checkpoints import load_generator
    from networks.checkpoints.detectors import load_lpips

    opts = types.SimpleNamespace(**options)
    torch.set_num_threads(1)
    settings = InversionOptions(stop=0, steps=20, lambda_pixel=2, lambda_smooth=0.1)
    inversion = Inversion(load_generator(opts.network), load_lpips('alex'), settings)
    pieces = load_pieces(opts, inversion)
    variants = Variants(inversion)
    print('| search, from the encoder | ' + ' | '.join(f'{looks} evaluations' for looks in LOOKS) + ' |')
    print('|---' * (len(LOOKS) + 1) + '|')
    searches: dict[str, Callable[[Piece, int], torch.Tensor]] = {
        'Adam, lr 0.1': lambda piece, steps: variants.adam(piece, piece.encoded, steps, 0.1),
        'Adam, lr 0.2': lambda piece, steps: variants.adam(piece, piece.encoded, steps, 0.2),
        'L-BFGS': lambda piece, steps: variants.lbfgs(piece, piece.encoded, steps, curvature=False),
        'L-BFGS with curvature': lambda piece, steps: variants.lbfgs(piece, piece.encoded, steps, curvature=True),
    }
    for name, search in searches.items():
        cells = [measure(inversion, pieces, lambda piece, search=search, steps=steps: search(piece, steps)) for steps in LOOKS]  # type: ignore[misc]
        print(f'| {name} | ' + ' | '.join(cells) + ' |', flush=True)
    print('\n| start, L-BFGS with curvature | ' + ' | '.join(f'{looks} evaluations' for looks in LOOKS) + ' |')
    print('|---' * (len(LOOKS) + 1) + '|')
    for name in variants.starts(pieces[0]):
        cells = [measure(inversion, pieces, lambda piece, name=name, steps=steps: variants.lbfgs(  # type: ignore[misc]
            piece, variants.starts(piece)[name], steps, curvature=True)) for steps in LOOKS]
        print(f'| {name} | ' + ' | '.join(cells) + ' |', flush=True)
    print('\n| weight of smoothness | 20 evaluations |\n|---|---|')
    for weight in (0, 0.03, 0.1, 0.3, 1):
        cell = measure(inversion, pieces, lambda piece, weight=weight: variants.lbfgs(  # type: ignore[misc]
            piece, variants.starts(piece)['encoder + correction'], 20, curvature=True, smooth=weight))
        print(f'| {weight:g} | {cell} |', flush=True)
# fmt: on


if __name__ == '__main__':
    main()
