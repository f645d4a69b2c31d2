"""`makermark serve` under load: uploads at once, none lost, how long they wait, and what memory does.

    python benchmarks/serve.py [--model models] [--audio FILE] [--uploads 50] [--rounds 6] [--threads 0]

Starts the server as a user does, as a process of its own, and asks it over the loopback address: `--uploads` clips of
5 s at once, `--rounds` times, every answer looked at; then a slow client, a body of 1 GB, a damaged file and a file
named like a path while others are served. Without --audio the clips are harmonic tones. Prints Markdown.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import soundfile

from features import processor

SECONDS, RATE_HZ = 5, 16_000
START = "from makermark.cli import main; main()"
VERSIONS_OF = ("fastapi", "starlette", "uvicorn", "torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="models")
    parser.add_argument("--audio", type=Path, help="a file to cut the clips from")
    parser.add_argument("--uploads", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    print(f"{processor()}, {os.cpu_count()} logical cores, load {os.getloadavg()[0]:.1f}; ", end="")
    print(", ".join(f"{name} {version(name)}" for name in VERSIONS_OF), end="\n\n")
    clips = [wav(samples) for samples in sounds(given.audio, given.uploads)]
    with tempfile.TemporaryDirectory() as scratch:
        options = ["--port", "0", "--model", given.model, "--gallery", f"{scratch}/gallery.arrow"]
        options += ["--per-minute", "100000", "--burst", "1000", "--threads", str(given.threads)]
        with subprocess.Popen(
            [sys.executable, "-c", START, "serve", *options], stdout=subprocess.PIPE, text=True
        ) as server:
            try:
                assert server.stdout is not None
                port = int(re.search(r":(\d+) ", server.stdout.readline())[1])  # type: ignore[index]
                load(port, server.pid, clips, rounds=given.rounds)
                trouble(port, clips[0])
            finally:
                server.terminate()


def load(port: int, pid: int, clips: list[bytes], *, rounds: int) -> None:
    """Print, for each round of all clips at once, how many were answered and how long that took."""
    alone = [trace(port, clips[0])[1] for _ in range(5)]
    print(f"One clip of {SECONDS} s alone: median {1000 * np.median(alone):.0f} ms.\n")
    print(
        f"| round of {len(clips)} at once | answered | p50 | p95 | slowest | clips/s | memory of the server |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    print(f"| before | | | | | | {memory_mb(pid):.0f} MB |")
    for number in range(1, rounds + 1):
        start = time.perf_counter()
        with ThreadPoolExecutor(len(clips)) as pool:
            answers = list(pool.map(lambda clip: trace(port, clip), clips))
        took = time.perf_counter() - start
        good = [seconds for status, seconds, told in answers if status == 200 and json.loads(told)["verdict"]]
        p50, p95, most = np.percentile(good, [50, 95, 100])
        print(
            f"| {number} | {len(good)} of {len(clips)} | {p50:.2f} s | {p95:.2f} s | {most:.2f} s | "
            f"{len(good) / took:.1f} | {memory_mb(pid):.0f} MB |",
            flush=True,
        )


def trouble(port: int, clip: bytes) -> None:
    """Print what is answered to clients that mean harm or are slow, and what one that is neither waits meanwhile."""
    print("\n| request | answer | after |\n|---|---|---:|")
    huge = b"POST /api/trace HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    cases: dict[str, Callable[[], str]] = {
        "a body of 1 GB, announced": lambda: raw(port, huge + b"Content-Length: 1073741824\r\n\r\n"),
        "a body of 1 GB, not announced": lambda: endless(port, huge + b"Transfer-Encoding: chunked\r\n\r\n"),
        "a file that is no audio": lambda: said(trace(port, b"RIFF" + clip[100:2000])),
        "a truncated file": lambda: said(trace(port, clip[:20_000])),
        "a file named `../../etc/passwd`": lambda: said(trace(port, clip, name="../../etc/passwd")),
        "half a head, then nothing": lambda: raw(port, b"POST /api/trace HTT"),
        "one clip while 200 clients send half a head": lambda: beside(port, clip, clients=200),
    }
    for name, ask in cases.items():
        start = time.perf_counter()
        answer = ask()
        print(f"| {name} | {answer} | {time.perf_counter() - start:.2f} s |", flush=True)


def trace(port: int, clip: bytes, *, name: str = "clip.wav") -> tuple[int, float, bytes]:
    """Status, seconds and answer of one upload."""
    head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request(
        "POST",
        "/api/trace",
        head + clip + b"\r\n--x--\r\n",
        {"Content-Type": "multipart/form-data; boundary=x"},
    )
    answer = connection.getresponse()
    told = answer.read()
    connection.close()
    return answer.status, time.perf_counter() - start, told


def said(answer: tuple[int, float, bytes]) -> str:
    status, _, told = answer
    content = json.loads(told)
    return f"{status} {content.get('error') or 'file: ' + content['file']}"


def raw(port: int, sent: bytes) -> str:
    """Status line and body of what is answered to these bytes, until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        line.sendall(sent)
        return heard(line)


def endless(port: int, head: bytes) -> str:
    """As `raw`, then chunks up to 1 GB until the server closes, and how many megabytes it let pass."""
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        line.sendall(head + b"%x\r\n%s\r\n" % (len(part), part))
        sent = 0
        try:
            for _ in range(1024):
                line.sendall(b"100000\r\n" + b"0" * 0x100000 + b"\r\n")
                sent += 1
        except OSError:
            pass
        return f"{heard(line)}, {sent} MB sent"


def heard(line: socket.socket) -> str:
    answer = b""
    try:
        while piece := line.recv(65536):
            answer += piece
    except OSError:
        pass
    if not answer:
        return "closed"
    head, _, body = answer.partition(b"\r\n\r\n")
    return f"{head.split(maxsplit=2)[1].decode()} {json.loads(body).get('error', '')}"


def beside(port: int, clip: bytes, *, clients: int) -> str:
    lines = [socket.create_connection(("127.0.0.1", port)) for _ in range(clients)]
    for line in lines:
        line.sendall(b"GET / HT")
    answer = said(trace(port, clip))
    for line in lines:
        line.close()
    return answer


def memory_mb(pid: int) -> float:
    """Resident, from Linux."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def sounds(audio: Path | None, count: int) -> list[np.ndarray]:
    """`count` different clips of SECONDS."""
    size = SECONDS * RATE_HZ
    if audio is not None:
        samples, rate_hz = soundfile.read(audio, always_2d=True)
        size = SECONDS * rate_hz
        whole = np.resize(samples[:, 0], size)
        return [np.roll(whole, number * rate_hz // 10) for number in range(count)]
    rng, time_s = np.random.default_rng(0), np.arange(size) / RATE_HZ
    return [
        0.1 * sum(np.sin(2 * np.pi * k * rng.uniform(90, 220) * time_s) / k for k in range(1, 9))
        + 0.002 * rng.standard_normal(size)
        for _ in range(count)
    ]


def wav(samples: np.ndarray) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, RATE_HZ, format="WAV", subtype="PCM_16")
    return out.getvalue()


if __name__ == "__main__":
    main()
