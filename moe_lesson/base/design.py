"""How the course looks, in figures and in widgets: what widgets/kit/design.js says, without the widgets."""

import json
import pathlib

SOURCE = (pathlib.Path(__file__).parents[1] / "widgets" / "kit" / "design.js").read_text(encoding="utf-8")
DESIGN = json.loads(SOURCE[SOURCE.index("{"):SOURCE.index("};") + 1])
