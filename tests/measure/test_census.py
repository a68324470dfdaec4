"""A census counts every token of every document once; its instruments have closed forms at their extremes."""

import math
from dataclasses import replace

import pytest
import torch

from moe_lesson import Corpus, Dense, Document, LanguageModel, ModelConfig, Sparse, machine_corpus
from moe_lesson.base.text import DOCUMENT_START, to_bytes
from moe_lesson.base.tokens import decode, encode
from moe_lesson.measure.census import (
    Census,
    bootstrap,
    document_losses,
    information,
    information_about,
    lift,
    of_same_load,
    saturation,
    specialists,
    take_census,
)
from moe_lesson.measure.interventions import without_experts
from moe_lesson.moe.layers import moe_layers
from moe_lesson.moe.routing import max_violation


@pytest.fixture(scope="module")
def corpus():
    return machine_corpus(splits=("validation",), max_bytes=100_000)


@pytest.fixture(scope="module")
def model():
    recipes = (Sparse(8, 2, 8), Dense(8), Sparse(6, 3, 8))
    return LanguageModel(ModelConfig(recipes, layers=3, width=16, heads=2, context=64)).eval()


def made(ids, documents, domains=(0, 1), sizes=None, bytes_=None, **more) -> Census:
    """A census of one layer by hand: K experts for each token, the document of each token, the domain of each document."""
    ids = torch.tensor(ids)
    tokens = torch.tensor(bytes_ or [0] * len(ids))
    return Census(("a", "b"), torch.tensor(domains), torch.tensor(documents), tokens, tokens, (ids,), (sizes or 4,), **more)


def tokens_of(document) -> list[int]:
    """The tokens of a document, its start among them."""
    return encode(DOCUMENT_START + to_bytes(document.text))


# --- taking it -------------------------------------------------------------------------------------------------------


def test_every_token_of_every_document_is_counted_once(corpus, model):
    found = take_census(model, corpus, "validation", limit=150)
    documents = [d for d in corpus.documents if d.split == "validation"]
    census = found["trained"]
    assert len(census.domain_F) == len(documents) and census.sizes == (8, 6)
    for r in (0, 7, len(documents) - 1):
        ids = tokens_of(documents[r])[:151]
        assert census.token_T[census.document_T == r].tolist() == ids[:-1]  # the last one is a target only
        assert census.domains[census.domain_F[r]] == documents[r].domain
    for layer, (n, k) in enumerate([(8, 2), (6, 3)]):
        assert census.expert_ids[layer].shape == (len(census.token_T), k)
        for what in ("domain", "token", "predicted"):
            assert census.calls(layer, what).sum() == k * len(census.token_T)
        assert census.pairs(layer).sum() == k * (k - 1) * len(census.token_T)
        assert found["random router"].expert_ids[layer].max() < n


def test_it_is_what_the_model_does_with_the_text(corpus, model):
    census = take_census(model, corpus, "validation", limit=100, batch=3, nulls=False)["trained"]
    document = [d for d in corpus.documents if d.split == "validation"][2]
    ids = tokens_of(document)[:101]
    mine = census.document_T == 2
    with torch.no_grad():
        routings = [model(torch.tensor([ids[:-1][start:start + 64]]))[1] for start in (0, 64)]  # windows of the context
    for layer, block in ((0, 0), (1, 2)):
        expected = torch.cat([parts[block].expert_ids for parts in routings])
        assert census.expert_ids[layer][mine].tolist() == expected.tolist()
    logits = model(torch.tensor([ids[:64]]))[0]
    assert census.predicted_T[mine][:64].tolist() == logits.argmax(-1)[0].tolist()


def test_the_hash_router_knows_the_token_alone_and_the_random_router_the_state(corpus, model):
    found = take_census(model, corpus, "validation", limit=200)
    for layer in (0, 1):
        seen: dict[int, set] = {}
        for byte, ids in zip(found["hash router"].token_T.tolist(), found["hash router"].expert_ids[layer].tolist()):
            seen.setdefault(byte, set()).add(tuple(ids))
        assert all(len(choices) == 1 for choices in seen.values()) and len(set.union(*seen.values())) > 5
    first, again = (take_census(model, corpus, "validation", limit=50, seed=seed) for seed in (0, 1))
    assert (first["trained"].expert_ids[0] == again["trained"].expert_ids[0]).all()
    for null in ("random router", "balanced random router", "hash router"):
        assert (first[null].expert_ids[0] != again[null].expert_ids[0]).any()


def test_the_balanced_null_is_the_random_router_with_its_load_evened(corpus, model):
    found = take_census(model, corpus, "validation", limit=300)
    for layer, n in ((0, 8), (1, 6)):
        before, after = (max_violation(found[name].expert_ids[layer].flatten().bincount(minlength=n))
                         for name in ("random router", "balanced random router"))
        assert after < 0.15 < before
        kept = found["random router"].expert_ids[layer][:, :, None] == found["balanced random router"].expert_ids[layer][:, None]
        assert kept.any(2).float().mean() > 0.5  # the same router, pushed


