"""Ways to put another subject in the place of the one that moves, on the demo's world, where identity and motion are known.

    python -m benchmarks.embedding.subject_transfer --data=latents.zip --network=network-snapshot-001500.pkl --outdir=out

`--data` is the demo's footage of one subject, embedded; `--network` was trained on it. 50 other subjects are met, each known
by one picture from the middle of a performance of its own, so with a pose and expression that do not belong to the video. Their
identity, as read from the new pictures, is compared with the truth; pose, gaze, blink and mouth with those of the subject that
moves, as read from its own pictures. `oracle` renders the other subject with the true motion and embeds that: what encoder,
generator and reader leave even with nothing transferred. One JSON line for each subject and method is written when it is done,
and a run that was interrupted goes on.

Candidates beside those of training.control.transfer:

* `oblique`: as orthogonal, but in the metric of the covariance T of all heads (half of it; the other half is its mean variance
  times the identity): shift = d - V^T (V T^-1 V^T)^-1 V T^-1 d.
* `matched`: orthogonal with the mean of 8 frames of the other subject, and the motion along each direction scaled to its
  deviation.
"""

import json
import pathlib
from typing import Any

import click
import numpy as np
import torch

from demo.fitting.fast_synthesis import fast_synthesis
from demo.head.dynamics import perform
from demo.head.head_parameters import INDEX, NUM_IDENTITY
from demo.head.head_world import HEAD
from demo.head.talking_head import render
from demo.truth_reader import load_reader
from demo.worlds import FOLDER
from networks.checkpoints import load_encoder, load_generator, load_snapshot
from training.commands import command_line
from training.control.option_types import TRANSFERS
from training.control.transfer import MOTION_SHARE, motion_of, subject_shift
from training.latents.dataset import LatentDataset
from training.videos.code_sources import ModelSource

METHODS = ('none', 'offset', 'orthogonal', 'layers', 'shrinkage', 'regression', 'oblique', 'matched')
GROUPS = {
    'pose': ('yaw', 'pitch', 'roll'), 'gaze': ('gaze_x', 'gaze_y'), 'mouth': ('mouth_open',), 'blink': ('blink',),
    'look': tuple(name for name in INDEX if INDEX[name] < NUM_IDENTITY),
}  # fmt: skip
FRAMES_OF_MOTION = 8
FRAMES_OF_SUBJECT = 8
FIRST_SUBJECT = 1000
FIRST_OF_SEVERAL = 2000
NUM_SEVERAL = 20
NUM_ORACLE = 15
POPULATION = 512


class World:
    """The demo's networks, and what is measured with them."""

    def __init__(self) -> None:
        self.G: Any = load_generator(FOLDER / HEAD.generator_file)
        self.encoder = load_encoder(FOLDER / HEAD.encoder_file)
        self.reader = load_reader(FOLDER / HEAD.reader_file, HEAD.table)
        self.deviation = HEAD.table.statistics[1].numpy()

    @torch.no_grad()
    def read(self, codes: torch.Tensor) -> np.ndarray:
        """True parameters, in the world's deviations, as read from the pictures of codes [T, num_ws, w_dim]."""
        return (
            np.concatenate([self.reader(fast_synthesis(self.G, part)).numpy() for part in codes.float().split(24)])
            / self.deviation
        )

    @torch.no_grad()
    def embed(self, parameters: np.ndarray) -> torch.Tensor:
        """Codes of heads with these true parameters."""
        return self.encoder(render(parameters)).float()

    def performance(self, seed: int, frames: int) -> np.ndarray:
        """True parameters of moments of one subject, a second apart."""
        return perform(25 * frames, seed=seed).parameters[12::25]


