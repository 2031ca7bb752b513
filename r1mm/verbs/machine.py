"""Verbs about this machine: doctor, image, dashboard, facts."""

import argparse
from pathlib import Path

from r1mm.verbs.common import AddVerb, launch_options, print_json, say, whole_number


def add(verb: AddVerb) -> None:
    """Add these verbs."""
    doctor = verb(
        "doctor",
        _doctor,
        "check that this machine can run what is asked, and say what to do where it cannot",
        "ok: good; no: the run asked for cannot start; --: not good, but that run does not need it.\n"
        "Exit status 1 when a line says no.",
    )
    doctor.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder of the run directories (default ./runs)"
    )
    doctor.add_argument(
        "--gpus", type=_gpus, default=0, help="GPUs of the run asked for: 8, or 8xA100-80G (default 0: a miniature)"
    )
    launch_options(doctor)

    image = verb(
        "image",
        _image,
        "build an image from this tree: cpu (miniatures), trainer (CUDA, full recipes) or evaluator (and lmms-eval)",
        "From the environment: BASE_IMAGE=NAME@sha256:... another base; CA_BUNDLE=FILE certificates of a proxy that\n"
        "inspects TLS; WHEELS=DIR packages to take from a folder.",
    )
    image.add_argument("kind", choices=("cpu", "trainer", "evaluator"), help="which image")

    dashboard = verb(
        "dashboard",
        _dashboard,
        "show the curves of all runs in a browser (TensorBoard), until Ctrl-C",
        "On this machine's loopback only.  DASHBOARD_PORT: another port than 6006.",
    )
    dashboard.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder of the run directories (default ./runs)"
    )
    dashboard.add_argument(
        "--launch", choices=("local", "compose"), default="local", help="where it runs (default local)"
    )

    facts = verb("facts", _facts, "print what a run here would record of code, packages, machine and image")
    facts.add_argument("--gpus", action="store_true", help="also ask torch which GPUs it can use")


def _gpus(text: str) -> int:
    if text.isdecimal():
        return whole_number(text)
    from r1mm.errors import BadInput
    from r1mm.plan import parse_gpus

    try:
        machine = parse_gpus(text)
    except BadInput as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return 0 if machine.cpu else machine.gpus


def _doctor(options: argparse.Namespace) -> int:
    from r1mm.doctor import checks
    from r1mm.terminal import print_checks

    found = checks(options.runs, launch=options.launch, wanted_gpus=options.gpus, image=options.image)
    if options.json:
        print_json([check.as_dict() for check in found])
    else:
        print_checks(found)
    return 1 if any(check.fails for check in found) else 0


def _image(options: argparse.Namespace) -> int:
    from r1mm.doctor import preflight
    from r1mm.launch.images import build
    from r1mm.processes import terminated_by_signal

    with terminated_by_signal():
        preflight(launch="compose", wanted_gpus=0, builds=options.kind)
        image = build(options.kind, say)
    if options.json:
        print_json(image.as_dict())
    else:
        print(image.id)
    return 0


def _dashboard(options: argparse.Namespace) -> int:
    from r1mm.doctor import preflight
    from r1mm.launch.dashboard import serve
    from r1mm.processes import Terminated, terminated_by_signal

    try:
        with terminated_by_signal():
            preflight(launch=options.launch, wanted_gpus=0)
            return serve(options.runs.resolve(), options.launch, say)
    except (KeyboardInterrupt, Terminated):
        return 0  # how it is meant to end


def _facts(options: argparse.Namespace) -> int:
    from r1mm.gpus import cuda_facts
    from r1mm.manifest import code_version, surroundings

    found = {"code": code_version(["."]), **surroundings(), **({"cuda": cuda_facts()} if options.gpus else {})}
    print_json(found)
    return 0
