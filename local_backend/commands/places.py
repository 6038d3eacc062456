"""Where to compute and where to write, checked before anything is loaded or measured."""

import argparse
import os
import re
from pathlib import Path

_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,2})?")


def device(text: str) -> str:
    """A device's name."""
    if _DEVICE.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not auto, cpu, cuda or cuda:N")
    return text


def output_file(text: str) -> Path:
    """A file that can be written."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no file in a folder that exists")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written")
    return path


def output_folder(text: str) -> Path:
    """A folder that exists now and can be written to."""
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot make the folder {text}: {error.strerror}") from error
    if not os.access(path, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written to")
    return path
