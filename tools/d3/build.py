"""Bundle the parts of d3 that the widgets use: python tools/d3/build.py [--check]

Out of the locked packages (package-lock.json) comes one ES module without imports, moe_lesson/widgets/kit/d3.js, with its
licences and its checksum beside it. Needs npm and its registry; with --check nothing is written.
"""

import argparse
import hashlib
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
KIT = HERE.parent.parent / "moe_lesson" / "widgets" / "kit"


def build() -> dict[str, bytes]:
    """What the files beside the kit must hold: their names and their bytes."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("package.json", "package-lock.json", "d3.js"):
            shutil.copy(HERE / name, folder)
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True)
        bundle = subprocess.run(
            ["npx", "esbuild", "d3.js", "--bundle", "--minify", "--format=iife", "--global-name=d3", "--target=es2020",
             "--legal-comments=none", "--log-level=error"], cwd=folder, check=True, capture_output=True).stdout
        licences = {}
        for path in sorted(pathlib.Path(folder, "node_modules").glob("*/LICENSE*")):
            if path.parent.name.startswith(("d3-", "internmap")):
                licences.setdefault(path.read_text().strip(), []).append(path.parent.name)
    module = bundle.rstrip() + b"\nexport { d3 };\n"
    words = "\n\n".join(f"{', '.join(names)}:\n\n{text}" for text, names in licences.items()) + "\n"
    return {"d3.js": module, "d3.LICENSE": words.encode(),
            "d3.sha256": f"{hashlib.sha256(module).hexdigest()}  d3.js\n".encode()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; say whether the files are what comes out")
    check = parser.parse_args().check
    made = build()
    if check:
        other = [name for name, content in made.items() if (KIT / name).read_bytes() != content]
        print(f"not what the lock file gives: {', '.join(other)}" if other else "as built")
        return 1 if other else 0
    for name, content in made.items():
        (KIT / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
