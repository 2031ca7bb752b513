"""lmms-eval's tasks on a checkpoint folder: run in the evaluator's own environment, read back item by item.

lmms-eval is never imported here, for its dependencies contradict ours (pyproject.toml, group `evaluator`).  It runs as
`python -m lmms_eval` of the interpreter that R1MM_EVALUATOR_PYTHON names: the evaluator image sets it, elsewhere a
virtual environment made from docker/locks/evaluator.txt does.  A task's questions are lmms-eval's;
its items, clips and images are local files, which r1mm has fetched by revision: nothing is downloaded here.

What lmms-eval 0.7.3 does by itself, and what is done about it:

- A clip or image that cannot be opened is logged, and its question asked without it.  Here that ends the evaluation.
- An exception is printed and the exit status is 0.  Here missing results are the failure.
- Of a batch only the first clip is cut down to the wanted number of frames.  Here a batch is one item.
- An answer ends at its first blank line.  Here only at its end token: thoughts have several paragraphs.
- Marks are given by four threads that share one random generator, which picks a letter for an answer without any.
  Here by one, so that the same outputs get the same marks.
- It keeps no answer before all are there.  Here items are evaluated in slices, and a finished slice is kept.
- MathVista's answers are read by a language model over the network.  Here r1mm reads them (`mathvista.py`), and MMMU's
  by MMMU's rules (`mmmu.py`); neither key nor address of such a model reaches lmms-eval.
- Images are handed on as JPEG of quality 85.  So they are here.
"""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from r1mm.errors import BadInput, StageFailed
from r1mm.evaluate.lmms_files import clips_folder
from r1mm.evaluate.lmms_items import clip_names
from r1mm.evaluate.lmms_questions import Questions, clip_questions, picture_questions
from r1mm.evaluate.lmms_tasks import LmmsSettings
from r1mm.evaluate.scoring import Output
from r1mm.manifest import ROOT
from r1mm.plan.shapes import config_of_folder
from r1mm.progress import progress_bar
from r1mm.recipe import digest
from r1mm.rundir import explained, make_folder, write_json, write_text
from r1mm.task_parts import PICTURE_TASKS

VARIABLE = "R1MM_EVALUATOR_PYTHON"
VERSION = "0.7.3"  # of lmms-eval: what stands above was found in this one
LOCK = ROOT / "docker" / "locks" / "evaluator.txt"
SLICE = 256  # items of one start of lmms-eval, which takes about half a minute for itself
# lmms-eval's name for the architecture of a checkpoint.
_MODELS = {"qwen2_vl": "qwen2_vl"}