def shifted(method: str, motion: torch.Tensor, frames: torch.Tensor, subject: torch.Tensor, clip: torch.Tensor,
            several: list[np.ndarray], population: torch.Tensor) -> torch.Tensor:  # fmt: skip
    """Codes [T, num_ws, w_dim] of the other subject with the motion of `frames`."""
    if method == 'none':
        return frames
    if method == 'oblique':
        moves = motion_of(motion)
        directions = moves.leading(MOTION_SHARE)
        difference = subject[0].flatten().double() - moves.mean
        covariance = torch.cov(population.flatten(1).double().t())
        covariance = covariance / 2 + torch.eye(len(covariance), dtype=torch.float64) * covariance.diagonal().mean() / 2
        weighted = torch.linalg.solve(covariance, directions.t())  # T^-1 V^T
        along = torch.linalg.solve(directions @ weighted, weighted.t() @ difference)
        return frames + (difference - directions.t() @ along).reshape(frames.shape[1:]).float()
    if method == 'matched':
        moves = motion_of(motion)
        directions = moves.leading(MOTION_SHARE)
        own = (clip.flatten(1).double() - clip.flatten(1).double().mean(dim=0)) @ directions.t()
        scale = (own.square().mean(dim=0) / moves.variances[: len(directions)]).sqrt().clamp(0.5, 2)
        along = (frames.flatten(1).double() - moves.mean) @ directions.t()
        changed = frames.flatten(1).double() + (along * (scale - 1)) @ directions
        return changed.float().reshape(frames.shape) + subject_shift('orthogonal', motion, clip)
    return frames + subject_shift(method, motion, subject, several)


