"""Crops back into frames: geometry, masks, colours at the seam, the order of frames."""

import itertools
import pathlib

import numpy as np
import pytest

from training.footage.face_alignment import cut_out
from training.latents.dataset import LatentDataset, LatentDatasetWriter
from training.pasting import masks, sources
from training.pasting.blending import GRID, Paster, to_crop
from training.pasting.sources import RecordingPart, place
from training.videos.output import PngWriter

TURNED = np.array([[40.0, 20.0], [20.0, 100.0], [100.0, 120.0], [120.0, 40.0]])  # side 82.5, turned by 14 degrees


def smooth_frame(height: int = 150, width: int = 160) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin(x / 31 + phase) * np.cos(y / 27 - phase) for phase in (0, 1, 2)]
    return np.rint(np.stack(waves, axis=-1)).astype(np.uint8)


def noise_frame(seed: int, shape: tuple[int, int] = (150, 160)) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (*shape, 3)).astype(np.uint8)


@pytest.mark.parametrize('size', [64, 100, 400])
def test_what_was_cut_out_goes_back_to_its_place(size: int) -> None:
    frame = smooth_frame()
    crop = cut_out(frame, TURNED, size)
    pasted = Paster(masks.square_mask(), 82.5, match=False).paste(frame, crop, TURNED)
    assert np.abs(pasted.astype(int) - frame).max() <= 3  # rounding twice, and a curve between samples
    moved = Paster(masks.square_mask(), 82.5, match=False).paste(frame, crop, TURNED + 1)
    assert np.abs(moved.astype(int) - frame).max() > 3


def test_points_of_the_frame_in_the_crop() -> None:
    assert np.allclose(to_crop(TURNED, TURNED), [[0, 0], [0, 1], [1, 1], [1, 0]])
    middle = (TURNED[0] + TURNED[2]) / 2
    assert np.allclose(to_crop(middle, TURNED), [0.5, 0.5])


@pytest.mark.parametrize('quad', [TURNED, TURNED - 60, TURNED + 500], ids=['inside', 'over the edge', 'outside'])
@pytest.mark.parametrize('match', [True, False])
def test_outside_of_the_mask_nothing_changes(quad: np.ndarray, match: bool) -> None:
    frame = noise_frame(0)
    before = frame.copy()
    for mask in (masks.ellipse_mask(), masks.square_mask()):
        paster = Paster(mask, 82.5, match=match)
        pasted = paster.paste(frame, noise_frame(1, (64, 64)), quad)
        drawn = paster.drawn_mask((160, 150), quad)
        assert np.array_equal(pasted[drawn == 0], frame[drawn == 0])
        assert (drawn > 0).any() == (np.abs(quad).max() < 300)
        if (drawn > 0.9).any():
            assert not np.array_equal(pasted[drawn > 0.9], frame[drawn > 0.9])
    assert np.array_equal(frame, before)


