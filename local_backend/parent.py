"""Ends this process when the one that started it is gone, so that no model server is left behind."""

import os
import signal
import threading

_INTERVAL_SECONDS = 0.5


def exit_with_parent(parent_pid: int) -> None:
    """Watch the parent from a thread; when another process adopts us, send ourselves SIGTERM.

    Comparing parents works where a signal on the parent's death (prctl) does not: that one follows the thread
    that started us, not its process.
    """
    threading.Thread(target=_watch, args=(parent_pid,), name="parent-watch", daemon=True).start()


def _watch(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        threading.Event().wait(_INTERVAL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
