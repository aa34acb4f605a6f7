"""The steps of the project as functions: open networks, embed frames, tune, train, generate frames one by one.

docs/python.md shows each. They are what the commands do, with the same results; a mistake raises
`stylevideogan.networks.errors.InputError` with one sentence.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import click
import numpy as np
import torch

from metrics.inputs.frame_layouts import ValueRange, as_bytes, split_videos
from networks import checkpoints
from networks.checkpoints.detectors import load_lpips
from networks.errors import InputError
from stylevideogan import layout
from stylevideogan.score_base import choose_device, whole_number
from training.commands import command_line
from training.embedding.embedder import encoder_input
from training.embedding.encoder_loss import shrink
from training.embedding.inversion import Inversion, InversionOptions
from training.footage.clips import fit
from training.footage.frame_bank import frames_to_images
from training.latents.writer import LatentDatasetWriter
from training.runs import ranks
from training.videos.rendered_videos import GeneratedVideos

__all__ = [
    'embed', 'generate', 'load_encoder', 'load_generator', 'load_snapshot', 'make_video', 'train', 'tune', 'write_latents',
]  # fmt: skip

CHUNK = 16  # frames that are optimised together


def load_generator(source: str, *, device: str | torch.device = 'auto', trust_pickle: bool = False) -> Any:
    """Image generator of any file that the commands take as --network, in evaluation mode.

    It has `mapping(z, c)`, `synthesis(ws)`, `num_ws`, `w_dim`, `z_dim`, `img_resolution` and `img_channels`, as NVIDIA's.

    Args:
        source: Path or address (docs/checkpoints.md).
        device: Where it computes; 'auto' is a GPU if there is one.
        trust_pickle: Run the source text in the file, where our own classes cannot take its weights.

    Raises:
        InputError: It cannot be had, or holds no image generator.
    """
    return checkpoints.load_generator(source, device=choose_device(device), trust_pickle=trust_pickle)


def load_encoder(source: str, *, device: str | torch.device = 'auto', trust_pickle: bool = False) -> Any:
    """Encoder, images -> codes [N, num_ws, w_dim], of train_encoder.py or of a pSp or e4e file; arguments as `load_generator`."""
    return checkpoints.load_encoder(source, device=str(choose_device(device)), trust_pickle=trust_pickle)


def load_snapshot(source: str, *, device: str | torch.device = 'auto', trust_pickle: bool = False) -> Any:
    """Snapshot of train_video.py: a dict with the latent generator `G_ema`, `image_generator`, `data`, `training_options`, ...

    Arguments as `load_generator`.
    """
    return checkpoints.load_snapshot(source, device=choose_device(device), trust_pickle=trust_pickle)


def embed(
    frames: Any,
    generator: Any,
    *,
    encoder: Any = None,
    refine: bool = True,
    perceptual: str = 'vgg',
    layout: str = 'THWC',
    value_range: ValueRange | None = None,
    chunk: int = CHUNK,
    **settings: Any,
) -> np.ndarray:
    """W+ codes of one clip.

    Args:
        frames: Frames in order, cropped as the generator's training images were; their central square is taken.
        generator: From `load_generator`.
        encoder: From `load_encoder`; None: every frame is optimised from the one before.
        refine: Optimise what the encoder gives.
        perceptual: 'vgg', 'alex' or 'none': the distance that is made small beside the pixels'.
        layout: Axes of `frames`, as stylevideogan.scores takes them; one video.
        value_range: Black and white of floating point.
        chunk: Frames that are optimised together.
        settings: Fields of training.embedding.inversion.InversionOptions, such as `steps`.

    Returns:
        float32 [T, num_ws, w_dim].

    Raises:
        InputError: The frames are no video, or the weights of LPIPS are not there.
    """
    videos = split_videos(frames, layout, value_range)
    if len(videos) != 1:
        raise InputError(f'embed takes one clip, and these are {len(videos)}; call it for each')
    optimised = encoder is None or refine
    lpips = load_lpips(perceptual).to(next(generator.parameters()).device) if perceptual != 'none' and optimised else None
    inversion = Inversion(generator, lpips, InversionOptions(**settings))
    found: list[torch.Tensor] = []
    before = before_start = None
    for begin in range(0, len(videos[0]), chunk):
        raw = [as_bytes(frame, value_range) for frame in videos[0][begin : begin + chunk]]
        squares = np.stack([fit(frame, int(generator.img_resolution)) for frame in raw])
        images = frames_to_images(squares, int(generator.img_channels)).to(inversion.device)
        start = None
        if encoder is not None:
            with torch.inference_mode():
                start = encoder(encoder_input(encoder, raw, images)).float()
            start = start.clone()
        codes = inversion.fit_chunk(shrink(images, inversion.resolution), start, before, before_start) if optimised else start
        assert codes is not None
        found.append(codes.detach().cpu())
        before, before_start = found[-1][-1], None if start is None else start[-1]
    return torch.cat(found).float().numpy()


def write_latents(
    path: str, clips: Mapping[str, np.ndarray], network: str, *, fps: float = 25.0, overwrite: bool = False
) -> None:
    """Write codes as a latent data set, which `train` and train_video.py take.

    Args:
        path: NAME.zip or a folder, which is made.
        clips: Name -> codes float32 [T, num_ws, w_dim], T at least 2.
        network: The image generator's file, whose sha256 goes into the data set.
        fps: Rate in frames per second.
        overwrite: Replace what is there.

    Raises:
        InputError: It exists, or the codes are not those of this generator.
    """
    G = load_generator(network, device='cpu')
    reference = checkpoints.image_generator_reference(network, G)
    with LatentDatasetWriter(
        path,
        image_generator=reference,
        num_ws=int(G.num_ws),
        w_dim=int(G.w_dim),
        embedding={'method': 'api'},
        overwrite=overwrite,
    ) as writer:
        for name, codes in clips.items():
            writer.add_clip(name, np.asarray(codes, np.float32), fps=fps, source=name)
        writer.finish()


def make_video(source: str | os.PathLike[str], network: str, outdir: str, **options: Any) -> str:
    """Footage to new video in one go, as make_video.py does it; returns `outdir`, whose folder `videos` has the videos.

    An interrupted call goes on when it is made again.

    Args:
        source: Recording, as --source takes it.
        network: Image generator.
        outdir: Where everything goes.
        options: Those of the command with underscores: encoder='encoder.pkl', seconds=60, videos=4, paste=True, ...

    Raises:
        InputError: Something is wrong; the sentence says in which step.
    """
    _run('make_video', [f'--source={os.fspath(source)}', f'--network={network}', f'--outdir={outdir}', *_words(options)])
    return outdir


def train(data: str, outdir: str, **options: Any) -> str:
    """Train the temporal GAN, as train_video.py does; returns the run folder ('' with dry_run=True).

    The same call goes on with a run that was interrupted, and returns one that is finished.

    Args:
        data: Latent data set.
        outdir: Where the run folder is made.
        options: Those of the command with underscores: kimg=100, batch=32, metrics='none', full_codes=True, ...

    Raises:
        InputError: An option or the data set is wrong.
        KeyboardInterrupt: A signal ended it; its state is saved.
    """
    return _run('train_video', [f'--data={data}', f'--outdir={outdir}', *_words(options)]) or ''


def tune(data: str, outdir: str, **options: Any) -> str:
    """Tune the image generator of a latent data set to its footage, as tune_generator.py does; returns the file of the new one.

    `generate` finds it beside the data set by itself.

    Args:
        data: Latent data set.
        outdir: Where the run folder is made.
        options: Those of the command with underscores: source='recordings/', keep=['bob.zip'], steps=500, ...

    Raises:
        InputError: An option or the data set is wrong.
    """
    from networks.checkpoints.tuned_generators import tuned_path

    _run('tune_generator', [f'--data={data}', f'--outdir={outdir}', *_words(options)])
    return os.path.abspath(options.get('dest') or tuned_path(data))


def _words(options: Mapping[str, Any]) -> list[str]:
    """Options of a command on its command line; True and False are flags, and a list is an option that is given several times."""
    words = []
    if options.get('gpus') not in (None, 1, '1') and not ranks.launched():
        raise InputError(
            f'gpus={options["gpus"]}: a function starts no processes; start your script with torchrun, or use the command'
        )
    for name, value in options.items():
        flag = name.replace('_', '-')
        for each in value if isinstance(value, list) else [value]:
            words.append(f'--{flag}' if each is True else f'--no-{flag}' if each is False else f'--{flag}={each}')
    return words


def _run(name: str, arguments: list[str]) -> Any:
    """Run a command, and return what its function does."""
    import importlib

    command = importlib.import_module(f'{layout.home(command_line.__name__)}{name}').main
    try:
        result = command.main(arguments, prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        raise InputError(' '.join(error.format_message().split())) from error
    if isinstance(result, int) and result != 0:  # an exit code: what a signal ended
        raise KeyboardInterrupt
    return result


def generate(
    network: str,
    *,
    seed: int = 0,
    num_frames: int | None = None,
    trunc: float = 1.0,
    image_network: str | None = None,
    device: str | torch.device = 'auto',
    batch: int = 8,
    trust_pickle: bool = False,
) -> Iterator[np.ndarray]:
    """Frames of one new video, one by one, without end unless `num_frames` is given; memory does not grow.

    Args:
        network: Snapshot of train_video.py, or a run folder, of which the best one is taken.
        seed: Which video.
        num_frames: How many frames.
        trunc: Truncation psi towards the mean code of the subject.
        image_network: The image generator, where the snapshot does not find it.
        device: Where to compute.
        batch: Frames that are rendered together; the last digits depend on it.
        trust_pickle: Run the source text in the files.

    Yields:
        uint8 [H, W, 3].

    Raises:
        InputError: The files are not there, or do not belong together.
    """
    for name, value, least in (('seed', seed, 0), ('batch', batch, 1), ('num_frames', num_frames, 1)):
        if value is not None:
            whole_number(name, value, least)
    from training.best_snapshot import find_snapshot

    videos = GeneratedVideos(
        find_snapshot(network)[0], image_network, first_seed=seed, trunc=trunc, device=choose_device(device), batch=batch,
        trust_pickle=trust_pickle,
    )  # fmt: skip
    return videos.frames(0, itertools.count() if num_frames is None else range(num_frames))
