"""A finished miniature run made up from a seed: recipe, manifest, metrics, outputs, verdict and images."""

import functools
import io
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image, ImageDraw

from r1mm.recipe import Recipe, resolve
from r1mm.report.comparison import ComparisonInputs, build_comparison
from r1mm.report.page import ReportInputs
from tests.unit.report.pages import VARIANTS, MadeUp

CHOICE = "our choice: small enough for two processor cores"
FACTORS = {
    "as-published": ("prefix", "none"),
    "prefix-with-images": ("prefix", "both"),
    "full-text-only": ("full", "none"),
    "as-fixed": ("full", "both"),
}
SPLITS = {"id": 200, "ood": 200}


def setting(value: Any, source: str = CHOICE) -> dict[str, Any]:
    return {"value": value, "source": source}


def scenes(world: str, items: int, counts: list[int], question: str, seed: int) -> dict[str, Any]:
    return {"world": world, "items": items, "counts": counts, "question": question, "seed": seed, "source": CHOICE}


def recipe() -> Recipe:
    think = "{question} Output the thinking process in <think> </think> and final answer in <answer> </answer> tags."
    regex = "Deep-Agent/R1-V@bbbbe3d:src/r1-v/src/open_r1/grpo.py"
    return Recipe.model_validate(
        {
            "name": "mini-r1v",
            "title": "R1-V's CLEVR counting result, as a miniature",
            "size": "miniature",
            "upstream": "Deep-Agent/R1-V@bbbbe3d",
            "default_variant": "as-published",
            "stages": ["assets", "warm-start", "base-evaluation", "grpo", "evaluation", "verdict", "report"],
            "devices": 1,
            "threads": setting(2),
            "base_seed": setting(0),
            "family": "r1v",
            "tasks": {
                name: {"scorer": "counting", "items": name, "source": "our choice: a page under test"}
                for name in ("id", "ood")
            },
            "scenes": {
                "train": scenes("clevr-like", 4000, [3, 8], "train", 1),
                "id": scenes("clevr-like", 200, [3, 8], "evaluation", 2),
                "ood": scenes("superclevr-like", 200, [3, 10], "evaluation", 3),
            },
            "image_size": setting(64),
            "model": {"hidden_size": setting(128), "num_hidden_layers": setting(4), "vocab_size": setting(96)},
            "warm_start": {
                "steps": setting(1500),
                "learning_rate": setting(1e-3),
                "thinking_share": setting(0.5),
                "slip_rate": setting(0.45, "our choice: thinking errs as often as the published base model did (48 %)"),
            },
            "prompts": {
                "train": setting(think, regex),
                "evaluation": setting(think, "Deep-Agent/R1-V@bbbbe3d:src/eval/test_qwen2vl_counting_superclevr.py"),
                "direct": setting("{question} Answer with one number.", "Deep-Agent/R1-V#113"),
            },
            "factors": {"format_match": setting("prefix", regex), "images_in_logprobs": setting("none", regex)},
            "prompts_per_step": setting(16),
            "train": {
                "num_generations": setting(8, "Deep-Agent/R1-V@bbbbe3d:README.md"),
                "per_device_train_batch_size": setting(128),
                "gradient_accumulation_steps": setting(1),
                "max_steps": setting(300),
                "learning_rate": setting(1e-4),
                "beta": setting(0.04, "Deep-Agent/R1-V@bbbbe3d:src/r1-v/src/open_r1/trainer/grpo_config.py"),
                "temperature": setting(1.0, "trl==1.16.0:trainer/grpo_config.py"),
            },
            "evaluation": {"max_new_tokens": setting(48), "batch_size": setting(100)},
            "variants": {
                name: {
                    "description": f"format match {match}, images in log-probs {images}",
                    "upstream": "Deep-Agent/R1-V@bbbbe3d",
                    "overrides": {
                        "factors.format_match": setting(match, regex),
                        "factors.images_in_logprobs": setting(images, regex),
                    },
                }
                for name, (match, images) in FACTORS.items()
            },
        }
    )


