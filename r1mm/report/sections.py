"""What the page of a full recipe has beyond a miniature's: strict and lenient scores, recorded outputs, assets, plan,
deviations.

Pure, as the page is: each function takes what the run's files hold and gives what a template shows.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from r1mm.data.pointers import size_text
from r1mm.evaluate.lmms_samples import letter_of
from r1mm.judge.statistics import wilson
from r1mm.ledger import EFFECTS, Entry, counts
from r1mm.report.figures import Row, finite

LAYOUT_WORDS = {
    "ddp": "DDP",
    "zero-2": "ZeRO-2",
    "zero-3": "ZeRO-3",
    "transformers": "generation by transformers",
    "vllm-colocate": "generation by vLLM on the training GPUs",
    "vllm-server": "generation by a vLLM server",
}
# The plan of each training in a run's manifest.
PLANS = {"sft": "plan-sft", "grpo": "plan"}


@dataclass(frozen=True)
class LenientRow:
    """One condition on one split, scored by upstream's rule and as a benevolent reader would; percent, 95 % Wilson.

    `older`: of lmms-eval's tasks, as lmms-eval 0.3.0 would have read the same outputs, of which it would have given
    `drawn` a letter by chance; these count as wrong.
    """

    split: str
    condition: str
    n: int
    strict: float
    strict_interval: Row
    lenient: float
    lenient_interval: Row
    older: float | None
    drawn: int


def lenient_rows(outputs: Mapping[str, Mapping[str, Sequence[Row]]], lmms: Collection[str] = ()) -> list[LenientRow]:
    """The scores of every condition whose outputs carry the lenient mark; `lmms`: the splits that lmms-eval marked."""
    found = []
    for split, by_condition in outputs.items():
        for condition, rows in by_condition.items():
            if not rows or any("lenient" not in row for row in rows):
                continue
            n = len(rows)
            strict, lenient = (sum(bool(row.get(mark)) for row in rows) for mark in ("correct", "lenient"))
            older = [letter_of(row["completion"], thoughts=True, to_blank_line=True) for row in rows if split in lmms]
            right = sum(letter == row["truth"] for letter, row in zip(older, rows, strict=False))
            found.append(
                LenientRow(
                    split=split,
                    condition=condition,
                    n=n,
                    strict=100 * strict / n,
                    strict_interval=wilson(strict, n).scaled(100).model_dump(),
                    lenient=100 * lenient / n,
                    lenient_interval=wilson(lenient, n).scaled(100).model_dump(),
                    older=100 * right / n if older else None,
                    drawn=older.count(None),
                )
            )
    return found


def why_not(verdicts: Sequence[Row]) -> list[str]:
    """Why the runs cannot be set against what was published; empty where they can."""
    refused = [verdict for verdict in verdicts if verdict.get("comparable") is False]
    reasons = dict.fromkeys(str(reason) for verdict in refused for reason in verdict.get("why_not") or [])
    return list(reasons) or (["the verdict gives no reason"] if refused else [])


def layout_line(plan: Row) -> str:
    """How a plan spreads one optimizer step over its devices, on one line."""
    layout: Row = plan.get("layout") or {}

    def words(key: str) -> str:
        return LAYOUT_WORDS.get(str(layout.get(key)), str(layout.get(key)))

    nodes = f" on {layout['nodes']} nodes" if (layout.get("nodes") or 1) > 1 else ""
    rows = "examples" if plan.get("training") == "sft" else "completions"
    generated = layout.get("generation") not in (None, "none")
    extras = [
        words("sharding"),
        *(["weights and optimizer offloaded to the host"] if layout.get("offload") else []),
        *(["gradient checkpointing"] if layout.get("gradient_checkpointing") else []),
        *([words("generation")] if generated else []),
    ]
    processes = layout.get("processes")
    return (
        f"{layout.get('gpus')}: {processes} process{'' if processes == 1 else 'es'}{nodes} x "
        f"{layout.get('completions_per_device')} {rows} x {layout.get('accumulation')} accumulation = "
        f"{plan.get('completions_per_step')} {rows} a step; {', '.join(extras)}"
    )


@dataclass(frozen=True)
class Estimated:
    """A time in seconds, or money in dollars, as the plan estimated it and as it was; None where nothing is known."""

    what: str
    unit: str
    estimate: float | None
    at_most: float | None
    measured: float | None


@dataclass(frozen=True)
class ShownPlan:
    """A training's plan beside what was measured.  `parts`: memory in GiB by part, one value per phase, None where it
    has none.  `totals`: by phase, with what is always there."""

    training: str
    line: str
    phases: list[str]
    parts: list[tuple[str, list[float | None]]]
    totals: list[float]
    peak: float | None
    peak_phase: str
    device_memory: float | None
    times: list[Estimated]
    assumptions: list[str]
    deviations: list[Row]


def _times(training: str, plan: Row, manifest: Row, metrics: Sequence[Row]) -> list[Estimated]:
    def hours(key: str) -> float | None:
        known = finite(plan.get(key))
        return None if known is None else 3600 * known

    stages: Mapping[str, Row] = manifest.get("stages") or {}
    seconds = {name: finite(stage.get("seconds")) for name, stage in stages.items()}
    took = seconds.pop(training, None)
    steps = [known for row in metrics if (known := finite(row.get("step_time"))) is not None]
    cost, hourly = finite(plan.get("cost")), finite(plan.get("hourly"))
    # The plan's price of an hour, for the hours that it took.
    paid = hourly * took / 3600 if hourly is not None and took is not None else None
    found = [
        Estimated(
            "one training step, mean",
            "seconds",
            finite((plan.get("step_seconds") or {}).get("total")),
            None,
            fmean(steps) if steps else None,
        ),
        Estimated("training", "seconds", hours("hours"), hours("hours_at_most"), took),
    ]
    if cost is not None:
        found.append(
            Estimated("training, cost at the plan's price", "dollars", cost, finite(plan.get("cost_at_most")), paid)
        )
    others = {name: value for name, value in seconds.items() if name not in PLANS}
    return found + [Estimated(f"stage {name}", "seconds", None, None, value) for name, value in others.items()]


def shown_plans(manifest: Row, steps: Mapping[str, Sequence[Row]]) -> list[ShownPlan]:
    """The plans of a run's manifest beside the seconds that its stages took; `steps`: metrics by training."""
    return [
        _shown_plan(training, manifest[key], manifest, steps.get(training) or ())
        for training, key in PLANS.items()
        if manifest.get(key)
    ]


