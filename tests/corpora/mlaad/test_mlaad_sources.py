"""MLAAD from its archive on a local web server, from existing copies, and the check of the licence."""

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlaad_server import Web, serve
from mlaad_support import PATHS, audio_bytes, tables, write_split_zip, write_zip

from makermark.corpora import mlaad
from makermark.corpora.corpus_registry import read_listing
from makermark.foundation.errors import CorpusError, ParamsError
from makermark.foundation.params import parse_params, read_yaml

META = "path|original_file|language|is_original_language|duration|training_data|model_name|architecture|transcript"
AUDIO = {
    f"mlaad_v5/{path}": audio_bytes(path) for path in [*dict.fromkeys(PATHS), "fake/en/other_model/x.wav"]
}
AUDIO["mlaad_v5/fake/en/suno_bark/meta.csv"] = (
    f'{META}\n./fake/en/suno_bark/a_01.wav|x|en|True|3.2|lj|suno/bark|bark|He said "no".\n'.encode()
)


@pytest.fixture
def web(tmp_path):
    """A server with the archive, its MD5 sums and the protocol."""
    parts = write_split_zip(tmp_path / "served", AUDIO, size=20_000)
    protocol = write_zip(tmp_path / "served" / "p.zip", tables())
    with serve(Web()) as web:
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
    monkeypatch.setattr("makermark.corpora.mlaad.download.time.sleep", lambda _: None)


def test_corpus_is_downloaded_despite_broken_connections_and_only_once(web, tmp_path):
    web.drops["/p.zip"] = web.drops["/mlaad_v5.z01"] = 1
    web.busy["/mlaad_v5.zip"] = 1
    folder = tmp_path / "data"
    listing = mlaad.read_listing(**settings(web, folder))
    assert listing.root == folder
    assert listing.source == str(folder / "mlaad4sourcetracing.zip")
    assert listing.rows["path"].tolist() == PATHS
    for path in PATHS:
        assert (listing.root / path).read_bytes() == audio_bytes(path)
    assert not (folder / "fake" / "en" / "other_model").exists()  # not in the protocol
    texts = listing.rows.set_index("path")["text"]
    assert texts["fake/en/suno_bark/a_01.wav"] == 'He said "no".'
    assert (texts.drop("fake/en/suno_bark/a_01.wav") == "").all()

    requests = len(web.requests)
    mlaad.read_listing(**settings(web, folder))
    shutil.rmtree(folder / "parts")  # for instance to free space
    mlaad.read_listing(**settings(web, folder))
    assert len(web.requests) == requests


def test_deleted_file_is_extracted_again_without_download(web, tmp_path):
    listing = mlaad.read_listing(**settings(web, tmp_path / "data"))
    (listing.root / PATHS[4]).unlink()
    requests = len(web.requests)
    mlaad.read_listing(**settings(web, tmp_path / "data"))
    assert (listing.root / PATHS[4]).read_bytes() == audio_bytes(PATHS[4])
    assert len(web.requests) == requests


def test_wrong_bytes_in_one_segment_keep_the_others(web, tmp_path):
    good = web.files["/mlaad_v5.z02"]
    web.files["/mlaad_v5.z02"] = good[:500] + b"?" + good[501:]
    with pytest.raises(CorpusError, match=r"^mlaad_v5\.z02: .*wrong bytes"):
        mlaad.read_listing(**settings(web, tmp_path / "data"))
    web.files["/mlaad_v5.z02"] = good
    web.sent.clear()
    mlaad.read_listing(**settings(web, tmp_path / "data"))
    assert web.sent["/mlaad_v5.z01"] == 0
    assert web.sent["/mlaad_v5.z02"] == len(good)


def test_login_page_instead_of_md5_sums_raises(web, tmp_path):
    web.files["/mlaad_v5.zip.md5"] = b"<html>please log in</html>"
    with pytest.raises(CorpusError, match=r"mlaad_v5\.zip\.md5:1: '<html>.*mlaad\.zip_url"):
        mlaad.read_listing(**settings(web, tmp_path / "data"))
    assert not list((tmp_path / "data" / "parts").glob("*.md5"))


def test_missing_md5_sums_are_logged(web, tmp_path, caplog):
    web.files["/mlaad_v5.zip.md5"] = web.files["/mlaad_v5.zip.md5"].splitlines(keepends=True)[-1]
    mlaad.read_listing(**settings(web, tmp_path / "data"))
    assert "does not list mlaad_v5.z01" in caplog.text
    assert "does not list mlaad_v5.zip" not in caplog.text


