"""Real models end to end: experts trained, exported, and measured by the exports of others."""

import json

import jax
import numpy as np
import pytest
from tiny_run import run

from hen_jax.core.errors import InputError
from hen_jax.core.mesh import make_mesh
from hen_jax.runs import train
from hen_jax.runs.export.experts import export_experts
from hen_jax.runs.export.folders import export
from hen_jax.text.conversation import Message
from hen_jax.verbs import score
from hen_jax.verbs.evaluate.experts_levels import crossed_of
from hen_jax.verbs.evaluate.experts_measured import measure_experts
from hen_jax.verbs.evaluate.experts_measures import opened
from hen_jax.verbs.evaluate.experts_settings import LevelMeasure, read_measurement

pytestmark = pytest.mark.slow  # four runs are compiled and trained


@pytest.fixture(scope="module")
def exports(tiny_base, tmp_path_factory):
    """`experts/distress`, and a preference and a rating model with their controls."""
    folder = tmp_path_factory.mktemp("exports")
    sources = ({"schema": "steered", "path": "shipped:eea/distress.jsonl"},)
    with pytest.MonkeyPatch.context() as patch:
        for module in (train, score):
            patch.setattr(module, "make_mesh", lambda c: make_mesh(c, jax.devices()[:1]))
        run(
            tiny_base, folder / "run", recipe="experts", sources=(), epochs=0.2,
            experts=({"name": "distress", "sources": sources},),
            data={"row_length": 512, "batch_size": 1},
        )  # fmt: skip
        export_experts(folder / "run", folder / "experts", "peft")
        crossed = ({"schema": "crossed", "path": "shipped:crossed/level.en.jsonl"},)
        for name, reads in (("reward", "conversation"), ("replies", "replies")):
            run(
                tiny_base, folder / f"run-{name}", recipe="reward", adapter=None, epochs=0.2,
                sources=crossed, data={"row_length": 352, "batch_size": 8}, reads=reads,
                level="turn", loop={"evaluators": ("preferences",)},
            )  # fmt: skip
            export(folder / f"run-{name}", folder / name, "hf")
        run(
            tiny_base, folder / "run-rating", recipe="regression", adapter=None, epochs=0.2,
            sources=({"schema": "sense7", "path": "shipped:sense7/conversations.jsonl"},),
            data={"row_length": 2048, "batch_size": 2}, loop={"evaluators": ()},
        )  # fmt: skip
        export(folder / "run-rating", folder / "rating", "hf")
    return folder


def measures(exports):
    return [
        {
            "name": "preference",
            "model": str(exports / "reward"),
            "replies": str(exports / "replies"),
        },
        {"name": "generic", "kind": "rating", "model": str(exports / "rating")},
    ]


def test_from_models_to_a_report(tiny_base, exports, tmp_path):
    given = {
        "backend": f"model:{tiny_base}",
        "conversations": [{"schema": "steered", "path": "shipped:eea/distress.jsonl"}],
        "arms": [
            {"name": "baseline"},
            {"name": "adapter", "adapter": str(exports / "experts/{expert}")},
        ],
        "measures": measures(exports),
        "limit": 3,
        "turns": 2,
        "max_new_tokens": 6,
        "draws": 50,
    }
    (tmp_path / "measured.json").write_text(json.dumps(given))
    found = measure_experts(read_measurement(tmp_path / "measured.json"), tmp_path / "out")
    assert found["arms"]["adapter"]["replies"] == 6
    assert found["arms"]["baseline"]["by"] != found["arms"]["adapter"]["by"]
    preference, generic = (found["measures"][name] for name in ("preference", "generic"))
    assert preference["target"] == "chosen"
    assert generic["target"] == "stated"
    assert generic["desired"]["distress"]["value"] == 0.9
    assert 0 < preference["levels"]["adapter"]["distress"]["value"] < 1
    assert "level" in preference["crossed"]
    assert preference["claim"].startswith("Above chance on crossed pairs of: ")
    assert "no crossed accuracy" in generic["claim"]
    assert preference["effects"]["adapter"]["difference"]["value"] is not None
    assert "effects" not in generic


def test_levels_are_those_of_the_calibration_and_controls_see_replies_alone(exports):
    preference = LevelMeasure(**measures(exports)[0])
    said = (Message("user", "I lost my job."), Message("assistant", "That is hard."))
    other = (Message("user", "I found my cat."), said[1])
    whole = opened(preference, False, "distress")((said, other))
    assert whole[0] != whole[1]
    alone = opened(preference, True, "distress")((said, other))
    np.testing.assert_array_equal(alone[0], alone[1])
    assert ((whole > 0) & (whole < 1)).all()
    assert crossed_of(preference, ["distress", "writing"])["level"]["groups"] > 5


def test_a_model_that_is_none_of_its_kind_is_refused(exports):
    for wrong, message in (
        (LevelMeasure("m", "rating", str(exports / "reward")), "is a preference model"),
        (LevelMeasure("m", "preference", str(exports / "replies")), "it is no measure"),
        (LevelMeasure("m", "preference", str(exports / "nowhere")), "no model at"),
        (LevelMeasure("m", "preference", str(exports / "rating")), "brings no calibration"),
    ):
        with pytest.raises(InputError, match=message):
            opened(wrong, False, "distress")
    wrong = LevelMeasure(
        "m", "preference", str(exports / "reward"), replies=str(exports / "reward")
    )
    with pytest.raises(InputError, match="a control needs one of"):
        opened(wrong, True, "distress")
