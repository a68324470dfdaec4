"""The check of lesson 11."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...lm import real
from ...moe.routing import Routing
from .kit import Wrong, answered, check, must_hold_ids, same, sizes


class ToyRouter(nn.Linear):
    """A router as transformers has them, with a bias that decides who is chosen, and weights in no order."""

    def __init__(self, width: int, num_experts: int, top_k: int):
        super().__init__(width, num_experts, bias=False)
        self.top_k, self.choice = top_k, torch.randn(num_experts)

    def forward(self, x_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits_TN = super().forward(x_TD)
        ids_TK = (logits_TN.sigmoid() + self.choice).topk(self.top_k).indices.flip(1)
        weights_TK = logits_TN.sigmoid().gather(1, ids_TK)
        return logits_TN, weights_TK / weights_TK.sum(dim=1, keepdim=True), ids_TK


class ToyMixture(nn.Module):
    """A mixture of experts; beside its router it has a gate that is none."""

    def __init__(self, width: int, num_experts: int, top_k: int):
        super().__init__()
        self.gate = ToyRouter(width, num_experts, top_k)
        self.shared_expert_gate = nn.Linear(width, 1)
        self.experts = nn.Parameter(torch.randn(num_experts, width))

    def forward(self, x_TD: Tensor) -> Tensor:
        decided = self.gate(x_TD)
        if not isinstance(decided, tuple):
            raise Wrong("your hook returns something, and what a hook returns takes the place of the module's output: the model "
                        "now computes with it. End the hook without return")
        _, weights_TK, ids_TK = decided
        return (self.experts[ids_TK] * weights_TK[:, :, None]).sum(dim=1) + self.shared_expert_gate(x_TD).sigmoid() * x_TD


class ToyDense(nn.Module):
    """A dense layer: its gate_proj is no router either."""

    def __init__(self, width: int):
        super().__init__()
        self.gate_proj = nn.Linear(width, width)

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.gate_proj(x_TD).relu()


class ToyLayer(nn.Module):
    def __init__(self, mlp: nn.Module):
        super().__init__()
        self.mlp = mlp

    def forward(self, x_TD: Tensor) -> Tensor:
        return x_TD + self.mlp(x_TD)


class ToyModel(nn.Module):
    """A model built as transformers builds them: a dense layer, then mixtures of experts. Takes ids [1, T]."""

    def __init__(self, layers: int, num_experts: int, top_k: int, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.embedding = nn.Embedding(9, 4)
            self.layers = nn.ModuleList([ToyLayer(ToyDense(4)), *(ToyLayer(ToyMixture(4, num_experts, top_k))
                                                                  for _ in range(layers))])
        self.runs = 0

    def forward(self, ids_1T: Tensor) -> Tensor:
        if ids_1T.ndim != 2:
            raise Wrong(f"the model takes ids of shape [1, T], a batch of one text; you gave {tuple(ids_1T.shape)}: ids[None]")
        self.runs += 1
        x_TD = self.embedding(ids_1T).flatten(0, 1)
        for layer in self.layers:
            x_TD = layer(x_TD)
        return x_TD

    def hooks(self) -> int:
        """How many there are."""
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in self.modules())


@check(real.listen)
def listen(attempt: Callable) -> str | None:
    """What is wrong with a function (model, ids [T], name of the routers) -> name -> Routing."""
    cases = [(2, 6, 3, 7), *((layers, k + more, k, tokens) for layers, k, more, tokens in sizes(4))]
    for seed, (layers, n, k, tokens) in enumerate(cases):
        router = "mlp.gate" if seed % 2 else "gate"  # both are called so in transformers
        model = ToyModel(layers, n, k, seed)
        ids_T = torch.randint(9, (tokens,), generator=torch.Generator().manual_seed(seed))
        try:
            answer = answered(attempt, model, ids_T, router)
        except Exception:
            others = [name for name, one in model.named_modules() if one._forward_hooks and not isinstance(one, ToyRouter)]
            if others:
                return f"{others[0]} is no router, and has a hook of yours: a router's name ends with a dot and then its own name"
            raise
        if not isinstance(answer, dict):
            return f"return a dict, the name of a router's module -> its Routing, not a {type(answer).__name__}"
        if model.runs != 1:
            return f"the model ran {model.runs} times; run it once, model(ids[None]), while your hooks are there"
        if model.hooks():
            return "your hooks are still on the model: keep what register_forward_hook returns, and call its remove()"
        if hint := diagnose_heard(answer, real.listen(model, ids_T, router)):
            return hint
    return None


def diagnose_heard(answer: dict, right: dict[str, Routing]) -> str | None:
    """What is wrong with what was heard in one model."""
    extra, missing = [name for name in answer if name not in right], [name for name in right if name not in answer]
    if any("gate_proj" in str(name) or str(name).endswith("layers.0") for name in extra):
        return f"{extra[0]} is no router: the first layer is dense. A router's name ends with a dot and then its own name"
    if not answer and right:
        return (f"nothing was heard; expected {', '.join(right)}: a router's name ends with a dot and then what you were given, "
                "which may have a dot in it")
    if len(answer) < len(right) and len(right) > 1:
        return (f"only {', '.join(map(str, answer))} was heard; expected {', '.join(right)}: the hooks share one name. Give each "
                "its own, e.g. by a function that makes it")
    if missing or extra:
        return (f"heard: {', '.join(map(str, answer)) or 'nothing'}; expected {', '.join(right)}, the names as named_modules "
                "gives them")
    for name, wanted in right.items():
        found = answer[name]
        if not isinstance(found, Routing):
            return f"for {name} you kept a {type(found).__name__}; make a Routing(logits, expert_ids, weights) of it"
        must_hold_ids(found)
        if found.expert_ids.shape != wanted.expert_ids.shape or not same(found.logits, wanted.logits):
            last = right[list(right)[-1]]
            return ("every name has the routing of the last router: the hooks share one name. Give each hook its own, e.g. by a "
                    "function that makes it" if found.logits.shape == last.logits.shape and same(found.logits, last.logits) else
                    f"the logits or the number of experts of {name} are not what the router returned: logits, weights, indices")
        if not same(found.gates, wanted.gates):
            return diagnose_gates(found, wanted)
    return None


def diagnose_gates(found: Routing, wanted: Routing) -> str:
    """Why a token's experts have other weights than the model gave them."""
    if same(found.expert_ids.sort().values, found.logits.topk(found.top_k).indices.sort().values):
        return ("these are the experts with the highest logits, chosen again: the router has a bias that decides, too, and the "
                "model computed with other experts. Take the indices that it returns")
    if not same(found.expert_ids.sort().values, wanted.expert_ids.sort().values):
        return "these are not the experts that the router returned, its third part"
    if same(found.weights.sort().values, wanted.weights.sort().values):
        return "right experts, right weights, but not side by side: weights[t, k] belongs to indices[t, k]; sort both or none"
    return "the experts are right, their weights are computed again: take the second part, what the model multiplied by"
