"""lm-eval's local-completions asks `hen serve`: likelihoods are the training forward's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_server
from tiny_server import opened, running

from hen_jax.io import hf
from hen_jax.models.decoder import abstract, merge, split
from hen_jax.runs.tiny_model import CONFIG

PAIRS = [("It rains.", " My scooter broke down."), ("I am", " tired of all this"), ("x", " y")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["base", "calm"])
def test_likelihoods_and_replies(tmp_path, name):
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    folders = tiny_server.write_folders(tmp_path)
    with opened(folders, name="base") as served, running(served) as at:
        model = LocalCompletionsAPI(
            base_url=f"{at.url}/completions",
            model=name,
            tokenizer=str(folders["base"]),
            max_retries=1,
            batch_size=2,
        )
        asked = [Instance("loglikelihood", {}, pair, 0) for pair in PAIRS]
        found = model.loglikelihood(asked, disable_tqdm=True)
        rows = [tuple(map(model.tok_encode, pair)) for pair in PAIRS]
        until = {"until": ["."], "max_gen_toks": 6, "temperature": 0}
        [text] = model.generate_until(
            [Instance("generate_until", {}, (PAIRS[0][0], until), 0)], disable_tqdm=True
        )
    assert isinstance(text, str)
    base = hf.read_params(folders["base"], CONFIG)
    lora = tiny_server.LORAS.get(name)
    trees = [base] if lora is None else [tiny_server.adapter(lora, 0).leaves, base]
    decoder = merge(split(abstract(CONFIG, lora)).graphdef, *jax.tree.map(jnp.asarray, trees))
    for (log_prob, is_greedy), (context, rest) in zip(found, rows, strict=True):
        ids = np.asarray([*context, *rest])[None]
        hidden = decoder.hidden(ids, np.arange(ids.size)[None], np.ones_like(ids))
        logits = np.asarray(jax.nn.log_softmax(decoder.logits(hidden)))[0, len(context) - 1 : -1]
        assert log_prob == pytest.approx(logits[np.arange(len(rest)), rest].sum(), abs=1e-3)
        assert is_greedy == bool((logits.argmax(-1) == rest).all())
