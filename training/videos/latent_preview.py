"""Clips of a latent data set as files: names, and videos of what the codes render to."""

import os
from collections.abc import Sequence

from networks.image_generator import ImageGenerator
from training.commands.file_names import safe_name, unique_names
from training.commands.memory import Budget
from training.commands.progress import progress
from training.latents.dataset import LatentDataset
from training.videos.output import VideoWriter
from training.videos.synthesis import render_codes


def clip_files(dataset: LatentDataset, indices: Sequence[int], folder: str, ending: str) -> list[str]:
    """A path in `folder` for each of these clips: its name, numbered where names of clips would be the same."""
    stems = unique_names(safe_name(clip.name) for clip in dataset.clips)
    return [os.path.join(folder, stems[index] + ending) for index in indices]


def video_path(dataset: LatentDataset, index: int, folder: str) -> str:
    """Where the video of a clip goes."""
    return clip_files(dataset, [index], folder, '.mp4')[0]


def render_clip(
    image_generator: ImageGenerator,
    dataset: LatentDataset,
    index: int,
    path: str,
    *,
    batch: int = 8,
    memory: Budget | None = None,
) -> None:
    """Render one clip.

    Args:
        image_generator: Image generator.
        dataset: Latent data set.
        index: Of the clip.
        path: The video.
        batch: Frames rendered at a time.
        memory: See training.videos.synthesis.render_codes.
    """
    clip = dataset.clips[index]
    with VideoWriter(path, fps=clip.fps) as video, progress(total=clip.num_frames, description=clip.name) as bar:
        for image in render_codes(image_generator, dataset.load_clip(index), batch=batch, memory=memory):
            video.write(image)
            bar.update(1)
