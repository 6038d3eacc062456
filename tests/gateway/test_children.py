"""Child processes that are kept running, with real ones."""

import asyncio
import random
import stat

from gateway.children import Child, RestartOptions
from gateway.clock import SystemClock

SOON = RestartOptions(base=0.01, cap=0.05)


async def test_a_program_that_cannot_be_started_is_tried_again(tmp_path, caplog):
    program, started = tmp_path / "program", tmp_path / "started"
    child = Child("the child", [str(program)], SystemClock(), random.Random(1), options=SOON)
    child.start()
    while "could not be started" not in caplog.text:
        await asyncio.sleep(0.01)
    written = tmp_path / "written"
    written.write_text(f"#!/bin/sh\ntouch {started}\nexec sleep 60\n", encoding="ascii")
    written.chmod(stat.S_IRWXU)
    written.rename(program)
    while not started.exists():
        await asyncio.sleep(0.01)
    await child.stop(5)
    assert "the child could not be started ([Errno 2] No such file or directory" in caplog.text
    assert "ended with code" not in caplog.text
