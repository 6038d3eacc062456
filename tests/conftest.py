"""What holds for all tests."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell ignores Ctrl-C for what it runs in the background, and all children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
