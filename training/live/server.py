"""The server behind the page of play_video.py: who may look, frames out, wishes in.

Frames go through a WebSocket, and each viewer says when it has drawn one. Who has not drawn the last `AHEAD` frames gets no more
until then, and later the newest one, so that a slow viewer sees fewer frames and none that is old, and nothing is queued for it.
Who has drawn nothing for `STALLED` seconds, or whose page is hidden, does not count as looking; the stage stops when nobody does.

A browser lets every page of the web talk to 127.0.0.1. So a request has to name this server as its host (against domains that are
pointed at this machine), and a WebSocket has to come from this server's own page. Beyond 127.0.0.1 a token is needed as well.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import hmac
import ipaddress
import json
import os
import signal
import socket
import struct
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import WSCloseCode, WSMsgType, web

from networks.errors import InputError
from training.commands import stop_signals
from training.live.stage import Frame, Listeners, Stage

AHEAD = 2  # frames that a viewer may have and not have drawn: one on its way while the other is drawn
STALLED = 5.0  # seconds
LONGEST_MESSAGE = 4096  # bytes of a wish
PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'page')
PAGE_FILES = {
    '/': ('index.html', 'text/html'),
    '/style.css': ('style.css', 'text/css'),
    '/script.js': ('script.js', 'text/javascript'),
}
SECURITY = {
    'Content-Security-Policy': "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cache-Control': 'no-store',
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Wishes(Protocol):
    """What viewers may ask for; training.live.session carries it out."""

    stage: Stage

    def choices(self) -> dict[str, Any]:
        """What the page offers: subjects, edits, ranges; plain values."""
        ...

    async def grant(self, wish: dict[str, Any]) -> dict[str, Any] | None:
        """Carry out a wish; an answer for the one who wished, or None. Raises ValueError, InputError or OSError."""
        ...


@dataclasses.dataclass(frozen=True)
class Address:
    """Where the server listens.

    Attributes:
        host: Name or number of an interface; '0.0.0.0' and '::' are all.
        port: 0 takes a free one.
        token: What a viewer has to know; '' lets everybody in who reaches the server.
        names: Further names that the server is called by, such as those of a proxy before it.
    """

    host: str = '127.0.0.1'
    port: int = 0
    token: str = ''
    names: tuple[str, ...] = ()

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == 'localhost'

    def allows(self, host: str) -> bool:
        """Whether a request may call the server this, 'NAME' or 'NAME:PORT'.

        Numbers cannot be taken over by somebody else's domain, so any of them will do where the server listens to all.
        """
        try:
            name = (urllib.parse.urlsplit(f'//{host}').hostname or '').rstrip('.')
        except ValueError:
            return False
        if name in {'localhost', self.host.lower(), *(each.lower() for each in self.names)}:
            return True
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(name).is_loopback or not self.is_loopback
        return not self.is_loopback and name == socket.gethostname().lower()

    def url(self, port: int) -> str:
        """What a person opens."""
        host = {'0.0.0.0': socket.gethostname(), '::': socket.gethostname()}.get(self.host, self.host)
        token = f'?token={urllib.parse.quote(self.token)}' if self.token else ''
        return f'http://{f"[{host}]" if ":" in host else host}:{port}/{token}'


class _Viewer:
    """One open page."""

    def __init__(self, stream: web.WebSocketResponse) -> None:
        self.stream = stream
        self.visible = True
        self.drawn_at = time.monotonic()
        self._sent = self._drawn = 0  # numbers of frames
        self._on_their_way = 0
        self._frame: Frame | None = None
        self._words: dict[str, Any] | None = None  # the newest status only
        self._answers: list[dict[str, Any]] = []
        self._woken = asyncio.Event()

    def offer(self, frame: Frame) -> None:
        """Have this frame sent if the viewer keeps up; it takes the place of one that waits."""
        self._frame = frame
        self._woken.set()

    def tell(self, status: dict[str, Any]) -> None:
        self._words = status
        self._woken.set()

    def answer(self, answer: dict[str, Any]) -> None:
        if len(self._answers) < 20:  # who asks without reading gets no more
            self._answers.append(answer)
            self._woken.set()

    def drew(self, number: Any) -> None:
        """Note that the viewer has drawn a frame."""
        if isinstance(number, int) and self._drawn < number <= self._sent:
            self._drawn = number
            self._on_their_way = max(0, self._on_their_way - 1) if number < self._sent else 0
            self.drawn_at = time.monotonic()
            self._woken.set()

    def looks(self) -> bool:
        return self.visible and (self._on_their_way < AHEAD or time.monotonic() - self.drawn_at < STALLED)

    async def send(self) -> None:
        """Send what there is to send, until the connection ends."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._answers:
                await self.stream.send_json(self._answers.pop(0))
            if self._words is not None:
                words, self._words = self._words, None
                await self.stream.send_json(words)
            if self._frame is not None and self._on_their_way < AHEAD and self.visible:
                frame, self._frame = self._frame, None
                self._sent = frame.number
                self._on_their_way += 1
                await self.stream.send_bytes(struct.pack('>I', frame.number) + frame.picture)


