"""Training: one function, for any model and any objective; what it did is a `History`.

An interrupted training keeps its last state and goes on from it exactly: the batch of a step depends on the seed and the
step alone, and so does the noise drawn in it.
"""

import inspect
import math
import pathlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..base.errors import positive_number, require, whole_number
from ..base.interrupts import uninterrupted
from ..base.seeds import mixed_seed
from ..moe.balance import BIAS, LOSSES, checked_balance, update_bias
from ..moe.layers import moe_layers
from ..moe.routing import Routing, max_violation, routed
from .checkpoints import as_json, load_training_state, read_training_state, save_training_state, training_identity
from .model import device_of


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Args:
        steps: optimizer steps.
        lr: peak learning rate of AdamW (β = 0.9, 0.95): linear warm-up, then a cosine down to a tenth.
        warmup: steps of the warm-up; a training of fewer never reaches the peak.
        weight_decay: on matrices, not on norms.
        clip: largest norm of the gradient; math.inf clips nothing.
        seed: of whatever is random in a step.
        bfloat16: multiply in bfloat16 (autocast), keep weights in float32.

    Raises:
        ValueError: for a number of another kind or out of its range.
    """

    steps: int
    lr: float = 3e-3
    warmup: int = 50
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    bfloat16: bool = False

    def __post_init__(self):
        whole_number("steps", self.steps)
        positive_number("lr", self.lr)
        whole_number("warmup", self.warmup, least=0)
        positive_number("weight_decay", self.weight_decay, or_zero=True)
        if self.clip != math.inf:
            positive_number("clip", self.clip)
        whole_number("seed", self.seed, least=None)
        require(isinstance(self.bfloat16, bool), f"bfloat16 is {self.bfloat16!r}; expected True or False")

    def lr_at(self, step: int) -> float:
        """The learning rate of one step, 0 … steps-1."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))


@dataclass
class History:
    """What a training did: one dictionary of figures per step, and the seconds it took in all its sittings."""

    rows: list[dict] = field(default_factory=list)
    seconds: float = 0.0

    def __getitem__(self, figure: str) -> list[float]:
        """One figure over the steps, e.g. `history["loss"]`, without the steps that lack it; ValueError if all do."""
        known = dict.fromkeys(name for row in self.rows for name in row)
        require(figure in known, f"no step has a figure {figure!r}; choose one of {', '.join(known)}")
        return [row[figure] for row in self.rows if figure in row]


class TrainingDiverged(RuntimeError):
    """The loss was no longer a number; the model holds the weights of the last step that was completed."""


Objective = Callable[[nn.Module, Tensor], tuple[Tensor, dict]]
AfterStep = Callable[[nn.Module, dict], None]
TaskLoss = Callable[[nn.Module, Tensor], tuple[Tensor, list[Routing], int]]
DEFAULT_BALANCE = {"batch": 0.01}  # DeepSeekMoE's (arXiv 2401.06066, section 4.1)


class Balanced:
    """An objective: a task's loss + Σ strength · mean over the MoE layers of a balance loss.

    Args:
        task_loss: (model, batch) -> the loss, the routing of each MoE layer, and how many sequences the batch has.
        balance: name of a loss in `balance.LOSSES` -> its strength; "bias" -> how far the selection biases move after a step,
            with no loss at all; {} for no balancing.

    Returns (call): for a model and a batch the loss to minimise, and figures: `loss` without the balance terms, and for a model
        with MoE layers `max_violation`, the mean over layers, and `load`, the N loads of each layer.

    Raises:
        ValueError: for an unknown way to balance, or a strength that is negative or not finite.
    """

    def __init__(self, task_loss: TaskLoss, balance: Mapping[str, float]):
        self.task_loss, self.balance = task_loss, checked_balance(balance)
        self.losses = {name: strength for name, strength in self.balance.items() if name != BIAS}
        self.rate = self.balance.get(BIAS, 0.0)

    def __call__(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, dict]:
        loss, routings, sequences = self.task_loss(model, batch)
        if not routings:
            return loss, {"loss": loss.detach()}
        layers = moe_layers(model)
        require(not self.balance or len(layers) == len(routings), f"of the {len(routings)} layers that route, {len(layers)} can "
                "be balanced, which only an MoE can; make all of them MoE layers, or train with balance={}")
        sparse = list(zip(routings, (layer.router.score for layer in layers)))
        terms = [strength * torch.stack([LOSSES[method](routing, score, sequences) for routing, score in sparse]).mean()
                 for method, strength in self.losses.items()]
        loads = [routing.load.cpu() for routing in routings]  # a GPU is waited for once a layer
        figures = {"loss": loss.detach(), "max_violation": sum(map(max_violation, loads)) / len(loads),
                   "load": [load.tolist() for load in loads]}
        return loss + sum(terms), figures

    def after_step(self, model: nn.Module, figures: dict) -> None:
        """Move the selection biases, which act from the next batch on; `figures["load"]` is the load of the whole step."""
        for layer, load in zip(moe_layers(model), figures.get("load", ())) if self.rate else ():
            layer.router.bias.copy_(update_bias(layer.router.bias, torch.tensor(load, device="cpu"), self.rate))


