"""Models on a GPU, without one: a device that is made up holds the model, and what it can't do is an error here too."""

import inspect
from functools import partial

import pytest
import torch
import torch.utils._pytree as pytree
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from moe_lesson import LanguageModel, ModelConfig, Sparse, TrainingConfig, load_model, next_token, train
from moe_lesson.base.devices import device_name, fast_dtype, pick_device
from moe_lesson.experiments.tasks import WORLDS, SkillsTask, TextTask
from moe_lesson.lm.checkpoints import save_model, save_snapshots
from moe_lesson.lm.corpora import Corpus, Document
from moe_lesson.lm.evaluate import evaluate_language, evaluate_load
from moe_lesson.measure import census, facts, instruments, interventions, merging, nulls, skills, uneven
from moe_lesson.moe import zoo
from moe_lesson.moe.balance import LOSSES, with_capacity
from moe_lesson.moe.recipes import Dense
from moe_lesson.moe.routing import load_cv, load_entropy, max_violation
from moe_lesson.teach.checks.lesson02 import topk_layers
from moe_lesson.teach.lesson import Lesson

GPU = torch.device("mps")
ANYWHERE = ("copy_", "index", "index_put_", "_index_put_impl_")  # operators that take tensors, or indices, of the CPU too


class OnGpu(torch.Tensor):
    """A tensor on an Apple GPU that isn't there: its values are `held` by the CPU. Within, PyTorch takes it for a meta tensor."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device, is_meta = property(lambda self: GPU), property(lambda self: False)

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, strides=held.stride(), device="meta")

    def __init__(self, held):
        self.held = held

    def tolist(self):
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


def computed(func, args, kwargs):
    """Run an operator where its tensors are, and refuse what a GPU refuses."""
    name, tensors = func._schema.name.removeprefix("aten::"), [x for x in pytree.tree_leaves(args) if isinstance(x, torch.Tensor)]
    there = [x for x in tensors if isinstance(x, OnGpu)]
    here = [tuple(x.shape) for x in tensors if not isinstance(x, OnGpu) and x.ndim]  # one number may come from anywhere
    assert not (there and here) or name in ANYWHERE, f"{func} meets {here} of the CPU and {[tuple(x.shape) for x in there]}"
    assert name != "_grouped_mm" or not there, "Apple's GPUs have no grouped product"
    to = kwargs.get("device")
    result_there = bool(there) if to is None else torch.device(to).type == "meta"
    assert not (result_there and kwargs.get("generator")), f"{func} on the GPU takes no random numbers of the CPU's generator"
    held_args, held_kwargs = pytree.tree_map_only(OnGpu, lambda x: x.held, (args, kwargs))
    out = func(*held_args, **held_kwargs | ({"device": "cpu"} if to is not None else {}))
    if name.endswith("_"):
        return args[0] if func._schema.returns else None  # what takes many tensors at once returns none

    def put(x):
        assert x.dtype != torch.float64, f"{func}: Apple's GPUs have no float64"
        return OnGpu(x)

    return pytree.tree_map_only(torch.Tensor, put, out) if result_there else out


class Operators(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


class Devices(TorchFunctionMode):
    """What is asked for on the GPU."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        args, kwargs = pytree.tree_map_only(torch.device, lambda x: torch.device("meta") if x == GPU else x, (args, kwargs or {}))
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[1], list):
            args = (args[0], torch.tensor(args[1], device="cpu"), *args[2:])  # PyTorch would make a meta tensor of the list
        return func(*args, **kwargs)