def test_the_losses_are_those_of_the_documents(corpus, model):
    losses = document_losses(model, corpus, "validation", limit=90, batch=5)
    document = [d for d in corpus.documents if d.split == "validation"][4]
    raw = torch.tensor([tokens_of(document)[:91]])
    expected = [torch.nn.functional.cross_entropy(model(raw[:, a:b])[0][0], raw[0, a + 1:b + 1], reduction="sum")
                for a, b in ((0, 64), (64, raw.shape[1] - 1))]
    assert losses[4].item() == pytest.approx((sum(expected) / len(decode(raw[0, 1:].tolist()))).item(), rel=1e-5)


def test_a_split_without_documents_is_refused(corpus, model):
    with pytest.raises(ValueError, match="no document in the test split"):
        take_census(model, corpus, "test")
    with pytest.raises(ValueError, match="limit is 0; expected a whole number, 1 or more"):
        take_census(model, corpus, "validation", limit=0)


def test_a_short_document_is_read_to_its_end():
    corpus = Corpus((Document("a", "x", "hello", "test"), Document("b", "y", "hi" * 50, "test")))
    census = take_census(LanguageModel(ModelConfig(Sparse(4, 2, 8), layers=1, width=16, heads=2, context=16)), corpus)["trained"]
    assert torch.bincount(census.document_T).tolist() == [len(tokens_of(one)) - 1 for one in corpus.documents]


# --- information -----------------------------------------------------------------------------------------------------


def test_information_is_all_or_nothing_at_the_extremes():
    assert information(torch.eye(4)) == pytest.approx(1)
    assert information(torch.ones(6, 4)) == pytest.approx(0, abs=1e-6)
    # two labels, two experts, 3/4 against 1/4: 1 - H(1/4)/log 2
    share = torch.tensor([[3.0, 1.0], [1.0, 3.0]])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert information(share) == pytest.approx(1 - entropy / math.log(2), rel=1e-5)
    with pytest.raises(ValueError, match="same label"):
        information(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))


def test_a_domain_weighs_the_same_however_much_of_it_was_read():
    census = made([[0]] * 9 + [[1]], [0] * 9 + [1])
    table = census.pooled(census.calls(0))
    assert table.tolist() == [[0.5, 0], [0, 0.5], [0, 0], [0, 0]] and information(table) == pytest.approx(1)
    twice = census.pooled(census.calls(0), torch.tensor([1.0, 3.0]))
    assert twice.tolist() == table.tolist()


def test_the_nulls_take_the_information_away_and_leave_the_load():
    torch.manual_seed(0)
    documents = torch.arange(40).repeat_interleave(50).tolist()
    domains = [r % 2 for r in range(40)]
    ids = [[domains[r]] for r in documents]  # one expert for each domain
    census = made(ids, documents, domains)
    assert information_about(census, 0, draws=20).mean == pytest.approx(1)
    for null in (census.shuffled(), census.shuffled_documents()):
        assert information(null.pooled(null.calls(0))) < 0.1
        assert null.expert_ids[0].flatten().bincount().tolist() == census.expert_ids[0].flatten().bincount().tolist()


def test_dealt_out_among_the_places_of_a_token_what_the_token_tells_stays_and_the_rest_goes():
    documents = torch.arange(40).repeat_interleave(50)
    domains, token = [r % 2 for r in range(40)], torch.arange(50).repeat(40)  # each document has every token once
    by_token, by_domain = (made(ids[:, None].tolist(), documents.tolist(), domains) for ids in (token % 2, documents % 2))
    for census, what, stays in ((by_token, "token", True), (by_domain, "domain", False)):
        census = replace(census, token_T=token)
        dealt = census.shuffled_places()
        told, left = (information(one.pooled(one.calls(0, what))) for one in (census, dealt))
        assert told > 0.15 and (left == pytest.approx(told) if stays else left < 0.01)
        assert torch.equal(dealt.calls(0, "token").sum(dim=0), census.calls(0, "token").sum(dim=0))


def test_documents_differ_where_domains_do_not():
    # every document has an expert of its own: tokens say that domains are told apart, whole documents that they are not
    documents = torch.arange(16).repeat_interleave(100).tolist()
    census = made([[r] for r in documents], documents, [r % 2 for r in range(16)], sizes=16)
    real, by_token, by_document = (information(one.pooled(one.calls(0)))
                                   for one in (census, census.shuffled(), census.shuffled_documents()))
    assert real == pytest.approx(1) and by_token < 0.02 and by_document == pytest.approx(1)


def test_intervals_are_over_documents_and_hold_the_truth():
    # each document calls one expert with a share of its own; the truth is the mean share of many documents
    generator = torch.Generator().manual_seed(0)
    held = 0
    for trial in range(60):
        shares = 0.5 + 0.3 * torch.randn(20, generator=generator).clamp(-1, 1)
        calls = torch.stack([shares, 1 - shares], dim=1)[:, :, None].double()
        census = made([[0]], [0], [0] * 10 + [1] * 10)
        found = bootstrap(lambda times, calls=calls: (times[:, None] * calls[:, 0]).sum().item() / times.sum().item(),
                          census, draws=100, seed=trial)
        held += found.low <= 0.5 <= found.high
        assert found.n == 20 and found.low < found.mean < found.high
    assert held >= 50


