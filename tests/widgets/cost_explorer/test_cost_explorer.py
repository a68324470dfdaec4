"""The cost explorer: what it refuses, that it counts as the package does, and by meaning what it shows.

test_every_widget_browser.py asks the rest. What is measured here is made up; cases.py makes it.
"""

import itertools
import math
import re

import pytest
import torch
from cost_explorer.cases import H100 as CARD
from cost_explorer.cases import ROW, SLOW, explorer_of, table_of
from widget_harness import made, put, status

from moe_lesson.measure.evidence import Table, result_table, write_table
from moe_lesson.measure.roofline import DEVICES, Device, Stage, dense_stages, moe_stages, seconds
from moe_lesson.moe.layers import choose
from moe_lesson.moe.parallel import bytes_per_token, devices_visited
from moe_lesson.moe.zoo import device_limited
from moe_lesson.widgets import CostExplorer
from moe_lesson.widgets.cost_explorer.data import CHOICES, LINKS, MINE, START

SIZES = ("tokens", "num_experts", "top_k", "width", "expert_width", "num_shared")
H100 = DEVICES["H100 SXM"]

# --- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, words", [
    ({"machine": "my laptop"}, r"machine is 'my laptop'; give it what measured_device\(\) returns"),
    ({"measured": [Table([{"pass": "forward", "ratio": 1.5}], {})]},
     "a measured table has no expert_width, experts, implementation, tokens, top_k, width; give it one of tools/bench")])
def test_what_can_not_be_is_refused_with_value_and_remedy(arguments, words):
    with pytest.raises(ValueError, match=words):
        CostExplorer(**arguments)


def test_it_starts_at_values_that_its_sliders_have():
    assert all(START[name] in values for name, values in CHOICES.items())


# --- what was measured -------------------------------------------------------------------------------------------------


def test_it_opens_on_the_layer_of_the_course_s_table_on_a_reader_s_processor_with_the_measured_ratio():
    table = result_table("layer-speed-cpu")
    explorer = CostExplorer.of_tables(Device("CPU of a reader", 1e11, 1e10, bytes_each=4))
    opened = {"device": MINE, "tokens": 4096, "width": 256, "num_experts": 64, "top_k": 8, "expert_width": 128, "num_shared": 1}
    assert {name: getattr(explorer, name) for name in opened} == opened and explorer.start.items() >= opened.items()
    ratio, = table.column("ratio", tokens=4096, experts=64, implementation="grouped", **{"pass": "forward"})
    at, = ({"way": point["way"], "ratio": point["ratio"], "machine": point["machine"], "date": point["date"]}
           for point in explorer.measured if point.items() >= opened.items() and point["way"] == "grouped")
    assert at == {"way": "grouped", "ratio": ratio, "machine": table.provenance["device"], "date": table.provenance["date"]}


def test_a_table_of_a_processor_says_nothing_of_a_gpu_and_none_of_another_card(tmp_path):
    gpu, cards = Device("NVIDIA L4", 1e14, 3e11), ("NVIDIA L4", CARD, "NVIDIA H100 PCIe", "CPU x86_64")
    tables = [table_of(card, {"ratio": 1 + i}) for i, card in enumerate(cards)]
    cpu, card = Device("CPU of a reader", 1e11, 1e10, bytes_each=4), ("H100 SXM", 2)
    for machine, found in ((gpu, [(MINE, 1), card]), (cpu, [card, (MINE, 4)]), (SLOW, [card]), (None, [card])):
        points = CostExplorer(machine=machine, measured=tables).measured
        assert [(point["device"], point["ratio"]) for point in points] == found
    assert CostExplorer.of_tables(gpu, tmp_path).measured == [] and CostExplorer.of_tables(gpu, tmp_path).device == "H100 SXM"
    write_table(tmp_path, "layer-speed-cuda", tables[0].rows, tables[0].provenance)
    explorer = CostExplorer.of_tables(gpu, tmp_path)
    assert [point["ratio"] for point in explorer.measured] == [1] and (explorer.device, explorer.expert_width) == (MINE, 1408)


