"""Checkpoints are found, fetched, checked and loaded, or refused in one line; models are built as officially."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from engines.download import Limits
from engines.weights import (
    CHECKPOINTS,
    MODELS,
    Checkpoint,
    WeightsError,
    build_model,
    list_weights,
    load_state_dict,
    model_config,
    path,
    pull,
    pull_checkpoint,
)
from tests.http_server import Answer, FileServer

ROOT = Path(__file__).resolve().parents[1]
QUICK = Limits(timeout_s=5.0, num_attempts=2, backoff_s=0.01)
SMALL = {"model": {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(3)}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAM2_STREAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SAM2_STREAM_WEIGHTS_URL", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with FileServer(saved(tmp_path, SMALL).read_bytes()) as running:
        monkeypatch.setenv("SAM2_STREAM_WEIGHTS_URL", running.site + "/mirror/")
        yield running


@pytest.fixture(scope="module")
def nano_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("nano"), {"model": build_model("nano", random_seed=7).state_dict()})


def saved(folder: Path, content: object) -> Path:
    torch.save(content, folder / "saved.pt")
    return folder / "saved.pt"


def small_checkpoint(server: FileServer) -> Checkpoint:
    sha256 = hashlib.sha256(server.content).hexdigest()
    return Checkpoint("configs/none.yaml", "092824", "small.pt", len(server.content), sha256)


# --- the table and the cache


def test_the_table_holds_metas_eight_checkpoints_and_nano() -> None:
    sizes = ("tiny", "small", "base-plus", "large")
    assert [f"{family}-hiera-{size}" for family in ("sam2", "sam2.1") for size in sizes] == list(CHECKPOINTS)
    assert ("nano", *CHECKPOINTS) == MODELS
    infos = {info.model: info for info in list_weights()}
    assert tuple(infos) == MODELS
    meta = "https://dl.fbaipublicfiles.com/segment_anything_2"
    assert infos["sam2-hiera-base-plus"].source == f"{meta}/072824/sam2_hiera_base_plus.pt"
    assert infos["sam2.1-hiera-tiny"].source == f"{meta}/092824/sam2.1_hiera_tiny.pt"
    assert {info.licence for info in infos.values()} == {"Apache-2.0"}
    assert all(re.fullmatch(r"[0-9a-f]{64}", checkpoint.sha256 or "") for checkpoint in CHECKPOINTS.values())
    assert len({checkpoint.sha256 for checkpoint in CHECKPOINTS.values()}) == 8
    assert not any(info.is_present for info in infos.values() if info.model != "nano")


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def folder() -> Path:
        return list_weights()[1].location.parent

    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder() == tmp_path / "cache" / "weights"
    monkeypatch.setenv("SAM2_STREAM_CACHE", "~/mine")
    assert folder() == tmp_path / "mine" / "weights"
    monkeypatch.delenv("SAM2_STREAM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert folder() == tmp_path / "xdg" / "sam2-stream" / "weights"
    for value in ("", "relative/means/nothing"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert folder() == tmp_path / ".cache" / "sam2-stream" / "weights"


def test_an_unknown_model_is_named_with_the_known_ones() -> None:
    for ask in (path, pull, build_model):
        with pytest.raises(
            WeightsError, match=r"'sam3': no such model, expected one of nano, sam2-hiera-tiny, .*large$"
        ):
            ask("sam3")


# --- pull and path


def test_a_pulled_checkpoint_is_private_checked_and_found_again(server: FileServer, cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    location = pull_checkpoint(small_checkpoint(server), progress=lambda *here: seen.append(here), limits=QUICK)
    assert location == cache / "weights" / "small.pt"
    assert server.requests[0].path == "/mirror/092824/small.pt"
    assert seen[-1] == (len(server.content), len(server.content))
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (cache, cache / "weights")] == [0o700, 0o700]
    assert torch.equal(load_state_dict(location)["weight"], SMALL["model"]["weight"])
    assert pull_checkpoint(small_checkpoint(server), limits=QUICK) == location
    assert len(server.requests) == 1


def test_without_a_pinned_hash_the_first_download_is_the_measure(server: FileServer) -> None:
    checkpoint = replace(small_checkpoint(server), sha256=None, num_bytes=None)
    location = pull_checkpoint(checkpoint, limits=QUICK)
    location.write_bytes(server.content[:-1] + b"!")
    with pytest.raises(
        WeightsError, match=rf"expected {small_checkpoint(server).sha256} \(recorded in small\.pt\.sha256\)"
    ):
        pull_checkpoint(checkpoint, limits=QUICK)
    with pytest.raises(WeightsError, match="recorded in small"):
        build_model("nano", location)


def test_pull_says_what_is_wrong_with_the_server(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=rf"announces {len(server.content)} bytes, expected 156008466$"):
        pull("sam2.1-hiera-tiny")
    server.answers = [Answer(content=b"<html>", content_type="text/html"), Answer(status=404)]
    with pytest.raises(WeightsError, match="web page"):
        pull("sam2.1-hiera-tiny")
    with pytest.raises(WeightsError, match="404"):
        pull("sam2.1-hiera-tiny")
    monkeypatch.setenv("SAM2_STREAM_WEIGHTS_URL", "http://mirror.example.org")
    with pytest.raises(WeightsError, match=r"^http://mirror\.example\.org/092824/.*https://$"):
        pull("sam2.1-hiera-tiny")


def test_path_names_the_command_that_helps(cache: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        path("sam2-hiera-small")
    expected = f"{cache}/weights/sam2_hiera_small.pt: no checkpoint of sam2-hiera-small here"
    assert str(caught.value) == f"{expected}; run: sam2-stream weights pull sam2-hiera-small"


def test_a_foreign_file_in_the_cache_is_refused_with_both_hashes(cache: Path) -> None:
    (cache / "weights").mkdir(parents=True)
    (cache / "weights" / "sam2_hiera_tiny.pt").write_bytes(b"not Meta's")
    for ask in (path, pull, build_model):
        with pytest.raises(WeightsError) as caught:
            ask("sam2-hiera-tiny")
        assert hashlib.sha256(b"not Meta's").hexdigest() in str(caught.value)
        assert str(CHECKPOINTS["sam2-hiera-tiny"].sha256) in str(caught.value)
    assert {info.model for info in list_weights() if info.is_present} - {"nano"} == {"sam2-hiera-tiny"}


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SAM2_STREAM_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"file/weights: cannot be made: "):
        pull("sam2-hiera-tiny")


# --- load_state_dict


@pytest.mark.parametrize("wrap", [True, False])
def test_a_checkpoint_is_read_as_meta_writes_it_or_bare(tmp_path: Path, wrap: bool) -> None:
    state = load_state_dict(saved(tmp_path, SMALL if wrap else SMALL["model"]))
    assert set(state) == {"weight", "bias"} and torch.equal(state["weight"], SMALL["model"]["weight"])
    assert all(tensor.device.type == "cpu" for tensor in state.values())


def test_a_cut_off_checkpoint_is_refused_at_every_length(tmp_path: Path) -> None:
    file = saved(tmp_path, SMALL)
    content = file.read_bytes()
    for num_bytes in range(0, len(content), 7):
        file.write_bytes(content[:num_bytes])
        with pytest.raises(WeightsError, match=r"saved\.pt: (it is empty|it starts with|the file is cut off)"):
            load_state_dict(file)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # the damage made another number of it
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 2000), value=st.integers(0, 255))
def test_a_damaged_checkpoint_loads_or_is_refused_in_one_line(tmp_path: Path, position: int, value: int) -> None:
    file = saved(tmp_path, SMALL)
    content = bytearray(file.read_bytes())
    content[position % len(content)] = value
    file.write_bytes(content)
    try:
        load_state_dict(file)
    except WeightsError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"<!DOCTYPE html><html>", "it starts with b'<!DO'"),
        (pickle.dumps({"model": [1, 2]}), "it starts with"),
        (b"PK\x03\x04 and no archive", "the file is cut off"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=re.escape(complaint)):
        load_state_dict(tmp_path / "a.pt")


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(WeightsError, match="damaged, or no checkpoint"):
        load_state_dict(tmp_path / "a.pt")


class Intruder:
    """Would make a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_checkpoint_is_refused_named_and_not_run(tmp_path: Path) -> None:
    file = saved(tmp_path, {"model": {"weight": torch.zeros(1)}, "extra": Intruder(tmp_path / "owned")})
    with pytest.raises(WeightsError) as caught:
        load_state_dict(file)
    assert not (tmp_path / "owned").exists()
    assert str(caught.value) == f"{file}: refused, it holds posix.mkdir, expected nothing but tensors"
    with pytest.raises(
        WeightsError, match=r"it holds torch\.nn\.modules\.linear\.Linear, expected nothing but tensors$"
    ):
        load_state_dict(saved(tmp_path, {"model": {}, "extra": torch.nn.Linear(1, 1)}))


