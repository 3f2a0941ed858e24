#!/usr/bin/env bash
# jax 0.10.2 on a CPU: writing one row into a bfloat16 array of 1,048,576 numbers, by
# dynamic_update_slice or by a scatter, compiles to a conversion of all of them to float32 and back;
# of float32 and of 16-bit whole numbers only the row is written. A write into a cache of keys
# would rather be expected to cost half in half the bytes. Viewed as uint16 by
# bitcast_convert_type, the same write converts nothing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check jax==0.10.2 2>/dev/null
"$work/venv/bin/python" - > "$work/seen" <<'PY'
import os
import re

os.environ["JAX_PLATFORMS"] = "cpu"
import jax
import jax.numpy as jnp


def slice_(array, row, at):
    return jax.lax.dynamic_update_slice(array, row, (at, 0))


def scatter(array, row, at):
    return array.at[at].set(row[0], mode="drop", unique_indices=True)


def of_bits(write):
    def written(array, row, at):
        bits = [jax.lax.bitcast_convert_type(x, jnp.uint16) for x in (array, row)]
        return jax.lax.bitcast_convert_type(write(*bits, at), jnp.bfloat16)

    return written


for name, write, dtype in [
    ("slice, float32", slice_, jnp.float32),
    ("slice, uint16", slice_, jnp.uint16),
    ("slice, bfloat16", slice_, jnp.bfloat16),
    ("slice, bfloat16 as bits", of_bits(slice_), jnp.bfloat16),
    ("scatter, float32", scatter, jnp.float32),
    ("scatter, bfloat16", scatter, jnp.bfloat16),
    ("scatter, bfloat16 as bits", of_bits(scatter), jnp.bfloat16),
]:
    shapes = [jax.ShapeDtypeStruct(of, dtype) for of in ((1024, 1024), (1, 1024))]
    at = jax.ShapeDtypeStruct((), jnp.int32)
    text = jax.jit(write, donate_argnums=0).lower(*shapes, at).compile().as_text()
    whole = re.findall(r"= (\w+)\[1024,1024\]\S* convert\(", text)
    print(f"{name}: {len(whole)} conversions of the whole array")
PY
cat "$work/seen"
diff "$work/seen" - <<'SEEN'
slice, float32: 0 conversions of the whole array
slice, uint16: 0 conversions of the whole array
slice, bfloat16: 2 conversions of the whole array
slice, bfloat16 as bits: 0 conversions of the whole array
scatter, float32: 0 conversions of the whole array
scatter, bfloat16: 2 conversions of the whole array
scatter, bfloat16 as bits: 0 conversions of the whole array
SEEN
echo "as recorded"
