"""What play_video.py does once its options are read: check them, open the networks, serve until it is ended."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import secrets
import types
import webbrowser
from collections.abc import Callable
from typing import TYPE_CHECKING

from networks.errors import InputError
from training.commands import command_line
from training.runs.locks import Lock

if TYPE_CHECKING:
    from training.live.server import LiveServer

SHORTEST_TOKEN = 16


def check_options(options: types.SimpleNamespace) -> None:
    """Refuse options that contradict each other, before anything is loaded.

    Raises:
        InputError: one sentence.
    """
    if options.force_image_network and not options.image_network:
        raise InputError('--force-image-network needs --image-network, the file to take')
    if options.transfer_data and options.transfer != 'regression':
        raise InputError('--transfer-data is what --transfer=regression learns from; add that, or leave it out')
    if options.token is not None and not re.fullmatch(rf'[A-Za-z0-9_-]{{{SHORTEST_TOKEN},200}}', options.token, re.ASCII):
        raise InputError(f'--token: give at least {SHORTEST_TOKEN} letters and digits, which nobody can guess, or leave it out')
    if importlib.util.find_spec('aiohttp') is None:
        raise InputError('the live view needs the Python package aiohttp; pip install aiohttp installs it')


def play(options: types.SimpleNamespace) -> None:
    """Carry out play_video.py; `options` has its arguments as attributes."""
    check_options(options)
    from training.live.server import Address, LiveServer  # here: aiohttp, which need not be installed for anything else
    from training.live.session import LiveSession

    address = Address(options.host, options.port, options.token or '', tuple(options.allow_host))
    if not address.is_loopback and not address.token:
        address = Address(options.host, options.port, secrets.token_urlsafe(24), address.names)
    session = LiveSession(options)
    server = LiveServer(session, address, max_viewers=options.max_viewers, idle_seconds=60 * options.idle_minutes)

    def ready(url: str) -> None:
        command_line.report(f'The live view is at {url}  (Ctrl-C ends it)')
        if options.open_page:
            webbrowser.open(url)

    with Lock(os.path.join(session.outdir, '.live.lock'), f'--outdir: {session.outdir}'):
        serve(server, ready)
    command_line.report(f'The live view has ended; what was recorded and saved is in {session.outdir}')


def serve(server: LiveServer, ready: Callable[[str], None]) -> None:
    """Run the server in this thread until it is ended."""
    asyncio.run(server.serve(ready))
