"""The fidelity check on recorded rollouts and on made-up ones: what agrees, what it finds, what it refuses."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from r1mm.cli import main
from r1mm.errors import BadInput
from r1mm.train.fidelity import Fidelity, as_upstream_would, check_fidelity, present_name
from r1mm.train.fixture import read_fixture
from r1mm.train.replay import reading_of, replay
from tests.unit.train.recorded import Kind, write_fixture

pytestmark = pytest.mark.usefixtures("one_thread")


# Recorded from upstream's code; data for checks, which no commit carries.
SHARED = Path(os.environ.get("R1MM_SHARED") or Path(__file__).resolve().parents[2].parent / "shared") / "fidelity"
BETAS: dict[Kind, float] = {"head": 0.04, "feb": 0.07, "mixed": 0.04, "video": 0.1}  # one not the recipe's own
MIXED = "EvolvingLMMs-Lab/open-r1-multimodal@232b7ba"


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Path]:
    place = tmp_path_factory.mktemp("fidelity")
    return {kind: write_fixture(place / kind, kind, beta=beta) for kind, beta in BETAS.items()}


@pytest.fixture
def head(fixtures: dict[Kind, Path], tmp_path: Path) -> Path:
    """A copy of a fixture, to be damaged."""
    shutil.copytree(fixtures["head"].parent, tmp_path / "copy")
    return tmp_path / "copy" / "head"


def checked(folder: Path, scratch: Path) -> Fidelity:
    return check_fidelity(read_fixture(folder), scratch)


@pytest.mark.parametrize("name", ["r1v-head", "r1v-feb", "video"])
def test_our_trainer_computes_what_upstream_recorded(name: str, tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no recorded fixtures at {SHARED}; R1MM_SHARED names the folder that holds fidelity/")
    found = checked(SHARED / name, tmp_path)
    assert found.faithful
    assert found.gradient_error is not None
    assert found.gradient_error < 2e-6
    assert found.kl_error is not None
    assert found.kl_error < 1e-6
    assert found.pixel_difference is not None
    assert found.pixel_difference < 1e-6
    assert abs(found.loss - found.upstream_loss) < 1e-6  # the advantages, of size 1, cancel in it


@pytest.mark.parametrize("kind", BETAS)
def test_our_trainer_computes_upstreams_formula(kind: Kind, fixtures: dict[Kind, Path], tmp_path: Path) -> None:
    found = checked(fixtures[kind], tmp_path)
    assert found.faithful
    assert found.gradient_error is not None
    assert found.gradient_error < 5e-6
    assert found.kl_error is not None
    assert found.kl_error < 1e-5
    assert abs(found.loss - found.upstream_loss) < 1e-6
    assert found.pixel_difference == 0.0
    assert found.largest_log_ratio is not None
    assert 0 < found.largest_log_ratio < 11
    assert (found.prompts, found.group, found.beta) == (2, 3, BETAS[kind])
    assert found.recipe_beta == (0.1 if kind == "video" else 0.04)


@pytest.mark.parametrize("kind", BETAS)
def test_an_image_encoded_once_per_group_changes_nothing(
    kind: Kind, fixtures: dict[Kind, Path], tmp_path: Path
) -> None:
    fixture = read_fixture(fixtures[kind])
    reading = reading_of(fixture.meta.upstream)
    ours, stock = (replay(fixture, reading, tmp_path / str(on), grouped=on) for on in (True, False))
    assert ours.loss == pytest.approx(stock.loss, rel=1e-6, abs=1e-7)  # the advantages, of size 1, cancel in it
    assert ours.kl == pytest.approx(stock.kl, rel=1e-6)
    assert ours.gradients.keys() == stock.gradients.keys()
    apart = sum(float((ours.gradients[name] - g).double().square().sum()) for name, g in stock.gradients.items())
    assert (apart / sum(float(g.double().square().sum()) for g in stock.gradients.values())) ** 0.5 < 1e-6


@pytest.mark.parametrize("name", ["r1v-head", "r1v-feb"])
@pytest.mark.parametrize("commit", ["232b7ba", "c26e521", "f2be85f"])
def test_recorded_rollouts_as_open_r1_multimodal_would_score_them(name: str, commit: str, tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no recorded fixtures at {SHARED}; R1MM_SHARED names the folder that holds fidelity/")
    fixture = read_fixture(SHARED / name)
    found = check_fidelity(fixture, tmp_path, upstream=f"EvolvingLMMs-Lab/open-r1-multimodal@{commit}")
    assert found.faithful
    assert found.recorded_of == fixture.meta.upstream
    # Upstream's side is upstream's: the same plain torch gives the gradient that was recorded.
    assert found.anchor_error is not None
    assert found.anchor_error < 1e-6
    assert found.gradient_error is not None
    assert found.gradient_error < 2e-6
    assert found.kl_error is not None
    assert found.kl_error < 1e-6
    assert abs(found.loss - found.upstream_loss) < 1e-7
    # What a pass sees matters: a policy that sees is farther from a reference that does not than from one that does.
    blind_reference = commit == "232b7ba"
    assert (found.upstream_kl > 0.09) == blind_reference


@pytest.mark.parametrize("kind", ["head", "feb"])
def test_the_mixed_case_is_computed_as_it_would_be_recorded(
    kind: Kind, fixtures: dict[Kind, Path], tmp_path: Path
) -> None:
    # The four fixtures have the same rollouts and weights.
    fixture, recorded = (read_fixture(fixtures[name]) for name in (kind, "mixed"))
    fixture = replace(fixture, meta=fixture.meta.model_copy(update={"beta": recorded.meta.beta}))
    told, anchor_error = as_upstream_would(fixture, MIXED, tmp_path)
    assert told.meta.loss == pytest.approx(recorded.meta.loss, abs=1e-7)
    assert told.meta.kl == pytest.approx(recorded.meta.kl, rel=1e-5)
    ours = {present_name(name): gradient for name, gradient in recorded.gradients.items()}
    assert told.gradients.keys() == ours.keys()
    for name, gradient in told.gradients.items():
        assert gradient.allclose(ours[name], rtol=1e-4, atol=1e-8), name
    assert (anchor_error < 1e-6) == (kind == "head")  # the other was recorded with another beta


def test_the_verb_shows_a_commit_that_was_not_recorded(
    fixtures: dict[Kind, Path], head: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fidelity", str(fixtures["head"]), "--as", MIXED]) == 0
    text = capsys.readouterr().out
    assert f"as {MIXED} would score them, read as mm8k-2b/head" in text
    assert "plain torch, which gives the rollouts' own recorded gradient to" in text
    assert main(["fidelity", str(fixtures["video"]), "--as", MIXED]) == 2
    assert "is of clips" in capsys.readouterr().err
    assert main(["fidelity", str(fixtures["head"]), "--as", "nobody"]) == 2
    assert "upstream nobody is none that a recipe follows" in capsys.readouterr().err
    # Computed numbers count for nothing where the recorded ones do not come out of the same computation.
    gradients = load_file(head / "gradients.safetensors")
    gradients["model.norm.weight"] *= 1.1
    save_file(gradients, head / "gradients.safetensors")
    assert main(["fidelity", str(head), "--as", MIXED, "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["gradient_error"] < 1e-5 < found["anchor_error"]


def test_the_upstream_chooses_the_settings() -> None:
    head = reading_of("Deep-Agent/R1-V@bbbbe3dc1ea6a74ce31c118c1722b1ee73e372ba")
    feb = reading_of("Deep-Agent/R1-V@9d576c7")
    video = reading_of("Wang-Xiaodong1899/Open-R1-Video@50eb65f32f7f0b3c9bc20b74046ef1b5d960088e")
    assert (head.name, head.recipe.factors.images_in_logprobs.value) == ("r1v-clevr-2b/as-fixed", "both")
    assert (feb.name, feb.recipe.factors.images_in_logprobs.value) == ("r1v-clevr-2b/as-published", "none")
    assert (video.name, video.recipe.train["beta"].value) == ("video-7b/as-fixed", 0.1)
    blind = reading_of("Wang-Xiaodong1899/Open-R1-Video@2679e082aaf608fd167a0ad5e6f2afb4f548e25f")
    assert blind.recipe.factors.images_in_logprobs.value == "policy"


def test_the_verb_says_where_we_stand(fixtures: dict[Kind, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fidelity", str(fixtures["video"])]) == 0
    text = capsys.readouterr().out
    assert "read as video-7b/as-fixed" in text
    assert "upstream clamps it at 11, which does not bind here" in text
    assert "\nfaithful" in text


@pytest.mark.parametrize("parameter", ["visual.patch_embed.proj.weight", "model.norm.weight"])
def test_a_wrong_gradient_fails(parameter: str, head: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gradients = load_file(head / "gradients.safetensors")
    gradients[parameter] *= 1.1
    save_file(gradients, head / "gradients.safetensors")
    assert main(["fidelity", str(head), "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["faithful"] is False
    assert found["gradient_error"] > 1e-5
    assert found["worst_parameter"].endswith(parameter.removeprefix("model."))
    assert found["worst_error"] == pytest.approx(0.1 / 1.1, rel=1e-3)


def test_a_gradient_that_upstream_has_none_of_fails(head: Path, tmp_path: Path) -> None:
    gradients = load_file(head / "gradients.safetensors")
    kept = {name: gradient for name, gradient in gradients.items() if not name.startswith("visual.")}
    save_file(kept, head / "gradients.safetensors")
    found = checked(head, tmp_path)
    assert not found.faithful
    assert found.worst_parameter.startswith("model.visual.")
    assert found.worst_error is None


def change_rollouts(folder: Path, name: str, change: Any) -> None:
    tensors = load_file(folder / "rollouts.safetensors")
    tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, folder / "rollouts.safetensors")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("prompt_1/rewards", lambda rewards: rewards.flip(0)),
        ("prompt_0/pixel_values", lambda pixels: pixels.flip(0)),
        ("prompt_0/completion_ids", lambda ids: ids.flip(1)),
    ],
)
def test_other_rollouts_than_those_of_the_gradient_fail(head: Path, tmp_path: Path, name: str, change: Any) -> None:
    change_rollouts(head, name, change)
    assert not checked(head, tmp_path).faithful


def test_a_config_of_449_with_an_empty_cache_setting_is_taken(head: Path, tmp_path: Path) -> None:
    path = head.parent / "base" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_cache": None}))
    assert checked(head, tmp_path).faithful


def test_what_the_files_show_need_not_be_said(head: Path, tmp_path: Path) -> None:
    set_meta(head, n_prompts=None, num_generations=None)
    found = checked(head, tmp_path)
    assert found.faithful
    assert (found.prompts, found.group) == (2, 3)


def set_meta(folder: Path, **changes: Any) -> None:
    meta = {**json.loads((folder / "meta.json").read_text()), **changes}
    (folder / "meta.json").write_text(json.dumps({key: value for key, value in meta.items() if value is not None}))


BAD = {
    "no folder": (shutil.rmtree, "is no folder; give the folder of one fixture"),
    "no base": (lambda f: shutil.rmtree(f.parent / "base"), "must hold the reference policy"),
    "no meta": (lambda f: (f / "meta.json").unlink(), "meta.json is missing"),
    "meta is not JSON": (lambda f: (f / "meta.json").write_text("{"), "meta.json cannot be read"),
    "no beta": (lambda f: set_meta(f, beta=None), "beta is missing"),
    "beta is text": (lambda f: set_meta(f, beta="0.04"), "beta: .*number .*'0.04'"),
    "prompts": (lambda f: set_meta(f, n_prompts=3), "loss has 2 values for 3 prompts; one each"),
    "more prompts": (
        lambda f: set_meta(f, n_prompts=3, loss=[0.1] * 3, kl=[0.1] * 3),
        r"holds prompts \[0, 1\], but meta.json is of 3 prompts",
    ),
    "group": (lambda f: set_meta(f, num_generations=4), r"completion_ids has shape \(3, 7\), must have \(4, 'any'\)"),
    "commit": (
        lambda f: set_meta(f, upstream="Deep-Agent/R1-V@0123456"),
        "Deep-Agent/R1-V@0123456 is none that a recipe follows; those are .*bbbbe3d",
    ),
    "repository": (lambda f: set_meta(f, upstream="someone/else@bbbbe3d"), "is none that a recipe follows"),
    "upstream": (lambda f: set_meta(f, upstream="R1-V"), "upstream: .*'R1-V'"),
    "no rollouts": (lambda f: (f / "rollouts.safetensors").unlink(), "rollouts.safetensors is missing"),
    "cut off": (lambda f: (f / "gradients.safetensors").write_bytes(b"cut off"), "gradients.safetensors is damaged"),
    "no policy": (lambda f: shutil.rmtree(f / "policy"), "policy is missing"),
    "no weights": (lambda f: (f / "policy" / "model.safetensors").unlink(), "policy's weights cannot be loaded"),
    "no image": (lambda f: (f / "image_1.png").unlink(), "image_1.png is missing"),
    "no picture": (lambda f: (f / "image_1.png").write_bytes(b"\x89PNG"), "image_1.png cannot be decoded"),
    "rewards": (
        lambda f: change_rollouts(f, "prompt_0/rewards", lambda rewards: rewards[:2]),
        r"prompt_0/rewards has shape \(2,\), must have \(3,\)",
    ),
    "pixels": (
        lambda f: change_rollouts(f, "prompt_1/pixel_values", lambda pixels: pixels[:-1]),
        r"prompt_1/pixel_values has shape \(15, 1176\), must have \(16, 1176\)",
    ),
    "token": (
        lambda f: change_rollouts(f, "prompt_1/prompt_ids", lambda ids: ids + 100_000),
        "prompt_1/prompt_ids must hold token ids below",
    ),
    "placeholders": (
        lambda f: change_rollouts(f, "prompt_1/prompt_ids", lambda ids: ids[-8:]),
        "prompt_1/prompt_ids has 0 image placeholders",
    ),
    "not finite": (
        lambda f: change_rollouts(f, "prompt_0/rewards", lambda rewards: rewards * torch.nan),
        "prompt_0/rewards must hold finite",
    ),
    "parameter": (
        lambda f: save_file({"visual.other": torch.ones(2)}, f / "gradients.safetensors"),
        r"model.visual.other, of shape \(2,\), is no parameter of our model",
    ),
    "shape": (
        lambda f: save_file({"model.norm.weight": torch.ones(2)}, f / "gradients.safetensors"),
        r"model.language_model.norm.weight, of shape \(2,\), has shape \(32,\) in our model",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_what_does_not_fit_is_named(fault: str, head: Path, tmp_path: Path) -> None:
    damage, words = BAD[fault]
    damage(head)
    with pytest.raises(BadInput, match=words):
        checked(head, tmp_path)
