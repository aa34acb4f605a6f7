"""What a live view costs: frames per second that reach viewers, memory over time, and the processor with and without viewers.

    python benchmarks/live_view.py --network=training-runs/00000-alice --minutes=5 --viewers=2 --slow=1

Starts play_video.py and visits it as pages do: `--viewers` draw every frame, `--slow` ones take half a second for each. Then all
leave, and the processor time of ten seconds with nobody there is measured. Prints one JSON line an interval and one at the end.
"""

import asyncio
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from typing import Any

import click
import psutil

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from training.commands import command_line

ALONE_SECONDS = 10.0


async def visit(session: Any, base: str, seconds: float, pause: float, seen: list[float]) -> None:
    """One page: draws frames until the time is over, each `pause` seconds long."""
    async with session.ws_connect(f'{base}/stream', headers={'Origin': base}) as stream:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            message = await stream.receive(timeout=60)
            if isinstance(message.data, bytes):
                await asyncio.sleep(pause)
                seen.append(time.monotonic())
                await stream.send_json({'type': 'drawn', 'number': int.from_bytes(message.data[:4], 'big')})


async def measure(base: str, process: psutil.Process, minutes: float, viewers: int, slow: int) -> None:
    """Visit the view that runs and print what it costs."""
    import aiohttp

    seen: list[list[float]] = [[] for _ in range(viewers + slow)]
    seconds = 60 * minutes
    async with aiohttp.ClientSession() as session:
        visits = [
            asyncio.create_task(visit(session, base, seconds, 0.0 if index < viewers else 0.5, seen[index]))
            for index in range(viewers + slow)
        ]
        intervals = 10
        for index in range(intervals):
            before, began = sum(process.cpu_times()[:2]), time.monotonic()
            await asyncio.sleep(seconds / intervals)
            length = time.monotonic() - began
            frames = [sum(moment >= began for moment in moments) / length for moments in seen]
            print(
                json.dumps(
                    {
                        'minute': round((index + 1) * minutes / intervals, 2),
                        'fps_of_viewers': [round(rate, 2) for rate in frames[:viewers]],
                        'fps_of_slow_ones': [round(rate, 2) for rate in frames[viewers:]],
                        'megabytes': round(process.memory_info().rss / 2**20, 1),
                        'threads': process.num_threads(),
                        'files': process.num_fds(),
                        'processor': round((sum(process.cpu_times()[:2]) - before) / length, 3),
                    }
                ),
                flush=True,
            )
        await asyncio.gather(*visits)
    await asyncio.sleep(2)
    before = sum(process.cpu_times()[:2])
    await asyncio.sleep(ALONE_SECONDS)
    alone = (sum(process.cpu_times()[:2]) - before) / ALONE_SECONDS
    print(json.dumps({'processor_with_nobody_there': round(alone, 4), 'load_of_the_machine': psutil.getloadavg()[0]}))


@command_line.command()
@click.option('--network', help='Snapshot or run folder', metavar='PKL|DIR', required=True)
@click.option('--minutes', help='Length of the visits', metavar='FLOAT', type=command_line.POSITIVE_FLOAT, default=5)
@click.option('--viewers', help='Pages that draw every frame', metavar='INT', type=command_line.POSITIVE_INT, default=2)
@click.option(
    '--slow', help='Pages that take half a second for a frame', metavar='INT', type=command_line.NON_NEGATIVE_INT, default=1
)
@click.option('--fps', help='Rate that is asked for', metavar='FLOAT', type=command_line.POSITIVE_FLOAT, default=25)
@command_line.clear_errors
def main(network: str, minutes: float, viewers: int, slow: int, fps: float) -> None:
    """Measure a live view."""
    root = pathlib.Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [
                sys.executable,
                str(root / 'play_video.py'),
                f'--network={network}',
                f'--outdir={folder}',
                '--port=0',
                f'--fps={fps:g}',
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            base = None
            for line in process.stderr:
                if match := re.search(r'(http://[^ ]+)/  ', line):
                    base = match[1]
                    break
            if base is None:
                raise command_line.UserMistake('play_video.py did not start; run it by itself to see why')
            asyncio.run(measure(base, psutil.Process(process.pid), minutes, viewers, slow))
        finally:
            process.terminate()
            process.wait()


if __name__ == '__main__':
    main()
