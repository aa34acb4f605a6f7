"""networks/checkpoints as its callers use it: every way to a file, every kind of file, forks, and our own files."""

import functools
import http.server
import inspect
import io
import itertools
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

import dnnlib
from networks import checkpoints, latent_generator, stylegan2, temporal_critic, w_encoder
from networks.checkpoints import lazy_data
from networks.errors import InputError

SMALL = {'channel_base': 128, 'channel_max': 8}


def make_generator(**kwargs):
    torch.manual_seed(0)
    G = stylegan2.Generator(
        6,
        kwargs.pop('c_dim', 0),
        5,
        16,
        kwargs.pop('img_channels', 3),
        mapping_kwargs=kwargs.pop('mapping_kwargs', {'num_layers': 2}),
        synthesis_kwargs={**SMALL, **kwargs},
    )
    with torch.no_grad():
        for parameter in G.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return G.eval().requires_grad_(False)


def save(path, generator, **others):
    """A snapshot as NVIDIA's training loops write it: by pickle.dump."""
    data = {'G': generator, 'D': None, 'G_ema': generator, 'training_set_kwargs': {'path': 'x'}, 'augment_pipe': None}
    with open(path, 'wb') as file:
        pickle.dump({**data, **others}, file)
    return path


def picture(G):
    ws = torch.randn([2, G.num_ws, G.w_dim], generator=torch.Generator().manual_seed(3))
    return G.synthesis(ws, noise_mode='const', force_fp32=True)


@pytest.fixture
def snapshot(tmp_path):
    return save(tmp_path / 'network-snapshot-000000.pkl', make_generator())


# ----------------------------------------------------------------------------
# Ways to a file.


def test_content_decides_not_the_name(snapshot, tmp_path):
    for name in ('weights.pt', 'weights.safetensors', 'weights', 'picture.png'):
        other = shutil.copy(snapshot, tmp_path / name)
        assert torch.equal(picture(checkpoints.load_generator(other)), picture(make_generator()))


def test_path_text_and_open_file(snapshot):
    answer = picture(make_generator())
    with open(snapshot, 'rb') as file:
        for source in (snapshot, str(snapshot), file, io.BytesIO(snapshot.read_bytes())):
            G = checkpoints.load_generator(source)
            assert torch.equal(picture(G), answer)
            assert not G.training
            assert not any(parameter.requires_grad for parameter in G.parameters())


def test_url_is_downloaded_once_and_checked(snapshot, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('DNNLIB_CACHE_DIR', str(tmp_path / 'cache'))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(snapshot.parent))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f'http://127.0.0.1:{server.server_port}/{snapshot.name}'
    digest = checkpoints.file_sha256(snapshot)
    try:
        G = checkpoints.load_generator(url, sha256=digest)
    finally:
        server.shutdown()
        server.server_close()
    assert torch.equal(picture(G), picture(make_generator()))
    assert checkpoints.file_sha256(url) == digest  # From the cache: the server is gone.
    with pytest.raises(InputError, match='SHA-256'):
        checkpoints.load_generator(url, sha256='0' * 64)
    assert checkpoints.image_generator_reference(url, G) == {
        'path': url,
        'sha256': digest,
        'class_name': 'Generator',
        'init_kwargs': checkpoints.to_plain(G.init_kwargs),
    }


def test_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r'nothing\.pkl: there is no such file'):
        checkpoints.load_generator(tmp_path / 'nothing.pkl')
    with pytest.raises(InputError, match='folder'):
        checkpoints.load_generator(tmp_path)
    assert checkpoints.load_generator.__kwdefaults__['trust_pickle'] is False


# ----------------------------------------------------------------------------
# Every argument of the networks.


@pytest.mark.parametrize('activation', ['linear', 'relu', 'lrelu', 'tanh', 'sigmoid', 'elu', 'selu', 'softplus', 'swish'])
@pytest.mark.parametrize('architecture', ['skip', 'orig', 'resnet'])
def test_architectures_and_activations_come_back(tmp_path, architecture, activation):
    mapping_kwargs = {'num_layers': 1, 'activation': activation}
    G = make_generator(architecture=architecture, activation=activation, mapping_kwargs=mapping_kwargs)
    assert torch.equal(picture(checkpoints.load_generator(save(tmp_path / 'x.pkl', G))), picture(G))


