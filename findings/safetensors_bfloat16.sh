#!/usr/bin/env bash
# safetensors 0.8.0, numpy: `load_file` of a bfloat16 tensor fails with a TypeError unless something
# else has imported ml_dtypes, although the package is installed. So the same line works in a
# program that imports jax first and fails in one that does not. Remedy: import ml_dtypes beside
# safetensors.numpy.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.3.5 ml_dtypes==0.6.0 2>/dev/null
"$work/venv/bin/python" - > "$work/seen" <<'PY'
import json
import struct
import tempfile

from safetensors.numpy import load_file

header = json.dumps({"one": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
    file.write(struct.pack("<Q", len(header)) + header + b"\x80\x3f")
    file.flush()
    try:
        print(load_file(file.name))
    except TypeError as error:
        print("TypeError:", error)
    import ml_dtypes  # noqa: F401

    print({name: x.tolist() for name, x in load_file(file.name).items()})
PY
cat "$work/seen"
diff "$work/seen" - <<'SEEN'
TypeError: data type 'bfloat16' not understood
{'one': [1.0]}
SEEN
echo "as recorded"