def image_of(split: str, item: str) -> bytes:
    """A small picture of a few coloured shapes, the same for the same item."""
    chance = random.Random(f"{split}/{item}")
    image = Image.new("RGB", (96, 96), (120, 124, 128))
    draw = ImageDraw.Draw(image)
    for _ in range(chance.randint(3, 8)):
        x, y, r = chance.randint(4, 76), chance.randint(4, 76), chance.randint(6, 10)
        shape = chance.choice([draw.ellipse, draw.rectangle])
        shape((x, y, x + 2 * r, y + 2 * r), fill=tuple(chance.randint(30, 240) for _ in range(3)), outline=(20, 20, 20))
    return png(image)


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def contact_sheet(split: str) -> bytes:
    sheet = Image.new("RGB", (8 * 100, 3 * 100), (255, 255, 255))
    for i in range(24):
        tile = Image.open(io.BytesIO(image_of(split, f"{split}-{i:06d}")))
        sheet.paste(tile, (i % 8 * 100 + 2, i // 8 * 100 + 2))
    return png(sheet)


def completion(truth: int, right: bool, thinks: bool, chance: random.Random) -> dict[str, Any]:
    told = truth if right else truth + chance.choice([-2, -1, 1, 2])
    parts = ["red cube", "blue sphere", "green cylinder", "grey cube", "cyan sphere"]
    if thinks:
        thoughts = "\n".join(f"{chance.choice(parts)}: {i + 1}" for i in range(max(1, told)))
        text = f"<think>\n{thoughts}\n</think>\n<answer> {told} </answer>"
    else:
        text = f"<answer>{told}</answer>"
    return {
        "completion": text, "tokens": len(text) // 4, "parsed": told, "correct": right, "format": thinks,
        "direct": not thinks,
    }  # fmt: skip


def outputs(variant: str, seed: int) -> dict[str, dict[str, list[dict[str, Any]]]]:
    keeps_thinking = FACTORS[variant][0] == "full"
    result: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for split, count in SPLITS.items():
        harder = 0.08 if split == "ood" else 0.0
        chances = {
            "base-think": (0.46 - harder, 0.98),
            "base-direct": (0.83 - harder, 0.0),
            "trained-think": (0.62 - harder, 1.0) if keeps_thinking else (0.86 - harder, 0.01),
        }
        result[split] = {condition: [] for condition in chances}
        for i in range(count):
            item = f"{split}-{i:06d}"
            truth = random.Random(item).randint(3, 8)
            for condition, (right, thinks) in chances.items():
                run = f"{variant}{seed}" if condition == "trained-think" else "base"
                chance = random.Random(f"{item}{condition}{run}")
                answer = completion(truth, chance.random() < right, chance.random() < thinks, chance)
                question = "How many different items are there in the image?"
                result[split][condition].append({"item": item, "prompt": question, "truth": truth, **answer})
    return result


def wilson(right: int, n: int) -> dict[str, float]:
    p, z = right / n, 1.96
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return {"low": 100 * (middle - half) / (1 + z * z / n), "high": 100 * (middle + half) / (1 + z * z / n)}


def measured(rows: list[dict[str, Any]]) -> dict[str, Any]:
    n, right = len(rows), sum(row["correct"] for row in rows)
    return {
        "n": n, "right": right, "unparsed": sum(row["parsed"] is None for row in rows),
        "format": sum(row["format"] for row in rows), "direct": sum(row["direct"] for row in rows),
        "mean_tokens": sum(row["tokens"] for row in rows) / n,
    }  # fmt: skip


def compared(later: list[dict[str, Any]], earlier: list[dict[str, Any]]) -> dict[str, Any]:
    pairs = [(a["correct"], b["correct"]) for a, b in zip(later, earlier, strict=True)]
    up, down, n = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs), len(pairs)
    points, half = 100 * (up - down) / n, 196 * math.sqrt(up + down) / n
    p = min(1.0, 2 * sum(math.comb(up + down, k) for k in range(min(up, down) + 1)) / 2 ** (up + down))
    return {"points": points, "interval": {"low": points - half, "high": points + half}, "p": p,
            "only_trained_right": up, "only_other_right": down}  # fmt: skip


@functools.cache
def reference_rows() -> list[dict[str, Any]]:
    rows = []
    for variant in FACTORS:
        for seed in (1, 2, 3):
            results = {
                split: {condition: measured(lines) for condition, lines in by_condition.items()}
                for split, by_condition in outputs(variant, seed).items()
            }
            rows.append(
                {
                    "who": "r1mm authors", "variant": variant, "seed": seed, "hardware": "2 cores, 8 GB",
                    "code": "r1mm 0.1.0", "source": CHOICE, "results": results,
                }
            )  # fmt: skip
    return rows


def verdict(variant: str, seed: int, made: dict[str, dict[str, list[dict[str, Any]]]]) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    for split, by_condition in made.items():
        scores[split] = {}
        for condition, lines in by_condition.items():
            row = measured(lines)
            row |= {"accuracy": 100 * row["right"] / row["n"], "interval": wilson(row["right"], row["n"])}
            scores[split][condition] = row
    comparisons = {
        split: {
            "gain": compared(made[split]["trained-think"], made[split]["base-think"]),
            "trained minus base-direct": compared(made[split]["trained-think"], made[split]["base-direct"]),
        }
        for split in made
    }
    gain = comparisons["ood"]["gain"]
    format_share = 100 * scores["ood"]["trained-think"]["format"] / scores["ood"]["trained-think"]["n"]
    claims = [
        {
            "id": "gain-ood", "statement": "Training raises accuracy on objects never seen in training.",
            "metric": "gain", "split": "ood", "test": "at_least", "value": gain["points"], "unit": "points",
            "interval": gain["interval"], "interval_level": 0.9,
            "interval_of": "value", "standard_errors": None, "reference": 10.0, "margin": 0.0, "n_reference_rows": 0,
            "outcome": "reproduced", "words": f"The gain of {gain['points']:.1f} points is above 10 (p < 0.001).",
        },
        {
            "id": "format-ood", "statement": "The trained model no longer thinks: bare answers only.",
            "metric": "format", "split": "ood", "test": "at_most", "value": format_share, "unit": "percent",
            "interval": {"low": 0.0, "high": 2.8}, "interval_level": 0.9, "interval_of": "value",
            "reference": 10.0, "margin": 0.0, "n_reference_rows": 0,
            "outcome": "reproduced", "words": f"{format_share:.1f} % of the outputs keep the format, below 10 %.",
        },
        {
            "id": "accuracy-id", "statement": "Accuracy in distribution is that of the authors' runs.",
            "metric": "accuracy", "split": "id", "test": "near", "value": scores["id"]["trained-think"]["accuracy"],
            "unit": "percent", "interval": {"low": -3.1, "high": 6.9}, "interval_level": 0.9,
            "interval_of": "difference",
            "standard_errors": {"items": 2.26, "seeds": 1.4, "reference": 0.81}, "reference": 86.3, "margin": 6.0,
            "n_reference_rows": 3, "outcome": "inconclusive",
            "words": "The difference reaches across the margin & 200 items cannot tell; more seeds would.",
        },
    ]  # fmt: skip
    return {
        "recipe": "mini-r1v", "variant": variant, "seed": seed, "base_seed": 0, "size": "miniature",
        "outcome": "partly", "headline": "2 of 3 claims reproduced; one cannot be told with 200 items and one seed.",
        "scores": scores, "comparisons": comparisons, "claims": claims,
        "reference_rows": [row for row in reference_rows() if row["variant"] == variant],
    }  # fmt: skip


def metrics(variant: str, seed: int, steps: int = 300) -> list[dict[str, float]]:
    full, with_images = FACTORS[variant][0] == "full", FACTORS[variant][1] == "both"
    chance, rows = random.Random(f"{variant}{seed}"), []
    for step in range(1, steps + 1):
        done = 1 / (1 + math.exp(-(step - (60 if with_images else 110)) / 15))
        accuracy = 0.46 + (0.16 if full else 0.4) * done + chance.gauss(0, 0.035)
        form = (0.9 + 0.1 * done if full else 0.02 * (1 - done)) + abs(chance.gauss(0, 0.01))
        rows.append(
            {
                "step": step, "loss": 0.0004 * step, "grad_norm": 0.5 + chance.random(), "learning_rate": 1e-4,
                "reward": accuracy + form, "reward_std": 0.4, "rewards/accuracy_reward/mean": min(1.0, accuracy),
                "rewards/format_reward/mean": min(1.0, form),
                "completions/mean_length": (31 + 3 * done if full else 31 - 24 * done) + chance.gauss(0, 0.7),
                "completions/clipped_ratio": 0.0, "kl": 0.25 * done + 0.02 * abs(chance.gauss(0, 1)),
                "entropy": 0.4, "step_time": 0.9,
            }
        )  # fmt: skip
    return rows


def manifest(variant: str, seed: int) -> dict[str, Any]:
    return {
        "recipe": "mini-r1v", "variant": variant, "seed": seed, "base_seed": 0, "size": "miniature",
        "created": "2026-02-03T10:20:30+00:00", "git": {"commit": "0123456789abcdef" * 2 + "01234567", "dirty": False},
        "lock_sha256": "ab" * 32, "packages": {"torch": "2.13.0", "trl": "1.16.0", "transformers": "5.23.0"},
        "python": "3.11.2", "platform": "Linux-6.1-x86_64", "cpu": {"model": "Example CPU", "cores": 2},
        "memory_gb": 8.0, "gpus": [], "image": None,
        "assets": {f"{name}.parquet": {"sha256": "cd" * 32, "bytes": 1234567} for name in ("train", *SPLITS)},
        "stages": {
            name: {"seconds": seconds, "started": "2026-02-03T10:20:31+00:00", "code": "ef" * 32, "inputs": "01" * 32}
            for name, seconds in {"assets": 11.2, "base-evaluation": 14.9, "grpo": 402.5, "evaluation": 8.1}.items()
        },
    }  # fmt: skip


def inputs(variant: str = "as-published", seed: int = 0) -> ReportInputs:
    made = outputs(variant, seed)
    return ReportInputs(
        resolved=resolve(recipe(), variant).model_dump(mode="json"),
        manifest=manifest(variant, seed),
        metrics=metrics(variant, seed),
        outputs=made,
        verdict=verdict(variant, seed, made),
        image_of=image_of,
        contact_sheets={split: contact_sheet(split) for split in SPLITS},
    )


@pytest.fixture(scope="session")
def made_up_run() -> Callable[..., ReportInputs]:
    """A function (variant, seed) -> the inputs of a report."""
    return inputs


@pytest.fixture(scope="module")
def run(made_up_run: MadeUp) -> ReportInputs:
    return made_up_run()


@pytest.fixture(scope="module")
def runs(made_up_run: MadeUp) -> list[ReportInputs]:
    return [made_up_run(variant) for variant in VARIANTS]


@pytest.fixture(scope="module")
def comparison(runs: list[ReportInputs]) -> str:
    return build_comparison(ComparisonInputs(runs))
