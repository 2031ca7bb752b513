"""A finished run of the flagship, made up from a seed and judged by the real judge from the real recipe and claims.

Upstream's recorded outputs have the counts that are published: 96 and 165 of 200 right.
"""

import functools
import random
from typing import Any

from r1mm.evaluate.readings import readings_of
from r1mm.evaluate.scoring import Output, score
from r1mm.expected import Expected
from r1mm.judge.answer import answer
from r1mm.judge.seeds import judge_seeds
from r1mm.judge.verdict import judge
from r1mm.plan import make_plan
from r1mm.recipe import CONDITIONS, Condition, Recipe, resolve
from r1mm.recipe_files import RECIPES, load_expected, load_recipe
from r1mm.report.collect import ledger_of
from r1mm.report.page import ReportInputs
from tests.unit.report.conftest import contact_sheet, image_of, metrics

FOLDER = RECIPES / "r1v-clevr-2b"
WHY_NOT = ["model: its config.json is not the one that the recipe pins", "trained on a CPU, in float32"]
# Qwen2-VL-2B-Instruct's config.json, as far as a plan reads it.
SHAPE: dict[str, Any] = {
    "model_type": "qwen2_vl", "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
    "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
    "vision_config": {
        "depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14, "spatial_merge_size": 2,
        "temporal_patch_size": 2, "in_chans": 3, "hidden_size": 1536,
    },
}  # fmt: skip
# Items right of 200, and whether the outputs think.
BASE: dict[Condition, tuple[int, bool]] = {"base-think": (94, True), "base-direct": (170, False)}
TRAINED = {
    "as-published": (164, False),
    "format-fixed": (146, True),
    "images-fixed": (166, False),
    "as-fixed": (149, True),
}


@functools.cache
def recipe() -> Recipe:
    return load_recipe(FOLDER / "recipe.yaml")


@functools.cache
def expected() -> Expected:
    return load_expected(FOLDER / "expected.yaml", recipe())


def outputs(split: str, right: int, thinks: bool, key: str, n: int = 200) -> list[Output]:
    """`right` of `n` outputs right, some of the others without the answer's tag."""
    order = random.Random(f"{split}{key}").sample(range(n), n)
    made = []
    for i in range(n):
        truth = random.Random(f"{split}{i}").randint(3, 10)
        told = truth if order[i] < right else truth + 1
        text = (
            f"<think>\none by one: {told}\n</think>\n<answer> {told} </answer>"
            if thinks
            else f"<answer>{told}</answer>"
        )
        if order[i] >= n - 12 and thinks:
            text = f"<think> I see them. </think> There are {truth} items."  # right, but not in the form asked for
        made.append(
            score(
                "counting",
                item=f"{split}-{i:03d}.png",
                prompt="How many different items are there in the image?",
                completion=text,
                tokens=len(text) // 4,
                truth=truth,
            )
        )
    return made


def evaluated(variant: str, seed: int) -> dict[str, dict[Condition, list[Output]]]:
    by_split: dict[str, dict[Condition, list[Output]]] = {}
    for split in recipe().tasks:
        by_split[split] = {}
        for condition in CONDITIONS:
            right, thinks = BASE[condition] if condition in BASE else TRAINED[variant]
            trained = condition == "trained-think"
            key = f"{condition}{variant}{seed}" if trained else condition
            by_split[split][condition] = outputs(split, right + seed if trained else right, thinks, key)
    return by_split


@functools.cache
def recorded() -> dict[str, dict[Condition, list[Output]]]:
    split = "superclevr-200"
    return {split: {"base-think": outputs(split, 96, True, "r0"), "trained-think": outputs(split, 165, False, "r1")}}


def verdict(variant: str, seed: int, refused: list[str]) -> dict[str, Any]:
    made = evaluated(variant, seed)
    readings = {split: {name: readings_of("counting", rows) for name, rows in by.items()} for split, by in made.items()}
    found = judge(
        expected(), recipe=recipe().name, size=recipe().size, variant=variant, seed=seed, base_seed=0,
        outputs=made, recorded=recorded(), comparable=not refused, why_not=refused,
        readings=readings,
    )  # fmt: skip
    return found.model_dump(mode="json")


def seeds_answer(variants: tuple[str, ...], seeds: tuple[int, ...] = (1, 2, 3)) -> dict[str, Any]:
    """What `answer.json` holds."""
    verdicts = [
        judge_seeds(
            expected(), recipe=recipe().name, size=recipe().size, variant=variant,
            runs={seed: evaluated(variant, seed) for seed in seeds}, recorded=recorded(),
        )
        for variant in variants
    ]  # fmt: skip
    return {"answer": answer(expected(), verdicts), "verdicts": [one.model_dump(mode="json") for one in verdicts]}


def fetched(refused: list[str]) -> dict[str, Any]:
    """What `manifest.json` says of the assets: made-up sizes, the real recipe's sources and licences."""
    found: dict[str, Any] = {}
    for name, asset in recipe().assets.items():
        bad = bool(refused) and name == "model"
        found[name] = {
            "name": name, "kind": asset.kind, "asked": "ab" * 32,
            "source": f"{getattr(asset, 'repo', None) or getattr(asset, 'repository', None) or asset.url}",
            "identity": {"revision": "cd" * 20}, "files": {f"{name}.bin": {"bytes": 123456789, "sha256": "ef" * 32}},
            "licence": asset.licence, "verified": not bad, "why_not": refused[0] if bad else None,
        }  # fmt: skip
    return found


def inputs(variant: str = "as-fixed", seed: int = 1, refused: tuple[str, ...] = ()) -> ReportInputs:
    """What the page of a run shows; `refused`: why it cannot be compared."""
    resolved = resolve(recipe(), variant)
    made = evaluated(variant, seed)
    stages = {"assets": 812.0, "base-evaluation": 140.2, "grpo": 2345.6, "evaluation": 71.0, "verdict": 1.5}
    steps = [{**row, "step_time": 20.0 + row["step"] % 3} for row in metrics("as-fixed", seed, 100)]
    return ReportInputs(
        resolved=resolved.model_dump(mode="json"),
        manifest={
            "recipe": recipe().name, "variant": variant, "seed": seed, "created": "2026-02-03T10:20:30+00:00",
            "stages": {name: {"seconds": took, "started": "2026-02-03T10:20:31"} for name, took in stages.items()},
            "fetched": fetched(list(refused)),
            "plan": make_plan(resolved.recipe, SHAPE, "1xH100-80G").model_dump(mode="json"),
        },
        metrics=steps,
        outputs={
            split: {condition: [one.model_dump() for one in rows] for condition, rows in by.items()}
            for split, by in made.items()
        },
        verdict=verdict(variant, seed, list(refused)),
        image_of=image_of,
        contact_sheets={split: contact_sheet(split) for split in made},
        ledger=ledger_of(FOLDER, variant),
    )  # fmt: skip
