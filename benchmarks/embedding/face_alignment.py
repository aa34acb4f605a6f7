"""Compare the face detector with 68 landmarks of another tool, and aligned frames with videos aligned elsewhere.

    python -m benchmarks.embedding.face_alignment --source=raw/ --landmarks=landmarks68/ --aligned=aligned128/ --frames=100

`--landmarks` holds NAME.npy [T, 68, 2] for each recording; `--aligned` holds NAME.mp4, square, for some of them. Prints,
for each recording: distance of the crops' centres and difference of their sizes, % of the side; of their rotation, degrees;
jitter (root mean square of the second difference of the unfiltered centre and right side over time, % of the side) of both;
PSNR of aligned frames to the reference, once from the detector and once from the landmarks; seconds a frame for both.
"""

import itertools
import os
import time

import click
import numpy as np

from training.commands import command_line
from training.footage.clips import open_footage
from training.footage.face_alignment import FaceAxes, cut_out
from training.footage.face_landmarks import FaceDetector, load_landmarks, points_of_68


def jitter(values: np.ndarray, side: np.ndarray) -> float:
    """Root mean square of the second difference, % of the side."""
    return 100 * float(np.sqrt(np.square(np.diff(values, n=2, axis=0) / side[1:-1, np.newaxis]).sum(axis=1).mean()))


def psnr(frames: list[np.ndarray], reference: list[np.ndarray]) -> float:
    """Mean over the frames, dB."""
    errors = [np.square(a.astype(float) - b).mean() for a, b in zip(frames, reference, strict=True)]
    return float(np.mean([10 * np.log10(255**2 / max(error, 1e-9)) for error in errors]))


# fmt: off
@command_line.command()
@click.option('--source',          help='Recordings', metavar='FOOTAGE', required=True)
@click.option('--landmarks',       help='Folder of landmarks', metavar='DIR', required=True)
@click.option('--aligned',         help='Folder of aligned videos', metavar='DIR')
@click.option('--frames', 'count', help='Frames of each recording', metavar='INT', type=command_line.POSITIVE_INT, default=100)
@click.option('--center-sigma',    help='Filter of the centre over time', metavar='FRAMES',
              type=command_line.NON_NEGATIVE_FLOAT, default=1)
@click.option('--axes-sigma',      help='Filter of size and rotation', metavar='FRAMES', type=command_line.NON_NEGATIVE_FLOAT,
              default=3)
@command_line.clear_errors
def main(source: str, landmarks: str, aligned: str | None, count: int, center_sigma: float, axes_sigma: float) -> None:
    """Print the table."""
    print('| recording | frames | distance | size | rotation | jitter detector / landmarks (centre; side) '
          '| PSNR detector / landmarks | s/frame detection; crop |')
    print('|---|---|---|---|---|---|---|---|')
    with FaceDetector() as detector:
        for clip in open_footage(source):
            frames = list(itertools.islice(clip.frames(), count))
            begin = time.perf_counter()
            found = [detector.detect(frame) for frame in frames]
            detection = (time.perf_counter() - begin) / len(frames)
            other = points_of_68(load_landmarks(os.path.join(landmarks, clip.name + '.npy')))[: len(frames)]
            whole = all(found) and not np.isnan(other).any()
            both = [index for index, faces in enumerate(found) if faces and not np.isnan(other[index]).any()]
            mine = FaceAxes.of_points(np.stack([found[index][0].points for index in both]))
            theirs = FaceAxes.of_points(other[both])
            side = 2 * np.linalg.norm(theirs.x, axis=1)
            distance = 100 * np.linalg.norm(mine.center - theirs.center, axis=1) / side
            size = 100 * (np.linalg.norm(mine.x, axis=1) / np.linalg.norm(theirs.x, axis=1) - 1)
            turn = np.degrees(np.arctan2(mine.x[:, 1], mine.x[:, 0]) - np.arctan2(theirs.x[:, 1], theirs.x[:, 0]))
            quality, crop = '-', float('nan')
            path = os.path.join(aligned, clip.name + '.mp4') if aligned else ''
            if whole and os.path.isfile(path):
                reference = list(itertools.islice(open_footage(path)[0].frames(), len(frames)))
                begin = time.perf_counter()
                values = []
                for axes in (mine, theirs):
                    quads = axes.steadied(center_sigma, axes_sigma).quads()
                    crops = [cut_out(frame, quad, reference[0].shape[0]) for frame, quad in zip(frames, quads, strict=True)]
                    values.append(psnr(crops, reference))
                crop = (time.perf_counter() - begin) / len(frames) / 2
                quality = f'{values[0]:.1f} / {values[1]:.1f}'
            print(f'| {clip.name} | {len(both)} of {len(frames)} | {distance.mean():.2f} '
                  f'| {size.mean():+.1f} +- {size.std():.1f} '
                  f'| {turn.mean():+.1f} +- {turn.std():.1f} '
                  f'| {jitter(mine.center, side):.2f} / {jitter(theirs.center, side):.2f}; '
                  f'{jitter(mine.x, side):.2f} / {jitter(theirs.x, side):.2f} | {quality} | {detection:.3f}; {crop:.3f} |',
                  flush=True)
# fmt: on


if __name__ == '__main__':
    main()
