"""What a recipe evaluates its models on: the schema of its tasks."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from r1mm.sourced import Setting, Source, Sparse, Strict

# The conditions under which a model is evaluated.
Condition = Literal["base-think", "base-direct", "trained-think"]
CONDITIONS: tuple[Condition, ...] = ("base-think", "base-direct", "trained-think")
# lmms-eval's tasks about pictures, each with the benchmark whose items, form of prompt and scorer it has.
PICTURE_TASKS: dict[str, Literal["mmmu", "mathvista"]] = {
    "mmmu_val": "mmmu",
    **dict.fromkeys(
        ("mathvista_testmini_cot", "mathvista_testmini_format", "mathvista_testmini_solution"), "mathvista"
    ),
}


class TaskPrompts(Strict):
    """Prompts of a task about pictures, where they are not the recipe's.

    `{question}`: the question with its options; `{prompt}`: lmms-eval's whole.
    """

    evaluation: Setting[str] | None = None
    direct: Setting[str] | None = None

    @model_validator(mode="after")
    def _has_field(self) -> "TaskPrompts":
        for name, setting in (("evaluation", self.evaluation), ("direct", self.direct)):
            text = setting.value if setting else None
            if text is not None and text.count("{question}") + text.count("{prompt}") != 1:
                raise ValueError(f"template {name} {text!r} must hold one of {{question}} and {{prompt}}, once")
        return self


class Task(Sparse):
    """What a model is evaluated on.  `items` names a scene set, a dataset asset, or a prompts file (JSON lines of
    image_path, question, ground_truth) whose images lie in the archive asset `images`.

    `limit`: only so many items, the first.  `recorded`: assets with upstream's own outputs on the same items, by
    condition.  `blind`: asked without image or clip, as a control.  `lmms`: the task of lmms-eval that this one is; it
    brings and asks the questions of `items`, each with its options where a prompt has {question}.  `prompts`: in place
    of the recipe's, in its tasks about pictures.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"prompts"})

    scorer: Literal["counting", "math", "choice", "answer", "mmmu", "mathvista"]
    items: str
    images: str | None = None
    lmms: str | None = None
    blind: bool = False
    prompts: TaskPrompts | None = None
    limit: Annotated[int, Field(gt=0)] | None = None
    recorded: dict[Condition, str] = Field(default={})
    source: Source

    @model_validator(mode="after")
    def _of_pictures(self) -> "Task":
        benchmark = PICTURE_TASKS.get(self.lmms or "")
        if (benchmark or self.scorer) != self.scorer or (self.scorer in PICTURE_TASKS.values() and not benchmark):
            raise ValueError(
                f"scorer {self.scorer} is not for lmms {self.lmms}; mmmu is for mmmu_val, mathvista for "
                "mathvista_testmini_format, _cot or _solution, and other scorers are for other tasks"
            )
        if self.prompts is not None and benchmark is None:
            raise ValueError("prompts are for lmms-eval's tasks about pictures; other tasks have the recipe's")
        return self
