"""The launch recipes, as far as a machine without a cluster can try them, and `hen doctor`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import yaml

from hen_jax import cli
from hen_jax.core.errors import LOST, STOPPED, InputError
from hen_jax.training.clusters import Cluster, find_cluster, first_host
from hen_jax.training.devices import start

LAUNCH = Path(__file__).parent.parent / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])

SLURM = {
    "SLURM_JOB_ID": "4099",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        (
            {"HEN_COORDINATOR": "a:1", "HEN_NUM_PROCESSES": "2", "HEN_PROCESS_ID": "1"},
            Cluster("HEN_COORDINATOR", "a:1", 2, 1),
        ),
        ({"HEN_COORDINATOR": "auto"}, Cluster("HEN_COORDINATOR=auto")),
        # One process per GPU: each sees its own only, or all of the node.
        (SLURM | {"CUDA_VISIBLE_DEVICES": "1"}, Cluster("SLURM", "gpu03:61443", 16, 9)),
        (
            SLURM | {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"},
            Cluster("SLURM", "gpu03:61443", 16, 9, [1]),
        ),
        # Uneven nodes: two tasks here, one on the third.
        (
            SLURM
            | {"SLURM_STEP_NUM_TASKS": "5", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1"}
            | {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}
            | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"},
            Cluster("SLURM", "gpu03:61443", 5, 3, [2, 3]),
        ),
        (
            SLURM
            | {"SLURM_STEP_NUM_TASKS": "5", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1"}
            | {"SLURM_PROCID": "4", "SLURM_LOCALID": "0", "SLURM_NODEID": "2"}
            | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"},
            Cluster("SLURM", "gpu03:61443", 5, 4),
        ),
        # Four of the node's eight are this task's own, and are not shared out once more.
        (
            SLURM
            | {"SLURM_STEP_TASKS_PER_NODE": "2(x8)", "SLURM_GPUS_ON_NODE": "8"}
            | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"},
            Cluster("SLURM", "gpu03:61443", 16, 9),
        ),
        (
            SLURM
            | {"SLURM_STEP_TASKS_PER_NODE": "4(x4)", "SLURM_GPUS_PER_TASK": "a100:2"}
            | {"CUDA_VISIBLE_DEVICES": "GPU-1f,GPU-2e"},
            Cluster("SLURM", "gpu03:61443", 16, 9),
        ),
        # One process per node takes all of its GPUs.
        (
            SLURM
            | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
            | {"SLURM_PROCID": "1", "SLURM_LOCALID": "0", "CUDA_VISIBLE_DEVICES": "0,1,2,3"},
            Cluster("SLURM", "gpu03:61443", 2, 1),
        ),
        # The batch script itself, or `srun -n1`, is no cluster.
        ({"SLURM_JOB_ID": "4099", "SLURM_NTASKS": "16", "SLURM_PROCID": "0"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}, Cluster("TPU hosts of a GKE job")),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, None),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "a"}, Cluster("TPU hosts of a GKE job")),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, Cluster("Open MPI")),
    ],
)
def test_the_environment_tells_the_cluster(environ, expected):
    assert find_cluster(environ) == expected


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"HEN_COORDINATOR": "a:1"}, "HEN_NUM_PROCESSES is not set"),
        ({"HEN_PROCESS_ID": "0"}, "HEN_COORDINATOR is not set"),
        (
            {"HEN_COORDINATOR": "a", "HEN_NUM_PROCESSES": "2", "HEN_PROCESS_ID": "1"},
            "give host:port",
        ),
        (
            {"HEN_COORDINATOR": "a:1", "HEN_NUM_PROCESSES": "2", "HEN_PROCESS_ID": "2"},
            "HEN_PROCESS_ID is 2; allowed: 0 to 1",
        ),
        (
            {"HEN_COORDINATOR": "a:1", "HEN_NUM_PROCESSES": "two", "HEN_PROCESS_ID": "0"},
            "HEN_NUM_PROCESSES is 'two'",
        ),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": "1"}, "start hen with srun"),
        (
            {"HEN_COORDINATOR": "a:70000", "HEN_NUM_PROCESSES": "2", "HEN_PROCESS_ID": "1"},
            "give host:port",
        ),
        (
            SLURM | {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_ON_NODE": "2"},
            "the 8 tasks of this SLURM node would share its 2 GPUs",
        ),
        (
            SLURM | {"CUDA_VISIBLE_DEVICES": "0", "SLURM_GPUS_ON_NODE": "1"},
            "would share its 1 GPUs",
        ),
        (
            SLURM | {"SLURM_STEP_TASKS_PER_NODE": "3", "CUDA_VISIBLE_DEVICES": "0,1,2,3"},
            "the 3 tasks of this SLURM node would get unequal numbers of its 4 GPUs",
        ),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "2(x2),1"}, "SLURM_NODEID is not set"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "two"}, r"is 'two'; it must be such as 4\(x2\),3"),
        (SLURM | {"SLURM_STEP_NODELIST": ",gpu"}, "that is no list of hosts"),
    ],
)
def test_half_a_description_is_refused(environ, message):
    with pytest.raises(InputError, match=message):
        find_cluster(environ)


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("gpu1", "gpu1"),
        ("gpu1,gpu2", "gpu1"),
        ("gpu[03-07,12],x", "gpu03"),
        ("a-b[7]", "a-b7"),
        ("n1,m[2-3]", "n1"),
        ("gpu[03-07,12]-ib.example.org,x", "gpu03-ib.example.org"),
        ("rack[1-2]node[08,11]", "rack1node08"),
        ("gpu-1.example.org", "gpu-1.example.org"),
    ],
)
def test_the_first_host_of_a_slurm_list(nodes, host):
    assert first_host(nodes) == host


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound_and_tell_their_usage(script):
    subprocess.run(["bash", "-n", script], check=True)
    subprocess.run([Path(sys.executable).with_name("shellcheck"), script], check=True)
    if script.suffix == ".sh":
        said = subprocess.run([script], capture_output=True, text=True)
        assert said.returncode == 2
        assert f"launch/{script.name}" in said.stderr


def on_path(folder: Path, **programs: str) -> dict[str, str]:
    """An environment in which these programs are the given shell scripts, which log their call."""
    for name, body in programs.items():
        path = folder / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> "{folder}/calls"\n{body}\n')
        path.chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}


@pytest.mark.parametrize(
    ("code", "restarts", "queued"),
    [(0, 0, False), (2, 0, False), (STOPPED, 99, True), (LOST, 0, True), (134, 99, False)],
)
def test_slurm_queues_again_what_can_go_on(tmp_path, code, restarts, queued):
    environ = on_path(tmp_path, srun=f"exit {code}", scontrol="", scancel="")
    environ["SLURM_RESTART_COUNT"] = str(restarts)
    done = subprocess.run(
        ["bash", LAUNCH / "slurm.sbatch", "--config=c", "--workdir=a b"], env=environ
    )
    assert done.returncode == code
    calls = (tmp_path / "calls").read_text()
    assert "hen run --config=c --workdir=a b" in calls
    assert ("scontrol requeue 7" in calls) == queued


def test_slurm_passes_the_signal_on_once_and_waits(tmp_path):
    stops = 'trap "exit 75" USR1; touch $0.up; while true; do sleep 0.05; done'
    tells = 'sleep 0.3; kill -USR1 $(cat "$(dirname "$0")/pid")'
    environ = on_path(
        tmp_path, srun=f'echo $$ > "$(dirname "$0")/pid"; {stops}', scancel=tells, scontrol=""
    )
    script = subprocess.Popen(["bash", LAUNCH / "slurm.sbatch", "--config=c"], env=environ)
    while not (tmp_path / "srun.up").exists():
        assert script.poll() is None
    script.terminate()
    script.terminate()
    assert script.wait(timeout=20) == STOPPED
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[1:] == ["scancel --signal=TERM 7", "scontrol requeue 7"]


def test_pod_commands_keep_their_arguments_whole(tmp_path):
    environ = os.environ | {"HEN_DRY": "1", "HEN_WORKLOAD": "w"}
    run = ["run", "--config=c.py:tiny", "--config.sources=({'path': 'a b'},)"]
    for script, place in (
        ("tpu_vm.sh", ["pod", "zone"]),
        ("xpk.sh", ["c", "v5litepod-16", "1", "i"]),
    ):
        said = subprocess.check_output([LAUNCH / script, *place, *run], env=environ, text=True)
        command = said.split("--command=", 1)[1].replace("cd hen_jax", "true")
        shown = on_path(tmp_path, hen='printf "<%s>" "$@"')
        heard = subprocess.check_output(["bash", "-c", command], env=shown, text=True)
        assert heard == "".join(f"<{word}>" for word in run)


def jobset(name: str) -> tuple[dict, dict, dict]:
    """The parts of a JobSet: its spec, its job's spec and its pod's."""
    whole = yaml.safe_load((LAUNCH / name).read_text())
    assert (whole["apiVersion"], whole["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = whole["spec"]["replicatedJobs"]
    return (
        whole["spec"] | {"name": whole["metadata"]["name"], "job": job["name"]},
        job["template"]["spec"],
        job["template"]["spec"]["template"]["spec"],
    )


@pytest.mark.parametrize("name", ["gke_tpu.yaml", "gke_gpu.yaml"])
def test_jobsets_start_again_after_a_stop(name):
    spec, job, pod = jobset(name)
    assert job["parallelism"] == job["completions"]
    assert pod["restartPolicy"] == "Never"  # without it Kubernetes refuses a podFailurePolicy
    assert pod["terminationGracePeriodSeconds"] >= 120
    (container,) = pod["containers"]
    exits, disruption = job["podFailurePolicy"]["rules"]
    assert exits["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "In",
        "values": [STOPPED],
    }
    assert disruption["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    (rule,) = spec["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert container["command"] == ["hen", "run"]  # process 1, so that it gets the signal
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted.keys() == {volume["name"] for volume in pod["volumes"]}
    (workdir,) = (word for word in container["args"] if word.startswith("--workdir="))
    assert workdir.removeprefix("--workdir=").startswith(tuple(mounted.values()))


def test_the_gpu_jobset_describes_its_cluster():
    spec, job, pod = jobset("gke_gpu.yaml")
    (container,) = pod["containers"]
    environ = {one["name"]: one.get("value", "1") for one in container["env"]}
    cluster = find_cluster(environ)
    assert cluster is not None
    assert cluster.processes == job["completions"]
    host = f"{spec['name']}-{spec['job']}-0-0.{spec['name']}"
    (port,) = container["ports"]
    assert cluster.coordinator == f"{host}:{port['containerPort']}"
    assert job["completionMode"] == "Indexed"


def test_the_skypilot_task_describes_its_cluster(tmp_path):
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert STOPPED in task["resources"]["job_recovery"]["recover_on_exit_codes"]
    assert task["envs"]["WORKDIR"].startswith(tuple(task["file_mounts"]))
    given = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2"}
    environ = on_path(tmp_path, hen="env") | task["envs"] | given | {"SKYPILOT_NODE_RANK": "1"}
    shown = subprocess.check_output(["bash", "-euc", task["run"]], env=environ, text=True)
    seen = dict(line.split("=", 1) for line in shown.splitlines() if line.startswith("HEN_"))
    assert find_cluster(seen) == Cluster("HEN_COORDINATOR", "10.0.0.1:8476", 2, 1)


def test_the_table_of_exit_codes_is_true():
    text = (LAUNCH / "README.md").read_text()
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE)}
    assert told == {0, 1, 2, STOPPED, LOST, 134}


def test_compiled_programs_are_kept_unless_another_place_is_named(monkeypatch, tmp_path, capsys):
    before = jax.config.jax_compilation_cache_dir
    try:
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        start(tmp_path / "xla")
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "xla")
        jax.config.update("jax_compilation_cache_dir", "elsewhere")
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
        start(tmp_path / "xla")
        assert jax.config.jax_compilation_cache_dir == "elsewhere"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert "8 x cpu (cpu), 1 process(es)" in capsys.readouterr().out


def test_doctor_tells_what_is_well(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HEN_CACHE", str(tmp_path))
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    for word in ("jax 0.", "one process", "8 x cpu", "product over all devices is right", "cache"):
        assert word in said
    assert "problem" not in said


def test_doctor_tells_what_is_wrong_and_the_remedy(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HEN_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("HEN_COORDINATOR", "nowhere.invalid:1")
    assert cli.main(["doctor"]) == 2
    said = capsys.readouterr().out
    assert "problem  cluster: HEN_NUM_PROCESSES is not set" in said
    assert "set HEN_CACHE to a folder" in said
    monkeypatch.setenv("HEN_NUM_PROCESSES", "2")
    monkeypatch.setenv("HEN_PROCESS_ID", "1")
    assert cli.main(["doctor"]) == 2
    said = capsys.readouterr().out
    assert "process 1 of 2, coordinator nowhere.invalid:1" in said
    assert "coordinator nowhere.invalid has no address" in said
    assert cli.main(["doctor", "--dry"]) == 2  # the cache
    assert "no address" not in capsys.readouterr().out


def test_a_disk_nearly_full_is_a_warning(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HEN_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 10**9))
    assert cli.main(["doctor"]) == 0
    assert "warning  cache" in capsys.readouterr().out
