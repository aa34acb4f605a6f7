"""The live view: what is seen can be made again, nobody waits for a slow viewer, and only those who may get in."""

import asyncio
import contextlib
import io
import json
import os
import pathlib
import shlex
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import click.testing
import numpy as np
import PIL.Image
import pytest
import torch

import generate_video
import play_video
from networks import checkpoints
from networks.latent_generator import LatentGenerator
from training import temporal_snapshot
from training.control.saved_state import is_saved_state, read_state, source_of
from training.generation.plan import Request, VideoPlan
from training.latents.code_files import read_codes
from training.live import run as live_run

aiohttp = pytest.importorskip('aiohttp', reason='the live view needs aiohttp')


@pytest.fixture(scope='module')
def snapshot(tmp_path_factory: pytest.TempPathFactory, tiny_generator: pathlib.Path) -> pathlib.Path:
    """A snapshot for tiny_generator: num_ws 6, w_dim 8."""
    torch.manual_seed(1)
    generator = LatentGenerator(6, 8, latent_dim=6, noise_dim=5, hidden_dim=7, burn_in=3)
    generator.set_data_basis(0.5 * torch.randn(48), None, 1.0)
    generator = generator.eval().requires_grad_(False)
    path = tmp_path_factory.mktemp('run') / 'network-snapshot-000001.pkl'
    reference = checkpoints.image_generator_reference(str(tiny_generator), checkpoints.load_generator(str(tiny_generator)))
    temporal_snapshot.save_snapshot(
        str(path), G=generator, G_ema=generator, C=generator, image_generator=reference, training_options={}, progress={},
        data={'path': 'latents.zip', 'sha256': '0' * 64, 'fps': 25.0},
    )  # fmt: skip
    return path


class View:
    """A live view that runs in a thread of its own."""

    def __init__(self, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.ready = threading.Event()
        self.server: Any = None
        self.loop: Any = None

        def serve(server: Any, ready: Any) -> None:
            async def work() -> None:
                self.server, self.loop = server, asyncio.get_running_loop()
                self.task = asyncio.current_task()

                def told(url: str) -> None:
                    self.url = url
                    ready(url)
                    self.ready.set()

                await server.serve(told)

            with contextlib.suppress(asyncio.CancelledError):
                asyncio.run(work())

        monkeypatch.setattr(live_run, 'serve', serve)
        self.result: Any = None
        self.thread = threading.Thread(target=self._run, args=(arguments,))
        self.thread.start()
        assert self.ready.wait(600) or not self.thread.is_alive()
        assert self.ready.is_set(), self.result.output

    def _run(self, arguments: list[str]) -> None:
        self.result = click.testing.CliRunner().invoke(play_video.main, arguments)
        self.ready.set()

    @property
    def base(self) -> str:
        return self.url.partition('?')[0].rstrip('/')

    def stop(self) -> Any:
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.task.cancel)
        self.thread.join(600)
        assert not self.thread.is_alive()
        return self.result


@contextlib.contextmanager
def live(monkeypatch: pytest.MonkeyPatch, snapshot: pathlib.Path, outdir: pathlib.Path, *arguments: str) -> Iterator[View]:
    view = View([f'--network={snapshot}', f'--outdir={outdir}', '--port=0', '--device=cpu', *arguments], monkeypatch)
    try:
        yield view
    finally:
        view.stop()


