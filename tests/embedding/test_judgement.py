"""An embedding is compared with the average picture, ways of embedding with each other, and faces with where they belong."""

import json
import pathlib
from typing import Any

import click.testing
import numpy as np
import PIL.Image
import pytest
import torch

import embed_video
import train_video
from networks.checkpoints import image_generator_reference, load_generator
from networks.errors import naming_options
from training.embedding import judgement
from training.embedding.inversion import Inversion, InversionOptions
from training.embedding.probe import Way, recommend
from training.footage.face_alignment import FaceAxes
from training.footage.face_landmarks import Face
from training.latents.dataset import LatentDataset, LatentDatasetWriter
from training.videos.synthesis import images_to_uint8


def test_the_gain_is_measured_against_the_average_picture(tiny_generator: pathlib.Path) -> None:
    inversion = Inversion(load_generator(str(tiny_generator)), None, InversionOptions())
    average = inversion.average_picture
    target = (average + 0.1).clamp(-1, 1)
    halfway = torch.lerp(average, target, 0.5)
    rows = inversion.compare(torch.cat([average, halfway, target]), target.expand(3, -1, -1, -1))
    assert rows[0]['gain'] == pytest.approx(0, abs=1e-4)
    assert rows[1]['gain'] == pytest.approx(20 * np.log10(2), abs=1e-3)  # half of every error
    assert rows[2]['gain'] > 50


@pytest.mark.parametrize(
    ('gains', 'optimised', 'aligned', 'warned'),
    [
        ([12.0, 9.0], True, True, None),
        ([12.0, 7.0], True, False, '1 of 2 clips well. Above the picture of the average code by b 7.0 dB'),
        ([12.0, 7.0], False, True, None),  # an encoder alone comes less near
        ([5.0], False, False, 'this clip well'),
        ([None, 12.0], True, True, None),  # not measured
    ],
)
def test_clips_that_cannot_be_drawn_are_warned_of(
    gains: list[float | None], optimised: bool, aligned: bool, warned: str | None
) -> None:
    clips = [(name, {} if gain is None else {'gain': gain}) for name, gain in zip('abc', gains, strict=False)]
    with naming_options():
        limits = judgement.limits_of(encoded=not optimised, optimised=optimised, coarse=False, lambda_pixel=None)
        sentences = judgement.warnings(clips, limits, optimised=optimised, aligned=aligned)
    assert len(sentences) == (warned is not None)
    if warned is not None:
        assert warned in sentences[0]
        assert ('--align=ffhq' in sentences[0]) is not aligned
        assert ('--refine' in sentences[0]) is not optimised


def test_of_small_pictures_the_perceptual_distance_decides_as_well() -> None:
    clips = [('face', {'gain': 12.0, 'lpips': 0.03}), ('bars', {'gain': 10.0, 'lpips': 0.09}), ('unknown', {'gain': 12.0})]
    fine, small = (
        judgement.limits_of(encoded=False, optimised=True, coarse=coarse, lambda_pixel=None) for coarse in (False, True)
    )
    assert judgement.warnings(clips, fine, optimised=True, aligned=True) == []
    (sentence,) = judgement.warnings(clips, small, optimised=True, aligned=True)
    assert (
        'draw 1 of 3 clips well. Above the picture of the average code by bars 10.0 dB (LPIPS 0.090; usual are 0.01 to'
        in sentence
    )
    low = [('noise', {'gain': 2.0, 'lpips': 0.01})]
    (sentence,) = judgement.warnings(low, small, optimised=True, aligned=True)
    assert 'noise 2.0 dB; usual' in sentence


def test_codes_that_had_to_go_far_are_told_from_drawings() -> None:
    limits = judgement.limits_of(encoded=False, optimised=True, coarse=True, lambda_pixel=20)
    clips = [
        ('face', {'gain': 16.0, 'lpips': 0.02, 'deviation': 2.5}),
        ('bars', {'gain': 13.7, 'lpips': 0.01, 'deviation': 6.1}),
        ('plain colour', {'gain': 35.0, 'lpips': 0.001, 'deviation': 2.9}),  # what is drawn is drawn
        ('of an older data set', {'gain': 16.0, 'lpips': 0.02}),
    ]
    (sentence,) = judgement.warnings(clips, limits, optimised=True, aligned=True)
    assert 'draw 1 of 4 clips well. Above the picture of the average code by bars 13.7 dB (codes 6.1 standard' in sentence
    # An encoder's codes lie elsewhere, and less weight of the pixels leads less far.
    encoded = judgement.limits_of(encoded=True, optimised=True, coarse=True, lambda_pixel=20)
    assert judgement.warnings(clips, encoded, optimised=True, aligned=True) == []
    deviations = [judgement.largest_deviation(weight) for weight in (0.5, 2, 8, 20)]
    assert deviations == sorted(deviations)
    assert deviations[1::2] == pytest.approx([deviation for _, deviation in judgement.LARGEST_DEVIATIONS])


def test_codes_of_random_z_deviate_by_one(tiny_generator: pathlib.Path) -> None:
    G: Any = load_generator(str(tiny_generator))
    inversion = Inversion(G, None, InversionOptions())
    assert float(inversion.deviations(inversion.average(2)).abs().max()) < 1e-5
    codes = G.mapping(torch.randn([512, 8], generator=torch.Generator().manual_seed(0)), None)
    deviations = inversion.deviations(codes)
    assert float(deviations.square().mean()) == pytest.approx(1, rel=0.1)
    twice = inversion.w_avg + 2 * (codes - inversion.w_avg)
    assert inversion.deviations(twice).tolist() == pytest.approx((2 * deviations).tolist(), rel=1e-4)


