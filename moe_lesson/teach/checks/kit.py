"""What every check is made of: how an attempt is called, how its answer is judged, and what is printed."""

import inspect
import traceback
from collections.abc import Callable, Iterable, Sequence
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from ...moe.layers import MoE
from ...moe.routing import Routing


class NotTried(Exception):
    """The exercise is still a stub."""


class Wrong(Exception):
    """The attempt is wrong; the message says how, as a teacher would."""


class Check:
    """The check of one exercise.

    Args:
        name: what the function is called in the lesson.
        reference: the package's own.
        diagnose: takes a function and returns None if it is right, else what is wrong with it, as a teacher would say it.
    """

    def __init__(self, name: str, reference: Callable, diagnose: Callable[[Callable], str | None]):
        self.name, self.reference, self.diagnose = name, reference, diagnose

    def __call__(self, attempt: Callable) -> Callable:
        """Print the verdict; return the function that the lesson goes on with."""
        verdict, right = self.verdict(attempt)
        print(verdict)
        return attempt if right else self.reference

    def verdict(self, attempt: Callable) -> tuple[str, bool]:
        """The sentence to print, and whether the attempt is right."""
        try:
            problem = self.diagnose(attempt)
        except NotTried:
            return f"⏳ {self.name}: not tried yet. The lesson goes on with the package's own.", False
        except Wrong as wrong:
            problem = str(wrong)
        except Exception as error:  # the learner's code may raise anything
            return f"❌ {self.name}: {stopped(attempt, error)}", False
        return (f"❌ {self.name}: {problem}", False) if problem else (f"✅ {self.name}: right.", True)


def stopped(attempt: Callable, error: Exception) -> str:
    """Where an attempt stopped; or, if it did not, that what it returns can't be used."""
    file = getattr(getattr(inspect.unwrap(attempt), "__code__", None), "co_filename", None)
    said = f"{type(error).__name__}: {error}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if file in (None, frame.filename)]
    if not own:
        return f"what your function returns can't be used: {said}"
    line = f" (in line {own[-1].lineno}{own[-1].line and f': {own[-1].line}'})" if file else ""
    return f"your code stopped with {said}{line}"


def check(reference: Callable) -> Callable[[Callable], Check]:
    """A decorator: the function below it, which says what is wrong with an attempt, becomes the `Check` of its name."""
    return lambda diagnose: Check(diagnose.__name__, reference, diagnose)


def copies(arguments: Iterable) -> list:
    """The arguments, their tensors copied, those in a list too."""
    return [a.clone() if isinstance(a, Tensor) else copies(a) if isinstance(a, list) else a for a in arguments]


def answered(attempt: Callable, *arguments):
    """The attempt's answer as it is, unless it is a stub's. It gets copies: what it writes into them is its own affair."""
    try:
        answer = attempt(*copies(arguments))
    except NotImplementedError as error:
        if error.args:  # PyTorch's, e.g. of a dtype: an attempt
            raise
        raise NotTried from None
    if answer is ...:
        raise NotTried
    if answer is None:
        raise Wrong("your function returns nothing: end it, on every way through it, with return and the answer")
    return answer


def called(attempt: Callable, *arguments) -> Tensor:
    """The attempt's answer, which must be a tensor, since the lesson goes on computing with it."""
    return must_be_tensor(answered(attempt, *arguments))


def called_number(attempt: Callable, *arguments) -> float:
    """The attempt's answer, which must be one number."""
    answer = answered(attempt, *arguments)
    if not isinstance(answer, Real | Tensor) or isinstance(answer, Tensor) and answer.numel() != 1:
        shape = f" of shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else ""
        raise Wrong(f"your answer is a {type(answer).__name__}{shape}; expected one number")
    return float(answer)


def called_pair(attempt: Callable, names: str, *arguments) -> list:
    """The two parts of the attempt's answer."""
    answer = answered(attempt, *arguments)
    if isinstance(answer, tuple | list) and len(answer) == 2 or (
            isinstance(answer, Tensor | np.ndarray) and answer.ndim and len(answer) == 2):
        if any(part is ... for part in answer):
            raise NotTried
        return list(answer)
    raise Wrong(f"your function must return two things, {names}")


def must_be_tensor(answer) -> Tensor:
    """The answer itself, if it is a tensor."""
    if not isinstance(answer, Tensor):
        raise Wrong(f"return a tensor, not a {type(answer).__name__}: the layer goes on computing with it")
    return answer


def must_have_shape(answer: Tensor, *shape: int, part: str = "", wanted: str = "") -> None:
    """Refuse an answer of another shape; `part` names it where there are several, `wanted` says what the shape alone doesn't."""
    if answer.shape != shape:
        whose = f"{part}: " if part else ""
        raise Wrong(f"{whose}your answer has shape {tuple(answer.shape)}; {wanted or f'expected {shape}'}")


def must_have_dtype(answer, wanted) -> None:
    """Refuse numbers that are coarser than those they were made of: with them the lesson's next computation would stop."""
    both = all(isinstance(each, Tensor) and each.ndim and each.is_floating_point() for each in (answer, wanted))
    if both and answer.dtype.itemsize < wanted.dtype.itemsize:
        raise Wrong(f"your numbers are {answer.dtype}, and what you were given is {wanted.dtype}: make room for them with "
                    "zeros_like, or with dtype=x.dtype")


