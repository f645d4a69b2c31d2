"""The corpus from its archive, over HTTP from a real server; existing copies; the licence."""

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlaad_server import Web, serving
from mlaad_support import PATHS, audio, split_zip, tables, write_zip

from makermark.corpora import mlaad
from makermark.corpora.reading import read
from makermark.errors import CorpusError, ParamsError
from makermark.params import from_mapping, read_yaml

META = "path|original_file|language|is_original_language|duration|training_data|model_name|architecture|transcript"
AUDIO = {f"mlaad_v5/{path}": audio(path) for path in [*dict.fromkeys(PATHS), "fake/en/other_model/x.wav"]}
AUDIO["mlaad_v5/fake/en/suno_bark/meta.csv"] = (
    f'{META}\n./fake/en/suno_bark/a_01.wav|x|en|True|3.2|lj|suno/bark|bark|He said "no".\n'.encode()
)


@pytest.fixture
def web(tmp_path):
    """A server with the archive, its MD5 sums and the protocol."""
    parts = split_zip(tmp_path / "served", AUDIO, size=20_000)
    protocol = write_zip(tmp_path / "served" / "p.zip", tables())
    with serving(Web()) as web:
        web.drop_after = 9000
        web.parts = [part.name for part in parts]
        web.files = {f"/{part.name}": part.read_bytes() for part in parts}
        sums = [f"{hashlib.md5(part.read_bytes()).hexdigest()}  {part.name}\n" for part in parts]
        web.files["/mlaad_v5.zip.md5"] = "".join(sums).encode()
        web.files["/p.zip"] = protocol.read_bytes()
        yield web


def settings(web, folder, **changes):
    return {
        "root": "",
        "protocol": "",
        "licence": "CC-BY-NC-4.0",
        "folder": folder,
        "source": "zip",
        "protocol_url": f"{web.url}/p.zip",
        "protocol_md5": hashlib.md5(web.files["/p.zip"]).hexdigest(),
        "repository": "nobody/nothing",
        "revision": "main",
        "workers": 1,
        "zip_url": f"{web.url}/{{name}}",
        "zip_parts": web.parts,
        "zip_md5": "mlaad_v5.zip.md5",
        "attempts": 4,
    } | changes


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("makermark.corpora.mlaad.downloading.time.sleep", lambda _: None)


def test_all_is_fetched_through_broken_connections_and_then_left_alone(web, tmp_path):
    web.drops["/p.zip"] = web.drops["/mlaad_v5.z01"] = 1
    web.busy["/mlaad_v5.zip"] = 1
    folder = tmp_path / "data"
    listing = mlaad.listing(**settings(web, folder))
    assert listing.root == folder
    assert listing.source == str(folder / "mlaad4sourcetracing.zip")
    assert listing.rows["path"].tolist() == PATHS
    for path in PATHS:
        assert (listing.root / path).read_bytes() == audio(path)
    assert not (folder / "fake" / "en" / "other_model").exists()  # the protocol does not ask for it
    said = listing.rows.set_index("path")["text"]
    assert said["fake/en/suno_bark/a_01.wav"] == 'He said "no".'
    assert (said.drop("fake/en/suno_bark/a_01.wav") == "").all()

    asked = len(web.asked)
    mlaad.listing(**settings(web, folder))
    shutil.rmtree(folder / "parts")  # their room is wanted for something else
    mlaad.listing(**settings(web, folder))
    assert len(web.asked) == asked


def test_a_file_that_vanished_comes_back_from_the_parts_at_hand(web, tmp_path):
    listing = mlaad.listing(**settings(web, tmp_path / "data"))
    (listing.root / PATHS[4]).unlink()
    asked = len(web.asked)
    mlaad.listing(**settings(web, tmp_path / "data"))
    assert (listing.root / PATHS[4]).read_bytes() == audio(PATHS[4])
    assert len(web.asked) == asked


def test_wrong_bytes_in_one_part_name_it_and_the_others_are_kept(web, tmp_path):
    good = web.files["/mlaad_v5.z02"]
    web.files["/mlaad_v5.z02"] = good[:500] + b"?" + good[501:]
    with pytest.raises(CorpusError, match=r"^mlaad_v5\.z02: .*wrong bytes"):
        mlaad.listing(**settings(web, tmp_path / "data"))
    web.files["/mlaad_v5.z02"] = good
    web.sent.clear()
    mlaad.listing(**settings(web, tmp_path / "data"))
    assert web.sent["/mlaad_v5.z01"] == 0
    assert web.sent["/mlaad_v5.z02"] == len(good)


def test_sums_that_are_a_login_page_are_refused(web, tmp_path):
    web.files["/mlaad_v5.zip.md5"] = b"<html>please log in</html>"
    with pytest.raises(CorpusError, match=r"mlaad_v5\.zip\.md5:1: '<html>.*mlaad\.zip_url"):
        mlaad.listing(**settings(web, tmp_path / "data"))
    assert not list((tmp_path / "data" / "parts").glob("*.md5"))


