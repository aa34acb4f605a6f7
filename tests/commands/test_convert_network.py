"""convert_network.py as a user runs it, and what it writes as others open it."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import convert_network
from networks import checkpoints, stylegan2, stylegan2_discriminator, stylegan3


def run(*args):
    return CliRunner().invoke(convert_network.main, [str(arg) for arg in args])


@pytest.fixture
def source(tmp_path):
    torch.manual_seed(0)
    G = stylegan2.Generator(6, 2, 5, 16, 3, mapping_kwargs={'num_layers': 2}, synthesis_kwargs={'channel_max': 8}).eval()
    D = stylegan2_discriminator.Discriminator(2, 16, 3, channel_base=128, mapping_kwargs={'num_layers': 1}).eval()
    path = tmp_path / 'source.pkl'
    checkpoints.save_module_pickle(path, {'G': G, 'D': D, 'G_ema': G, 'training_set_kwargs': None, 'augment_pipe': None})
    return path


def picture(G):
    ws = torch.randn([2, G.num_ws, G.w_dim], generator=torch.Generator().manual_seed(3))
    return G.synthesis(ws, noise_mode='const', force_fp32=True)


@pytest.mark.parametrize('ending', ['.pkl', '.safetensors'])
def test_converted_file_gives_the_same_picture(source, tmp_path, ending):
    dest = tmp_path / f'dest{ending}'
    done = run('--source', source, '--dest', dest)
    assert done.exit_code == 0, done.output
    ours, theirs = checkpoints.load_generator(dest), checkpoints.load_generator(source)
    assert torch.equal(picture(ours), picture(theirs))
    z, c = torch.randn(2, 6), torch.eye(2)
    assert torch.equal(ours.mapping(z, c, truncation_psi=0.5), theirs.mapping(z, c, truncation_psi=0.5))
    assert sorted(os.listdir(tmp_path)) == sorted(['source.pkl', dest.name, *(['dest.json'] if ending == '.safetensors' else [])])


def test_pickle_has_what_the_scripts_of_the_field_look_for(source, tmp_path):
    assert run('--source', source, '--dest', tmp_path / 'dest.pkl').exit_code == 0
    with open(tmp_path / 'dest.pkl', 'rb') as file:
        data = pickle.load(file)
    assert list(data) == ['G', 'D', 'G_ema', 'training_set_kwargs', 'augment_pipe']
    assert all(isinstance(data[key], torch.nn.Module) for key in ('G', 'D', 'G_ema'))
    assert data['G_ema'].init_kwargs.img_resolution == 16
    D = checkpoints.load_discriminator(source)
    images, c = torch.randn(4, 3, 16, 16), torch.eye(2).repeat(2, 1)
    assert torch.equal(data['D'](images, c), D(images, c))


def test_networks_of_the_pickle_come_from_its_own_text(source, tmp_path, root):
    """With torch_utils and dnnlib alone, as in a checkout of NVIDIA's repositories."""
    assert run('--source', source, '--dest', tmp_path / 'dest.pkl').exit_code == 0
    np.save(tmp_path / 'answer.npy', picture(checkpoints.load_generator(source)).numpy())
    for folder in ('torch_utils', 'dnnlib'):
        os.symlink(root / folder, tmp_path / folder)
    code = """
import numpy, pickle, sys, torch
G = pickle.load(open('dest.pkl', 'rb'))['G_ema']
ws = torch.randn([2, G.num_ws, G.w_dim], generator=torch.Generator().manual_seed(3))
image = G.synthesis(ws, noise_mode="const", force_fp32=True).numpy()
print(abs(image - numpy.load("answer.npy")).max(), "networks" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, 'PYTHONPATH': str(tmp_path)},
    )
    assert done.stdout.split() == ['0.0', 'False'], done.stderr


@pytest.mark.parametrize(
    'file',
    [
        'stylegan2-ada-64.pkl',
        'stylegan2-ada-cond-32.pkl',
        'stylegan2-from-stylegan3-32.pkl',
        'stylegan3-t-32.pkl',
        'stylegan3-r-32.pkl',
        'stylegan2-tensorflow-32.pkl',
        'rosinality-train-64.pt',
        'rosinality-converted-64.pt',
    ],
)
def test_every_format_becomes_both(shared, tmp_path, file):
    G = checkpoints.load_generator(shared / 'checkpoints' / file)
    for ending in ('.pkl', '.safetensors'):
        convert_network.convert(str(shared / 'checkpoints' / file), str(tmp_path / f'x{ending}'))
        ours = checkpoints.load_generator(tmp_path / f'x{ending}')
        assert type(ours) is type(G)
        assert torch.equal(picture(ours), picture(G))
    assert type(ours) in (stylegan2.Generator, stylegan3.Generator)


def test_source_without_discriminator_gets_a_placeholder(source, tmp_path):
    """NVIDIA's scripts insist on a module; one without weights leaves a training that resumes its own."""
    run('--source', source, '--dest', tmp_path / 'a.safetensors')
    assert run('--source', tmp_path / 'a.safetensors', '--dest', tmp_path / 'b.pkl').exit_code == 0
    with open(tmp_path / 'b.pkl', 'rb') as file:
        D = pickle.load(file)['D']
    assert type(D).__name__ == 'NoDiscriminator'
    assert not list(D.state_dict())
    with pytest.raises(NotImplementedError):
        D(torch.zeros(1, 3, 16, 16))


def test_a_fork_is_not_offered_an_option_that_is_not_there(tmp_path):
    (tmp_path / 'fork.pkl').write_bytes(b'\x80\x02cmy_fork\nThing\n)R.')
    done = run('--source', tmp_path / 'fork.pkl', '--dest', tmp_path / 'x.pkl')
    assert done.exit_code == 2
    assert 'my_fork.Thing' in done.output
    assert 'cannot be converted' in done.output
    assert 'trust' not in done.output


def test_mistakes_are_one_sentence_and_write_nothing(source, tmp_path):
    (tmp_path / 'exists.pkl').write_bytes(b'old')
    (tmp_path / 'broken.pkl').write_bytes(source.read_bytes()[:5000])
    before = sorted(os.listdir(tmp_path))
    for args, message in (
        (['--source', source, '--dest', tmp_path / 'x.onnx'], '.safetensors'),
        (['--source', source, '--dest', tmp_path / 'no' / 'x.pkl'], 'no folder'),
        (['--source', source, '--dest', tmp_path / 'exists.pkl'], '--force'),
        (['--source', tmp_path / 'nothing.pkl', '--dest', tmp_path / 'x.pkl'], '--source: there is no file'),
        (['--source', tmp_path / 'broken.pkl', '--dest', tmp_path / 'x.safetensors'], 'broken.pkl: it '),
        (['--source', tmp_path / 'broken.pkl', '--dest', tmp_path / 'exists.pkl', '--force'], 'broken.pkl: it '),
        (['--source', source], '--dest'),
    ):
        done = run(*args)
        assert done.exit_code == 2, done.output
        assert message in done.output
        assert 'Traceback' not in done.output
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / 'exists.pkl').read_bytes() == b'old'
    assert run('--source', source, '--dest', tmp_path / 'exists.pkl', '--force').exit_code == 0
