"""One token's way: the numbers of every station, how it is played, and what it refuses."""

import base64

import pytest
import torch
from token_way.cases import mixed, model_of, way_of
from traitlets import TraitError
from widget_harness import picture, put, status, write

from moe_lesson import LanguageModel
from moe_lesson.base.tokens import encode, token_texts
from moe_lesson.lm.checkpoints import shipped_model
from moe_lesson.lm.model import listening
from moe_lesson.moe.dispatch import ffn
from moe_lesson.moe.layers import SCORES, moe_layers
from moe_lesson.widgets import TokenWay
from moe_lesson.widgets.kit.weights import weights_of

TEXT = "Each token is sent to its experts"


@torch.no_grad()
def stations_of(model: LanguageModel, text: str, layer: int, token: int) -> dict[str, list[float]]:
    """What PyTorch computes at every station, as flat lists."""
    ids = torch.tensor([encode(text.encode(), model.config.vocabulary)])
    block = [one for one in model.blocks if one.ffn in moe_layers(model)][layer]
    with listening([block.ffn_norm, block.ffn]) as heard:
        model(ids)
    before, x = (part.flatten(0, -2)[token] for part in heard)
    moe, routing = block.ffn, block.ffn.router(x[None])
    chosen = routing.expert_ids[0]
    answers = [ffn(x, moe.experts.w_in[n], moe.experts.w_out[n]) for n in chosen]
    shared = moe.shared(x) if moe.shared is not None else torch.zeros(0)
    return {name: part.double().flatten().tolist() for name, part in {
        "x": x, "logits": routing.logits, "scores": SCORES[moe.router.score](routing.logits), "ids": chosen,
        "weights": routing.weights, "answers": torch.stack(answers), "shared": shared,
        "routed": routing.weights[0] @ torch.stack(answers), "before": before, "after": before + moe(x[None])[0][0]}.items()}


def test_every_station_has_the_numbers_of_the_package(node):
    models = {name: shipped_model(f"ladder-{name}")[0] for name in ("deepseekmoe", "gshard")} | {"mixed": mixed()}
    cases = [(name, layer, token) for name, model in models.items() for layer in range(len(moe_layers(model)))
             for token in (0, 7)]
    vectors = [{"name": f"{name}, layer {layer}, token {token}", "text": TEXT, "layer": layer, "token": token,
                "file": base64.b64encode(weights_of(models[name]).data).decode(),
                "stations": stations_of(models[name], TEXT, layer, token)} for name, layer, token in cases]
    assert f"pass {len(cases)}" in node("token_way/token_way.test.mjs", vectors)


def test_the_sum_of_a_way_is_what_the_layer_adds():
    found = stations_of(mixed(), TEXT, 0, 5)  # the harness itself: before + routed + shared = after
    before, routed, shared, after = (torch.tensor(found[name]) for name in ("before", "routed", "shared", "after"))
    assert torch.allclose(before + routed + shared, after, atol=1e-5) and len(found["ids"]) == 3


# --- what it says and how it moves -------------------------------------------------------------------------------------


def test_each_station_is_told_with_its_numbers(show):
    model = shipped_model("ladder-deepseekmoe")[0]
    page, found = show(TokenWay(model, TEXT, 7)), stations_of(model, TEXT, 0, 7)
    said = []
    for station in range(8):
        said.append(put(page, station=station))
        assert said[-1].startswith(f"Token 7 '{token_texts(encode(TEXT))[7]}', layer 1 of 2, station {station + 1} of 8. ")
    ids, held = [int(n) for n in found["ids"]], sum(found["scores"][int(n)] for n in found["ids"])
    lengths = torch.tensor(found["answers"]).reshape(6, 64).norm(dim=1)
    expected = (
        f"vector of 64 numbers, normalised: {found['x'][0]:.2f}, ",
        f"from {min(found['logits']):.2f} to {max(found['logits']):.2f}",
        f"largest is {max(found['scores']):.3f}; if all were equal, each would be {1 / 62:.3f}",
        f"{', '.join(map(str, ids))}. Together they have {held:.2f}",
        f"divided by {held:.2f}, so that they sum to 1, times 0.0625: {ids[0]} ({found['weights'][0]:.3f})",
        f"length {ids[0]} ({lengths[0]:.1f})", f"length {torch.tensor(found['routed']).norm():.1f}",
        f"now has {torch.tensor(found['after']).norm():.1f}")
    for words, part in zip(said, expected, strict=True):
        assert part in words, (part, words)


def test_a_short_way_has_five_stations_and_leaves_out_no_sentence(show):
    short, whole = show(way_of(short=True)), show(way_of())
    def told(page, stations):
        words = []
        for station in range(stations):
            words.append(put(page, station=station).split(". ", 1)[1])
        return " ".join(words)
    assert told(short, 5) == told(whole, 8)
    heights = [page.locator(".moe-way canvas").bounding_box()["height"] for page in (short, whole)]
    assert heights[0] < heights[1] - 40  # no row of logits


def test_a_router_with_bias_raw_scores_and_scale_is_told_so(show):
    page = show(TokenWay(mixed(), TEXT, 3, origin="toy"))
    said = []
    for station in (2, 3, 4, 5):
        said.append(put(page, station=station))
    assert "layer 1 of 1" in said[0] and "A sigmoid makes a score" in said[0] and "(by score plus bias)" in said[1]
    assert "scores of the chosen, times 2.5:" in said[2] and "and so does 1 shared expert" in said[3]


