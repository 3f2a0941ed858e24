#!/usr/bin/env bash
# optax 0.2.8, jax 0.10.2: `softmax_cross_entropy_with_integer_labels` takes a negative label as an
# index from the end, so -1 is scored as the last class; -100, which PyTorch's cross entropy leaves
# out by default, is beyond the classes and gives NaN. Neither is ignored, and neither is refused.
# Remedy: mask, or `where=`, before the sum.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check optax==0.2.8 jax==0.10.2 2>/dev/null
"$work/venv/bin/python" - > "$work/seen" <<'PY'
import os

os.environ["JAX_PLATFORMS"] = "cpu"
import jax.numpy as jnp
import optax

logits = jnp.array([[0.0, 1.0, 2.0]])
for label in (2, -1, -100):
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.array([label]))
    print(label, round(float(loss[0]), 4))
PY
cat "$work/seen"
diff "$work/seen" - <<'SEEN'
2 0.4076
-1 0.4076
-100 nan
SEEN
echo "as recorded"
