"""What a person looks at while training runs: videos of real and generated windows, and their trajectories."""

from __future__ import annotations

import time

import numpy as np
import torch

from networks.image_generator import ImageGenerator
from networks.latent_generator import LatentGenerator
from networks.seeded_noise import SeededNoise
from training.kernels.recurrence.fast_rollout import rollout
from training.latent_space import LatentSpace
from training.latents.dataset import LatentDataset
from training.videos.code_sources import begin_video
from training.videos.output import VideoWriter, as_rgb, image_grid
from training.videos.synthesis import render_codes

TRAJECTORY_SECONDS = 60.0  # a video that dies does it after some ten seconds
SECONDS_PER_PREVIEW = 60.0  # a preview that would take longer gets fewer videos


@torch.no_grad()
def generate_codes(G: LatentGenerator, seeds: list[int], num_frames: int, device: torch.device) -> torch.Tensor:
    """W+ codes [len(seeds), num_frames, num_ws, w_dim] of these seeds, after the burn-in that G knows."""
    noise = SeededNoise(seeds, G.latent_dim, G.noise_dim, device)
    state, _ = begin_video(G, noise)
    return G.codes(rollout(G, noise.steps(num_frames - 1), state)[0])


@torch.no_grad()
def generate_trajectories(G: LatentGenerator, seeds: list[int], num_frames: int, device: torch.device) -> torch.Tensor:
    """Coordinates [len(seeds), num_frames, K] of these seeds, after the burn-in that G knows; no code is written out."""
    noise = SeededNoise(seeds, G.latent_dim, G.noise_dim, device)
    state, _ = begin_video(G, noise)
    return G.coordinates(rollout(G, noise.steps(num_frames - 1), state)[0])


class Preview:
    """Renders grids of clips with the image generator.

    Args:
        image_generator: The frozen StyleGAN.
        num_frames: Length of a preview.
        grid: Columns and rows; None chooses up to 4 x 2, fewer where rendering is slow.
        fps: Of the videos.
    """

    def __init__(
        self, image_generator: ImageGenerator, *, num_frames: int, fps: float, grid: tuple[int, int] | None = None
    ) -> None:
        self.image_generator = image_generator
        self.num_frames = num_frames
        self.fps = fps
        self.columns, self.rows = grid if grid is not None else self._affordable_grid()

    @property
    def num_videos(self) -> int:
        return self.columns * self.rows

    def _affordable_grid(self) -> tuple[int, int]:
        code = torch.zeros(8, self.image_generator.num_ws, self.image_generator.w_dim)
        list(render_codes(self.image_generator, code))  # warm-up
        start = time.perf_counter()
        list(render_codes(self.image_generator, code))
        seconds = (time.perf_counter() - start) / len(code) * self.num_frames
        return next((grid for grid in ((4, 2), (3, 1), (2, 1)) if seconds * grid[0] * grid[1] < SECONDS_PER_PREVIEW), (1, 1))

    def write(self, path: str, clips: list[torch.Tensor]) -> np.ndarray:
        """Write an mp4 grid of codes, each clip [T, num_ws, w_dim]; returns its first frame, uint8 [H, W, 3]."""
        streams = [render_codes(self.image_generator, clip) for clip in clips]
        first: np.ndarray | None = None
        with VideoWriter(path, fps=self.fps) as writer:
            for frames in zip(*streams, strict=True):
                picture = image_grid(np.stack([as_rgb(frame) for frame in frames]), self.columns)
                writer.write(picture)
                first = picture if first is None else first
        if first is None:
            raise ValueError('a preview needs at least one frame')
        return first

    def real_clips(self, dataset: LatentDataset, window: int) -> list[torch.Tensor]:
        """Evenly spread stretches of the data set, of one length (the preview's, or less if the clips are short)."""
        long_enough = [index for index, clip in enumerate(dataset.clips) if clip.num_frames >= window]
        length = min(self.num_frames, *(dataset.clips[index].num_frames for index in long_enough))
        places = [(index, begin) for index in long_enough for begin in range(dataset.clips[index].num_frames - length + 1)]
        chosen = np.linspace(0, len(places) - 1, self.num_videos).round().astype(int)
        return [torch.as_tensor(np.array(dataset.load_clip(places[k][0])[places[k][1] : places[k][1] + length])) for k in chosen]


def plot_trajectories(
    path: str, real: list[torch.Tensor], generated: torch.Tensor, space: LatentSpace, fps: float, title: str
) -> np.ndarray:
    """Plot real and generated codes in the first three coordinates, over time and against each other.

    Args:
        path: PNG to write.
        real: Coordinates of real clips, each [T, K].
        generated: Coordinates [N, T, K].
        space: Says what share of the variance the coordinates hold.
        fps: Frames per second.
        title: Heading.

    Returns:
        The picture, uint8 [H, W, 3].
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: only the rank that draws needs it
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout='constrained')
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(3, 3, width_ratios=(2, 2, 1.5))
    count = min(3, generated.shape[2])
    length = generated.shape[1]
    real = sorted(real, key=len, reverse=True)
    scatter = torch.cat(real)[:, :3]
    for row in range(3):
        for column, (name, curves) in enumerate((('real', real[:4]), ('generated', list(generated[:4])))):
            axis = axes[row][column]
            if row >= count:
                axis.set_axis_off()
                continue
            for curve in curves:
                seconds = np.arange(min(length, len(curve))) / fps
                axis.plot(seconds, curve[:length, row].cpu(), linewidth=1)
            low, high = scatter[:, row].min().item(), scatter[:, row].max().item()
            axis.set_ylim(low - 0.3 * (high - low), high + 0.3 * (high - low))
            axis.set_xlim(0, length / fps)
            axis.set_ylabel(f'component {row + 1}')
            if row == 0:
                axis.set_title(name)
            if row == count - 1:
                axis.set_xlabel('seconds')
        a, b = ((0, 1), (0, 2), (1, 2))[row]
        axis = axes[row][2]
        if max(a, b) >= count:
            axis.set_axis_off()
            continue
        axis.plot(scatter[:, a].cpu(), scatter[:, b].cpu(), '.', markersize=2, label='real')
        late = generated[:, :, :3].flatten(0, 1).cpu()
        axis.plot(late[:, a], late[:, b], '.', markersize=1, alpha=0.4, label='generated')
        axis.set_xlabel(f'component {a + 1}')
        axis.set_ylabel(f'component {b + 1}')
        if row == 0:
            axis.legend(loc='upper right', markerscale=4)
    figure.suptitle(f'{title}  ({generated.shape[2]} coordinates hold {space.explained:.1%} of the variance)')
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    figure.savefig(path)
    return picture
