"""What stands beside our task of pictures in lmms-eval's own process: its prompts with ours around them.

Copied next to the task's file and run by lmms-eval's interpreter, which has no r1mm: nothing of r1mm can be imported
here, and nothing here is imported by r1mm.  Questions, options, hints and images are made by lmms-eval's own functions.

- A template holds `{prompt}`, lmms-eval's whole prompt with its words for the form of the answer, or `{question}`, the
  question with its options and its unit, without those words.
- No answer to MathVista is marked here: r1mm marks it.  lmms-eval would ask a language model over the network.
- lmms-eval's module for MathVista imports Levenshtein, a package under the GPL that lmms-eval does not declare, to mark
  answers.  As nothing is marked, a stand-in that refuses to be called is enough for the import.
"""

import re
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

Doc = dict[str, Any]


def _refuse(*texts: str) -> int:
    raise RuntimeError(f"r1mm marks MathVista's answers; lmms-eval was about to compare {texts}")


if "Levenshtein" not in sys.modules:
    sys.modules["Levenshtein"] = types.ModuleType("Levenshtein")
    sys.modules["Levenshtein"].distance = _refuse  # type: ignore[attr-defined]


def _filled(template: str, prompt: Callable[[], str], question: Callable[[], str]) -> str:
    makers = {"{prompt}": prompt, "{question}": question}
    return re.sub(r"\{prompt\}|\{question\}", lambda found: makers[found.group()](), template)


def mmmu_text(doc: Doc, lmms_eval_specific_kwargs: dict[str, Any]) -> str:
    """The prompt of an MMMU question."""
    from lmms_eval.tasks.mmmu import utils

    return _filled(
        lmms_eval_specific_kwargs["template"],
        lambda: utils.mmmu_doc_to_text(doc, lmms_eval_specific_kwargs),
        lambda: utils.construct_prompt(doc).rstrip("\n"),
    )


def mmmu_first_visual(doc: Doc) -> list[Any]:
    """The first image of a question alone, which is all that lmms-eval's qwen2_vl showed in early 2025."""
    from lmms_eval.tasks.mmmu import utils

    return list(utils.mmmu_doc_to_visual(doc)[:1])


def mathvista_text(doc: Doc, lmms_eval_specific_kwargs: dict[str, Any]) -> str:
    """The prompt of a MathVista question, of which the shot type "direct" is the one without words for the answer."""
    from lmms_eval.tasks.mathvista import utils

    return _filled(
        lmms_eval_specific_kwargs["template"],
        lambda: utils.mathvista_doc_to_text(doc, lmms_eval_specific_kwargs),
        lambda: utils.mathvista_doc_to_text(doc, {**lmms_eval_specific_kwargs, "shot_type": "direct"}),
    )


def mathvista_kept(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """The item's name where lmms-eval would put a mark."""
    return {"r1mm_kept": {"question_id": doc["pid"]}}


def how_many(results: Sequence[Any]) -> int:
    """Of how many items there is an answer."""
    return len(results)
