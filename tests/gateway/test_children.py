"""Child processes that are kept running, with real ones."""

import asyncio
import random
import stat
from pathlib import Path

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


async def test_one_that_is_stopped_while_it_is_being_started_leaves_nobody_behind(tmp_path):
    for steps in range(20):
        number = tmp_path / f"{steps}"
        program = ["/bin/sh", "-c", f"echo $$ > {number}; exec sleep 60"]
        child = Child("the child", program, SystemClock(), random.Random(1), options=SOON)
        child.start()
        for _ in range(steps):
            await asyncio.sleep(0.0005)
        await child.stop(5)
        assert not number.exists() or not Path(f"/proc/{number.read_text().strip() or 'none'}").exists()