def next_token(balance: Mapping[str, float] = DEFAULT_BALANCE) -> Balanced:
    """The objective of a language model: next-token loss, in nats per token, with balance losses; `balance` as in `Balanced`.

    Its batches are token ids [B, S+1].

    Raises:
        ValueError: for an unknown way to balance, or a batch that is not token ids [B, S+1].
    """
    def loss(model: nn.Module, ids: Tensor) -> tuple[Tensor, list[Routing], int]:
        require(ids.ndim == 2 and len(ids) > 0 and ids.shape[1] > 1, f"a batch of token ids has shape {tuple(ids.shape)}; "
                "expected [B sequences, S + 1 tokens], at least 1 of 2 tokens")
        logits, routings = model(ids[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten().long())
        return loss, routed(routings), len(ids)

    return Balanced(loss, balance)


def train(model: nn.Module, batch_at: Callable[[int], Tensor], config: TrainingConfig, *,
          objective: Objective | None = None, checkpoint: str | pathlib.Path | None = None, every: int = 200,
          evaluate: Callable[[nn.Module], dict] | None = None, after_step: AfterStep | None = None,
          progress: bool = True) -> History:
    """Train a model in place.

    Args:
        model: on the device to train on.
        batch_at: step -> batch, the same at every call, e.g. `corpus.sampler("train", batch=16, context=128)`; one tensor.
        config: steps, learning rate and so on.
        objective: (model, batch) -> loss and figures; `next_token()` unless given.
        checkpoint: a file for the state; where it exists, training goes on from it. It is written every `every` steps, at
            the end, when you interrupt, and when a step or an evaluation fails.
        every: steps between two checkpoints and two evaluations.
        evaluate: model -> figures to add to the history, e.g. the validation loss; called every `every` steps and at the end.
            Numbers, text and lists, by names that the training does not use itself, as it does "step", "lr" and "loss".
        after_step: (model, figures) -> None, called when a step is completed; the objective's own unless given, where it has
            one, as `Balanced` has. What moves outside the gradient moves there: once a step, and not in a step that failed.
            Where it fails itself, the step is done all the same: it is not called for it again.
        progress: show a bar, and a line at the end.

    Returns: the history, earlier sittings included.

    Raises:
        TrainingDiverged: when the loss is NaN or infinite. Like every error of a step or an evaluation, it leaves model and
            checkpoint with the last completed step.
        MemoryError: when the device has not enough.
        KeyboardInterrupt: after the step in progress is finished and the state is saved.
        OSError: if the checkpoint can't be written, before the first step. An error of a step goes before that of saving it,
            which is only a warning then.
        ValueError: if the checkpoint belongs to another model, other data, another objective or another configuration, if the
            model can't train, or if what was given is not what is described above.
    """
    whole_number("every", every)
    require(isinstance(config, TrainingConfig), f"config is {config!r}; expected TrainingConfig(steps=…, lr=…)")
    device = device_of(model)
    require(not any(isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)) for module in model.modules()),
            "the model is wrapped to train in parallel, and train works in one process; give it the model within: model.module")
    require(any(p.requires_grad for p in model.parameters()), "no parameter of the model is trainable; call "
            "requires_grad_(True) on those that should learn")
    require(torch.is_grad_enabled(), "gradients are switched off here; call train outside of torch.no_grad()")
    objective = next_token() if objective is None else objective
    after_step = after_step or getattr(objective, "after_step", None)
    check_given(batch_at, objective, evaluate, after_step)
    optimizer, identity = adamw(model, config), asdict(config) | training_identity(model, batch_at, objective)
    history, start = History(), 0
    if checkpoint and pathlib.Path(checkpoint).exists():
        history, start = restore(checkpoint, model, optimizer, identity)

    def save() -> None:
        if checkpoint:
            save_training_state(checkpoint, model, optimizer, identity, asdict(history))

    @contextmanager
    def nothing_lost(owed: bool = False) -> Iterator[None]:
        try:
            yield
        except Exception:
            if owed:
                history.rows[-1]["owed"] = True  # its evaluation: a later sitting begins with it
            try:
                save()
            except Exception as unsaved:
                warnings.warn(f"the steps since the last checkpoint are not saved: {unsaved}", stacklevel=4)
            raise

    def judge(row: dict, evaluate: Callable[[nn.Module], dict]) -> None:
        with nothing_lost(owed=True):
            found = evaluate(model)
            require(isinstance(found, dict), f"evaluate returned {found!r}; expected figures by name, such as {{'test': 1.5}}")
            taken = sorted({"owed", *row} & found.keys())
            require(not taken, f"evaluate returned {', '.join(taken)}, which the training records itself; choose other names, "
                               "such as 'test'")
            row |= plain(found)

    save()  # a file that can't be written says so now, not after the last step
    model.train()
    bar = tqdm(total=config.steps, initial=start, unit="step", leave=False, disable=not progress)

    def stop_if_interrupted() -> None:
        if interrupted():
            save()
            raise KeyboardInterrupt(f"interrupted after step {len(history.rows)} of {config.steps}; " + (
                f"the state is in {checkpoint}: call train again to go on" if checkpoint else "the model keeps its weights"))

    with bar, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), uninterrupted() as interrupted:
        if history.rows and history.rows[-1].pop("owed", False) and evaluate:
            judge(history.rows[-1], evaluate)
            save()
            stop_if_interrupted()
            model.train()
        for step in range(start, config.steps):
            began = time.perf_counter()
            with nothing_lost():
                row = one_step(model, optimizer, batch_at(step).to(device), step, config, objective)
            history.rows.append(row)
            due = step + 1 == config.steps or (step + 1) % every == 0
            if after_step:
                with nothing_lost(owed=due):
                    after_step(model, row)
            if evaluate and due:
                judge(row, evaluate)
                model.train()
            history.seconds += time.perf_counter() - began
            if due:
                save()
            bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
            bar.update()
            stop_if_interrupted()
    if progress:
        print(f"{config.steps} steps in {history.seconds:.0f} s, loss {history['loss'][-1]:.3f}")
    model.eval()
    return history


