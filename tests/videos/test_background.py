"""Work in the background: order, bounds, errors on both sides, and what generate_video.py leaves when the disk is full."""

import threading
import time

import pytest

from training.videos import background
from training.videos.background import Background


def test_order_and_flush():
    done = []
    with Background(done.append, 3) as work:
        for number in range(50):
            work.put(number)
        work.flush()
        assert done == list(range(50))
        work.put(50)
    assert done == list(range(51))


def test_does_not_run_ahead():
    gate, done = threading.Event(), []

    def slow(number):
        gate.wait(600)
        done.append(number)

    made = []
    with Background(slow, 2) as work:

        def produce():
            for number in range(6):
                work.put(number)
                made.append(number)

        producer = threading.Thread(target=produce)
        producer.start()
        time.sleep(0.3)
        assert len(made) <= 3  # one in work, two waiting
        gate.set()
        producer.join(600)
    assert done == list(range(6))


@pytest.mark.parametrize('where', ['put', 'flush', 'end'])
def test_its_error_is_raised(where, monkeypatch):
    monkeypatch.setattr(background, 'POLL', 0.01)
    done = []

    def fail(number):
        if number == 3:
            raise OSError(28, 'No space left on device')
        done.append(number)

    def use():
        with Background(fail, 2) as work:
            for number in range(1000 if where == 'put' else 6):
                work.put(number)
            if where == 'flush':
                work.flush()
                raise AssertionError('flush has to raise')

    with pytest.raises(OSError, match='No space left'):
        use()
    assert done == [0, 1, 2]


def test_an_error_of_the_maker_drops_what_waits():
    started, done = threading.Event(), []

    def slow(number):
        started.set()
        time.sleep(0.2)
        done.append(number)

    def use():
        with Background(slow, 10) as work:
            for number in range(10):
                work.put(number)
            started.wait(600)
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        use()
    assert done == [0]
    assert threading.active_count() == before