def test_what_the_model_does_not_bound_or_no_slider_reaches_is_no_point():
    others = ({"implementation": "loop"}, {"implementation": "one_hot"}, {"pass": "forward + backward"}, {"width": 300},
              {"expert_width": 8}, {"shared": 3}, {"tokens": 4096})
    points = CostExplorer(measured=[table_of(CARD, *others, {})]).measured
    assert [(point["tokens"], point["ratio"]) for point in points] == [(65_536, 1.9), (4096, 1.9)], "the largest first"
    old = Table([{name: value for name, value in ROW.items() if name != "shared"}], table_of(CARD).provenance)
    assert CostExplorer(measured=[old]).num_shared == 1, "before the tables said so, one expert was shared"


# --- arithmetic in the browser ----------------------------------------------------------------------------------------


def stage_of(stage: Stage, device: Device) -> dict:
    took = stage.seconds(device)
    return {"name": stage.name, "flops": stage.flops, "numbers": stage.numbers, "seconds": took,
            "waits": stage.flops / device.flops < took}


def least_by_search(name: str, sizes: dict, device: Device) -> float | None:
    """With how many rows of one expert its product takes as long to multiply as to move; None where that many are not enough."""
    def busy(rows: float) -> bool:
        stages = moe_stages(rows, 1, 1, sizes["width"], sizes["expert_width"], sizes["fused"])
        stage, = (one for one in stages if one.name == name)
        return stage.flops / device.flops >= stage.seconds(device)

    low, high = 0.0, 1e9
    if not busy(high):
        return None
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if busy(middle) else (middle, high)
    return high


def layers() -> list[dict]:
    """Every end of every slider, fused and unfused, on each device and on a machine whose numbers have four bytes."""
    first = {name: START[name] for name in SIZES}
    some = [first, first | {"expert_width": 1408}, first | {"num_shared": 1},
            *({**first, name: CHOICES[name][end]} for name in SIZES for end in (0, -1)),
            *({name: CHOICES[name][end] for name in SIZES} for end in (0, -1))]
    some = [sizes | {"top_k": min(sizes["top_k"], sizes["num_experts"]), "fused": fused}
            for sizes in some for fused in (False, True)]
    traits = explorer_of().devices
    return [layer_of(sizes, device) | {"device": traits[name]}
            for sizes in some for name, device in {**DEVICES, MINE: SLOW}.items()]


def stages_of(num_shared: int, *, tokens: int, width: int, expert_width: int, top_k: int,
              **more) -> tuple[list[Stage], list[Stage]]:
    """The mixture and the dense FFN of equal FLOPs. The shared experts are a dense FFN, and its output is added."""
    moe = moe_stages(tokens=tokens, width=width, expert_width=expert_width, top_k=top_k, **more)
    if num_shared:
        shared = [*dense_stages(tokens, width, num_shared * expert_width), Stage("sum", 0, 3 * tokens * width)]
        moe += [Stage(f"shared {stage.name}", stage.flops, stage.numbers) for stage in shared]
    return moe, dense_stages(tokens, width, (top_k + num_shared) * expert_width)


def layer_of(sizes: dict, device: Device) -> dict:
    moe, dense = stages_of(**sizes)
    return {"sizes": sizes, "moe": [stage_of(stage, device) for stage in moe],
            "dense": [stage_of(stage, device) for stage in dense], "ratio": seconds(moe, device) / seconds(dense, device),
            "least": [least_by_search(product, sizes, device) for product in ("up", "down")]}