class Page:
    """What the page does, without a browser: hear everything, draw every frame."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.status: dict[str, Any] = {}
        self.others: list[dict[str, Any]] = []
        self.frames: list[tuple[int, np.ndarray]] = []
        self.draws = True

    async def hear(self, seconds: float = 600.0) -> Any:
        message = await asyncio.wait_for(self.stream.receive(), seconds)
        if message.type is aiohttp.WSMsgType.BINARY:
            (number,) = struct.unpack('>I', message.data[:4])
            assert message.data[4:6] == b'\xff\xd8'  # JPEG
            with PIL.Image.open(io.BytesIO(message.data[4:])) as image:
                self.frames.append((number, np.asarray(image)))
            if self.draws:
                await self.wish(type='drawn', number=number)
        elif message.type is aiohttp.WSMsgType.TEXT:
            words = json.loads(message.data)
            if words['type'] == 'status':
                self.status = words
            else:
                self.others.append(words)
        else:
            raise ConnectionError(message.type)
        return message

    async def wish(self, **words: Any) -> None:
        await self.stream.send_str(json.dumps(words))

    async def until(self, condition: Any, seconds: float = 600.0) -> None:  # the first picture may wait for a compiler
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.status, self.others, len(self.frames))
            await self.hear()

    async def answer(self, kind: str) -> dict[str, Any]:
        await self.until(lambda: any(each['type'] == kind for each in self.others))
        return next(self.others.pop(index) for index, each in enumerate(self.others) if each['type'] == kind)

    async def settled(self) -> np.ndarray:
        """The picture of a pause, after all wishes so far."""
        await self.wish(type='pause')
        await self.wish(type='pause')  # is carried out when the first one has shown its picture
        await self.wish(type='nothing')
        await self.answer('error')
        with contextlib.suppress(asyncio.TimeoutError):
            while True:
                await self.hear(0.5)
        return self.frames[-1][1]


@contextlib.asynccontextmanager
async def page(view: View, **headers: str) -> AsyncIterator[Page]:
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
        session.ws_connect(f'{view.base}/stream', headers={'Origin': view.base, **headers}) as stream,
    ):
        yield Page(stream)


# ----------------------------------------------------------------------------


def test_a_saved_state_goes_on_with_the_frames_that_would_have_come(
    monkeypatch: pytest.MonkeyPatch, snapshot: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Sliders, another subject and an edit hold; the command of the page makes the same pictures as the page shows next."""
    np.save(tmp_path / 'smile.npy', np.random.RandomState(0).randn(6, 8).astype(np.float32))

    async def use(view: View) -> tuple[dict[str, Any], list[torch.Tensor]]:
        async with page(view) as first:
            await first.until(lambda: len(first.frames) > 3)
            for name, value in (('trunc', 0.8), ('motion_scale', 1.3)):
                await first.wish(type='set', name=name, value=value)
            await first.wish(type='edit', index=0, value=1.5)
            await first.wish(type='edit', index=1, value=-0.5)  # the subject's own motion: its file is written
            await first.wish(type='subject', key='seed:7')
            await first.until(lambda: first.status.get('subject') == 'seed:7')
            await first.settled()
            await first.wish(type='save')
            saved = await first.answer('saved')
            codes = []
            for _ in range(3):
                count = len(first.frames)
                await first.wish(type='step')
                await first.until(lambda count=count: len(first.frames) > count)
                codes.append(view.server.stage.motion.again())
            return saved, codes

    with live(monkeypatch, snapshot, tmp_path / 'live', f'--edit={tmp_path}/smile.npy', '--directions=1') as view:
        saved, codes = asyncio.run(use(view))
    assert saved['name'] == 'state-0001.npz'
    words = shlex.split(saved['command'])
    assert words[:2] == ['python', 'generate_video.py']
    made = click.testing.CliRunner().invoke(generate_video.main, [*words[2:], '--frames=3', '--save-codes', '--device=cpu'])
    assert made.exit_code == 0, made.output
    assert 'going on exactly' in made.output
    again, _ = read_codes(str(tmp_path / 'live' / 'continued' / 'seed0000.npz'), num_ws=6, w_dim=8)
    assert np.array_equal(again, torch.cat(codes).numpy())
    line = json.loads((tmp_path / 'live' / 'live.jsonl').read_text())
    assert line['file'] == 'state-0001.npz'
    assert line['settings']['edits'] == [1.5, -0.5]