def test_codes_that_do_not_draw_their_footage_are_not_trained_on(tiny_generator: pathlib.Path, tmp_path: pathlib.Path) -> None:
    reference = image_generator_reference(str(tiny_generator), load_generator(str(tiny_generator)))
    codes = np.cumsum(np.random.RandomState(0).randn(60, 6, 8), axis=0).astype(np.float32)
    outcomes = []
    for gain in (0.04, 9.0):
        path = tmp_path / f'{gain}.zip'
        with LatentDatasetWriter(path, image_generator=reference, num_ws=6, w_dim=8, embedding={}) as writer:
            writer.add_clip('noise', codes, fps=25, source='noise.mp4', gain=gain)
        for more in ((), ('--force-data',)):
            arguments = [f'--data={path}', f'--outdir={tmp_path}', '--dry-run', *more]
            result = click.testing.CliRunner().invoke(train_video.main, arguments)
            outcomes.append(result.exit_code)
            assert ('its codes do not draw its footage' in result.output) is (result.exit_code == 2)
    assert outcomes == [2, 0, 0, 0]


def test_footage_of_another_kind_is_warned_of_and_the_report_has_the_gain(
    tiny_generator: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    G: Any = load_generator(str(tiny_generator))
    random = np.random.RandomState(0)
    with torch.no_grad():
        walk = torch.lerp(*G.mapping(torch.randn(2, 8), None)[:, None], torch.linspace(0, 1, 12)[:, None, None])
        drawn = images_to_uint8(G.synthesis(walk, noise_mode='const'))
    for name, frames in (('drawn', drawn), ('noise', random.randint(256, size=drawn.shape).astype(np.uint8))):
        (tmp_path / 'footage' / name).mkdir(parents=True)
        for index, frame in enumerate(frames):
            PIL.Image.fromarray(frame).save(tmp_path / 'footage' / name / f'{index:02d}.png')
    arguments = [
        f'--network={tiny_generator}', f'--source={tmp_path / "footage"}', f'--dest={tmp_path / "data.zip"}', '--perceptual=none',
        '--scene-cuts=ignore', '--min-frames=2', '--device=cpu', '--identity=no',
    ]  # fmt: skip
    result = click.testing.CliRunner().invoke(embed_video.main, arguments)
    assert result.exit_code == 0, result.output
    assert (
        'Warning: the image generator cannot draw 1 of 2 clips well. Above the picture of the average code by noise'
        in result.output
    )
    with LatentDataset(tmp_path / 'data.zip') as dataset:
        gains = {clip.name: clip.extra['gain'] for clip in dataset.clips}
        assert dataset.quality['gain'] == pytest.approx(np.mean(list(gains.values())), abs=1e-3)
    assert gains['drawn'] > judgement.LOW_GAIN > judgement.REFUSED_GAIN > gains['noise']
    report = json.loads((tmp_path / 'data-report' / 'report.json').read_text())
    assert {clip['name']: clip['gain'] for clip in report['clips']} == gains
    assert '<th title="PSNR above' in (tmp_path / 'data-report' / 'index.html').read_text()


class Finds:
    """A detector that finds a face where it was told, by the number of the frame's first pixel."""

    def __init__(self, faces: dict[int, tuple[tuple[float, float], float]]) -> None:
        self.faces = faces

    def detect(self, frame: np.ndarray) -> list[Face]:
        place = self.faces.get(int(frame[0, 0, 0]))
        if place is None:
            return []
        (x, y), scale = place
        side = len(frame)
        points = np.array([[-0.11, -0.02], [0.11, -0.02], [-0.09, 0.2], [0.09, 0.2]]) * scale + (x, y)
        return [Face((points * side).astype(np.float32), np.zeros(4, np.float32))]


@pytest.mark.parametrize(
    ('place', 'found'),
    [
        (((0.5, 0.45), 1.0), None),
        (((0.52, 0.47), 1.1), None),
        (((0.5, 0.45), 0.5), '0.5 times as large as'),
        (((0.8, 0.45), 1.0), 'of its size away from'),
        (None, None),
    ],
)
def test_faces_that_lie_elsewhere_than_the_generators_are_noticed(place: Any, found: str | None) -> None:
    average, frame = np.full((64, 64, 3), 1, np.uint8), np.full((300, 300, 3), 2, np.uint8)
    detector = Finds({1: ((0.5, 0.45), 1.0), **({} if place is None else {2: place})})
    sentence = judgement.misplaced_faces(average, [frame, frame], detector)
    assert sentence == found if found is None else found in str(sentence)
    assert judgement.misplaced_faces(frame, [average], Finds({1: ((0.5, 0.45), 1.0)})) is None  # it draws no faces
    assert FaceAxes.of_points(detector.detect(average)[0].points[None]).center.shape == (1, 2)


def test_the_nearest_way_in_time_is_recommended() -> None:
    encoder = Way('encoder', '--encoder', 0.001, 24.0, 9.0, 0.0172, 0.03)
    both = Way('encoder and refinement', '--encoder --refine', 0.5, 28.0, 13.0, 0.0046, 0.09)
    alone = Way('optimisation', '', 0.4, 27.6, 12.6, 0.0058, 0.09)
    ways = [encoder, both, alone]
    assert recommend(ways, 1000) is both
    assert recommend(ways, 10**6) is encoder  # 111 hours else
    assert recommend([both, Way('optimisation', '', 0.4, 27.9, 12.9, 0.0048, 0.09)], 1000).name == 'optimisation'  # about as near
    assert recommend([both, alone], 10**9) is alone  # all take too long: the quickest
