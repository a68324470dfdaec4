"""Fetched text: 16 domains from packages that pip fetches, the same bytes on every machine. Nothing is fetched unasked.

    python -m moe_lesson.lm.fetched_text                  # says what it would fetch, and asks
    python -m moe_lesson.lm.fetched_text --save FILE      # also one file, for a machine without network

`fetched_text.json` names the packages, by version and checksum, and what is taken from each. pip fetches them, so that an
index, a mirror, a proxy or a certificate that is set up for pip is used. All are wheels: of a source package pip would run
the setup, of a wheel nothing is run or unpacked. Fetched and cut once, the text of a domain must have the checksum that the
list gives it.
"""

import argparse
import contextlib
import gzip
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tqdm.auto import tqdm

from ..base.errors import require
from ..base.storage import checksum, home, whole
from ..base.text import to_bytes
from .corpora import SPLITS, Corpus, Document, asked_for, split_of
from .machine_text import SHARES
from .repeats import without_repeats
from .wheel_text import is_written, wheel_documents

LISTED = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
PACKAGES: list[dict[str, Any]] = LISTED["packages"]
DOMAINS: dict[str, dict[str, Any]] = LISTED["domains"]
COMMAND = "python -m moe_lesson.lm.fetched_text"
FETCHED_BYTES = 8_000_000  # per domain, all splits together
READ_BYTES = 11_000_000  # per domain, before repeats are left out

Place = pathlib.Path | zipfile.Path  # a folder, or a zip file that is read like one


def fetched_corpus(domains: Sequence[str] | None = None, splits: Sequence[str] = SPLITS, max_bytes: int = FETCHED_BYTES,
                   saved: str | pathlib.Path | None = None) -> Corpus:
    """Real text of programming languages and human ones, fetched before by `python -m moe_lesson.lm.fetched_text`.

    Args:
        domains: some of those in `DOMAINS`; all, if None.
        splits: read these alone.
        max_bytes: per domain, all splits together.
        saved: the file that the command wrote with --save, in place of what was fetched on this machine.

    Raises:
        ValueError: for an unknown domain or split, or if the text is not what the list of this version says.
        FileNotFoundError: if the text was not fetched, or if there is no such file.
    """
    domains, splits = asked_for("domain", domains, DOMAINS), asked_for("split", splits, SPLITS)
    require(max_bytes >= 10_000, f"max_bytes = {max_bytes}; expected at least 10,000 for each domain")
    with opened(saved) as place:
        return Corpus(tuple(document for domain in domains
                            for document in documents(prepared(domain, place), domain, splits, max_bytes)))


def here() -> pathlib.Path:
    """Where fetched text is kept."""
    return home() / "fetched_text"


@contextlib.contextmanager
def opened(saved: str | pathlib.Path | None) -> Iterator[Place]:
    """Where to read domains from: the file that --save wrote, or this machine's folder."""
    if saved is None:
        yield here()
        return
    if not pathlib.Path(saved).is_file():
        raise FileNotFoundError(f"there is no file {saved}; make it on a machine that has a network: {COMMAND} --save FILE")
    try:
        archive = zipfile.ZipFile(saved)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{saved} is damaged, or no file that --save wrote ({error}); copy or make it again") from error
    with archive:
        yield zipfile.Path(archive)


def prepared(domain: str, place: Place) -> bytes:
    """The text of a domain as it was prepared: a line of JSON for each document, in the order of a hash."""
    file = place / f"{domain}.jsonl.gz"
    if not file.is_file():
        raise FileNotFoundError(f"the text of {domain!r} is not in {place}; it is fetched by `{COMMAND} --domains {domain}`, "
                                "which says how much that is and asks. On a machine without network, read the file that "
                                "--save writes on another: fetched_corpus(saved=…)")
    try:
        lines = gzip.decompress(file.read_bytes())
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is damaged ({error}); make it again: {COMMAND} --domains {domain}") from error
    require(hashlib.sha256(lines).hexdigest() == DOMAINS[domain]["sha256"],
            f"{file} is not the text that this version of the course expects; make it again: {COMMAND} --domains {domain}")
    return lines


