#!/usr/bin/env bash
# jax 0.10.2: without jax_enable_x64, `jax.random.key(seed)` keeps the low 32 bits of a Python
# integer and says nothing, so seeds that differ by a multiple of 2**32 (a time in nanoseconds, a
# hash) give the same numbers. One would expect an OverflowError, as numpy and jnp.asarray raise for
# such an integer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check jax==0.10.2 2>/dev/null
"$work/venv/bin/python" - > "$work/seen" <<'PY'
import os

os.environ["JAX_PLATFORMS"] = "cpu"
import jax
import jax.numpy as jnp

for seed in (5, 2**32 + 5, 2**40 + 5):
    print(seed, jax.random.key_data(jax.random.key(seed)).tolist())
try:
    print(jnp.asarray(2**40 + 5))
except OverflowError as error:
    print("OverflowError:", error)
PY
cat "$work/seen"
diff "$work/seen" - <<'SEEN'
5 [0, 5]
4294967301 [0, 5]
1099511627781 [0, 5]
OverflowError: Python int 1099511627781 too large to convert to int32
SEEN
echo "as recorded"
