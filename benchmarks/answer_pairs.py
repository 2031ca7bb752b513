"""The hand-made answer pairs as a table: what a careful reader, upstream's accuracy and ours say of each completion.

python benchmarks/answer_pairs.py                  all pairs, as Markdown
python benchmarks/answer_pairs.py --different      those on which the two rewards differ

The pairs were made together with our rules: they show what the rules do, not how often they err on new outputs.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from r1mm.answers.judging import judge_completion
from r1mm.train.rewards import is_accurate

PAIRS = Path(__file__).parents[1] / "tests" / "unit" / "train" / "answer_pairs.yaml"
_COLUMNS = ("topic", "truth", "completion", "reader", "upstream", "ours", "by", "why")


def rows(content: dict[str, Any]) -> list[dict[str, str]]:
    """Every pair with both verdicts as they come out now, and by what ours does."""
    found = []
    for pair in content["pairs"]:
        problem = content["problems"][pair["problem"]]
        solution = content["solution"].format(thoughts=problem["thoughts"], truth=pair["truth"])
        ours = judge_completion(pair["completion"], solution, problem["text"])
        both = {"upstream": is_accurate(pair["completion"], solution), "ours": ours.right}
        found.append(
            {**pair, **{name: "right" if is_right else "wrong" for name, is_right in both.items()}, "by": ours.by}
        )
    return found


def _cell(row: dict[str, str], column: str) -> str:
    if column in ("truth", "completion") and row[column]:
        return "`" + row[column].replace("\n", "⏎").replace("|", "\\|") + "`"
    return row[column]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--different", action="store_true", help="only pairs on which upstream and ours differ")
    options = parser.parse_args()
    content = yaml.safe_load(PAIRS.read_text(encoding="utf-8"))
    found = rows(content)
    print(f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}")
    for row in found:
        if not options.different or row["upstream"] != row["ours"]:
            print(f"| {' | '.join(_cell(row, column) for column in _COLUMNS)} |")
    print(f"\n{len(found)} pairs, {sum(row['upstream'] != row['ours'] for row in found)} with different verdicts.")
    for name in ("upstream", "ours"):
        count = Counter((row["reader"], row[name]) for row in found)
        wrong, right = (count[reader, "right"] + count[reader, "wrong"] for reader in ("wrong", "right"))
        print(
            f"{name}: rewards {count['wrong', 'right']} of {wrong} wrong answers, refuses {count['right', 'wrong']} of "
            f"{right} right ones"
        )


if __name__ == "__main__":
    main()
