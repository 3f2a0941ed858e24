#!/usr/bin/env bash
# tokenizers 0.23.1: an added token with normalized=True under a lowercasing normalizer is itself
# folded: it matches text in any case, and its id decodes, and is listed, in lower case, so a name
# given as a token does not come back as it was added. With normalized=False it matches its own
# spelling only.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check tokenizers==0.23.1 2>/dev/null
"$work/venv/bin/python" - > "$work/seen" <<'PY'
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

for normalized in (True, False):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "hi": 1}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_tokens([AddedToken("Quokka", normalized=normalized)])
    ids = tokenizer.encode("hi QUOKKA Quokka").ids
    print(normalized, ids, repr(tokenizer.id_to_token(2)), repr(tokenizer.decode([2])))
PY
cat "$work/seen"
diff "$work/seen" - <<'SEEN'
True [1, 2, 2] 'quokka' 'quokka'
False [1, 0, 2] 'Quokka' 'Quokka'
SEEN
echo "as recorded"
