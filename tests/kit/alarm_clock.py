"""The running loop's clock, with alarms."""

import asyncio

from gateway.clock import LoopClock


class AlarmLoopClock(LoopClock):
    def call_at(self, when, callback):
        return asyncio.get_running_loop().call_at(when, callback)
