"""`python -m hen_jax` is `hen`."""

import sys

from hen_jax.cli import main

sys.exit(main())