@pytest.mark.parametrize(
    'kwargs',
    [
        {'use_noise': False},
        {'img_channels': 1},
        {'img_channels': 4},
        {'c_dim': 3},
        {'conv_clamp': 0.3},
        {'num_fp16_res': 2},
        {'num_fp16_res': 9, 'fp16_channels_last': True},
        {'resample_filter': [1, 2, 1]},
        {'resample_filter': [1, 1]},
        {'resample_filter': None},
        {'kernel_size': 1},
        {
            'mapping_kwargs': {
                'num_layers': 3,
                'embed_features': 4,
                'layer_features': 7,
                'lr_multiplier': 0.1,
                'w_avg_beta': 0.5,
            },
            'c_dim': 2,
        },
        {'mapping_kwargs': {'num_layers': 1, 'w_avg_beta': None}},
        {'fused_modconv_default': 'inference_only'},
    ],
    ids=str,
)
def test_arguments_come_back(tmp_path, kwargs):
    G = make_generator(**kwargs)
    ours = checkpoints.load_generator(save(tmp_path / 'x.pkl', G))
    assert torch.allclose(picture(ours), picture(G), atol=1e-6)  # Weights with the channels last are rearranged.
    z, c = torch.randn(2, 6), torch.eye(3)[:2, : G.c_dim]
    assert torch.equal(ours.mapping(z, c), G.mapping(z, c))
    assert ours.init_kwargs.get('img_channels', G.img_channels) == G.img_channels
    for name, module in G.named_modules():
        for attribute in ('use_fp16', 'channels_last', 'conv_clamp', 'w_avg_beta', 'num_ws', 'z_dim', 'c_dim', 'resolution'):
            assert getattr(ours.get_submodule(name), attribute, None) == getattr(module, attribute, None)


def test_what_scripts_changed_after_construction_counts(tmp_path):
    """Forks switch half precision off and clamps on in the loaded network, and pickle that."""
    G = make_generator(num_fp16_res=2)
    G.synthesis.b16.use_fp16 = False
    G.synthesis.b16.conv1.conv_clamp = 0.2
    G.synthesis.b8.torgb.weight_gain *= 3
    ours = checkpoints.load_generator(save(tmp_path / 'x.pkl', G))
    assert torch.equal(picture(ours), picture(G))
    assert ours.synthesis.b16.use_fp16 is False


def test_defaults_of_the_stylegan3_repository(tmp_path):
    """Its StyleGAN2 takes num_fp16_res=4 and conv_clamp=256 where nothing is given; ours writes what it took."""
    G = stylegan2.Generator(6, 0, 5, 16, 3, mapping_kwargs={'num_layers': 1}, num_fp16_res=4, conv_clamp=256, **SMALL)
    for name in ('num_fp16_res', 'conv_clamp'):
        del G._init_kwargs[name]
    ours = checkpoints.load_generator(save(tmp_path / 'x.pkl', G))
    assert ours.synthesis.b16.conv1.conv_clamp == 256
    assert ours.synthesis.b16.use_fp16


def test_half_precision_weights_become_single(tmp_path):
    """As tools that make files smaller write them."""
    G = make_generator().half()
    ours = checkpoints.load_generator(save(tmp_path / 'x.pkl', G))
    assert {value.dtype for value in ours.state_dict().values()} == {torch.float32}
    assert torch.equal(ours.synthesis.b8.conv0.weight, G.synthesis.b8.conv0.weight.float())


# ----------------------------------------------------------------------------
# Only what is needed.


def test_unused_entries_are_neither_read_nor_made(tmp_path, monkeypatch):
    G = make_generator()
    path = save(tmp_path / 'x.pkl', G, G=make_generator(), D=torch.nn.Linear(2000, 500), augment_pipe=torch.nn.Conv2d(3, 3, 1))
    read = []
    load = lazy_data.ByteSource.load

    def count(self, offset, length):
        read.append(length)
        return load(self, offset, length)

    monkeypatch.setattr(lazy_data.ByteSource, 'load', count)
    monkeypatch.setattr(torch.nn.Linear, '__init__', None)
    checkpoints.load_generator(path)
    weights = sum(value.numel() * value.element_size() for value in G.state_dict().values())
    assert weights <= sum(read) <= weights + 1000
    assert os.path.getsize(path) > 4_000_000


def test_weights_are_not_copied(snapshot):
    """One allocation for each tensor, filled from the file: the peak is the size of the network."""
    G = checkpoints.load_generator(snapshot)
    assert all(parameter.untyped_storage().nbytes() == parameter.nbytes for parameter in G.parameters())


# ----------------------------------------------------------------------------
# Forks.

