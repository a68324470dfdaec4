"""Checks of the exercises, by lesson: each tells what the learner misunderstood, not that an assertion failed.

    load = checks.load(load)

prints ⏳ not tried, ✅, or ❌ with a diagnosis, and returns the learner's function where it is right and the package's own
otherwise, so that the rest of the lesson runs either way.
"""

from .lesson00 import load
from .lesson01 import ffn, power_law
from .lesson02 import choose, combine, gate, mended, tokens_of, topk_moe
from .lesson03 import balance_loss, max_violation, update_bias
from .lesson04 import labels_served, output_similarity
from .lesson05 import cut_experts
from .lesson06 import cut_sizes, deepseekmoe
from .lesson07 import verdict
from .lesson08 import dealt_to_documents, information
from .lesson09 import block_ends, gather_backward, least_rows, places, send_counts, waiting_lines
from .lesson10 import best_in_groups
from .lesson11 import listen

__all__ = ["balance_loss", "best_in_groups", "block_ends", "choose", "combine", "cut_experts", "cut_sizes", "dealt_to_documents",
           "deepseekmoe", "ffn", "gate", "gather_backward", "information", "labels_served", "least_rows", "listen", "load",
           "max_violation", "mended", "output_similarity", "places", "power_law", "send_counts", "tokens_of", "topk_moe",
           "update_bias", "verdict", "waiting_lines"]
