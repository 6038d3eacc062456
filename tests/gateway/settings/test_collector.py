import subprocess
import sys

import pytest

from gateway.settings import load

# What it's like where the extra isn't installed: none of it can be found.
WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Nothing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Nothing())
from pathlib import Path
from gateway.settings import ConfigError, load
try:
    load(Path(sys.argv[1]))
except ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize("value", ["", "null", '"${OTEL_EXPORTER_OTLP_ENDPOINT:-}"'])
def test_an_empty_collector_is_none(tmp_path, monkeypatch, value):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    file = tmp_path / "tidegate.yaml"
    file.write_text(f"observability:\n  otlp: {value}\n", encoding="utf-8")
    assert load(file).observability.otlp is None


def test_without_the_extra_it_is_told_how_to_get_it(tmp_path):
    file = tmp_path / "tidegate.yaml"
    file.write_text("observability: {otlp: 'http://127.0.0.1:4318'}\n", encoding="utf-8")
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(file)], capture_output=True, text=True, check=True
    ).stdout
    assert "needs OpenTelemetry, which is not installed: run pip install 'tidegate[otel]'" in told