def test_names_in_a_hostile_checkpoint_cannot_write_to_the_terminal(nano_file: Path, tmp_path: Path) -> None:
    hostile = {**load_state_dict(nano_file), "a\x1b[2J\nb" + "c" * 10_000: torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"1 unexpected") as caught:
        build_model("nano", saved(tmp_path, {"model": hostile}))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


@pytest.mark.parametrize("content", [{"model": {}}, {"epoch": 3}, {"model": {"a": 1}}, [torch.zeros(1)], {}, "text"])
def test_an_archive_without_a_model_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(WeightsError, match=r'no model inside, expected {"model": {name: tensor}}, found: \S'):
        load_state_dict(saved(tmp_path, content))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for location, reason in ((tmp_path / "none.pt", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(WeightsError, match=rf"{re.escape(str(location))}: cannot be read: {reason}"):
            load_state_dict(location)
        with pytest.raises(WeightsError, match=re.escape(str(location))):
            build_model("nano", location)


# --- build_model


@pytest.mark.parametrize("model", list(CHECKPOINTS))
def test_a_configuration_is_the_official_video_predictors(model: str) -> None:
    extra = "++model.sam_mask_decoder_extra_args.dynamic_multimask"
    overrides = [
        f"{extra}_via_stability=true",
        f"{extra}_stability_delta=0.05",
        f"{extra}_stability_thresh=0.98",
        "++model.binarize_mask_from_pts_for_mem_enc=true",
    ]
    official = compose(config_name=CHECKPOINTS[model].config, overrides=overrides)
    assert OmegaConf.to_container(model_config(model)) == OmegaConf.to_container(official.model, resolve=True)


@pytest.mark.parametrize("model", [model for model in MODELS if model != "sam2-hiera-large"])  # as 2.1's, and slow
def test_every_model_is_built_for_inference(model: str) -> None:
    network = build_model(model, random_seed=0)
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32}
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}
    num_millions = {"nano": 4.4, "tiny": 38.9, "small": 46.0, "plus": 80.8, "large": 224.4}[model.rsplit("-", 1)[-1]]
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(num_millions, abs=0.1)
    assert network.binarize_mask_from_pts_for_mem_enc and network.sam_mask_decoder.dynamic_multimask_via_stability