def documents(lines: bytes, domain: str, splits: Sequence[str], max_bytes: int) -> Iterator[Document]:
    """The documents of some splits, of each until its share of `max_bytes` is reached."""
    total = dict.fromkeys(splits, 0)
    for line in lines.splitlines():
        name, text = json.loads(line)
        split = split_of(f"{domain}/{name}")
        if split in total and total[split] < max_bytes * SHARES[split]:
            total[split] += len(to_bytes(text))
            yield Document(domain, name, text, split)


# --- fetching ----------------------------------------------------------------------------------------------------------


def fetch(package: dict[str, Any], folder: pathlib.Path) -> pathlib.Path:
    """The wheel of a package, fetched by pip into a folder unless it lies there whole.

    Raises:
        ConnectionError: if pip can't fetch it.
        ValueError: if what pip fetched is another file.
    """
    wheel = folder / package["file"]
    if wheel.is_file() and checksum(wheel) == package["sha256"]:
        return wheel
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        done = subprocess.run([sys.executable, "-m", "pip", "download", "--no-input", "--no-deps", "--only-binary=:all:",
                               "--ignore-requires-python", *tags(package["file"]), "--dest", fresh,
                               f"{package['name']}=={package['version']}"], capture_output=True, text=True, errors="replace")
        if not (got := pathlib.Path(fresh, package["file"])).is_file():
            raise ConnectionError(f"{package['file']} is fetched by pip, and pip could not: perhaps there is no network. What is "
                                  "whole is not fetched twice. For a machine without network, make a file on one that has it: "
                                  f"{COMMAND} --save FILE\npip said: {' '.join(done.stderr.splitlines()[-3:])}")
        found = checksum(got)
        require(found == package["sha256"], f"{package['file']} has the SHA-256 {found}, expected {package['sha256']}: the index "
                                            "or mirror has another file under this name. Nothing of it was kept")
        os.replace(got, wheel)
    return wheel


def tags(file: str) -> list[str]:
    """pip's options for just this wheel, whatever machine and Python it is fetched from."""
    python, abi, platforms = file.removesuffix(".whl").split("-")[-3:]
    interpreter, version = re.findall(r"([a-z]+)(\d+)", python)[-1]
    return ["--implementation", interpreter, "--python-version", version, "--abi", abi,
            *(option for platform in platforms.split(".") for option in ("--platform", platform))]


def prepare(domain: str, wheels: dict[str, pathlib.Path]) -> bytes:
    """The text of a domain, as `prepared` reads it again, from the wheels of its packages by their names."""
    sources = [(wheels[package["name"]], chosen) for package in PACKAGES for chosen in package["texts"]
               if chosen["domain"] == domain]
    read = list(up_to(READ_BYTES, wheel_documents(sources)))
    fresh = ((name, text) for name, text in without_repeats(read) if is_written(text))
    return "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in up_to(FETCHED_BYTES, fresh)).encode()


