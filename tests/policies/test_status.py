import asyncio
import gc

import pytest

from policies.errors import UpstreamUnavailable
from policies.status import StatusHint, StatusOptions, StatusWatcher
from tests.kit.virtual_time import LoopClock, run_virtual

OPTIONS = StatusOptions(interval=60, memory=300)


@pytest.mark.parametrize(
    ("indicator", "factor"),
    [
        ("none", 1.0),
        ("minor", 0.5),
        ("maintenance", 0.5),
        ("major", 0.2),
        ("critical", 0.1),
        ("new word", 1.0),
    ],
)
def test_what_a_page_admits_scales_the_weight(indicator, factor):
    hint = StatusHint(OPTIONS)
    hint.told(100, indicator)
    assert hint.factor(400) == factor


def test_nothing_known_or_long_ago_scales_nothing():
    hint = StatusHint(OPTIONS)
    assert hint.factor(0) == 1
    hint.told(0, "critical")
    assert hint.factor(301) == 1


def test_the_page_is_read_again_and_again_and_a_failure_changes_nothing():
    said = iter(["major", UpstreamUnavailable("gone"), "none"])
    hint = StatusHint(OPTIONS)
    seen = []

    async def read():
        word = next(said)
        if isinstance(word, Exception):
            raise word
        return word

    async def main():
        task = asyncio.create_task(StatusWatcher(hint, read, options=OPTIONS, clock=LoopClock()).run())
        for _ in range(3):
            await asyncio.sleep(30)
            seen.append((hint.indicator, hint.factor(asyncio.get_running_loop().time())))
            await asyncio.sleep(30)
        task.cancel()

    run_virtual(main())
    assert seen == [("major", 0.2), ("major", 0.2), ("none", 1.0)]


def test_the_watcher_ends_when_nobody_uses_its_hint():
    reads = []

    async def read():
        reads.append(asyncio.get_running_loop().time())
        return "none"

    async def main():
        hint = StatusHint(OPTIONS)
        task = asyncio.create_task(StatusWatcher(hint, read, options=OPTIONS, clock=LoopClock()).run())
        await asyncio.sleep(90)
        del hint
        gc.collect()
        await task

    run_virtual(main())
    assert reads == [0, 60, 120]


def test_a_page_that_hangs_is_given_up_after_the_interval():
    async def read():
        await asyncio.sleep(3600)

    async def main():
        hint = StatusHint(OPTIONS)
        task = asyncio.create_task(StatusWatcher(hint, read, options=OPTIONS, clock=LoopClock()).run())
        await asyncio.sleep(1000)
        task.cancel()
        return hint.indicator

    assert run_virtual(main()) == "unknown"


def test_options_are_checked():
    with pytest.raises(ValueError, match="memory"):
        StatusOptions(interval=60, memory=30)
