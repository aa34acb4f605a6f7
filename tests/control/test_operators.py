"""What changes codes on their way: formulas, keyframes, resampling, and states that go on with the same numbers."""

import fractions

import numpy as np
import pytest
import torch

from networks.errors import InputError
from training.control.directions import parse_edit, read_direction
from training.control.keyframes import parse_keyframes
from training.control.operators import Edit, FadingOffset, Mixture, MotionScale, Pipeline, Truncation
from training.control.resampling import Resampled, resampling_step
from training.control.transfer import SubjectTransfer, motion_of, subject_shift
from training.generation.interpolation import InterpolationSource
from training.videos.code_sources import CodeSource, RecordedSource


def recording(num_frames: int = 40, seed: int = 0) -> np.ndarray:
    """Smooth codes [T, 3, 4]."""
    draws = np.random.RandomState(seed)
    time = np.arange(num_frames)[:, None, None] / 10
    return (draws.randn(3, 4) + np.sin(time * draws.rand(3, 4) + draws.rand(3, 4))).astype(np.float32)


def test_keyframes_are_straight_lines_and_constant_outside() -> None:
    keyframes = parse_keyframes('1@10, 0.5@20,-2@24')
    assert np.allclose(keyframes.at(8, 18)[[0, 2, 7, 12, 14, 16, 17]], [1, 1, 0.75, 0.5, -0.75, -2, -2])
    assert keyframes.plain() == '1@10,0.5@20,-2@24'
    assert parse_keyframes('0.7').plain() == 0.7
    for text, words in (('x', 'neither a number'), ('1,2', 'at which frame'), ('1@5,2@5', 'do not rise'), ('1e9', 'too large')):
        with pytest.raises(ValueError, match=words):
            parse_keyframes(text)


def test_operators_are_their_formulas() -> None:
    codes, center, direction = torch.randn(6, 3, 4), torch.randn(3, 4), torch.randn(3, 4)
    values = torch.tensor([1.0, 1.0, 0.75, 0.5, 0.5, 0.5])[:, None, None]
    keyframes = parse_keyframes('1@11,0.5@13')
    expected = center + values * (codes - center)
    assert torch.allclose(Truncation(center, keyframes)(codes, 10), expected, atol=1e-6)
    assert torch.allclose(MotionScale(center, keyframes)(codes, 10), expected, atol=1e-6)
    assert torch.allclose(Edit(direction, keyframes)(codes, 10), codes + values * direction, atol=1e-6)
    faded = FadingOffset(direction, 4)(codes, 0) - codes
    weights = [1, (1 + np.cos(np.pi / 4)) / 2, 0.5, (1 + np.cos(3 * np.pi / 4)) / 2, 0, 0]
    assert torch.allclose(faded, torch.tensor(weights, dtype=torch.float32)[:, None, None] * direction, atol=1e-5)
    first, second = torch.ones(3, 4), 3 * torch.ones(3, 4)
    moved = SubjectTransfer((first, second), (0.0, 4.0))(torch.zeros(6, 3, 4), 0)
    assert moved[:, 0, 0].tolist() == pytest.approx([1, 1.5, 2, 2.5, 3, 3])


def test_mixture_is_one_then_the_other_and_keeps_the_size_of_motion() -> None:
    draws = np.random.RandomState(0)
    noise = [draws.randn(3000, 3, 4).astype(np.float32) for _ in range(2)]
    source = Mixture(*(RecordedSource(codes) for codes in noise), torch.zeros(3, 4), 100, 2900)
    mixed = torch.cat([source.read(500) for _ in range(6)]).numpy()
    assert np.array_equal(mixed[:101], noise[0][:101])
    assert np.array_equal(mixed[2900:], noise[1][2900:])
    assert mixed[1000:2000].std() == pytest.approx(1, abs=0.03)  # the plain mean of the two would have 0.7


def test_resampling_goes_through_the_codes_and_is_cubic_between() -> None:
    codes = recording()
    half = Resampled(RecordedSource(codes), fractions.Fraction(1, 2), chunk=7).read(60).numpy()
    assert np.allclose(half[::2], codes[:30], atol=1e-6)
    time = np.arange(40, dtype=np.float64)[:, None, None]
    parabola = (3 + 0.5 * time - 0.01 * time**2) * np.ones((1, 3, 4))
    read = Resampled(RecordedSource(parabola.astype(np.float32)), fractions.Fraction(2, 3), chunk=5).read(50).numpy()
    at = (np.arange(50) * 2 / 3)[:, None, None]
    assert np.allclose(read[2:], ((3 + 0.5 * at - 0.01 * at**2) * np.ones((1, 3, 4)))[2:], atol=1e-5)  # exact for parabolas
    assert resampling_step(30000 / 1001, 59.94005994) == fractions.Fraction(1, 2)
    assert resampling_step(25, 50, 2) == 1


