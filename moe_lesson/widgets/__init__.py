"""The widgets of the course. They need ipywidgets and anywidget; `import moe_lesson` alone does not load them."""

try:
    import anywidget  # noqa: F401  (only to say clearly what is missing)
except ImportError as missing:
    raise ImportError('the widgets need anywidget and ipywidgets: pip install anywidget ipywidgets') from missing

from .ablation_view.data import AblationView
from .balancing_race.data import BalanceRuns, BalancingRace
from .capacity_view.data import CapacityView
from .contribution_view.data import Contribution, ContributionView
from .cost_explorer.data import CostExplorer
from .expert_explorer.data import ExpertExplorer
from .fact_finder.data import FactFinder
from .ladder_explorer.data import LadderExplorer, RungRuns
from .ledger_view.data import LedgerView
from .quiz.data import Quiz
from .redundancy_lens.data import RedundancyLens
from .router_game.data import RouterGame
from .router_microscope.data import RouterMicroscope
from .router_zoo.data import RouterZoo
from .routing_map.data import RoutingMap
from .segmentation_view.data import SegmentationView
from .specialisation_view.data import SpecialisationView
from .token_way.data import TokenWay

__all__ = [
    "AblationView", "BalanceRuns", "BalancingRace", "CapacityView", "Contribution", "ContributionView", "CostExplorer",
    "ExpertExplorer", "FactFinder", "LadderExplorer",
    "LedgerView", "Quiz", "RedundancyLens", "RouterGame", "RouterMicroscope", "RouterZoo", "RoutingMap", "RungRuns",
    "SegmentationView", "SpecialisationView", "TokenWay",
]
