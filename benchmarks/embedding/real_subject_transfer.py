"""Ways to put another subject in the place of the one that moves, on codes of real recordings of faces.

    python -m benchmarks.embedding.real_subject_transfer --network=faces.pkl --codes=codes --outdir=out

`--codes` is a folder of code files, one recording of one person each. Each person in turn takes the place of the next one,
known by a single frame from the middle of its own recording. Reported for each method, with 95% intervals over the pairs:

* identity: distance of face descriptors between new frames and that frame, divided by the distance between the two persons
  (0: the same face; 1: no nearer than the person that moves). The face model is that of the extra `identity`.
* motion: correlation over time of the landmarks (corners of the eyes, and the nose) with those of the recording that is
  followed, over all coordinates of the picture, each weighted by how far it moves.

One JSON line for each pair and method is written when it is done, and a run that was interrupted goes on.
"""

import json
import pathlib
from typing import Any

import click
import numpy as np
import torch

from networks.checkpoints import load_generator
from training.commands import command_line
from training.control.transfer import subject_shift
from training.embedding.face_identity import CHIP_PADDING, CHIP_SIDE, FaceIdentity
from training.latents.code_files import read_codes
from training.videos.synthesis import render_codes

METHODS = ('offset', 'orthogonal', 'layers', 'shrinkage', 'regression')
SIDE = 256  # to which frames are enlarged for the face model


class FaceModel:
    """Descriptors and landmarks of faces, by the networks that the extra `identity` installs."""

    def __init__(self) -> None:
        self.model: Any = FaceIdentity()

    def look(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Descriptor [128] and landmarks [5, 2] of the largest face, None without one."""
        import PIL.Image

        large = np.asarray(PIL.Image.fromarray(frame).resize((SIDE, SIDE), PIL.Image.Resampling.BICUBIC))
        boxes = self.model._find(large, 0)
        if not boxes:
            return None
        shape = self.model._landmarks(large, max(boxes, key=lambda box: box.area()))
        chip = self.model._dlib.get_face_chip(large, shape, CHIP_SIDE, CHIP_PADDING)
        descriptor = np.asarray(self.model._descriptor.compute_face_descriptor(chip))
        return descriptor, np.array([[point.x, point.y] for point in shape.parts()], dtype=np.float64) / SIDE


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over coordinates of landmarks [T, 68, 2] of the correlation over time, weighted by the deviation in `first`."""
    a, b = (points.reshape(len(points), -1) - points.reshape(len(points), -1).mean(axis=0) for points in (first, second))
    weight = np.sqrt((a**2).mean(axis=0))
    each = (a * b).mean(axis=0) / np.maximum(weight * np.sqrt((b**2).mean(axis=0)), 1e-9)
    return float((each * weight).sum() / weight.sum())


@command_line.command()
@click.option('--network', help='Image generator', required=True)
@click.option('--codes', help='Folder of code files', required=True)
@click.option('--outdir', help='Where lines and a picture go', required=True)
@click.option('--frames', help='Moments of each recording', type=command_line.POSITIVE_INT, default=8)
@command_line.clear_errors
def main(network: str, codes: str, outdir: str, frames: int) -> None:
    """Measure identity and motion when one person takes the place of another one."""
    import PIL.Image

    from training.videos.output import image_grid

    torch.set_num_threads(1)
    out = pathlib.Path(command_line.require_folder(outdir))
    G: Any = load_generator(network)
    paths = sorted(pathlib.Path(codes).glob('*.np[zy]'))
    recordings = [read_codes(str(path), num_ws=int(G.num_ws), w_dim=int(G.w_dim))[0] for path in paths]
    faces = FaceModel()
    path = out / 'lines.jsonl'
    lines = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
    done = {(line['pair'], line['method']) for line in lines}

    def render(ws: np.ndarray | torch.Tensor) -> list[np.ndarray]:
        return list(render_codes(G, ws, batch=4))

    rows: list[np.ndarray] = []
    with path.open('a') as file, command_line.progress(total=len(paths), description='Pairs', unit='pair') as bar:
        for pair, moving in enumerate(recordings):
            other = recordings[(pair + 1) % len(recordings)]
            picture = other[len(other) // 2 : len(other) // 2 + 1]
            moments = moving[np.linspace(0, len(moving) - 1, frames).round().astype(int)]
            several = [clip for index, clip in enumerate(recordings) if index not in (pair, (pair + 1) % len(recordings))]
            missing = [method for method in METHODS if (pair, method) not in done]
            if missing or pair < 3:
                shifts = {name: subject_shift(name, moving, picture, several).numpy() for name in METHODS}
            if pair < 3:
                rows += [*render(picture), *render(moments)]
                for name in METHODS:
                    rows += [np.full_like(rows[0], 255), *render(moments + shifts[name])]
            if missing:
                wanted = faces.look(render(picture)[0])
                originals = [faces.look(frame) for frame in render(moments)]
            for method in missing:
                made = [faces.look(frame) for frame in render(moments + shifts[method])]
                both = [(a, b) for a, b in zip(originals, made, strict=True) if a is not None and b is not None]
                line: dict[str, Any] = {'pair': pair, 'method': method, 'found': len(both)}
                if wanted is not None and len(both) >= 4:
                    apart = np.mean([np.linalg.norm(a[0] - wanted[0]) for a, _ in both])
                    line['identity'] = float(np.mean([np.linalg.norm(b[0] - wanted[0]) for _, b in both]) / apart)
                    line['motion'] = correlation(np.stack([a[1] for a, _ in both]), np.stack([b[1] for _, b in both]))
                file.write(json.dumps(line) + '\n')
                file.flush()
                lines.append(line)
            bar.update(1)
    PIL.Image.fromarray(image_grid(np.stack(rows), frames + 1)).save(out / 'pairs.png')
    print(table(lines))


def table(lines: list[dict[str, Any]]) -> str:
    """Means of both measures with 95% intervals over pairs by the bootstrap."""
    rows = ['| method | pairs | identity | motion |', '|---|---|---|---|']
    draws = np.random.RandomState(0)
    for method in METHODS:
        measured = [line for line in lines if line['method'] == method and 'identity' in line]
        cells = []
        for name in ('identity', 'motion'):
            values = np.array([line[name] for line in measured])
            low, high = np.percentile(values[draws.randint(len(values), size=(2000, len(values)))].mean(axis=1), [2.5, 97.5])
            cells.append(f'{values.mean():.2f} ({low:.2f} to {high:.2f})')
        rows.append(f'| {method} | {len(measured)} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(rows)


if __name__ == '__main__':
    main()
