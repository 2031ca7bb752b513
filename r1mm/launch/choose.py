"""`--launch auto|local|compose`: which place a recipe's stages run in, and why."""

from pathlib import Path

from r1mm.errors import BadInput, StageFailed
from r1mm.launch.local import Local
from r1mm.launch.place import Place, Say


def decide(launch: str, *, wanted_gpus: int, image: str | None) -> tuple[str, str]:
    """`local` or `compose`, and why.  Containers where a recipe needs GPUs and an engine answers, else this machine."""
    if launch != "auto":
        if launch == "local" and image:
            raise BadInput(f"--image {image} is for containers; leave it out, or use --launch compose")
        return launch, "as asked"
    if image:
        return "compose", f"image {image} was named"
    if not wanted_gpus:
        return "local", "no GPU is asked for; --launch compose (make: LAUNCH=compose) runs it in containers"
    from r1mm.launch.engine import find_engine

    try:
        engine = find_engine()
    except (BadInput, StageFailed) as error:
        return "local", str(error)
    return "compose", f"the recipe needs {wanted_gpus} GPUs and engine {engine.engine} answers"


def open_place(launch: str, *, runs: Path, wanted_gpus: int, image: str | None, say: Say, lmms: bool = False) -> Place:
    """The place that `decide` chose and `doctor.preflight` found fit, ready to run stages; `lmms` as `compose.prepare`.

    Raises BadInput when settings or image cannot be used, StageFailed when the image cannot be built.
    """
    if launch == "compose":
        from r1mm.launch.compose import prepare

        return prepare(runs, wanted_gpus=wanted_gpus, image=image, say=say, lmms=lmms)
    return Local()
