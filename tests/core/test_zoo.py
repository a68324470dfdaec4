"""The router zoo: what each router must do, and that DeepSeek's are those of Hugging Face transformers."""

import pytest
import torch

from moe_lesson.moe import zoo
from moe_lesson.moe.zoo import ZOO, Tokens, settings_for

T, N, K, V, D = 64, 16, 3, 50, 32


def made(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Tokens(torch.randn(T, N, generator=generator), torch.randn(T, N, generator=generator),
                  torch.randint(V, (T,), generator=generator), torch.arange(T) // 16)


TOKENS, SETTINGS = made(), settings_for(made(1).logits, K, V)
VARYING = {"expert choice", "threshold", "top-p", "null experts", "MoE++", "ReMoE"}  # another number of experts for each token


def test_there_are_twelve_and_each_gives_gates():
    assert len(ZOO) == 12
    for name, kind in ZOO.items():
        gates = kind.gates(TOKENS, SETTINGS)
        assert gates.shape == (T, N) and (gates >= 0).all() and (gates > 0).any(), name
        if name in VARYING:
            assert kind.cost(gates, SETTINGS).unique().numel() > 1, name
        else:
            assert ((gates > 0).sum(dim=1) == K).all(), name


def test_the_cost_is_about_k_for_all_but_those_with_free_experts():
    for name, kind in ZOO.items():
        mean = kind.cost(kind.gates(TOKENS, SETTINGS), SETTINGS).float().mean()
        assert mean == pytest.approx(K * (1 - 4 / N) if kind.free else K, abs=0.35), name


@pytest.mark.parametrize("name", ZOO)
def test_causal_is_what_no_later_token_changes(name):
    kind, whole = ZOO[name], ZOO[name].gates(TOKENS, SETTINGS)
    same = all(torch.allclose(kind.gates(TOKENS.first(count), SETTINGS), whole[:count]) for count in (1, 9, 23, 40, T))
    assert same == kind.causal


@pytest.mark.parametrize("name", [  # where the place of an expert has no meaning
    name for name in ZOO if not ZOO[name].free and name not in ("DeepSeek-V2", "DeepSeek-V3", "hash layer")])
def test_renamed_experts_are_the_same_experts(name):
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    s = SETTINGS.__dict__ | {"bias_N": SETTINGS.bias_N[order], "cutoffs_N": SETTINGS.cutoffs_N[order]}
    moved = Tokens(TOKENS.logits[:, order], TOKENS.previous[:, order], TOKENS.token_ids, TOKENS.documents)
    torch.testing.assert_close(ZOO[name].gates(moved, zoo.Settings(**s)), ZOO[name].gates(TOKENS, SETTINGS)[:, order])


def test_groups_hold_a_token_to_few_of_them():
    for name in ("DeepSeek-V2", "DeepSeek-V3"):
        chosen = ZOO[name].gates(TOKENS, SETTINGS).unflatten(1, (4, -1)).sum(dim=-1) > 0
        assert (chosen.sum(dim=1) <= 2).all() and chosen.any(dim=0).all(), name


def test_max_and_sum_of_two_rank_groups_differently():
    logits = torch.tensor([[3.0, -5.0, 2.0, 2.0]])  # a star with a weak neighbour beside two good ones
    assert zoo.v2_groups(logits, 1, groups=2, kept=1)[0].argmax() == 0
    assert zoo.v3_groups(logits, 1, torch.zeros(4), groups=2, kept=1)[0].argmax() == 2


def test_the_bias_chooses_and_never_weighs():
    logits, bias = torch.tensor([[2.0, 1.0, 0.0, -1.0]]), torch.tensor([0.0, -9.0, 0.0, 9.0])
    for gates in (zoo.v3_groups(logits, 2, bias, groups=1, kept=1), zoo.v4_root(logits, 2, bias)):
        assert gates[0].nonzero().flatten().tolist() == [0, 3] and gates.sum() == pytest.approx(1)
    low, high = torch.tensor([-1.0, 2.0]).sigmoid().tolist()
    assert zoo.v3_groups(logits, 2, bias, groups=1, kept=1)[0, 3] == pytest.approx(low / (low + high))


def test_experts_that_choose_are_equally_loaded():
    assert ((zoo.expert_choice(TOKENS.logits, K) > 0).sum(dim=0) == K * T // N).all()


def test_cutoffs_move_to_where_k_experts_are_above():
    cutoffs = torch.zeros(N)
    for _ in range(40):
        cutoffs = zoo.moved_cutoffs(cutoffs, TOKENS.logits, K, 0.3)
    assert ((zoo.threshold(TOKENS.logits, cutoffs) > 0).sum(dim=0).float() - K * T / N).abs().max() <= 1


def test_top_p_takes_the_fewest():
    gates = zoo.top_p(torch.tensor([[0.5, 0.3, 0.2]]).log(), 0.6)
    torch.testing.assert_close(gates, torch.tensor([[0.5, 0.3, 0.0]]))


def test_a_document_shares_its_pool():
    gates = zoo.document_pool(TOKENS.logits, K, TOKENS.documents, pool=5)
    for document in TOKENS.documents.unique():
        assert (gates[TOKENS.documents == document] > 0).any(dim=0).sum() <= 5


def test_a_token_may_have_nobody():
    assert not zoo.relu(-torch.ones(1, N)).any() and not zoo.threshold(TOKENS.logits, torch.ones(N)).any()
    gates = zoo.null_experts(torch.tensor([[0.0, 0.0, 9.0, 9.0], [9.0, 0.0, 8.0, 0.0]]), 2, free=2)
    torch.testing.assert_close(gates, torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]))


@pytest.mark.parametrize("call, words", [
    (lambda: zoo.plain_top_k(TOKENS.logits, 17), "top_k is 17"),
    (lambda: zoo.v2_groups(TOKENS.logits, 2, groups=5, kept=1), "16 experts can't be 5 groups"),
    (lambda: zoo.v3_groups(TOKENS.logits, 2, torch.zeros(N), groups=4, kept=5), "kept is 5"),
    (lambda: zoo.v2_groups(TOKENS.logits, 4, groups=8, kept=1), "1 of 8 groups have fewer than 4"),
    (lambda: zoo.v3_groups(TOKENS.logits, 4, torch.zeros(N), groups=8, kept=1), "1 of 8 groups have fewer than 4"),
    (lambda: zoo.null_experts(TOKENS.logits, 2, free=16), "free is 16"),
    (lambda: zoo.document_pool(TOKENS.logits, 4, TOKENS.documents, pool=3), "pool is 3"),
])
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_weights_of_scores_too_small_for_float32_are_those_of_float64():
    logits, ids, table = -120 - torch.arange(4.0)[None], torch.tensor([0]), torch.tensor([[1, 3]])
    torch.testing.assert_close(zoo.hashed(logits, ids, table), zoo.hashed(logits.double(), ids, table).float())
    assert zoo.v4_root(logits, 2, torch.zeros(4)).sum().item() == pytest.approx(1)


def theirs(version, hashed=False, **config):
    """A router of transformers with random weights, its logits, and its choice as gates."""
    modules = pytest.importorskip(f"transformers.models.deepseek_v{version}.modeling_deepseek_v{version}")
    name = {2: "V2Topk", 3: "V3Topk", 4: "V4Hash" if hashed else "V4TopK"}[version]
    config = getattr(modules, f"DeepseekV{version}Config")(hidden_size=D, n_routed_experts=N, num_experts_per_tok=K,
                                                           vocab_size=V, **config)
    generator, router = torch.Generator().manual_seed(3), getattr(modules, f"Deepseek{name}Router")(config)
    with torch.no_grad():
        router.weight.copy_(torch.randn(N, D, generator=generator))
    if hasattr(router, "e_score_correction_bias"):
        router.e_score_correction_bias.copy_(torch.randn(N, generator=generator) * 0.2)
    if hashed:
        router.tid2eid.copy_(SETTINGS.table_VK)
    x = torch.randn(1, T, D, generator=generator)
    logits, weights, ids = router(x, TOKENS.token_ids[None]) if hashed else router(x)
    return router, logits, torch.zeros(T, N).scatter(1, ids, weights.float())


def test_the_routers_of_deepseek_are_those_of_transformers():
    _, logits, wanted = theirs(2, n_group=4, topk_group=2, topk_method="group_limited_greedy", routed_scaling_factor=16.0)
    torch.testing.assert_close(zoo.v2_groups(logits, K, groups=4, kept=2, scale=16.0), wanted)
    router, logits, wanted = theirs(3, n_group=4, topk_group=2, routed_scaling_factor=2.5)
    torch.testing.assert_close(zoo.v3_groups(logits, K, router.e_score_correction_bias, 4, 2, scale=2.5), wanted)
    router, logits, wanted = theirs(4, routed_scaling_factor=1.5)
    torch.testing.assert_close(zoo.v4_root(logits, K, router.e_score_correction_bias, scale=1.5), wanted)
    router, logits, wanted = theirs(4, hashed=True, routed_scaling_factor=1.5)
    torch.testing.assert_close(zoo.hashed(logits, TOKENS.token_ids, SETTINGS.table_VK, scale=1.5), wanted)
