"""VideoMAE, V-JEPA 2 and DINOv2: against transformers' own output on random weights; tensors out of place are refused."""

import json
import pathlib
import re
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from metrics.distances.kernel_distance import polynomial_distance
from metrics.features.detectors import detector_of, load_detector
from networks.checkpoints.detector_weights import transformer_weights, videomae_weights
from networks.errors import InputError
from networks.feature_networks.transformer_features import DEVIATION, MEAN

transformers = pytest.importorskip('transformers', reason='needs the package transformers')

FRAMES = torch.from_numpy(np.random.RandomState(0).randint(256, size=(2, 4, 224, 224, 3)).astype(np.uint8))


def make(kind: str, folder: pathlib.Path) -> Any:
    """A tiny network with random weights, also of the biases, saved as transformers saves it."""
    torch.manual_seed(0)
    if kind == 'videomae':
        config = transformers.VideoMAEConfig(
            image_size=224, patch_size=112, num_frames=4, tubelet_size=2, hidden_size=16, num_hidden_layers=2,
            num_attention_heads=2, intermediate_size=32, num_labels=5, use_mean_pooling=True,
        )  # fmt: skip
        network = transformers.VideoMAEForVideoClassification(config)
    elif kind == 'vjepa2':
        config = transformers.VJEPA2Config(
            crop_size=32, patch_size=16, frames_per_clip=4, hidden_size=24, num_attention_heads=2, num_hidden_layers=2,
            mlp_ratio=2, num_pooler_layers=1, pred_hidden_size=24, pred_num_attention_heads=2, pred_num_hidden_layers=1,
            pred_num_mask_tokens=1,
        )  # fmt: skip
        network = transformers.VJEPA2ForVideoClassification(config)
    else:
        config = transformers.Dinov2Config(
            image_size=224, patch_size=112, hidden_size=16, num_hidden_layers=2, num_attention_heads=2
        )
        network = transformers.Dinov2Model(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    network.eval().save_pretrained(folder)
    return network


def normalised(images: torch.Tensor) -> torch.Tensor:
    mean, deviation = (torch.tensor(values).reshape(1, 1, 3, 1, 1) for values in (MEAN, DEVIATION))
    return (images - mean) / deviation


@pytest.mark.parametrize('kind', ['videomae', 'vjepa2', 'dinov2'])
def test_features_are_those_of_transformers(kind: str, tmp_path: pathlib.Path) -> None:
    network = make(kind, tmp_path)
    clips = FRAMES.permute(0, 1, 4, 2, 3).float() / 255
    with torch.no_grad():
        if kind == 'videomae':
            wanted = network.fc_norm(network.videomae(pixel_values=clips).last_hidden_state.mean(1))[:, None]
        elif kind == 'vjepa2':
            small = torch.nn.functional.interpolate(clips.flatten(0, 1), size=(32, 32), mode='bilinear').unflatten(0, (2, 4))
            wanted = network.pooler(network.vjepa2(pixel_values_videos=normalised(small)).last_hidden_state)[:, None]
        else:
            wanted = network(pixel_values=normalised(clips).flatten(0, 1)).pooler_output.unflatten(0, (2, 4))
    assert detector_of(str(tmp_path)) == kind
    detector = load_detector(kind, [str(tmp_path)])
    found = detector.features(FRAMES)
    assert found.shape == wanted.shape
    assert found.shape[-1] == detector.num_features
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert detector.description['weights_sha256'] == load_detector(kind, [str(tmp_path)]).description['weights_sha256']


def test_biases_of_videomae_arrive(tmp_path: pathlib.Path) -> None:
    """Published files call them q_bias and v_bias; a reader that does not know them leaves zeros."""
    make('videomae', tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / 'model.safetensors')
    old = {name.replace('.query.bias', '.q_bias').replace('.value.bias', '.v_bias'): value for name, value in tensors.items()}
    assert [name for name in old if name.endswith('.q_bias')]
    safetensors.torch.save_file(old, tmp_path / 'model.safetensors')
    _, network, _ = transformer_weights.load(str(tmp_path))
    for index in range(2):
        state = dict(network.named_parameters())
        for ours, theirs in (('query', 'q'), ('value', 'v')):
            stem = f'videomae.encoder.layer.{index}.attention.attention'
            name = f'{stem}.{ours}.bias' if f'{stem}.{ours}.bias' in state else f'{stem}.{theirs}_bias'
            assert torch.equal(state[name], old[f'{stem}.{theirs}_bias'])
            assert state[name].abs().max() > 0


def authors_names(network: Any) -> dict[str, torch.Tensor]:
    """The tensors of transformers' VideoMAE under the names of VideoMAE's authors, in half precision as they publish them."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in network.state_dict().items():
        for theirs, ours in (
            (r'videomae\.encoder\.layer\.', 'blocks.'), (r'attention\.output\.dense', 'attn.proj'), (r'output\.dense', 'mlp.fc2'),
            (r'attention\.attention\.', 'attn.'), (r'query\.bias', 'q_bias'), (r'value\.bias', 'v_bias'),
            (r'layernorm_before', 'norm1'), (r'layernorm_after', 'norm2'), (r'intermediate\.dense', 'mlp.fc1'),
            (r'videomae\.embeddings\.patch_embeddings\.projection', 'patch_embed.proj'), (r'classifier', 'head'),
        ):  # fmt: skip
            name = re.sub(theirs, ours, name)
        found[name] = tensor.half()
    for index in range(network.config.num_hidden_layers):
        parts = [found.pop(f'blocks.{index}.attn.{part}.weight') for part in ('query', 'key', 'value')]
        found[f'blocks.{index}.attn.qkv.weight'] = torch.cat(parts)
    return found


def test_the_file_of_videomae_s_authors_is_the_network_of_transformers(tmp_path: pathlib.Path) -> None:
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(
        image_size=224, patch_size=56, num_frames=16, tubelet_size=2, hidden_size=384, num_hidden_layers=2, num_attention_heads=6,
        intermediate_size=40, num_labels=5, use_mean_pooling=True, layer_norm_eps=1e-6,
    )  # fmt: skip
    network = transformers.VideoMAEForVideoClassification(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_((parameter + 0.05 * torch.randn_like(parameter)).half().float())
    tensors = authors_names(network)
    path = str(tmp_path / 'vit.pth')
    torch.save({'module': tensors}, path)
    assert detector_of(path) == 'videomae'
    frames = torch.from_numpy(np.random.RandomState(0).randint(256, size=(1, 16, 224, 224, 3)).astype(np.uint8))
    with torch.no_grad():
        tokens = network.videomae(pixel_values=frames.permute(0, 1, 4, 2, 3).float() / 255).last_hidden_state
        wanted = network.fc_norm(tokens.mean(1))[:, None]
    torch.testing.assert_close(load_detector('videomae', [path]).features(frames), wanted, rtol=1e-4, atol=1e-5)
    for change, message in (
        (lambda some: some.pop('fc_norm.bias'), 'for example fc_norm.bias'),
        (lambda some: some.pop('head.bias'), 'lacks classifier.bias'),
        (lambda some: some.update({'blocks.1.gamma_1': torch.ones(3)}), 'no place for blocks.1.gamma_1'),
        (lambda some: some.update({'blocks.1.mlp.fc1.bias': torch.ones(3)}), 'for example videomae.encoder.layer.1.intermediate'),
        (lambda some: some.update({'fc_norm.bias': torch.full((384,), np.nan)}), 'not finite'),
    ):
        wrong = dict(tensors)
        change(wrong)
        torch.save(wrong, path)
        with pytest.raises(InputError, match=message):
            videomae_weights.load(path)


@pytest.mark.parametrize(('change', 'message'), [
    (lambda tensors: tensors.pop('fc_norm.bias'), 'lack fc_norm.bias'),
    (lambda tensors: tensors.update({'videomae.layer.9': torch.ones(1)}), 'has no place for, videomae.layer.9'),
    (lambda tensors: tensors.update({'fc_norm.bias': torch.zeros(3)}), 'differ in shape.*fc_norm.bias'),
    (lambda tensors: tensors['fc_norm.bias'].fill_(float('nan')), 'not finite'),
])  # fmt: skip
def test_weights_that_do_not_fit_are_refused(change: Any, message: str, tmp_path: pathlib.Path) -> None:
    make('videomae', tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / 'model.safetensors')
    change(tensors)
    safetensors.torch.save_file(tensors, tmp_path / 'model.safetensors')
    with pytest.raises(InputError, match=message):
        transformer_weights.load(str(tmp_path))


def test_folders_that_are_no_network_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r'no config\.json'):
        transformer_weights.load(str(tmp_path))
    (tmp_path / 'config.json').write_text(json.dumps({'model_type': 'bert'}))
    with pytest.raises(InputError, match="describes a 'bert'"):
        detector_of(str(tmp_path))


def test_polynomial_distance_is_that_of_the_equation() -> None:
    random = np.random.RandomState(0)
    a, b = random.randn(7, 5), random.randn(9, 5)
    kernel = [[np.mean([(x @ y / 5) ** 2 for x in first for y in second]) for second in (a, b)] for first in (a, b)]
    assert polynomial_distance(a, b) == pytest.approx(kernel[0][0] + kernel[1][1] - 2 * kernel[0][1], rel=1e-12)
