"""The pipeline over clips: films written and read as mp4, GRPO on letters, questions asked without their clip."""

import json
from pathlib import Path

import pytest

from tests.command import reproduce
from tests.tiny import ITEMS, tiny_clips_recipe

pytestmark = [pytest.mark.timeout(900), pytest.mark.whole]
RUN, BASE = Path("tiny") / "images-fixed-seed1", Path("tiny") / "base-seed1"


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_clips_go_through_every_stage(tmp_path: Path) -> None:
    recipe = tiny_clips_recipe(tmp_path)
    one = tmp_path / "runs"
    result = reproduce(recipe, one)
    assert json.loads(result.stdout)["verdicts"], result.stderr
    metrics = lines(one / RUN / "metrics.jsonl")
    assert [line["step"] for line in metrics] == list(range(1, 7))
    assert all("rewards/letter_reward/mean" in line for line in metrics)
    assert not any("rewards/format_reward/mean" in line for line in metrics)
    seen, blind = (lines(one / BASE / "generations" / f"base-think-{split}.jsonl") for split in ("ood", "ood-blind"))
    assert len(seen) == len(blind) == ITEMS
    assert [row["prompt"] for row in seen] == [row["prompt"] for row in blind]
    assert [row["completion"] for row in seen] != [row["completion"] for row in blind]
    assert {str(row["truth"]) for row in seen} <= set("ABCD")
    assert "data:image/" in (one / RUN / "report.html").read_text()
