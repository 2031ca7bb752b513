"""The main job in containers: the numbers of a local run, a manifest that says where, what a container may not do."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from python_on_whales import DockerClient

from r1mm.errors import StageFailed
from r1mm.launch.engine import COMPOSE_FILE, GPU_FILE, find_engine, gives_gpus, in_our_words
from r1mm.launch.images import Image
from tests.command import content, failed, files, r1mm, refused, reproduce
from tests.containers.conftest import leavings
from tests.local_assets import make_local_assets
from tests.tiny import small_full_recipe

pytestmark = [pytest.mark.timeout(900)]
RUN = Path("tiny") / "images-fixed-seed1"


@pytest.fixture(scope="module")
def finished(recipe: Path, image: Image, docker: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs after one whole run in containers."""
    runs = tmp_path_factory.mktemp("runs")
    result = reproduce(recipe, runs, "--launch", "compose")
    assert result.returncode == 0, result.stderr
    assert "launch: compose (as asked)" in result.stderr
    assert leavings(docker) == []
    return runs


def test_containers_give_the_numbers_that_this_machine_gives(recipe: Path, finished: Path, tmp_path: Path) -> None:
    assert reproduce(recipe, tmp_path).returncode == 0
    assert content(finished / RUN) == content(tmp_path / RUN)


def test_a_run_made_in_containers_is_found_done_without_them_and_the_other_way_round(
    recipe: Path, finished: Path
) -> None:
    before = files(finished / "tiny")
    for launch in ("local", "compose"):
        result = reproduce(recipe, finished, "--launch", launch)
        assert result.returncode == 0, result.stderr
        assert result.stderr.count("done before") == 7
    assert files(finished / "tiny") == before


def test_the_manifest_and_every_record_name_the_image(finished: Path, image: Image) -> None:
    manifest = json.loads((finished / RUN / "manifest.json").read_text())
    assert manifest["image"] == image.as_dict()
    assert manifest["image"]["lock_sha256"] == manifest["lock_sha256"]
    assert len(manifest["sbom_sha256"]) == 64
    assert manifest["engine"] == find_engine().as_dict()
    assert {stage["image"] for stage in manifest["stages"].values()} == {image.id}


def test_a_full_recipe_runs_from_a_folder_of_assets(image: Image, tmp_path: Path) -> None:
    """The flagship's own stages; its assets are mounted for reading, and nothing but the run's folder is written."""
    recipe = small_full_recipe(tmp_path / "recipes")
    assets = make_local_assets(tmp_path / "assets", train=16, items=7)
    before = files(assets)
    result = reproduce(recipe, tmp_path / "runs", "--assets", assets, "--gpus", "cpu", "--launch", "compose")
    assert result.returncode == 0, result.stderr
    root = tmp_path / "runs" / "small" / "as-fixed-seed1"
    assert json.loads((root / "verdict.json").read_text())["comparable"] is False
    manifest = json.loads((root / "manifest.json").read_text())
    assert (manifest["image"]["id"], manifest["plan"]["layout"]["device"]) == (image.id, "cpu")
    assert files(assets) == before


def test_its_files_are_the_callers(finished: Path) -> None:
    assert {path.stat().st_uid for path in (finished / "tiny").rglob("*")} == {os.getuid()}


def test_verify_finds_it_whole_and_the_same(finished: Path) -> None:
    result = r1mm("verify", finished / RUN, "--json")
    states = {finding["what"]: finding["state"] for finding in json.loads(result.stdout)}
    commit = states.pop("commit")  # unknown: a tree with changes
    assert result.returncode == {"same": 0, "unknown": 4}[commit], result.stdout
    assert set(states.values()) == {"same"}
    assert states.keys() >= {
        *("files", "stage grpo", "image", "base image", "lock cpu.txt", "image's Dockerfile and locks"),
    }


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        ("stages/evaluation/record.json", "stage evaluation"),
        ("generations/trained-think-id.jsonl", "tiny/images-fixed-seed1/generations/trained-think-id.jsonl"),
    ],
)
def test_verify_finds_what_is_gone(finished: Path, tmp_path: Path, damage: str, what: str) -> None:
    shutil.copytree(finished / "tiny", tmp_path / "tiny")
    (tmp_path / RUN / damage).unlink()
    result = r1mm("verify", tmp_path / RUN, "--json")
    assert result.returncode == 1
    assert {"damaged"} == {found["state"] for found in json.loads(result.stdout) if found["what"] == what}


