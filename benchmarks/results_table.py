"""The table of results (docs/results.md): paper, default and baselines, at the beginning of videos and far into them.

    python benchmarks/results_table.py --data=demo.zip --recording=demo.mp4 --data=speaker.zip --recording=speaker.mp4
                                       --networks=models --features=features                          # measure pictures
    python benchmarks/results_table.py --latents=long_run.jsonl --write                               # rewrite the tables

Distances of codes come from the lines of benchmarks/long_run.py (--latents), which trains the models and keeps them
(--networks). Distances of pictures are measured here, of windows that begin at frames 0, 225, 1000 and 10,000 of the videos of
`--clips` seeds, after the burn-in of a model: Frechet video distance and frame distance (comparison/picture_measures.py) to the
recording, to its W+ embedding, and with --tuned to both once more, rendered by the generator that tune_generator.py tuned to the
data set. Both sides have the same number of clips. The floors are the halves of the footage, measured alike. Where the last fifth
of the footage, which tuning does not learn from, holds enough clips, the embedding is compared with the recording there as well.

Every model, depth and reference is one line in --pictures, with digests of what it was measured on. What is there of the same
files is not measured again, so an interrupted run goes on; seeds are the outermost loop, so that whenever it is stopped,
all models have about as many trainings. --table prints the tables, --write puts them into docs/results.md.
"""

import contextlib
import json
import os
import pathlib
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.comparison import markdown_tables
from benchmarks.long_run import BASELINES, FIRST_SEED, RESIDUAL, fit_baseline, network_file
from training.commands import command_line
from training.commands.file_names import stem

ROOT = pathlib.Path(__file__).resolve().parent
PAGE = ROOT.parent / 'docs' / 'results.md'
DEPTHS = markdown_tables.PICTURE_DEPTHS
OWN, TUNED = markdown_tables.OWN, markdown_tables.TUNED  # which image generator renders
REFERENCES = ('recording', 'embedding')
HELD_OUT = 0.2  # of tune_generator.py

Line = dict[str, Any]


class Measured:
    """The lines of a file, and which of them need not be made again.

    Args:
        path: JSON lines; need not be there.
    """

    IDENTITY = ('data', 'model', 'seed', 'depth', 'reference', 'renderer', 'clips', 'frames', 'inputs')

    def __init__(self, path: str) -> None:
        self._path = path
        self._known = {self._key(line) for line in markdown_tables.read_lines(path)}

    def _key(self, line: Line) -> str:
        return json.dumps([line[name] for name in self.IDENTITY], sort_keys=True)

    def has(self, line: Line) -> bool:
        """Whether this was measured, of the same files."""
        return self._key(line) in self._known

    def add(self, line: Line) -> None:
        """Write one line down."""
        with open(self._path, 'a', encoding='utf-8') as file:
            file.write(json.dumps(line, separators=(',', ':')) + '\n')  # there are a thousand in the repository
        self._known.add(self._key(line))


