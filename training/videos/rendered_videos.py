"""Videos that an image generator renders in memory: of the codes of a data set, or of a latent generator's own codes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch

from metrics.inputs.video_set import VideoSet
from networks import checkpoints
from networks.checkpoints.image_generator_lookup import OptionNames, TunedTo, expected_sha256, find_image_generator
from networks.errors import InputError, option
from networks.image_generator import ImageGenerator
from training.commands.memory import Budget
from training.commands.progress import report
from training.footage.clips import fit
from training.latents.dataset import LatentDataset
from training.videos.output import as_rgb
from training.videos.synthesis import render_codes, stream_codes, truncate_codes

LARGEST_SEED = 2**32 - 1


class _RenderedVideos(VideoSet):
    """What both have: an image generator, and codes by frame number."""

    def __init__(
        self, image_generator: ImageGenerator, *, noise_mode: str, batch: int, resolution: int | None, memory: Budget | None
    ) -> None:
        if noise_mode not in ('const', 'none'):
            raise ValueError(f'noise_mode {noise_mode!r}: the noise of measured videos is const or none')
        self._image_generator, self._noise_mode, self._batch, self._fit = image_generator, noise_mode, batch, resolution
        self._memory = memory
        self.left_out = {}
        self._image_sha256 = module_sha256(image_generator)

    @property
    def resolution(self) -> tuple[int, int]:
        size = self._fit or self._image_generator.img_resolution
        return size, size

    @property
    def sha256(self) -> str:
        content = [self._codes_sha256(), self._image_sha256, self._noise_mode, self._fit]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _codes_sha256(self) -> str:
        raise NotImplementedError

    def _codes(self, index: int, wanted: Iterable[int]) -> Iterator[torch.Tensor]:
        """Codes [n, num_ws, w_dim] of the wanted frames, some at a time."""
        raise NotImplementedError

    def frames(self, index: int, wanted: Iterable[int]) -> Iterator[np.ndarray]:
        for codes in self._codes(index, wanted):
            frames = render_codes(
                self._image_generator, codes, batch=self._batch, noise_mode=self._noise_mode, memory=self._memory
            )
            for frame in map(as_rgb, frames):
                yield frame if self._fit is None else fit(frame, self._fit)

    def _describe(self, kind: str, **more: Any) -> dict[str, Any]:
        return {
            'kind': kind,
            **more,
            'image_generator_weights_sha256': self._image_sha256,
            'noise_mode': self._noise_mode,
            'fit': None if self._fit is None else f'central square to {self._fit}x{self._fit}',
        }


class EmbeddedVideos(_RenderedVideos):
    """The codes of a latent data set, rendered: the best that a model of these codes can reach.

    Args:
        path: Latent data set.
        image_generator: The network, or the path of its file; None: what the data set refers to.
        resolution: As of RecordedVideos.
        noise_mode: Noise of the image generator, 'const' or 'none'.
        batch: Frames rendered at a time.
        memory: See training.videos.synthesis.render_codes.
        device: Where to render, when the image generator is loaded here.
        trust_pickle: Run the program code of its file.

    Raises:
        InputError: The files are not there, or do not belong together.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        image_generator: ImageGenerator | str | None = None,
        *,
        resolution: int | None = None,
        noise_mode: str = 'const',
        batch: int = 8,
        memory: Budget | None = None,
        device: torch.device | str = 'cpu',
        trust_pickle: bool = False,
    ) -> None:
        self._dataset = LatentDataset(path)
        image_generator = load_image_generator(
            image_generator,
            self._dataset.image_generator,
            beside=os.fspath(path),
            device=device,
            trust_pickle=trust_pickle,
            tuned_to=TunedTo(self._dataset.path, lambda: self._dataset.sha256),
        )
        _check_codes(image_generator, self._dataset, f'{os.fspath(path)} has codes')
        super().__init__(image_generator, noise_mode=noise_mode, batch=batch, resolution=resolution, memory=memory)
        self.names = [clip.name for clip in self._dataset.clips]
        self.num_frames = [clip.num_frames for clip in self._dataset.clips]
        self.fps = self._dataset.fps
        self.description = self._describe(
            'embedding',
            path=os.fspath(path),
            videos=len(self),
            frames=self._dataset.num_frames,
            latents_sha256=self._dataset.sha256,
        )

    def _codes_sha256(self) -> str:
        return self._dataset.sha256

    def _codes(self, index: int, wanted: Iterable[int]) -> Iterator[torch.Tensor]:
        clip = self._dataset.load_clip(index)
        for numbers in _pieces(wanted, self._batch):
            numbers = [number for number in numbers if number < len(clip)]
            if not numbers:
                return
            yield torch.from_numpy(np.array(clip[numbers]))

    def close(self) -> None:
        self._dataset.close()


