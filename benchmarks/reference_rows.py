"""Run a recipe over seeds and variants, and print the rows for its expected.yaml.

    python benchmarks/reference_rows.py r1v-mini --seeds 1 2 3 4 5 --variants images-fixed --runs runs

Finished runs are read, not run again.  The rows are what came out; nothing is left out or chosen.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from r1mm.job import make_job
from r1mm.recipe import STAGES
from r1mm.training_parts import TRAININGS


def row(root: Path, source: str) -> dict[str, Any]:
    """One reference row from a finished run."""
    verdict = json.loads((root / "verdict.json").read_text())
    manifest = json.loads((root / "manifest.json").read_text())
    keys = ("n", "right", "unparsed", "format", "direct", "mean_tokens")
    trained_by = next(stage for stage in reversed(STAGES) if stage in TRAININGS and stage in manifest["stages"])
    return {
        "who": "r1mm",
        "variant": verdict["variant"],
        "seed": verdict["seed"],
        "hardware": f"{manifest['cpu']['cores']} cores of {manifest['cpu']['model']}, no GPU",
        "code": manifest["stages"][trained_by]["code"],
        "source": source,
        "results": {
            split: {name: {key: score[key] for key in keys} for name, score in conditions.items()}
            for split, conditions in verdict["scores"].items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--variants", nargs="+", required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    rows = []
    for variant in options.variants:
        for seed in options.seeds:
            arguments = [
                "reproduce",
                options.recipe,
                "--variant",
                variant,
                "--seed",
                str(seed),
                "--runs",
                str(options.runs),
            ]
            status = subprocess.run(
                [sys.executable, "-m", "r1mm", *arguments, "--json"], stdout=subprocess.DEVNULL
            ).returncode
            if status in (1, 2, 130):
                raise SystemExit(f"variant {variant}, seed {seed} ended with status {status}")
            job = make_job(options.recipe, variant, seed, None, options.runs)
            command = f"make reproduce-{job.recipe.family} VARIANT={variant} SEED={seed}"
            rows.append(row(job.folder("run"), f"our choice: measured by us, `{command}`"))
    print(yaml.safe_dump({"reference_rows": rows}, sort_keys=False, width=120))


if __name__ == "__main__":
    main()
