"""Learn the course's vocabulary from the machine corpus, and write it into the package: `python tools/learn_vocabulary.py`.

Trained models depend on it: whoever learns another one trains all of them again.
"""

import argparse
import json
import pathlib

from moe_lesson.base import tokens
from moe_lesson.lm.machine_text import machine_corpus

MERGES = 768


def main() -> None:
    """Learn from the train text of all domains and write merges.json."""
    documents = machine_corpus(splits=("train",)).documents
    merges = tokens.learn_merges(b"\0".join(document.text.encode() for document in documents), MERGES)
    (pathlib.Path(tokens.__file__).parent / "merges.json").write_text(json.dumps(merges, separators=(",", ":")) + "\n")
    print(" ".join(tokens.shown_bytes(one, [len(one)])[0] for one in tokens.token_bytes(merges)[tokens.BYTES:]))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # --help tells, and does nothing
    main()