def test_playing_goes_station_by_station_can_be_paused_and_python_hears_where(show_timed):
    page = show_timed(way_of())
    page.get_by_role("button", name="Play").click()
    page.clock.run_for(100)
    assert "station 1 of 8" in page.locator(".moe-status").inner_text()
    page.clock.run_for(4000)
    assert "station 2 of 8" in page.locator(".moe-status").inner_text() and page.evaluate("model.saved") == []
    page.get_by_role("button", name="Pause").click()
    page.clock.run_for(9000)
    assert "station 2 of 8" in page.locator(".moe-status").inner_text()
    assert page.evaluate("model.saved") == [{"station": 1}]
    page.get_by_role("button", name="Play").click()
    page.clock.run_for(7 * 4000)
    assert "station 8 of 8" in page.locator(".moe-status").inner_text() and page.get_by_role("button", name="Play").count() == 1


def test_the_picture_grows_between_stations_unless_motion_is_reduced(show_timed):
    for motion, pictures in (("no-preference", 3), ("reduce", 2)):
        page = show_timed(way_of(), reduced_motion=motion)
        seen = []
        page.evaluate("model.receive({ station: 2 })")
        page.clock.run_for(3000)
        grab = "document.querySelector('.moe-way canvas').toDataURL()"
        seen.append(page.evaluate(grab))
        page.evaluate("model.receive({ station: 3 })")
        for wait in (500, 3000):
            page.clock.run_for(wait)
            seen.append(page.evaluate(grab))
        assert len(set(seen)) == pictures, motion


def test_next_goes_round_a_click_on_a_row_goes_there_and_a_token_is_always_looked_at(show):
    way = way_of()
    page = show(way, live=True)
    page.get_by_role("button", name="Next").click()
    assert "station 1 of 8" in status(page) and way.station == 0
    box = page.locator(".moe-way canvas").bounding_box()
    page.mouse.click(box["x"] + 30, box["y"] + 2 + 16 + 8 + 24)
    assert "station 2 of 8" in status(page) and way.station == 1
    page.mouse.click(box["x"] + 30, box["y"] + box["height"] - 1)
    assert "station 8 of 8" in status(page)
    before = picture(page)
    page.locator(".moe-token").nth(9).click()
    page.mouse.move(2, 2)
    assert status(page).startswith("Token 9 'l'") and way.locked_token == 9 and picture(page) != before
    page.locator(".moe-token").nth(9).press("Escape")
    assert status(page).startswith("Token 9 'l'")


def test_another_text_is_followed_by_the_model_in_the_page(show):
    way = way_of(token=9)
    page = show(way, live=True)
    write(page, "Your text", "sea")
    page.wait_for_function("document.querySelectorAll('.moe-token').length === 3")
    assert status(page).startswith("Token 2 'a'") and way.text == "sea"
    found = stations_of(model_of(), "sea", 0, 2)
    assert f"chosen: {', '.join(str(int(n)) for n in found['ids'])}." in put(page, station=3)
    write(page, "Your text", "")
    page.wait_for_function("document.querySelector('.moe-status').textContent.includes('empty')")


LONG = "one two three four five six seven eight nine ten " * 4


def test_keys_scroll_the_strip_to_the_token_and_not_the_page(show):
    page = show(way_of(LONG, short=True), viewport={"width": 400, "height": 720})
    for key, least, most in (("End", 1, 9999), ("Home", 0, 4)):
        page.locator(".moe-token[tabindex='0']").press(key)
        seen = page.evaluate("""() => { const strip = document.querySelector(".moe-strip"), [box, token] = [strip,
          document.activeElement].map((node) => node.getBoundingClientRect());
          return [token.top >= box.top && token.bottom <= box.bottom, strip.scrollTop, scrollY]; }""")
        assert seen[0] and least <= seen[1] <= most and seen[2] == 0, (key, seen)


def test_a_word_that_a_keyboard_composes_is_read_without_an_end(show):
    page = show(way_of(), live=True)
    page.get_by_label("Your text").evaluate("""(field) => { field.value = "sea";
      field.dispatchEvent(new InputEvent("input", { bubbles: true, isComposing: true })); }""")
    page.wait_for_function("document.querySelectorAll('.moe-token').length === 3")
    assert page.get_by_label("Your text").input_value() == "sea"


def test_a_text_that_the_model_cannot_read_is_refused():
    way = way_of()
    with pytest.raises(TraitError, match="text has 300 tokens; give the model one of at most 240"):
        way.text = "a" * 300
    assert way.text == "hello world"


def test_it_opens_at_the_end_with_everything_drawn():
    whole, short = way_of(), way_of(short=True)
    assert (whole.station, short.station) == (7, 4) and whole.locked_token == 4
    assert repr(short) == "TokenWay('a way', toy)"


# --- what it refuses ---------------------------------------------------------------------------------------------------


def test_a_token_that_the_text_has_not_is_refused():
    for text, token, says in (("abc", 3, "this text has 3 tokens"), ("abc", -1, "expected a whole number"),
                              ("", 0, "the text is empty")):
        with pytest.raises(ValueError, match=says):
            way_of(text, token)
    diverged = model_of()
    torch.nn.init.constant_(diverged.embedding.weight, torch.nan)
    with pytest.raises(ValueError, match=r"routings\[0\].logits hold NaN or infinity; look for a diverged training"):
        TokenWay(diverged, "abc")
