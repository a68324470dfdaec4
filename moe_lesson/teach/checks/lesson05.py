"""The checks of lesson 05."""

from collections.abc import Callable

import torch

from ...measure import interventions
from .kit import called_pair, check, drawn, must_agree, must_be_tensor, must_have_shape, same, sizes


@check(interventions.cut_experts)
def cut_experts(attempt: Callable) -> str | None:
    """What is wrong with a function (w_in [N, D, 2H], w_out [N, H, D], m) -> [mN, D, 2H/m], [mN, H/m, D]."""
    n, d, h, m = 2, 5, 6, 3
    w_in, w_out = drawn(n, d, 2 * h), drawn(n, h, d, seed=1)
    pieces_in, pieces_out = map(must_be_tensor, called_pair(attempt, "w_in and w_out of the pieces", w_in, w_out, m))
    wanted = (m * n, d, 2 * h // m), (m * n, h // m, d)
    if pieces_in.shape == (n, m, d, 2 * h // m) or pieces_out.shape == (n, m, h // m, d):
        return "the pieces of one expert are experts like all others: N and m become one dimension of mN"
    if pieces_in.shape == wanted[0][:1] + wanted[0][:0:-1] or pieces_out.shape == wanted[1][:1] + wanted[1][:0:-1]:
        return "a piece has rows and columns changed: w_in stays [D, 2H/m], w_out [H/m, D]"
    for name, piece, shape in zip(("w_in", "w_out"), (pieces_in, pieces_out), wanted):
        must_have_shape(piece, *shape, part=name)
    right_in, right_out = interventions.cut_experts(w_in, w_out, m)
    straight = w_in.reshape(n, d, m, -1).transpose(1, 2).flatten(0, 1)
    if same(pieces_in, straight):
        return ("you cut the 2H columns in one go: the first pieces are all gate and no up. Cut gate and up each, "
                "and put run j of the one beside run j of the other")
    runs = [part.reshape(n, d, m, -1) for part in w_in.chunk(2, dim=-1)]
    if same(pieces_in, torch.cat(runs, dim=-1).reshape(m * n, d, -1)):
        return "m must stand beside n before the two become one dimension: you have [N, D, m, 2H/m], so transpose(1, 2) first"
    if same(pieces_in, torch.cat([part.reshape(n, d, m, -1).transpose(1, 2).flatten(0, 1)
                                  for part in reversed(w_in.chunk(2, dim=-1))], dim=-1)):
        return "gate and up have changed places: the gate's columns come first"
    if same(pieces_out, w_out.reshape(n, h // m, m, d).transpose(1, 2).flatten(0, 1)) or same(
            pieces_in, torch.cat([part.reshape(n, d, -1, m).permute(0, 3, 1, 2).flatten(0, 1)
                                  for part in w_in.chunk(2, dim=-1)], dim=-1)):
        return "you dealt the units out in turn: piece j gets the j-th run of neighbours (and w_in and w_out must agree)"
    for piece, right in ((pieces_in, right_in), (pieces_out, right_out)):
        factor = (piece * right).sum() / right.square().sum()
        if same(piece, factor * right) and not same(piece, right):
            return f"you multiplied the pieces by {factor:.3g}: they keep their numbers, the weights come from the gate"
    by_piece = torch.arange(m * n).reshape(n, m).T.flatten()
    if same(pieces_in, right_in[by_piece]) or same(pieces_out, right_out[by_piece]):
        return "the order: first all pieces of expert 0, then those of expert 1"
    if all(same(piece.unflatten(0, (n, m)).sum(1), right.unflatten(0, (n, m)).sum(1)) and not same(piece, right)
           for piece, right in ((pieces_in, right_in), (pieces_out, right_out))):
        return "they add up to the expert, but in another order: piece j has the j-th run of units"
    cases = ((drawn(n, d, 2 * m * h), drawn(n, m * h, d, seed=1), m) for n, d, m, h in sizes(4))
    unit = "the pieces of an expert don't add up to it: unit h is column h of gate, column h of up and row h of w_out"
    return must_agree(attempt, interventions.cut_experts, [(w_in, w_out, m), *cases], unit)