@command_line.command()
@click.option('--data', help="Latent data set of the demo's footage", required=True)
@click.option('--network', help='Snapshot that was trained on it', required=True)
@click.option('--outdir', help='Where lines and pictures go', required=True)
@click.option('--subjects', help='Number of subjects', type=command_line.POSITIVE_INT, default=50)
@click.option('--begin', help='First of them, to divide the work', type=command_line.NON_NEGATIVE_INT, default=0)
@click.option('--methods', help='Which', type=command_line.NAMES, default=','.join((*METHODS, 'oracle')))
@command_line.clear_errors
def main(data: str, network: str, outdir: str, subjects: int, begin: int, methods: list[str]) -> None:
    """Measure how well identity and motion survive when another subject takes the place of the one that moves."""
    torch.set_num_threads(1)
    out = pathlib.Path(command_line.require_folder(outdir))
    world = World()
    with LatentDataset(data) as latents:
        recorded = torch.from_numpy(np.array(latents.load_clip(0)))
    generator = load_snapshot(network)['G_ema']
    generated = ModelSource(generator, 0, burn_in=50).read(25 * FRAMES_OF_MOTION)[::25]
    half = len(recorded) // 2
    moments = np.linspace(50, half - 50, FRAMES_OF_MOTION).astype(int)
    motions = {
        'recorded, first half': recorded[moments],
        'recorded, second half': recorded[half + moments],
        'generated': generated,
    }
    frames = torch.cat(list(motions.values()))
    reference = world.read(frames)

    lines_path = out / 'lines.jsonl'
    done = [json.loads(text) for text in lines_path.read_text().splitlines()] if lines_path.exists() else []
    finished = {(line['method'], line['subject']) for line in done}
    cache = out / 'several.npz'
    if not cache.exists():
        parts = [
            world.embed(world.performance(FIRST_OF_SEVERAL + index, FRAMES_OF_SUBJECT)).numpy() for index in range(NUM_SEVERAL)
        ]
        z = torch.randn(POPULATION, world.G.z_dim, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            heads = torch.cat([world.encoder(fast_synthesis(world.G, world.G.mapping(part, None))) for part in z.split(32)])
        np.savez(cache, several=np.stack(parts), population=heads.numpy())
    with np.load(cache) as file:
        several, population = list(file['several']), torch.from_numpy(file['population'])

    pictures: dict[str, list[torch.Tensor]] = {}
    with (
        lines_path.open('a') as file,
        command_line.progress(total=subjects - begin, description='Subjects', unit='subject') as bar,
    ):
        for subject in range(begin, subjects):
            missing = [method for method in methods if (method, subject) not in finished]
            if subject >= NUM_ORACLE and 'oracle' in missing:
                missing.remove('oracle')
            if missing or subject < 4:
                truth = world.performance(FIRST_SUBJECT + subject, FRAMES_OF_SUBJECT)
                middle = FRAMES_OF_SUBJECT // 2
                codes = world.embed(truth[middle : middle + 1])
                clip = world.embed(truth) if 'matched' in missing or subject < 4 else codes
                if subject < 4:
                    pictures.setdefault('subject', []).append(codes)
                    for method in METHODS[1:]:
                        made = shifted(method, recorded, frames[:4], codes, clip, several, population)
                        pictures.setdefault(method, []).append(made)
            for method in missing:
                if method == 'oracle':
                    with np.load(pathlib.Path(data).parent / 'truth.npz') as known:
                        wanted = known['parameters'][np.concatenate([moments, half + moments])].copy()
                    wanted[:, :NUM_IDENTITY] = truth[0, :NUM_IDENTITY]
                    read, against = world.read(world.embed(wanted)), reference[: len(wanted)]
                else:
                    made = shifted(method, recorded, frames, codes, clip, several, population)
                    read, against = world.read(made), reference
                error = read - against
                error[:, :NUM_IDENTITY] = read[:, :NUM_IDENTITY] - truth[0, :NUM_IDENTITY] / world.deviation[:NUM_IDENTITY]
                line = {'method': method, 'subject': subject}
                for name, members in GROUPS.items():
                    squares = np.square(error[:, [INDEX[member] for member in members]])
                    line[name] = float(squares.mean())
                    if method != 'oracle':
                        for number, motion in enumerate(motions):
                            part = squares[number * FRAMES_OF_MOTION : (number + 1) * FRAMES_OF_MOTION]
                            line[f'{name}, {motion}'] = float(part.mean())
                line['drift'] = float((read[:, :NUM_IDENTITY]).var(axis=0).mean())
                file.write(json.dumps(line) + '\n')
                file.flush()
                done.append(line)
            bar.update(1)
    if pictures:
        save_pictures(world, frames[:4], pictures, out / 'subjects.png')
        show = ModelSource(generator, 1, burn_in=50).read(200)[::25]
        shifts = [subject_shift(TRANSFERS[0], recorded, subject) for subject in pictures['subject']]
        save_transfer(world, show, pictures['subject'], shifts, out / 'transfer.png')
    print(table(done))


def table(lines: list[dict[str, Any]]) -> str:
    """Root mean square errors in the world's deviations, with 95% intervals over subjects by the bootstrap."""
    rows = ['| method | identity | drift of identity | pose | gaze | mouth | blink |', '|---|---|---|---|---|---|---|']
    draws = np.random.RandomState(0)
    for method in (*METHODS, 'oracle'):
        of_method = [line for line in lines if line['method'] == method]
        cells = []
        for name in ('look', 'drift', 'pose', 'gaze', 'mouth', 'blink'):
            squares = np.array([line[name] for line in of_method])
            if not len(squares):
                cells.append('-')
                continue
            means = np.sqrt(squares[draws.randint(len(squares), size=(2000, len(squares)))].mean(axis=1))
            low, high = np.percentile(means, [2.5, 97.5])
            cells.append(f'{np.sqrt(squares.mean()):.2f} ({low:.2f} to {high:.2f})')
        rows.append(f'| {method} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(rows)


@torch.no_grad()
def save_pictures(world: World, frames: torch.Tensor, pictures: dict[str, list[torch.Tensor]], path: pathlib.Path) -> None:
    """A row for the subject that moves, then for each of two others: its picture, and four moments by each method."""
    import PIL.Image

    from training.videos.output import image_grid
    from training.videos.synthesis import images_to_uint8

    def draw(codes: torch.Tensor) -> np.ndarray:
        return images_to_uint8(fast_synthesis(world.G, codes))

    blank = np.full((1, 128, 128, 3), 255, np.uint8)
    rows = [np.concatenate([blank, draw(frames)])]
    for subject in range(2):
        for method in ('offset', 'orthogonal', 'layers', 'shrinkage', 'regression'):
            own = draw(pictures['subject'][subject]) if method == 'offset' else blank
            rows.append(np.concatenate([own, draw(pictures[method][subject])]))
    PIL.Image.fromarray(image_grid(np.concatenate(rows), len(frames) + 1)).save(path)


@torch.no_grad()
def save_transfer(
    world: World, frames: torch.Tensor, subjects: list[torch.Tensor], shifts: list[torch.Tensor], path: pathlib.Path
) -> None:
    """Moments of a generated video, and of the same video of other subjects behind their pictures."""
    import PIL.Image

    from training.videos.output import image_grid
    from training.videos.synthesis import images_to_uint8

    blank = np.full((1, 128, 128, 3), 255, np.uint8)
    rows = [np.concatenate([blank, images_to_uint8(fast_synthesis(world.G, frames))])]
    for subject, shift in zip(subjects, shifts, strict=True):
        rows.append(images_to_uint8(fast_synthesis(world.G, torch.cat([subject, frames + shift]))))
    PIL.Image.fromarray(image_grid(np.concatenate(rows), len(frames) + 1)).save(path)


if __name__ == '__main__':
    main()
