"""Work on one thing after another in a thread of its own, while the next ones are made."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar('Item')

POLL = 0.2  # seconds after which a waiting producer looks whether the thread has failed
PATIENCE = 10.0  # seconds for what is being worked on when the block is left by an error


class Background(Generic[Item]):
    """Calls `work` on every item in order, in a thread; used as a context manager.

    What goes wrong there is raised here, by the next `put` or `flush` or at the end of the block. When the block is left by an
    error or Ctrl-C, what is waiting is dropped.

    Args:
        work: What is done with an item.
        room: Items that may wait; `put` waits for a place.
    """

    def __init__(self, work: Callable[[Item], None], room: int) -> None:
        self._work = work
        self._waiting: queue.Queue[Item | None] = queue.Queue(max(room, 1))
        self._error: BaseException | None = None
        self._dropped = threading.Event()
        self._thread = threading.Thread(target=self._run, name='background', daemon=True)

    def _run(self) -> None:
        while True:
            item = self._waiting.get()
            try:
                if item is None:
                    return
                if self._error is None and not self._dropped.is_set():
                    self._work(item)
            except BaseException as error:  # noqa: BLE001 - raised where it is seen
                self._error = error
            finally:
                self._waiting.task_done()

    def put(self, item: Item) -> None:
        """Hand an item over."""
        while True:
            self._check()
            with contextlib.suppress(queue.Full):
                self._waiting.put(item, timeout=POLL)
                return

    def flush(self) -> None:
        """Wait until all items are done."""
        with self._waiting.all_tasks_done:
            while self._waiting.unfinished_tasks:
                self._waiting.all_tasks_done.wait(POLL)  # with a limit, so that Ctrl-C comes through
        self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Background[Item]:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            try:
                self.flush()
            finally:
                self._waiting.put(None)
                self._thread.join()
            return
        self._dropped.set()
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
                self._waiting.task_done()
        self._waiting.put(None)
        self._thread.join(PATIENCE)  # whoever owns what it hangs on ends that next
