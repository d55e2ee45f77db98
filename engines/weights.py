"""The checkpoints this project knows: where they are, how they are fetched, checked and loaded.

Owns: the table of Meta's eight checkpoints and the embedded nano, the cache folder (`$SAM2_STREAM_CACHE`, else
`$XDG_CACHE_HOME/sam2-stream`, else `~/.cache/sam2-stream`), and the making of a model from the official configuration.
Runs in the caller's thread. Never: downloads unless `pull` is called, runs code from a checkpoint, imports torchvision,
touches Hydra's global state (importing `sam2` itself does, once) or the global random generator.

Sites with a mirror set `$SAM2_STREAM_WEIGHTS_URL` to the address that stands for Meta's `.../segment_anything_2`.
The pinned hashes were compared between at least two independent public records each; the bytes decide, not the server.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from engines.download import DownloadError, Limits, Progress, RemoteFile, fetch, verify

NANO = "nano"
_META_URL = "https://dl.fbaipublicfiles.com/segment_anything_2"
_NUM_NAMED_KEYS = 3  # of each kind, in an error about a foreign checkpoint

# What `torch.load` was seen to raise on 30,000 damaged archives, and its kin.
_DAMAGE: tuple[type[Exception], ...] = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, OSError)
_DAMAGE += (AssertionError, ArithmeticError, EOFError, MemoryError, struct.error)

# What the official `build_sam2_video_predictor` adds to the configuration, without what only its post-processing uses.
_OFFICIAL_OVERRIDES: dict[str, object] = {
    "sam_mask_decoder_extra_args": {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    },
    "binarize_mask_from_pts_for_mem_enc": True,
}


class WeightsError(Exception):
    """A checkpoint cannot be had, is damaged, or belongs to something else; the text is one line for the user."""


@dataclass(frozen=True, slots=True)
class WeightInfo:
    """What `sam2-stream weights list` shows of a model."""

    model: str
    location: Path
    num_bytes: int
    is_present: bool
    source: str  # the address it is fetched from, or "embedded"
    licence: str = "Apache-2.0"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One of Meta's files: its configuration in the sam2 package, its place on the server, and what it must be."""

    config: str
    folder: str
    file: str
    num_bytes: int | None
    sha256: str | None  # None: recorded at the first download, checked ever after


