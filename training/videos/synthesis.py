"""Seeds to codes to frames, as streams: a state goes in, the next frame comes out, and memory does not grow."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from networks.image_generator import ImageGenerator
from networks.latent_generator import LatentGenerator
from training.commands.memory import Budget
from training.videos.code_sources import ModelSource, chunks
from training.videos.renderer import frames_at_once, renderer


def images_to_uint8(images: torch.Tensor) -> np.ndarray:
    """Images [N, C, H, W] in [-1, 1] to frames uint8 [N, H, W, C]: x * 127.5 + 128, cut to 0..255, as NVIDIA does."""
    return (images.permute(0, 2, 3, 1).float() * 127.5).add_(128).clamp_(0, 255).to(torch.uint8).contiguous().cpu().numpy()


def _render_batch(
    image_generator: ImageGenerator,
    ws: torch.Tensor,
    wanted: int,
    noise_mode: str,
    noise_seed: Sequence[int] | None,
    precision: str,
    memory: Budget | None,
) -> Iterator[np.ndarray]:
    device = next(image_generator.parameters()).device
    render = renderer(image_generator, precision)
    if noise_mode != 'random':
        size = frames_at_once(image_generator, ws, precision, memory)
        for begin in range(0, wanted, size):  # parts of the whole batch, because rounding depends on the size of a part
            yield from images_to_uint8(render(ws[begin : begin + size], noise_mode, min(size, wanted - begin)))
        return
    if noise_seed is None:
        yield from images_to_uint8(render(ws, noise_mode, wanted))
        return
    with torch.random.fork_rng(devices=[device] if device.type == 'cuda' else []):
        torch.manual_seed(int(np.random.SeedSequence(list(noise_seed)).generate_state(1, np.uint64)[0] >> np.uint64(1)))
        images = images_to_uint8(render(ws, noise_mode, wanted))
    yield from images


def render_codes(
    image_generator: ImageGenerator,
    ws: torch.Tensor | np.ndarray,
    *,
    batch: int = 8,
    noise_mode: str = 'const',
    noise_seed: Sequence[int] | None = None,
    precision: str = 'auto',
    memory: Budget | None = None,
) -> Iterator[np.ndarray]:
    """Render W+ codes with an image generator, `batch` frames at a time.

    Every batch has the same size, the last one filled up and cut: rounding depends on the size of a batch, so a frame
    would otherwise depend on how many follow it.

    Args:
        image_generator: Image generator with `synthesis(ws, noise_mode=, force_fp32=)`.
        ws: Codes [T, num_ws, w_dim].
        batch: Frames rendered at a time.
        noise_mode: 'const', 'random' (new noise for every frame) or 'none'.
        noise_seed: Numbers that fix the noise of 'random'; None takes it from torch's global state.
        precision: See training.videos.renderer.renderer.
        memory: A batch that does not fit goes through the network in parts (training.videos.renderer.frames_at_once), but for
            noise_mode 'random', whose noise is drawn for a batch.

    Yields:
        T frames, uint8 [H, W, C].
    """
    ws = torch.as_tensor(ws, dtype=torch.float32)
    for begin in range(0, len(ws), batch):
        part = ws[begin : begin + batch]
        missing = batch - len(part)
        if missing:
            part = torch.cat([part, part[-1:].expand(missing, -1, -1)])
        seed = None if noise_seed is None else [*noise_seed, begin // batch]
        yield from _render_batch(image_generator, part, batch - missing, noise_mode, seed, precision, memory)


def truncate_codes(ws: torch.Tensor, center: torch.Tensor, psi: float) -> torch.Tensor:
    """Pull codes [..., num_ws, w_dim] towards `center` [num_ws, w_dim] or [w_dim]: w = center + psi (w - center)."""
    if psi == 1:
        return ws  # exactly as they were
    return torch.lerp(center.to(ws).expand_as(ws), ws, psi)


def stream_codes(generator: LatentGenerator, seed: int, *, chunk: int, burn_in: int | None = None) -> Iterator[torch.Tensor]:
    """The endless code sequence of one seed, `chunk` frames at a time.

    Args:
        generator: Latent generator (networks.latent_generator.LatentGenerator, or one with its methods).
        seed: Its noise comes from networks.seeded_noise.
        chunk: Frames at a time.
        burn_in: Frames at the beginning that are left out; None leaves it to the snapshot.

    Returns:
        W+ codes [chunk, num_ws, w_dim] on the generator's device, without end.
    """
    return chunks(ModelSource(generator, seed, burn_in=burn_in), chunk)


def stream_video(
    generator: LatentGenerator,
    image_generator: ImageGenerator,
    seed: int,
    *,
    batch: int = 8,
    burn_in: int | None = None,
    noise_mode: str = 'const',
    psi: float = 1.0,
    center: torch.Tensor | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The endless video of one seed.

    Args:
        generator: Latent generator.
        image_generator: Image generator.
        seed: Seed of the video.
        batch: Frames rendered at a time.
        burn_in: Frames at the beginning that are left out; None leaves it to the snapshot.
        noise_mode: Noise of the image generator, as in `render_codes`; 'random' is fixed by the seed as well.
        psi: Truncation, see `truncate_codes`; 1 is none.
        center: What truncation pulls towards; needed when psi is not 1.

    Yields:
        Frame uint8 [H, W, C] and its code float32 [num_ws, w_dim].
    """
    for index, codes in enumerate(stream_codes(generator, seed, chunk=batch, burn_in=burn_in)):
        if center is not None:
            codes = truncate_codes(codes, center, psi)
        frames = render_codes(image_generator, codes, batch=batch, noise_mode=noise_mode, noise_seed=[seed, index])
        yield from zip(frames, codes.cpu().numpy(), strict=True)
