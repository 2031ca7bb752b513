"""Kill a run at random moments until it has been killed N times, let it end, and compare it with an unkilled run.

    python benchmarks/kill_resume.py r1v-mini --kills 10 --reference runs --runs /tmp/killed

The reference run is made if it is not there.  Exit status 0: every number is the same, times aside.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from r1mm.job import make_job


def content(root: Path, base: Path) -> dict[str, Any]:
    """Every result of a run and of its base model, times aside."""
    found: dict[str, Any] = {}
    for path in sorted([*root.glob("generations/*"), *base.glob("generations/*"), *root.glob("stages/*/model/*")]):
        found[path.name] = path.read_bytes()
    found["warm start"] = (base / "stages" / "warm-start" / "model" / "model.safetensors").read_bytes()
    found["verdict"] = json.loads((root / "verdict.json").read_text())
    rows = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
    found["metrics"] = [{key: value for key, value in row.items() if key != "step_time"} for row in rows]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--reference", type=Path, default=Path("runs"), help="folder of runs with the unkilled run")
    parser.add_argument("--runs", type=Path, required=True, help="empty folder for the run to kill")
    parser.add_argument(
        "--longest", type=float, default=90.0, help="a start is killed within so many seconds (default 90)"
    )
    parser.add_argument("--seed", type=int, default=None, help="of the moments (default: from the system)")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    command = [sys.executable, "-m", "r1mm", "reproduce", options.recipe, "--json", "--runs"]
    subprocess.run([*command, str(options.reference)], stdout=subprocess.DEVNULL, check=False)
    kills = 0
    while True:
        process = subprocess.Popen(
            [*command, str(options.runs)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        moment = chance.uniform(2, options.longest) if kills < options.kills else None
        try:
            _, errors = process.communicate(timeout=moment)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            _, errors = process.communicate()
            kills += 1
            at = [line for line in errors.splitlines() if line.startswith("[")][-1:]
            print(f"kill {kills} after {moment:.1f} s, in {at[0] if at else 'start-up'}", flush=True)
            time.sleep(0.5)
    job, reference = (make_job(options.recipe, None, 1, None, runs) for runs in (options.runs, options.reference))
    ours, theirs = (content(j.folder("run"), j.folder("base")) for j in (job, reference))
    different = [name for name in theirs if ours.get(name) != theirs[name]]
    print(f"{kills} kills; {len(theirs)} results compared; different: {', '.join(different) or 'none'}")
    raise SystemExit(bool(different) or kills < options.kills or process.returncode in (1, 2))


if __name__ == "__main__":
    main()