def test_a_loop_is_resampled_through_its_seam() -> None:
    turn = np.sin(2 * np.pi * np.arange(20) / 20)[:, None, None] * np.ones((1, 3, 4))
    source = RecordedSource(np.tile(turn, (4, 1, 1)).astype(np.float32))
    source.read(19)
    read = Resampled(source, fractions.Fraction(1, 2), chunk=6, leads=True).read(40)[:, 0, 0].numpy()
    assert np.abs(read - np.sin(2 * np.pi * np.arange(40) / 40)).max() < 2e-3


@pytest.mark.parametrize('kind', ['pipeline', 'resampled', 'mixture', 'interpolation'])
def test_state_goes_on_with_the_same_numbers(kind: str) -> None:
    def make() -> CodeSource:
        recorded = RecordedSource(recording())
        if kind == 'pipeline':
            return Pipeline(recorded, [MotionScale(torch.zeros(3, 4), parse_keyframes('1@0,0@30'))])
        if kind == 'resampled':
            return Resampled(recorded, fractions.Fraction(5, 7), chunk=4)
        if kind == 'mixture':
            return Mixture(recorded, RecordedSource(recording(seed=1)), torch.zeros(3, 4), 3, 20)
        return InterpolationSource(torch.randn(4, 3, 4, generator=torch.Generator().manual_seed(0)), 5, loop=True)

    source = make()
    source.read(9)
    state = source.state()
    rest = source.read(9)
    other = make()
    other.restore(state)
    assert torch.equal(other.read(9), rest)


def test_interpolation_meets_its_keyframes_and_closes() -> None:
    keyframes = torch.randn(4, 3, 4, generator=torch.Generator().manual_seed(1))
    for easing in ('cubic', 'linear', 'smooth'):
        read = InterpolationSource(keyframes, 6, easing=easing, loop=True).read(48)
        assert torch.allclose(read[:24:6], keyframes, atol=1e-6)
        assert torch.allclose(read[24:], read[:24], atol=1e-6)
        still = InterpolationSource(keyframes, 6, easing=easing).read(30)
        assert torch.allclose(still[18:], keyframes[3:].expand(12, -1, -1), atol=1e-6)


# ----------------------------------------------------------------------------
# Another subject.


def test_transfers_keep_what_they_promise() -> None:
    draws = np.random.RandomState(0)
    basis = np.linalg.qr(draws.randn(12, 12))[0]
    coordinates = draws.randn(300, 2) * [3, 2]
    mean = draws.randn(12)
    codes = (mean + coordinates @ basis[:2]).reshape(-1, 3, 4).astype(np.float32)  # moves along two directions
    identity, pose = 5 * basis[4], 2 * basis[0]
    subject = (mean + identity + pose).reshape(1, 3, 4).astype(np.float32)
    directions = motion_of(codes).directions.numpy()
    assert np.allclose(np.abs(directions[:2] @ basis[:2].T), np.eye(2), atol=0.05)
    offset = subject_shift('offset', codes, subject).numpy().ravel()
    orthogonal = subject_shift('orthogonal', codes, subject).numpy().ravel()
    center = codes.mean(axis=0).ravel()
    assert np.allclose(offset, mean + identity + pose - center, atol=1e-5)
    assert np.allclose(orthogonal, identity, atol=1e-4)  # the pose of the picture is left out, the identity is not
    several = [(mean + draws.randn() * 4 * basis[4] + draws.randn() * basis[5] + draws.randn(40, 2) * [3, 2] @ basis[:2])
               .reshape(-1, 3, 4).astype(np.float32) for _ in range(12)]  # fmt: skip
    learned = subject_shift('regression', codes, subject, several).numpy().ravel()
    assert np.linalg.norm(learned - identity) < 0.5 * np.linalg.norm(offset - identity)
    layers = subject_shift('layers', codes, subject).numpy()
    assert layers.shape == (3, 4)
    with pytest.raises(InputError, match='at least three'):
        subject_shift('regression', codes, subject)
    with pytest.raises(InputError, match='made for another one'):
        subject_shift('offset', codes, np.zeros((1, 3, 5), np.float32))
    with pytest.raises(InputError, match='no motion'):
        subject_shift('orthogonal', np.ones((9, 3, 4), np.float32), subject)