def test_a_recording_is_the_video_of_its_seed(
    monkeypatch: pytest.MonkeyPatch, snapshot: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """And is there for those who ask for it by its name; a view that ends finishes the one that runs."""

    async def use(view: View) -> bytes:
        async with page(view) as first:
            await first.settled()
            await first.wish(type='seed', seed=5)
            await first.wish(type='record', on=True)
            for _ in range(4):
                await first.wish(type='step')
            await first.wish(type='record', on=False)
            assert (await first.answer('recorded'))['name'] == 'live-0001.mp4'
            await first.until(lambda: first.status['recording'] is None)  # the answer may come before the status
            await first.wish(type='record', on=True)
            for _ in range(2):  # one frame is 0.0 seconds
                await first.wish(type='step')
            await first.until(lambda: first.status['recording'])
            async with aiohttp.ClientSession() as session:
                for name in ('%2e%2e%2flive.jsonl', 'live.jsonl', '..%2f..%2fetc%2fpasswd', 'live-0009.mp4'):
                    async with session.get(f'{view.base}/files/{name}') as response:
                        assert response.status == 404
                async with session.get(f'{view.base}/files/live-0001.mp4') as response:
                    assert response.status == 200
                    return await response.read()

    with live(monkeypatch, snapshot, tmp_path) as view:
        content = asyncio.run(use(view))
    assert content == (tmp_path / 'live-0001.mp4').read_bytes()
    assert content[4:8] == b'ftyp'
    assert (tmp_path / 'live-0002.mp4').exists()
    state = read_state(str(tmp_path / 'live-0001.npz'))
    assert (state.seed, state.frame) == (5, 5)  # frame 0 was shown while it stood still, then 1 to 4
    lines = [json.loads(line) for line in (tmp_path / 'live.jsonl').read_text().splitlines()]
    assert [(line['kind'], line['frames']) for line in lines] == [('recording', 4), ('recording', 2)]
    # A view that goes on from there shows the next frame first.
    snapshot_sha256 = checkpoints.file_sha256(str(snapshot))
    generator = checkpoints.load_snapshot(str(snapshot))['G_ema']
    plan = VideoPlan(generator, checkpoints.load_generator(state_network(snapshot)), Request(), fps=25.0, chunk=1)
    plain = plan.source(5)
    expected = torch.cat([plain.read(1) for _ in range(6)])[5]
    assert state.network_sha256 == snapshot_sha256
    assert torch.equal(source_of(generator, state, 'x').read(1)[0], expected)
    with live(monkeypatch, snapshot, tmp_path / 'more', f'--continue={tmp_path}/live-0001.npz') as view:
        asyncio.run(one_frame(view))
        assert view.server.stage.motion.seed == 5
        assert torch.equal(view.server.stage.motion._track._codes[1], expected) or view.server.stage.motion.frame > 5


def test_a_pause_before_the_first_frame_shows_it(
    monkeypatch: pytest.MonkeyPatch, snapshot: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """So a step shows the second one, however early somebody paused."""
    with live(monkeypatch, snapshot, tmp_path) as view:
        view.stop()
        stage = view.server.stage
        stage._closing = False  # it has not shown anything; another thread carries it on
        stage.look(1)
        paused = stage.submit(stage.pause)
        thread = threading.Thread(target=stage.run)
        thread.start()
        try:
            paused.result(600)
            stage.submit(stage.step).result(600)
            assert stage.motion.frame == 1
        finally:
            stage.close()
            thread.join(600)


def state_network(snapshot: pathlib.Path) -> str:
    return checkpoints.load_snapshot(str(snapshot))['image_generator']['path']


async def one_frame(view: View) -> None:
    async with page(view) as first:
        await first.wish(type='pause')
        await first.until(lambda: len(first.frames) > 0)


def test_sliders_change_the_next_frames_of_everybody(
    monkeypatch: pytest.MonkeyPatch, snapshot: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    async def use(view: View) -> None:
        async with page(view) as first, page(view) as second:
            before = await first.settled()
            assert np.array_equal(before, await second.settled())
            await second.wish(type='set', name='trunc', value=0.0)
            after = await second.settled()
            assert np.abs(after.astype(float) - before).mean() > 0.5
            assert np.array_equal(await first.settled(), after)  # though the other one asked
            assert first.status['trunc'] == 0
            assert first.status['viewers'] == 2
            await first.wish(type='set', name='trunc', value=1.0)
            assert np.array_equal(await first.settled(), before)  # the same moment
            for words in (
                {'type': 'set', 'name': 'trunc', 'value': 9},
                {'type': 'set', 'name': 'trunc', 'value': 'x'},
                {'type': 'set', 'name': '__class__', 'value': 1},
                {'type': 'set', 'name': ['trunc'], 'value': 1},
                {'type': 'seed', 'seed': -1},
                {'type': 'seed', 'seed': True},
                {'type': 'edit', 'index': -1, 'value': 1},
                {'type': 'edit', 'index': 99, 'value': 1},
                {'type': 'subject', 'key': '/etc/passwd'},
                {'type': 'subject', 'key': 'seed:7/../../x'},
                {'type': ['play']},
            ):
                await first.wish(**words)
                assert (await first.answer('error'))['text'], words
            for text in ('[1]', 'null', '{', '{"type": "set", "name": "trunc", "value": NaN}', '[' * 3000):
                await first.stream.send_str(text)
                assert (await first.answer('error'))['text'], text
            assert np.array_equal(await first.settled(), before)

    with live(monkeypatch, snapshot, tmp_path) as view:
        asyncio.run(use(view))


def test_nobody_looking_costs_nothing_and_slow_viewers_skip(
    monkeypatch: pytest.MonkeyPatch, snapshot: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    async def use(view: View) -> None:
        stage = view.server.stage
        await asyncio.sleep(0.5)
        assert stage.latest is None  # nobody has looked yet
        async with page(view) as slow, page(view) as quick:
            slow.draws = False
            await quick.until(lambda: len(quick.frames) > 20)
            with contextlib.suppress(asyncio.TimeoutError):
                while True:
                    await slow.hear(0.3)
            assert len(slow.frames) == 2  # no more until it has drawn them
            newest = quick.frames[-1][0]
            await slow.wish(type='drawn', number=slow.frames[-1][0])
            await slow.until(lambda: len(slow.frames) > 2)
            assert slow.frames[2][0] >= newest  # and then none that is old
            await slow.wish(type='visible', visible=False)
            await quick.wish(type='visible', visible=False)
            await asyncio.sleep(0.5)
            number = stage.latest.number
            await asyncio.sleep(0.5)
            assert stage.latest.number == number  # hidden pages
            await quick.wish(type='visible', visible=True)
            await quick.until(lambda: quick.frames[-1][0] > number)
        await asyncio.sleep(0.5)
        number = stage.latest.number
        await asyncio.sleep(0.5)
        assert stage.latest.number == number  # closed pages

    with live(monkeypatch, snapshot, tmp_path, '--fps=50') as view:
        asyncio.run(use(view))


def test_others_stay_outside(monkeypatch: pytest.MonkeyPatch, snapshot: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A domain that was pointed at this machine, a page of somebody else, nobody's token, too many."""

    async def status(url: str, **headers: str) -> int:
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers, allow_redirects=False) as response:
            assert 'default-src' in response.headers['Content-Security-Policy']
            return response.status

    async def stream_status(view: View, **headers: str) -> int:
        try:
            async with page(view, **headers):
                return 101
        except aiohttp.WSServerHandshakeError as error:
            return error.status

    async def without_token(view: View) -> None:
        port = view.base.rpartition(':')[2]
        assert view.url == f'http://127.0.0.1:{port}/'
        assert await status(f'{view.base}/') == 200
        assert await status(f'{view.base}/', Host=f'localhost:{port}') == 200
        assert await status(f'{view.base}/', Host='mine.example') == 200
        assert await status(f'{view.base}/', Host=f'evil.example:{port}') == 403
        assert await status(f'{view.base}/', Host='192.168.1.7') == 403
        assert await status(f'{view.base}/', Host='127.0.0.1.evil.example') == 403
        assert await status(f'{view.base}/script.js') == 200
        assert await status(f'{view.base}/server.py') == 404
        assert await stream_status(view) == 101
        assert await stream_status(view, Origin='http://evil.example') == 403
        assert await stream_status(view, Origin='null') == 403
        assert await stream_status(view, Host='evil.example', Origin='http://evil.example') == 403
        async with page(view), page(view):
            assert await stream_status(view) == 503

    with live(monkeypatch, snapshot, tmp_path / 'a', '--allow-host=mine.example', '--max-viewers=2') as view:
        asyncio.run(without_token(view))

    async def with_token(view: View) -> None:
        token = view.url.partition('?token=')[2]
        assert len(token) >= 32
        for path in ('/', '/script.js', '/files/x'):
            assert await status(view.base + path) == 403
        assert await status(f'{view.base}/?token={token[:-1]}x') == 403
        assert await stream_status(view) == 403
        assert await stream_status(view, Cookie='stylevideogan=x') == 403
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            async with session.get(f'{view.base}/?token={token}') as response:
                assert response.status == 200
                assert 'token' not in str(response.url)
            async with session.get(f'{view.base}/script.js') as response:
                assert response.status == 200
            async with session.ws_connect(f'{view.base}/stream', headers={'Origin': view.base}) as stream:
                assert json.loads((await stream.receive()).data)['type'] == 'choices'

    monkeypatch.setattr('socket.gethostname', lambda: '127.0.0.1')
    with live(monkeypatch, snapshot, tmp_path / 'b', '--host=0.0.0.0') as view:
        asyncio.run(with_token(view))


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--token=short'], 'at least 16'),
        (['--host=192.0.2.1'], 'cannot listen on 192.0.2.1'),
        (['--edit=none.npy:1'], "there is no file 'none.npy'"),
        (['--edit={direction}:0@0,1@9'], 'give one strength'),
        (['--edit={direction}:9'], 'between -5 and 5'),
        (['--continue={direction}'], 'no state'),
        (['--continue={foreign}'], 'another snapshot'),
        (['--transfer-data=x.zip'], '--transfer=regression'),
        (['--force-image-network'], 'needs --image-network'),
        (['--subject=none.jpg'], "there is no file or folder 'none.jpg'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], sentence: str, snapshot: pathlib.Path, foreign_state: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    np.save(tmp_path / 'direction.npy', np.zeros([6, 8], np.float32))
    filled = [word.format(direction=tmp_path / 'direction.npy', foreign=foreign_state) for word in arguments]
    result = click.testing.CliRunner().invoke(
        play_video.main, [f'--network={snapshot}', f'--outdir={tmp_path}/live', '--port=0', '--device=cpu', *filled]
    )
    assert result.exit_code == 2
    assert result.output.count('Error:') == 1
    assert sentence in result.output


@pytest.fixture
def foreign_state(snapshot: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A state of another snapshot; for generate_video.py it is a recording like any other."""
    from training.control.saved_state import SavedState, write_state
    from training.videos.code_sources import ModelSource

    generator = checkpoints.load_snapshot(str(snapshot))['G_ema']
    source = ModelSource(generator, 3)
    codes = source.read(9).numpy()
    path = tmp_path / 'foreign.npz'
    write_state(str(path), SavedState('0' * 64, 3, 9, source.state()), codes, 25.0)
    return path


def test_states_of_other_snapshots_are_recordings_and_damaged_ones_are_refused(
    snapshot: pathlib.Path, foreign_state: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    def generate(path: pathlib.Path, *arguments: str) -> Any:
        words = [f'--network={snapshot}', f'--outdir={tmp_path}/out', '--frames=2', '--seeds=1', '--format=png', '--device=cpu']
        return click.testing.CliRunner().invoke(generate_video.main, [*words, f'--continue={path}', *arguments])

    fitted = generate(foreign_state)
    assert fitted.exit_code == 0, fitted.output
    assert 'the model explains' in fitted.output
    assert 'would change the frame' in generate(foreign_state, '--trunc=0.5').output
    with np.load(foreign_state) as file:
        arrays = dict(file)
    plain = json.loads(str(arrays['state']))
    ours = checkpoints.file_sha256(str(snapshot))
    noise = plain['noise']
    broken = {
        'format': {**plain, 'format': 99},
        'noise': {**plain, 'network_sha256': ours, 'noise': {**noise, 'streams': [['MT19937', [1, 2], 0, 0, 0.0]]}},
        'no noise': {**plain, 'network_sha256': ours, 'noise': None},
        'seed': {**plain, 'network_sha256': ours, 'seed': -5},
        'text': 'x',
    }
    for name, state in broken.items():
        np.savez(tmp_path / 'broken.npz', **{**arrays, 'state': np.asarray(json.dumps(state))})
        result = generate(tmp_path / 'broken.npz')
        assert result.exit_code == 2, (name, result.output)
    for key, value in (('l', np.zeros([1, 9], np.float32)), ('memory0', np.full([1, 7], np.nan, np.float32))):
        np.savez(
            tmp_path / 'broken.npz', **{**arrays, 'state': np.asarray(json.dumps({**plain, 'network_sha256': ours})), key: value}
        )
        assert generate(tmp_path / 'broken.npz').exit_code == 2
    assert not is_saved_state(os.fspath(snapshot))
