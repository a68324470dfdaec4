"""A router whose documents share a pool of experts while it learns (EMO, arXiv 2605.06663)."""

import torch
from torch import Tensor

from ..base.errors import require, whole_number
from .layers import SCORES, Router, gate
from .routing import Routing


def outside_pool(scores_TN: Tensor, document_T: Tensor, pool: int) -> Tensor:
    """Which experts are not in the pool of a token's document, the experts with the highest mean score in it.

    Args:
        scores_TN: of the tokens.
        document_T: which document each token is in; numbers from 0, and below T.
        pool: how many experts a document may use, 1 … N.

    Returns: [T, N], True where an expert is closed to a token.

    Raises:
        ValueError: if `pool` lies outside 1 … N.
    """
    num_tokens, num_experts = scores_TN.shape
    require(1 <= pool <= num_experts, f"pool is {pool}; expected 1 … {num_experts} experts")
    total_TN = torch.zeros_like(scores_TN).index_add(0, document_T, scores_TN)  # a row for each document; the others stay 0
    open_TN = torch.zeros_like(scores_TN, dtype=torch.bool).scatter(1, total_TN.topk(pool).indices, True)
    return ~open_TN[document_T]


def check_pool(pool: int, document: int, num_experts: int, top_k: int) -> None:
    """Refuse what is no pool, or no document."""
    whole_number("document", document)
    whole_number("pool", pool)
    require(top_k <= pool <= num_experts, f"pool is {pool}; expected {top_k} (top_k) … {num_experts} experts")


class PooledRouter(Router):
    """A router whose tokens, while it learns, choose from a pool that they share with their document.

    Only while it learns: a pool is known when a document has been read to its end, so a model that predicts it may not have
    one. Judged, every token chooses among all experts.

    Args:
        width, num_experts, top_k, how: as in `Router`.
        pool: experts of a document's pool, K … N.
        document: how many tokens a document has; a batch is documents of this length, one after the other, the last perhaps
            shorter.

    Raises:
        ValueError: as `Router`, or for a pool that is not K … N experts, or a document that is no whole number of tokens.
    """

    def __init__(self, width: int, num_experts: int, top_k: int, *, pool: int, document: int, **how):
        super().__init__(width, num_experts, top_k, **how)
        check_pool(pool, document, num_experts, top_k)
        self.pool, self.document = pool, document

    def extra_repr(self) -> str:
        """As in `Router`."""
        return f"{super().extra_repr()}, pool={self.pool}, document={self.document}"

    def forward(self, x_TD: Tensor, closed_TN: Tensor | None = None) -> Routing:
        """The `Routing` of x [T, D], while it learns within each document's pool; `closed_TN` as in `Router`."""
        if self.training:
            scores_TN = SCORES[self.score](gate(x_TD, self.weight))
            document_T = torch.arange(len(x_TD), device=x_TD.device) // self.document
            closed_TN = outside_pool(scores_TN, document_T, self.pool) if closed_TN is None else closed_TN | outside_pool(
                scores_TN.masked_fill(closed_TN, 0), document_T, self.pool)
        return super().forward(x_TD, closed_TN)
