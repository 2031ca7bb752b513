"""The pipeline on a recipe of a few seconds: stages, kills, damaged and foreign run directories, exit statuses."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command import content, files, r1mm, refused, reproduce
from tests.tiny import tiny_recipe

pytestmark = [pytest.mark.timeout(1800), pytest.mark.whole]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_recipe(tmp_path_factory.mktemp("recipes"), claims=True)


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs after one whole run."""
    runs = tmp_path_factory.mktemp("runs")
    result = reproduce(recipe, runs)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["verdicts"][0]["outcome"] == "reproduced"
    return runs


RUN = Path("tiny") / "images-fixed-seed1"


def test_a_run_leaves_what_the_readme_says(finished: Path) -> None:
    root = finished / RUN
    manifest = json.loads((root / "manifest.json").read_text())
    assert (manifest["recipe"], manifest["variant"], manifest["seed"]) == ("tiny", "images-fixed", 1)
    assert len(manifest["lock_sha256"]) == 64
    assert set(manifest["stages"]) == {
        *("assets", "warm-start", "base-evaluation", "grpo", "evaluation", "verdict", "report"),
    }
    threads = {name: stage["threads"] for name, stage in manifest["stages"].items()}
    taken = ("warm-start", "base-evaluation", "grpo", "evaluation")
    assert threads == {name: 2 if name in taken else None for name in threads}
    assert [json.loads(line)["step"] for line in (root / "metrics.jsonl").read_text().splitlines()] == list(range(1, 7))
    verdict, page = json.loads((root / "verdict.json").read_text()), (root / "report.html").read_text()
    assert set(verdict["form"]) == set(verdict["scores"])
    for split, effect in verdict["form"].items():
        assert set(effect["scores"]) == set(verdict["scores"][split])
        assert effect["gain"]["points"] == pytest.approx(verdict["comparisons"][split]["gain"]["points"])
    assert "<html" in page
    assert "How much of the gain is format" in page
    assert not list(finished.rglob("*.bin")) + list(finished.rglob("*.pt")) + list(finished.rglob("checkpoint-*"))


def test_a_second_start_does_nothing_again(recipe: Path, finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "tiny").rglob("stages/**/*") if path.is_file()}
    result = reproduce(recipe, finished)
    assert result.returncode == 0
    assert result.stderr.count("done before") == 7
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_verdict_and_report_are_made_again_from_stored_outputs(finished: Path) -> None:
    root = finished / RUN
    verdict = (root / "verdict.json").read_bytes()
    (root / "verdict.json").unlink()
    assert r1mm("verdict", root, "--json").returncode == 0
    assert (root / "verdict.json").read_bytes() == verdict
    (root / "report.html").unlink()
    assert r1mm("report", root).returncode == 0
    assert (root / "report.html").is_file()


def test_the_same_seed_gives_the_same_numbers(recipe: Path, finished: Path, tmp_path: Path) -> None:
    assert reproduce(recipe, tmp_path).returncode == 0
    assert content(tmp_path / RUN) == content(finished / RUN)


def test_kills_at_any_moment_change_nothing(recipe: Path, finished: Path, tmp_path: Path) -> None:
    chance = random.Random(int.from_bytes(os.urandom(4)))
    moments = []
    while True:
        process = subprocess.Popen(
            [sys.executable, "-m", "r1mm", "reproduce", str(recipe), "--runs", str(tmp_path)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        # Ever later, so that the run gets somewhere: each start loads the libraries anew, some ten seconds.
        moment = chance.uniform(1, 15) + 5 * len(moments)
        try:
            _, errors = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            moments.append(round(moment, 1))
            time.sleep(0.5)  # the stage dies with its parent; its lock goes with it
            continue
        break
    assert process.returncode == 0, f"killed after {moments} s: {errors}"
    assert moments, "no kill fell into the run"
    assert content(tmp_path / RUN) == content(finished / RUN), f"killed after {moments} s"


def test_variants_share_the_warm_start(recipe: Path, finished: Path) -> None:
    before = (finished / "tiny" / "base-seed1" / "stages" / "warm-start" / "record.json").stat().st_mtime_ns
    result = reproduce(recipe, finished, "--variant", "all")
    assert result.returncode == 0, result.stderr
    verdicts = json.loads(result.stdout)["verdicts"]
    assert {verdict["variant"] for verdict in verdicts} == {
        *("as-published", "as-fixed", "format-fixed", "images-fixed"),
    }
    assert (finished / "tiny" / "base-seed1" / "stages" / "warm-start" / "record.json").stat().st_mtime_ns == before
    page = (finished / "tiny" / "comparison-seed1.html").read_text()
    assert all(verdict["variant"] in page for verdict in verdicts)


def copied(finished: Path, target: Path) -> Path:
    shutil.copytree(finished / "tiny", target / "tiny")
    return target


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        ("assets/stages/assets/ood.parquet", ("ood.parquet", "sha256")),
        ("base-seed1/stages/warm-start/model/model.safetensors", ("model.safetensors", "sha256")),
        ("images-fixed-seed1/stages/grpo/model/model.safetensors", ("model.safetensors", "sha256")),
        ("images-fixed-seed1/stages/grpo/record.json", ("record.json", "damaged")),
        ("images-fixed-seed1/metrics.jsonl", ("metrics.jsonl", "sha256")),
        ("images-fixed-seed1/generations/trained-think-id.jsonl", ("trained-think-id.jsonl", "sha256")),
        ("images-fixed-seed1/manifest.json", ("manifest.json", "damaged")),
    ],
)
def test_damage_is_refused_by_name_and_nothing_is_written(
    recipe: Path, finished: Path, tmp_path: Path, damaged: str, words: tuple[str, ...]
) -> None:
    runs = copied(finished, tmp_path)
    path = runs / "tiny" / damaged
    path.write_bytes(path.read_bytes()[:-20])
    before = files(runs)
    refused(reproduce(recipe, runs), *words)
    assert files(runs) == before


