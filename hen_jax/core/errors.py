"""What bad input raises, and what ends a run that can go on."""

STOPPED = 75
"""Exit code of a run that was asked to stop and saved a checkpoint (EX_TEMPFAIL: try again)."""

LOST = 76
"""Exit code of a process that cannot go on because another one died or hangs."""


class InputError(ValueError):
    """Input the user can mend: a file, a line, a field, a flag.

    The message names the offender (file, line, field) and the remedy. The command line prints it
    on one line, without a traceback, and exits with code 2.
    """


class StoppedError(RuntimeError):
    """A run that was asked to stop: its checkpoint is saved, and the same command takes it up.

    The command line prints it on one line and exits with code `STOPPED`.
    """
