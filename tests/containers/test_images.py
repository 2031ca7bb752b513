"""The images: what is in them, what they say of themselves, what is refused before a build."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from python_on_whales import DockerClient

from r1mm.launch.engine import output_of
from r1mm.launch.images import IMAGES, Image, build
from r1mm.manifest import ROOT
from tests.command import failed, r1mm, refused

pytestmark = [pytest.mark.timeout(900)]


def shell(image: Image, script: str, user: str | None = None) -> str:
    """What a shell script in a container of `image` prints."""
    options = {"user": user} if user else {}
    return output_of(image.id, ["-c", script], entrypoint="sh", tmpfs=[Path("/tmp")], **options)


def test_labels_say_what_it_was_built_from(image: Image) -> None:
    described = image.as_dict()
    assert described["lock_sha256"] == hashlib.sha256(IMAGES["cpu"].lock.read_bytes()).hexdigest()
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", described["base_digest"])
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", described["revision"])


def test_a_second_build_gives_the_same_image(image: Image) -> None:
    assert build("cpu", print).id == image.id


def test_a_code_change_rebuilds_the_last_layer_alone(docker: DockerClient, image: Image, tmp_path: Path) -> None:
    copy = tmp_path / "clone"
    for name in ("r1mm", "recipes", "docker", "compose.yaml", ".dockerignore"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    with (copy / "r1mm" / "errors.py").open("a") as file:
        file.write("# changed\n")
    made = subprocess.run(
        [sys.executable, "-m", "r1mm", "image", "cpu", "--json"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=True,
    )
    changed = json.loads(made.stdout)["id"]
    before, after = (docker.image.inspect(name).root_fs.layers for name in (image.id, changed))
    assert changed != image.id
    assert before is not None
    assert after is not None
    assert before[:-1] == after[:-1]
    assert before[-1] != after[-1]
    docker.image.remove(changed, force=True)
    build("cpu", print)  # gives the name back to this tree's image


def test_every_package_of_the_lock_is_in_the_bill_of_materials(image: Image) -> None:
    bill = json.loads(shell(image, "cat /opt/r1mm/sbom.cdx.json"))
    assert bill["bomFormat"] == "CycloneDX"
    locked = set(re.findall(r"^([a-z0-9._-]+)==", IMAGES["cpu"].lock.read_text(), re.MULTILINE))
    assert {component["name"] for component in bill["components"]} == locked
    assert all(reference["hashes"] for component in bill["components"] for reference in component["externalReferences"])


@pytest.mark.parametrize("user", [None, "4321:4321", "0:0"])
def test_it_works_under_any_user(image: Image, user: str | None) -> None:
    script = 'id -u; python -m r1mm recipes list; python -c "import getpass, pathlib; print(getpass.getuser())"'
    said = shell(image, f"{script}; touch $HOME/x && echo home is writable", user).splitlines()
    assert said[0] == (user or "10001").split(":")[0]
    assert any(line.startswith("r1v-mini ") for line in said)
    assert said[-2:] == ["r1mm", "home is writable"]


def test_there_is_no_compiler_and_no_installer_in_it(image: Image) -> None:
    assert shell(image, "for p in gcc cc g++ make uv pip; do command -v $p || true; done") == ""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"BASE_IMAGE": "nobody/knows-it:1"}, ("nobody/knows-it:1", "no digest", "@sha256:")),
        ({"BASE_IMAGE": "stand-in/python:3.11-slim-bookworm@sha256:12"}, ("'sha256:12' is no digest",)),
        ({"CA_BUNDLE": "/no/such/file"}, ("CA_BUNDLE=/no/such/file", "no such file")),
        ({"WHEELS": "/no/such/folder"}, ("WHEELS=/no/such/folder", "no such folder")),
    ],
)
def test_what_cannot_be_built_on_is_refused_first(settings: dict[str, str], words: tuple[str, ...]) -> None:
    refused(r1mm("image", "cpu", **settings), *words)


def test_a_base_that_does_not_match_its_digest_is_refused(docker: DockerClient, image: Image) -> None:
    # Any image made on this engine and never pulled has its id as its only digest.
    tag = IMAGES["cpu"].tag
    result = r1mm("image", "cpu", BASE_IMAGE=f"{tag}@sha256:{'0' * 64}")
    refused(result, f"base image {tag} does not match its digest", "sha256:" + "0" * 64, image.id)


def test_a_build_that_fails_says_so_and_keeps_its_last_words(docker: DockerClient, tmp_path: Path) -> None:
    empty = tmp_path / "empty.tar"
    empty.write_bytes(bytes(10240))
    docker.image.import_(empty, tag="r1mm-empty")  # a base without Python, or anything
    try:
        result = r1mm("image", "cpu", BASE_IMAGE="r1mm-empty")
    finally:
        docker.image.remove("r1mm-empty", force=True)
    failed(result, "image r1mm-cpu could not be built on r1mm-empty")
    assert "/install.sh" in result.stderr
