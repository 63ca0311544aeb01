"""The shell scripts: set-up on first use, the run on digits, the paper's settings, Slurm."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clones import bash, stub

from system.cores import allowed_cores
from tools.make_digits import write_digits

ROOT = Path(__file__).parent.parent
SOURCED = ("env.sh", "install.sh")


def test_main_without_arguments_trains_on_scattered_digits(clone: Path) -> None:
    write_digits(clone / "datasets/scattered", scatter=True)
    for path in (clone / "datasets/scattered").rglob("*.png"):  # fewer, to be quick
        if int(path.name[:4]) % 20:
            path.unlink()
    done = bash("./main.sh --precision fp32", clone, PYTHON=sys.executable, EPOCHS="1")
    assert done.returncode == 0, done.stderr
    assert "made from scikit-learn's handwritten digits" in done.stdout
    assert "Method: deepcluster" in done.stdout
    assert "NMI to the labels" in done.stdout
    assert "untrained" in done.stdout
    assert "linear probe" in done.stdout
    assert (clone / "exp" / "001" / "checkpoint.pth.tar").exists()
    assert not (clone / ".venv").exists(), "with PYTHON, nothing is installed"


PRINTER = "import sys; print(*sys.argv)"


def test_the_settings_of_main_without_arguments(clone: Path) -> None:
    (clone / "main.py").write_text(PRINTER)
    done = bash("./main.sh", clone, PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    assert len(list((clone / "datasets/scattered/train").rglob("*.png"))) == 4 * 1437
    assert done.stdout.splitlines()[1] == (
        f"main.py datasets/scattered/train --workers {-(-allowed_cores() // 2)} --verbose "
        "--exp exp/001 --arch convnet_small --nmb_cluster 50 --lr 0.2 --wd -5 --batch 64 --epochs "
        "7 --clustering Kmeans --reassign 4 --size 32"
    )


@pytest.mark.parametrize(("method", "epochs"), [("swav", 9), ("deepercluster", 28)])
def test_main_without_arguments_compares_every_method_with_the_untrained_network(
    clone: Path, method: str, epochs: int
) -> None:
    (clone / "main.py").write_text(PRINTER)
    (clone / "tools/eval_quick.py").write_text(PRINTER)
    (clone / "exp/old").mkdir(parents=True)
    (clone / "exp/old/checkpoint.pth.tar").touch()
    done = bash(f"./main.sh --method {method}", clone, PYTHON=sys.executable, EXP="exp/old")
    said = done.stdout.splitlines()
    assert "main.py datasets/scattered/train " in said[1], done.stderr
    assert "--arch convnet_small " in said[1]
    assert f"--epochs {epochs} " in said[1]
    assert "--data datasets/scattered --model" in done.stdout


@pytest.mark.parametrize("flags", ["--resume exp/old/checkpoint.pth.tar", "--resume auto"])
def test_a_resumed_run_keeps_its_images(clone: Path, flags: str) -> None:
    (clone / "main.py").write_text(PRINTER)
    (clone / "exp/old").mkdir(parents=True)
    (clone / "exp/old/checkpoint.pth.tar").touch()
    (clone / "tools" / "eval_quick.py").write_text(PRINTER)
    settings = {"settings": {"data": "datasets/digits/train"}}
    (clone / "exp/old/config.json").write_text(json.dumps(settings))
    done = bash(f"./main.sh {flags}", clone, PYTHON=sys.executable, EXP="exp/old")
    assert done.stdout.startswith("main.py datasets/digits/train "), done.stderr
    assert "--data datasets/digits " in done.stdout
    assert not (clone / "datasets/scattered").exists()


def test_main_runs_the_papers_settings_on_a_folder(clone: Path) -> None:
    (clone / "main.py").write_text("import sys; print(*sys.argv[1:])")
    elsewhere = clone.parent / "elsewhere"
    elsewhere.mkdir()
    variables = {"PYTHON": sys.executable, "DIR": "images", "EXP": "e"}
    done = bash("../clone/main.sh --seed 1", elsewhere, **variables)
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.split()
        == (
            f"{elsewhere}/images --workers {allowed_cores()} --verbose "
            f"--exp {elsewhere}/e --arch alexnet --nmb_cluster 10000 --lr 0.05 --wd -5 "
            "--batch 256 --epochs 200 --sobel --clustering Kmeans --seed 1"
        ).split()
    )


def test_a_resumed_run_keeps_the_settings_that_are_not_given(clone: Path) -> None:
    (clone / "main.py").write_text(PRINTER)
    variables = {"PYTHON": sys.executable, "DIR": "/images", "WORKERS": "3", "LR": "0.1"}
    done = bash("./main.sh --resume x/checkpoint.pth.tar --epochs 9", clone, **variables)
    expected = "/images --workers 3 --verbose --lr 0.1 --resume x/checkpoint.pth.tar --epochs 9\n"
    assert done.stdout == f"main.py {expected}", done.stderr


def test_the_training_has_the_process_id_of_the_script(clone: Path) -> None:
    """So a signal to the script stops the training."""
    (clone / "main.py").write_text("import os; print('pid', os.getpid())")
    done = bash("./main.sh & echo script $!; wait", clone, PYTHON=sys.executable, DIR="images")
    said = dict(line.split() for line in done.stdout.splitlines())
    assert said["pid"] == said["script"], done.stderr


@pytest.mark.parametrize(
    ("flags", "exp", "given"),
    [
        ("", "", []),
        ("--exp x", "", ["x"]),
        ("--resume x/checkpoint.pth.tar", "", []),
        ("--resume x/checkpoint.pth.tar", "e", ["{clone}/e"]),
        ("--resume x/checkpoint.pth.tar --exp y", "e", ["y"]),
    ],
)
def test_main_py_gets_the_experiment_folder_that_is_given(
    clone: Path, flags: str, exp: str, given: list[str]
) -> None:
    """Without one, it chooses a folder itself."""
    (clone / "main.py").write_text(PRINTER)
    done = bash(f"./main.sh {flags}", clone, PYTHON=sys.executable, DIR="images", EXP=exp)
    assert done.returncode == 0, done.stderr
    said = done.stdout.split()
    found = [folder for flag, folder in itertools.pairwise(said) if flag == "--exp"]
    assert found == [folder.format(clone=clone) for folder in given]
    assert all(flag in said for flag in flags.split())
    assert not (clone / "exp").exists()


def test_resume_auto_passes_all_settings(clone: Path) -> None:
    (clone / "main.py").write_text(PRINTER)
    variables = {"PYTHON": sys.executable, "DIR": "images"}
    done = bash("./main.sh --resume auto", clone, EXP="e", **variables)
    assert f"--exp {clone}/e --arch alexnet --nmb_cluster 10000" in done.stdout, done.stderr
    assert done.stdout.endswith("--resume auto\n")
    nowhere = bash("./main.sh --resume auto", clone, **variables)
    assert nowhere.returncode == 2
    assert nowhere.stderr.startswith("main.sh: error: --resume auto: name the run's folder: EXP=")


@pytest.mark.parametrize(
    ("flags", "exp", "folder"),
    [
        ("", "", "exp/001"),
        ("", "{clone}/e", "{clone}/e"),
        ("--exp=x/y", "", "x/y"),
        ("--resume x/y/checkpoint.pth.tar", "{clone}/e", "{clone}/e"),
        ("--resume=x/y/checkpoints/checkpoint_3.pth.tar", "", "x/y"),
        ("--resume gone/checkpoint.pth.tar --exp x/y", "", "x/y"),
    ],
)
def test_the_network_of_the_digits_run_is_evaluated(
    clone: Path, flags: str, exp: str, folder: str
) -> None:
    folder = folder.format(clone=clone)
    """Whatever its folder is."""
    (clone / "main.py").write_text("")
    (clone / "tools" / "make_digits.py").write_text("")
    (clone / "tools" / "eval_quick.py").write_text(PRINTER)
    if folder != "exp/001":
        (clone / folder).mkdir(parents=True)
        (clone / folder / "checkpoint.pth.tar").touch()
    else:
        (clone / "main.py").write_text(f"open('{folder}/checkpoint.pth.tar', 'w')")
    done = bash(f"./main.sh {flags}", clone, PYTHON=sys.executable, EXP=exp.format(clone=clone))
    assert f"--model {folder}/checkpoint.pth.tar" in done.stdout, done.stderr


def test_an_exp_folder_that_cannot_be_made(clone: Path) -> None:
    (clone / "exp").touch()
    (clone / "tools" / "make_digits.py").write_text("")
    done = bash("./main.sh --k 2", clone, PYTHON=sys.executable)
    assert done.returncode == 2
    assert "error: exp: cannot write there" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("network", "asked"),
    [
        (True, ["install chromium", "update", "install chromium"]),
        (False, ["install chromium", "update"]),
    ],
)
def test_the_ci_installs_chromium_if_there_is_no_browser(
    clone: Path, network: bool, asked: list[str]
) -> None:
    tools = clone / "bin"
    succeeds = f'[ {int(network)} = 1 ] && [ "$(grep -c . "{clone}/asked")" -gt 1 ]'
    stub(tools, "apt-get", f'shift 2; echo "$*" >> "{clone}/asked"; {succeeds}')
    for tool in ("bash", "basename", "dirname", "env", "grep", "readlink", "true", "flock"):
        if found := shutil.which(tool):
            (tools / tool).symlink_to(found)
    anything = shutil.which("true") or "true"
    done = bash("bash .ci/run", clone, PATH=str(tools), PYTHON=anything)
    assert done.returncode == 0, done.stderr
    assert (clone / "asked").read_text().splitlines() == asked
    assert ("That failed" in done.stderr) == (not network)

    stub(tools, "chromium", "")
    (clone / "asked").unlink()
    assert bash("bash .ci/run", clone, PATH=str(tools), PYTHON=anything).stderr == ""
    assert not (clone / "asked").exists(), "already installed"


def test_several_processes_start_with_torchrun(clone: Path) -> None:
    """PROCESSES is their number; the default is one per GPU."""
    stub(clone / "bin", "nvidia-smi", "")
    stub(clone / "bin", "nproc", "echo 24")
    gpus = 'if [ "$1" = -c ]; then echo 3; else echo "OMP $OMP_NUM_THREADS:" "$@"; fi'
    stub(clone / "bin", "python", gpus)
    variables = {"PYTHON": "bin/python", "DIR": "images", "OMP_NUM_THREADS": "5"}
    path = f"{clone}/bin:{os.environ['PATH']}"
    done = bash("./main.sh --seed 2", clone, PATH=path, PROCESSES="", **variables)
    launcher = "OMP 5: -m parallel.launch --standalone --nproc_per_node"
    start = f"{launcher} 3 main.py {clone}/images --workers 8 --verbose --arch"
    assert done.stdout.startswith(start), "24 workers for three: " + done.stderr
    assert done.stdout.endswith("--seed 2\n")
    two = bash("./main.sh", clone, PROCESSES="2", **variables)
    assert two.stdout.startswith(f"{launcher} 2 main.py")
    for name, value, least in (("PROCESSES", "some", 1), ("WORKERS", "2.5", 0)):
        wrong = bash("./main.sh", clone, **{**variables, name: value})
        assert wrong.returncode == 2
        said = f"main.sh: error: {name}={value}: not a whole number of {least} or more\n"
        assert wrong.stderr == said


SLURM = {
    "SLURM_JOB_ID": "12345", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[1-2]",
    "SLURM_GPUS_ON_NODE": "4", "SLURM_CPUS_PER_TASK": "32", "PROCESSES": "",
}  # fmt: skip


def test_a_slurm_job_starts_torchrun_on_its_nodes_and_resumes_when_requeued(clone: Path) -> None:
    stub(clone / "bin", "scontrol", "echo node1; echo node2")
    stub(clone / "bin", "srun", 'echo "$@"; exit 7')
    variables = {**SLURM, "PATH": f"{clone}/bin:{os.environ['PATH']}", "PYTHON": sys.executable}
    spooled = clone.parent / "slurm_script"  # Slurm starts a copy
    shutil.copy(clone / "recipes/slurm.sh", spooled)
    start = f"{spooled} --seed 2"
    done = bash(start, clone, DIR="images", SLURM_SUBMIT_DIR=str(clone), **variables)
    assert done.returncode == 7, "the status of the run"
    assert done.stdout == (
        f"--kill-on-bad-exit --cpus-per-task 32 {sys.executable} -m parallel.launch "
        "--nnodes 2 --nproc_per_node 4 --rdzv_backend c10d --rdzv_id 12345 "
        "--rdzv_endpoint node1:22345 "
        f"main.py {clone}/images --workers 8 --verbose --exp {clone}/exp/slurm-12345 "
        "--arch alexnet --nmb_cluster 10000 --lr 0.05 --wd -5 --batch 256 --epochs 200 "
        "--sobel --clustering Kmeans --resume auto --seed 2\n"
    ), done.stderr

    other = bash(f"{start} --resume o", clone, DIR="i", SLURM_SUBMIT_DIR=str(clone), **variables)
    start_of_other = f"--exp {clone}/exp/slurm-12345 --resume auto --seed 2 --resume o\n"
    assert other.stdout.endswith(start_of_other), "first start"
    (clone / "exp" / "slurm-12345" / "checkpoints").mkdir(parents=True)
    (clone / "exp" / "slurm-12345" / "checkpoints" / "checkpoint_2.pth.tar").touch()
    again = bash(f"{start} --resume o", clone, DIR="i", SLURM_SUBMIT_DIR=str(clone), **variables)
    onward = f"--exp {clone}/exp/slurm-12345 --seed 2 --resume o --resume auto\n"
    assert again.stdout.endswith(onward), again.stderr


def test_exp_of_a_slurm_job_is_relative_to_where_it_was_submitted(clone: Path) -> None:
    stub(clone / "bin", "scontrol", "echo node1")
    stub(clone / "bin", "srun", 'echo "$@"')
    variables = {**SLURM, "PATH": f"{clone}/bin:{os.environ['PATH']}", "PYTHON": sys.executable}
    done = bash("../clone/recipes/slurm.sh", clone / "bin" / "..", DIR="i", EXP="e", **variables)
    assert f"--exp {clone}/" in done.stdout, done.stderr
    (clone.parent / "elsewhere").mkdir()
    done = bash(
        "../clone/recipes/slurm.sh", clone.parent / "elsewhere", DIR="i", EXP="e", **variables
    )
    assert f"--exp {clone.parent}/elsewhere/e --arch" in done.stdout, done.stderr


ANY = {"DIR": "/i", "DATA": "/d", "MODEL": "/m", "VOCDIR": "/v", "DATASET": "/r", "PROCESSES": "2"}
STARTED = {  # a script, and what it starts
    "main.sh": "-m parallel.launch --standalone --nproc_per_node 2 main.py /i",
    "recipes/resnet50.sh": "-m parallel.launch --standalone --nproc_per_node 2 main.py /i",
    **dict.fromkeys(
        [
            *["recipes/small.sh", "recipes/swav_small.sh", "recipes/deepclusterv2_small.sh"],
            *["recipes/swav.sh", "recipes/deepclusterv2.sh", "recipes/deepercluster.sh"],
            *["recipes/deepercluster_imagenet.sh", "recipes/deepercluster_small.sh"],
            "recipes/rotnet.sh",
        ],
        "-m parallel.launch --standalone --nproc_per_node 2 main.py /i",
    ),
    "eval_linear.sh": "-m parallel.launch --standalone --nproc_per_node 2 eval_linear.py --data /d",
    "recipes/eval_linear_modelzoo.sh": "-m parallel.launch --standalone --nproc_per_node 2 eval_l",
    "recipes/eval_linear_deepercluster.sh": (
        "-m parallel.launch --standalone --nproc_per_node 2 eval_linear.py --data /d --model /m "
        "--protocol deepercluster --workers"
    ),
    "recipes/eval_semisup.sh": (
        "-m parallel.launch --standalone --nproc_per_node 2 eval_semisup.py --data /d --model /m "
        "--protocol swav --workers"
    ),
    "recipes/eval_voc_deepercluster.sh": (
        "eval_voc_classif.py --vocdir /v --model /m --protocol deepercluster --split trainval "
        "--fc6_8 1 --workers"
    ),
    "recipes/eval_knn.sh": "-m parallel.launch --standalone --nproc_per_node 2 eval_knn.py --data",
    "recipes/eval_svm.sh": "eval_svm.py --vocdir /v",
    "eval_retrieval.sh": "eval_retrieval.py --model /m",
    "eval_voc_classif_all.sh": "eval_voc_classif.py --vocdir /v --model /m --split",
    "eval_voc_classif_fc6_8.sh": "eval_voc_classif.py --vocdir /v",
    "visu/activ-retrieval.sh": "visu/activ-retrieval.py --data /d",
    "visu/gradient_ascent.sh": "visu/gradient_ascent.py --model /m",
}


@pytest.fixture
def printing(clone: Path) -> dict[str, str]:
    """Variables with which all scripts start, and print what they would run."""
    stub(clone / "bin", "python", 'echo "$@"')
    return {**ANY, "PYTHON": f"{clone}/bin/python", "PATH": f"{clone}/bin:{os.environ['PATH']}"}


def test_every_script_starts_as_a_copy_that_slurm_runs(
    clone: Path, printing: dict[str, str]
) -> None:
    """scontrol knows the original. Where there is no scontrol, the folder of sbatch is taken."""
    others = {  # start no Python of ours
        *("setup.sh", "test.sh", "download_model.sh"),
        *("recipes/slurm.sh", "recipes/pins.sh"),
    }
    assert {*read_scripts(clone)} == {*STARTED, *others}
    spooled = clone.parent / "job00001" / "slurm_script"
    spooled.parent.mkdir()
    for script, command in STARTED.items():
        shutil.copy(clone / script, spooled)
        job = {**printing, "SLURM_JOB_ID": "1"}
        asked = f'[ "$*" = "show job 1" ] && echo "   Command={clone}/{script} --seed 2"'
        stub(clone / "bin", "scontrol", asked)
        known = bash(f"{spooled} --seed 2", clone.parent, SLURM_SUBMIT_DIR="/tmp", **job)
        assert known.stdout.startswith(command), (script, known.stderr)
        assert known.stdout.endswith("--seed 2\n"), script
        stub(clone / "bin", "scontrol", "exit 1")
        submitted = bash(f"{spooled} --seed 2", clone, SLURM_SUBMIT_DIR=str(clone), **job)
        assert submitted.stdout == known.stdout, (script, submitted.stderr)


def test_a_copy_whose_original_is_not_found_is_one_line(
    clone: Path, printing: dict[str, str]
) -> None:
    spooled = clone.parent / "slurm_script"
    shutil.copy(clone / "recipes/small.sh", spooled)
    job = {**printing, "SLURM_JOB_ID": "1", "SLURM_SUBMIT_DIR": str(clone.parent)}
    done = bash(str(spooled), clone.parent, **job)
    assert done.returncode == 2
    assert done.stderr == "small.sh: error: run sbatch in the repository's folder\n"


def read_scripts(clone: Path) -> dict[str, str]:
    """The scripts that a user starts, by their paths."""
    found = [*clone.glob("*.sh"), *clone.glob("recipes/*.sh"), *clone.glob("visu/*.sh")]
    return {str(f.relative_to(clone)): f.read_text() for f in found if f.name not in SOURCED}


def test_every_script_starts_through_a_symbolic_link(clone: Path, printing: dict[str, str]) -> None:
    for script, command in STARTED.items():
        link = clone.parent / Path(script).name
        link.symlink_to(clone / script)
        done = bash(f"./{link.name} --seed 2", clone.parent, **printing)
        assert done.stdout.startswith(command), (script, done.stderr)


@pytest.mark.skipif(not shutil.which("dash"), reason="needs dash, a shell that is not bash")
def test_a_shell_that_is_not_bash_is_one_line(clone: Path) -> None:
    scripts = read_scripts(clone)
    assert len(scripts) > len(STARTED)
    for script in scripts:
        done = bash(f"dash {script}", clone)
        assert done.returncode == 2
        assert done.stderr == f"{Path(script).name}: error: needs bash: bash {script}\n"


@pytest.mark.parametrize(
    ("script", "variables", "readers"),
    [
        ("main.sh", {}, 1),
        ("eval_linear.sh", {}, 1),
        ("eval_retrieval.sh", {}, 1),
        ("recipes/eval_svm.sh", {"WORKERS": "7"}, 7),
        ("recipes/eval_svm.sh", {"SLURM_CPUS_ON_NODE": "3", "cores": "24"}, 3),
        ("recipes/eval_svm.sh", {"cores": "24"}, 12),
    ],
)
def test_there_are_no_more_readers_than_allowed_cores(
    clone: Path, printing: dict[str, str], script: str, variables: dict[str, str], readers: int
) -> None:
    """On a machine of 128 cores, of which this process may use one, or as many as `cores` says."""
    stub(clone / "bin", "getconf", "echo 128")
    stub(clone / "bin", "nproc", 'echo "${OMP_NUM_THREADS:-${cores:-1}}"')  # as nproc does
    settings = {**printing, "PROCESSES": "1", "OMP_NUM_THREADS": "128", **variables}
    done = bash(f"./{script}", clone, **settings)
    assert re.search(f"--workers {readers}\\b", done.stdout), done.stderr


@pytest.mark.parametrize(
    ("script", "command"),
    [
        ("recipes/resnet50.sh", "main.py /i --workers 16 --verbose --exp {exp} --arch resnet50"),
        ("eval_linear.sh", "eval_linear.py --data /d --model /m"),
        ("recipes/eval_knn.sh", "eval_knn.py --data /d --model /m"),
        ("eval_knn.sh", "eval_knn.py --data /d --model /m"),
    ],
)
def test_a_slurm_job_runs_any_script_on_many_nodes(
    clone: Path, printing: dict[str, str], script: str, command: str
) -> None:
    stub(clone / "bin", "scontrol", "echo node1; echo node2")
    stub(clone / "bin", "srun", 'echo "$@"')
    job = {**SLURM, **printing}
    done = bash(f"recipes/slurm.sh {script} --seed 2", clone, **job)
    run = command.format(exp=f"{clone}/exp/slurm-12345")
    rendezvous = "--rdzv_backend c10d --rdzv_id 12345 --rdzv_endpoint node1:22345"
    nodes = f"-m parallel.launch --nnodes 2 --nproc_per_node 2 {rendezvous} {run}"
    assert nodes in done.stdout, done.stderr
    assert done.stdout.endswith("--seed 2\n")
    assert ("--resume auto" in done.stdout) == ("main.py" in command)


def test_a_slurm_job_runs_a_single_process_on_the_first_node(
    clone: Path, printing: dict[str, str]
) -> None:
    done = bash("recipes/slurm.sh eval_retrieval.sh", clone, **{**SLURM, **printing})
    assert done.stdout.startswith("eval_retrieval.py --model /m"), done.stderr
    wrong = bash("recipes/slurm.sh eval_nothing.sh", clone, **{**SLURM, **printing})
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "slurm.sh: error: eval_nothing.sh: no such script" in wrong.stderr


# In place of srun: a run that saves a checkpoint when it gets the signal
RUN = "trap 'sleep 1; echo saved; exit' USR1; touch started; while :; do sleep 0.1; done"


def test_a_slurm_job_saves_and_is_requeued_before_its_time_is_up(clone: Path) -> None:
    stub(clone / "bin", "scontrol", 'if [ "$1" = requeue ]; then echo "$@"; else echo node1; fi')
    stub(clone / "bin", "srun", RUN)
    variables = {**SLURM, "PATH": f"{clone}/bin:{os.environ['PATH']}", "PYTHON": sys.executable}
    signal = "while [ ! -e started ]; do sleep 0.1; done; kill -USR1 $!; wait $!"
    done = bash(f"recipes/slurm.sh & {signal}", clone, DIR="images", **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == ["saved", "requeue 12345"]


@pytest.mark.parametrize(
    ("last", "status", "state", "back"),
    [
        ("stopped: SIGTERM", 0, "RUNNING", True),
        ("stopped: SIGTERM", 0, "COMPLETING", False),  # cancelled
        ("stopped: SIGTERM", 7, "RUNNING", False),
        ("epoch 3", 0, "RUNNING", False),  # finished
        ("epoch 3", 143, "RUNNING", True),  # before it handled signals
    ],
)
def test_only_a_preempted_slurm_job_is_requeued(
    clone: Path, last: str, status: int, state: str, back: bool
) -> None:
    (clone / "exp" / "e").mkdir(parents=True)
    stub(clone / "bin", "scontrol", 'if [ "$1" = requeue ]; then echo "$@"; else echo node1; fi')
    stub(clone / "bin", "srun", f"echo '1:00 {last}' > exp/e/log.txt; exit {status}")
    stub(clone / "bin", "squeue", f"echo {state}")
    variables = {**SLURM, "PATH": f"{clone}/bin:{os.environ['PATH']}", "PYTHON": sys.executable}
    done = bash("recipes/slurm.sh", clone, DIR="images", EXP="exp/e", **variables)
    assert done.returncode == status, done.stderr
    assert ("requeue 12345" in done.stdout) == back
    assert done.stderr == ""


def test_a_slurm_job_is_requeued_even_if_the_run_does_not_stop(clone: Path) -> None:
    script = (clone / "recipes/slurm.sh").read_text()
    (clone / "recipes/slurm.sh").write_text(script.replace("second < 150", "second < 1"))
    stub(clone / "bin", "scontrol", 'if [ "$1" = requeue ]; then echo "$@"; else echo node1; fi')
    stub(clone / "bin", "srun", "trap '' USR1; touch started; sleep 3; echo went on")
    variables = {**SLURM, "PATH": f"{clone}/bin:{os.environ['PATH']}", "PYTHON": sys.executable}
    signal = "while [ ! -e started ]; do sleep 0.1; done; kill -USR1 $!; wait $!"
    done = bash(f"recipes/slurm.sh & {signal}", clone, DIR="images", **variables)
    assert done.stdout.splitlines()[1:] == ["requeue 12345", "went on"], done.stderr


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "to be started by Slurm"),
        ({"SLURM_JOB_ID": "1"}, "DIR: name the images"),
        ({"SLURM_JOB_ID": "1", "DIR": "i", "WORKERS": "all"}, "WORKERS=all: not a whole number"),
        ({"SLURM_JOB_ID": "1", "DIR": "i", "PROCESSES": "all"}, "PROCESSES=all: not a whole"),
    ],
)
def test_bad_settings_of_a_slurm_job_are_one_line(
    clone: Path, variables: dict[str, str], message: str
) -> None:
    done = bash("recipes/slurm.sh", clone, PYTHON=sys.executable, **variables)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "script",
    [
        *(path.name for path in sorted(ROOT.glob("*.sh"))),
        *(f"visu/{path.name}" for path in sorted(ROOT.glob("visu/*.sh"))),
        *(f"recipes/{p.name}" for p in sorted(ROOT.glob("recipes/*.sh")) if p.name not in SOURCED),
        ".ci/run",
    ],
)
def test_scripts_are_executable_and_parse(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(ROOT / script)]).returncode == 0


def test_the_linear_probe_of_the_digits_uses_the_newest_network(clone: Path) -> None:
    (clone / "eval_linear.py").write_text(PRINTER)
    (clone / "tools" / "make_digits.py").write_text("")
    none = bash("./eval_linear.sh", clone, PYTHON=sys.executable)
    assert none.returncode == 2
    assert none.stderr.endswith("run ./main.sh first, or name one in MODEL\n")
    for age, name in ((20, "001"), (10, "003"), (30, "002")):
        saved = clone / "exp" / name / "checkpoint.pth.tar"
        saved.parent.mkdir(parents=True)
        saved.touch()
        os.utime(saved, (time.time() - age, time.time() - age))
    done = bash("./eval_linear.sh --epochs 2", clone, PYTHON=sys.executable, CONV="2 3")
    assert done.stdout == (
        "eval_linear.py --data datasets/scattered --model exp/003/checkpoint.pth.tar --conv 2 3 "
        "--lr 0.01 --wd=-7 --tencrops --epochs 5 --workers 2 --verbose "
        "--size 32 --untrained --batch_size 64 --epochs 2\n"
    ), done.stderr


def test_the_linear_probe_of_other_data(clone: Path) -> None:
    (clone / "eval_linear.py").write_text(PRINTER)
    none = bash("./eval_linear.sh", clone, PYTHON=sys.executable, DATA="data")
    assert (none.returncode, none.stderr.count("\n")) == (2, 1)
    assert "MODEL: name a checkpoint" in none.stderr
    variables = {"PYTHON": sys.executable, "DATA": "/data", "MODEL": "m", "EXP": "e"}
    done = bash("./eval_linear.sh", clone, **variables)
    assert (
        done.stdout.split()[1:]
        == (
            f"--data /data --model {clone}/m --conv all --lr 0.01 --wd=-7 --tencrops --epochs 90 "
            f"--workers {min(12, allowed_cores())} --verbose --exp {clone}/e"
        ).split()
    ), done.stderr


@pytest.mark.parametrize(("folder", "start"), [(".", "visu/"), ("visu", "./")])
def test_pictures_can_be_drawn_from_any_folder(clone: Path, folder: str, start: str) -> None:
    """Relative paths start where the script was started."""
    for name in ("gradient_ascent", "activ-retrieval"):
        (clone / "visu" / f"{name}.py").write_text(PRINTER)
    here = clone if folder == "." else clone / folder
    variables = {"PYTHON": sys.executable, "MODEL": "m/checkpoint", "CONV": "1 5", "EXP": "e"}
    done = bash(f"{start}gradient_ascent.sh --niter 7", here, **variables)
    assert done.stdout == (
        f"visu/gradient_ascent.py --model {here}/m/checkpoint --exp {here}/e --conv 1 5 --niter 7\n"
    ), done.stderr
    variables |= {"DATA": "data", "EXP": ""}
    done = bash(f"{start}activ-retrieval.sh --count 3", here, **variables)
    assert done.stdout == (
        f"visu/activ-retrieval.py --data {here}/data --model {here}/m/checkpoint "
        f"--exp {here}/m/visu --conv 1 5 --workers {min(4, allowed_cores())} --count 3\n"
    ), done.stderr


@pytest.mark.parametrize(
    ("script", "missing"),
    [
        ("visu/gradient_ascent.sh", "MODEL"),
        ("visu/activ-retrieval.sh", "DATA"),
        ("recipes/eval_linear_modelzoo.sh", "DATA"),
        ("recipes/eval_knn.sh", "MODEL"),
    ],
)
def test_a_missing_variable_is_one_line(clone: Path, script: str, missing: str) -> None:
    variables = {"PYTHON": sys.executable, "DATA": "d", "MODEL": "m", missing: ""}
    done = bash(script, clone, **variables)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"{Path(script).name}: error: {missing}: name ")


def test_the_model_zoos_linear_probe(clone: Path) -> None:
    (clone / "eval_linear.py").write_text(PRINTER)
    variables = {"PYTHON": sys.executable, "DATA": "d", "MODEL": "/m"}
    done = bash("recipes/eval_linear_modelzoo.sh --lr 1", clone, **variables)
    start = f"eval_linear.py --data {clone}/d --model /m --protocol"
    most = min(12, allowed_cores())
    assert done.stdout == f"{start} modelzoo --workers {most} --verbose --lr 1\n", done.stderr
    more = {"PROTOCOL": "modelzoo-inat18", "CONV": "4 avgpool", "EXP": "e", "WORKERS": "3"}
    chosen = bash("recipes/eval_linear_modelzoo.sh", clone, **variables, **more)
    flags = f"--workers 3 --verbose --conv 4 avgpool --exp {clone}/e"
    assert chosen.stdout == f"{start} modelzoo-inat18 {flags}\n", chosen.stderr


def test_nearest_neighbours(clone: Path) -> None:
    (clone / "eval_knn.py").write_text(PRINTER)
    variables = {"PYTHON": sys.executable, "DATA": "/d", "MODEL": "m", "EXP": "e"}
    done = bash("recipes/eval_knn.sh --k 5", clone, **variables)
    flags = f"--workers {min(12, allowed_cores())} --verbose --exp {clone}/e --k 5"
    assert done.stdout == f"eval_knn.py --data /d --model {clone}/m {flags}\n", done.stderr