def test_archive_without_the_corpus_raises(web, tmp_path):
    parts = write_split_zip(tmp_path / "served", {"readme.txt": b"hello" * 9000}, size=10**9)
    web.files[f"/{parts[0].name}"] = parts[0].read_bytes()
    web.files["/mlaad_v5.zip.md5"] = (
        f"{hashlib.md5(parts[0].read_bytes()).hexdigest()} *{parts[0].name}\n".encode()
    )
    with pytest.raises(CorpusError, match="has none of the protocol's 11 files"):
        mlaad.read_listing(**settings(web, tmp_path / "data", zip_parts=[parts[0].name]))


@pytest.mark.parametrize("licence", ["", "MIT"])
@pytest.mark.parametrize("existing", [{}, {"protocol": "served/p.zip"}])
def test_nothing_is_downloaded_before_the_licence_is_accepted(web, tmp_path, licence, existing):
    existing = {key: str(tmp_path / value) for key, value in existing.items()}
    with pytest.raises(CorpusError, match=r"CC BY-NC 4\.0.*mlaad\.licence: CC-BY-NC-4\.0") as caught:
        mlaad.read_listing(**settings(web, tmp_path / "data", licence=licence, **existing))
    assert "\n" not in str(caught.value)
    assert web.requests == []


def test_existing_copy_needs_no_network_and_is_not_changed(web, tmp_path):
    for path in PATHS:
        (tmp_path / "copy" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / path).write_bytes(audio_bytes(path))
    before = sorted(tmp_path.rglob("*"))
    existing = {"root": str(tmp_path / "copy"), "protocol": str(tmp_path / "served" / "p.zip"), "licence": ""}
    listing = mlaad.read_listing(**settings(web, tmp_path / "data", **existing))
    assert listing.root == tmp_path / "copy"
    assert (listing.rows["text"] == "").all()
    assert web.requests == []
    assert sorted(tmp_path.rglob("*")) == before


def test_relative_root_becomes_absolute(web, tmp_path, monkeypatch):
    (tmp_path / "copy" / "fake").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    existing = {"root": "copy", "protocol": "served/p.zip"}
    assert mlaad.read_listing(**settings(web, tmp_path / "data", **existing)).root == tmp_path / "copy"


@pytest.mark.parametrize(
    ("root", "hint"), [("nowhere", "name the folder that has it"), ("copy/fake", "name its parent")]
)
def test_root_without_the_corpus_raises_with_a_hint(web, tmp_path, root, hint):
    (tmp_path / "copy" / "fake").mkdir(parents=True)
    existing = {"root": str(tmp_path / root), "protocol": str(tmp_path / "served" / "p.zip")}
    with pytest.raises(CorpusError, match=f"mlaad.root: .*{hint}"):
        mlaad.read_listing(**settings(web, tmp_path / "data", **existing))


def test_two_runs_at_once_download_once(web, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(mlaad.read_listing, **settings(web, tmp_path / "data")) for _ in range(2)]
        assert [run.result().root for run in runs] == [tmp_path / "data"] * 2
    assert {path: web.sent[path] for path in web.files} == {
        path: len(sent) for path, sent in web.files.items()
    }


def default_params(**changes):
    """Return the parameters of params.yaml with changes in section mlaad."""
    content = read_yaml(Path(__file__).parents[3] / "params.yaml")
    return parse_params(content | {"corpus": "mlaad-v5", "mlaad": content["mlaad"] | changes})


def test_listing_of_a_copy_from_params_yaml(tmp_path):
    (tmp_path / "fake").mkdir()
    protocol = write_zip(tmp_path / "p.zip", tables())
    listing = read_listing(default_params(root=str(tmp_path), protocol=str(protocol)))
    assert listing.rows["path"].tolist() == PATHS


def test_default_params_do_not_accept_the_licence():
    with pytest.raises(CorpusError, match=r"mlaad\.licence: CC-BY-NC-4\.0"):
        read_listing(default_params())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "ftp"}, r"mlaad\.source is 'ftp'"),
        ({"zip_url": "https://example.org/x.zip"}, r"mlaad\.zip_url .*\{name\}"),
        ({"zip_parts": ["../x.zip"]}, r"mlaad\.zip_parts\[0\] is '\.\./x\.zip'"),
        ({"zip_parts": []}, r"mlaad\.zip_parts .*not empty"),
        ({"attempts": 0}, r"mlaad\.attempts is 0"),
    ],
)
def test_invalid_mlaad_params_raise(changes, message):
    with pytest.raises(ParamsError, match=message):
        default_params(**changes)
