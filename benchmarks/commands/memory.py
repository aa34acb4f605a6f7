"""Peak memory of every command on a processor: random weights, the smallest input that shows it, long work cut short.

    python benchmarks/commands/memory.py --resolution=1024 --folder=peaks --results=peaks.jsonl

Each command is a process of its own, whose peak the system tells when it ends (`ru_maxrss`); helpers such as ffmpeg are not in
it. The image generator has NVIDIA's channels. Peaks do not depend on what weights or pictures hold, nor on other work of the
machine. A command whose line `--results` has already is left out, so an interrupted run goes on.
"""

import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import click
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

FRAMES = 10  # of the footage; a tuning needs as many
CODES = 400  # frames of the data set that a model is trained on and codes are measured against
NEVER = '--idle-minutes=0.05'  # minutes without viewers

# What is run, by names; earlier ones make what later ones read.
TUNE = (
    'tune_generator.py --data={folder}/coded.zip --outdir={folder}/tunings --dest={folder}/tuned.pkl --fresh --overwrite '
    '--steps=1 --batch=1 --locality-batch=1 --evaluate=1'
)
EMBED = 'embed_video.py {network} --source={folder}/frames --overwrite --min-frames=1 --dest={folder}/'
GENERATE = 'generate_video.py {snapshot} --seeds=0 --outdir={folder}/'
MEASURE = 'calc_metrics_video.py '
COMMANDS: dict[str, str] = {
    '--help': 'generate_video.py --help',
    'convert': 'convert_network.py --source={folder}/generator.pkl --dest={folder}/converted.safetensors --force',
    'align, centre of the picture': 'align_video.py --source={folder}/frames --dest={folder}/aligned --size={resolution} '
                                    '--min-frames=1',
    'embed: encoder, with report': EMBED + 'encoded.zip --encoder={folder}/encoder.pkl',
    'embed: optimisation, two clips of a frame': EMBED + 'optimised.zip --end=0.08 --steps=1 --first-steps=1 --no-report',
    'train an encoder': 'train_encoder.py {network} --outdir={folder}/encoders --fresh --kimg=0.002 --batch=2 --tick=0.002 '
                        '--snap=100',
    'tune the generator': TUNE,
    'tune, --save-memory': TUNE + ' --save-memory',
    'train, with pictures': 'train_video.py --data={folder}/codes.zip --outdir={folder}/runs --fresh --kimg=13 --tick=7 '
                            '--preview-frames=4',
    'generate, --batch=8': GENERATE + 'eight --frames=8',
    'generate, --batch=8 --memory=200M': GENERATE + 'few --frames=8 --memory=200M',
    'generate, --batch=1': GENERATE + 'one --frames=2 --batch=1',
    'generate, --precision=bf16': GENERATE + 'half --frames=8 --precision=bf16',
    'generate of a picture': GENERATE + 'subject --frames=1 --batch=1 --subject={folder}/frames/00000.png '
                                        '--encoder={folder}/encoder.pkl',
    'show live': 'play_video.py {snapshot} --outdir={folder}/live --port=0 --directions=0 {never}',
    'paste': 'paste_video.py --data={folder}/encoded.zip --dest={folder}/pasted --overwrite',
    'preview of codes': 'latents_tool.py preview --data={folder}/coded.zip --outdir={folder}/previews',
    'page of a run': 'report_video.py --run={run} --dest={folder}/page.html --videos=16 --depths=0,30 --clips=1 '
                     '--clip-seconds=0.2',
    'measure codes': MEASURE + '{snapshot} --data={folder}/codes.zip --metrics=lfd2048_25f',
    'measure videos, fvd2_10f': MEASURE + '{snapshot} --data={folder}/codes.zip --metrics=fvd2_10f --real-clips=spread '
                                '--bootstrap=0 --no-cache',
    'measure videos, lpips_alex': MEASURE + '--fake={folder}/frames --real={folder}/frames --metrics=lpips_alex_2f --pairs=order',
}  # fmt: skip


