"""A real Prometheus: Debian's package, where it is installed."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.kit.processes import Process


@contextmanager
def prometheus(folder: Path, config: Mapping[str, Any], port: int, *flags: str) -> Iterator[str | None]:
    """Run it in ``folder`` with a configuration; its URL, None where there is no such program."""
    program = shutil.which("prometheus")
    if program is None:
        yield None
        return
    file, log_file = folder / "prometheus.yml", folder / "prometheus.log"
    file.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    argv = [program, f"--config.file={file}", f"--storage.tsdb.path={folder / 'prometheus'}", *flags]
    with log_file.open("wb") as log:
        popen = subprocess.Popen(
            [*argv, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=subprocess.STDOUT
        )
    process = Process(popen, log_file)
    try:
        process.line_with("Server is ready to receive web requests")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stop()
