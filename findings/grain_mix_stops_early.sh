#!/usr/bin/env bash
# grain 0.2.18: `MapDataset.mix` of finite sets ends as soon as one of them would run out at its
# share, and so leaves items of the others unseen: of ten items and four mixed 3 to 1, the fourth of
# the second set never comes; mixed 1 to 3, eight of ten of the first do not. One would expect an
# epoch of all, or an error. Remedy: repeat() each set, and count epochs by the caller.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check grain==0.2.18 jax==0.10.2 2>/dev/null
"$work/venv/bin/python" - > "$work/seen" <<'PY'
import os

os.environ["JAX_PLATFORMS"] = "cpu"
import grain

first = grain.MapDataset.source(list(range(10)))
second = grain.MapDataset.source([100, 101, 102, 103])
for weights in ([3, 1], [1, 3]):
    mixed = grain.MapDataset.mix([first, second], weights=weights)
    print(weights, [mixed[place] for place in range(len(mixed))])
PY
cat "$work/seen"
diff "$work/seen" - <<'SEEN'
[3, 1] [0, 1, 2, 100, 3, 4, 5, 101, 6, 7, 8, 102, 9]
[1, 3] [0, 100, 101, 102, 1]
SEEN
echo "as recorded"