FORK = """
import os, torch
from torch_utils import persistence

@persistence.persistent_class
class Generator(torch.nn.Module):
    def __init__(self, z_dim):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, 0, z_dim, 1
        self.img_resolution, self.img_channels = 4, 3
        self.mapping = torch.nn.Linear(z_dim, z_dim)
        self.synthesis = torch.nn.Linear(z_dim, 48)

    def forward(self, z, c=None):
        return self.synthesis(self.mapping(z)).reshape(-1, 3, 4, 4)

open(os.environ['CANARY'], 'w').close()
"""


@pytest.fixture
def fork(tmp_path, monkeypatch):
    """A pickle whose network source is its own; running that leaves the canary."""
    canary = tmp_path / 'canary'
    monkeypatch.setenv('CANARY', str(canary))
    (tmp_path / 'fork_networks.py').write_text(FORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__('fork_networks')
    path = save(tmp_path / 'fork.pkl', module.Generator(4).eval())
    sys.modules.pop('fork_networks')
    canary.unlink()
    return path, canary


def test_fork_is_refused_with_the_way_out_and_not_run(fork):
    path, canary = fork
    with pytest.raises(InputError, match=r'neither a StyleGAN2 nor a StyleGAN3.*not run.*--trust-pickle'):
        checkpoints.load_generator(path)
    assert not canary.exists()


def test_fork_runs_when_it_is_trusted(fork):
    path, canary = fork
    G = checkpoints.load_generator(path, trust_pickle=True)
    assert canary.exists()
    assert G(torch.zeros(1, 4)).shape == (1, 3, 4, 4)
    assert not G.training


def test_fork_that_changed_the_layers_is_refused(tmp_path):
    G = make_generator()
    G.synthesis.b16.conv1.activation = 'relu'
    with pytest.raises(InputError, match=r"synthesis.b16.conv1.activation = 'relu'.*--trust-pickle"):
        checkpoints.load_generator(save(tmp_path / 'x.pkl', G))
    assert checkpoints.load_generator(tmp_path / 'x.pkl', trust_pickle=True).synthesis.b16.conv1.activation == 'relu'


def test_a_trusted_program_that_fails_is_one_sentence(tmp_path):
    (tmp_path / 'x.pkl').write_bytes(b'\x80\x04cno_such_module\nThing\n)R.')
    with pytest.raises(InputError, match='running it failed: ModuleNotFoundError'):
        checkpoints.load_generator(tmp_path / 'x.pkl', trust_pickle=True)


# ----------------------------------------------------------------------------
# Our own files.


def temporal_snapshot(**changes):
    G = latent_generator.LatentGenerator(num_ws=6, w_dim=5, latent_dim=4, noise_dim=4, hidden_dim=4)
    C = temporal_critic.TemporalCritic(num_features=4)
    return {
        'format': 'stylevideogan-snapshot',
        'format_version': 1,
        'G': G,
        'G_ema': G,
        'C': C,
        'image_generator': {'path': '/data/faces.pkl', 'sha256': 'ab', 'class_name': 'Generator', 'init_kwargs': {}},
        'progress': dnnlib.EasyDict(cur_nframes=np.int64(5)),
        'training_options': {'lr': np.float32(0.5), 'data': pathlib.Path('a')},
        **changes,
    }


def test_temporal_snapshot_comes_back(tmp_path):
    data = temporal_snapshot()
    checkpoints.save_module_pickle(tmp_path / 'snapshot.pkl', data)
    S = checkpoints.load_snapshot(tmp_path / 'snapshot.pkl')
    assert list(S) == list(data)
    i, s = torch.randn(2, 4), torch.randn(2, 6, 4)
    assert torch.equal(S.G_ema(i, s), data['G_ema'](i, s))
    assert type(S.C) is temporal_critic.TemporalCritic
    assert S.progress.cur_nframes == 5
    assert S.training_options == {'lr': 0.5, 'data': 'a'}
    assert not any(parameter.requires_grad for parameter in S.G_ema.parameters())


def test_encoder_comes_back_and_remembers_defaults(tmp_path):
    E = w_encoder.WEncoder(6, 5, img_resolution=16, channel_base=64)
    checkpoints.save_module_pickle(tmp_path / 'encoder.pkl', {'encoder': E})
    ours = checkpoints.load_encoder(tmp_path / 'encoder.pkl')
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    assert torch.equal(ours(images), E.eval()(images))
    assert ours.init_kwargs.keys() >= set(inspect.signature(w_encoder.WEncoder.__init__).parameters) - {'self'}


def test_the_wrong_kind_of_file_is_named(tmp_path, snapshot):
    checkpoints.save_module_pickle(tmp_path / 's.pkl', temporal_snapshot())
    checkpoints.save_module_pickle(tmp_path / 'e.pkl', {'encoder': w_encoder.WEncoder(6, 5, img_resolution=16, channel_base=64)})
    for load, file, message in (
        (checkpoints.load_generator, 's.pkl', r"temporal model.*'/data/faces.pkl'"),
        (checkpoints.load_generator, 'e.pkl', 'it is an encoder'),
        (checkpoints.load_encoder, 's.pkl', 'not the encoder'),
        (checkpoints.load_encoder, snapshot.name, 'not the encoder'),
        (checkpoints.load_snapshot, 'e.pkl', 'not a snapshot'),
        (checkpoints.load_snapshot, snapshot.name, 'not a snapshot'),
    ):
        with pytest.raises(InputError, match=message):
            load(tmp_path / file)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'format_version': 4}, 'newer version'),
        ({'format_version': 'x'}, 'newer version'),
        ({'G_ema': {}}, 'latent generator'),
        ({'G_ema': make_generator()}, 'Generator'),
    ],
)
def test_a_snapshot_that_is_none_is_refused(tmp_path, changes, message):
    checkpoints.save_module_pickle(tmp_path / 's.pkl', temporal_snapshot(**changes))
    with pytest.raises(InputError, match=message):
        checkpoints.load_snapshot(tmp_path / 's.pkl')