class LiveServer:
    """Page, stream and files.

    Args:
        wishes: What viewers may ask for, with the stage.
        address: Where, and who is let in.
        max_viewers: Open pages at a time.
        idle_seconds: End when nobody has looked for so long; 0 never does.
    """

    def __init__(self, wishes: Wishes, address: Address, *, max_viewers: int, idle_seconds: float = 0.0) -> None:
        self.wishes, self.address = wishes, address
        self.stage = wishes.stage
        self._max_viewers, self._idle_seconds = max_viewers, idle_seconds
        self._viewers: set[_Viewer] = set()
        self._texts = {}
        for path, (name, kind) in PAGE_FILES.items():
            with open(os.path.join(PAGE, name), encoding='utf-8') as file:
                self._texts[path] = (file.read(), kind)

    # ----------------------------------------------------------------------------
    # Requests.

    def application(self) -> web.Application:
        """What aiohttp serves."""
        application = web.Application(middlewares=[self._guard], client_max_size=LONGEST_MESSAGE)
        for path in self._texts:
            application.router.add_get(path, self._page)
        application.router.add_get('/stream', self._stream)
        application.router.add_get('/files/{name}', self._file)
        return application

    @web.middleware  # type: ignore[untyped-decorator,unused-ignore]
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = self._refusal(request)
        if refusal is not None:
            response: web.StreamResponse = web.Response(status=403, text=refusal)
        elif self.address.token and request.path == '/' and 'token' in request.query:
            # Out of the address at once, which browsers keep and show.
            response = web.Response(status=303, headers={'Location': '/'})
            response.set_cookie(self._cookie(request), self.address.token, httponly=True, samesite='Lax', path='/')
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = web.Response(status=error.status, text=error.reason)
        if not response.prepared:
            response.headers.update(SECURITY)
        return response

    @staticmethod
    def _cookie(request: web.Request) -> str:
        """Cookies belong to a host, whatever its port: two live views must not overwrite each other's."""
        transport = request.transport
        port = transport.get_extra_info('sockname')[1] if transport is not None else 0
        return f'stylevideogan-{port}'

    def _refusal(self, request: web.Request) -> str | None:
        """Why a request is refused, or None."""
        if not self.address.allows(request.host):
            return 'This server is not called that; open the address that play_video.py printed, or name it with --allow-host.'
        origin = request.headers.get('Origin')
        if request.path == '/stream' and (origin is None or not self._is_own(origin, request.host)):
            return 'Only the page of this server may open its stream.'
        if self.address.token:
            given = request.query.get('token') or request.cookies.get(self._cookie(request), '')
            if not hmac.compare_digest(given.encode(), self.address.token.encode()):
                return 'This live view needs its token: open the whole address that play_video.py printed.'
        return None

    @staticmethod
    def _is_own(origin: str, host: str) -> bool:
        return origin.partition('://')[0] in ('http', 'https') and origin.partition('://')[2].lower() == host.lower()

    async def _page(self, request: web.Request) -> web.Response:
        text, kind = self._texts[request.path]
        return web.Response(text=text, content_type=kind, charset='utf-8')

    async def _file(self, request: web.Request) -> web.StreamResponse:
        path = self.stage.files.get(request.match_info['name'])
        if path is None or not os.path.isfile(path):
            return web.Response(status=404, text='There is no such file.')
        return web.FileResponse(path, headers={'Content-Disposition': f'attachment; filename="{os.path.basename(path)}"'})

    # ----------------------------------------------------------------------------
    # The stream.

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if len(self._viewers) >= self._max_viewers:
            return web.Response(status=503, text=f'{self._max_viewers} pages look already; close one, or see --max-viewers.')
        stream = web.WebSocketResponse(heartbeat=20, max_msg_size=LONGEST_MESSAGE, compress=False)
        await stream.prepare(request)
        viewer = _Viewer(stream)
        self._viewers.add(viewer)
        viewer.answer({'type': 'choices', **self.wishes.choices()})
        if self.stage.latest is not None:
            viewer.offer(self.stage.latest)
        sender = asyncio.create_task(viewer.send())
        self._count()
        self._tell_everybody()
        try:
            async for message in stream:
                if message.type != WSMsgType.TEXT or sender.done():
                    break
                await self._hear(viewer, message.data)
        finally:
            self._viewers.discard(viewer)
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sender
            self._count()
            self._tell_everybody()
        return stream

    async def _hear(self, viewer: _Viewer, text: str) -> None:
        try:
            wish = json.loads(text, parse_constant=_refuse_constant)
            kind = wish.get('type') if isinstance(wish, dict) else None
            if kind == 'drawn':
                viewer.drew(wish.get('number'))
            elif kind == 'visible':
                viewer.visible = wish.get('visible') is True
                self._count()
            else:
                answer = await self.wishes.grant(wish if isinstance(wish, dict) else {})
                if answer is not None:
                    viewer.answer(answer)
        except (ValueError, InputError, OSError, RecursionError) as error:
            viewer.answer({'type': 'error', 'text': ' '.join(str(error).split())[:300]})

    def _count(self) -> None:
        """Tell the stage how many look."""
        self.stage.look(sum(viewer.looks() for viewer in self._viewers))

    def _tell_everybody(self) -> None:
        """Have the stage tell how things stand, as it does after every task."""
        self.stage.submit(lambda: None)

    def _status(self, status: dict[str, Any]) -> dict[str, Any]:
        return {'type': 'status', 'viewers': len(self._viewers), **status}

    def _everybody(self, call: Callable[[_Viewer], None]) -> None:
        for viewer in self._viewers:
            call(viewer)

    # ----------------------------------------------------------------------------
    # Running.

    async def serve(self, ready: Callable[[str], None]) -> None:
        """Serve until a signal asks for an end, or nobody has looked for the idle time.

        Args:
            ready: Called with the address to open, once it can be.

        Raises:
            InputError: the port is taken, or the host is not one of this machine.
        """
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        self.stage.listeners = Listeners(
            frame=lambda frame: _hand_on(loop, self._everybody, lambda viewer: viewer.offer(frame)),
            status=lambda status: _hand_on(loop, self._everybody, lambda viewer: viewer.tell(self._status(status))),
        )
        runner = web.AppRunner(self.application(), access_log=None, shutdown_timeout=2)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self.address.host, self.address.port)
            try:
                await site.start()
            except (OSError, OverflowError) as error:
                raise InputError(
                    f'cannot listen on {self.address.host}, port {self.address.port} ({getattr(error, "strerror", error)}); '
                    'choose another --port (0 takes a free one) or --host'
                ) from error
            with _signals(loop, stop), concurrent.futures.ThreadPoolExecutor(1, 'stage') as executor:
                playing = loop.run_in_executor(executor, self.stage.run)
                watching = asyncio.create_task(self._watch(stop))
                try:
                    ready(self.address.url(runner.addresses[0][1]))
                    waiting = asyncio.create_task(stop.wait())
                    ends: list[asyncio.Future[Any]] = [playing, waiting, watching]
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                    waiting.cancel()
                finally:
                    watching.cancel()
                    self.stage.close()
                    await playing
        finally:
            for viewer in list(self._viewers):
                with contextlib.suppress(ConnectionError):
                    await viewer.stream.close(code=WSCloseCode.GOING_AWAY, message=b'the live view has ended')
            await runner.cleanup()

    async def _watch(self, stop: asyncio.Event) -> None:
        """Notice every second who has stopped looking, and how long nobody has looked."""
        looked = time.monotonic()
        while not stop.is_set():
            await asyncio.sleep(min(1.0, self._idle_seconds / 2 or 1.0))
            self._count()
            if any(viewer.looks() for viewer in self._viewers):
                looked = time.monotonic()
            elif self._idle_seconds and time.monotonic() - looked > self._idle_seconds:
                stop.set()


def _refuse_constant(name: str) -> Any:
    raise ValueError(f'{name} is no number that can be used')


def _hand_on(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(call, *arguments)


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> Any:
    """Let Ctrl-C and its like set `stop`; the loop looks at them, so nothing is torn out of its middle."""
    with stop_signals.left_alone():
        handled = []
        for number in stop_signals.SIGNALS:
            if number == getattr(signal, 'SIGHUP', None) and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # Windows; not the main thread
                loop.add_signal_handler(number, stop.set)
                handled.append(number)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)
