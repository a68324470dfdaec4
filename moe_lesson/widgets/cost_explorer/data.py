"""What an MoE layer costs on a GPU, and on several: the roofline of `moe_lesson.measure.roofline` under sliders.

The browser does its arithmetic itself, so that sliders answer at once; a test keeps the two equal.
Letters: T tokens, D model width, H expert width, N experts, K active, P devices, M of which a token visits at most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import traitlets
from traitlets import Bool, Dict, Float, Int, List, Unicode

from ...base.errors import require
from ...measure.roofline import DEVICES, Device
from ..kit.base import LessonWidget, one_of

VIEWS = ("one device", "several devices")
LINKS = {"NVLink": 450e9, "InfiniBand": 50e9}  # bytes per second that an H100 sends; NVIDIA's data sheet, and 400 Gbit/s
CHOICES = {
    "tokens": tuple(2 ** power for power in range(8, 19)),
    "width": (256, 512, 768, 1024, 1536, 2048, 3072, 4096, 5120, 7168),
    "expert_width": (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1408, 1536, 2048, 3072, 4096),
    "num_experts": (8, 16, 32, 64, 128, 256),
    "top_k": tuple(range(1, 17)),
    "imbalance": (1.0, 1.1, 1.25, 1.5, 2.0, 2.5, 3.0),
    "num_devices": (2, 4, 8),
    "limit": tuple(range(1, 9)),
}
START = {"tokens": 65_536, "width": 2048, "expert_width": 256, "num_experts": 64, "top_k": 6, "device": "H100 SXM",
         "fused": False, "num_devices": 4, "link": "NVLink", "imbalance": 1.25, "limit": 3}
MINE = "this machine"
COLUMNS = ("device", "dispatch", "tokens", "D", "N", "K", "H", "ratio")


class CostExplorer(LessonWidget):
    """Move the sizes of an MoE layer and see how long each of its stages takes at least, beside a dense FFN of equal FLOPs.

    Args:
        machine: this machine's own rates, from `roofline.measured_device`, as one more device; or None.
        measured: points to draw beside the model's curve, of the routed part of a layer: device (its name in the widget),
            dispatch, tokens, D, N, K, H and ratio (its time over that of the dense FFN with K·H hidden units).
        view: what it opens on, one of `VIEWS`.
        title: the title.

    Traits to read, set and observe: `view`, the sliders `tokens`, `width`, `expert_width`, `num_experts`, `top_k` (as wished; no
    more than num_experts count), `device`, `fused`; and of several devices `num_devices`, `link` (a key of `LINKS`), `imbalance`
    (most rows that reach a device over their mean) and `limit` (M as wished: at most P, and enough to hold K experts).

    Raises:
        ValueError: for an unknown view, a machine without rates, or a measured point that lacks something or can't be.
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
    device = Unicode().tag(sync=True)
    fused = Bool().tag(sync=True)
    num_devices = Int().tag(sync=True)
    link = Unicode().tag(sync=True)
    imbalance = Float().tag(sync=True)
    limit = Int().tag(sync=True)

    def __init__(self, *, machine: Device | None = None, measured: Sequence[Mapping] = (),
                 view: str = VIEWS[0], title: str = "cost explorer"):
        require(view in VIEWS, f"view is {view!r}; choose one of {', '.join(VIEWS)}")
        require(machine is None or isinstance(machine, Device), f"machine is {machine!r}; give it what measured_device() returns")
        devices = DEVICES if machine is None else DEVICES | {MINE: machine}
        check_measured(measured, devices)
        start = {"view": view, **START}
        super().__init__(title=title, measured=[dict(point) for point in measured], start=start, devices={
            name: {"flops": device.flops, "numbers": device.bandwidth / device.bytes_each}
            for name, device in devices.items()})

    @traitlets.validate("view", "device", "link", *CHOICES)
    def _one_of_them(self, proposal):
        return one_of(proposal, {"view": VIEWS, "device": self.devices, "link": LINKS, **CHOICES})


def check_measured(measured: Sequence[Mapping], devices: Mapping[str, Device]) -> None:
    """Refuse a measured point that lacks something, or that no layer can have given."""
    for i, point in enumerate(measured):
        missing = [name for name in COLUMNS if name not in point]
        require(not missing, f"measured[{i}] has no {', '.join(missing)}; expected {', '.join(COLUMNS)}")
        require(point["device"] in devices,
                f"measured[{i}] was measured on {point['device']!r}; name it as the widget does: {', '.join(devices)}")
        narrow, wide = CHOICES["expert_width"][0], CHOICES["expert_width"][-1]
        require(min(point["tokens"], point["D"]) >= 1 and 1 <= point["K"] <= point["N"] and narrow <= point["H"] <= wide
                and 0 < point["ratio"] < math.inf,
                f"measured[{i}] is {dict(point)}; expected K from 1 to N, H from {narrow} to {wide}, and a ratio above 0")
