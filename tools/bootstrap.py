"""Make the course importable where it is not installed, and reinstall nothing. It is run by the first cell of a lesson.

It lies in the bundle as __main__.py, and in a clone of the repository as this file. The course is used from a folder on
sys.path and not installed with pip: so its data is found beside it, and no version of torch or NumPy can be touched.
"""

import base64
import importlib.util
import os
import pathlib
import subprocess
import sys
import zipfile

NEEDED = ("torch", "numpy", "safetensors", "scipy", "tqdm", "ipywidgets", "anywidget", "matplotlib", "seaborn", "pandas",
          "jinja2", "transformers", "accelerate", "charset_normalizer", "filelock")
# Installed where they are missing, since they are small; with what they need, for pip is told to fetch nothing else.
SMALL = {"safetensors": ["safetensors"], "anywidget": ["anywidget", "psygnal"], "charset_normalizer": ["charset-normalizer"],
         "accelerate": ["accelerate", "psutil"]}


def course_folder(here: pathlib.Path) -> pathlib.Path:
    """The folder with moe_lesson/ and data/ in it. `here` is what holds this program: the bundle, or the clone's tools/."""
    if not zipfile.is_zipfile(here):
        return here.parent
    folder = here.with_suffix("")
    with zipfile.ZipFile(here) as bundle:
        names = bundle.namelist()
        # The lessons stay in the bundle: a learner may be writing in a copy of one.
        bundle.extractall(folder, [name for name in names if name.startswith("data/")])
        (wheel,) = (name for name in names if name.endswith(".whl"))
        with bundle.open(wheel) as packed, zipfile.ZipFile(packed) as package:
            package.extractall(folder)
    return folder


def show_film(here: pathlib.Path, lesson: str) -> None:
    """Show the picture at the head of a lesson. An uploaded notebook has no folder of pictures beside it, so that its head shows
    a sentence in place of the picture; here it comes out of the bundle. One that was opened from GitHub has it already."""
    from IPython.display import HTML, display

    with zipfile.ZipFile(here) as bundle:
        film = base64.b64encode(bundle.read(f"notebooks/pictures/{lesson}.svg")).decode()
    display(HTML(f'<img src="data:image/svg+xml;base64,{film}" alt="" style="max-width: 100%">'))


def missing() -> list[str]:
    """The packages that the lessons need and that are not here."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def provide_packages() -> None:
    """Install the small packages that are missing, alone.

    Raises:
        ImportError: if something is still missing.
    """
    if small := [package for name in missing() for package in SMALL.get(name, [])]:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *small])
        importlib.invalidate_caches()
    if left := missing():
        raise ImportError(f"The course needs {', '.join(left)}, which this machine lacks: run %pip install {' '.join(left)} "
                          "in a cell of its own, then this cell again.")


def main(lesson: str | None = None) -> None:
    """`lesson` is the number of the one that asks, if it says so."""
    provide_packages()
    here = pathlib.Path(__file__).resolve().parent
    folder = course_folder(here)
    sys.path.insert(0, str(folder))
    # For programs that a cell starts, such as !python -m moe_lesson.experiments.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    importlib.invalidate_caches()
    print(f"The course is in the folder {folder.name}, with its models and results.")
    if lesson and zipfile.is_zipfile(here):
        show_film(here, lesson)


if __name__ == "__main__":
    main(globals().get("lesson"))