class DataSet:
    """One data set with its recording, its image generators, and the features of the real sides.

    Args:
        path: Latent data set.
        recording: The footage that was embedded, or None.
        clips: Clips of a set.
        detectors: picture_measures.Detectors.
        folder: picture_measures.FeatureFolder.
        tuned: Whether the tuned generator renders as well.
        references: What to compare with, of REFERENCES.

    Raises:
        InputError: Files are not there, or do not belong together.
    """

    def __init__(
        self,
        path: str,
        recording: str | None,
        clips: int,
        detectors: Any,
        folder: Any,
        tuned: bool,
        references: Sequence[str] = REFERENCES,
    ) -> None:
        from metrics.inputs.video_set import same_rate
        from networks.checkpoints.image_generator_lookup import TunedTo
        from training.latents.dataset import LatentDataset
        from training.videos.recorded_videos import RecordedVideos
        from training.videos.rendered_videos import EmbeddedVideos, load_image_generator, module_sha256

        self.name = os.path.basename(path)
        self.latents = LatentDataset(path)
        self.clips, self._detectors, self._folder = clips, detectors, folder
        self._references = references
        reference = self.latents.image_generator
        self.renderers = {OWN: load_image_generator(None, reference, beside=path)}
        if tuned:
            own = TunedTo(self.latents.path, lambda: self.latents.sha256)
            self.renderers[TUNED] = load_image_generator(None, reference, beside=path, tuned_to=own)
        self.renderer_sha256 = {name: module_sha256(network) for name, network in self.renderers.items()}
        if len(set(self.renderer_sha256.values())) < len(self.renderers):
            raise command_line.UserMistake(f'--tuned: {path} has no tuned generator beside it; tune_generator.py makes one')
        self.videos: dict[tuple[str, str], Any] = {
            (renderer, 'embedding'): EmbeddedVideos(path, network) for renderer, network in self.renderers.items()
        }
        if recording is not None:
            recorded = RecordedVideos(recording, resolution=self.renderers[OWN].img_resolution)
            if not same_rate(recorded.fps, self.latents.fps):
                raise command_line.UserMistake(
                    f'--recording: {recording} has {recorded.fps:g} frames per second and the codes of {path} '
                    f'{self.latents.fps:g}; give the footage at the rate at which it was embedded'
                )
            for renderer in self.renderers:
                self.videos[renderer, 'recording'] = recorded

    def places(self, renderer: str | None = None) -> list[tuple[str, str]]:
        """What is compared with, (renderer, reference), of one renderer or of all."""
        return [place for place in self.videos if place[1] in self._references and renderer in (None, place[0])]

    def real_features(self, renderer: str, reference: str, half: int | None = None, end: bool = False) -> Any:
        """Features of clips of a reference, of all of it, a half or its end."""
        from benchmarks.comparison.picture_measures import end_clips, read_clips, real_clips

        videos = self.videos[renderer, reference]
        clips = end_clips(videos, self.clips, HELD_OUT) if end else real_clips(videos, self.clips, half)
        return self.kept({'videos': videos.sha256, 'clips': clips}, lambda: read_clips(videos, clips))

    def kept(self, content: Line, clips: Any) -> Any:
        """Features of what `clips()` yields, from the folder if they are there."""
        from benchmarks.comparison.picture_measures import CLIP_FRAMES

        content = {**content, 'frames': CLIP_FRAMES, **self._detectors.description}
        features = self._folder.load(content)
        if features is None:
            features = self._detectors.features(clips())
            self._folder.save(content, features)
        return features

    def line(self, model: str, seed: int, depth: int | None, renderer: str, reference: str, network: str | None) -> Line:
        """What a measurement is of."""
        from benchmarks.comparison.picture_measures import CLIP_FRAMES

        inputs = {
            'codes_sha256': self.latents.sha256,
            'network_sha256': network,
            'image_generator_sha256': self.renderer_sha256[renderer],
            'reference_sha256': self.videos[renderer, reference].sha256,
            **self._detectors.description,
        }
        place = {'data': self.name, 'model': model, 'seed': seed, 'depth': depth, 'reference': reference, 'renderer': renderer}
        return {**place, 'clips': self.clips, 'frames': CLIP_FRAMES, 'inputs': inputs}

    @property
    def resolution(self) -> int:
        return int(self.renderers[OWN].img_resolution)


def measure_floors(data: DataSet, measured: Measured) -> None:
    """The halves of each reference against each other, and the embedding against the recording, all of it and its end."""
    from benchmarks.comparison.picture_measures import end_clips

    for renderer, reference in data.places():
        if reference == 'recording' and renderer != OWN:
            continue
        line = data.line(markdown_tables.HALVES, 0, None, renderer, reference, None)
        if not measured.has(line):
            first, second = (data.real_features(renderer, reference, half) for half in (0, 1))
            finish(line, first, second, data, measured)
    for renderer, reference in data.places():
        if reference != 'recording':
            continue
        for name, end in ((markdown_tables.EMBEDDING, False), (markdown_tables.EMBEDDING_END, True)):
            if end and (
                len(data.renderers) == 1
                or 2 * len(end_clips(data.videos[renderer, reference], data.clips, HELD_OUT)) < data.clips
            ):
                continue
            line = data.line(name, 0, None, renderer, reference, None)
            if not measured.has(line):
                recording, embedding = (data.real_features(renderer, side, end=end) for side in ('recording', 'embedding'))
                finish(line, recording, embedding, data, measured)