def test_another_light_is_matched_and_another_hairline_is_not() -> None:
    frame = smooth_frame() // 2 + 60
    crop = cut_out(frame, TURNED, 128).astype(int) + np.array([20, -12, 6])
    mask = masks.ellipse_mask()
    inside = Paster(mask, 82.5).drawn_mask((160, 150), TURNED) > 0.02

    def error(crop: np.ndarray, match: bool) -> np.ndarray:
        pasted = Paster(mask, 82.5, match=match).paste(frame, crop.clip(0, 255).astype(np.uint8), TURNED)
        return np.abs(pasted.astype(int) - frame)

    assert error(crop, False)[inside].max() >= 19
    assert error(crop, True)[inside].max() <= 4
    crop[:30] = 0  # hair where the frame has none
    below = inside & (np.mgrid[:150, :160][0] > 75)
    assert error(crop, True)[below].mean() <= 4
    noise = np.kron(
        np.random.RandomState(0).randint(0, 256, (16, 16, 3)), np.ones((8, 8, 1))
    )  # another person before another backdrop: nothing to match
    middle = (slice(60, 80), slice(60, 80))
    plain, matched = (
        Paster(mask, 82.5, match=match).paste(frame // 3, noise.astype(np.uint8), TURNED) for match in (False, True)
    )
    assert np.abs(matched[middle].mean(axis=(0, 1)) - plain[middle].mean(axis=(0, 1))).max() <= 6


def test_colours_follow_slowly_and_go_on_after_an_interruption() -> None:
    frame, crops = smooth_frame(), [np.full((64, 64, 3), 100 + 20 * (number % 2), np.uint8) for number in range(6)]
    whole = Paster(masks.ellipse_mask(), 82.5)
    results = [whole.paste(frame, crop, TURNED) for crop in crops]
    first, second = Paster(masks.ellipse_mask(), 82.5), Paster(masks.ellipse_mask(), 82.5)
    for crop in crops[:3]:
        first.paste(frame, crop, TURNED)
    second.restore(first.state())
    assert all(
        np.array_equal(second.paste(frame, crop, TURNED), result) for crop, result in zip(crops[3:], results[3:], strict=True)
    )
    # Of a step of 20 levels a fifth is taken over at once.
    middle = [int(result[70, 70, 0]) for result in results]
    assert abs(middle[1] - middle[0]) > 10


# ----------------------------------------------------------------------------
# Masks.


def sample(mask: np.ndarray, x: float, y: float) -> float:
    return float(mask[int(y * masks.SIZE), int(x * masks.SIZE)])


def test_a_face_mask_is_the_hull_of_all_faces_and_a_soft_edge() -> None:
    angles = np.arange(360) / 360 * 2 * np.pi
    circle = 0.5 + 0.2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    reach = 0.2 + masks.MARGIN
    mask = masks.face_mask(masks.support_of(circle))
    assert sample(mask, 0.5 + reach - 0.005, 0.5) == 1
    assert 0.4 < sample(mask, 0.5 + reach + masks.FEATHER / 2, 0.5) < 0.6
    assert sample(mask, 0.5 + reach + masks.FEATHER + 0.005, 0.5) == 0
    both = masks.face_mask(np.maximum(masks.support_of(circle), masks.support_of(circle - [0.2, 0])))
    assert sample(both, 0.2, 0.5) == 1
    assert sample(both, 0.4, 0.31) == 1  # between the two


@pytest.mark.parametrize('mask', [masks.ellipse_mask(), masks.square_mask(), masks.face_mask(np.full(masks.DIRECTIONS, 9.0))])
def test_no_mask_reaches_the_edge_of_the_crop(mask: np.ndarray) -> None:
    assert mask[0].max() == mask[-1].max() == mask[:, 0].max() == mask[:, -1].max() == 0
    assert mask[masks.SIZE // 2, masks.SIZE // 2] == 1


def test_sides_at_the_edge_of_the_frame_stay_hard() -> None:
    square = np.array([[[19.5, -0.5], [19.5, 99.5], [119.5, 99.5], [119.5, -0.5]]])
    sides = masks.open_sides(square, (140, 100))
    assert sides == (False, True, False, True)
    mask = masks.square_mask(sides)
    assert sample(mask, 0.5, 0) == sample(mask, 0.5, 0.999) == 1
    assert sample(mask, 0, 0.5) == 0
    assert masks.open_sides(square, (120, 100)) == (False, True, True, True)


def test_a_forehead_is_added_above_the_brows() -> None:
    landmarks = np.zeros((68, 2))
    landmarks[17:27, 1], landmarks[33, 1] = 10, 20  # y points down
    assert masks.with_forehead(landmarks)[68:, 1].tolist() == [2.0] * 10


# ----------------------------------------------------------------------------
# Which frame.


def test_order_beyond_the_end() -> None:
    def order(beyond: sources.Beyond) -> list[int]:
        found = itertools.takewhile(lambda at: at is not None, (place(number, 4, beyond) for number in range(11)))
        return [at[0] for at in found if at]

    assert order('boomerang') == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2]
    assert order('loop') == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2]
    assert order('stop') == [0, 1, 2, 3]
    assert place(5, 1, 'boomerang') == (0, 1)


@pytest.mark.parametrize('beyond', ['boomerang', 'loop', 'stop'])
def test_walking_gives_these_frames(beyond: sources.Beyond, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, 'BACKWARD_BYTES', 3 * 8 * 8 * 3)  # blocks of three
    with PngWriter(tmp_path / 'frames') as writer:
        for number in range(9):
            writer.write(np.full((8, 8, 3), 20 * number, np.uint8))
    reference = {'sha256': '0' * 64, 'path': 'G.pkl'}
    with LatentDatasetWriter(tmp_path / 'd.zip', image_generator=reference, num_ws=1, w_dim=1, embedding={}) as writer:
        clip = writer.open_clip('frames')
        clip.append(np.zeros((7, 1, 1)))
        quads = np.tile(np.array([[0.0, 0], [0, 4], [4, 4], [4, 0]]), (7, 1, 1)) + np.arange(7)[:, None, None]
        thumbnails = np.repeat(20 * np.arange(2, 9), 64).reshape(7, 8, 8)
        clip.close(fps=25, source=str(tmp_path / 'frames'), first_frame=2, source_size=[8, 8],
                   arrays={'quads': quads, 'thumbnails': thumbnails})  # fmt: skip
    with LatentDataset(tmp_path / 'd.zip') as dataset:
        part = RecordingPart(dataset, 0)
        for first in (0, 3, 7, 8, 12, 13):
            expected = [place(number, 7, beyond) for number in range(first, 26)]
            found = [(int(frame[0, 0, 0]) // 20 - 2, int(quad[0, 0])) for frame, quad in itertools.islice(
                part.walk(first, beyond), 26 - first)]  # fmt: skip
            assert found == [(at[0], at[0]) for at in expected if at is not None]


def test_grid_is_fine_enough_for_the_edge() -> None:
    assert masks.FEATHER * GRID > 5