# Ended with the process that started it, however that ends; on Linux alone, elsewhere Ctrl-C and errors end it.
# A system turn comes in a file: lmms-eval's text of model arguments has no way to write a comma within one of them.
_SYSTEM_FILE = "system.txt"
_START = f"""
import ctypes, functools, pathlib, runpy, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
system = pathlib.Path("{_SYSTEM_FILE}")
if system.is_file():
    from lmms_eval.models.simple.qwen2_vl import Qwen2_VL as model
    model.__init__ = functools.partialmethod(model.__init__, system_prompt=system.read_text(encoding="utf-8"))
runpy.run_module("lmms_eval", run_name="__main__", alter_sys=True)
"""
_PACKAGES = ("lmms-eval", "transformers", "torch", "torchvision", "qwen-vl-utils", "decord", "numpy", "pillow")
_PROBE = f"""
import importlib.metadata as m, importlib.util as u, json, platform
def version(name):
    try:
        return m.version(name)
    except m.PackageNotFoundError:
        return None
found = u.find_spec("lmms_eval")
print(json.dumps(dict(
    python=platform.python_version(),
    packages=dict((name, version(name)) for name in {_PACKAGES}),
    tasks=None if found is None else found.submodule_search_locations[0] + "/tasks",
)))
"""
# What would lead it elsewhere, or have it write a token into its log.
_DROPPED = re.compile(
    r"PYTHON(PATH|HOME)|VIRTUAL_ENV|LMMS_EVAL_.*|HF_TOKEN(_PATH)?|HUGGING_FACE_HUB_TOKEN|WANDB_.*|NUM_IMAGE"
    r"|(OPENAI|AZURE|ANTHROPIC|GOOGLE|AWS)_.*|API_TYPE|MODEL_VERSION"
)
_OFFLINE = {
    **{"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "WANDB_MODE": "disabled"},
    # Its client for a judging model: one that answers without a network, and a key that no .env file replaces.
    **{"API_TYPE": "dummy", "OPENAI_API_KEY": ""},
}
_PROGRESS = re.compile(r"Model Responding:.*?(\d+)/(\d+)")
# lmms-eval==0.7.3:models/simple/qwen2_vl.py: what it says when it goes on without a clip or an image.
_LOST = re.compile(
    r"(?:Skipping empty video|Failed to process video|Failed to process PIL image|Unexpected video_inputs format)[: ].*"
)


@dataclass(frozen=True)
class Evaluator:
    """The environment that lmms-eval runs in: its interpreter, the packages that bear on numbers, the tasks' folder."""

    python: Path
    python_version: str
    packages: dict[str, str | None]
    tasks: Path

    def as_dict(self) -> dict[str, Any]:
        """For a record of what an evaluation ran with; no path of this machine."""
        return {"python": self.python_version, "packages": self.packages}


def _pinned() -> dict[str, list[str]]:
    """The versions of the packages that bear on numbers, as locked; lmms-eval's alone where the lock is not here."""
    if not LOCK.is_file():
        return {"lmms-eval": [VERSION]}
    locked = re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: [version for other, version in locked if other == name] for name in _PACKAGES}


def find_evaluator() -> Evaluator:
    """The environment that R1MM_EVALUATOR_PYTHON names.  BadInput where there is none, or another lmms-eval in it."""
    named = os.environ.get(VARIABLE)
    remedy = (
        "use the evaluator image (`make image-evaluator`), or make a virtual environment from "
        f"docker/locks/evaluator.txt and set {VARIABLE} to its python"
    )
    if not named:
        raise BadInput(
            f"{VARIABLE} is not set, and this task is lmms-eval's, which needs an environment of its own; {remedy}"
        )
    try:
        said = subprocess.run(
            [named, "-I", "-c", _PROBE],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        ).stdout
        found = json.loads(said)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise BadInput(f"{VARIABLE}={named} is no Python that starts ({error}); {remedy}") from error
    for name, pinned in _pinned().items():
        if found["packages"][name] not in pinned:
            raise BadInput(
                f"{VARIABLE}={named} has {name} {found['packages'][name] or 'not at all'}, {' or '.join(pinned)} is "
                f"needed; {remedy}"
            )
    return Evaluator(Path(named), found["python"], found["packages"], Path(found["tasks"]))


def _model_name(model_folder: Path) -> str:
    kind = str(config_of_folder(model_folder).get("model_type"))
    if kind not in _MODELS:
        raise BadInput(
            f"{model_folder} holds a model of type {kind!r}; through lmms-eval r1mm evaluates {', '.join(_MODELS)}"
        )
    if not any(model_folder.glob("*.safetensors")):
        raise BadInput(f"{model_folder} holds no weights as safetensors; give a checkpoint saved so")
    return _MODELS[kind]


