#!/usr/bin/env bash
# rouge-score 0.1.2: the default tokenizer drops every character that is not a Latin letter or a
# digit. Two equal Chinese sentences score 0, and two that have nothing in common but the number 28
# score 1.0. Nothing warns. Remedy: give RougeScorer a tokenizer that cuts Chinese into characters.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check rouge-score==0.1.2 2>/dev/null
"$work/venv/bin/python" - > "$work/seen" <<'PY'
from rouge_score import rouge_scorer

scorer = rouge_scorer.RougeScorer(["rougeL"])
print("equal  ", float(scorer.score("我们去公园吧。", "我们去公园吧。")["rougeL"].fmeasure))
print("unlike ", float(scorer.score("我今年28岁了。", "他住在28号楼。")["rougeL"].fmeasure))
PY
cat "$work/seen"
diff "$work/seen" - <<'SEEN'
equal   0.0
unlike  1.0
SEEN
echo "as recorded"
