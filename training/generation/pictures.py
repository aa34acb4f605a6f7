"""Codes of a subject that a user names: a code file, a clip of a latent data set, a picture, a recording, or a seed.

What embeds pictures and reads recordings is imported when there are some: it is a tenth of what a video takes to begin.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from networks.errors import InputError
from networks.image_generator import ImageGenerator

if TYPE_CHECKING:
    from training.embedding.inversion import Inversion
    from training.footage.clips import FootageClip

MAX_FRAMES_OF_SUBJECT = 64  # of a recording, evenly spread
SEED_TRUNCATION = 0.7  # of a subject that is drawn: plain samples have rare looks


class PictureReader:
    """Reads codes for one image generator, and embeds pictures that have none.

    Args:
        image_generator: Image generator.
        encoder: Of train_encoder.py, pSp or e4e; None: pictures are optimised.
        align: 'center' takes the centre square of pictures, 'ffhq' finds and crops the face (training.footage.preparation).
    """

    def __init__(self, image_generator: ImageGenerator, encoder: Any | None = None, align: str = 'center') -> None:
        self.image_generator, self.encoder, self._align = image_generator, encoder, align
        self.num_ws, self.w_dim = int(image_generator.num_ws), int(image_generator.w_dim)
        self._inversion: Inversion | None = None

    def read(self, source: str, option: str = '--subject') -> np.ndarray:
        """Codes [N, num_ws, w_dim] float32 of what `source` names.

        Args:
            source: 'seed:7' (a subject of the image generator's own), a code file, a latent data set with or without
                ':CLIP' behind it, a picture, or a recording.
            option: How the user gave it, for errors.

        Raises:
            InputError: there is no such file, or it is of another image generator.
        """
        from training.latents.code_files import CODE_ENDINGS, read_codes
        from training.latents.dataset import is_latent_dataset

        if match := re.fullmatch(r'seed:(\d{1,10})', source, re.ASCII):
            return self.draw(int(match[1]))
        path, clip = split_clip(source)
        if not os.path.exists(path):
            raise InputError(f'{option}: there is no file or folder {path!r}; give a code file, a picture, a clip or seed:NUMBER')
        if is_latent_dataset(path):
            return read_clip(path, clip, self.num_ws, self.w_dim, option)[0]
        if clip:
            raise InputError(f'{option}: {path!r} is no latent data set, so it has no clip {clip!r}')
        if path.lower().endswith(CODE_ENDINGS):
            return read_codes(path, num_ws=self.num_ws, w_dim=self.w_dim)[0]
        return self.embed(path, option)

    def draw(self, seed: int) -> np.ndarray:
        """The code [1, num_ws, w_dim] of a seed of the image generator, truncated to `SEED_TRUNCATION`."""
        z = torch.from_numpy(np.random.RandomState(seed).randn(1, int(self.image_generator.z_dim)).astype(np.float32))
        device = next(self.image_generator.parameters()).device
        c = torch.zeros([1, int(self.image_generator.c_dim)], device=device)
        with torch.no_grad():
            return self.image_generator.mapping(z.to(device), c, truncation_psi=SEED_TRUNCATION).float().cpu().numpy()

    def embed(self, path: str, option: str = '--subject') -> np.ndarray:
        """Codes [N, num_ws, w_dim] of a picture (N = 1) or of frames of a recording, evenly spread."""
        from training.embedding.embedder import encoder_input
        from training.footage.clips import fit, open_footage
        from training.footage.frame_bank import frames_to_images

        clips = open_footage(path)
        if not clips:
            raise InputError(f'{option}: {path!r} holds no picture')
        clip = clips[0] if self._align == 'center' else self._aligned(clips[0], option)
        length = clip.num_frames or clip.expected_frames or 1
        stride = max(1, length // MAX_FRAMES_OF_SUBJECT)
        frames = [frame for index, frame in enumerate(clip.frames()) if index % stride == 0][:MAX_FRAMES_OF_SUBJECT]
        device = next(self.image_generator.parameters()).device
        fitted = np.stack([fit(frame, int(self.image_generator.img_resolution)) for frame in frames])
        images = frames_to_images(fitted, int(self.image_generator.img_channels)).to(device)
        if self.encoder is not None:
            with torch.no_grad():
                codes = self.encoder(encoder_input(self.encoder, frames, images)).float()
        else:
            codes = self._optimised(images[:1])  # a hundred evaluations of the loss for each frame would take too long
        if not bool(torch.isfinite(codes).all()):
            raise InputError(f'{option}: embedding {path!r} gave codes that are not finite numbers')
        return codes.cpu().numpy()

    def _aligned(self, clip: FootageClip, option: str) -> FootageClip:
        """The first piece of a recording in which a face is found, cropped to it."""
        from training.footage.preparation import PreparationSettings, prepare_footage

        size = max(int(self.image_generator.img_resolution), int(getattr(self.encoder, 'img_resolution', 0) or 0))
        folder = tempfile.mkdtemp(prefix='stylevideogan-')  # of the first look, which is not needed again
        try:
            clips, _ = prepare_footage([clip], PreparationSettings(align='ffhq', min_frames=1), size=size, folder=folder)
        except InputError as error:
            raise InputError(f'{option}: {error}') from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return clips[0]

    def _optimised(self, images: torch.Tensor) -> torch.Tensor:
        from training.embedding.encoder_loss import shrink

        if self._inversion is None:
            from networks.checkpoints.detectors import load_lpips
            from training.embedding.inversion import Inversion, InversionOptions

            try:
                lpips = load_lpips('alex').to(images.device)
            except InputError:  # its weights are not installed: pixels alone
                lpips = None
            self._inversion = Inversion(self.image_generator, lpips, InversionOptions())
        targets = shrink(images, self._inversion.resolution)
        return self._inversion.fit_chunk(targets, None, None)


def split_clip(source: str) -> tuple[str, str]:
    """Divide PATH:CLIP; a path that exists as it is has no clip."""
    if os.path.exists(source) or ':' not in source:
        return source, ''
    path, _, clip = source.rpartition(':')
    return (path, clip) if os.path.exists(path) else (source, '')


def read_clip(path: str, clip: str, num_ws: int, w_dim: int, option: str) -> tuple[np.ndarray, float]:
    """Codes [T, num_ws, w_dim] of a clip of a latent data set (its only one, or by name or number), and its rate.

    Raises:
        InputError: another image generator's, no such clip, or several and none named.
    """
    from training.latents.dataset import LatentDataset

    with LatentDataset(path) as data:
        if (data.num_ws, data.w_dim) != (num_ws, w_dim):
            raise InputError(
                f'{option}: the codes of {path!r} are {data.num_ws} x {data.w_dim}, and this image generator takes '
                f'{num_ws} x {w_dim}; they were made for another one'
            )
        names = [entry.name for entry in data.clips]
        if clip in names:
            index = names.index(clip)
        elif re.fullmatch(r'\d{1,9}', clip) and int(clip) < len(names):
            index = int(clip)
        elif clip or len(names) > 1:
            problem = f'has no clip {clip!r}' if clip else f'has {len(names)} clips'
            shown = ', '.join(repr(name) for name in names[:5]) + (', ...' if len(names) > 5 else '')
            raise InputError(f'{option}: {path!r} {problem}; name one of {shown} behind a colon, or its number')
        else:
            index = 0
        return np.array(data.load_clip(index)), float(data.clips[index].fps)


def is_picture(path: str) -> bool:
    """Whether this is the name of a picture."""
    from training.footage.clips import IMAGE_ENDINGS

    return path.lower().endswith(IMAGE_ENDINGS)
