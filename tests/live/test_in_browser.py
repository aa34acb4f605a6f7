"""The page of the live view in a real browser, at the sizes of a phone and of a desk.

Needs playwright and a Chromium: `pip install playwright`, and CHROMIUM=/path/to/it where it is not on the path.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from networks import checkpoints
from networks.latent_generator import LatentGenerator
from training import temporal_snapshot

playwright = pytest.importorskip('playwright.sync_api', reason='pages are tried in a browser where playwright is installed')
CHROMIUM = os.environ.get('CHROMIUM') or shutil.which('chromium') or shutil.which('google-chrome')
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='there is no Chromium; CHROMIUM=/path/to/it names one')
PIXELS = "() => Array.from(document.getElementById('picture').getContext('2d').getImageData(0, 0, 16, 16).data)"
NUMBER = "() => Number(document.getElementById('picture').dataset.number || 0)"


@pytest.fixture(scope='module')
def address(tmp_path_factory: pytest.TempPathFactory, tiny_generator: pathlib.Path, root: pathlib.Path) -> Iterator[str]:
    """Of a live view that runs."""
    folder = tmp_path_factory.mktemp('live')
    torch.manual_seed(1)
    G = LatentGenerator(6, 8, latent_dim=6, noise_dim=5, hidden_dim=7)
    G.set_data_basis(0.5 * torch.randn(48), None, 1.0)
    reference = checkpoints.image_generator_reference(str(tiny_generator), checkpoints.load_generator(str(tiny_generator)))
    temporal_snapshot.save_snapshot(
        str(folder / 'network-snapshot-000001.pkl'), G=G, G_ema=G, C=G, image_generator=reference, training_options={},
        progress={}, data={'path': 'x.zip', 'sha256': '0' * 64, 'fps': 25.0},
    )  # fmt: skip
    words = ['--port=0', '--device=cpu', f'--network={folder}', f'--outdir={folder}/out']
    pytest.importorskip('aiohttp', reason='the live view needs aiohttp')
    process = subprocess.Popen([sys.executable, str(root / 'play_video.py'), *words], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        found = next(match[0] for line in process.stderr if (match := re.search(r'http://\S+', line)))
        yield found
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope='module')
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu'], timeout=240_000)
        yield launched
        launched.close()


def until(page: Any, condition: Any, seconds: float = 600.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, page.inner_text('body')
        time.sleep(0.1)


def open_page(browser: Any, address: str, width: int, height: int, phone: bool) -> tuple[Any, list[str]]:
    page = browser.new_context(viewport={'width': width, 'height': height}, is_mobile=phone, has_touch=phone).new_page()
    page.set_default_timeout(120_000)
    wrong: list[str] = []
    page.on('pageerror', lambda error: wrong.append(str(error)))
    page.on('requestfailed', lambda request: wrong.append(request.url))
    page.on('console', lambda message: wrong.append(message.text) if message.type == 'error' else None)
    page.goto(address)
    return page, wrong


def move(page: Any, slider: str, value: float) -> None:
    page.evaluate(
        '([id, value]) => { const s = document.getElementById(id); s.value = value; s.dispatchEvent(new Event("input")); }',
        [slider, value],
    )


def test_a_phone_and_a_desk_share_a_view(browser: Any, address: str) -> None:
    phone, wrong_there = open_page(browser, address, 390, 844, True)
    desk, wrong_here = open_page(browser, address, 1280, 800, False)
    for page in (phone, desk):
        until(page, lambda page=page: page.evaluate(NUMBER) > 3)
        assert not page.evaluate('() => document.documentElement.scrollWidth > innerWidth')
        assert page.evaluate("() => [...document.querySelectorAll('input, select')].every((each) => each.labels.length)")
    phone.tap('#pause')
    until(desk, lambda: desk.inner_text('#pause') == 'Play')
    time.sleep(1)
    before = phone.evaluate(PIXELS)
    assert desk.evaluate(PIXELS) == before
    move(desk, 'trunc', 0)
    until(phone, lambda: phone.evaluate(PIXELS) != before)  # the other one sees it
    until(phone, lambda: phone.input_value('#trunc') == '0')  # and its slider follows
    desk.click('#reset')
    until(phone, lambda: phone.evaluate(PIXELS) == before)
    desk.keyboard.press('.')
    until(desk, lambda: desk.evaluate(PIXELS) != before)
    desk.click('#save')
    until(desk, lambda: desk.is_visible('#command-box'))
    assert '--continue=' in desk.inner_text('#command')
    desk.click('#pause')
    desk.click('#record')
    until(desk, lambda: 'Stop (1' in desk.inner_text('#record'))
    desk.click('#record')
    until(phone, lambda: phone.locator('#files a').count() == 3)  # a state, a recording, and its state
    with desk.expect_download() as download:
        desk.click('#files a[href$=mp4]')
    assert download.value.suggested_filename == 'live-0001.mp4'
    phone.close()
    until(desk, lambda: desk.inner_text('#looking') == '')
    assert (wrong_there, wrong_here) == ([], [])