def test_shrinkage_is_the_nearest_to_identity() -> None:
    """Identity is alike in all directions, and pose as the motion says: Wiener's estimate beats to keep all and to keep none."""
    draws = np.random.RandomState(0)
    basis = np.linalg.qr(draws.randn(24, 24))[0]
    deviations = np.array([6, 3, 1, 0.3])
    codes = (draws.randn(400, 4) * deviations @ basis[:4]).reshape(-1, 3, 8).astype(np.float32)
    errors: dict[str, list[float]] = {}
    for _ in range(100):
        identity = 1.5 * draws.randn(24)
        subject = (identity + draws.randn(4) * deviations @ basis[:4]).reshape(1, 3, 8).astype(np.float32)
        for method in ('shrinkage', 'offset', 'orthogonal'):
            missed = subject_shift(method, codes, subject).numpy().ravel() - identity
            errors.setdefault(method, []).append(float(np.square(missed).mean()))
    means = {method: np.mean(values) for method, values in errors.items()}
    # what Wiener's filter leaves of the four directions when tau is known, in 24: lambda tau / (lambda + tau) each
    known = sum(v * 2.25 / (v + 2.25) for v in deviations**2) / 24
    assert means['shrinkage'] < 1.2 * known
    assert 1.15 * means['shrinkage'] < min(means['offset'], means['orthogonal'])
    itself = subject_shift('shrinkage', codes, codes.mean(axis=0, keepdims=True))
    assert float(itself.abs().max()) < 1e-5


# ----------------------------------------------------------------------------
# Directions.


def test_directions_of_other_tools_are_read(tmp_path) -> None:
    boundary, layered = np.random.RandomState(0).randn(1, 4), np.random.RandomState(1).randn(3, 4).astype(np.float32)
    np.save(tmp_path / 'interfacegan.npy', boundary)
    np.savez(tmp_path / 'named.npz', direction=layered, other=np.zeros(3))
    torch.save(torch.from_numpy(layered)[None], tmp_path / 'stit.pt')
    torch.save({'delta': torch.ones(4)}, tmp_path / 'dict.pt')
    assert np.allclose(read_direction(str(tmp_path / 'interfacegan.npy'), 3, 4), np.repeat(boundary, 3, axis=0))
    assert np.allclose(read_direction(str(tmp_path / 'named.npz'), 3, 4), layered)
    assert np.allclose(read_direction(str(tmp_path / 'stit.pt'), 3, 4), layered)
    only = read_direction(str(tmp_path / 'dict.pt'), 3, 4, '0,2')
    assert only.sum(dim=1).tolist() == [4, 0, 4]
    path = str(tmp_path / 'named.npz')
    assert parse_edit(path)[0] == path
    assert parse_edit(f'{path}:-1.5')[1].plain() == -1.5
    name, strength, layers = parse_edit(f'{path}:0@0,2@100:0-1,2')
    assert (name, strength.plain(), layers) == (path, '0@0,2@100', '0-1,2')


def test_wrong_directions_are_one_sentence(tmp_path) -> None:
    np.save(tmp_path / 'wrong.npy', np.zeros((1, 5)))
    np.save(tmp_path / 'nan.npy', np.full(4, np.nan))
    np.savez(tmp_path / 'many.npz', a=np.zeros(4), b=np.zeros(4))
    (tmp_path / 'cut.npy').write_bytes(b'\x93NUMPY')
    np.save(tmp_path / 'object.npy', np.array([{}], dtype=object), allow_pickle=True)
    wrong = {
        'wrong': 'made for another one',
        'nan': 'finite',
        'cut': 'cannot be read',
        'object': 'cannot be read',
        'absent': 'no file',
    }
    for name, words in wrong.items():
        with pytest.raises(InputError, match=words):
            read_direction(str(tmp_path / f'{name}.npy'), 3, 4)
    with pytest.raises(InputError, match='name the array'):
        read_direction(str(tmp_path / 'many.npz'), 3, 4)
    np.save(tmp_path / 'right.npy', np.zeros(4))
    with pytest.raises(InputError, match='layers 0 to 2'):
        read_direction(str(tmp_path / 'right.npy'), 3, 4, '1-7')
