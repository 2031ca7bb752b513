"""This recipe on these GPUs: batch equivalence, memory, time, cost.  Arithmetic alone; nothing is run."""

from r1mm.plan.choose import Plan, default_gpus, make_plan
from r1mm.plan.explain import Deviation
from r1mm.plan.hardware import Machine, gpus_here, parse_gpus
from r1mm.plan.layout import Layout

__all__ = ["Deviation", "Layout", "Machine", "Plan", "default_gpus", "gpus_here", "make_plan", "parse_gpus"]