def make_inputs(folder: pathlib.Path, resolution: int, frames: bool) -> None:
    """Generator, encoder, frames that codes render to, data sets, a snapshot of an untrained model; where they are missing."""
    import PIL.Image
    import torch

    from networks import checkpoints, stylegan2
    from networks.latent_generator import LatentGenerator
    from networks.w_encoder import WEncoder
    from training import temporal_snapshot
    from training.latents.dataset import LatentDataset, LatentDatasetWriter
    from training.videos.synthesis import render_codes

    if (folder / 'snapshot.pkl').is_file() and (not frames or (folder / 'frames' / f'{FRAMES - 1:05d}.png').is_file()):
        return
    torch.manual_seed(0)
    channels = {'channel_base': 32768 if resolution >= 512 else 16384, 'channel_max': 512}
    G: Any = stylegan2.Generator(512, 0, 512, resolution, 3, synthesis_kwargs={**channels, 'conv_clamp': 256})
    G.eval().requires_grad_(False)
    path = str(folder / 'generator.pkl')
    checkpoints.save_module_pickle(path, {'G': G, 'D': None, 'G_ema': G})
    reference = checkpoints.image_generator_reference(path, G)
    encoder = WEncoder(num_ws=G.num_ws, w_dim=G.w_dim, img_resolution=resolution)
    encoder.set_code_statistics(G.mapping.w_avg, torch.eye(512))
    checkpoints.save_module_pickle(str(folder / 'encoder.pkl'), {'encoder': encoder.eval().requires_grad_(False)})
    with torch.no_grad():
        ends = G.mapping(torch.randn(2, 512), None)
    codes = torch.stack([torch.lerp(ends[0], ends[1], float(part)) for part in np.sin(np.arange(CODES) / 5) / 2 + 0.5])
    (folder / 'frames').mkdir(exist_ok=True)
    for index, frame in enumerate(render_codes(G, codes[: FRAMES if frames else 0], batch=1)):
        PIL.Image.fromarray(frame).save(folder / 'frames' / f'{index:05d}.png')
    for name, length in (('codes', CODES), ('coded', FRAMES)):
        target = folder / f'{name}.zip'
        target.unlink(missing_ok=True)
        with LatentDatasetWriter(
            str(target), image_generator=reference, num_ws=G.num_ws, w_dim=G.w_dim, embedding={'method': 'benchmark'}
        ) as writer:
            writer.add_clip('clip', codes[:length].numpy(), fps=25.0, source=str(folder / 'frames'))
            writer.finish()
    L = LatentGenerator(G.num_ws, G.w_dim, num_components=16)
    L.set_data_basis(codes.flatten(1).mean(dim=0), torch.randn(16, G.num_ws * G.w_dim) * 0.01)
    with LatentDataset(str(folder / 'codes.zip')) as dataset:
        temporal_snapshot.save_snapshot(
            str(folder / 'snapshot.pkl'), G=L, G_ema=L, C=L, image_generator=reference,
            data=temporal_snapshot.describe_dataset(dataset), training_options={}, progress={},
        )  # fmt: skip


def run(words: list[str], log: pathlib.Path) -> tuple[int, float, float]:
    """Exit code, peak in MiB, and seconds of processor time of a command."""
    with log.open('wb') as output:
        process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == 'darwin' else 1024
    return process.returncode, usage.ru_maxrss * unit / 2**20, usage.ru_utime + usage.ru_stime


# fmt: off
@click.command()
@click.option('--resolution', help='Of the image generator', metavar='INT', default=1024, show_default=True)
@click.option('--folder',     help='Where inputs and results go', metavar='DIR', required=True)
@click.option('--results',    help='File that gets a line of JSON for each command', metavar='FILE', required=True)
@click.option('--only',       help='Only commands with this in their name', metavar='TEXT', default='')
@click.option('--inputs',     is_flag=True, hidden=True)
def main(resolution: int, folder: str, results: str, only: str, inputs: bool) -> None:
    """Print a table of peaks."""
    place = pathlib.Path(folder).resolve()
    place.mkdir(parents=True, exist_ok=True)
    (place / 'logs').mkdir(exist_ok=True)
    done = {}
    if os.path.isfile(results):
        with open(results, encoding='utf-8') as file:
            done = {entry['name']: entry for entry in map(json.loads, file)}
    chosen = {name: text for name, text in COMMANDS.items() if name not in done and only in name}
    if inputs:
        make_inputs(place, resolution, any('{folder}/frames' in text or 'coded.zip' in text for text in chosen.values()))
        return
    # In a process of its own: what a process holds when it starts another one counts as the other's, too.
    subprocess.run([sys.executable, __file__, f'--resolution={resolution}', *sys.argv[1:], '--inputs'], check=True)
    for number, (name, text) in enumerate(COMMANDS.items()):
        if name not in chosen:
            continue
        run_dir = max((place / 'runs').glob('*/'), default=place / 'runs')
        words = text.format(
            folder=place, resolution=resolution, network=f'--network={place}/generator.pkl',
            snapshot=f'--network={place}/snapshot.pkl', run=run_dir, never=NEVER,
        ).split()
        begin = time.time()
        log = place / 'logs' / f'{number:02d}.txt'
        code, peak, seconds = run(words, log)
        entry = {'name': name, 'exit_code': code, 'peak_mib': round(peak), 'processor_seconds': round(seconds, 1)}
        if code:
            print(f'{name}: exit code {code}, see {log}', file=sys.stderr)
            continue
        done[name] = entry
        with open(results, 'a', encoding='utf-8') as file:
            file.write(json.dumps(entry) + '\n')
        print(f'{name}: {peak:.0f} MiB, {seconds:.1f} s of {time.time() - begin:.0f} s', file=sys.stderr, flush=True)
    print(f'| command at {resolution}x{resolution} | peak, MiB | processor, s |\n|---|---|---|')
    for name in COMMANDS:
        if name in done:
            print(f'| {name} | {done[name]["peak_mib"]} | {done[name]["processor_seconds"]} |')
# fmt: on


if __name__ == '__main__':
    main()