def test_a_run_of_another_code_version_is_refused_and_fresh_moves_it_aside(
    recipe: Path, finished: Path, tmp_path: Path
) -> None:
    from r1mm.rundir import read_record, write_record

    runs = copied(finished, tmp_path)
    record = read_record(runs / RUN, "grpo")
    assert record is not None
    write_record(runs / RUN, record.model_copy(update={"code": "0" * 64}))
    refused(reproduce(recipe, runs), "stage grpo", "code version 000000000000", "--fresh")
    assert reproduce(recipe, runs, "--fresh").returncode == 0
    assert (runs / "tiny" / "images-fixed-seed1.old-1" / "report.html").is_file()
    assert content(runs / RUN) == content(finished / RUN)


def test_a_run_of_another_variant_or_recipe_is_refused(recipe: Path, finished: Path, tmp_path: Path) -> None:
    runs = copied(finished, tmp_path)
    shutil.rmtree(runs / "tiny" / "as-fixed-seed1", ignore_errors=True)
    shutil.copytree(runs / RUN, runs / "tiny" / "as-fixed-seed1")
    refused(reproduce(recipe, runs, "--variant", "as-fixed"), "another variant ('images-fixed', not 'as-fixed')")
    manifest = runs / "tiny" / "assets" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"recipe": "tiny"', '"recipe": "other"'))
    refused(reproduce(recipe, runs), "another recipe ('other', not 'tiny')")


def test_a_changed_setting_is_refused_by_name(finished: Path, tmp_path: Path) -> None:
    changed = tiny_recipe(tmp_path / "recipes", {"train.learning_rate": 7e-5}, claims=True)
    runs = copied(finished, tmp_path / "runs")
    before = files(runs)
    refused(reproduce(changed, runs), "stage grpo", "another recipe.train")
    refused(r1mm("stage", "grpo", changed, "--runs", runs), "stage grpo", "another recipe.train")
    assert files(runs) == before


def test_a_changed_verdict_or_report_is_made_again(recipe: Path, finished: Path, tmp_path: Path) -> None:
    runs = copied(finished, tmp_path)
    before = (runs / RUN / "verdict.json").read_bytes()
    (runs / RUN / "verdict.json").write_bytes(before.replace(b'"reproduced"', b'"not reproduced"'))
    (runs / RUN / "report.html").write_text("<html")
    assert reproduce(recipe, runs).returncode == 0
    assert (runs / RUN / "verdict.json").read_bytes() == before
    assert "</html>" in (runs / RUN / "report.html").read_text()


def test_a_run_by_another_name_is_not_judged(finished: Path, tmp_path: Path) -> None:
    runs = copied(finished, tmp_path)
    (runs / RUN).rename(runs / "tiny" / "best")
    refused(r1mm("verdict", runs / "tiny" / "best"), "has been renamed: by its manifest it is tiny/images-fixed-seed1")


def test_wrong_calls(recipe: Path, finished: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    refused(reproduce(Path("no-such-recipe"), nothing), "no recipe 'no-such-recipe'")
    refused(reproduce(recipe, nothing, "--variant", "x"), "no variant 'x'")
    seed = reproduce(recipe, nothing, "--seed", "1.5")
    assert seed.returncode == 2
    assert "must be a whole number from 0 to 4294967295, is '1.5'" in seed.stderr
    refused(r1mm("stage", "grop", recipe, "--runs", nothing), "no stage 'grop'")
    refused(r1mm("stage", "grpo", recipe, "--runs", nothing), "needs stage assets")
    refused(r1mm("verdict", nothing), "no run directory")
    assert not nothing.exists()
    stranger = tmp_path / "runs"
    (stranger / RUN).mkdir(parents=True)
    (stranger / RUN / "thesis.txt").write_text("precious")
    refused(reproduce(recipe, stranger), "is no run directory")
    assert (stranger / RUN / "thesis.txt").read_text() == "precious"


def test_a_second_process_waits_outside(recipe: Path, finished: Path) -> None:
    from r1mm.rundir import locked

    with locked(finished / RUN):
        refused(reproduce(recipe, finished), f"in use by process {os.getpid()}")
        refused(reproduce(recipe, finished, "--fresh"), f"in use by process {os.getpid()}")
        refused(r1mm("stage", "report", recipe, "--runs", finished), f"in use by process {os.getpid()}")
    assert not list(finished.rglob("*.old-*"))


def test_training_that_diverges_stops_the_run_before_the_update(tmp_path: Path) -> None:
    # The base model's training: in GRPO the tiny recipe earns no reward, so no learning rate is too high for it.
    wild = tiny_recipe(tmp_path / "recipes", {"warm_start.learning_rate": 1e30, "warm_start.max_grad_norm": 1e30})
    result = reproduce(wild, tmp_path / "runs")
    assert result.returncode == 1
    assert "is not finite; stopped before the update" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "runs" / "tiny" / "base-seed1" / "stages" / "warm-start" / "record.json").exists()
    assert not (tmp_path / "runs" / RUN / "verdict.json").exists()
