"""What an MoE layer costs on a GPU, and on several: the roofline of `moe_lesson.measure.roofline` under sliders.

The browser does its arithmetic itself, so that sliders answer at once; a test keeps the two equal.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import traitlets
from traitlets import Bool, Dict, Float, Int, List, Unicode

from ...base.errors import require
from ...base.storage import DATA
from ...measure.evidence import Table, result_table
from ...measure.roofline import DEVICES, Device
from ..kit.base import LessonWidget, one_of

VIEWS = ("one device", "several devices")
LINKS = {"NVLink": 450e9, "InfiniBand": 50e9}  # bytes per second that an H100 sends; NVIDIA's data sheet, and 400 Gbit/s
CHOICES = {
    "tokens": tuple(2 ** power for power in range(19)),
    "width": (256, 512, 768, 1024, 1536, 2048, 3072, 4096, 5120, 7168),
    "expert_width": (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1408, 1536, 2048, 3072, 4096),
    "num_experts": (8, 16, 32, 64, 128, 256),
    "top_k": tuple(range(1, 17)),
    "num_shared": (0, 1, 2),
    "imbalance": (1.0, 1.1, 1.25, 1.5, 2.0, 2.5, 3.0),
    "num_devices": (2, 4, 8),
    "limit": tuple(range(1, 9)),
}
START = {"tokens": 65_536, "width": 2048, "expert_width": 256, "num_experts": 64, "top_k": 6, "num_shared": 0,
         "device": "H100 SXM", "fused": False, "num_devices": 4, "link": "NVLink", "imbalance": 1.25, "limit": 3}
MINE = "this machine"
TABLES = ("layer-speed-cpu", "layer-speed-cuda")  # of tools/benchmark_layer.py
CARDS = {"NVIDIA B200": "B200", "NVIDIA H200": "H200", "NVIDIA H100 80GB HBM3": "H100 SXM",
         "NVIDIA A100-SXM4-80GB": "A100 SXM 80 GB", "Tesla T4": "T4"}  # torch's name of a device -> ours
SIZES = {"tokens": "tokens", "width": "width", "expert_width": "expert_width", "num_experts": "experts", "top_k": "top_k",
         "num_shared": "shared"}  # our name of a size -> the tables'
SORTED = ("grouped", "at_once", "fused")  # of the measured ways those whose stages the model bounds


class CostExplorer(LessonWidget):
    """Move the sizes of an MoE layer and see how long each of its stages takes at least, beside a dense FFN of equal FLOPs.

    Args:
        machine: this machine's own rates, from `roofline.measured_device`, as one more device; or None.
        measured: tables of tools/benchmark_layer.py, whose forward passes are points beside the model's curves; on this machine
            those of its own name, and where it is a CPU those of any CPU. It opens on the largest layer of the first of them
            that has any; see `of_tables`.

    Traits to read, set and observe: `view`, the sliders `tokens`, `width`, `expert_width`, `num_experts`, `num_shared`, `top_k`
    (as wished; at most num_experts count), `device`, `fused`; of several devices `num_devices`, `link`, `limit` (M as wished: at
    most P, and enough to hold K experts) and `imbalance` (most rows that reach a device over their mean).

    Raises:
        ValueError: for a machine that is no `Device`, or a table of something else.
    """

    devices = Dict().tag(sync=True)  # name -> FLOPs per second, and numbers that its memory moves per second
    links = Dict(LINKS).tag(sync=True)
    choices = Dict({name: list(values) for name, values in CHOICES.items()}).tag(sync=True)
    measured = List(Dict()).tag(sync=True)

    view = Unicode().tag(sync=True)
    tokens = Int().tag(sync=True)
    width = Int().tag(sync=True)
    expert_width = Int().tag(sync=True)
    num_experts = Int().tag(sync=True)
    top_k = Int().tag(sync=True)
    num_shared = Int().tag(sync=True)
    device = Unicode().tag(sync=True)
    fused = Bool().tag(sync=True)
    num_devices = Int().tag(sync=True)
    link = Unicode().tag(sync=True)
    imbalance = Float().tag(sync=True)
    limit = Int().tag(sync=True)

    def __init__(self, *, machine: Device | None = None, measured: Sequence[Table] = (), title: str = "cost explorer"):
        require(machine is None or isinstance(machine, Device), f"machine is {machine!r}; give it what measured_device() returns")
        devices = DEVICES if machine is None else DEVICES | {MINE: machine}
        points = [point for table in measured for point in points_of(table, machine)]
        first = {name: value for point in points[:1] for name, value in point.items() if name in START}
        rates = {name: {"flops": one.flops, "numbers": one.bandwidth / one.bytes_each} for name, one in devices.items()}
        super().__init__(title=title, measured=points, start={"view": VIEWS[0], **START, **first}, devices=rates)

    @classmethod
    def of_tables(cls, machine: Device | None = None, folder: pathlib.Path = DATA / "results") -> CostExplorer:
        """The explorer with the points of those of `TABLES` that this copy of the course has."""
        return cls(machine=machine, measured=[result_table(name, folder) for name in TABLES if (folder / f"{name}.csv").exists()])

    @traitlets.validate("view", "device", "link", *CHOICES)
    def _one_of_them(self, proposal):
        return one_of(proposal, {"view": VIEWS, "device": self.devices, "link": LINKS, **CHOICES})


def points_of(table: Table, machine: Device | None) -> list[dict]:
    """The forward passes of a table that curves belong to, the largest first: traits, way, ratio to dense, machine, date."""
    missing = {*SIZES.values(), "pass", "implementation", "ratio"} - {"shared", *table.rows[0]}
    require(not missing, f"a measured table has no {', '.join(sorted(missing))}; give it one of tools/benchmark_layer.py")
    made, rows = table.provenance["device"], [{"shared": 1, **row} for row in table.rows]  # older tables don't say that it is 1
    mine = machine is not None and (machine.name == made or (machine.name[:3], made[:3]) == ("CPU", "CPU"))
    device = CARDS.get(made, MINE if mine else None)
    points = [{name: int(row[column]) for name, column in SIZES.items()} | {
        "device": device, "way": row["implementation"], "ratio": row["ratio"], "machine": made, "date": table.provenance["date"]}
        for row in rows if device and row["pass"] == "forward" and row["implementation"] in SORTED]
    reached = [point for point in points if all(point[name] in CHOICES[name] for name in SIZES)]
    return sorted(reached, key=lambda point: (point["tokens"], point["num_experts"], point["width"]), reverse=True)
