#!/usr/bin/env bash
# safetensors 0.8.0, numpy: `save` of an array that is not contiguous, such as a transpose, writes
# its memory as it lies under the shape of the view. What comes back has other numbers in the same
# shape, without a warning; one would expect the view's numbers, as numpy.save gives them. Remedy:
# np.ascontiguousarray before saving.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.3.5 2>/dev/null
"$work/venv/bin/python" - > "$work/seen" <<'PY'
import numpy as np
from safetensors.numpy import load, save

kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
print("saved ", kernel.T.tolist())
print("loaded", load(save({"kernel": kernel.T}))["kernel"].tolist())
PY
cat "$work/seen"
diff "$work/seen" - <<'SEEN'
saved  [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
loaded [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
SEEN
echo "as recorded"
