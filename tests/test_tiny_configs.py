"""Every built-in config of a random model, run to its end as it is typed: `make stage-test`."""

import pytest

from hen_jax import cli
from hen_jax.core.files import read_json
from hen_jax.runs.config_files import built_in, find_config, open_config
from hen_jax.training.checkpoints import saved_steps

ELSEWHERE = {
    "ebg:tiny": "reads what `hen build ebg` writes: tests/test_method_stages.py",
    "muffin:tiny": "reads what `hen build muffin` writes: tests/test_method_stages.py",
    "pecer:tiny": "reads what `hen build traits` writes: tests/test_method_stages.py",
}
PIPELINES = ["pipeline:tiny", "hen_zh:tiny"]
TINY = [
    f"{name}:{variant}"
    for name in built_in()
    for variant in open_config(find_config(name)).variants
    if "tiny" in variant and f"{name}:{variant}" not in {*ELSEWHERE, *PIPELINES}
]


def test_they_are_found():
    assert {"sft:tiny", "emcl:tiny", "policy:ppo_tiny"} < set(TINY)


@pytest.mark.slow  # 10 to 20 s each
@pytest.mark.parametrize("config", TINY)
def test_it_runs_to_its_end(config, tmp_path):
    assert cli.main(["run", f"--config={config}", f"--workdir={tmp_path / 'run'}"]) == 0
    steps = saved_steps(tmp_path / "run" / "checkpoints")[0]
    assert steps > 0
    assert read_json(tmp_path / "run" / "hen_jax.json")["config"]["recipe"] == config.split(":")[0]


@pytest.mark.slow  # minutes each
@pytest.mark.parametrize("config", PIPELINES)
def test_a_pipeline_runs_to_its_report(config, tmp_path):
    assert cli.main(["run", f"--config={config}", f"--workdir={tmp_path / 'run'}"]) == 0
    assert "</html>" in (tmp_path / "run" / "report.html").read_text("utf-8")