def test_sums_of_the_last_part_only_are_enough_with_a_warning(web, tmp_path, caplog):
    web.files["/mlaad_v5.zip.md5"] = web.files["/mlaad_v5.zip.md5"].splitlines(keepends=True)[-1]
    mlaad.listing(**settings(web, tmp_path / "data"))
    assert "does not list mlaad_v5.z01" in caplog.text
    assert "does not list mlaad_v5.zip" not in caplog.text


def test_an_archive_of_something_else_is_refused(web, tmp_path):
    parts = split_zip(tmp_path / "served", {"readme.txt": b"hello" * 9000}, size=10**9)
    web.files[f"/{parts[0].name}"] = parts[0].read_bytes()
    web.files["/mlaad_v5.zip.md5"] = (
        f"{hashlib.md5(parts[0].read_bytes()).hexdigest()} *{parts[0].name}\n".encode()
    )
    with pytest.raises(CorpusError, match="holds none of the protocol's 11 files"):
        mlaad.listing(**settings(web, tmp_path / "data", zip_parts=[parts[0].name]))


@pytest.mark.parametrize("licence", ["", "MIT"])
@pytest.mark.parametrize("given", [{}, {"protocol": "served/p.zip"}])
def test_nothing_is_fetched_before_the_licence_is_accepted(web, tmp_path, licence, given):
    given = {key: str(tmp_path / value) for key, value in given.items()}
    with pytest.raises(CorpusError, match=r"CC BY-NC 4\.0.*mlaad\.licence: CC-BY-NC-4\.0") as told:
        mlaad.listing(**settings(web, tmp_path / "data", licence=licence, **given))
    assert "\n" not in str(told.value)
    assert web.asked == []


def test_a_copy_at_hand_needs_no_network_and_is_left_as_it_is(web, tmp_path):
    for path in PATHS:
        (tmp_path / "copy" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / path).write_bytes(audio(path))
    before = sorted(tmp_path.rglob("*"))
    given = {"root": str(tmp_path / "copy"), "protocol": str(tmp_path / "served" / "p.zip"), "licence": ""}
    listing = mlaad.listing(**settings(web, tmp_path / "data", **given))
    assert listing.root == tmp_path / "copy"
    assert (listing.rows["text"] == "").all()
    assert web.asked == []
    assert sorted(tmp_path.rglob("*")) == before


def test_a_relative_copy_gives_an_absolute_root(web, tmp_path, monkeypatch):
    (tmp_path / "copy" / "fake").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    given = {"root": "copy", "protocol": "served/p.zip"}
    assert mlaad.listing(**settings(web, tmp_path / "data", **given)).root == tmp_path / "copy"


@pytest.mark.parametrize(
    ("root", "hint"), [("nowhere", "name the one that does"), ("copy/fake", "name the one above")]
)
def test_a_copy_that_is_none_is_told(web, tmp_path, root, hint):
    (tmp_path / "copy" / "fake").mkdir(parents=True)
    given = {"root": str(tmp_path / root), "protocol": str(tmp_path / "served" / "p.zip")}
    with pytest.raises(CorpusError, match=f"mlaad.root: .*{hint}"):
        mlaad.listing(**settings(web, tmp_path / "data", **given))


def test_two_runs_at_once_fetch_once(web, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(mlaad.listing, **settings(web, tmp_path / "data")) for _ in range(2)]
        assert [run.result().root for run in runs] == [tmp_path / "data"] * 2
    assert {path: web.sent[path] for path in web.files} == {
        path: len(sent) for path, sent in web.files.items()
    }


def shipped(**changes):
    """params.yaml as it is, with changes to its section mlaad."""
    content = read_yaml(Path(__file__).parents[3] / "params.yaml")
    return from_mapping(content | {"corpus": "mlaad-v5", "mlaad": content["mlaad"] | changes})


def test_params_yaml_reads_a_copy(tmp_path):
    (tmp_path / "fake").mkdir()
    protocol = write_zip(tmp_path / "p.zip", tables())
    listing = read(shipped(root=str(tmp_path), protocol=str(protocol)))
    assert listing.rows["path"].tolist() == PATHS


def test_params_yaml_accepts_no_licence_on_its_own():
    with pytest.raises(CorpusError, match=r"mlaad\.licence: CC-BY-NC-4\.0"):
        read(shipped())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "ftp"}, r"mlaad\.source is 'ftp'"),
        ({"zip_url": "https://example.org/x.zip"}, r"mlaad\.zip_url .*\{name\}"),
        ({"zip_parts": ["../x.zip"]}, r"mlaad\.zip_parts .*'\.\./x\.zip'"),
        ({"zip_parts": []}, r"mlaad\.zip_parts .*not empty"),
        ({"attempts": 0}, r"mlaad\.attempts is 0"),
    ],
)
def test_params_that_cannot_be_are_refused_before_anything_is_done(changes, message):
    with pytest.raises(ParamsError, match=message):
        shipped(**changes)
