"""moe_lesson: see, measure and rebuild Mixture-of-Experts, from the dense FFN to DeepSeekMoE.

Importing it needs torch, numpy, scipy, tqdm and safetensors. The pictures are in `moe_lesson.teach.plots` (matplotlib, seaborn), the widgets in
`moe_lesson.widgets` (ipywidgets, anywidget), what a notebook calls in `moe_lesson.teach.lesson`.
"""

from .lm.checkpoints import load_model, save_model, shipped_model
from .lm.corpora import Corpus, Document, machine_corpus, own_corpus
from .lm.evaluate import evaluate_language
from .lm.ledger import Cost, ffn_cost, model_cost
from .lm.model import LanguageModel, ModelConfig
from .lm.training import History, TrainingConfig, TrainingDiverged, next_token, train
from .measure.evidence import interval, paired_difference, result_table
from .moe.balance import balance_loss
from .moe.layers import DenseFFN, Experts, MoE, Router
from .moe.recipes import Budget, Dense, Sparse
from .moe.routing import Routing

__version__ = "0.1.0"

__all__ = [
    "Budget", "Corpus", "Cost", "Dense", "DenseFFN", "Document", "Experts", "History", "LanguageModel", "MoE", "ModelConfig",
    "Router", "Routing", "Sparse", "TrainingConfig", "TrainingDiverged", "balance_loss", "evaluate_language", "ffn_cost",
    "interval", "load_model", "machine_corpus", "model_cost", "next_token", "own_corpus", "paired_difference", "result_table",
    "save_model", "shipped_model", "train",
]