_FOLDERS = {"sam2": "072824", "sam2.1": "092824"}
_CONFIG_NAMES = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}
_PINNED = {
    "sam2_hiera_tiny.pt": (155_906_050, "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125"),
    "sam2_hiera_small.pt": (184_309_650, "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3"),
    "sam2_hiera_base_plus.pt": (323_493_298, "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071"),
    "sam2_hiera_large.pt": (897_952_466, "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b"),
    "sam2.1_hiera_tiny.pt": (156_008_466, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69"),
    "sam2.1_hiera_small.pt": (184_416_285, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38"),
    "sam2.1_hiera_base_plus.pt": (323_606_802, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5"),
    "sam2.1_hiera_large.pt": (898_083_611, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318"),
}


def _named(file: str, num_bytes: int, sha256: str) -> tuple[str, Checkpoint]:
    family, size = file.removesuffix(".pt").split("_hiera_")
    config = f"configs/{family}/{family}_hiera_{_CONFIG_NAMES[size]}.yaml"
    checkpoint = Checkpoint(config, _FOLDERS[family], file, num_bytes, sha256)
    return f"{family}-hiera-{size.replace('_', '-')}", checkpoint


CHECKPOINTS: Mapping[str, Checkpoint] = dict(_named(file, *known) for file, known in _PINNED.items())
MODELS: tuple[str, ...] = (NANO, *CHECKPOINTS)


def list_weights() -> list[WeightInfo]:
    """Every known model; looks only whether the file is there, `path` checks what is in it."""
    return [_info(model) for model in MODELS]


def pull(model: str, *, progress: Progress | None = None) -> Path:
    """Downloads a checkpoint unless it is there, checks it and says where it is.

    `progress(bytes_here, bytes_in_all)` is called for every block; after a resumed download it starts in the middle.
    """
    info = _info(model)
    if info.is_present:
        return path(model)
    if model == NANO:
        raise WeightsError(f"{info.location}: the embedded checkpoint is missing, expected it in the installed package")
    return pull_checkpoint(CHECKPOINTS[model], progress=progress)


def pull_checkpoint(checkpoint: Checkpoint, *, progress: Progress | None = None, limits: Limits | None = None) -> Path:
    """`pull` for a checkpoint that need not be in the table."""
    remote = RemoteFile(_url_of(checkpoint), checkpoint.num_bytes, checkpoint.sha256)
    target = cache_folder("weights") / checkpoint.file
    try:
        target.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        return fetch(remote, target, progress=progress, limits=limits)
    except DownloadError as error:
        raise WeightsError(str(error)) from error
    except OSError as error:
        raise WeightsError(f"{target.parent}: cannot be made: {error.strerror}") from error


def path(model: str) -> Path:
    """Where the checkpoint of `model` is, its hash checked; raises `WeightsError` if it was never pulled."""
    info = _info(model)
    if not info.is_present:
        hint = "" if model == NANO else f"; run: sam2-stream weights pull {model}"
        raise WeightsError(f"{info.location}: no checkpoint of {model} here{hint}")
    _verify(info.location, None if model == NANO else CHECKPOINTS[model].sha256)
    return info.location


def checkpoint_name(model: str, checkpoint: Path | None = None) -> str:
    """A name that only these weights have: the model's, and the SHA-256 of the file. Raises `WeightsError`."""
    location = path(model) if checkpoint is None else checkpoint
    try:
        with location.open("rb") as file:
            return f"{model} {hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise WeightsError(f"{location}: {error.strerror}; expected a checkpoint that can be read") from error


def load_state_dict(checkpoint: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, `{"model": ...}` as Meta writes them or bare, on the CPU; mapped, not read."""
    _check_is_archive(checkpoint)
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))  # PyTorch's own advice, to run the code, is not passed on
        found = _plain(code[1]) if code else "another object"
        raise WeightsError(f"{checkpoint}: refused, it holds {found}, expected nothing but tensors") from error
    except _DAMAGE as error:
        raise WeightsError(
            f"{checkpoint}: damaged, or no checkpoint: {type(error).__name__} {_plain(str(error))}"
        ) from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        found = _some([str(name) for name in state]) if isinstance(state, dict) else type(content).__name__
        raise WeightsError(f'{checkpoint}: no model inside, expected {{"model": {{name: tensor}}}}, found: {found}')
    return {str(name): value for name, value in state.items()}


def model_config(model: str) -> DictConfig:
    """The model's part of its official configuration, with what the official video predictor adds to it."""
    _info(model)
    if model == NANO:
        file = importlib.resources.files("engines") / "zoo" / "nano" / "nano.yaml"
    else:
        file = importlib.resources.files("sam2") / CHECKPOINTS[model].config
    config = OmegaConf.create(file.read_text(encoding="utf-8"))
    assert isinstance(config, DictConfig), "an official configuration is a mapping"
    merged = OmegaConf.merge(config.model, _OFFICIAL_OVERRIDES)
    assert isinstance(merged, DictConfig), "merging mappings gives a mapping"
    OmegaConf.resolve(merged)
    return merged


def build_model(model: str, checkpoint: Path | None = None, *, random_seed: int | None = None) -> SAM2Base:
    """A `SAM2Base` on the CPU in fp32, in eval mode, without gradients.

    Weights come from `checkpoint`, else from where `pull` put them; or with `random_seed` from PyTorch's own
    initialisation, the same in every process.
    """
    if random_seed is not None and checkpoint is not None:
        raise WeightsError(f"{checkpoint}: a checkpoint and random_seed={random_seed} were given, expected one of them")
    config = model_config(model)
    if random_seed is None and checkpoint is None:
        checkpoint = path(model)
    elif checkpoint is not None:
        _verify(checkpoint, None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed or 0)
        network = instantiate(config, _recursive_=True)
    assert isinstance(network, SAM2Base), f"{model}'s configuration names another class than SAM2Base"
    if checkpoint is not None:
        _fill(network, checkpoint, model)
    return network.float().eval().requires_grad_(False)


def _fill(network: SAM2Base, checkpoint: Path, model: str) -> None:
    state, wanted = load_state_dict(checkpoint), network.state_dict()
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    misshaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    complaints = [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names]
    if complaints:
        raise WeightsError(f"{checkpoint}: not a checkpoint of {model}: {', '.join(complaints)}")
    network.load_state_dict(state)


def _info(model: str) -> WeightInfo:
    if model == NANO:
        location = Path(str(importlib.resources.files("engines") / "zoo" / "nano" / "nano.pt"))
        is_present = location.is_file()
        return WeightInfo(model, location, location.stat().st_size if is_present else 0, is_present, "embedded")
    if model not in CHECKPOINTS:
        raise WeightsError(f"{model!r}: no such model, expected one of {', '.join(MODELS)}")
    checkpoint = CHECKPOINTS[model]
    location = cache_folder("weights") / checkpoint.file
    return WeightInfo(model, location, checkpoint.num_bytes or 0, location.is_file(), _url_of(checkpoint))


def cache_folder(kind: str) -> Path:
    """Where files of this kind (weights, engines, ...) are kept from run to run; it need not exist yet."""
    own, shared = os.environ.get("SAM2_STREAM_CACHE", ""), os.environ.get("XDG_CACHE_HOME", "")
    if own:
        return Path(own).expanduser() / kind
    root = Path(shared) if os.path.isabs(shared) else Path.home() / ".cache"
    return root / "sam2-stream" / kind


def _url_of(checkpoint: Checkpoint) -> str:
    site = os.environ.get("SAM2_STREAM_WEIGHTS_URL", "") or _META_URL
    return f"{site.rstrip('/')}/{checkpoint.folder}/{checkpoint.file}"


def _verify(location: Path, sha256: str | None) -> None:
    try:
        verify(location, sha256)
    except DownloadError as error:
        raise WeightsError(str(error)) from error
    except OSError as error:
        raise WeightsError(f"{location}: cannot be read: {error.strerror}") from error


def _check_is_archive(checkpoint: Path) -> None:
    try:
        with checkpoint.open("rb") as file:
            start = file.read(4)
        is_whole = zipfile.is_zipfile(checkpoint)
    except OSError as error:
        raise WeightsError(f"{checkpoint}: cannot be read: {error.strerror}") from error
    except zipfile.BadZipFile:
        is_whole = False
    if start != b"PK\x03\x04":
        found = f"it starts with {start!r}" if start else "it is empty"
        raise WeightsError(f"{checkpoint}: {found}, expected a PyTorch checkpoint (a zip archive)")
    if not is_whole:
        raise WeightsError(f"{checkpoint}: the file is cut off, expected the end of a PyTorch checkpoint")


def _some(names: list[str]) -> str:
    shown = ", ".join(_plain(name) for name in names[:_NUM_NAMED_KEYS])
    return (shown or "nothing") + (", ..." if len(names) > _NUM_NAMED_KEYS else "")


def _plain(text: str) -> str:
    """Words out of a file, safe for one line of a terminal."""
    start = text.strip().partition("\n")[0][:100]
    return start if start.isprintable() else ascii(start)