def up_to(limit: int, documents: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Names and texts until there are `limit` bytes of text."""
    total = 0
    for name, text in documents:
        yield name, text
        total += len(text.encode())
        if total >= limit:
            return


# --- the command -------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch and prepare what is missing, after asking; returns the exit status."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Fetch text to train on: programming languages and human ones.")
    parser.add_argument("--domains", nargs="+", metavar="DOMAIN", help=f"some of {', '.join(DOMAINS)}; all, if left out")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--save", metavar="FILE", type=pathlib.Path, help="write the prepared text into one file")
    options = parser.parse_args(arguments)
    try:
        chosen = asked_for("domain", options.domains, DOMAINS)
        missing = [domain for domain in chosen if not is_prepared(domain)]
        if missing:
            print(announced(missing))
            if not options.yes and not agreed():
                print("Nothing was fetched.")
                return 1
            fetch_and_prepare(missing)
        print(f"On this machine, in {here()}: {', '.join(chosen)}. To be rid of it, delete that folder.")
        if options.save:
            save(options.save, chosen)
            print(f"{options.save}, {options.save.stat().st_size / 1e6:.1f} MB, is read by fetched_corpus(saved=…).")
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def is_prepared(domain: str) -> bool:
    """Whether this machine has the text of a domain, as this version expects it."""
    try:
        return bool(prepared(domain, here()))
    except (FileNotFoundError, ValueError):
        return False


def announced(domains: Sequence[str]) -> str:
    """What will be done for some domains, and what it costs."""
    fetched = sum(package["megabytes"] for package in needed(domains))
    text = sum(DOMAINS[domain]["bytes"] for domain in domains) / 1e6
    return (f"{table(domains)}\n\npip fetches {fetched:.0f} MB into {here()}. Of it {text:.0f} MB of text are kept there, "
            "compressed to about a quarter; the packages are deleted.")


def table(domains: Sequence[str]) -> str:
    """What some domains are: each with its text, and each package that they need with its licence."""
    lines = [f"{'domain':<12}{'MB':>5}  text"]
    lines += [f"{domain:<12}{DOMAINS[domain]['bytes'] / 1e6:>5.1f}  {DOMAINS[domain]['about']}" for domain in domains]
    lines += ["", f"{'package':<46}{'MB':>5}  {'licence':<46}for"]
    for package in needed(domains):
        uses = ", ".join(chosen["domain"] for chosen in package["texts"] if chosen["domain"] in domains)
        name = f"{package['name']} {package['version']}"
        lines.append(f"{name:<46}{package['megabytes']:>5.1f}  {package['licence']:<46}{uses}")
    return "\n".join(lines)


def needed(domains: Sequence[str]) -> list[dict[str, Any]]:
    """The packages that hold text of some domains."""
    return [package for package in PACKAGES if any(chosen["domain"] in domains for chosen in package["texts"])]


def agreed() -> bool:
    """Ask; no answer is a no."""
    try:
        return input("Fetch them? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print("Nobody is there to answer: --yes says it beforehand.")
        return False


def fetch_and_prepare(domains: Sequence[str]) -> None:
    """Fetch what the domains need and write the text of each, whole or not at all; the packages are deleted at the end."""
    folder = here() / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    packages = needed(domains)
    wheels = {}
    with tqdm(total=sum(package["megabytes"] for package in packages) * 1e6, unit="B", unit_scale=True, desc="fetching") as bar:
        for package in packages:
            bar.set_postfix_str(package["name"])
            wheels[package["name"]] = fetch(package, folder)
            bar.update(package["megabytes"] * 1e6)
    for domain in tqdm(domains, desc="preparing", unit="domain"):
        lines = prepare(domain, wheels)
        found = hashlib.sha256(lines).hexdigest()
        require(found == DOMAINS[domain]["sha256"], f"the text made of {domain!r} has the SHA-256 {found}, expected "
                                                    f"{DOMAINS[domain]['sha256']}; please report it, with the version of Python")
        with whole(here() / f"{domain}.jsonl.gz") as unfinished:
            unfinished.write_bytes(gzip.compress(lines, mtime=0))
    shutil.rmtree(folder)


def save(path: pathlib.Path, domains: Sequence[str]) -> None:
    """Write the prepared text of some domains into one zip file, with the names and licences of their packages."""
    with whole(path) as unfinished, zipfile.ZipFile(unfinished, "w") as archive:  # stored: what is in it is compressed
        archive.writestr("LICENCES.txt", table(domains))
        for domain in domains:
            archive.write(here() / f"{domain}.jsonl.gz", f"{domain}.jsonl.gz")


if __name__ == "__main__":
    sys.exit(main())
