"""hen_jax teaches language models context-calibrated empathy. Importing it changes nothing."""

import sys as _sys

if _sys.version_info < (3, 11):  # noqa: UP036 (a checkout is imported without pip)
    # With a name, `python -m hen_jax` tells it in one line instead of a traceback.
    raise ImportError(
        "hen_jax needs Python 3.11 or newer; this is " + _sys.version.split()[0], name=__name__
    )
