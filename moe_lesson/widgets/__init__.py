"""The widgets of the course. They need ipywidgets and anywidget; `import moe_lesson` alone does not load them."""

try:
    import anywidget  # noqa: F401  (only to say clearly what is missing)
except ImportError as missing:
    raise ImportError('the widgets need anywidget and ipywidgets: pip install "moe-lesson[lab]"') from missing

from .ablation_view import AblationView
from .balancing_race import BalanceRuns, BalancingRace
from .capacity_view import CapacityView
from .contribution_view import Contribution, ContributionView
from .expert_explorer import ExpertExplorer
from .ladder_explorer import LadderExplorer, RungRuns
from .ledger_view import LedgerView
from .redundancy_lens import RedundancyLens
from .router_game import RouterGame
from .router_microscope import RouterMicroscope
from .routing_map import RoutingMap
from .segmentation_view import SegmentationView
from .specialisation_view import SpecialisationView

__all__ = [
    "AblationView", "BalanceRuns", "BalancingRace", "CapacityView", "Contribution", "ContributionView", "ExpertExplorer",
    "LadderExplorer",
    "LedgerView", "RedundancyLens", "RouterGame", "RouterMicroscope", "RoutingMap", "RungRuns", "SegmentationView",
    "SpecialisationView",
]