def _config(task: str, model: str, settings: LmmsSettings, device: str) -> dict[str, Any]:
    # Names within the working folder: lmms-eval splits this text at commas and equal signs, which a path may hold.
    arguments = {
        "pretrained": "model",
        "device_map": device,
        **({} if settings.frames is None else {"max_num_frames": settings.frames}),
        "min_pixels": settings.min_pixels,
        "max_pixels": settings.max_pixels,
    }
    return {
        "model": model,
        "model_args": ",".join(f"{name}={value}" for name, value in arguments.items()),
        "tasks": task,
        "include_path": "tasks",
        "device": device,
        "batch_size": 1,
        "log_samples": True,
        "output_path": "out",
        "process_docs_parallel": 1,
        "seed": [0, 0, 0, 0],
        "timezone": "UTC",
    }


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not _DROPPED.fullmatch(name)}
    return {
        **kept,
        **_OFFLINE,
        "HF_DATASETS_CACHE": str(folder / "cache" / "datasets"),
        "HF_MODULES_CACHE": str(folder / "cache" / "modules"),
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "200",
    }


@contextlib.contextmanager
def _started(evaluator: Evaluator, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """lmms-eval at work in `folder`; ended, with what it started, when the block is left."""
    process = subprocess.Popen(
        [str(evaluator.python), "-P", "-c", _START, "--config", "config.yaml"],
        cwd=folder,
        env=_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,  # universal line ends: what redraws a bar in place is a line of its own
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _run(evaluator: Evaluator, folder: Path, on_progress: Callable[[int], None]) -> None:
    """Start lmms-eval on the configuration in `folder`, and wait.  StageFailed with its last words where it fails."""
    last: deque[str] = deque(maxlen=25)
    lost = ""
    with (
        explained(folder),
        (folder / "log.txt").open("w", encoding="utf-8") as log,
        _started(evaluator, folder) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if found := _PROGRESS.search(line):
                on_progress(int(found.group(1)))
                continue
            log.write(line)
            if line.strip():
                last.append(line.rstrip())
            if found := _LOST.search(line):
                lost = found.group()
                break
    said = "\n".join(f"    {line}" for line in last)
    if lost:
        raise StageFailed(
            f"lmms-eval could not read a clip or image and would have asked its question without it ({lost}); repair "
            f"that file or leave its item out (see {folder / 'log.txt'})"
        )
    if process.returncode or len(list((folder / "out").rglob("*_results.json"))) != 1:
        raise StageFailed(f"lmms-eval gave no results (status {process.returncode}); its last words:\n{said}")


def _written(folder: Path) -> tuple[Path, Path]:
    """The file of samples and that of results that lmms-eval has written."""
    samples, results = (sorted((folder / "out").rglob(f"*_{kind}")) for kind in ("samples_*.jsonl", "results.json"))
    if len(samples) != 1 or len(results) != 1:
        raise BadInput(
            f"{folder / 'out'} holds {len(samples)} samples files and {len(results)} results; delete {folder}"
        )
    return samples[0], results[0]


def _lay_out(
    place: Path, questions: Questions, start: int, count: int, config: dict[str, Any], system: str | None
) -> None:
    shutil.rmtree(place, ignore_errors=True)
    questions.write(make_folder(place / "tasks"), start, count)
    if system is not None:
        write_text(place / _SYSTEM_FILE, system)
    write_text(place / "config.yaml", yaml.safe_dump(config, sort_keys=False))


def lay_out_model(model_folder: Path, folder: Path, dtype: str) -> None:
    """A checkpoint folder of links to another's files, whose config says `dtype`.

    lmms-eval loads weights in the dtype that their config names, and base and trained model may be saved in two.
    """
    make_folder(folder)
    for path in model_folder.resolve().iterdir():
        if path.name != "config.json":
            (folder / path.name).symlink_to(path)
    config = {key: value for key, value in config_of_folder(model_folder).items() if key != "torch_dtype"}
    write_json(folder / "config.json", {**config, "dtype": dtype})


def _token_counter(model_folder: Path) -> Callable[[Sequence[str]], list[int]]:
    def count(texts: Sequence[str]) -> list[int]:
        from r1mm.processor import load_processor

        tokenizer = load_processor(model_folder).tokenizer
        return [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]

    return count


def evaluate_lmms(
    *,
    evaluator: Evaluator,
    questions: Questions,
    model_folder: Path,
    settings: LmmsSettings,
    folder: Path,
    title: str,
    device: str,
    slice_items: int = SLICE,
) -> list[Output]:
    """Answers every item of an lmms-eval task greedily and gives the marked outputs, in order.

    `questions`: the task with its items (`lmms_questions.py`).  `device`: cpu or cuda.

    Finished slices are kept in `folder`, from which a killed evaluation goes on to the identical end; those of another
    model, data or setting are made anew.  `evaluator.json` there says what it ran with.

    Raises BadInput for an input that cannot be used, StageFailed when lmms-eval fails or cannot read a clip or image.
    """
    model = _model_name(model_folder)
    weights = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(model_folder.iterdir())}
    identity = digest([questions.identity, asdict(settings), weights, evaluator.as_dict(), device, slice_items])
    counter, answers = _token_counter(model_folder), []
    with progress_bar(total=len(questions.names), desc=title, unit="item") as bar:

        def show(start: int, done: int) -> None:
            bar.update(start + done - bar.n)

        for number, start in enumerate(range(0, len(questions.names), slice_items)):
            count, place = min(slice_items, len(questions.names) - start), folder / f"slice-{number:04d}"
            done = place / "done.json"
            if not (done.is_file() and json.loads(done.read_text()) == {"identity": identity}):
                config = _config(questions.task, model, settings, device)
                _lay_out(place, questions, start, count, config, settings.system)
                lay_out_model(model_folder, place / "model", "float32" if device == "cpu" else settings.dtype)
                _run(evaluator, place, functools.partial(show, start))
                for scratch in ("model", "cache"):
                    shutil.rmtree(place / scratch, ignore_errors=True)
                write_json(done, {"identity": identity})
            answers.append(questions.read(*_written(place), start, count, counter))
            show(start, count)
    marked = [part.right for part in answers if part.right is not None]
    own = {"right_by_its_own_marks": sum(marked)} if marked else {}
    write_json(folder / "evaluator.json", {**evaluator.as_dict(), **questions.about, **own})
    return [output for part in answers for output in part.outputs]


def ask_by_lmms(
    *,
    task: str,
    items: Sequence[Path],
    files: Path,
    unpacked: Path,
    model_folder: Path,
    template: str,
    settings: dict[str, Any],
    folder: Path,
    title: str,
    device: str,
    limit: int | None = None,
    system: str | None = None,
) -> list[Output]:
    """`evaluate_lmms` as a recipe has it.  `task`: one of lmms-eval's own (`longvideobench_val_v`, `mmmu_val`).

    `items`: the files that list its items, one for LongVideoBench, whose clips are among the fetched `files` or are
    unpacked to `unpacked`.  `template`: around an item's question; its form is the task's (`lmms_tasks.py`).
    `settings`: the recipe's `evaluation` values.  `limit`: only so many items, the first.  `system`: the system turn.

    Raises BadInput where there is no evaluator, or files are missing, and what `evaluate_lmms` raises.
    """
    evaluator = find_evaluator()
    names = ("max_new_tokens", "min_pixels", "max_pixels", "frames", "images")
    chosen = LmmsSettings(
        **{name: settings[name] for name in names if name in settings},
        dtype=settings["dtype"] if device == "cuda" else "float32",
        system=system,
    )
    if task in PICTURE_TASKS:
        questions = picture_questions(evaluator.tasks, task, items, template, chosen, limit)
    else:
        clips = clips_folder(files, clip_names(items[0]), unpacked)
        questions = clip_questions(evaluator.tasks, task, items[0], clips, template, chosen, limit)
    return evaluate_lmms(
        evaluator=evaluator,
        questions=questions,
        model_folder=model_folder,
        settings=chosen,
        folder=folder,
        title=title,
        device=device,
    )
