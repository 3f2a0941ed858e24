"""A policy from its config to its log: rollouts judged, resumed bit for bit, watched, refused."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_run import config, open_job, read, run

from hen_jax.core.errors import InputError
from hen_jax.recipes import policy, policy_rewards, policy_rollouts
from hen_jax.runs.export.folders import export
from hen_jax.runs.known_tokenizers import known_tokenizer
from hen_jax.runs.rollouts import RolloutConfig
from hen_jax.steps.preference import BASE, REFERENCE
from hen_jax.text.chat import render_bridge, render_prompt
from hen_jax.text.conversation import Message, Reply
from hen_jax.training.metrics import read_metrics
from hen_jax.training.red_flags import RedFlag, watchful

FIELDS = {
    "recipe": "policy",
    "sources": ({"schema": "hed", "path": "shipped:hed/hed.en.jsonl"},),
    "data": {"prompt_length": 160, "batch_size": 2, "held_out": 2},
    "rollout": {"replies": 3, "max_new_tokens": 8, "slots": 8, "show_every": 2},
    "rewards": ({"kind": "count"}, {"kind": "repetition", "held_out": True}),
    "adapter": {"rank": 2, "alpha": 4.0, "targets": ("q", "down")},
    "policy": {"truncated": "keep", "kl": {"coefficient": 0.1}},
    "execution": {"remat": "none"},
    "optimizer": {"learning_rate": 1e-2},
    "epochs": 0.05,
    "loop": {"checkpoint_every": 1, "trackers": ()},
}


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    """A reward that needs no reward model: the share of vowels."""
    reward = policy_rewards._plain(lambda source: lambda prompt, reply, record: _vowels(reply))
    monkeypatch.setitem(policy_rewards.REWARDS, "count", reward)


def _vowels(text):
    return sum(letter in "aeiou" for letter in text) / max(len(text), 1)


def train_lines(workdir):
    return [one for one in read_metrics(workdir) if one["kind"] == "train"]


def without_times(lines):
    timed = {"seconds", "seconds_per_update", "tokens_per_second", "seal", "learning_rate"}
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]


@pytest.fixture(scope="module")
def finished(tiny_base, tmp_path_factory) -> tuple[Path, dict]:
    """A GRPO run of a few steps."""
    workdir = tmp_path_factory.mktemp("policy") / "run"
    with pytest.MonkeyPatch.context() as patch:
        reward = policy_rewards._plain(lambda source: lambda prompt, reply, record: _vowels(reply))
        patch.setitem(policy_rewards.REWARDS, "count", reward)
        state = run(tiny_base, workdir, **FIELDS)
    return workdir, jax.device_get(state.params)


def cut_after(steps):
    """The stage with a rollout after which the machine is gone."""
    stage = policy.STAGE

    def prepare(job):
        whole = stage.prepare(job)

        def made(state, frozen, asked):
            if not asked.evaluating and asked.number == steps:
                raise RuntimeError("the machine is gone")
            return whole(state, frozen, asked)

        return made

    return stage._replace(prepare=prepare)


def test_the_log_of_a_run_tells_rewards_kl_and_the_held_out_probe(finished):
    workdir, _ = finished
    lines = train_lines(workdir)
    assert len(lines) > 2
    for line in lines:
        assert line["ratio"] == 1.0
        assert line["sampler_gap_max"] < 1e-4
        assert line["reward"] == pytest.approx(line["reward/count"], abs=1e-6)
        assert "reward/repetition" not in line  # training never sees it
    assert lines[0]["kl"] == 0.0
    assert lines[-1]["kl"] != 0.0
    evaluations = [one for one in read_metrics(workdir) if one["kind"] == "eval"]
    assert len(evaluations) == 2
    for line in evaluations:
        assert 0 < line["reward/repetition"] <= 1
        assert line["reward"] == pytest.approx(line["reward/count"], abs=1e-6)
    assert evaluations[0]["kl"] == 0.0


def test_sample_replies_are_written_for_people(finished):
    shown = json.loads((finished[0] / "rollouts" / "0.json").read_text())
    assert len(shown) == 2
    assert len(shown[0]["replies"]) == 3
    assert set(shown[0]["replies"][0]) == {"said", "cut_off", "rewards"}
    assert shown[0]["prompt"][-1].startswith("user: ")
    assert not (finished[0] / "rollouts" / "1.json").exists()


def test_what_is_cut_off_in_the_middle_goes_on_bit_for_bit(
    tiny_base, finished, tmp_path, monkeypatch
):
    whole, params = finished
    with monkeypatch.context() as patch:
        patch.setattr(policy, "STAGE", cut_after(2))
        with pytest.raises(RuntimeError, match="gone"):
            run(tiny_base, tmp_path / "cut", **FIELDS)
    state = run(tiny_base, tmp_path / "cut", **FIELDS)
    jax.tree.map(np.testing.assert_array_equal, params, jax.device_get(state.params))
    assert without_times(train_lines(tmp_path / "cut")) == without_times(train_lines(whole))


@pytest.mark.slow
def test_one_step_ahead_it_is_weighted_resumed_and_nearly_the_same(
    tiny_base, finished, tmp_path, monkeypatch
):
    fields = FIELDS | {
        "rollout": FIELDS["rollout"] | {"ahead": 1},
        "policy": FIELDS["policy"] | {"objective": {"importance_cap": 2.0}},
    }
    ahead = run(tiny_base, tmp_path / "ahead", **fields)
    lines = train_lines(tmp_path / "ahead")
    assert lines[0]["sampler_gap_max"] < 1e-4
    assert lines[2]["sampler_gap_max"] > 1e-4  # drawn with the parameters of one update before
    with monkeypatch.context() as patch:
        patch.setattr(policy, "STAGE", cut_after(2))
        with pytest.raises(RuntimeError, match="gone"):
            run(tiny_base, tmp_path / "cut", **fields)
    resumed = run(tiny_base, tmp_path / "cut", **fields)
    ends = [jax.device_get(state._replace(key=())) for state in (ahead, resumed)]
    jax.tree.map(np.testing.assert_array_equal, *ends)
    assert without_times(train_lines(tmp_path / "cut")) == without_times(lines)


@pytest.mark.slow
def test_ppo_with_a_critic_adapter_over_several_turns_trains_and_resumes(
    tiny_base, tmp_path, monkeypatch
):
    """Everything at once: a simulated user, a critic of its own, two epochs, an adaptive KL."""
    heard = []

    def user(asked):
        heard.extend(asked)
        return [Reply("And then?") for _ in asked]

    monkeypatch.setattr(policy_rollouts, "open_user", lambda *_: user)
    fields = FIELDS | {
        "rollout": FIELDS["rollout"] | {"replies": 2, "turns": 2, "user_tokens": 24},
        "policy": {
            "advantage": {"kind": "gae"},
            "value": {"model": "adapter"},
            "kl": {"coefficient": 0.1, "where": "reward", "target": 1.0},
            "epochs": 2,
            "minibatches": 2,
        },
        "user": "replay:nobody",
        "epochs": 0.03,
    }
    monkeypatch.setattr(policy_rollouts, "stop_ids", lambda tokenizer: tuple(range(0, 2048, 4)))
    state = run(tiny_base, tmp_path / "run", **fields)
    assert heard
    assert all(messages[-1].role == "assistant" for messages in heard)
    lines = train_lines(tmp_path / "run")
    assert max(line["reply_tokens"] for line in lines) > 1
    assert {"explained_variance", "value_loss", "value_clipped"} <= set(lines[0])
    assert lines[1]["kl_coefficient"] < lines[0]["kl_coefficient"]
    assert set(state.params) == {"blocks", "value"}
    assert float(np.abs(state.params["value"]["kernel"]).max()) > 0
    with monkeypatch.context() as patch:
        patch.setattr(policy, "STAGE", cut_after(1))
        with pytest.raises(RuntimeError, match="gone"):
            run(tiny_base, tmp_path / "cut", **fields)
    resumed = run(tiny_base, tmp_path / "cut", **fields)
    jax.tree.map(
        np.testing.assert_array_equal, *map(jax.device_get, (state.params, resumed.params))
    )
    exported = export(tmp_path / "run", tmp_path / "out", "peft")  # the value model stays behind
    assert exported.difference < 1e-4
    card = (tmp_path / "out" / "README.md").read_text()
    assert "trained by reinforcement learning (gae advantages)" in card
    assert "(minus the mean reward of a reply)" in card


def test_only_the_policys_turns_train_and_their_ids_are_those_drawn(tiny_base):
    words = known_tokenizer(tiny_base)
    asked = (Message("user", "My scooter broke down."),)
    said = (*asked, Message("assistant", "Come in."), Message("user", "Thanks."))
    whole = render_prompt(said, words)
    start = render_prompt(asked, words)
    reply = words.tokenizer.backend_tokenizer.encode("Come in.", add_special_tokens=False).ids
    bridge = render_bridge(said, words)
    np.testing.assert_array_equal(np.concatenate([start, reply, [2], bridge]), whole)
    with pytest.raises(InputError, match="without a reply"):
        render_bridge(asked, words)


@pytest.mark.slow
def test_a_reward_that_fails_costs_its_replies_or_ends_the_run(tiny_base, tmp_path, monkeypatch):
    def half(source, around):
        return lambda answered: [
            float(at) if at % 2 else float("nan") for at in range(len(answered))
        ]

    monkeypatch.setitem(policy_rewards.REWARDS, "count", half)
    run(tiny_base, tmp_path / "on", **FIELDS | {"epochs": 0.01})
    (line,) = train_lines(tmp_path / "on")
    assert line["not_judged"] == 0.5
    stop = FIELDS | {"rollout": FIELDS["rollout"] | {"on_failure": "stop"}}
    with pytest.raises(InputError, match="reward 'count' gave no finite number for 3 of 6"):
        run(tiny_base, tmp_path / "stop", **stop)


def test_a_red_flag_that_stops_saves_what_was_learnt(tiny_base, tmp_path, capsys):
    flags = (
        {"metric": "truncated", "above": 0.1, "updates": 2, "stop": True},
        {"metric": "entropy", "above": 0.0},
    )
    loop = {"checkpoint_every": 100, "trackers": ()}
    with pytest.raises(InputError, match=r"truncated is 1, above 0\.1 for 2 updates; the "):
        run(tiny_base, tmp_path / "run", **FIELDS | {"flags": flags, "loop": loop})
    assert "red flag: entropy" in capsys.readouterr().out
    assert [int(one.name) for one in (tmp_path / "run" / "checkpoints").iterdir()] == [3]


def test_a_flag_is_up_after_so_many_updates_in_a_row():
    flags = watchful([RedFlag("kl", above=1.0, updates=2), RedFlag("entropy", below=0.1)])
    assert flags(1, {"kl": 2.0}) == []
    assert flags(2, {"kl": 0.5, "entropy": 0.5}) == []
    assert flags(3, {"kl": 2.0}) == []
    (flag,) = flags(4, {"kl": float("nan")})
    assert flag.text == "red flag: kl is not a number, above 1 for 2 updates"
    assert not flag.stops
    with pytest.raises(InputError, match="no limit"):
        RedFlag("kl")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"prompt_length": 8, "batch_size": 2}}, "more than config.data.prompt_length 8"),
        ({"data": {"prompt_length": 2045, "batch_size": 2}}, "exceed the model's 2048 positions"),
        ({"data": {"batch_size": 3}, "microbatches": 2}, r"config\.data\.batch_size is 3"),
        ({"rewards": ({"kind": "lenght"},)}, "kind 'lenght'; allowed: length"),
        ({"rewards": ()}, "none to train on"),
        ({"rollout": {"replies": 1}}, "need 2 or more"),
        ({"rollout": {"turns": 2}}, "give config.user"),
        ({"rollout": {"top_p": 0.9}}, r"config\.rollout\.top_p: no such field"),
        ({"rollout": {"ahead": 1}}, "importance_cap=2.0"),
        ({"rollout": {"sampler": "model:there"}}, "give endpoint:URL#MODEL"),
        ({"rollout": {"sampler": "endpoint:http://localhost:1/v1#m"}}, "importance_cap=2.0"),
        ({"adapter": None, "policy": {"advantage": {"kind": "gae"}, "value": {"model": "adapter"}}},
         "needs config.adapter"),
        ({"policy": {"kl": {"estimator": "k1", "times_ratio": False}}}, "contain the reference"),
        ({"sources": ()}, r"config\.sources is empty"),
        ({"rewards": ({"kind": "model"},)}, "give its folder as path"),
    ],
)  # fmt: skip
def test_what_cannot_train_is_refused_in_one_line(tiny_base, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run(tiny_base, tmp_path / "run", **FIELDS | changes)
    assert not (tmp_path / "run" / "checkpoints").exists() or "model" in message


def test_nothing_but_the_temperature_shapes_what_is_drawn():
    names = RolloutConfig.__dataclass_fields__
    assert not {"top_k", "top_p", "min_p", "repetition_penalty"} & set(names)


def test_the_reference_is_what_the_run_starts_from(tiny_base, finished, tmp_path):
    start = FIELDS | {"start": str(finished[0]), "epochs": 0.01}
    run(tiny_base, tmp_path / "run", **start)
    first = read_metrics(tmp_path / "run")[0]
    assert first["kind"] == "eval"
    assert first["kl"] == 0.0
    job = open_job(tiny_base, tmp_path / "other", **start)
    with pytest.raises(InputError, match="nats per reply from its reference"):
        policy.STAGE.first(job, {"kl": 0.2})
    stage, settings = read(config(tiny_base, **FIELDS))
    assert stage.kept(settings, {}, {"w": 1}) == {BASE: {"w": 1}, REFERENCE: {}}
    _, free = read(
        config(tiny_base, **FIELDS | {"policy": {"kl": {"coefficient": 0.0, "measure": False}}})
    )
    assert stage.kept(free, {}, {"w": 1}) == {"w": 1}
