"""Makes new video of a subject with a trained temporal model: a snapshot and seeds in, mp4, PNG frames or grids out."""

import contextlib
import dataclasses
import itertools
import json
import os
import time
import types
from typing import Any

import click

from networks.errors import InputError
from training import command_line

INTERRUPTED = 'interrupted; finished files are kept, the same command with --skip-existing makes the others'


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides the content of a file; written beside it, so that it can be made again."""

    network_sha256: str  # of the snapshot
    image_network_sha256: str
    frames: int  # length of a video
    fps: float
    trunc: float
    trunc_center: str
    noise_mode: str
    burn_in: int
    crf: float | None  # None for PNG, which loses nothing
    batch: int
    device: str


@dataclasses.dataclass(frozen=True)
class Output:
    """One file or folder to make."""

    name: str
    seeds: tuple[int, ...]
    columns: int  # of the grid; 1 for a single video


def plan_outputs(seeds: list[int], grid: tuple[int, int] | None, ending: str) -> list[Output]:
    """What to make: a video for every seed, or grids of width x height seeds each."""
    if grid is None:
        return [Output(f'seed{seed:04d}{ending}', (seed,), 1) for seed in seeds]
    cells = grid[0] * grid[1]
    if len(seeds) % cells:
        raise command_line.UserMistake(
            f'--grid={grid[0]}x{grid[1]} shows {cells} seeds at a time, and --seeds names '
            f'{len(seeds)}; give a multiple of {cells}'
        )
    groups = [tuple(seeds[begin : begin + cells]) for begin in range(0, len(seeds), cells)]
    return [Output(f'grid-seed{group[0]:04d}-{group[-1]:04d}{ending}', group, grid[0]) for group in groups]


class Records:
    """`generation.jsonl`: one line for every finished file, with all that is needed to make it again."""

    def __init__(self, outdir: str) -> None:
        self.outdir = outdir
        self.path = os.path.join(outdir, 'generation.jsonl')

    def add(self, output: Output, settings: Settings, **more: Any) -> None:
        line = {'file': output.name, 'seeds': output.seeds, **dataclasses.asdict(settings), **more}
        with open(self.path, 'a', encoding='utf-8') as file:
            file.write(json.dumps(line) + '\n')

    def has(self, output: Output, settings: Settings, names: list[str]) -> bool:
        """Whether the last file of this name was made by the same settings, and all `names` are still there."""
        last = None
        with contextlib.suppress(FileNotFoundError), open(self.path, encoding='utf-8', errors='replace') as file:
            for text in file:
                with contextlib.suppress(json.JSONDecodeError):  # a line that a power cut left half-written
                    line = json.loads(text)
                    last = line if isinstance(line, dict) and line.get('file') == output.name else last
        wanted = {'seeds': list(output.seeds), **dataclasses.asdict(settings)}
        return (
            last is not None
            and all(last.get(key) == value for key, value in wanted.items())
            and all(os.path.exists(os.path.join(self.outdir, name)) for name in names)
        )


def load_networks(
    network: str, image_network: str | None, *, force: bool, trust_pickle: bool, device: Any
) -> tuple[Any, Any, str, str]:
    """The snapshot, its image generator, the snapshot's sha256 and the image generator's."""
    from networks import checkpoints
    from networks.checkpoints.image_generator_lookup import find_image_generator, local_file

    snapshot = checkpoints.load_snapshot(network, device=device, trust_pickle=trust_pickle)
    generator, reference = snapshot.get('G_ema'), snapshot.get('image_generator')
    if generator is None or reference is None:
        raise InputError(
            f'{network!r} is no snapshot of train_video.py: it lacks a latent generator (G_ema) or the '
            'reference to its image generator'
        )
    path = find_image_generator(reference, snapshot=network, image_network=image_network, force=force)
    checked = None if force else reference.get('sha256')
    command_line.report(f'Image generator: {path}')
    G = checkpoints.load_generator(path, device=device, trust_pickle=trust_pickle, sha256=checked)
    if (G.num_ws, G.w_dim) != (generator.num_ws, generator.w_dim):
        raise InputError(
            f'the image generator {path!r} takes codes of {G.num_ws} x {G.w_dim}, and the snapshot makes '
            f'{generator.num_ws} x {generator.w_dim}; give the one that the snapshot was trained for'
        )

    return snapshot, G, checkpoints.file_sha256(local_file(network)), checkpoints.file_sha256(local_file(path))


def truncation_center(generator: Any, G: Any, kind: str, psi: float) -> Any:
    """What --trunc pulls towards, a code [num_ws, w_dim]; None when psi is 1."""
    if psi == 1:
        return None
    if kind == 'subject':
        mean = getattr(generator, 'w_mean', None)
        if mean is None:
            raise InputError('this snapshot does not know the mean code of its subject; use --trunc-center=generator')
        return mean.reshape(generator.num_ws, generator.w_dim)
    average = getattr(getattr(G, 'mapping', None), 'w_avg', None)
    if average is None:
        raise InputError('this image generator has no average code (mapping.w_avg); use --trunc-center=subject')
    return average.reshape(1, -1).expand(generator.num_ws, generator.w_dim)


# fmt: off
@command_line.command()
# Main options.
@click.option('--network',       help='Snapshot of train_video.py; of a run folder, its best snapshot by the first metric',
              metavar='PKL|URL|DIR', required=True)
@click.option('--outdir',        help='Where to save the results', metavar='DIR', required=True)
@click.option('--seeds',         help='Seeds, for example 0,1,4-6; one is one video', metavar='LIST',
              type=command_line.SEEDS, default='0-3')
@click.option('--frames',        help='Length of a video', metavar='INT', type=command_line.POSITIVE_INT, default=250)
# What is in the video.
@click.option('--trunc',         help='Truncation psi: w = center + psi * (w - center); 1 is none, less brings looks '
                                      'and motion closer to the center', metavar='PSI',
              type=command_line.FloatRange(-10, 10), default=1)
@click.option('--trunc-center',  help='Center of the truncation: the mean code of the footage, or w_avg of the image '
                                      'generator', type=click.Choice(['subject', 'generator']), default='subject')
@click.option('--noise-mode',    help='Noise of the image generator', type=click.Choice(['const', 'random', 'none']),
              default='const')
@click.option('--burn-in',       help='Frames at the beginning to leave out', metavar='INT',
              type=command_line.NON_NEGATIVE_INT, default=0)
# Files.
@click.option('--format',        'ending', help='Video, or a folder of PNG frames', type=click.Choice(['mp4', 'png']),
              default='mp4')
@click.option('--grid',          help='Show this many seeds side by side in one video', metavar='WxH',
              type=command_line.SIZE)
@click.option('--fps',           help='Frames per second  [default: that of the footage]', metavar='FLOAT',
              type=command_line.FPS)
@click.option('--crf',           help='Quality of the mp4, 0 (lossless, large) to 51 (worst)', metavar='FLOAT',
              type=command_line.FloatRange(0, 51), default=17)
@click.option('--save-codes',    help='Also save the W+ codes, seed*.npz with w [frames, num_ws, w_dim]', is_flag=True)
@click.option('--skip-existing', help='Leave out what is there, made by the same options', is_flag=True)
# The image generator.
@click.option('--image-network', help='The image generator, where the reference in the snapshot does not find it',
              metavar='PKL|URL')
@click.option('--force-image-network', is_flag=True,
              help='Take --image-network although it is another file, such as one fine-tuned in the same W+ space')
@click.option('--trust-pickle',  help='Run the program code that the pickles carry; only for files that you trust',
              is_flag=True)
# Performance.
@click.option('--device',        help='cpu, cuda, cuda:1, ...; auto takes a GPU if there is one', metavar='NAME',
              default='auto')
@click.option('--batch',         help='Frames rendered at a time; another number rounds differently in the last bits',
              metavar='INT', type=command_line.POSITIVE_INT, default=8)
@command_line.clear_errors(interrupted=INTERRUPTED)
def main(**options: Any) -> None:
    """Make new video of a subject, of any length.

    The same seed gives the same video: a longer one begins with the frames of a shorter one, and other seeds beside it
    change nothing. Memory does not grow with the length.

    Examples:

    \b
    # Four videos of ten seconds at 25 frames per second.
    python generate_video.py --network=training-runs/00000-alice/network-snapshot-000500.pkl --outdir=out \\
        --seeds=0-3 --frames=250

    \b
    # A minute of PNG frames, closer to the subject's mean.
    python generate_video.py --network=network-snapshot-000500.pkl --outdir=out --seeds=7 --frames=1500 \\
        --format=png --trunc=0.8

    \b
    # Eight videos side by side.
    python generate_video.py --network=network-snapshot-000500.pkl --outdir=out --seeds=0-7 --grid=4x2
    """
    generate(types.SimpleNamespace(**options))
# fmt: on


def generate(options: types.SimpleNamespace) -> None:
    """Carry out `main`; `options` has its arguments as attributes."""
    if options.force_image_network and not options.image_network:
        raise command_line.UserMistake('--force-image-network needs --image-network, the file to take')
    outputs = plan_outputs(options.seeds, options.grid, '.mp4' if options.ending == 'mp4' else '')
    outdir = command_line.require_folder(options.outdir)
    device = command_line.choose_device(options.device)

    from training.best_snapshot import find_snapshot
    from training.temporal_snapshot import versions

    network, reason = find_snapshot(options.network)
    command_line.report(f'Loading {network}' + (f' ({reason})' if reason else ''))
    snapshot, G, network_sha256, image_sha256 = load_networks(
        network, options.image_network, force=options.force_image_network, trust_pickle=options.trust_pickle, device=device
    )
    generator = snapshot['G_ema']
    center = truncation_center(generator, G, options.trunc_center, options.trunc)
    settings = Settings(
        network_sha256=network_sha256,
        image_network_sha256=image_sha256,
        frames=options.frames,
        fps=float(options.fps or snapshot.get('data', {}).get('fps') or 25),
        trunc=options.trunc,
        trunc_center=options.trunc_center,
        noise_mode=options.noise_mode,
        burn_in=options.burn_in,
        crf=options.crf if options.ending == 'mp4' else None,
        batch=options.batch,
        device=device.type,
    )

    records = Records(outdir)
    if options.skip_existing:
        outputs = [
            output
            for output in outputs
            if not records.has(output, settings, [output.name, *(codes_names(output) if options.save_codes else [])])
        ]
    check_space(outdir, outputs, options, G)
    num_frames = sum(len(output.seeds) for output in outputs) * options.frames
    with command_line.progress(total=num_frames, description='Generating') as bar:
        for output in outputs:
            started = time.time()
            write_output(output, settings, generator, G, center, outdir=outdir, save_codes=options.save_codes, bar=bar)
            records.add(
                output,
                settings,
                network=network,
                seconds=round(time.time() - started, 3),
                versions=versions(),
                timestamp=time.time(),
            )
            command_line.report(f'Wrote {os.path.join(outdir, output.name)}')
    if not outputs:
        command_line.report(f'Everything is there already in {outdir}')


def codes_names(output: Output) -> list[str]:
    return [f'seed{seed:04d}.npz' for seed in output.seeds]


def check_space(outdir: str, outputs: list[Output], options: Any, G: Any) -> None:
    """Refuse what surely does not fit: codes have a known size, and a frame of an image never compresses to nothing."""
    per_frame = G.num_ws * G.w_dim * 4 if options.save_codes else 0
    # A lower bound from real footage: PNG keeps at least a quarter of the bytes, H.264 about a thousandth.
    per_frame += G.img_resolution**2 * 3 * (0.25 if options.ending == 'png' else 0.001)
    count = sum(len(output.seeds) for output in outputs)
    command_line.require_free_space(outdir, count * options.frames * per_frame, '1 video' if count == 1 else f'{count} videos')


def write_output(
    output: Output, settings: Settings, generator: Any, G: Any, center: Any, *, outdir: str, save_codes: bool, bar: Any
) -> None:
    """Render one file, frame by frame; an error leaves none."""
    import numpy as np

    from training.latents.codes_output import CodesWriter
    from training.videos.output import PngWriter, VideoWriter, as_rgb, image_grid
    from training.videos.synthesis import stream_video

    path = os.path.join(outdir, output.name)
    streams = [
        stream_video(
            generator,
            G,
            seed,
            batch=settings.batch,
            burn_in=settings.burn_in,
            center=center,
            noise_mode=settings.noise_mode,
            psi=settings.trunc,
        )
        for seed in output.seeds
    ]
    with contextlib.ExitStack() as stack:
        comment = f'seeds {",".join(map(str, output.seeds))} of network sha256 {settings.network_sha256}'
        writer = stack.enter_context(
            PngWriter(path) if settings.crf is None else VideoWriter(path, fps=settings.fps, crf=settings.crf, comment=comment)
        )
        shape = (settings.frames, generator.num_ws, generator.w_dim)
        codes_writers = [
            stack.enter_context(CodesWriter(os.path.join(outdir, name), shape, fps=settings.fps))
            for name in (codes_names(output) if save_codes else [])
        ]
        for column in itertools.islice(zip(*streams, strict=True), settings.frames):
            frames = [as_rgb(frame) for frame, _ in column]
            writer.write(frames[0] if len(frames) == 1 else image_grid(np.stack(frames), output.columns))
            for codes_writer, (_, code) in zip(codes_writers, column, strict=False):
                codes_writer.write(code)
            bar.update(len(frames))


if __name__ == '__main__':
    main()
