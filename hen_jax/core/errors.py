"""The one error that bad input raises."""


class InputError(ValueError):
    """Input the user can mend: a file, a line, a field, a flag.

    The message names the offender (file, line, field) and the remedy. The command line prints it
    on one line, without a traceback, and exits with code 2.
    """
