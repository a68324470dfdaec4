"""Cost explorers that several tests look at. What is measured there is made up: no device has given it."""

from dataclasses import replace

from moe_lesson.measure.evidence import Table
from moe_lesson.measure.roofline import Device
from moe_lesson.widgets import CostExplorer

SLOW = Device("a slow one", 4e10, 8e9, bytes_each=4)
ROW = {"tokens": 65_536, "experts": 64, "top_k": 6, "expert_width": 1408, "width": 2048, "shared": 0, "pass": "forward",
       "implementation": "grouped", "ratio": 1.9}
H100, H200 = "NVIDIA H100 80GB HBM3", "NVIDIA H200"  # as PyTorch calls them


def table_of(device: str, *changes: dict) -> Table:
    """A table of the benchmark: a row for each change of `ROW`."""
    return Table([ROW | change for change in changes], {"device": device, "date": "2026-01-02"})


def explorer_of(machine: str = SLOW.name, **more) -> CostExplorer:
    """One with a slow machine of this name, where a layer with a shared expert was measured; three on an H100, on an H200 one."""
    small = {"tokens": 4096, "top_k": 8, "expert_width": 128, "width": 256, "shared": 1, "ratio": 2.5}
    measured = [table_of(machine, small), table_of(H200, {}),
                table_of(H100, {}, {"implementation": "at_once", "ratio": 1.52}, {"implementation": "fused", "ratio": 1.2})]
    return CostExplorer(machine=replace(SLOW, name=machine), measured=measured, **more)
