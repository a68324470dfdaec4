"""The roofline: its numbers are those that can be worked out by hand, and the stages' work is what PyTorch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from moe_lesson import DenseFFN, MoE
from moe_lesson.measure import roofline
from moe_lesson.measure.roofline import (
    DEVICES,
    Device,
    dense_stages,
    kept_for_backward,
    least_rows,
    measured_device,
    moe_stages,
    seconds,
)
from moe_lesson.moe.dispatch import at_once


def intensity(rows, columns_in, columns_out):
    """FLOPs per byte of the product [rows, in] × [in, out] of 16-bit numbers."""
    flops, numbers = 2 * rows * columns_in * columns_out, rows * columns_in + columns_in * columns_out + rows * columns_out
    return flops / (2 * numbers)


@pytest.mark.parametrize("device, columns_in, columns_out, rows", [
    ("H100 SXM", 2048, 2 * 1408, 393), ("H100 SXM", 1408, 2048, 457), ("H200", 2048, 2 * 1408, 249), ("H200", 512, 1024, 520)])
def test_the_least_rows_are_those_where_the_intensity_meets_the_ridge(device, columns_in, columns_out, rows):
    found = least_rows(columns_in, columns_out, DEVICES[device])
    assert round(found) == rows
    assert intensity(found, columns_in, columns_out) == pytest.approx(DEVICES[device].ridge)


def test_narrow_experts_never_keep_the_device_busy_however_many_tokens_come():
    device = DEVICES["H100 SXM"]
    assert least_rows(256, 2048, device) == float("inf")
    assert intensity(10 ** 9, 256, 2048) < device.ridge


def test_the_stages_do_the_work_that_pytorch_counts():
    moe, x = MoE(16, 8, 2, 12), torch.randn(64, 16)
    with FlopCounterMode(display=False) as counter:
        moe(x)
    assert sum(stage.flops for stage in moe_stages(64, 8, 2, 16, 12)) == counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        DenseFFN(16, 24)(x)
    assert sum(stage.flops for stage in dense_stages(64, 16, 24)) == counter.get_total_flops()


def test_fusing_moves_fewer_numbers_does_the_same_work_and_keeps_less():
    sizes = dict(tokens=4096, num_experts=64, top_k=6, width=1024, expert_width=512)
    fused, unfused = moe_stages(**sizes, fused=True), moe_stages(**sizes)
    assert sum(stage.flops for stage in fused) == sum(stage.flops for stage in unfused)
    assert 2 * sum(stage.numbers for stage in fused) < sum(stage.numbers for stage in unfused) * 1.5
    assert kept_for_backward(4096, 6, 1024, 512, fused=True) < kept_for_backward(4096, 6, 1024, 512) / 2


def test_what_is_kept_is_what_pytorch_keeps():
    layer, x, kept = MoE(64, 8, 2, 32), torch.randn(256, 64, requires_grad=True), {}

    def look(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    routing = layer.router(x)
    with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
        at_once(x, routing, layer.experts.w_in, layer.experts.w_out)
    for parameter in layer.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    assert sum(kept.values()) == pytest.approx(kept_for_backward(256, 2, 64, 32, bytes_each=4), rel=0.04)  # and the routing


def test_what_decides_is_the_width_of_the_experts_and_not_the_number_of_tokens():
    def ratio(tokens: int, expert_width: int) -> float:
        device = DEVICES["H100 SXM"]
        return (seconds(moe_stages(tokens, 64, 6, 2048, expert_width), device)
                / seconds(dense_stages(tokens, 2048, 6 * expert_width), device))

    assert abs(ratio(65_536, 512) - ratio(1_048_576, 512)) < 0.1
    assert ratio(65_536, 256) > ratio(65_536, 512) > ratio(65_536, 1408) + 0.3


def test_a_stage_takes_as_long_as_the_slower_of_work_and_traffic():
    stage = dense_stages(8, 4, 4)[0]
    assert stage.seconds(Device("slow memory", 1e30, 1.0, bytes_each=4)) == 4 * stage.numbers
    assert stage.seconds(Device("slow units", 1.0, 1e30)) == stage.flops


def test_this_machine_is_measured(monkeypatch):
    monkeypatch.setattr(roofline, "pick_device", lambda wish: "cpu")
    monkeypatch.setattr(roofline, "median_seconds", lambda action, device: action() is None or 0.5)
    device = measured_device()
    assert (device.flops, device.bandwidth, device.bytes_each) == (4 * 1024 ** 3, 4 * 4 * 2 ** 26, 4) and "CPU" in device.name


def test_an_impossible_layer_is_refused():
    with pytest.raises(ValueError, match="top_k is 9, but there are 8 experts"):
        moe_stages(16, 8, 9, 16, 16)
