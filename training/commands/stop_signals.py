"""Ctrl-C, SIGTERM and SIGHUP end a command in an orderly way; a second one ends it at once.

By default a signal raises `Stopped` wherever the main thread is. Work that is worth finishing first (the step of a training)
asks for a request instead: inside of `held()` signals are only noted, and inside of `at_once()` within it, where all that
counts is saved (metrics, pictures), they raise again. The main thread may be deep in a library that looks at no signals; a
second thread, which the system wakes, then ends the process when PATIENCE has passed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGHUP', 'SIGBREAK') if hasattr(signal, name)]
PATIENCE = 15.0  # seconds; clusters kill half a minute after they asked
ECHO_SECONDS = 5.0  # in which a rank takes the same signal for the same request


class Stopped(KeyboardInterrupt):
    """A signal asked for an end.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(f'signal {number}')
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell reports for this signal."""
        return 128 + self.number


class _State:
    asked: int | None = None  # signal that was noted
    asked_at: float = 0.0  # when it came
    handled_at: float = 0.0  # when Python last came to handle one
    hold = False  # only note them
    installed = False
    last_words: Callable[[], str] = staticmethod(lambda: '')  # of a process that has to end without its main thread
    told: Callable[[int], None] | None = None  # of signals that somebody else handles


_state = _State()


def asked() -> int | None:
    """The signal that asked for an end, as far as one came while signals were held; else None."""
    return _state.asked


def handled() -> None:
    """Say that the main thread came to handle a signal by itself."""
    _state.handled_at = time.monotonic()


def _handle(number: int, frame: FrameType | None) -> None:
    _state.handled_at = time.monotonic()
    if _state.asked is not None:
        # Who stops all processes of a job reaches a rank twice, because its launcher passes the signal on as well.
        if 'TORCHELASTIC_RUN_ID' in os.environ and _state.handled_at < _state.asked_at + ECHO_SECONDS:
            return
        os._exit(128 + number)
    _state.asked, _state.asked_at = number, _state.handled_at
    if not _state.hold:
        raise Stopped(number)


@contextlib.contextmanager
def handling(last_words: Callable[[], str] | None = None) -> Iterator[None]:
    """Handle the signals inside the block (main thread only; elsewhere Python allows no handler); blocks may be nested.

    Args:
        last_words: What is said where the process has to end without its main thread, such as the command that goes on.
    """
    if _state.installed or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    for number in SIGNALS:
        # nohup makes a command ignore SIGHUP, and that is what it is for.
        if number == getattr(signal, 'SIGHUP', None) and signal.getsignal(number) is signal.SIG_IGN:
            continue
        before[number] = signal.signal(number, _handle)
    _state.installed, _state.asked, _state.hold = True, None, False
    if last_words is not None:
        _state.last_words = last_words
    try:
        with _watching():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        _state.installed, _state.asked, _state.last_words = False, None, _State.last_words


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Note signals instead of raising; the block looks at `asked()` between its steps."""
    with handling(), _mode(hold=True):
        yield


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Inside of `held`: raise again, also for a signal that came before."""
    with _mode(hold=False):
        if _state.asked is not None:
            raise Stopped(_state.asked)
        yield


@contextlib.contextmanager
def left_alone(told: Callable[[int], None] | None = None) -> Iterator[None]:
    """Inside of `handling`: somebody else (torchrun, a server) handles the signals of this process in the block.

    Args:
        told: Is given the number of each signal that comes, in another thread and at once, whatever the main thread does.
    """
    before, _state.installed, _state.told = _state.installed, False, told
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        _state.installed, _state.told = before, None
        for number, handler in handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextlib.contextmanager
def _mode(*, hold: bool) -> Iterator[None]:
    before, _state.hold = _state.hold, hold
    try:
        yield
    finally:
        _state.hold = before


@contextlib.contextmanager
def _watching() -> Iterator[None]:
    """End the process when the main thread does not come to handle a signal."""
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)
    before = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(ours,), daemon=True, name='signals')
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        pythons.close()  # ends the thread
        watcher.join()


def _watch(woken: socket.socket) -> None:
    with woken:
        while numbers := woken.recv(16):
            if _state.told is not None:
                for came in numbers:
                    if came in SIGNALS:
                        _state.told(came)
                continue
            number = next((number for number in numbers if number in SIGNALS), None)
            if number is None:
                continue
            begin = time.monotonic()
            end = begin + PATIENCE
            while _state.handled_at < begin - 1 and time.monotonic() < end and _state.installed:
                time.sleep(0.1)
            if _state.handled_at < begin - 1 and _state.installed:
                with contextlib.suppress(OSError, ValueError):
                    name = signal.Signals(number).name
                    words = f'stopped in the middle of a long computation ({name}); what was saved before is whole'
                    sys.stderr.write('\n' + '\n'.join(filter(None, (words, _state.last_words().strip()))) + '\n')
                    sys.stderr.flush()
                os._exit(128 + number)