def _shown_plan(training: str, plan: Row, manifest: Row, metrics: Sequence[Row]) -> ShownPlan:
    memory: Mapping[str, Mapping[str, float]] = plan.get("memory") or {}
    always = sum((memory.get("always") or {}).values())
    names = dict.fromkeys(part for parts in memory.values() for part in parts)
    return ShownPlan(
        training=training,
        line=layout_line(plan),
        phases=list(memory),
        parts=[(name, [parts.get(name) for parts in memory.values()]) for name in names],
        totals=[sum(parts.values()) + (0 if phase == "always" else always) for phase, parts in memory.items()],
        peak=finite(plan.get("peak")),
        peak_phase=str(plan.get("peak_phase")),
        device_memory=finite(plan.get("device_memory")),
        times=_times(training, plan, manifest, metrics),
        assumptions=[str(text) for text in plan.get("assumptions") or []],
        deviations=list(plan.get("deviations") or []),
    )


def _size(asset: Row) -> str:
    sizes = [finite(stamp.get("bytes")) for stamp in (asset.get("files") or {}).values()]
    return size_text(int(sum(size for size in sizes if size is not None)))


def shown_ledger(entries: Sequence[Entry]) -> dict[str, Any] | None:
    """How many settings are upstream's, and the deviations, the weighty ones apart.  None without a ledger."""
    if not entries:
        return None
    deviations = [entry for entry in entries if entry.status == "deviation"]
    return {
        "counts": counts(list(entries)),
        "effects": EFFECTS,
        "weighty": [entry for entry in deviations if entry.effect == "possible"],
        "light": [entry for entry in deviations if entry.effect != "possible"],
    }


def full_sections(
    verdict: Row,
    manifest: Row,
    steps: Mapping[str, Sequence[Row]],
    outputs: Mapping[str, Mapping[str, Sequence[Row]]],
    ledger: Sequence[Entry],
    lmms: Collection[str],
) -> dict[str, Any]:
    """All of the above, as the page's templates name it."""
    return {
        "lenient": lenient_rows(outputs, lmms),
        "recorded": verdict.get("recorded") or {},
        "fetched": {
            name: {**asset, "bytes_text": _size(asset)} for name, asset in (manifest.get("fetched") or {}).items()
        },
        "plans": shown_plans(manifest, steps),
        "ledger": shown_ledger(ledger),
    }
