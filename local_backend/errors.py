"""The errors that end a command, and the exit code each one means.

BackendError            1   something went wrong; the message says what and what to do
 ConfigError            2   an argument or a file that the user named is wrong
 WeightsError           1   the model cannot be fetched, converted or read
"""


class BackendError(Exception):
    """A failure with a message for the user, never shown with a traceback."""

    exit_code = 1


class ConfigError(BackendError):
    """An argument, an environment variable or a named file is wrong."""

    exit_code = 2


class WeightsError(BackendError):
    """The model's weights cannot be fetched, converted or read."""
