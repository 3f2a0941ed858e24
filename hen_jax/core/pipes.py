"""Whether somebody still reads what a command prints."""

import os
import select
import sys


def output_is_closed(write_failed: bool = False) -> bool:
    """Whether the reader of the output is gone; what is still to be written then goes nowhere.

    An unbuffered stream has nothing left to flush: after a write that failed it is asked.
    """
    found = False
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
            closed = write_failed and _has_no_reader(stream.fileno())
        except BrokenPipeError:
            closed = True
        except (OSError, ValueError):  # a stream of a test, with no file behind it
            closed = False
        if closed:
            with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a name that is no path
                os.dup2(nowhere.fileno(), stream.fileno())
        found |= closed
    return found


def _has_no_reader(handle: int) -> bool:
    watch = select.poll()
    watch.register(handle, 0)
    return any(event & select.POLLERR for _, event in watch.poll(0))
