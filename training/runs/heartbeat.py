"""Ranks that find each other and watch each other: when one dies or hangs, the others say so and stop within a minute.

Collective operations wait for every rank, and a rank may rightly wait for hours while another one computes. So their time-outs
are long, and a thread in each rank counts up a key of its own in the store of `torch.distributed` instead, and looks at those of
the others. A rank whose count stands still was killed, or its machine is gone or stopped.

That store outlives a restart by torchrun, with the addresses and counts that dead ranks have left in it. So the ranks of one
start agree on a word first (`meet`), below which they keep everything.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable

import torch

from networks.errors import RankLost

INTERVAL = 2.0  # seconds between two beats
LIMIT = 25.0  # seconds without a beat of a rank; torchrun takes up to 30 more to end one that hangs
MEETING_SECONDS = 600.0  # until all ranks of a start are there; each has imported torch and read its input by then


def meet(
    rank: int,
    num_ranks: int,
    store: torch.distributed.Store,  # type: ignore[name-defined,unused-ignore]
    seconds: float = MEETING_SECONDS,
) -> str:
    """Wait for all ranks of this start, and return a word that they have and no earlier start had.

    How often torchrun has restarted a rank (TORCHELASTIC_RESTART_COUNT) is no such word: launchers of several machines count for
    themselves. So every rank leaves a fresh greeting, and takes the word of rank 0 from an answer to this very greeting; rank 0
    answers greetings, those of dead ranks as well, until every rank has taken its word.

    Raises:
        RankLost: Some ranks have not come in time.
    """
    end, greeting = time.monotonic() + seconds, secrets.token_hex(8)
    folder = 'stylevideogan/meeting'
    if rank == 0:
        awaited, answered = set(range(1, num_ranks)), set()
        while awaited:
            for other in sorted(awaited):
                if store.check([f'{folder}/taken/{greeting}/{other}']):
                    awaited.remove(other)
                elif store.check([f'{folder}/greeting/{other}']):
                    theirs = store.get(f'{folder}/greeting/{other}').decode()
                    if theirs not in answered:
                        store.set(f'{folder}/answer/{theirs}', greeting)
                        answered.add(theirs)
            if awaited and time.monotonic() > end:
                names = ', '.join(str(other) for other in sorted(awaited)[:8])
                raise RankLost(f'of {num_ranks} ranks, these have not started within {seconds:.0f} seconds: {names}')
            time.sleep(0.05 if awaited else 0.0)
        return greeting
    store.set(f'{folder}/greeting/{rank}', greeting)
    while not store.check([f'{folder}/answer/{greeting}']):
        if time.monotonic() > end:
            raise RankLost(f'rank 0 of {num_ranks} has not started within {seconds:.0f} seconds')
        time.sleep(0.05)
    word = str(store.get(f'{folder}/answer/{greeting}').decode())
    store.set(f'{folder}/taken/{word}/{rank}', 'yes')
    return word


class Heartbeat:
    """Beats for this rank, and ends the process when another one stands still.

    Args:
        rank, num_ranks: Of this process.
        store: Where the counts are; used by the thread alone.
        limit: Seconds after which a rank counts as lost.
        lost: What is done then, in the thread; by default a sentence and the end of the process with code 1.
    """

    def __init__(
        self,
        rank: int,
        num_ranks: int,
        store: torch.distributed.Store,  # type: ignore[name-defined,unused-ignore]
        *,
        limit: float = LIMIT,
        interval: float = INTERVAL,
        lost: Callable[[str], None] | None = None,
    ) -> None:
        self._rank, self._num_ranks, self._store = rank, num_ranks, store
        self._limit, self._interval = limit, interval
        self._lost = end_process if lost is None else lost
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name='heartbeat')
        self._thread.start()

    def stop(self) -> None:
        """Say goodbye, so that the others do not miss this rank."""
        self._stop.set()
        self._thread.join(timeout=self._limit)

    def _run(self) -> None:
        now = time.monotonic()
        last = {rank: ('', now) for rank in range(self._num_ranks) if rank != self._rank}
        answered = before = now
        count = 0
        while not self._stop.wait(self._interval):
            now = time.monotonic()
            if now - before > self._interval + self._limit / 4:  # this process itself stood still: the others are not to blame
                last = {rank: (text, now) for rank, (text, _) in last.items()}
                answered = now
            before = now
            try:
                self._store.set(f'beat/{self._rank}', str(count := count + 1))
                for rank, (text, since) in last.items():
                    seen = self._store.get(f'beat/{rank}').decode() if self._store.check([f'beat/{rank}']) else ''
                    if seen != text:
                        last[rank] = (seen, now)
                    elif seen != 'done' and now - since > self._limit:
                        self._lost(f'rank {rank} of {self._num_ranks} has not answered for {now - since:.0f} seconds')
                        return
                answered = time.monotonic()
            except RuntimeError as error:  # torch's DistError and its kin: the store is gone, or does not answer
                if time.monotonic() - answered > self._limit:
                    self._lost(
                        'the process that holds the ranks together does not answer any more'
                        f' ({" ".join(str(error).split())[:80]})'
                    )
                    return
        with contextlib.suppress(RuntimeError):
            self._store.set(f'beat/{self._rank}', 'done')


def end_process(what: str) -> None:
    """Say what was lost, and leave; the main thread may be waiting for the lost rank forever."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f'\nError: {what}, so this process stops; the same command goes on from what was saved last\n')
        sys.stderr.flush()
    os._exit(1)


def connect_store(word: str) -> torch.distributed.Store:  # type: ignore[name-defined,unused-ignore]
    """A connection of its own to the store that the ranks share, below the word of their meeting."""
    store = torch.distributed.TCPStore(  # type: ignore[attr-defined,unused-ignore]
        os.environ['MASTER_ADDR'],
        int(os.environ['MASTER_PORT']),
        is_master=False,
        wait_for_workers=False,
        timeout=datetime.timedelta(seconds=LIMIT / 2),
    )
    return torch.distributed.PrefixStore(f'stylevideogan/{word}', store)  # type: ignore[attr-defined,unused-ignore]
