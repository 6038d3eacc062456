"""Work in a thread of its own: nothing of it stays."""

from pathlib import Path

import pytest
import torch

from local_backend.apart import apart
from local_backend.errors import ConfigError
from tests.kit.processes import eventually

TASKS = Path("/proc/self/task")


def threads() -> set[str]:
    return {task.name for task in TASKS.iterdir()}


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(not TASKS.is_dir(), reason="counts threads as Linux does")
def test_torch_leaves_no_team_of_threads_behind(two_threads):
    before = threads()
    within = []

    def multiply():
        torch.ones(1 << 20).exp()
        within.append(threads() - before)

    apart(multiply)
    assert len(within[0]) >= 2, "the thread and its helper"
    eventually(lambda: not within[0] & threads())


def test_what_it_raises_is_raised_here():
    def fail():
        raise ConfigError("no such model")

    with pytest.raises(ConfigError, match="no such model"):
        apart(fail)


def test_what_it_returns_is_returned_here():
    assert apart(lambda: 3) == 3
