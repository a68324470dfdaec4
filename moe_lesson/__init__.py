"""moe_lesson: see, measure and rebuild Mixture-of-Experts, from the dense FFN to DeepSeekMoE.

Its rooms, each built on those before it:

    base           errors, storage, devices, interrupts, text, tokens, seeds, colours of the course
    moe            routing, dispatch, layers, recipes, balance
    lm             text, the language model, training, evaluation, checkpoints, the ledger of costs
    measure        evidence, instruments, nulls, interventions, the census, worlds whose truth is known
    experiments    what makes the shipped tables and models: python -m moe_lesson.experiments
    widgets        what a notebook moves (ipywidgets, anywidget)
    teach          what a notebook calls: lessons, checks, figures (matplotlib, seaborn, pandas)

Letters mean the same in all of them, in shapes as [T, K] and in names as ids_TK: T tokens, D model width, H expert width, N
experts, K active experts (top_k), Ks shared experts, m segments, L layers; B sequences of S tokens, V vocabulary (or answers),
C classes; R routed rows (T·K), I input and O output width of any matrix, G groups of experts, P devices of E experts, A rows
that arrive at one; M labels (skills, topics, domains), F documents, Z seeds or draws. Every other size is written out.

This module loads parts of the first four rooms.
"""

from .lm.checkpoints import load_model, save_model, shipped_model
from .lm.corpora import Corpus, Document
from .lm.evaluate import evaluate_language
from .lm.ledger import Cost, ffn_cost, model_cost
from .lm.machine_text import machine_corpus
from .lm.model import LanguageModel, ModelConfig
from .lm.own_text import own_corpus
from .lm.training import History, TrainingConfig, TrainingDiverged, next_token, train
from .measure.evidence import interval, paired_difference, result_table
from .moe.balance import balance_loss
from .moe.layers import DenseFFN, Experts, MoE, Router
from .moe.recipes import Budget, Dense, Sparse
from .moe.routing import Routing

__version__ = "0.2.0"

__all__ = [
    "Budget", "Corpus", "Cost", "Dense", "DenseFFN", "Document", "Experts", "History", "LanguageModel", "MoE", "ModelConfig",
    "Router", "Routing", "Sparse", "TrainingConfig", "TrainingDiverged", "balance_loss", "evaluate_language", "ffn_cost",
    "interval", "load_model", "machine_corpus", "model_cost", "next_token", "own_corpus", "paired_difference", "result_table",
    "save_model", "shipped_model", "train",
]
