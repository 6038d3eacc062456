import importlib.util
import re
from pathlib import Path

import pytest

from gateway.wire import errors as wire
from tests.kit.metrics import series_of_the_gateway

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def metrics_page():
    spec = importlib.util.spec_from_file_location("generate_metrics", DOCS / "generate_metrics.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_metrics_is_in_step():
    generator = metrics_page()
    found = generator.PAGE.read_text(encoding="utf-8")
    assert found == generator.page(), "run python docs/generate_metrics.py"


def test_queries_name_metrics_that_exist():
    generator = metrics_page()
    queries = re.findall(r"```promql\n(.*?)```", generator.PAGE.read_text(encoding="utf-8"), re.DOTALL)
    labels = {label for metric in generator.registered() for label in metric._labelnames}
    named = set(re.findall(r"\b(?:tidegate|gen_ai)_\w+", "".join(queries))) - labels
    assert named
    assert named <= series_of_the_gateway()


def test_every_error_is_on_the_page_of_the_api():
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, re.MULTILINE))
    codes = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| (.*?) \|", page, re.MULTILINE))
    for error, shape in wire._SHAPES.items():
        name = error.__name__
        assert rows[name] in {str(shape.status), "the upstream's"}, name
        assert shape.code is None or f"`{shape.code}`" in codes[name] or codes[name] == "the upstream's", name


@pytest.fixture(scope="module")
def first_layer():
    """The layer of CONTRIBUTING.md with its tests, by name."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    layer, tests, _ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    namespace = {"__name__": "first_layer"}
    exec(compile(layer, "CONTRIBUTING.md", "exec"), namespace)
    exec(compile(tests, "CONTRIBUTING.md", "exec"), namespace)
    return namespace


def test_the_first_layer_works(first_layer):
    tests = [thing for name, thing in first_layer.items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        test()


def test_links_between_documents_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"