def moved(module):
    """The module with its weights on the GPU."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(OnGpu(parameter.detach().clone()))
        for name, buffer in part._buffers.items():
            part._buffers[name] = OnGpu(buffer.clone())
    return module


def corpus():
    return Corpus(tuple(Document(domain, f"{domain}{i}", f"{domain}: text {i}, and more of it. " * 4, split)
                        for domain in ("a", "b") for split in ("train", "validation", "test") for i in range(3)))


def model(**changes):
    sparse = Sparse(8, 2, 8, 1, score="sigmoid", **changes)
    return LanguageModel(ModelConfig((sparse, Dense(16), sparse), layers=3, width=16, heads=2, context=16)).eval()


IDS = torch.randint(256, (3, 12), generator=torch.Generator().manual_seed(0))


def losses_of(routing):
    return [loss(routing, "softmax", 3) for loss in LOSSES.values()] + [with_capacity(routing, 1.0, "weight").weights]


def train_a_step(one):
    one.train()
    history = train(one, corpus().sampler("train", 4, 12), TrainingConfig(steps=1), progress=False,
                    objective=next_token({"batch": 0.1, "sequence": 0.1, "importance": 0.1, "load": 0.1, "z": 0.1, "bias": 0.1}))
    return [history["loss"], history["max_violation"], one.blocks[0].ffn.router.bias]


def judged(task, one):
    along = [list(task.follow(one).values()), *task.chosen(one)] if isinstance(task, TextTask) else []
    return [list(figures.values()) for figures in (task.validate(one), task.test(one))] + along


def skilled(one):
    task = SkillsTask(0, 800, {})
    with torch.device("cpu"):
        layer = task.build(Sparse(8, 2, 8, 1), seed=0)
    layer = moved(layer) if isinstance(one.head.weight, OnGpu) else layer
    return judged(task, layer)


def diagnosed(one):
    x = instruments.layer_inputs(one, IDS)[0]
    layer = one.blocks[0].ffn
    routing, outputs = layer(x)[1], instruments.expert_outputs(layer, x)
    labels = torch.eye(3, device="cpu").repeat_interleave(12, 0)[: len(x)]
    similarity = instruments.output_similarity(outputs)
    return [outputs, instruments.co_routing(routing), instruments.linear_cka(outputs), instruments.weight_similarity(layer),
            instruments.calls(routing, labels), instruments.hybridity(routing, labels),
            instruments.experts_in_common(routing.with_tokens(["x", "y", "x"] * (len(x) // 3))),
            instruments.probe(x[:, :4], outputs[0]), *instruments.shared_and_routed(layer, x),
            merging.merging(similarity, 2, lambda groups: after_merging(one, groups, routing.load)).losses,
            [measure(routing.load) for measure in (max_violation, load_cv, load_entropy)]]


def after_merging(one, groups, load_N):
    return merging.with_merged_experts(one, groups, load_N)(IDS)[0].mean().item()


def counted(one):
    found = census.take_census(one, corpus(), "test", limit=60)
    trained = found["trained"]
    calls = trained.pooled(trained.calls(0))
    # 200 steps of a sign make another bias of a rounding, so the balanced router's choices are left out
    return [*(ids for name, each in found.items() if "balanced" not in name for ids in each.expert_ids),
            trained.predicted_T, trained.pairs(0), calls,
            trained.shuffled().expert_ids[0], trained.shuffled_documents().domain_F,
            list(vars(census.information_about(trained, 0, draws=5)).values()),
            census.document_losses(one, corpus(), "test"),
            census.of_same_load(calls, census.specialists(calls, 0, 2), 2)]


def changed_models(one):
    change = interventions
    return [changed(IDS)[0] for changed in (
        change.with_silent_experts(one), change.with_strongest_units(one, 0.5), change.with_same_units(one, 0.5, IDS),
        change.with_random_units(one, 0.5), change.without_experts(one, [[0, 3], [1]]), change.with_masked_experts(one, 0.25),
        change.with_masked_experts(change.without_experts(one, [[0], [1]]), 0.25, seed=0), change.with_cut_experts(one, 2),
        change.with_top_k(one, 1), change.without_shared(one), change.with_limited_experts(one, 1.0),
        nulls.with_random_routers(one),
        merging.with_merged_experts(one, ((0, 1), (2,), (3, 4, 5), (6, 7)), torch.arange(8.0, device="cpu")))]


USES = {
    "logits": lambda one: [one(IDS)[0]],
    "losses": lambda one: [found for routing in one.train()(IDS)[1] if routing for found in losses_of(routing)],
    "training": train_a_step,
    "evaluation": lambda one: [evaluate_language(one, corpus(), "test", 200)["mean"], *evaluate_load(one, corpus(), "test", 200)],
    "text task": lambda one: judged(TextTask(corpus(), 200), one),
    "skills task": skilled,
    "route": lambda one: [routing.expert_ids for routing in one.route("some text") if routing],
    "generate": lambda one: [list(one.generate("some", 6).encode())],
    "beside null": lambda one: [routing.weights for both in nulls.route_beside_null(one, "some text") for routing in both],
    "hidden units": lambda one: instruments.hidden_units(one, IDS),
    "instruments": diagnosed,
    "census": counted,
    "interventions": changed_models,
}


def same(found, expected):
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected):
        ours, theirs = (torch.as_tensor(value.detach().cpu() if isinstance(value, torch.Tensor) else value, device="cpu")
                        for value in (ours, theirs))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("use", USES)
def test_a_model_on_a_gpu_is_used_like_one_on_the_cpu(use):
    noisy = use in ("losses", "training")
    torch.manual_seed(0)
    expected = USES[use](model(noisy=noisy))
    torch.manual_seed(0)
    with Operators(), Devices():
        same(USES[use](moved(model(noisy=noisy))), expected)


LEARNERS = [("world of facts", Sparse(8, 2, 8, 1, scale=4.0), {"topics": 4, "per_topic": 8}),
            ("world of facts", Dense(8), {"topics": 4, "per_topic": 8}),
            *(("uneven world", uneven.Arm((4, 8) * 4, choice, penalty=0.1), {}) for choice in uneven.CHOICES)]


@pytest.mark.parametrize("world, sizes, changes", LEARNERS)
def test_what_learns_a_world_on_a_gpu_learns_it_as_on_the_cpu(world, sizes, changes):
    def learnt(place):
        task = WORLDS[world](0, 30, changes)
        one = place(task.build(sizes, seed=0))
        history = train(one, task.batches(16, 1, 0), TrainingConfig(steps=1), progress=False,
                        objective=task.objective({"batch": 0.01}))
        return [history["loss"], *judged(task, one)]

    expected = learnt(lambda one: one)
    with Operators(), Devices():
        same(learnt(moved), expected)


@pytest.mark.parametrize("use", USES)
def test_a_default_device_changes_nothing_for_a_model_on_the_cpu(use):
    noisy = use in ("losses", "training")
    one, other = model(noisy=noisy), model(noisy=noisy)
    torch.manual_seed(0)
    expected = USES[use](one)
    torch.manual_seed(0)
    with torch.device("meta"):  # a tensor made without a device has no values here
        found = USES[use](other)
    same(found, expected)


def test_files_and_worlds_are_the_same_under_a_default_device(tmp_path):
    one, chosen = model(), {0: [[[1, 2], [3, 4]]], 10: [[[5, 6], [7, 0]]]}
    worlds = skills.SkillsWorld, facts.FactsWorld, uneven.UnevenWorld, partial(uneven.UnevenWorld, varying=True)
    batches, logits = [world().sampler(8)(3) for world in worlds], torch.randn(6, 8)
    zoo_drew = zoo.settings_for(logits, 2, 16)
    with torch.device("meta"):
        save_model(tmp_path / "model", one, {})
        save_snapshots(tmp_path / "snapshots", chosen, {})
        read = load_model(tmp_path / "model")[0]
        assert all(torch.equal(world().sampler(8)(3), batch) for world, batch in zip(worlds, batches))
        uneven.UnevenWorld().read(batches[2][:, :16])
        assert torch.equal(zoo.settings_for(logits, 2, 16).mix_NN, zoo_drew.mix_NN)
        similarity = merging.random_similarity(4, 0)
    assert similarity.device.type == "cpu" and torch.equal(similarity, similarity.T) and similarity[1, 1] == 1
    assert torch.equal(read(IDS)[0], one(IDS)[0])


# ------------------------------------------------------------------------------------------------------ which one to use


@pytest.mark.parametrize("there, picked", [(("cuda", "mps"), "cuda"), (("mps",), "mps"), ((), "cpu")])
def test_auto_takes_the_first_device_that_is_there(there, picked, monkeypatch, tmp_path):
    monkeypatch.setenv("MOE_LESSON_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA")
    assert pick_device("auto") == picked == Lesson("00").device
    assert device_name(picked).startswith({"cuda": "NVIDIA", "mps": "Apple GPU", "cpu": "CPU"}[picked])
    for missing in {"cuda", "mps"} - set(there):
        with pytest.raises(ValueError, match=f"no GPU is there.*{missing}.*--device cpu"):
            pick_device(missing)
    with pytest.raises(ValueError, match="unknown device 'tpu'; choose one of auto, cuda, mps, cpu"):
        pick_device("tpu")


@pytest.mark.parametrize("supported, fast", [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_that_only_emulates_bfloat16_multiplies_in_float16(supported, fast, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported or including_emulation)
    assert (fast_dtype("cuda"), fast_dtype("cpu"), fast_dtype("mps")) == (fast, torch.float32, torch.float32)


# ------------------------------------------------------------------------------------------------------------- the tasks


def test_all_tasks_have_the_same_methods_with_the_same_arguments_and_text_can_be_followed():
    def methods(task):
        return {name: len(inspect.signature(getattr(task, name)).parameters) for name in dir(type(task)) if name[0] != "_"}

    of_text, of_worlds = methods(TextTask(corpus(), 100)), [methods(world(0, 100, {})) for world in WORLDS.values()]
    own = {"layer", "world_of"}  # how a world makes what is trained in it
    assert all({name: of[name] for name in of.keys() - own} == {name: of_text[name] for name in of_text.keys()
                                                                - {"follow", "chosen"}} for of in of_worlds)


@pytest.mark.parametrize("draw", [lambda: LanguageModel(ModelConfig(Dense(8), 1, 8, 1, 4)), topk_layers,
                                  lambda: SkillsTask(0, 800, {}).build(Dense(8), 0)])
def test_to_draw_weights_leaves_the_random_numbers_of_a_gpu_alone(draw, monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the GPU's generator was seeded"))
    draw()