def test_written_files_open_with_pickle_and_the_host_layer_alone(tmp_path, root):
    """Another program needs torch_utils and dnnlib on its path, nothing else of the project."""
    checkpoints.save_module_pickle(tmp_path / 's.pkl', temporal_snapshot())
    for folder in ('torch_utils', 'dnnlib'):
        os.symlink(root / folder, tmp_path / folder)
    code = """
import pickle, sys, torch
S = pickle.load(open('s.pkl', 'rb'))
assert 'networks' not in sys.modules
print(tuple(S['G_ema'](torch.zeros(1, 4), torch.zeros(1, 2, 4)).shape))
"""
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, 'PYTHONPATH': str(tmp_path)},
    )
    assert done.stdout.strip() == '(1, 3, 6, 5)', done.stderr


class NotPersistent(torch.nn.Module):
    """Its source would be missing from a pickle."""


def test_writing_is_all_or_nothing(tmp_path):
    path = tmp_path / 's.pkl'
    path.write_bytes(b'old')
    G = make_generator()
    G.extra = NotPersistent()
    with pytest.raises(TypeError, match=r'G\.extra is a NotPersistent'):
        checkpoints.save_module_pickle(path, {'G': G})
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        checkpoints.save_module_pickle(path, {'x': lambda: 0})
    assert path.read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['s.pkl']


# ----------------------------------------------------------------------------
# Real files.


def test_faces_generator_renders_its_codes(shared):
    """PSNR 21 to 30 dB against the recording, as its description says."""
    if not (shared / 'faces64' / 'faces64.pkl').exists():
        pytest.skip('faces64 is not beside this checkout')
    G = checkpoints.load_generator(shared / 'faces64' / 'faces64.pkl')
    assert (G.z_dim, G.c_dim, G.w_dim, G.num_ws, G.img_resolution, G.img_channels) == (100, 0, 128, 10, 64, 3)
    codes = sorted((shared / 'faces64' / 'codes').glob('*.npz'))[0]
    w = torch.from_numpy(np.load(codes)['w'][:4])
    image = G.synthesis(w, noise_mode='const')
    assert image.shape == (4, 3, 64, 64)
    assert 0.2 < image.std() < 1


def test_safetensors_description_is_json(tmp_path, root):
    from networks.checkpoints.formats import safetensors_pair

    G = make_generator()
    safetensors_pair.write(str(tmp_path / 'x'), str(tmp_path / 'x.json'), G)
    description = json.loads((tmp_path / 'x.json').read_text())
    assert description == {
        'class_name': 'stylegan2.Generator',
        'init_kwargs': {
            'z_dim': 6,
            'c_dim': 0,
            'w_dim': 5,
            'img_resolution': 16,
            'img_channels': 3,
            'mapping_kwargs': {'num_layers': 2},
            'synthesis_kwargs': SMALL,
        },
    }
    assert torch.equal(picture(checkpoints.load_generator(tmp_path / 'x')), picture(G))
    raw = bytearray((tmp_path / 'x').read_bytes())
    for name, other in itertools.product(('stylegan2.Generator', 'num_layers'), ('builtins.Exec_____'[:10],)):
        damaged = raw.replace(name.encode(), other.encode().ljust(len(name), b'x'))
        with pytest.raises(InputError):
            checkpoints.load_generator(io.BytesIO(damaged))