def test_the_official_builder_and_ours_load_the_same_weights(tmp_path: Path) -> None:
    from sam2.build_sam import build_sam2_video_predictor

    state = build_model("sam2.1-hiera-tiny", random_seed=3).state_dict()
    file = saved(tmp_path, {"model": state})
    ours = build_model("sam2.1-hiera-tiny", file).state_dict()
    config = CHECKPOINTS["sam2.1-hiera-tiny"].config
    official = build_sam2_video_predictor(config, str(file), device="cpu").state_dict()
    assert list(ours) == list(official)
    assert all(torch.equal(ours[name], official[name]) and torch.equal(ours[name], state[name]) for name in official)


def test_half_precision_weights_are_widened(nano_file: Path, tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in load_state_dict(nano_file).items()}
    network = build_model("nano", saved(tmp_path, {"model": half}))
    assert all(torch.equal(tensor, half[name].float()) for name, tensor in network.state_dict().items())


def test_the_embedded_nano_is_found_and_loads() -> None:
    info = list_weights()[0]
    assert info.source == "embedded" and info.num_bytes <= 15_000_000
    assert pull("nano") == path("nano") == info.location
    build_model("nano")


def test_a_checkpoint_of_another_model_is_refused_with_a_few_of_its_keys(nano_file: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        build_model("sam2.1-hiera-tiny", nano_file)
    text = str(caught.value)
    assert text.startswith(f"{nano_file}: not a checkpoint of sam2.1-hiera-tiny: ") and "\n" not in text
    assert "missing (" in text and "of another shape (" in text and " instead of " in text and len(text) < 1000
    old = build_model("sam2-hiera-tiny", random_seed=0).state_dict()
    with pytest.raises(WeightsError, match=r"tiny: 3 missing \(no_obj_embed_spatial, obj_ptr_tpos_proj.weight, "):
        build_model("sam2.1-hiera-tiny", saved(tmp_path, {"model": old}))
    surplus = {**load_state_dict(nano_file), "head.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"nano: 1 unexpected \(head\.weight\)$"):
        build_model("nano", saved(tmp_path, {"model": surplus}))


def test_a_checkpoint_and_a_seed_exclude_each_other(nano_file: Path) -> None:
    with pytest.raises(WeightsError, match=r"random_seed=1 .* expected one of them"):
        build_model("nano", nano_file, random_seed=1)


def test_random_weights_are_the_same_in_every_process_and_leave_the_generator_alone() -> None:
    program = (
        "import hashlib, json, sys, torch; from engines.weights import build_model\n"
        "torch.manual_seed(int(sys.argv[1])); torch.rand(3); before = torch.get_rng_state()\n"
        "state = build_model('nano', random_seed=5).state_dict()\n"
        "print(json.dumps([hashlib.sha256(b''.join(t.numpy().tobytes() for t in state.values())).hexdigest(),\n"
        "                  torch.equal(before, torch.get_rng_state()), 'torchvision' in sys.modules]))\n"
    )
    results = [
        json.loads(
            subprocess.run([sys.executable, "-c", program, seed], cwd=ROOT, capture_output=True, check=True).stdout
        )
        for seed in ("1", "2")
    ]
    assert results[0] == results[1] and results[0][1:] == [True, False]
    first, second = (build_model("nano", random_seed=seed).no_mem_embed for seed in (5, 6))
    assert not torch.equal(first, second)


def test_building_needs_and_leaves_no_global_hydra_state() -> None:
    instance = GlobalHydra.instance()
    kept = instance.hydra
    instance.hydra = None
    try:
        build_model("nano", random_seed=0)
        assert not GlobalHydra.instance().is_initialized()
    finally:
        instance.hydra = kept