def reached() -> list[dict]:
    """Over all choices, over all orders of the experts under DeepSeek-V2's limit, and by the formula without one."""
    found = {}
    for N, K, P in ((8, 3, 2), (8, 5, 4), (8, 1, 8), (8, 8, 4), (16, 4, 4)):
        every = torch.tensor(list(itertools.combinations(range(N), K)))
        found[N, K, P, P] = devices_visited(every, N, P).double().mean().item()
    orders = torch.tensor(list(itertools.permutations(range(8)))).double()
    for K, P, M in ((3, 4, 2), (4, 4, 2), (4, 4, 3), (5, 8, 5), (4, 2, 1)):
        ids, _ = choose(orders, K, closed_TN=device_limited(orders, P, M))
        found[8, K, P, M] = devices_visited(ids, 8, P).double().mean().item()
    for N, K, P in ((64, 6, 4), (256, 8, 8), (256, 16, 8), (128, 16, 2)):
        found[N, K, P, P] = (1 - math.comb(N - N // P, K) / math.comb(N, K)) * P
    return [{"sizes": sizes, "reached": value} for sizes, value in found.items()]


def steps() -> list[dict]:
    """Steps of 16 experts and K = 2, so that both of a token's are on one of P devices with a probability of 7/15 or 3/15."""
    alone, found = 0.003, []
    for P, imbalance, limit, link in itertools.product((2, 4), (1.0, 1.5), (1, 2, 8), LINKS.values()):
        sizes = {"tokens": 1024, "num_experts": 16, "top_k": 2, "width": 512, "num_devices": P, "imbalance": imbalance,
                 "limit": limit}
        copies = 2 - {2: 7 / 15, 4: 3 / 15}[P]
        sent = [bytes_per_token(2, P, 512) * each / 2 for each in (2, copies, 1 if limit == 1 else copies)]
        for routed in (alone, 0.002):  # of the rest, the shared experts, each device does as much
            busy = [(3 * alone / P, 1024 / P * each / link) for each in sent]  # forward, and twice that backward
            waits = [(imbalance - 1) * (3 * routed / P + send) for _, send in busy]
            found.append({"sizes": sizes, "seconds": {"seconds": alone, "routed": routed}, "link": link, "bytes": sent, "steps": [
                [compute, send, wait, compute + send + wait] for (compute, send), wait in zip(busy, waits)]})
    return found


def test_javascript_counts_what_python_does(node):
    vectors = {"layers": layers(), "reached": reached(), "steps": steps()}
    assert "pass 7" in node("cost_explorer/cost_explorer.test.mjs", vectors)


# --- what it shows: one device ----------------------------------------------------------------------------------------


def large(page) -> str:
    return page.locator(".moe-cost-large:visible").inner_text()


def bars(page, chart: int) -> list[dict]:
    """The rectangles of a chart in multiples of its axis' unit, in the order they were drawn."""
    status(page)
    chart = page.locator(".moe-chart").nth(chart)
    ticks = chart.locator(".moe-x .tick").evaluate_all(
        "(nodes) => nodes.map((node) => [Number(node.textContent), node.transform.baseVal[0].matrix.e])")
    (first, left), *_, (last, right) = ticks
    unit = (right - left) / (last - first)
    drawn = chart.locator("rect.moe-bar").evaluate_all(
        "(nodes) => nodes.map((node) => [node.x.baseVal.value, node.width.baseVal.value, node.getAttribute('fill')])")
    return [{"from": x / unit, "long": width / unit, "fill": fill} for x, width, fill in drawn]


def ratio_of(device: Device = H100, **change) -> float:
    moe, dense = stages_of(**{name: START[name] for name in (*SIZES, "fused")} | change)
    return seconds(moe, device) / seconds(dense, device)


def test_it_opens_on_three_times_the_time_at_equal_flops_and_says_what_decides(show):
    page = show(CostExplorer())
    assert status(page).replace("\u00a0", " ") == (
        "H100 SXM, unfused: at least 4.26 ms, 2.98 × the 1.43 ms of the dense FFN of equal FLOPs. In 65% of it no product runs. "
        "Up needs 1,057 rows an expert to keep the units busy and has 6,144: it does. Down would wait for memory with any number "
        "of rows: its matrices are too narrow.")
    assert large(page) == "2.98 × the time of the dense FFN, at equal FLOPs" and f"{ratio_of():.2f}" == "2.98"
    assert page.get_by_text("bounds of a model, not measured", exact=True).is_visible()
    assert page.get_by_text("Nothing was measured on this device at this T, D, N, K and Ks.", exact=True).is_visible()


def test_wider_experts_and_fusing_take_the_tax_away_and_more_tokens_do_not(show):
    page = show(CostExplorer())
    for state in ({"expert_width": 1408}, {"fused": True}, {"fused": False}, {"expert_width": 256, "tokens": 262_144},
                  {"tokens": 16_384}, {"num_experts": 256, "tokens": 256}, {"num_shared": 2}):
        put(page, **state)
        sizes = page.evaluate("(names) => Object.fromEntries(names.map((name) => [name, model.get(name)]))", [*SIZES, "fused"])
        assert large(page) == f"{float(f'{ratio_of(**sizes):.3g}'):g} × the time of the dense FFN, at equal FLOPs"
    assert ratio_of(tokens=262_144) == pytest.approx(ratio_of(tokens=16_384), rel=0.02)


def test_bars_are_as_long_as_their_stages_striped_where_they_wait_for_memory(show):
    page = show(CostExplorer())
    unit = seconds(dense_stages(65_536, 2048, 6 * 256), H100)
    dense, moe = dense_stages(65_536, 2048, 6 * 256), moe_stages(65_536, 64, 6, 2048, 256)
    drawn = bars(page, 0)
    assert len(drawn) == len(dense) + 2 * len(moe)
    for stages, place in ((dense, 0), (moe, 3), (moe, 10)):
        end = 0.0
        for stage, bar in zip(stages, drawn[place:]):
            long = stage.seconds(H100) / unit
            assert (bar["from"], bar["long"]) == (pytest.approx(end, abs=0.01), pytest.approx(long, abs=0.012))  # a pixel between
            assert bar["fill"].startswith("url(#moe-stripes-") is (stage.flops / H100.flops < stage.seconds(H100))
            end += long
    assert page.locator(f"pattern[id='{drawn[3]['fill'][5:-1]}']").count() == 1 and not re.search(r"\d", drawn[3]["fill"])


def test_what_is_fused_says_where_it_went_and_the_axis_stands_still(show):
    page = show(CostExplorer())
    assert ratio_of(expert_width=128) > 4 > ratio_of(expert_width=128, fused=True)
    put(page, expert_width=128)
    axis = page.locator(".moe-x").first.inner_html()
    said = put(page, fused=True)
    assert "H100 SXM, fused: at least" in said and page.get_by_text("within up", exact=True).count() == 3
    assert page.locator(".moe-x").first.inner_html() == axis
    assert "Below 1" not in said and "Below 1 ×: the dense FFN's activation is not fused." in put(page, expert_width=4096)
    put(page, fused=False, expert_width=64)
    assert page.get_by_text("× dense; the axis has grown × 4", exact=True).is_visible()


def test_few_rows_an_expert_make_products_wait_and_it_says_how_many_they_need(show):
    said = put(show(CostExplorer()), tokens=4096, expert_width=1408)
    assert "Up needs 393 rows an expert to keep the units busy and has 384: it waits for memory." in said
    assert "Down needs 457 rows an expert to keep the units busy and has 384: it waits for memory." in said


def test_more_active_experts_than_there_are_count_as_all_of_them(show):
    page = show(CostExplorer())
    put(page, num_experts=8, top_k=12)
    assert page.get_by_label("K, active experts", exact=True).get_attribute("aria-valuetext") == "K = 8 active, not 12"
    assert large(page).startswith(f"{ratio_of(num_experts=8, top_k=8):.3g} ×")


def test_this_machine_s_numbers_have_the_bytes_that_it_was_measured_with(show):
    page = show(CostExplorer(machine=SLOW))
    put(page, device=MINE)
    four, two = (Device("", SLOW.flops, SLOW.bandwidth * 2 / each) for each in (4, 2))
    assert large(page).startswith(f"{ratio_of(four):.3g} ×") and f"{ratio_of(four):.3g}" != f"{ratio_of(two):.3g}"


def circles(page) -> tuple[list, list[list]]:
    """Place and filling of the point that the sliders are at, and of those that were measured."""
    status(page)
    here, *measured = page.locator(".moe-chart").nth(1).locator("circle").evaluate_all(
        "(nodes) => nodes.map((node) => [node.cx.baseVal.value, node.cy.baseVal.value, node.getAttribute('fill')])")
    return here, measured


def test_measured_points_stand_at_their_ratio_on_the_curve_that_they_belong_to_and_are_told_from_it(show):
    page = show(explorer_of())
    put(page, device="H100 SXM", tokens=65_536, width=2048, top_k=6, num_shared=0)
    (x, y, fill), measured = circles(page)
    ticks = dict(page.locator(".moe-chart").nth(1).locator(".moe-y .tick").evaluate_all(
        "(nodes) => nodes.map((node) => [Number(node.textContent), node.transform.baseVal[0].matrix.f])"))
    end = max(ticks)
    heights = [ticks[0] + ratio * (ticks[end] - ticks[0]) / end for ratio in (ratio_of(expert_width=128), 1.9, 1.52, 1.2)]
    assert [y, *(one[1] for one in measured)] == pytest.approx(heights, abs=1)
    assert fill != "none" and [one[2] for one in measured] == ["none"] * 3 and len({x, *(one[0] for one in measured)}) == 2
    assert page.get_by_text(f"Circles: measured on {CARD}, 2026-01-02.", exact=True).is_visible()
    assert page.get_by_text("bounds of a model; circles: measured", exact=True).is_visible()
    assert page.locator(".moe-chart").nth(1).get_by_text("grouped 1.9 ×", exact=True).is_visible()
    assert "measured" not in status(page), "not at this H"
    assert "FLOPs; measured: grouped 1.9 ×, at_once 1.52 ×, fused 1.2 ×. In" in put(page, expert_width=1408)
    for change, number in (({"device": "H200"}, 1), ({"num_shared": 1}, 0), ({"num_shared": 0, "width": 1024}, 0)):
        put(page, **change)
        assert len(circles(page)[1]) == number
    assert page.get_by_text("Nothing was measured on this device at this T, D, N, K and Ks.", exact=True).is_visible()


def test_ways_that_are_nearly_as_fast_can_both_be_read(show):
    page = show(CostExplorer(measured=[table_of(CARD, {"ratio": 1.44}, {"implementation": "at_once", "ratio": 1.52})]))
    put(page, device="H100 SXM", tokens=65_536, width=2048, top_k=6, num_shared=0)
    status(page)
    upper, lower = (page.locator(".moe-chart").nth(1).get_by_text(words, exact=True).bounding_box()
                    for words in ("at_once 1.52 ×", "grouped 1.44 ×"))
    assert upper["y"] + 15 <= lower["y"], "one stands above the other"


def test_it_opens_on_a_measured_layer_with_its_shared_expert_and_says_where_it_was_measured(show):
    page = show(explorer_of())
    (x, y, _), ((at, high, _),) = circles(page)
    opened = {"tokens": 4096, "width": 256, "top_k": 8, "expert_width": 128, "num_shared": 1}
    model = f"{float(f'{ratio_of(SLOW, **opened):.3g}'):g}"
    assert large(page).startswith(f"{model} ×") and at == x and high < y
    said = status(page).replace("\u00a0", " ")
    assert said.startswith("This machine, unfused: at least") and "; measured: grouped 2.5 ×. In" in said
    assert page.get_by_text("Circles: measured on a slow one, 2026-01-02.", exact=True).is_visible()
    words = page.locator(".moe-chart").first.locator(".moe-word")
    assert "– shared" in words.all_text_contents() and "none" not in words.all_text_contents()
    put(page, num_shared=0)
    assert "none" in words.all_text_contents()


def test_a_measured_ratio_beyond_the_axis_makes_it_grow(show):
    page = show(CostExplorer(measured=[table_of(CARD, {"ratio": 5.0})]))
    assert page.get_by_text("× dense; the axis has grown × 4", exact=True).is_visible()


# --- what it shows: several devices -----------------------------------------------------------------------------------


def test_on_several_devices_it_says_what_is_sent_and_what_that_takes(show):
    page = show(made(CostExplorer(), view="several devices"))
    assert status(page).replace("\u00a0", " ") == (
        "4 devices with 16 experts each, NVLink. 6 rows a token, 73.7 kB: 7.35 ms, 1.74 × as fast as one device: 3.20 ms to "
        "compute, 2.68 ms to send, 1.47 ms until the fullest is done. A copy a device, 3.35 a token, 41.1 kB: 5.87 ms, 2.18 × as "
        "fast. At most 3, 2.93 a token, 36.0 kB: 5.63 ms, 2.27 × as fast.")
    assert f"{bytes_per_token(6, 4, 2048) / 1000:.1f}" == "73.7"
    assert large(page) == "4 devices: 1.74 × as fast as one, 2.27 × with fewer sends"


def test_the_bars_of_a_step_are_as_long_as_its_parts(show):
    page = show(made(CostExplorer(), view="several devices"))
    alone = 3 * seconds(moe_stages(65_536, 64, 6, 2048, 256), H100)
    send = 65_536 / 4 * bytes_per_token(6, 4, 2048) / 450e9
    lengths = [alone, 0, 0, alone / 4, send, 0.25 * (alone / 4 + send)]
    drawn = bars(page, 2)
    assert [bar["long"] for bar in drawn[:6]] == pytest.approx([one / alone for one in lengths], abs=0.005)
    assert [bar["from"] for bar in drawn[3:6]] == pytest.approx([0, 1 / 4, 1 / 4 + send / alone], abs=0.005)
    assert len(drawn) == 12 and drawn[4]["long"] > drawn[7]["long"] > drawn[10]["long"]


def test_a_slow_link_makes_several_devices_slower_than_one_and_balance_takes_the_waiting_away(show):
    page = show(made(CostExplorer(), view="several devices"))
    put(page, link="InfiniBand", num_devices=8)
    assert float(large(page).split()[2]) < 1 and page.get_by_text("× one device; the axis has grown × 4", exact=True).is_visible()
    assert "0.00 s until the fullest is done" in put(page, imbalance=1.0).replace("\u00a0", " ")


def test_a_limit_that_can_not_hold_a_tokens_experts_is_lifted_and_says_so(show):
    page = show(made(CostExplorer(), view="several devices"), live=True)
    slider = page.get_by_label("M, devices of a token at most", exact=True)
    assert slider.get_attribute("aria-valuetext") == "M = 3 at most"
    said = put(page, num_experts=8, num_devices=8)
    assert slider.get_attribute("aria-valuetext") == "M = 6 at most, not 3" and "At most 6, 6 a token" in said
    assert "8 devices with 1 expert each" in said
    put(page, num_experts=64, limit=8, num_devices=2)
    assert slider.get_attribute("aria-valuetext") == "M = 2 at most" and slider.input_value() == "2"


def test_controls_of_several_devices_stand_with_them_alone(show):
    page = show(CostExplorer(), live=True)
    assert not page.get_by_label("link").is_visible() and not page.get_by_label("imbalance of the devices").is_visible()
    page.get_by_label("several devices", exact=True).check()
    status(page)
    assert page.get_by_label("imbalance of the devices").is_visible() and page.get_by_label("T, tokens").is_visible()
    assert not page.get_by_text("× the time of the dense FFN, at equal FLOPs").is_visible()
