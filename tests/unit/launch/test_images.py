"""What the Dockerfiles pin; nothing here needs an engine."""

import re
from dataclasses import replace

import pytest

from r1mm.errors import BadInput
from r1mm.launch.images import DOCKER, IMAGES, Image, default_base, require_evaluator

DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))


@pytest.mark.parametrize("kind", sorted(IMAGES))
def test_every_base_is_pinned_by_digest_and_labelled_with_it(kind: str) -> None:
    name, _, digest = default_base(kind).partition("@")
    assert ":" in name
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
    assert f"\nARG BASE_DIGEST={digest}\n" in IMAGES[kind].dockerfile.read_text()


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_builds_on_nothing_unpinned(path: str) -> None:
    text = path.read_text()  # type: ignore[attr-defined]
    froms = re.findall(r"^FROM (\S+)(?: AS (\S+))?", text, re.MULTILINE)
    stages = {name for _, name in froms}
    assert all(base in {"${BASE_IMAGE}", "scratch", *stages} for base, _ in froms)
    assert re.search(r"^ARG BASE_IMAGE=\S+@sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    assert "# syntax" not in text  # it would pull a front end from a registry
    assert not re.search(r"^(ADD|COPY) \. ", text, re.MULTILINE)
    last_user = re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1]
    assert last_user.split(":")[0] not in ("0", "root")


def test_every_image_has_its_dockerfile() -> None:
    assert {recipe.dockerfile for recipe in IMAGES.values()} == set(DOCKERFILES)


def _steps(kind: str) -> list[str]:
    return re.findall(r"^RUN .*?(?<!\\)$", IMAGES[kind].dockerfile.read_text(), re.MULTILINE | re.DOTALL)


def test_the_evaluators_image_takes_the_trainers_steps_as_they_are() -> None:
    # An engine then keeps their layers once for both; what the evaluator adds comes after, in its own environment.
    trainer, evaluator = _steps("trainer"), _steps("evaluator")
    assert len(trainer) == 3
    assert [step for step in evaluator if step in trainer] == trainer
    added = [step for step in evaluator if step not in trainer]
    assert [bool(re.search(r"VENV=/opt/evaluator .*evaluator\.txt", step)) for step in added] == [False, True]
    assert default_base("evaluator") == default_base("trainer")
    assert "R1MM_EVALUATOR_PYTHON=/opt/evaluator/bin/python" in IMAGES["evaluator"].dockerfile.read_text()


def test_an_image_without_lmms_eval_is_refused_where_it_is_needed() -> None:
    def titled(kind: str) -> Image:
        title = re.findall(r'image\.title="(.*)"', IMAGES[kind].dockerfile.read_text())
        return Image("sha256:0", (), {"org.opencontainers.image.title": title[0]}, 1)

    require_evaluator(titled("evaluator"), "mine")
    with pytest.raises(
        BadInput, match=r"lmms-eval, which image mine \(r1mm-trainer\) lacks; name one that `make image-e"
    ):
        require_evaluator(titled("trainer"), "mine")


def test_an_images_digest_covers_every_lock_in_it() -> None:
    source = IMAGES["evaluator"]
    assert {path.name for path in (source.lock, *source.beside)} == {"gpu.txt", "evaluator.txt"}
    before = source.digest()
    assert before != IMAGES["trainer"].digest()
    assert before != replace(source, beside=()).digest()
