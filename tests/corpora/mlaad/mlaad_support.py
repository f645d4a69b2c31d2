"""A small MLAAD with the layout of the real one: protocol, audio tree, archive in segments."""

import csv
import io
import struct
import zipfile
from pathlib import Path

REAL = Path(__file__).parents[4] / "shared" / "data" / "mlaad4sourcetracing.zip"

ROWS = {
    "train": [("en", "suno/bark", "a_01"), ("en", "suno/bark", "a_02"), ("de", "griffin_lim", "b_01")],
    "dev": [
        ("en", "suno/bark", "a_03"),
        ("fr", "suno/bark", "c_01"),
        ("en", "tts_models/en/x--neon", "a_04"),
        ("it", "vixTTS", "d_1"),
    ],
    "eval": [
        ("de", "suno/bark", "b_02"),
        ("de", "suno/bark", "b_02"),
        ("zh-cn", "griffin_lim", "e_1"),
        ("en", "OpenVoiceV2", "a_05"),
        ("ja", "OpenVoiceV2", "f_1"),
    ],
}
SEEN_LANGUAGES, SEEN_SYSTEMS = {"en", "de"}, {"suno/bark", "griffin_lim"}


def path_of(row):
    language, system, stem = row
    return f"fake/{language}/{system.replace('/', '_')}/{stem}.wav"


PATHS = [path_of(row) for rows in ROWS.values() for row in rows]


def table(rows, prefix="./"):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "model_name"])
    writer.writerows((prefix + path_of(row), row[1]) for row in rows)
    return text.getvalue()


def tables(prefix="./"):
    """Return the text of every table of the protocol, by file name."""
    texts = {f"{split}.csv": table(rows, prefix) for split, rows in ROWS.items()}
    for split in ("dev", "eval"):
        for language in ("seen", "not_seen"):
            for system in ("seen", "not_seen"):
                chosen = [
                    row
                    for row in ROWS[split]
                    if (row[0] in SEEN_LANGUAGES) == (language == "seen")
                    and (row[1] in SEEN_SYSTEMS) == (system == "seen")
                ]
                texts[f"fine/{split}___lang_{language}___model_{system}.csv"] = table(chosen, prefix)
    return texts


def write_zip(path, files, folder=""):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(folder + name, content)
    return path


def audio_bytes(path):
    """Return bytes that differ between files and are partly incompressible."""
    noise = (path * 400).encode()
    return noise + bytes((i * i + len(path)) % 251 for i in range(5000))


def write_split_zip(folder, files, *, size, name="mlaad_v5"):
    """Write an archive of `files` in segments of about `size` bytes (PKWARE APPNOTE); return the paths of the segments.

    Python writes the archive; its central directory is then rewritten with segment numbers.
    """
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for number, (path, content) in enumerate(files.items()):
            method = zipfile.ZIP_STORED if number % 3 == 0 else zipfile.ZIP_DEFLATED
            archive.writestr(path, content, compress_type=method)
    data = b"PK\7\x08" + whole.getvalue()
    _, _, _, count, length, start, _ = struct.unpack("<4H2LH", data[-18:])
    start += 4
    ends = [*range(size, start, size), len(data) - 22]
    starts = [0, *ends[:-1]]

    def split_position(position):
        segment = max(number for number, begin in enumerate(starts) if begin <= position)
        return segment, position - starts[segment]

    directory, at = bytearray(data[start : start + length]), 0
    for _ in range(count):
        variable_bytes = sum(struct.unpack_from("<3H", directory, at + 28))
        (offset,) = struct.unpack_from("<L", directory, at + 42)
        segment, within = split_position(offset + 4)
        struct.pack_into("<H", directory, at + 34, segment)
        struct.pack_into("<L", directory, at + 42, within)
        at += 46 + variable_bytes
    segment, within = split_position(start)
    last = len(ends) - 1
    end = struct.pack("<4s4H2LH", b"PK\5\6", last, segment, count, count, length, within, 0)
    stream = data[:start] + bytes(directory)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.z{number:02d}" for number in range(1, len(ends))] + [folder / f"{name}.zip"]
    for path, begin, stop in zip(paths, starts, ends, strict=True):
        path.write_bytes(stream[begin:stop] + (end if path is paths[-1] else b""))
    return paths
