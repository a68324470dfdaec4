"""Cost explorers that several tests look at. What is measured there is made up: no device has given it."""

from moe_lesson.measure.roofline import Device
from moe_lesson.widgets import CostExplorer

SLOW = Device("a slow one", 4e10, 8e9, bytes_each=4)
POINT = {"device": "H100 SXM", "dispatch": "grouped", "tokens": 65_536, "D": 2048, "N": 64, "K": 6, "H": 1408, "ratio": 1.9}


def explorer_of(dispatch: str = "grouped", **more) -> CostExplorer:
    """One with this machine, and three points: two that belong to the curve at first."""
    measured = [POINT | {"dispatch": dispatch}, POINT | {"dispatch": "fused", "ratio": 1.2}, POINT | {"device": "H200"}]
    return CostExplorer(machine=SLOW, measured=measured, **more)