def inside(service: str, script: str, *, runs: Path, image: Image, gpu: bool = False, **settings: str) -> str:
    """What a script prints in a one-shot container of a service, as compose.yaml has it."""
    variables = {
        **{"R1MM_CPU_IMAGE": image.id, "R1MM_TRAINER_IMAGE": image.id, "R1MM_RUNS": str(runs), "R1MM_SHM": "64m"},
        **{
            "R1MM_USER": "4321:4321",
            "R1MM_MEMORY": "1g",
            "R1MM_CACHES": "r1mm-test",
            "HF_TOKEN": "hf_secret_of_the_host",
            **settings,
        },
    }
    patch = pytest.MonkeyPatch()
    for name, value in variables.items():
        patch.setenv(name, value)
    docker = DockerClient(
        compose_files=[COMPOSE_FILE, GPU_FILE] if gpu else [COMPOSE_FILE], compose_profiles=["cpu", "gpu"]
    )
    try:
        return str(docker.compose.run(service, ["-c", script], entrypoint="sh", tty=False, remove=True))
    finally:
        docker.compose.down(volumes=True)
        patch.undo()


@pytest.fixture
def open_runs(tmp_path: Path) -> Path:
    runs = tmp_path / "runs"
    runs.mkdir()
    runs.chmod(0o777)
    for parent in list(runs.parents)[:3]:
        parent.chmod(0o755)
    return runs


def test_a_stage_can_write_only_its_runs_and_tmp(image: Image, open_runs: Path) -> None:
    script = """
for place in / /opt/r1mm /opt/venv /etc /usr/bin /var/tmp /root /home /dev /cache/huggingface /proc/sys; do
  if touch $place/probe 2>/dev/null; then echo "wrote $place"; fi
done
for place in /runs /tmp /dev/shm; do touch $place/probe && echo "may write $place"; done
cp /bin/true /tmp/true && /tmp/true && echo "may run what it compiled in /tmp"
"""
    said = inside("cpu", script, runs=open_runs, image=image).splitlines()
    assert said == ["may write /runs", "may write /tmp", "may write /dev/shm", "may run what it compiled in /tmp"]
    assert [path.name for path in open_runs.iterdir()] == ["probe"]


@pytest.mark.parametrize("user", ["4321:4321", "0:0"])
def test_a_stage_has_no_privileges_and_can_gain_none(image: Image, open_runs: Path, user: str) -> None:
    script = """
grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status
chown 1234 /runs 2>/dev/null && echo "changed an owner"
mount -t tmpfs none /mnt 2>/dev/null && echo "mounted"
ls /sys/class/net
"""
    said = inside("cpu", script, runs=open_runs, image=image, R1MM_USER=user).split("\n")
    status = dict(line.split(":\t") for line in said if ":\t" in line)
    assert {name: int(value, 16) for name, value in status.items() if name.startswith("Cap")} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0
    )
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert [line for line in said if ":\t" not in line] == ["lo"]  # no network, and nothing else worked


@pytest.mark.parametrize("service", ["cpu", "trainer"])
def test_no_token_is_in_its_environment(image: Image, open_runs: Path, tmp_path: Path, service: str) -> None:
    token = tmp_path / "token"
    token.write_text("hf_secret_in_a_file")
    token.chmod(0o644)
    script = "env; cat /proc/1/environ | tr '\\0' '\\n'; echo; echo file: $(cat /run/secrets/hf_token 2>/dev/null)"
    said = inside(service, script, runs=open_runs, image=image, HF_TOKEN_FILE=str(token))
    environment, _, secret = said.rpartition("file:")
    assert "hf_secret" not in environment
    assert secret.strip() == ("hf_secret_in_a_file" if service == "trainer" else "")


def test_limits_are_set(image: Image, open_runs: Path) -> None:
    script = """
cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null | head -1
cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null | head -1
df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2
"""
    assert inside("cpu", script, runs=open_runs, image=image).split() == [str(2**30), "4096", str(64 * 1024)]


def merged() -> dict[str, Any]:
    """compose.yaml and the GPU overlay as compose reads them: the JSON, for the typed view drops options."""
    docker = DockerClient(
        compose_files=[COMPOSE_FILE, GPU_FILE], compose_profiles=["cpu", "gpu", "rollout", "dashboard"]
    )
    found: dict[str, Any] = docker.compose.config(return_json=True)
    return found


def test_every_service_is_hardened() -> None:
    services = merged()["services"]
    assert set(services) == {"cpu", "trainer", "evaluator", "rollout", "dashboard"}
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["tmpfs"] == ["/tmp:exec,mode=1777"], name
        assert service["init"], name
        assert int(service["mem_limit"]) > 0, name
        assert service["mem_limit"] == service["memswap_limit"], name
        assert service["pids_limit"] > 0, name
        assert "healthcheck" in service, name
        assert service["profiles"], name
        assert "ipc" not in service, name
        assert "privileged" not in service, name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
    devices = [{"capabilities": ["gpu"], "driver": "nvidia", "count": -1}]
    for name in ("trainer", "evaluator", "rollout"):
        assert services[name]["deploy"]["resources"]["reservations"]["devices"] == devices
        assert services[name]["environment"]["R1MM_GPUS"] == "all"