class GeneratedVideos(_RenderedVideos):
    """Videos of a latent generator, endless and as many as there are seeds: video k is that of seed first_seed + k.

    Frames in a row are those of generate_video.py with the same batch, to the last bit.

    Args:
        network: Snapshot of train_video.py: its path or address, or the loaded latent generator.
        image_generator: The network, or the path of its file; None: what the snapshot refers to.
        first_seed: Seed of the first video.
        num_videos: What `len` says; further indices are further seeds.
        fps: Frames per second; None: what the snapshot says.
        resolution: As of RecordedVideos.
        trunc: Truncation towards the mean code of the subject, see truncate_codes; 1 is none.
        noise_mode: Noise of the image generator, 'const' or 'none'.
        batch: Frames rendered at a time.
        memory: See training.videos.synthesis.render_codes.
        device: Where to compute, when networks are loaded here.
        trust_pickle: Run the program code of the files.

    Raises:
        InputError: The files are not there, or do not belong together.
    """

    endless = True

    def __init__(
        self,
        network: Any,
        image_generator: ImageGenerator | str | None = None,
        *,
        first_seed: int = 0,
        num_videos: int = 2048,
        fps: float | None = None,
        resolution: int | None = None,
        trunc: float = 1.0,
        noise_mode: str = 'const',
        batch: int = 8,
        memory: Budget | None = None,
        device: torch.device | str = 'cpu',
        trust_pickle: bool = False,
    ) -> None:
        reference: dict[str, Any] = {}
        tuned_to = None
        beside, self._generator = '', network
        if not isinstance(network, torch.nn.Module):
            beside = os.fspath(network)
            snapshot = checkpoints.load_snapshot(beside, device=device, trust_pickle=trust_pickle)
            self._generator, reference = snapshot.get('G_ema'), snapshot.get('image_generator') or {}
            tuned_to = TunedTo.of_snapshot(snapshot)
            fps = fps or (snapshot.get('data') or {}).get('fps')
            if self._generator is None:
                raise InputError(f'{beside!r} is no snapshot of train_video.py: it has no latent generator (G_ema)')
        image_generator = load_image_generator(
            image_generator, reference, beside=beside, device=device, trust_pickle=trust_pickle, tuned_to=tuned_to
        )
        _check_codes(image_generator, self._generator, 'the snapshot makes codes')
        super().__init__(image_generator, noise_mode=noise_mode, batch=batch, resolution=resolution, memory=memory)
        self._center = None
        if trunc != 1:
            mean = getattr(self._generator, 'w_mean', None)
            if mean is None:
                raise InputError('this snapshot does not know the mean code of its subject, so its codes cannot be truncated')
            self._center = mean.reshape(image_generator.num_ws, image_generator.w_dim)
        self._trunc, self.first_seed = trunc, first_seed
        self.names = [f'seed{first_seed + index:04d}' for index in range(num_videos)]
        self.num_frames = [None] * num_videos
        self.fps, self.fps_is_known = float(fps or 25), fps is not None
        self._generator_sha256 = module_sha256(self._generator)
        self.description = self._describe(
            'generated', path=beside or None, first_seed=first_seed, trunc=trunc, generator_weights_sha256=self._generator_sha256
        )

    def _codes_sha256(self) -> str:
        return hashlib.sha256(json.dumps([self._generator_sha256, self.first_seed, self._trunc]).encode()).hexdigest()

    def _codes(self, index: int, wanted: Iterable[int]) -> Iterator[torch.Tensor]:
        if not 0 <= index <= LARGEST_SEED - self.first_seed:
            raise InputError(f'there is no seed {self.first_seed + index}: seeds go from 0 to {LARGEST_SEED}')
        numbers = iter(wanted)
        number = next(numbers, None)
        chunks = stream_codes(self._generator, self.first_seed + index, chunk=self._batch)
        for begin, codes in ((place * self._batch, chunk) for place, chunk in enumerate(chunks)):
            picked = []
            while number is not None and number < begin + self._batch:
                picked.append(number - begin)
                number = next(numbers, None)
            if picked:
                yield codes[picked] if self._center is None else truncate_codes(codes[picked], self._center, self._trunc)
            if number is None:
                return


def load_image_generator(
    source: Any,
    reference: dict[str, Any],
    *,
    beside: str,
    device: torch.device | str = 'cpu',
    trust_pickle: bool = False,
    tuned_to: TunedTo | None = None,
) -> ImageGenerator:
    """The image generator: `source` itself if it is a network, else its file, else the tuned one or what `reference` names."""
    if isinstance(source, torch.nn.Module):
        return cast(ImageGenerator, source)
    if source is None and not reference:
        raise InputError(f'videos cannot be rendered without an image generator; give it with {option("image_network")}')
    path = find_image_generator(
        reference, snapshot=beside, image_network=source, options=OptionNames('--image-network'), tuned_to=tuned_to, say=report
    )
    expected = expected_sha256(reference, path)
    return checkpoints.load_generator(path, device=device, trust_pickle=trust_pickle, sha256=expected)


def module_sha256(module: torch.nn.Module) -> str:
    """Digest of a network's class, construction arguments and weights: equal however the file is packed."""
    digest = hashlib.sha256(
        json.dumps([type(module).__name__, _plain(getattr(module, 'init_kwargs', {}))], sort_keys=True, default=str).encode()
    )
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f'{name} {values.dtype} {list(values.shape)}\n'.encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes() if values.numel() else b'')
    return digest.hexdigest()


def _plain(value: object) -> Any:
    return checkpoints.to_plain(value)


def _check_codes(image_generator: ImageGenerator, codes: Any, what: str) -> None:
    if (image_generator.num_ws, image_generator.w_dim) != (codes.num_ws, codes.w_dim):
        raise InputError(
            f'{what} of {codes.num_ws} x {codes.w_dim}, and the image generator takes '
            f'{image_generator.num_ws} x {image_generator.w_dim}; give the one that they belong to'
        )


def _pieces(numbers: Iterable[int], size: int) -> Iterator[Sequence[int]]:
    piece = []
    for number in numbers:
        piece.append(number)
        if len(piece) == size:
            yield piece
            piece = []
    if piece:
        yield piece
