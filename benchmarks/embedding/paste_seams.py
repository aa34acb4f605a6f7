"""Is the seam seen? Crops of a latent data set pasted back into their recordings, and the edge of the mask measured.

    python -m benchmarks.embedding.paste_seams --data=latents.zip --frames=8 --sheet=sheet.png

A line for each clip and way to paste. With n the direction across the edge of the mask, for the brightness of the pixels where
the mask is between 0.05 and 0.95 (the hard square: within two pixels of its edge):

    ratio   mean |n . grad| of the result / that of the recording in the same pixels
    strong  % of these pixels in which |n . grad| of the result is above what 99 % of those of the recording stay below;
            the recording itself has 1
    changed pixels outside of the mask that are not the recording's, bit for bit
"""

import types

import click
import numpy as np
import PIL.Image

from training.commands import command_line
from training.latents.dataset import LatentDataset
from training.pasting import masks
from training.pasting.blending import Paster
from training.pasting.run import choose_mask
from training.pasting.sources import GeneratorOfCrops, RecordingPart, open_crops

WAYS = ('hard square', 'soft square', 'ellipse', 'face', 'face, --match=none')
SHEET_HEIGHT = 256


def edge_of(mask: np.ndarray, hard: bool) -> tuple[np.ndarray, np.ndarray]:
    """Where the edge of a drawn mask is, bool `[H, W]`, and the direction across it, float `[H, W, 2]`."""
    smooth = mask
    if hard:  # a step has no slope: that of its average over five pixels
        padded = np.pad(mask, 2, mode='edge')
        shifted = [padded[i : i + mask.shape[0], j : j + mask.shape[1]] for i in range(5) for j in range(5)]
        smooth = np.mean(shifted, axis=0)
    slope = np.stack(np.gradient(smooth), axis=-1)
    length = np.linalg.norm(slope, axis=-1, keepdims=True)
    where = (smooth > 0.05) & (smooth < 0.95) & (length[..., 0] > 0)
    return where, slope / np.maximum(length, 1e-12)


def across(frame: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """|n . grad| of the brightness, levels a pixel, `[H, W]`."""
    grey = frame.astype(np.float64) @ [0.299, 0.587, 0.114]
    down, right = np.gradient(grey)
    return np.abs(down * direction[..., 0] + right * direction[..., 1])


# fmt: off
@command_line.command()
@click.option('--data',    help='Latent data set', metavar='DATA', required=True)
@click.option('--network', help='Its image generator', metavar='PKL')
@click.option('--crops',   help='Folder with NAME.mp4 for each clip, instead of the embedded crops', metavar='DIR')
@click.option('--frames',  help='Frames of each clip that are measured', metavar='INT', type=command_line.POSITIVE_INT, default=8)
@click.option('--sheet',   help='Picture with one frame of each clip: recording, then each way', metavar='PNG')
@command_line.clear_errors
def main(data: str, network: str | None, crops: str | None, frames: int, sheet: str | None) -> None:
    """Print the table."""
    print(f'| clip | {" | ".join(f"{way}: ratio, strong" for way in WAYS)} | changed outside |')
    print('|---' * (len(WAYS) + 2) + '|')
    rows = []
    with LatentDataset(data) as dataset:
        generator = GeneratorOfCrops(dataset, network, False, False, 'cpu')
        for index, clip in enumerate(dataset.clips):
            part = RecordingPart(dataset, index)
            made = open_crops(f'{crops}/{clip.name}.mp4' if crops else None, dataset, index, generator, 8)
            _, face = choose_mask(types.SimpleNamespace(mask='face', landmarks=None, face_model=None), dataset, part, made)
            side = float(np.median(np.linalg.norm(part.quads[:, 3] - part.quads[:, 0], axis=1)))
            whole = np.ones((masks.SIZE, masks.SIZE), np.float32)
            pasters = dict(zip(WAYS, (
                Paster(whole, side, match=False), Paster(masks.square_mask(), side), Paster(masks.ellipse_mask(), side),
                Paster(face, side), Paster(face, side, match=False)), strict=True))  # fmt: skip
            measured = {way: [np.zeros(0), np.zeros(0)] for way in WAYS}
            changed = 0
            wanted = set(np.linspace(0, part.num_frames - 1, frames).astype(int).tolist())
            for number, (frame, crop) in enumerate(zip(part.frames(), made.frames(), strict=False)):
                if not {number, number + 1, number + 2, number + 3} & wanted:
                    continue  # three frames before one that is measured, so that colours have been followed
                results = {way: paster.paste(frame, crop, part.quads[number]) for way, paster in pasters.items()}
                if number not in wanted:
                    continue
                for way, result in results.items():
                    mask = pasters[way].drawn_mask(part.size, part.quads[number])
                    where, direction = edge_of(mask, way == WAYS[0])
                    for place, picture in enumerate((frame, result)):
                        measured[way][place] = np.concatenate([measured[way][place], across(picture, direction)[where]])
                    changed += int((result != frame)[mask == 0].sum())
            cells = []
            for own, found in measured.values():
                strong = 100 * (found > np.percentile(own, 99)).mean()
                cells.append(f'{found.mean() / max(own.mean(), 1e-9):.2f}, {strong:.1f} %')
            print(f'| {clip.name} | {" | ".join(cells)} | {changed} |', flush=True)
            scale = SHEET_HEIGHT / part.size[1]
            pictures = [PIL.Image.fromarray(picture) for picture in (frame, *results.values())]
            rows.append(np.concatenate([np.asarray(p.resize((round(p.width * scale), SHEET_HEIGHT))) for p in pictures], axis=1))
    if sheet:
        width = max(row.shape[1] for row in rows)
        rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
        PIL.Image.fromarray(np.concatenate(rows)).save(sheet)
# fmt: on


if __name__ == '__main__':
    main()