def measure_model(
    data: DataSet, model: str, seed: int, generator: Any, depths: Sequence[int], measured: Measured, advance: Any
) -> None:
    """The depths of one model, ascending, against all references."""
    from benchmarks.comparison.picture_measures import generated_codes, rendered
    from training.videos.rendered_videos import module_sha256

    network = None if model in BASELINES else module_sha256(generator)
    seeds = range(FIRST_SEED, FIRST_SEED + data.clips)
    stretches: Iterator[Any] | None = None
    codes: dict[int, Any] = {}

    def codes_at(depth: int) -> Any:
        nonlocal stretches
        if stretches is None:
            stretches = zip(depths, generated_codes(generator, seeds, depths), strict=True)
        while depth not in codes:
            place, found = next(stretches)
            codes[place] = found
        return codes[depth]

    for depth in depths:
        for renderer, image_generator in data.renderers.items():
            lines = [data.line(model, seed, depth, *place, network) for place in data.places(renderer)]
            lines = [line for line in lines if not measured.has(line)]
            if lines:
                content: Line = {'codes': [data.latents.sha256, model, network, FIRST_SEED, data.clips, depth]}
                content['image_generator'] = data.renderer_sha256[renderer]
                fake = data.kept(content, lambda image=image_generator, at=depth: rendered(image, codes_at(at)))
                for line in lines:
                    finish(line, data.real_features(renderer, line['reference']), fake, data, measured)
        advance()


def finish(line: Line, real: Any, fake: Any, data: DataSet, measured: Measured) -> None:
    """Compare, and write the line down."""
    from benchmarks.comparison.picture_measures import compare
    from training.runs.versions import versions

    counts = {'clips_real': len(real[0]), 'clips_fake': len(fake[0]), 'resolution': data.resolution}
    measured.add({**line, **counts, 'result': compare(real, fake), 'versions': versions(), 'time': round(time.time())})


def load_model(model: str, seed: int, data: Any, folders: Sequence[str]) -> Any:
    """The latent generator of a model, or None where it was not trained or needs no further seed.

    Raises:
        InputError: The file is damaged.
    """
    import torch

    from benchmarks.comparison import residual_generator
    from networks.checkpoints import load_snapshot

    if model in BASELINES:
        return fit_baseline(model, data) if seed == 0 else None
    for folder in folders:
        file = network_file(folder, data.path, model, seed)
        if not file.exists():
            continue
        if model != RESIDUAL:
            return load_snapshot(str(file))['G_ema']
        generator = residual_generator.make(data)
        generator.load_state_dict(torch.load(file, weights_only=True))
        return generator.eval()
    return None


def measure(
    sets: Sequence[DataSet],
    models: Sequence[str],
    seeds: Sequence[int],
    depths: Sequence[int],
    folders: Sequence[str],
    measured: Measured,
) -> None:
    """All cells that there are networks for."""
    import torch

    for data in sets:
        measure_floors(data, measured)
    found = {
        (data.name, model, seed)
        for data in sets
        for model in models
        for seed in seeds
        if (model in BASELINES and seed == 0)
        or any(network_file(folder, data.latents.path, model, seed).exists() for folder in folders)
    }
    cells = len(found) * len(depths)
    with command_line.progress(total=cells, description='Models and depths', unit='cell', every_seconds=60) as bar:
        for seed in seeds:
            for data in sets:
                for model in models:
                    if (data.name, model, seed) not in found:
                        continue
                    with torch.no_grad():
                        generator = load_model(model, seed, data.latents, folders)
                        measure_model(data, model, seed, generator, depths, measured, lambda: bar.update(1))


def with_recordings(data: Iterable[str], recordings: Iterable[str]) -> list[tuple[str, str | None]]:
    """Data sets with the recording of the same name, as far as there is one."""
    by_name = {stem(path): path for path in recordings}
    pairs = [(path, by_name.pop(stem(path), None)) for path in data]
    if by_name:
        raise command_line.UserMistake(
            f'--recording: {next(iter(by_name.values()))} has the name of no data set; recordings and data sets belong '
            'together by their names'
        )
    return pairs


