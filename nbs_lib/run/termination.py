"""The end of a command by SIGTERM."""


class TerminatedError(KeyboardInterrupt):
    """SIGTERM has come: what ends on Ctrl-C ends on it as well, with another status."""