def must_agree(attempt: Callable, right: Callable, cases: Iterable[tuple], hint: str, taught: str = "") -> None:
    """Refuse an attempt that errs in one of many cases, each a tuple of arguments; with `taught` also for its gradient."""
    for case in cases:
        answer, wanted = attempt(*copies(case)), right(*copies(case))
        pairs = list(zip(answer, wanted)) if isinstance(wanted, tuple) else [(answer, wanted)]
        if any(part is None or not same(torch.as_tensor(part), torch.as_tensor(wanted)) for part, wanted in pairs):
            shown = [a if isinstance(a, int) else tuple(a.shape) if a.is_floating_point() else a.tolist()
                     for a in case if isinstance(a, Tensor | int)]
            raise Wrong(f"wrong for {' and '.join(map(str, shown))}: {hint}")
        for part, exact in pairs:
            must_have_dtype(part, exact)
        if taught and not all(map(same, gradients(attempt, case), gradients(right, case))):
            raise Wrong(f"the numbers are right, but the gradient does not come through (detach, no_grad, item, torch.tensor "
                        f"of a list?): {taught}")


def gradients(function: Callable, case: tuple) -> list[Tensor]:
    """Of the sum of the answer's squares, for each float argument; nothing where there is no way back from numbers."""
    inputs = [a.requires_grad_(a.is_floating_point()) if isinstance(a, Tensor) else a for a in copies(case)]
    output = function(*copies(inputs))
    if output.requires_grad:
        output.square().sum().backward()
    floats = [a for a in inputs if isinstance(a, Tensor) and a.is_floating_point()]
    return [a.detach() if not a.numel() else torch.empty(0) if a.grad is None else a.grad for a in floats]


def traced(function: Callable, layer: MoE, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Output, logits and gates of a forward; and the gradients of the output's squares, of x and of every parameter."""
    x = x.clone().requires_grad_()
    y, routing = function(layer, x)
    sources = [x, *layer.parameters()]
    back = torch.autograd.grad(y.square().sum(), sources, materialize_grads=True) if y.requires_grad else []
    return [y, routing.logits, routing.gates], list(back)


def must_hold_ids(routing: Routing) -> None:
    """Refuse a Routing whose ids are no whole numbers."""
    if routing.expert_ids.is_floating_point():
        raise Wrong("ids and weights have changed places: Routing(logits, ids, weights)")


def wrong_layer(attempt: Callable, layers: Sequence[MoE], slips_of: Callable[[MoE, Tensor], dict[str, Tensor]],
                hint: str) -> str | None:
    """What is wrong with a forward (layer, x [T, D]) -> y [T, D], Routing, tried on several layers.

    Args:
        slips_of: (layer, x) -> by what to say of it, the output that a known mistake gives.
        hint: what y is.

    Raises:
        Wrong: in the same words, for what only some of the layers show.
    """
    layer, x = layers[0], drawn(7, layers[0].router.width)
    y, routing = called_pair(attempt, "the output and the routing", layer, x)
    if isinstance(y, Routing):
        return "the two have changed places: first the output, then the routing"
    must_have_shape(must_be_tensor(y), *x.shape, part="the output")
    if not isinstance(routing, Routing):
        return "the second thing you return is no Routing: Routing(logits, ids, weights) says who was chosen and how much"
    must_hold_ids(routing)
    right_y, right = layer(x)
    slips = slips_of(layer, x) | {"you added x: the residual stream belongs to the block around the layer": right_y + x}
    if slip := known_slip(y, slips):
        return slip
    must_have_dtype(y, x)
    if same(y, right_y) and not same(routing.gates, right.gates):
        return "the output is right, and the routing says something else: its weights are those that the experts were given"
    if same(y, right_y) and not same(routing.logits, right.logits):
        return "the routing wants the logits, before the softmax: the balance loss takes its own softmax of them"
    for each, (tokens,) in zip(layers, [[7], *sizes(1)]):
        (found, taught), (wanted, teaches) = (
            traced(function, each, drawn(tokens, each.router.width)) for function in (attempt, MoE.forward))
        if not all(map(same, found, wanted)):
            raise Wrong(f"wrong for {tokens} tokens and {each.router.top_k} of {each.router.num_experts} experts: {hint}")
        if len(taught) < len(teaches) or not all(map(same, taught, teaches)):
            raise Wrong("the numbers are right, but the gradient does not come through (detach, no_grad, torch.tensor of a "
                        "list?): nothing would learn")
    if not routing.logits.requires_grad:
        return "all is right but for the routing's logits: they are detached, and lesson 03's balance loss would push nobody"
    return None


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64, the same at every call: a check must say the same twice."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sizes(letters: int, cases: int = 20) -> list[list[int]]:
    """For every case a size from 1 to 6 for each letter, all 1 in the last; the same at every call."""
    return [*torch.randint(1, 7, (cases, letters), generator=torch.Generator().manual_seed(0)).tolist(), [1] * letters]


def same(answer: Tensor, wanted: Tensor) -> bool:
    """Equal in shape and, up to rounding, in value."""
    return answer.shape == wanted.shape and torch.allclose(answer.double(), wanted.double(), rtol=1e-5, atol=1e-6)


def known_slip(answer: Tensor, slips: dict[str, Tensor]) -> str | None:
    """The hint of the first known mistake that gives just this answer."""
    return next((hint for hint, wrong in slips.items() if same(answer, wrong)), None)