def test_the_evaluators_image_is_the_trainers_where_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1MM_TRAINER_IMAGE", "a-trainer")
    monkeypatch.delenv("R1MM_EVALUATOR_IMAGE", raising=False)
    assert merged()["services"]["evaluator"]["image"] == "a-trainer"
    monkeypatch.setenv("R1MM_EVALUATOR_IMAGE", "an-evaluator")
    assert merged()["services"]["evaluator"]["image"] == "an-evaluator"
    assert merged()["services"]["trainer"]["image"] == "a-trainer"


@pytest.fixture
def on_gpus(tmp_path: Path) -> list[object]:
    """The arguments of a full recipe on two GPUs, its assets in a folder."""
    assets = make_local_assets(tmp_path / "assets", train=16, items=7)
    runs = tmp_path / "runs"
    return [small_full_recipe(tmp_path / "recipes"), "--runs", runs, "--gpus", "2xA100-80G", "--assets", assets]


@pytest.mark.usefixtures("nothing_left")
def test_a_job_says_itself_that_it_does_not_see_the_gpus_it_was_promised(
    on_gpus: list[object], image: Image, tmp_path: Path
) -> None:
    if not gives_gpus()[0]:
        pytest.skip("the engine has no GPU runtime")
    result = r1mm("reproduce", *on_gpus, "--image", image.id)
    failed(result, "stage assets ended with status 1")
    assert "launch: compose" in result.stderr
    assert "r1mm: failed: this stage was promised 2 GPUs and sees 0 (" in result.stderr
    assert not list((tmp_path / "runs").rglob("record.json"))


@pytest.fixture
def engine_without_gpus(tmp_path: Path) -> Iterator[str]:
    """The address of an engine of our own that has no GPU runtime, nor an image, nor a network."""
    dockerd = shutil.which("dockerd")
    if os.getuid() != 0 or dockerd is None:
        pytest.skip("starting an engine needs root and dockerd")
    folder = Path(tempfile.mkdtemp(prefix="r1mm-", dir="/var/tmp"))  # a socket's path is short, a data root no tmpfs
    address = f"unix://{folder}/s"
    # Without the folders where a runtime's hook might lie.
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if "gpu" not in part)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                *(dockerd, "--config-file", "/dev/null", "--host", address, "--data-root", folder / "data"),
                *("--exec-root", folder / "exec", "--pidfile", folder / "pid", "--bridge", "none", "--iptables=false"),
            ],
            stdout=log,
            stderr=log,
            env={**os.environ, "PATH": path},
        )
    try:
        while subprocess.run(["docker", "--host", address, "version"], capture_output=True).returncode:
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def test_without_a_gpu_runtime_the_refusal_is_ours_and_comes_before_any_build(
    on_gpus: list[object], tmp_path: Path, engine_without_gpus: str
) -> None:
    result = r1mm("reproduce", *on_gpus, "--launch", "compose", DOCKER_HOST=engine_without_gpus)
    refused(result, "gpu runtime: the engine hands out no GPUs", "NVIDIA Container Toolkit")
    assert "image r1mm-trainer:" not in result.stderr
    assert not (tmp_path / "runs").exists()


def test_an_engines_refusal_is_passed_on(docker: DockerClient) -> None:
    with pytest.raises(StageFailed, match="looking: .*[Nn]o such container"), in_our_words("looking"):
        docker.container.inspect("r1mm-nobody")


def test_a_recipe_for_gpus_is_refused_on_a_machine_that_has_none(on_gpus: list[object], tmp_path: Path) -> None:
    from r1mm.gpus import gpus

    if len(gpus()) >= 2:
        pytest.skip("this machine has the GPUs")
    refused(r1mm("reproduce", *on_gpus, "--launch", "local"), "gpus", "2")
    assert not (tmp_path / "runs").exists()


def test_an_image_with_other_code_is_refused(recipe: Path, image: Image, docker: DockerClient, tmp_path: Path) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM r1mm-cpu\nUSER 0\nRUN echo '# changed' >> r1mm/errors.py\nUSER 10001\n")
    docker.buildx.build(tmp_path, tags="r1mm-changed", load=True, progress=False)
    try:
        result = reproduce(recipe, tmp_path / "runs", "--image", "r1mm-changed")
        refused(
            result,
            "r1mm-changed holds another version of r1mm's code",
            image.labels["org.opencontainers.image.revision"],
        )
        refused(reproduce(recipe, tmp_path / "runs", "--image", "r1mm-nowhere"), "holds no image r1mm-nowhere")
    finally:
        docker.image.remove("r1mm-changed", force=True)
    assert not list((tmp_path).rglob("manifest.json"))
