"""Every exercise of every lesson, solved as a learner might solve it: colab_widgets.py runs the lessons with these."""

import re

FFN = """
def ffn(x, w_in, w_out):
    gate_part, up = (x @ w_in).chunk(2, dim=-1)
    return (gate_part * torch.sigmoid(gate_part) * up) @ w_out
"""
SOLUTIONS = {
    "00": {"load": """
def load(expert_ids, num_experts):
    counts = torch.zeros(num_experts, dtype=torch.long)
    for row in expert_ids.tolist():
        for expert in row:
            counts[expert] += 1
    return counts
"""},
    "01": {"ffn": FFN, "power_law": """
import math
import statistics

def power_law(sizes, losses):
    x, y = [math.log10(size) for size in sizes], [math.log10(loss) for loss in losses]
    slope, height = statistics.linear_regression(x, y)
    return 10 ** height, -slope
"""},
    "02": {"gate": """
def gate(x, w):
    return torch.einsum("td,dn->tn", x, w)
""", "choose": """
def choose(scores, top_k):
    best = scores.topk(top_k, dim=-1)
    return best.indices, best.values / best.values.sum(dim=-1, keepdim=True)
""", "tokens_of": """
def tokens_of(expert, expert_ids):
    places = (expert_ids == expert).nonzero()
    return places[:, 0], places[:, 1]
""", "ffn": FFN, "combine": """
def combine(y, out, token, weight):
    return y.index_add(0, token, weight.unsqueeze(1) * out)
""", "topk_moe": """
def topk_moe(layer, x):
    logits = x @ layer.router.weight
    best = logits.softmax(dim=-1).topk(layer.router.top_k, dim=-1)
    weights = best.values / best.values.sum(dim=-1, keepdim=True)
    y = torch.zeros_like(x)
    for expert in range(logits.shape[1]):
        token, slot = torch.where(best.indices == expert)
        gate_part, up = (x[token] @ layer.experts.w_in[expert]).chunk(2, dim=-1)
        out = (torch.nn.functional.silu(gate_part) * up) @ layer.experts.w_out[expert]
        y = y.index_add(0, token, weights[token, slot][:, None] * out)
    return y, Routing(logits, best.indices, weights)
""", "mended": """
def mended(layer, x):
    logits = x @ layer.router.weight
    best = logits.softmax(dim=-1).topk(layer.router.top_k, dim=-1)
    weights = best.values / best.values.sum(dim=-1, keepdim=True)
    y = torch.zeros_like(x)
    for expert, (w_in, w_out) in enumerate(zip(layer.experts.w_in, layer.experts.w_out)):
        token, slot = torch.where(best.indices == expert)
        gate_part, up = (x[token] @ w_in).chunk(2, dim=-1)
        y[token] += weights[token, slot][:, None] * (torch.nn.functional.silu(gate_part) * up @ w_out)
    return y, Routing(logits, best.indices, weights)
"""},
    "03": {"max_violation": """
def max_violation(load):
    return float(load.max() * len(load) / load.sum() - 1)
""", "balance_loss": """
def balance_loss(routing):
    tokens, experts = routing.logits.shape
    f = routing.load * experts / (tokens * routing.top_k)
    return f.to(routing.logits) @ routing.logits.softmax(dim=1).mean(dim=0)
""", "update_bias": """
def update_bias(bias, load, rate):
    mean = load.double().mean()
    return bias + rate * (load < mean).to(bias) - rate * (load > mean).to(bias)
"""},
    "04": {"labels_served": """
def labels_served(calls):
    total = calls.sum(dim=1, keepdim=True)
    share = torch.nan_to_num(calls / total)
    count = torch.exp(-torch.special.xlogy(share, share).sum(dim=1))
    return torch.where(total[:, 0] > 0, count, torch.zeros_like(count))
""", "output_similarity": """
def output_similarity(outputs):
    n = len(outputs)
    return torch.stack([torch.stack([F.cosine_similarity(outputs[i], outputs[j], dim=-1).mean() for j in range(n)])
                        for i in range(n)])
"""},
    "05": {"cut_experts": """
def cut_experts(w_in, w_out, segments):
    gate_part, up = w_in.chunk(2, dim=-1)
    pieces_in, pieces_out = [], []
    for g, u, out in zip(gate_part, up, w_out):
        for g_run, u_run, out_run in zip(g.chunk(segments, dim=1), u.chunk(segments, dim=1), out.chunk(segments)):
            pieces_in.append(torch.cat([g_run, u_run], dim=1))
            pieces_out.append(out_run)
    return torch.stack(pieces_in), torch.stack(pieces_out)
"""},
    "06": {"cut_sizes": """
def cut_sizes(num_experts, top_k, expert_width, segments, num_shared):
    routed = top_k * segments - num_shared
    return num_experts * segments - num_shared, routed, expert_width // segments
""", "deepseekmoe": """
def deepseekmoe(layer, x):
    logits = x @ layer.router.weight
    best = logits.softmax(dim=-1).topk(layer.router.top_k, dim=-1)
    weights = layer.router.scale * best.values / best.values.sum(dim=-1, keepdim=True)
    routing = Routing(logits, best.indices, weights)
    return layer.experts(x, routing) + layer.shared(x), routing
"""},
    "07": {"verdict": """
def verdict(difference, margin=0.0):
    if difference.low > 0:
        return "higher"
    if difference.high < 0:
        return "lower"
    return "alike" if -margin < difference.low and difference.high < margin else "open"
"""},
    "08": {"information": """
def information(calls):
    joint = calls / calls.sum()
    label, expert = joint.sum(dim=0, keepdim=True), joint.sum(dim=1, keepdim=True)
    told = torch.special.xlogy(joint, joint / (label * expert).clamp(min=1e-300)).sum()
    return (told / torch.special.entr(label).sum()).item()
""", "dealt_to_documents": """
def dealt_to_documents(label, document, seed=0):
    names = document.unique()
    each = torch.stack([label[document == name][0] for name in names])
    each = each[torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))]
    return each[torch.searchsorted(names, document)]
"""},
    "09": {"least_rows": """
def least_rows(columns_in, columns_out, device):
    share = device.bandwidth / device.flops - (columns_in + columns_out) / (columns_in * columns_out)
    return float("inf") if share <= 0 else 1 / share
""", "places": """
def places(expert_ids):
    _, order = torch.sort(expert_ids.flatten(), stable=True)
    place = torch.zeros_like(order)
    place[order] = torch.arange(len(order))
    return order, place.reshape(expert_ids.shape)
""", "gather_backward": """
def gather_backward(grad, token, place):
    tokens, active = place.shape
    return grad[place.flatten()].reshape(tokens, active, -1).sum(dim=1)
""", "waiting_lines": """
def waiting_lines():
    return {1, 8, 11, 12}
""", "block_ends": """
def block_ends(expert_ids, num_experts):
    chose = expert_ids.flatten()[:, None] <= torch.arange(num_experts, device=expert_ids.device)
    return chose.sum(dim=0)
""", "send_counts": """
def send_counts(expert_ids, num_experts):
    each = num_experts // len(expert_ids)
    return torch.stack([torch.bincount(ids.flatten() // each, minlength=len(expert_ids)) for ids in expert_ids])
"""},
    "10": {"best_in_groups": """
def best_in_groups(scores, groups, kept, top_k):
    rows = scores.reshape(len(scores), groups, -1)
    good = rows.topk(2, dim=-1).values.sum(dim=-1)
    opened = torch.zeros_like(good).scatter(1, good.topk(kept, dim=-1).indices, 1.0)
    opened = opened.repeat_interleave(rows.shape[2], dim=1)
    return scores.masked_fill(opened == 0, float("-inf")).topk(top_k, dim=-1).indices
"""},
    "11": {"listen": """
def listen(model, ids, router):
    heard = {}

    def hook_for(name):
        def hook(module, inputs, output):
            logits, weights, indices = output
            heard[name] = Routing(logits, indices, weights)
        return hook

    routers = [(name, module) for name, module in model.named_modules() if name.endswith("." + router)]
    hooks = [module.register_forward_hook(hook_for(name)) for name, module in routers]
    model(ids[None])
    for hook in hooks:
        hook.remove()
    return heard
"""},
}
GIVEN = r"def {name}\(.*?\n(?=\n\n)"  # a stub, or what is to be mended


def exercises(notebook) -> set[str]:
    """The names of the functions that the notebook leaves open."""
    return set(re.findall(r"^(\w+) = checks\.\1\(\1\)", "\n".join(cell.source for cell in notebook.cells), re.MULTILINE))


def solve(notebook, lesson: str) -> list[str]:
    """Fill in the solutions of a lesson ("00" …): changes the notebook, and gives the names of what was open."""
    solutions = SOLUTIONS[lesson]
    assert exercises(notebook) == set(solutions)
    for name, solution in solutions.items():
        [cell] = [cell for cell in notebook.cells if re.search(GIVEN.format(name=name), cell.source, re.DOTALL)]
        cell.source = re.sub(GIVEN.format(name=name), lambda _, source=solution: source, cell.source, flags=re.DOTALL)
    return list(solutions)
