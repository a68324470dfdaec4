"""moe_lesson: see, measure and rebuild Mixture-of-Experts, from the dense FFN to DeepSeekMoE.

Importing it needs torch and numpy alone. The pictures are in `moe_lesson.plots` (matplotlib, seaborn), the widgets in
`moe_lesson.widgets` (ipywidgets, anywidget), what a notebook calls in `moe_lesson.lesson`.
"""

from .balance import balance_loss
from .checkpoints import load_model, save_model, shipped_model
from .corpora import Corpus, Document, machine_corpus, own_corpus
from .evidence import interval, paired_difference, result_table
from .layers import DenseFFN, Experts, MoE, Router
from .ledger import Cost, ffn_cost, model_cost
from .model import LanguageModel, ModelConfig
from .recipes import Budget, Dense, Sparse
from .routing import Routing
from .training import History, TrainingConfig, TrainingDiverged, evaluate_language, next_token, train

__version__ = "0.1.0"

__all__ = [
    "Budget", "Corpus", "Cost", "Dense", "DenseFFN", "Document", "Experts", "History", "LanguageModel", "MoE", "ModelConfig",
    "Router", "Routing", "Sparse", "TrainingConfig", "TrainingDiverged", "balance_loss", "evaluate_language", "ffn_cost",
    "interval", "load_model", "machine_corpus", "model_cost", "next_token", "own_corpus", "paired_difference", "result_table",
    "save_model", "shipped_model", "train",
]