@command_line.command()
@click.option('--data',      help='Latent data set whose models are measured; may be repeated', metavar='ZIP|DIR',
              multiple=True)  # fmt: skip
@click.option('--recording', help='Footage of the data set of the same name; may be repeated', metavar='VIDEO|DIR',
              multiple=True)  # fmt: skip
@click.option('--networks',  help='Folder of models (long_run.py --keep); may be repeated', metavar='DIR',
              multiple=True)  # fmt: skip
@click.option('--models',    help='What to measure', metavar='NAME,..', default=','.join(markdown_tables.MODELS),
              show_default=False)  # fmt: skip
@click.option('--seeds',     help='Trainings to measure, as far as there are', metavar='LIST', type=command_line.SEEDS,
              default='0-9')  # fmt: skip
@click.option('--depths',    help='First frames of the windows', metavar='N,..', type=command_line.NAMES,
              show_default=','.join(map(str, DEPTHS)))  # fmt: skip
@click.option('--references', help='What to compare with', metavar='NAME,..', type=command_line.NAMES,
              default=','.join(REFERENCES))  # fmt: skip
@click.option('--clips',     help='Clips of each side', metavar='INT', type=command_line.POSITIVE_INT, default=64)  # fmt: skip
@click.option('--tuned',     help='Render with the generator tuned to the data set as well', is_flag=True)  # fmt: skip
@click.option('--features',  help='Where features are kept', metavar='DIR', default='features')  # fmt: skip
@click.option('--pictures',  help='Where distances of pictures are kept, one JSON line each', metavar='FILE',
              default=str(ROOT / 'results' / 'pictures.jsonl'), show_default='benchmarks/results/pictures.jsonl')  # fmt: skip
@click.option('--latents',   help='Lines of long_run.py; may be repeated, later files count', metavar='FILE', multiple=True,
              default=[str(ROOT / 'results' / 'long_run.jsonl')],
              show_default='benchmarks/results/long_run.jsonl')  # fmt: skip
@click.option('--table',     help='Print the tables of what is there', is_flag=True)  # fmt: skip
@click.option('--write',     help='Put the tables into docs/results.md', is_flag=True)  # fmt: skip
@command_line.clear_errors
def main(
    data: tuple[str, ...],
    recording: tuple[str, ...],
    networks: tuple[str, ...],
    models: str,
    seeds: list[int],
    depths: list[str] | None,
    references: list[str],
    clips: int,
    tuned: bool,
    features: str,
    pictures: str,
    latents: tuple[str, ...],
    table: bool,
    write: bool,
) -> None:
    """Measure pictures of all models, and make the tables of docs/results.md."""
    if not (data or table or write):
        raise command_line.UserMistake('--data: which latent data set? (--table and --write work on what is measured already)')
    if clips < 2:
        raise command_line.UserMistake('--clips: a distance needs two clips or more')
    depths = depths or [str(depth) for depth in DEPTHS]
    known = {'--depths': ([str(depth) for depth in DEPTHS], depths), '--references': (REFERENCES, references)}
    for name, (choices, chosen) in known.items():
        unknown = [value for value in chosen if value not in choices]
        if unknown:
            raise command_line.UserMistake(f'{name}: {unknown[0]!r} is none of {", ".join(choices)}')
    if data:
        import torch

        from benchmarks.comparison.picture_measures import Detectors, FeatureFolder

        torch.set_num_threads(1)
        detectors, folder = Detectors(), FeatureFolder(features)
        with contextlib.ExitStack() as stack:
            sets = []
            for path, footage in with_recordings(data, recording):
                sets.append(DataSet(path, footage, clips, detectors, folder, tuned, references))
                stack.callback(sets[-1].latents.close)
            wanted = sorted({int(depth) for depth in depths})
            measure(sets, re.split(r',(?![^\[]*\])', models), seeds, wanted, networks, Measured(pictures))
    if table or write:
        text = markdown_tables.tables(
            [line for path in latents for line in markdown_tables.read_lines(path)], markdown_tables.read_lines(pictures)
        )
        if table:
            print(text)
        if write:
            PAGE.write_text(markdown_tables.put_between_markers(PAGE.read_text(encoding='utf-8'), text), encoding='utf-8')


if __name__ == '__main__':
    main()