def one_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Tensor, step: int, config: TrainingConfig,
             objective: Objective) -> dict:
    """One optimizer step; returns its figures as plain numbers."""
    torch.manual_seed(mixed_seed(config.seed, step))  # noise in the model repeats when a training is resumed
    lr = config.lr_at(step)
    for group in optimizer.param_groups:
        group["lr"] = lr
    autocast = torch.autocast(batch.device.type, torch.bfloat16) if config.bfloat16 else nullcontext()
    try:
        with autocast:
            found = objective(model, batch)
        fits = isinstance(found, tuple | list) and len(found) == 2 and isinstance(found[0], Tensor) and isinstance(found[1], dict)
        require(fits, f"the objective returned a {type(found).__name__}; expected a loss and figures by name: return loss, {{}}")
        loss, figures = found
        require(loss.numel() == 1 and loss.requires_grad, f"the objective's loss has shape {tuple(loss.shape)} and requires_grad="
                f"{loss.requires_grad}; expected one number with a gradient: take the mean, and detach nothing")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):  # a GPU's, and a CPU's
            raise MemoryError(f"the device ran out of memory at step {step} with a batch of shape {tuple(batch.shape)}; choose a "
                              "smaller batch or a shorter context") from error
        raise
    norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
        raise TrainingDiverged(f"at step {step} the loss is {loss.item()} and the gradient norm {norm.item()}; the model keeps "
                               f"the weights of the step before. Try a lower learning rate than {config.lr:g}")
    row = plain({"step": step, "lr": lr, "loss": loss} | figures)
    optimizer.step()
    return row


def plain(figures: dict) -> dict:
    """Figures without tensors and NumPy's numbers, as a file can hold them; ValueError for what it can't."""
    as_json(figures)
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in figures.items()}


def adamw(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices alone; fused, that is all parameters in one pass."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=(0.9, 0.95), fused=True)


def check_given(batch_at: object, objective: Objective, evaluate: object, after_step: object) -> None:
    """Refuse what `train` can't call: a DataLoader, say, or `next_token` itself in place of what it makes."""
    for name, given, wanted in (
            ("batch_at", batch_at, "a function: corpus.sampler(…), or lambda step: batches[step % len(batches)] for a list"),
            ("objective", objective, "a function of model and batch, such as next_token()"),
            ("evaluate", evaluate or dict, "a function of the model"),
            ("after_step", after_step or dict, "a function of model and figures")):
        require(callable(given), f"{name} is a {type(given).__name__}; expected {wanted}")
    try:
        inspect.signature(objective).bind("model", "batch")
    except TypeError as error:
        raise ValueError(f"the objective does not take a model and a batch ({error}); expected a function of both, such as "
                         "next_token() with its brackets") from error


def restore(checkpoint: str | pathlib.Path, model: nn.Module, optimizer: torch.optim.Optimizer,
            identity: dict) -> tuple[History, int]:
    """Put a saved state into model and optimizer; returns the history so far and the step to go on with."""
    tensors, old, history = read_training_state(checkpoint)
    different = [f"{key} {old.get(key)!r}, now {value!r}" for key, value in (dict.fromkeys(old) | identity).items()
                 if old.get(key) != value]
    require(not different, f"{checkpoint} was trained with {'; '.join(different)}: go on with the same model, data and "
                           "configuration, or delete the file to start again")
    load_training_state(checkpoint, tensors, model, optimizer)
    return History(**history), len(history["rows"])
