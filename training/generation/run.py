"""What generate_video.py does once its options are read: open the networks, plan, write file after file, keep the record."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import types
from typing import Any

from networks.errors import InputError
from training.commands import command_line
from training.commands.work import Work
from training.generation.merging import merge_shares, sizes
from training.generation.outputs import (
    ENDINGS,
    WITH_CRF,
    WITH_SOUND,
    Output,
    Records,
    Rendering,
    check_space,
    codes_names,
    plan_outputs,
    write_output,
    write_still,
)
from training.generation.plan import Request, VideoPlan, check_keyframes, plain_keyframes
from training.generation.unfinished import unfinished
from training.runs import ranks
from training.runs.locks import Lock
from training.runs.ranks import Ranks

FRAMES = 250
MOST_NAMED = 8  # files in a sentence
FRAMES_PER_KEYFRAME = 120
INTERPOLATION_FPS = 30.0
# What needs the temporal model: (name in the options, option).
OF_THE_MODEL = {
    'motion_scale': '--motion-scale', 'subject': '--subject', 'motion': '--motion', 'first_frame': '--first-frame',
    'continue_from': '--continue', 'transition': '--transition', 'first_frame_seed': '--first-frame-seed', 'react': '--react',
    'burn_in': '--burn-in', 'speed': '--speed', 'transfer_data': '--transfer-data',
}  # fmt: skip
OF_THE_INTERPOLATION = {
    'keyframes': '--keyframes',
    'easing': '--easing',
    'stills': '--stills',
    'keyframe_frames': '--keyframe-frames',
}


def load_networks(
    network: str, image_network: str | None, *, force: bool, trust_pickle: bool, device: Any, snapshot: Any = None
) -> tuple[Any, Any, str, str]:
    """The snapshot (that is in memory already or not), its image generator, the snapshot's sha256 and the image generator's."""
    from networks import checkpoints
    from networks.checkpoints.image_generator_lookup import (
        OptionNames,
        TunedTo,
        expected_sha256,
        find_image_generator,
        local_file,
    )

    snapshot = snapshot or checkpoints.load_snapshot(network, device=device, trust_pickle=trust_pickle)
    generator, reference = snapshot.get('G_ema'), snapshot.get('image_generator')
    if generator is None or reference is None:
        raise InputError(
            f'{network!r} is no snapshot of train_video.py: it lacks a latent generator (G_ema) or the '
            'reference to its image generator'
        )
    names = OptionNames('--image-network', '--force-image-network')
    path = find_image_generator(
        reference,
        snapshot=network,
        image_network=image_network,
        force=force,
        options=names,
        tuned_to=TunedTo.of_snapshot(snapshot),
        say=command_line.report,
    )
    checked = expected_sha256(reference, path, force=force)
    command_line.report(f'Image generator: {path}')
    image_generator = checkpoints.load_generator(path, device=device, trust_pickle=trust_pickle, sha256=checked)
    if (image_generator.num_ws, image_generator.w_dim) != (generator.num_ws, generator.w_dim):
        raise InputError(
            f'the image generator {path!r} takes codes of {image_generator.num_ws} x {image_generator.w_dim}, and the snapshot '
            f'makes {generator.num_ws} x {generator.w_dim}; give the one that the snapshot was trained for'
        )
    return snapshot, image_generator, checkpoints.file_sha256(local_file(network)), checkpoints.file_sha256(local_file(path))


def check_options(options: types.SimpleNamespace) -> None:
    """Refuse options that contradict each other, before anything is loaded.

    Raises:
        InputError: one sentence.
    """
    if options.force_image_network and not options.image_network:
        raise InputError('--force-image-network needs --image-network, the file to take')
    if options.frames and options.seconds:
        raise InputError('--frames and --seconds both say how long a video is; give one of them')
    if options.pad and not options.size:
        raise InputError('--pad says how a frame of another shape is filled; give its --size')
    if options.audio and options.ending not in WITH_SOUND:
        raise InputError(f'--audio: {options.ending} has no sound; choose --format={"|".join(WITH_SOUND)}')
    if options.size and options.ending not in ('gif', 'png') and any(side % 2 for side in options.size):
        raise InputError(f'--size={options.size[0]}x{options.size[1]}: sides of a {options.ending} video are even numbers')
    if options.audio and not os.path.isfile(options.audio):
        raise InputError(f'--audio: there is no file {options.audio!r}')
    check_keyframes([('--trunc', options.trunc, -10, 10), ('--motion-scale', options.motion_scale, -10, 10)])
    if options.merge and options.shard is not None:
        raise InputError('--shard makes one share, and --merge puts all of them together; give one of them')
    if options.motion and options.grid:
        raise InputError('--motion makes one video, so it cannot go with --grid')


def _rendering(options: types.SimpleNamespace, fps: float) -> Rendering:
    return Rendering(
        ending=options.ending, fps=fps, crf=options.crf, batch=options.batch, noise_mode=options.noise_mode, size=options.size,
        pad=options.pad or 'blur', audio=options.audio, precision=options.precision, memory=options.memory,
    )  # fmt: skip


def _rendering_record(rendering: Rendering) -> dict[str, Any]:
    """What of the rendering decides the content of a file."""
    return {
        'fps': rendering.fps, 'noise_mode': rendering.noise_mode, 'batch': rendering.batch, 'format': rendering.ending,
        'crf': rendering.crf if rendering.ending in WITH_CRF else None, 'size': rendering.size,
        'pad': rendering.pad if rendering.size else None, 'precision': rendering.precision,
    }  # fmt: skip


def generate(options: types.SimpleNamespace) -> None:
    """Carry out generate_video.py; `options` has its arguments as attributes."""
    check_options(options)
    request = Request(
        **{field.name: value for field in dataclasses.fields(Request) if (value := getattr(options, field.name)) is not None}
    )
    request.check()
    ranks.start_unless_launched(options.gpus, 'generate_video')
    with ranks.joined(options.device) as ours:
        _generate(options, request, ours)


def _generate(options: types.SimpleNamespace, request: Request, ours: Ranks) -> None:
    from networks.checkpoints import load_snapshot_or_none
    from training.best_snapshot import find_snapshot

    network, reason = find_snapshot(options.network)
    outdir = command_line.require_folder(options.outdir, empty=False)
    command_line.report(f'Loading {network}' + (f' ({reason})' if reason else ''))
    snapshot = load_snapshot_or_none(network, device=ours.device, trust_pickle=options.trust_pickle)
    if snapshot is not None:
        wrong = [option for name, option in OF_THE_INTERPOLATION.items() if getattr(options, name)]
        if wrong:
            raise InputError(f'{wrong[0]} is for an image generator alone, and {network!r} is a snapshot of train_video.py')
        plan_outputs(options.seeds, options.grid, '')
        _generate_motion(options, request, network, snapshot, outdir, ours)
    else:
        changed = Request()
        wrong = [
            option for name, option in OF_THE_MODEL.items()
            if getattr(request, name) not in (None, False, (), getattr(changed, name))
        ]  # fmt: skip
        if wrong:
            raise InputError(
                f'{wrong[0]} changes the motion of a temporal model, and {network!r} is no snapshot of train_video.py; '
                'an image generator alone makes interpolation videos and stills'
            )
        _generate_interpolation(options, request, network, outdir, ours)


# ----------------------------------------------------------------------------
# With a temporal model.


def _generate_motion(
    options: types.SimpleNamespace, request: Request, network: str, snapshot: Any, outdir: str, ours: Ranks
) -> None:
    from training.generation.pictures import PictureReader
    from training.videos.renderer import check_precision

    device = ours.device
    check_precision(options.precision, device)
    snapshot, image_generator, network_sha256, image_sha256 = load_networks(
        network,
        options.image_network,
        force=options.force_image_network,
        trust_pickle=options.trust_pickle,
        device=device,
        snapshot=snapshot,
    )
    generator = snapshot['G_ema']
    source_fps = float(snapshot.get('data', {}).get('fps') or 25)
    encoder = load_encoder(options, image_generator, device)
    if options.seconds:
        request = dataclasses.replace(request, frames=max(1, round(options.seconds * float(options.fps or source_fps))))
    elif options.frames is None:
        request = dataclasses.replace(request, frames=_length_of_motion(request, image_generator, options) or FRAMES)
    plan = VideoPlan(
        generator,
        image_generator,
        request,
        fps=source_fps,
        reader=PictureReader(image_generator, encoder, align=options.align),
        chunk=options.batch,
        network_sha256=network_sha256,
    )
    rendering = _rendering(options, plan.fps)
    ending = ENDINGS[options.ending]
    if request.motion:
        outputs = [Output(f'motion{ending}', (options.seeds[0],), 1)]
    else:
        outputs = plan_outputs(options.seeds, options.grid, ending)
    plain = dataclasses.asdict(request)
    plain.update(burn_in=plan.burn_in, trunc=plain_keyframes(request.trunc), motion_scale=plain_keyframes(request.motion_scale))
    settings = {
        'network_sha256': network_sha256, 'image_network_sha256': image_sha256, **plain, **_rendering_record(rendering),
        'device': device.type, **({'inputs': plan.notes['inputs']} if 'inputs' in plan.notes else {}),
    }  # fmt: skip
    if request.loop:
        for output in outputs if not options.merge else []:  # before the first file: a loop that does not close is said at once
            for seed in output.seeds:
                plan.bridge(seed)

    def sources(output: Output) -> list[Any]:
        return [plan.source(seed) for seed in output.seeds]

    def found(output: Output) -> dict[str, Any]:
        notes = {name: value for name, value in plan.notes.items() if name != 'inputs'}
        if request.loop:
            notes['loop_seam'] = [round(plan.bridge(seed).seam, 4) for seed in output.seeds]
        return notes

    names = (lambda output: ['motion.npz']) if request.motion else codes_names
    _write_all(
        options,
        outputs,
        settings,
        request.frames,
        rendering,
        image_generator,
        sources,
        names,
        found,
        network,
        outdir,
        network_sha256,
        ours,
    )


def _length_of_motion(request: Request, image_generator: Any, options: types.SimpleNamespace) -> int | None:
    """Frames of the whole recording of --motion at the rate and speed that were asked for."""
    if not request.motion:
        return None
    probe = VideoPlan(
        None, image_generator, Request(frames=1, fps=request.fps, speed=request.speed, motion=request.motion), fps=25.0
    )
    return probe.longest


def load_encoder(options: types.SimpleNamespace, image_generator: Any, device: Any) -> Any | None:
    """The encoder that --encoder names, or None.

    Raises:
        InputError: it is for another image generator.
    """
    if not options.encoder:
        return None
    from networks import checkpoints

    encoder: Any = checkpoints.load_encoder(options.encoder, device=str(device), trust_pickle=options.trust_pickle)
    shape = getattr(encoder, 'num_ws', image_generator.num_ws), getattr(encoder, 'w_dim', image_generator.w_dim)
    if shape != (image_generator.num_ws, image_generator.w_dim):
        raise InputError(
            f'--encoder: {options.encoder!r} gives codes of {shape[0]} x {shape[1]}, and this image generator takes '
            f'{image_generator.num_ws} x {image_generator.w_dim}; it was trained for another one'
        )
    return encoder


# ----------------------------------------------------------------------------
# With an image generator alone.


def _generate_interpolation(options: types.SimpleNamespace, request: Request, network: str, outdir: str, ours: Ranks) -> None:
    from networks import checkpoints
    from networks.checkpoints.image_generator_lookup import local_file
    from training.control.directions import parse_edit, read_direction
    from training.control.operators import Edit, Pipeline
    from training.generation.interpolation import InterpolationSource, codes_of_seeds
    from training.temporal_snapshot import versions
    from training.videos.renderer import check_precision
    from training.videos.synthesis import render_codes

    device = ours.device
    check_precision(options.precision, device)
    image_generator: Any = checkpoints.load_generator(network, device=device, trust_pickle=options.trust_pickle)
    sha256 = checkpoints.file_sha256(local_file(network))
    psi = plain_keyframes(request.trunc)
    if isinstance(psi, str):
        raise InputError('--trunc with keyframes is for snapshots; an image generator alone takes one number')
    edits = []
    for text in request.edit:
        path, strength, layers = parse_edit(text)
        edits.append(
            Edit(read_direction(path, int(image_generator.num_ws), int(image_generator.w_dim), layers).to(device), strength)
        )
    record = {
        'image_network_sha256': sha256,
        'precision': options.precision,
        'trunc': psi,
        'edit': list(request.edit),
        'device': device.type,
    }
    if options.stills:
        records = Records(outdir)
        stills = [Output(f'seed{seed:04d}.png', (seed,), 1) for seed in options.seeds]
        if options.merge:
            with ours.together():
                if ours.is_first:
                    merge_shares(options.merge, outdir, stills, record, {}, lambda output: [])
            return
        stills = options.shard.of(stills) if options.shard is not None else stills
        for output in ours.share(stills):
            (seed,) = output.seeds
            codes = Pipeline(InterpolationSource(codes_of_seeds(image_generator, [seed], psi), 1), edits).read(1)
            frame = next(
                iter(render_codes(image_generator, codes, batch=1, noise_mode=options.noise_mode, precision=options.precision))
            )
            write_still(os.path.join(outdir, output.name), frame.squeeze())
            records.add(
                output, record, network=network, versions=versions(), timestamp=time.time(),
                sizes=sizes(outdir, [output.name]), **_share_note(options),
            )  # fmt: skip
        command_line.report(f'Wrote {len(stills)} pictures to {outdir}')
        return
    cells = options.grid[0] * options.grid[1] if options.grid else 1
    per_cell = options.keyframes or len(options.seeds) // cells
    if per_cell * cells > len(options.seeds) or per_cell < 2:
        raise InputError(
            f'an interpolation goes from seed to seed and needs at least two for each picture of the grid, and --seeds names '
            f'{len(options.seeds)} for {cells} picture{"s" if cells > 1 else ""} of {max(per_cell, 2)} keyframes; name '
            f'{cells * max(per_cell, 2)}, as in --seeds=0-{cells * max(per_cell, 2) - 1}, or use --stills'
        )
    between = options.keyframe_frames or FRAMES_PER_KEYFRAME
    fps = float(request.fps or INTERPOLATION_FPS)
    whole = per_cell * between if request.loop else (per_cell - 1) * between + 1
    frames = options.frames or (round(options.seconds * fps) if options.seconds else whole)
    rendering = _rendering(options, fps)
    first, last = options.seeds[0], options.seeds[per_cell * cells - 1]
    seeds = tuple(options.seeds[: per_cell * cells])
    output = Output(
        f'interpolation-seed{first:04d}-{last:04d}{ENDINGS[options.ending]}', seeds, options.grid[0] if options.grid else 1
    )
    settings = {
        **record, **_rendering_record(rendering), 'frames': frames, 'keyframes': per_cell, 'keyframe_frames': between,
        'easing': options.easing or 'cubic', 'loop': request.loop,
    }  # fmt: skip

    def sources(output: Output) -> list[Any]:
        return [
            Pipeline(InterpolationSource(
                codes_of_seeds(image_generator, output.seeds[cell * per_cell : (cell + 1) * per_cell], psi), between,
                easing=options.easing or 'cubic', loop=request.loop), edits)
            for cell in range(cells)
        ]  # fmt: skip

    def names(output: Output) -> list[str]:
        return [f'{os.path.splitext(output.name)[0]}-{cell}.npz' for cell in range(cells)]

    _write_all(
        options,
        [output],
        settings,
        frames,
        rendering,
        image_generator,
        sources,
        names,
        lambda output: {},
        network,
        outdir,
        sha256,
        ours,
    )


# ----------------------------------------------------------------------------


def _write_all(
    options: types.SimpleNamespace, outputs: list[Output], settings: dict[str, Any], num_frames: int, rendering: Rendering,
    image_generator: Any, sources: Any, names: Any, found: Any, network: str, outdir: str, sha256: str, ours: Ranks,
) -> None:  # fmt: skip
    records = Records(outdir)
    unsaid = {
        **dataclasses.asdict(Request()), 'size': None, 'pad': None, 'format': options.ending, 'precision': 'auto',
    }  # fmt: skip

    def codes(output: Output) -> list[str]:
        return list(names(output)) if options.save_codes else []

    if options.merge:
        with ours.together():
            if ours.is_first:
                merge_shares(options.merge, outdir, outputs, settings, unsaid, codes)
        return
    if options.shard is not None:
        outputs = options.shard.of(outputs)
    part = f'-{options.shard}' if options.shard is not None else ''
    with contextlib.ExitStack() as stack:
        going_on = False
        with ours.together():
            if ours.is_first:
                stack.enter_context(Lock(os.path.join(outdir, f'.generation{part}.lock'), f'--outdir: {outdir}'))
                going_on = stack.enter_context(
                    unfinished(outdir, part, Work(settings, unsaid, ([output.name for output in outputs], options.save_codes)))
                )
        all_outputs = outputs
        if ours.from_first(going_on) or options.skip_existing:
            outputs = records.missing(outputs, settings, codes, unsaid)
        count = sum(len(output.seeds) for output in outputs)
        check_space(outdir, count, num_frames, rendering, image_generator, options.save_codes)
        if not all_outputs and ours.is_first:
            command_line.report(
                f'Share {options.shard.number} of {options.shard.count} has no files; there are fewer than shares'
            )
        elif not outputs and ours.is_first:
            command_line.report(f'Everything is there already in {outdir}')
        elif len(outputs) < len(all_outputs) and ours.is_first:
            missing = ', '.join(output.name for output in outputs[:MOST_NAMED]) + (', ...' if len(outputs) > MOST_NAMED else '')
            command_line.report(
                f'{len(all_outputs) - len(outputs)} of {len(all_outputs)} files are there already in {outdir}; '
                f'to be made: {missing}'
            )
        outputs = ours.from_first(outputs)  # what one rank has finished already, another one must not leave out on its own
        with ours.together():
            _write_share(
                options,
                ours.share(outputs),
                Work(settings, unsaid),
                num_frames,
                rendering,
                image_generator,
                sources,
                names,
                found,
                network,
                outdir,
                sha256,
            )
        ours.barrier()


def _write_share(
    options: types.SimpleNamespace, outputs: list[Output], work: Work, num_frames: int, rendering: Rendering,
    image_generator: Any, sources: Any, names: Any, found: Any, network: str, outdir: str, sha256: str,
) -> None:  # fmt: skip
    from training.temporal_snapshot import versions

    records = Records(outdir)
    with command_line.progress(
        total=sum(len(sources_of(output, names)) for output in outputs) * num_frames, description='Generating'
    ) as bar:
        for output in outputs:
            started = time.time()
            write_output(
                os.path.join(outdir, output.name), image_generator, sources(output), output, num_frames, rendering,
                comment=f'seeds {",".join(map(str, output.seeds))} of network sha256 {sha256}',
                codes_paths=[os.path.join(outdir, name) for name in names(output)] if options.save_codes else [], bar=bar,
                work=work,
            )  # fmt: skip
            written = [output.name, *(names(output) if options.save_codes else [])]
            records.add(
                output, work.settings, network=network, seconds=round(time.time() - started, 3), versions=versions(),
                timestamp=time.time(), sizes=sizes(outdir, written), **_share_note(options), **found(output),
            )  # fmt: skip
            command_line.report(f'Wrote {os.path.join(outdir, output.name)}')


def _share_note(options: types.SimpleNamespace) -> dict[str, str]:
    return {'shard': str(options.shard)} if options.shard is not None else {}


def sources_of(output: Output, names: Any) -> list[str]:
    """The cells of an output, by the names of their codes."""
    return list(names(output))
