"""The layer and the model as torch.compile, torch.export and the meta device see them: graphs of shapes, without values."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from moe_lesson import LanguageModel, ModelConfig, MoE, Sparse, TrainingConfig, load_model, train
from moe_lesson.lm.checkpoints import save_model
from moe_lesson.lm.model import listening
from moe_lesson.measure.instruments import layer_inputs
from moe_lesson.measure.skills import regression
from moe_lesson.moe.routing import Routing
from moe_lesson.moe.rows import traced_product


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()


def model(seed=0):
    return LanguageModel(ModelConfig((Sparse(8, 2, 8, 1), Sparse(4, 1, 6)), layers=2, width=16, heads=2, context=16), seed)


def compiled(module):
    """One graph, in which autograd and the shapes are PyTorch's, and the operators run as they are."""
    return torch.compile(module, backend="aot_eager", fullgraph=True)


def ids(sequences=3, seed=0):
    return torch.randint(256, (sequences, 13), generator=torch.Generator().manual_seed(seed))


def gradients(run, module, x):
    module.zero_grad()
    run(x)[0].square().sum().backward()
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("widths", [(16, 8), (12, 3)])  # torch's grouped kernel does not take the second
def test_a_compiled_layer_is_one_graph_and_computes_the_same(widths, dtype):
    torch.manual_seed(0)
    moe = MoE(widths[0], 6, 2, widths[1], 1).to(dtype)
    moe.router.bias[2] = -10.0  # an expert without tokens
    fast = compiled(moe)
    for tokens in (33, 5, 1):
        x = torch.randn(tokens, widths[0]).to(dtype)
        torch.testing.assert_close(fast(x)[0], moe(x)[0])
        assert torch.equal(fast(x)[1].expert_ids, moe(x)[1].expert_ids)
        for ours, eager in zip(gradients(fast, moe, x), gradients(moe, moe, x), strict=True):
            torch.testing.assert_close(ours, eager)


def test_a_compiled_model_is_one_graph_also_in_bfloat16(monkeypatch):
    monkeypatch.setattr("moe_lesson.moe.dispatch.CHUNK_BYTES", 1)  # a chunk's sizes are values, which a graph waits for
    plain = model()
    fast = compiled(plain)
    for batch in (ids(), ids(5)):
        torch.testing.assert_close(fast(batch)[0], plain(batch)[0])
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(fast(batch)[0], plain(batch)[0])
    assert fast(batch)[1][0].load.sum() == 2 * batch.numel()


def test_the_operator_that_stands_for_the_kernel_keeps_pytorchs_rules():
    rows, w = torch.randn(7, 8, requires_grad=True), torch.randn(3, 8, 4, requires_grad=True)
    ends = torch.tensor([2, 2, 7], dtype=torch.int32)
    torch.library.opcheck(traced_product, (rows, w, ends))
    torch.library.opcheck(traced_product, (rows.detach(), torch.randn(7, 4), ends))
    assert torch.autograd.gradcheck(lambda rows, w: traced_product(rows, w, ends), (rows.double(), w.double()))


@pytest.mark.parametrize("module, x", [(MoE(16, 8, 2, 8, 1), torch.randn(12, 16)), (model(), ids())], ids=["layer", "model"])
def test_an_export_returns_what_the_module_returns_for_any_number_of_tokens(module, x):
    exported = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
    more = torch.cat([x, x.flip(0)])
    torch.testing.assert_close(exported(more)[0], module(more)[0])
    routings = exported(more)[1] if isinstance(module, LanguageModel) else [exported(more)[1]]
    assert all(isinstance(routing, Routing) and routing.load.sum() > 0 for routing in routings)


def test_on_the_meta_device_there_are_shapes_gradients_and_flops():
    with torch.device("meta"):
        big = LanguageModel(ModelConfig(Sparse(64, 6, 1408, 2), layers=2, width=2048, heads=16, context=512, vocabulary=32000))
        batch = torch.zeros(2, 512, dtype=torch.long)
    with FlopCounterMode(display=False) as counted:
        logits, routings = big(batch)
        forward = counted.get_total_flops()
        logits.sum().backward()
    assert logits.shape == (2, 512, 32000) and routings[0].weights.shape == (1024, 6)
    assert big.blocks[0].ffn.experts.w_in.grad.shape == (64, 2048, 2816) and counted.get_total_flops() > 2.9 * forward
    routed = 2 * 2 * 1024 * 6 * 3 * 2048 * 1408  # of two layers
    assert counted.get_flop_counts()["Global"][torch.ops.moe_lesson.grouped_product] == 3 * routed


def test_what_needs_values_is_refused_on_the_meta_device():
    meta = model().to("meta")
    for use in (lambda: train(meta, lambda step: ids(), TrainingConfig(steps=1), progress=False), lambda: meta.route("abc"),
                lambda: meta.generate("abc", 2), lambda: layer_inputs(meta, ids())):
        with pytest.raises(ValueError, match="meta device.*no values; build it on the CPU or a GPU"):
            use()


# ------------------------------------------------------------------------------------------- training and its checkpoints


def test_a_compiled_training_goes_on_with_a_plain_model_and_the_other_way_round(tmp_path):
    def sitting(module, after_step=None):
        train(module, lambda step: ids(seed=step), TrainingConfig(steps=2, warmup=1, lr=1e-2), checkpoint=file, every=1,
              after_step=after_step, progress=False)
        return list(module.parameters())

    def stop(_, row):
        if row["step"] == 0:
            raise InterruptedError

    weights = []
    for first, then in ((model(), model()), (compiled(model()), model()), (model(), compiled(model()))):
        file = tmp_path / str(len(weights))
        with pytest.raises(InterruptedError):
            sitting(first, stop)
        weights.append(sitting(then))
    for resumed in weights[1:]:
        for ours, plain in zip(resumed, weights[0], strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-5)


def test_a_saved_compiled_model_is_read_as_a_plain_one(tmp_path):
    whole, block = model(), model()
    block.blocks[0] = torch.compile(block.blocks[0])
    block.blocks[1].ffn = compiled(block.blocks[1].ffn)
    for one in (torch.compile(whole), block):
        save_model(tmp_path / "model", one, {})
        torch.testing.assert_close(load_model(tmp_path / "model")[0](ids())[0], whole(ids())[0])


def test_a_compiled_layer_is_trained_in_a_skills_world():
    x = torch.randn(5, 12)
    for layer in (MoE(6, 4, 2, 4), nn.Linear(6, 6)):
        torch.testing.assert_close(regression()(compiled(layer), x)[0], regression()(layer, x)[0])


def test_a_compiled_model_is_listened_to_also_when_it_ran_before(monkeypatch):
    plain = model().eval()
    fast = compiled(plain)
    with torch.no_grad():
        fast(ids())
        with listening([fast.blocks[0].ffn, fast.blocks[1].ffn]) as heard:
            fast(ids())
    assert len(heard) == 2
    for ours, eager in zip(layer_inputs(fast, ids()), layer_inputs(plain, ids()), strict=True):
        torch.testing.assert_close(ours, eager)


def test_a_model_wrapped_for_many_processes_is_refused(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model())
        for each in (wrapped, torch.compile(wrapped), nn.DataParallel(model())):
            with pytest.raises(ValueError, match="in one process.*model.module"):
                train(each, lambda step: ids(), TrainingConfig(steps=1), progress=False)
        assert train(wrapped.module, lambda step: ids(), TrainingConfig(steps=1), progress=False).rows
    finally:
        torch.distributed.destroy_process_group()
