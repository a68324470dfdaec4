"""Fetched text: nothing without a yes, nothing but what the list says, whole or not at all. No test uses a network."""

import gzip
import hashlib
import importlib.util
import json
import os
import pathlib
import random
import re
import socket
import subprocess
import types
import zipfile

import pytest

from moe_lesson.lm import fetched_text, wheel_text
from moe_lesson.lm.corpora import SPLITS, split_of
from moe_lesson.lm.fetched_text import fetched_corpus, main

WORDS = "sun rain wind snow cloud storm river stone forest bird song night morning winter summer road bridge town".split()


def prose(seed, words=60):
    drawn = random.Random(seed)
    return " ".join(drawn.choice(WORDS) for _ in range(words)) + f" {seed}\n"


def made_wheel(folder, file, members):
    """A wheel that pip takes, with some files in it."""
    name, version = file.split("-")[:2]
    with zipfile.ZipFile(folder / file, "w") as archive:
        archive.writestr(f"{name}-{version}.dist-info/METADATA",
                         f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: <2\n")
        archive.writestr(f"{name}-{version}.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {'-'.join(file[:-4].split('-')[2:])}\n")
        for member, text in members.items():
            archive.writestr(member, text)
    return folder / file


def listing(wheel, *texts):
    name, version = wheel.name.split("-")[:2]
    return {"name": name, "version": version, "file": wheel.name, "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
            "megabytes": 1.5, "licence": "MIT", "texts": list(texts)}


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder with two wheels, from which pip fetches, and the course's list set to them: domains `weather` and `manual`."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    tiny = made_wheel(folder, "tiny-1.0-py3-none-any.whl", {f"tiny/{i}.py": prose(i) for i in range(60)})
    odd = made_wheel(folder, "odd_one-2.0-cp399-cp399-manylinux_2_5_x86_64.manylinux1_x86_64.whl",
                     {f"docs/{i}.md": prose(1000 + i) for i in range(60)})
    monkeypatch.setattr(fetched_text, "PACKAGES", [
        listing(tiny, {"domain": "weather", "take": r"\.py$", "leave": "/5"}),
        listing(odd, {"domain": "manual", "take": r"\.md$"})])
    monkeypatch.setattr(fetched_text, "DOMAINS", {domain: {"about": f"about {domain}", "bytes": 20_000}
                                                  for domain in ("weather", "manual")})
    wheels = {"tiny": tiny, "odd_one": odd}
    for domain, listed in fetched_text.DOMAINS.items():
        listed["sha256"] = hashlib.sha256(fetched_text.prepare(domain, wheels)).hexdigest()
    for name, value in {"MOE_LESSON_HOME": str(tmp_path / "home"), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder),
                        "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def copied(shelf, monkeypatch):
    """pip played by a function that copies from the shelf, which is quicker; it notes what it was asked for."""
    asked = []

    def copy(command, **options):
        asked.append(command[-1])
        (file,) = (path for path in shelf.iterdir() if path.name.startswith(command[-1].replace("==", "-")))
        pathlib.Path(command[command.index("--dest") + 1], file.name).write_bytes(file.read_bytes())
        return types.SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", copy)
    return asked


@pytest.fixture
def no_pip(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("something was fetched")

    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(socket, "socket", refuse)


# ---------------------------------------------------------------------------------------------------------- fetching


def test_pip_fetches_wheels_for_any_machine_and_the_text_is_prepared(shelf, capsys):
    assert main(["--yes"]) == 0
    corpus = fetched_corpus()
    assert corpus.domains == ("weather", "manual") and {d.split for d in corpus.documents} == set(SPLITS)
    assert len(corpus.documents) == 60 - 11 + 60, "of weather all but the files that its `leave` names"
    for d in corpus.documents:
        number = int(re.search(r"(\d+)\.(py|md)$", d.name)[1])
        assert d.text == prose(number if d.domain == "weather" else 1000 + number).strip()
        assert d.split == split_of(f"{d.domain}/{d.name}")
    kept = sorted(path.name for path in fetched_text.here().iterdir())
    assert kept == ["manual.jsonl.gz", "weather.jsonl.gz"], "no package is left"
    assert str(fetched_text.here()) in capsys.readouterr().out


def test_pip_without_a_package_is_an_error_that_says_what_pip_said(shelf, capsys):
    next(shelf.glob("tiny*")).unlink()
    assert main(["--yes", "--domains", "weather"]) == 1
    said = capsys.readouterr().err
    assert "tiny-1.0-py3-none-any.whl is fetched by pip" in said and "perhaps there is no network" in said
    assert "--save FILE" in said and "No matching distribution found for tiny==1.0" in said


def test_nothing_is_fetched_on_import_or_by_asking_for_the_corpus(shelf, no_pip):
    spec = importlib.util.spec_from_file_location("moe_lesson.lm.imported_anew", fetched_text.__file__)
    anew = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(anew)
    with pytest.raises(FileNotFoundError, match=r"'python' is not in .*fetched by `python -m moe_lesson.lm.fetched_text "
                                                r"--domains python`.*fetched_corpus\(saved=…\)"):
        anew.fetched_corpus()
    assert not fetched_text.here().exists()


@pytest.mark.parametrize("answer", ["", "n", "nonsense", EOFError])
def test_without_a_yes_nothing_is_fetched(shelf, no_pip, monkeypatch, capsys, answer):
    def asked(question):
        shown = capsys.readouterr().out
        for word in ("weather", "tiny 1.0", "MIT", "1.5", "pip fetches 3 MB", str(fetched_text.here())):
            assert word in shown, "what it costs is said before the question"
        if answer is EOFError:
            raise EOFError
        return answer

    monkeypatch.setattr("builtins.input", asked)
    assert main([]) == 1 and "Nothing was fetched" in capsys.readouterr().out
    assert not fetched_text.here().exists()


def test_a_yes_fetches_what_the_domains_need_and_what_is_there_is_not_fetched_again(copied, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert main(["--domains", "manual"]) == 0 and copied == ["odd_one==2.0"]
    assert main([]) == 0 and copied == ["odd_one==2.0", "tiny==1.0"]
    assert main([]) == 0 and len(copied) == 2


def test_a_whole_package_is_not_fetched_twice_and_a_cut_one_is_not_taken(shelf, copied):
    folder = fetched_text.here() / "packages"
    folder.mkdir(parents=True)
    for name, size in {"tiny": None, "odd": 1000}.items():
        (file,) = shelf.glob(f"{name}*")
        (folder / file.name).write_bytes(file.read_bytes()[:size])
    assert main(["--yes"]) == 0 and copied == ["odd_one==2.0"]
    assert len(fetched_corpus("manual").documents) == 60


def test_a_package_with_another_checksum_is_refused_and_nothing_is_kept(shelf, copied, capsys):
    file = made_wheel(shelf, "tiny-1.0-py3-none-any.whl", {"tiny/0.py": prose(7)})
    assert main(["--yes", "--domains", "weather"]) == 1
    said = capsys.readouterr().err
    assert hashlib.sha256(file.read_bytes()).hexdigest() in said and fetched_text.PACKAGES[0]["sha256"] in said
    assert list((fetched_text.here() / "packages").iterdir()) == []


def test_a_text_with_another_checksum_is_not_written(copied, capsys):
    fetched_text.DOMAINS["weather"]["sha256"] = "0" * 64
    assert main(["--yes"]) == 1 and "made of 'weather' has the SHA-256" in capsys.readouterr().err
    assert not list(fetched_text.here().glob("*.gz*"))


# ----------------------------------------------------------------------------------------------------- what is in wheels


@pytest.mark.parametrize("member", ["../evil.py", "tiny/../../evil.py", "/etc/evil.py", "tiny\\..\\..\\evil.py"])
def test_a_wheel_with_a_path_that_leads_out_of_it_is_refused(tmp_path, member):
    wheel = made_wheel(tmp_path, "tiny-1.0-py3-none-any.whl", {"tiny/good.py": prose(1), member: prose(2)})
    with pytest.raises(ValueError, match=r"tiny-1.0-py3-none-any.whl has a member .*evil.py', which leads out"):
        list(wheel_text.wheel_documents([(wheel, {"take": "good"})]))
    assert sorted(path.name for path in tmp_path.rglob("*")) == [wheel.name], "nothing is unpacked"


def test_only_what_a_person_wrote_is_read(tmp_path):
    good = {"a.py": prose(1), "bom.py": "\ufeff" + prose(2).replace("\n", "\r\n"), "sums.py": prose(3) + "sha256 = " + "0a" * 32}
    bad = {"short.py": "x = 1\n", "nul.py": prose(4) + "\0", "latin1.py": (prose(5) + "é").encode("latin-1"),
           "generated.py": "# Generated by a tool. DO NOT EDIT.\n" + prose(6), "minified.py": "a=b;" * 1000,
           "table.py": "0.123456789, 1.23456789,\n" * 40, "other.txt": prose(7)}
    wheel = made_wheel(tmp_path, "tiny-1.0-py3-none-any.whl", good | bad)
    found = dict(wheel_text.wheel_documents([(wheel, {"take": r"\.py$"})]))
    assert found == {"tiny/a.py": prose(1).strip(), "tiny/bom.py": prose(2).strip(), "tiny/sums.py": prose(3).strip()}


def test_documents_come_in_the_order_of_a_hash_whatever_the_order_in_the_wheel(tmp_path):
    names = [f"{i}.py" for i in range(20)]
    orders = []
    for folder, order in {"one": names, "two": names[::-1]}.items():
        (tmp_path / folder).mkdir()
        wheel = made_wheel(tmp_path / folder, "tiny-1.0-py3-none-any.whl", {name: prose(int(name[:-3])) for name in order})
        orders.append([name for name, _ in wheel_text.wheel_documents([(wheel, {"take": r"\.py$"})])])
    assert orders[0] == orders[1] != sorted(orders[0]), "else the train text would be of other folders than the test text"


def test_of_a_long_file_the_beginning_is_read(tmp_path):
    wheel = made_wheel(tmp_path, "tiny-1.0-py3-none-any.whl", {"long.py": "".join(prose(i) for i in range(100))})
    ((_, text),) = wheel_text.wheel_documents([(wheel, {"take": "long"})])
    assert wheel_text.DOCUMENT_CHARACTERS - 1 <= len(text) <= wheel_text.DOCUMENT_CHARACTERS


@pytest.mark.parametrize("text, left", [
    ("/* Copyright 2020\n * MIT */\nint a;\n", "\nint a;\n"), ("// SPDX-License-Identifier: MIT\n// x\n\nint a;", "\nint a;"),
    ("\n;; under the licence\n;; of its owner\n(a)", "(a)"), ("/* adds */\nint a;\n", "/* adds */\nint a;\n"),
    ("int a; /* Copyright */", "int a; /* Copyright */"),
])
def test_the_licence_at_the_head_of_a_file_is_left_out(text, left):
    assert wheel_text.without_licence(text) == left


def test_perl_is_read_without_its_manual_and_translations_without_their_keys():
    assert wheel_text.perl_code("my $a;\n\n=head1 NAME\n\nwords\n\n=cut\n\nmy $b;\n__END__\n=head1 X\n") == "my $a;\n\n\nmy $b;\n"
    tree = {"title": "short", "a": {"key_that_is_long_enough_itself": "Das Gerät ist schon eingerichtet"},
            "b": ["Das Gerät ist schon eingerichtet", "設定されています、再起動してください", 7]}
    assert wheel_text.translations(json.dumps(tree)) == "Das Gerät ist schon eingerichtet\n設定されています、再起動してください"
    assert "\ufffd" in wheel_text.text_of(types.SimpleNamespace(read=lambda name: b'["half a character is: \\ud800"]'), "x",
                                          wheel_text.translations), "no text that UTF-8 can't hold"


def test_what_stands_in_an_earlier_document_is_left_out(tmp_path, monkeypatch):
    shared = "".join(f"{prose(50 + i, 12)}" for i in range(3))
    wheel = made_wheel(tmp_path, "tiny-1.0-py3-none-any.whl",
                       {f"{i}.py": shared + prose(i, 90) for i in range(9)} | {"copy.py": shared + prose(3, 90) + "and more\n"})
    monkeypatch.setattr(fetched_text, "PACKAGES", [listing(wheel, {"domain": "weather", "take": r"\.py$"})])
    texts = [json.loads(line)[1] for line in fetched_text.prepare("weather", {"tiny": wheel}).splitlines()]
    assert len(texts) == 9 and sum(shared in text for text in texts) == 1


# --------------------------------------------------------------------------------------------------- reading and saving


@pytest.fixture
def saved(copied, tmp_path, monkeypatch):
    """What --save wrote on one machine, brought to another that has nothing."""
    assert main(["--yes", "--save", str(tmp_path / "out" / "text.zip")]) == 0
    monkeypatch.setenv("MOE_LESSON_HOME", str(tmp_path / "elsewhere"))
    return tmp_path / "out" / "text.zip"


def test_a_saved_file_gives_the_same_corpus_where_nothing_was_fetched(saved, tmp_path, monkeypatch, no_pip):
    there = fetched_corpus(saved=saved)
    monkeypatch.setenv("MOE_LESSON_HOME", str(tmp_path / "home"))
    assert there.fingerprint() == fetched_corpus().fingerprint() and list(saved.parent.iterdir()) == [saved]
    with zipfile.ZipFile(saved) as archive:
        assert re.search(r"tiny 1.0 +1.5 +MIT +weather", archive.read("LICENCES.txt").decode())


def test_a_crash_while_saving_leaves_the_file_that_was_there_and_no_half_one(copied, tmp_path, monkeypatch, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "text.zip").write_text("old")

    def full(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(zipfile.ZipFile, "write", full)
    assert main(["--yes", "--save", str(tmp_path / "out" / "text.zip")]) == 1 and "no space left" in capsys.readouterr().err
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["old"]


def test_a_file_that_is_missing_damaged_or_of_another_version_says_what_to_do(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file .*no.zip; make it .* --save FILE"):
        fetched_corpus(saved=tmp_path / "no.zip")
    (tmp_path / "cut.zip").write_bytes(saved.read_bytes()[:3000])
    with pytest.raises(ValueError, match="cut.zip is damaged.*copy or make it again"):
        fetched_corpus(saved=tmp_path / "cut.zip")
    with zipfile.ZipFile(tmp_path / "part.zip", "w") as archive:
        archive.writestr("weather.jsonl.gz", gzip.compress(b'["a", "b"]\n'))
    with pytest.raises(ValueError, match="weather.jsonl.gz is not the text that this version .* expects; make it again"):
        fetched_corpus("weather", saved=tmp_path / "part.zip")
    with pytest.raises(FileNotFoundError, match="'manual' is not in .*part.zip"):
        fetched_corpus("manual", saved=tmp_path / "part.zip")


def test_a_damaged_text_is_no_text_and_is_made_again(copied):
    assert main(["--yes"]) == 0
    whole = fetched_corpus().fingerprint()
    file = fetched_text.here() / "weather.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="weather.jsonl.gz is damaged.*make it again: .*--domains weather"):
        fetched_corpus()
    assert main(["--yes"]) == 0 and copied[2:] == ["tiny==1.0"] and fetched_corpus().fingerprint() == whole


def test_one_split_alone_and_fewer_bytes_give_the_first_of_the_same_documents(copied):
    main(["--yes"])
    whole = fetched_corpus().documents
    for split in SPLITS:
        assert fetched_corpus(splits=(split,)).documents == tuple(d for d in whole if d.split == split)
    few = fetched_corpus("weather", max_bytes=10_000).documents
    train = [d for d in whole if (d.domain, d.split) == ("weather", "train")]
    kept = [d for d in few if d.split == "train"]
    assert kept == train[:len(kept)] and len(kept) < len(train)
    assert 8_000 <= sum(len(d.text) for d in kept) < 8_000 + len(kept[-1].text)


@pytest.mark.parametrize("request_, message", [
    ({"domains": "latin"}, "unknown domain 'latin'; choose some of weather, manual"),
    ({"domains": ()}, "no domain was asked for"), ({"max_bytes": 9}, "max_bytes = 9"),
    ({"splits": ("dev",)}, "unknown split 'dev'; choose some of train, validation, test"),
])
def test_bad_requests_name_the_value_and_the_choices(shelf, request_, message):
    with pytest.raises(ValueError, match=message):
        fetched_corpus(**request_)


# -------------------------------------------------------------------------------------------------------------- the list

LISTED = json.loads(pathlib.Path(fetched_text.__file__).with_suffix(".json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("package", LISTED["packages"], ids=lambda package: package["name"])
def test_each_package_is_pinned_by_version_file_and_checksum_and_has_a_licence(package):
    assert package["file"].startswith(f"{package['name'].replace('-', '_')}-{package['version']}-")
    assert package["file"].endswith(".whl") and fetched_text.tags(package["file"])
    assert re.fullmatch("[0-9a-f]{64}", package["sha256"]) and package["licence"] and 0 < package["megabytes"] < 100
    for chosen in package["texts"]:
        assert chosen["domain"] in LISTED["domains"] and chosen.keys() <= {"domain", "take", "leave", "as"}
        assert chosen.get("as", "text") in wheel_text.READERS
        assert re.compile(chosen["take"]) and re.compile(chosen.get("leave", ""))


def test_each_domain_has_packages_and_a_checksum():
    used = {chosen["domain"] for package in LISTED["packages"] for chosen in package["texts"]}
    assert used == LISTED["domains"].keys() and 10 <= len(used) <= 16
    for listed in LISTED["domains"].values():
        assert re.fullmatch("[0-9a-f]{64}", listed["sha256"]) and listed["about"] and 2_500_000 < listed["bytes"] < 8_100_000
    assert sum(package["megabytes"] for package in LISTED["packages"]) < 200


@pytest.mark.parametrize("file, options", [
    ("a-1-py2.py3-none-any.whl", "--implementation py --python-version 3 --abi none --platform any"),
    ("a-1-cp312-cp312-manylinux_2_5_x86_64.manylinux1_x86_64.whl",
     "--implementation cp --python-version 312 --abi cp312 --platform manylinux_2_5_x86_64 --platform manylinux1_x86_64"),
])
def test_pip_is_asked_for_just_the_wheel_of_this_name(file, options):
    assert fetched_text.tags(file) == options.split()
