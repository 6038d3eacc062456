"""The API keeps to its own description: requests made from /openapi.json, right and wrong ones.

The suite sends some 600. More of each kind for each endpoint:
TIDEGATE_CASES=50 pytest -s tests/conformance/test_openapi.py
"""

import os

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from tests.kit import processes
from tests.kit.processes import ADMIN_KEY, CLIENT_KEY

CASES = int(os.environ.get("TIDEGATE_CASES", "12"))
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.unsupported_method,
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openapi")
    with processes.faulty_upstream(folder) as upstream:
        config = processes.settings(upstream.url, folder / "tidegate.db")
        with processes.gateway(folder, config) as running:
            yield running
            log = running.log()
    assert "Traceback" not in log, log[-5000:]


def check(operation, mode):
    """Send an endpoint requests of a kind; how many, and what is wrong with its answers."""
    sent = 0

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=CASES,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def answer_is_as_described(case):
        nonlocal sent
        sent += 1
        key = ADMIN_KEY if case.path.startswith("/admin") else CLIENT_KEY
        case.call_and_validate(headers={"authorization": f"Bearer {key}"}, checks=CHECKS, timeout=20)

    try:
        answer_is_as_described()
    except Unsatisfiable:  # an endpoint that takes nothing can't be asked wrongly
        return sent, ""
    except (FailureGroup, AssertionError) as failure:
        return sent, f"{operation.label}: {failure}"
    return sent, ""


def test_every_answer_is_as_described(gateway):
    schema = schemathesis.openapi.from_url(f"{gateway.url}/openapi.json")
    described = schema.exclude(path="/admin/events")  # its answer ends when the worker does
    operations = [found.ok() for found in described.get_all_operations()]
    outcomes = [check(operation, mode) for operation in operations for mode in GenerationMode]
    faults = "\n\n".join(fault for _, fault in outcomes if fault)
    assert not faults, faults
    total = sum(sent for sent, _ in outcomes)
    print(f"{total} requests to {len(operations)} endpoints")  # noqa: T201 - for who runs it with -s
    assert total > 10 * len(operations)


def test_every_endpoint_that_says_it_needs_a_key_does(gateway):
    with gateway.client(key=None) as client:
        description = client.get("/openapi.json").json()
        secured = [
            (method, path)
            for path, operations in description["paths"].items()
            for method, operation in operations.items()
            if operation.get("security")
        ]
        assert len(secured) > 20
        for method, path in secured:
            answer = client.request(method, path.replace("{", "").replace("}", ""), json={})
            assert answer.status_code == 401, (method, path)
