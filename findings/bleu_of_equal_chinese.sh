#!/usr/bin/env bash
# sacrebleu 2.6.0: corpus BLEU of a Chinese sentence against itself is 0.0 with the default
# tokenizer, which cuts at blanks and leaves the sentence as one token, so that there are no
# 4-grams; sentence BLEU, whose order is fitted to the length, says 100. With tokenize="zh" both are
# 100. TER with asian_support=True is 100 for one character changed in seven, as without it; it
# needs normalized=True besides.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check sacrebleu==2.6.0 2>/dev/null
"$work/venv/bin/python" - > "$work/seen" <<'PY'
import sacrebleu
from sacrebleu.metrics import TER

said = "今天天气很好，我们去公园走走吧。"
print("corpus BLEU, default  ", round(sacrebleu.corpus_bleu([said], [[said]]).score, 1))
print("sentence BLEU, default", round(sacrebleu.sentence_bleu(said, [said]).score, 1))
print("corpus BLEU, zh       ", round(sacrebleu.corpus_bleu([said], [[said]], tokenize="zh").score, 1))
one, other = "我们今天去公园", "我们今天去公司"
print("TER, asian_support            ", round(TER(asian_support=True).sentence_score(one, [other]).score, 1))
both = TER(asian_support=True, normalized=True)
print("TER, asian_support, normalized", round(both.sentence_score(one, [other]).score, 1))
PY
cat "$work/seen"
diff "$work/seen" - <<'SEEN'
corpus BLEU, default   0.0
sentence BLEU, default 100.0
corpus BLEU, zh        100.0
TER, asian_support             100.0
TER, asian_support, normalized 14.3
SEEN
echo "as recorded"
