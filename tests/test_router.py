"""A router: what it reads, what it learns, what it is sure of, and what it gives to serving."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import CONFIG, tiny
from tiny_run import config, read

from hen_jax import cli
from hen_jax.adapters.experts import NOBODY, expert_gate
from hen_jax.adapters.router import hard_choice, pooled, soft_weights, state_reader
from hen_jax.core.errors import InputError
from hen_jax.core.mesh import make_mesh
from hen_jax.data.schemas import read_documents
from hen_jax.evaluation.routing import Calibrated, auroc, calibrate, left_out_auroc, routing_report
from hen_jax.evaluation.softmax_ridge import fit_softmax, word_logits
from hen_jax.models.config import Execution, LoraConfig
from hen_jax.models.decoder import abstract, merge, split
from hen_jax.planning.topologies import Topology
from hen_jax.recipes.router_vectors import raw_vectors, scale_of
from hen_jax.runs import train
from hen_jax.runs.abstract import program
from hen_jax.runs.export.folders import export
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.model import ensure_model
from hen_jax.runs.routing import open_router, read_router, routes
from hen_jax.runs.sources import locate_source
from hen_jax.runs.tiny_model import write_tiny_model
from hen_jax.steps.router import HEAD, Routed, router_head, router_loss
from hen_jax.text.conversation import Message
from hen_jax.training.metrics import read_metrics

PLAIN = Execution(remat="none")


def test_the_mean_is_over_a_rows_own_positions():
    hidden = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    own = np.asarray([[0, 1, 1], [0, 0, 0]], np.float32)
    found = np.asarray(pooled(jnp.asarray(hidden), jnp.asarray(own)))
    np.testing.assert_allclose(found[0], hidden[0, 1:].mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(found[1], 0)


@pytest.mark.parametrize("layers", [1, CONFIG.layers])
def test_states_are_those_of_a_shorter_model_whatever_is_read_beside(layers):
    base, random = tiny().base, np.random.default_rng(1)
    documents = [random.integers(0, CONFIG.vocab_size, length) for length in (5, 40, 9)]
    reader = state_reader(CONFIG, base, layers, PLAIN)
    together = reader(documents, 2)
    blocks = jax.tree.map(lambda leaf: leaf[:layers], base["blocks"])
    lower = dataclasses.replace(CONFIG, layers=layers)
    model = merge(split(abstract(lower, None, PLAIN)).graphdef, base | {"blocks": blocks})
    for at, tokens in enumerate(documents):
        row = jnp.asarray(tokens)[None]
        hidden = model.hidden(row, jnp.arange(row.shape[1])[None], jnp.ones_like(row))
        np.testing.assert_allclose(together[at], hidden[0, 2:].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(reader(documents[1:2], 2)[0], together[1], atol=1e-5)


def mixture(rows: int = 90, width: int = 6):
    """Three groups of points that overlap a little."""
    random = np.random.default_rng(2)
    labels = np.arange(rows) % 3
    centres = random.normal(size=(3, width))
    return (centres[labels] + random.normal(size=(rows, width))).astype(np.float32), labels


def test_the_loss_is_softmax_regression_with_a_ridge():
    x, labels = mixture()
    batch = Routed(jnp.asarray(x), jnp.asarray(labels))
    start = router_head(jax.random.key(0), 6, 3)
    mean, metrics = router_loss(0.1)(start, {}, batch)
    assert float(mean.value) == pytest.approx(np.log(3), rel=1e-6)
    assert float(metrics["accuracy"].value) == pytest.approx(1 / 3)
    best = fit_softmax(x, labels, 3, 0.1)
    params = {HEAD: {"kernel": jnp.asarray(best.kernel), "bias": jnp.asarray(best.bias)}}
    slope = jax.grad(lambda p: router_loss(0.1)(p, {}, batch)[0].value)(params)
    for leaf in jax.tree.leaves(slope):
        np.testing.assert_allclose(
            leaf, 0, atol=2e-4
        )  # the optimum of the one is that of the other
    without = router_loss(0.0)(params, {}, batch)[0].value
    drawn = 0.05 * np.sum(best.kernel**2)
    value = router_loss(0.1)(params, {}, batch)[0].value
    assert float(value - without) == pytest.approx(drawn, rel=1e-4)


def test_a_temperature_is_found_again_and_a_threshold_keeps_its_share():
    random = np.random.default_rng(3)
    probabilities = random.dirichlet(np.ones(3), size=4000)
    labels = np.asarray([random.choice(3, p=one) for one in probabilities])
    found = calibrate(2.5 * np.log(probabilities), labels, keep=0.9)
    assert found.temperature == pytest.approx(2.5, rel=0.1)
    confidence = found.probabilities(2.5 * np.log(probabilities)).max(axis=1)
    assert (confidence >= found.threshold).mean() == pytest.approx(0.9, abs=1e-3)
    whole = calibrate(np.log(probabilities), labels, keep=1.0)
    assert whole.threshold == pytest.approx(
        whole.probabilities(np.log(probabilities)).max(axis=1).min()
    )


def test_auroc_counts_pairs():
    assert auroc(np.asarray([0.9, 0.8]), np.asarray([0.1, 0.8])) == pytest.approx(3.5 / 4)
    assert np.isnan(auroc(np.zeros(0), np.ones(2)))


def test_an_expert_left_out_is_unknown():
    x, labels = mixture(300)
    far = x.copy()
    far[labels == 2] = 0  # between the others: the regression of two is not sure of it
    found = left_out_auroc((far, labels), (far, labels), ["a", "b", "c"], 1e-2)
    assert found["c"] > 0.6
    assert left_out_auroc((x, labels % 2), (x, labels % 2), ["a", "b"], 1e-2)["mean"] is None


def test_the_report_counts_who_was_given_to_whom():
    logits = np.log([[0.9, 0.1], [0.4, 0.6], [0.45, 0.55], [0.2, 0.8]])
    labels = np.asarray([0, 0, 1, 1])
    found = routing_report(logits, labels, list("abcd"), ["x", "y"], Calibrated(1.0, 0.58))
    assert found["confusion"] == [[1, 1, 0], [0, 1, 1]]
    assert found["accuracy"]["value"] == 0.75
    assert (found["routed"], found["accuracy_of_routed"]) == (0.75, 0.6667)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2, abs=1e-4)


def test_words_tell_what_words_can_tell():
    texts = ["my dog died", "the dog is gone", "a letter to write", "write the letter"] * 5
    labels = np.asarray([0, 0, 1, 1] * 5)
    found = word_logits(texts, labels, ["dog", "letter", "zebra", ""], 2)
    assert found[0].argmax() == 0
    assert found[1].argmax() == 1
    np.testing.assert_array_equal(found[2], found[3])  # a word that was never seen says nothing


def test_weights_gate_the_experts():
    probabilities = np.asarray([[0.7, 0.3], [0.52, 0.48]])
    assert hard_choice(probabilities, 0.6).tolist() == [0, NOBODY]
    weights = soft_weights(probabilities, 0.6)
    np.testing.assert_allclose(weights, [[0.7, 0.3], [0, 0]])
    gate = expert_gate([LoraConfig(2, 6.0), LoraConfig(1, 5.0)], jnp.asarray(weights))
    np.testing.assert_allclose(gate[:, 0], [[2.1, 2.1, 1.5], [0, 0, 0]], rtol=1e-6)


ROUTES = (
    {"name": "distress", "sources": ({"schema": "steered", "path": "shipped:eea/distress.jsonl"},)},
    {"name": "writing", "sources": ({"schema": "steered", "path": "shipped:eea/writing.jsonl"},)},
)
FIELDS = {
    "recipe": "router",
    "routes": ROUTES,
    "unknown": ({"schema": "steered", "path": "shipped:eea/learning.hard.jsonl"},),
    "reading": {"longest": 64, "turns": 2},
    "adapter": None,
    "sources": (),
    "data": None,
    "epochs": None,
    "optimizer": {"learning_rate": 3e-2},
    "updates": 240,
    "loop": {"evaluators": ("routing",), "checkpoint_every": 160},
}


def fields(base: Path, **changes):
    node = config(base, **FIELDS | changes)
    del node["data"], node["epochs"]
    return node


@pytest.fixture(scope="module")
def finished(tiny_base, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("router") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))
        stage, parsed = read(fields(tiny_base))
        train.run(stage, parsed, workdir)
    return workdir


def test_the_folder_routes_as_the_report_says(finished):
    report = json.loads((finished / "router.json").read_text())
    assert set(report["controls"]) == {"bag_of_words", "majority"}
    assert report["unknown"]["conversations"] == 20
    assert 0 <= report["unknown"]["auroc"] <= 1
    assert sum(map(sum, report["confusion"])) == report["conversations"] > 10
    assert (finished / "router.png").stat().st_size > 1000
    router = read_router(finished / "router")
    assert router.names == ("distress", "writing")
    route = open_router(finished / "router")
    _, parsed = read(fields(Path(router.base["folder"])))
    test = parsed.parts(known_tokenizer(Path(router.base["folder"])))["test"]
    said = {
        document.group: document.conversation.messages
        for one in parsed.routes
        for source in one.sources
        for document in read_documents(locate_source(source.path), source.schema)
    }
    whole = [at for at, mine in enumerate(test.whole) if mine]
    found = route([said[test.groups[at]] for at in whole])
    assert set(report["by_messages"]) == {"1", "2"}
    best = [max(one.probabilities.values()) == one.probabilities[router.names[label]]
            for one, label in zip(found, test.labels[whole], strict=True)]  # fmt: skip
    assert np.mean(best) == pytest.approx(report["accuracy"]["value"], abs=1e-4)
    assert report["by_messages"]["2"]["accuracy"] == report["accuracy"]["value"]
    confusion = np.zeros((2, 3), int)
    for label, one in zip(test.labels[whole], found, strict=True):
        place = 2 if one.expert is None else router.names.index(one.expert)
        confusion[label, place] += 1
        assert one.probability == max(one.probabilities.values())
        assert one.weights == ({} if one.expert is None else {one.expert: 1.0})
    assert confusion.tolist() == report["confusion"]
    assert route([]) == []


def test_it_trains_to_the_optimum(finished, tiny_base):
    stage, parsed = read(fields(tiny_base))
    job = train.open_job(stage, parsed, make_mesh(parsed.mesh, jax.devices()[:1]),
                         ensure_model(parsed.model), finished)  # fmt: skip
    vectors, labels = raw_vectors(job)("train"), job.feed.batches.parts["train"].labels
    best = fit_softmax(scale_of(vectors).standard(vectors), labels, 2, parsed.ridge)
    params = {HEAD: {"kernel": jnp.asarray(best.kernel), "bias": jnp.asarray(best.bias)}}
    batch = Routed(jnp.asarray(scale_of(vectors).standard(vectors)), jnp.asarray(labels))
    least = float(router_loss(parsed.ridge)(params, {}, batch)[0].value)
    last = [one["loss"] for one in read_metrics(finished) if one["kind"] == "train"][-1]
    assert least - 1e-5 < last < least + 0.01


def test_sticky_reads_the_first_messages_and_else_the_last(finished):
    route = open_router(finished / "router")
    texts = ("My aunt died.", "She was eighty.", "A letter, please.")
    first, second, last = (Message("user", text) for text in texts)
    talk = [first, Message("assistant", "Oh."), second, Message("assistant", "Hm."), last]
    begun, ended = (route([pair])[0] for pair in ([first, second], [second, last]))
    assert route([talk])[0] == begun
    assert route([talk], sticky=False)[0] == ended
    assert begun.probabilities != ended.probabilities
    other = [first, Message("assistant", "Something else."), *talk[2:]]
    assert route([other]) == route([talk])  # whoever answered
    (soft,) = route([[first]], "soft")
    assert sum(soft.weights.values()) == pytest.approx(1) or soft.expert is None
    with pytest.raises(InputError, match="without a message of the user has no route"):
        route([[Message("assistant", "Hello.")]])


def test_the_verb_says_who_answers(finished, tmp_path, capsys):
    flags = ["route", f"--router={finished / 'router'}"]
    assert cli.main([*flags, "--prompt=My aunt died.", "--prompt=A letter.", "--mode=soft"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(line["probabilities"]) for line in lines] == [{"distress", "writing"}] * 2
    path = tmp_path / "talk.json"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "My aunt died."}]}))
    assert cli.main([*flags, f"--messages={path}", "--mode=soft"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["probabilities"] == pytest.approx(lines[0]["probabilities"], rel=1e-5)
    assert cli.main(flags) == 2
    assert cli.main(["route", f"--router={tmp_path}", "--prompt=Hi."]) == 2
    said = capsys.readouterr().err
    assert "no prompt; give --prompt" in said
    assert "holds no router" in said


def test_below_the_threshold_the_base_answers(finished):
    router = read_router(finished / "router")
    sure = router._replace(calibrated=router.calibrated._replace(threshold=0.9))
    found = routes(sure, np.asarray([[0.0, 0.1], [500.0, 0.0]]), "soft")
    assert (found[0].expert, found[0].weights) == (None, {})
    assert found[1].expert == "distress"
    assert found[1].weights["distress"] == pytest.approx(1.0, abs=1e-3)


def test_a_damaged_router_or_another_model_is_refused(finished, tmp_path):
    copy = tmp_path / "router"
    shutil.copytree(finished / "router", copy)
    weights = copy / "router.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="does not have the SHA-256"):
        read_router(copy)
    with pytest.raises(InputError, match=r"holds no router"):
        read_router(finished)
    other = tmp_path / "other"
    write_tiny_model(other, None, seed=1)
    with pytest.raises(InputError, match="was trained on other weights"):
        open_router(finished / "router", other)
    with pytest.raises(InputError, match="trained a router, which is used as it lies"):
        export(finished, tmp_path / "out", "hf")


def test_a_stopped_run_goes_on_bit_for_bit(finished, tiny_base, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))
        copy = tmp_path / "run"
        shutil.copytree(finished, copy)
        shutil.rmtree(copy / "checkpoints" / "240")
        shutil.rmtree(copy / "router")
        stage, parsed = read(fields(tiny_base))
        train.run(stage, parsed, copy)
    one, other = (read_router(folder / "router") for folder in (finished, copy))
    np.testing.assert_array_equal(one.kernel, other.kernel)
    assert one.calibrated == other.calibrated


def test_a_plan_has_the_step_of_a_run(tiny_base):
    stage, parsed = read(fields(tiny_base))
    made = program(stage, parsed, Topology("here", "v5e", "2x4", 1, tuple(jax.devices())))
    state, metrics = jax.eval_shape(made.step, *made.arguments)
    assert {"loss", "accuracy"} <= set(metrics)
    assert list(state.params) == [HEAD]  # nothing of the model trains


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"routes": ROUTES[:1]}, r"give two or more"),
        ({"routes": (ROUTES[0], ROUTES[0])}, r"each its own name"),
        ({"adapter": {"rank": 2, "alpha": 4.0}}, "a router leaves the model as it is"),
        ({"folds": {"count": 2}}, "3 or more; one tests, one calibrates"),
        ({"microbatches": 2}, r"microbatches: allowed: 1"),
        ({"reading": {"layer": 3}}, r"layer is 3; the model has 2"),
        ({"keep": 0.0}, r"keep is 0\.0"),
        ({"routes": (ROUTES[0], {**ROUTES[0], "name": "again"})}, "is of two experts"),
        ({"folds": {"count": 500}}, r"part has no conversation of"),
        ({"routes": (ROUTES[0], {"name": "empty", "sources": ()})}, "empty has no sources"),
    ],
)
def test_bad_input_is_one_line(tiny_base, tmp_path, changes, message):
    def attempt() -> None:
        stage, parsed = read(fields(tiny_base, **changes))
        train.run(stage, parsed, tmp_path / "run")

    with pytest.raises(InputError, match=message):
        attempt()
