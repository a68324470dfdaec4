"""How Sphinx makes pages of the lessons; tools/site_build.py copies this beside them and calls it. Nothing is fetched."""

import colab  # of tools/, where the builder is
from docutils import nodes
from latex2mathml.converter import convert

project = html_title = "moe_lesson"
extensions = ["myst_nb"]
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # live.js is the host of the widgets
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_heading_slug_func = "site_build.anchor"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("live.js", {"type": "module", "async": "async"})]  # it does not wait for the theme's icons, a megabyte
html_use_index = False
html_sourcelink_suffix = ""  # so that the theme's download is a lesson.ipynb
html_math_renderer = "mathml"
html_theme = "sphinx_book_theme"
html_context = {"default_mode": "auto"}
html_favicon = "_static/favicon.svg"
html_theme_options = {
    "path_to_docs": "",
    "navbar_persistent": [],  # the search stands in the side bar
    "use_fullscreen_button": False,
    "home_page_in_toc": False,
    "logo": {"text": "moe_lesson"},
    "footer_content_items": ["extra-footer.html"],
    "extra_footer": "moe_lesson · Apache License 2.0 · What you write and guess here stays in your browser.",
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
if address := colab.address():
    html_theme_options |= {
        "repository_url": address, "repository_branch": "main", "use_repository_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com"}}


def drawn(display: str) -> tuple:
    """How a formula becomes MathML, which browsers draw themselves: neither script nor fonts are needed."""
    frame = '<div class="moe-formula" tabindex="0">{}</div>' if display == "block" else "{}"  # which can scroll: a formula can't

    def visit(translator, node):
        translator.body.append(frame.format(convert(node.astext(), display=display)))
        raise nodes.SkipNode
    return visit, None


def setup(app) -> None:
    app.add_html_math_renderer("mathml", drawn("inline"), drawn("block"))