def test_a_domain_without_documents_has_no_interval():
    with pytest.raises(ValueError, match="there is no document of .* to draw from"):
        information_about(made([[0]], [0], [1] * 3), 0, draws=2)


def test_documents_are_drawn_within_their_domain_and_the_interval_is_the_basic_one():
    census, drawn = replace(made([[0]], [0], [0, 0, 0, 1, 2]), domains=("a", "b", "c")), []
    found = bootstrap(lambda times: drawn.append(times) or (times[0] ** 2).item(), census, draws=400)
    assert all(times[:3].sum() == 3 and times[3] == times[4] == 1 for times in drawn)
    squares = torch.stack(drawn[:-1])[:, 0].square()
    assert (found.mean, found.low, found.high) == (1, 2 - squares.quantile(0.975), 2 - squares.quantile(0.025))


def test_unknown_labels_are_refused(corpus, model):
    with pytest.raises(ValueError, match="unknown label 'colour'; choose one of domain, token, predicted"):
        take_census(model, corpus, "validation", limit=20)["trained"].calls(0, "colour")


# --- lift, pairs, saturation -----------------------------------------------------------------------------------------


def test_lift_compares_with_the_average_label_whatever_its_size():
    assert lift(torch.tensor([[3.0, 10.0], [1.0, 30.0]])).tolist() == [[1.5, 0.5], [0.5, 1.5]]
    assert lift(torch.ones(4, 2)).tolist() == [[1.0, 1.0]] * 4


def test_all_pairs_are_counted_not_neighbours_in_rank_alone():
    census = made([[0, 1, 2], [2, 1, 0]], [0, 1])
    assert census.pairs(0).sum(dim=0).tolist() == [[0, 2, 2, 0], [2, 0, 2, 0], [2, 2, 0, 0], [0, 0, 0, 0]]


def test_saturation_is_the_share_of_the_final_choice():
    snapshots = {0: [torch.tensor([[0, 1], [2, 3]])], 50: [torch.tensor([[1, 4], [4, 5]])], 100: [torch.tensor([[1, 0], [4, 5]])]}
    found = saturation(snapshots, 0)
    assert {step: each.tolist() for step, each in found.items()} == {0: [1.0, 0.0], 50: [0.5, 1.0], 100: [1.0, 1.0]}


# --- whom to take away -----------------------------------------------------------------------------------------------


def test_specialists_have_the_highest_lift_and_a_load():
    calls = torch.tensor([[9.0, 1.0], [1.0, 9.0], [5.0, 5.0], [6.0, 4.0], [0.1, 0.0]])
    assert specialists(calls, 0, 2) == [0, 3] and specialists(calls, 1, 1) == [1]  # the last one has hardly any load
    with pytest.raises(ValueError, match="5 specialists"):
        specialists(calls, 0, 5)


def test_controls_are_other_experts_of_the_same_load_and_differ():
    torch.manual_seed(0)
    calls = torch.rand(16, 2)
    experts = specialists(calls, 0, 4)
    sets = of_same_load(calls, experts, 3)
    load = calls.sum(dim=1)
    assert len({tuple(ids) for ids in sets}) == 3
    for ids in sets:
        assert not set(ids) & set(experts) and len(set(ids)) == 4
        assert load[ids].sum().item() == pytest.approx(load[experts].sum().item(), rel=0.1)
    with pytest.raises(ValueError, match="no 3 different sets"):
        of_same_load(calls[:4], [0, 1], 3)


def test_experts_that_are_gone_are_called_by_nobody_and_the_model_stays(corpus, model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changed = without_experts(model, [[0, 3], [5]])
    loads = [routing.load for routing in changed(torch.arange(128).view(2, 64))[1] if routing is not None]
    assert loads[0][[0, 3]].tolist() == [0, 0] and loads[1][5] == 0 and (loads[0] > 0).sum() >= 3
    assert all((value == before[name]).all() for name, value in model.state_dict().items())
    assert len(moe_layers(changed)) == 2
    with pytest.raises(ValueError, match="2 must be left to choose"):
        without_experts(model, [list(range(7)), []])
    with pytest.raises(ValueError, match="experts of 1 layers were given for 2"):
        without_experts(model, [[0]])
    for wrong in ([0, 1], 5):
        with pytest.raises(ValueError, match=r"expected a list of expert ids for each MoE layer, such as \[\[0\], \[0\]\]"):
            without_experts(model, wrong)


def test_nothing_gone_is_the_same_model(corpus, model):
    losses = [document_losses(one, corpus, "validation", limit=64) for one in (model, without_experts(model, [[], []]))]
    assert torch.allclose(*losses)
    assert not torch.allclose(losses[0], document_losses(without_experts(model, [[0, 1], [2]]), corpus, "validation", limit=64))
