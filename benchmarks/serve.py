"""`makermark serve` under load: latency, throughput and memory for parallel uploads, and faulty requests.

    python benchmarks/serve.py [--model models] [--audio FILE] [--uploads 50] [--rounds 6] [--threads 0]

Starts the server in its own process and sends requests over the loopback address: `--uploads` clips of 5 s at once,
`--rounds` times, with every response checked; then a slow client, a body of 1 GB, a damaged file and a file with a
path as its name. Without --audio the clips are harmonic tones. Prints Markdown.
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
START = "from makermark.cli.main import main; main()"
VERSIONS_OF = ("fastapi", "starlette", "uvicorn", "torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="models")
    parser.add_argument("--audio", type=Path, help="file to cut the clips from")
    parser.add_argument("--uploads", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    print(f"{processor()}, {os.cpu_count()} logical cores, load {os.getloadavg()[0]:.1f}; ", end="")
    print(", ".join(f"{name} {version(name)}" for name in VERSIONS_OF), end="\n\n")
    clips = [wav(samples) for samples in make_clips(arguments.audio, arguments.uploads)]
    with tempfile.TemporaryDirectory() as scratch:
        options = ["--port", "0", "--model", arguments.model, "--gallery", f"{scratch}/gallery.arrow"]
        options += ["--per-minute", "100000", "--burst", "1000", "--threads", str(arguments.threads)]
        with subprocess.Popen(
            [sys.executable, "-c", START, "serve", *options], stdout=subprocess.PIPE, text=True
        ) as server:
            try:
                assert server.stdout is not None
                port = int(re.search(r":(\d+) ", server.stdout.readline())[1])  # type: ignore[index]
                measure_load(port, server.pid, clips, rounds=arguments.rounds)
                send_faulty_requests(port, clips[0])
            finally:
                server.terminate()


def measure_load(port: int, pid: int, clips: list[bytes], *, rounds: int) -> None:
    """Print the number of responses, their latency and the server's memory for each round."""
    single = [trace(port, clips[0])[1] for _ in range(5)]
    print(f"One clip of {SECONDS} s alone: median {1000 * np.median(single):.0f} ms.\n")
    print(
        f"| round of {len(clips)} at once | answered | p50 | p95 | slowest | clips/s | memory of the server |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    print(f"| before | | | | | | {memory_mb(pid):.0f} MB |")
    for number in range(1, rounds + 1):
        start = time.perf_counter()
        with ThreadPoolExecutor(len(clips)) as pool:
            responses = list(pool.map(lambda clip: trace(port, clip), clips))
        elapsed = time.perf_counter() - start
        latencies = [
            seconds for status, seconds, body in responses if status == 200 and json.loads(body)["verdict"]
        ]
        p50, p95, slowest = np.percentile(latencies, [50, 95, 100])
        print(
            f"| {number} | {len(latencies)} of {len(clips)} | {p50:.2f} s | {p95:.2f} s | {slowest:.2f} s | "
            f"{len(latencies) / elapsed:.1f} | {memory_mb(pid):.0f} MB |",
            flush=True,
        )


def send_faulty_requests(port: int, clip: bytes) -> None:
    """Print the responses to malicious and slow clients, and to a normal client beside slow ones."""
    print("\n| request | response | after |\n|---|---|---:|")
    huge = b"POST /api/trace HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    cases: dict[str, Callable[[], str]] = {
        "a body of 1 GB, announced": lambda: send_bytes(port, huge + b"Content-Length: 1073741824\r\n\r\n"),
        "a body of 1 GB, not announced": lambda: send_endless_body(
            port, huge + b"Transfer-Encoding: chunked\r\n\r\n"
        ),
        "a file that is not audio": lambda: summarise(trace(port, b"RIFF" + clip[100:2000])),
        "a truncated file": lambda: summarise(trace(port, clip[:20_000])),
        "a file named `../../etc/passwd`": lambda: summarise(trace(port, clip, name="../../etc/passwd")),
        "half a request head, then nothing": lambda: send_bytes(port, b"POST /api/trace HTT"),
        "one clip while 200 clients send half a request head": lambda: trace_beside_slow_clients(
            port, clip, clients=200
        ),
    }
    for name, send in cases.items():
        start = time.perf_counter()
        response = send()
        print(f"| {name} | {response} | {time.perf_counter() - start:.2f} s |", flush=True)


def trace(port: int, clip: bytes, *, name: str = "clip.wav") -> tuple[int, float, bytes]:
    """Upload a clip; return status, seconds and body of the response."""
    head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request(
        "POST",
        "/api/trace",
        head + clip + b"\r\n--x--\r\n",
        {"Content-Type": "multipart/form-data; boundary=x"},
    )
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, time.perf_counter() - start, content


def summarise(response: tuple[int, float, bytes]) -> str:
    status, _, body = response
    content = json.loads(body)
    return f"{status} {content.get('error') or 'file: ' + content['file']}"


def send_bytes(port: int, content: bytes) -> str:
    """Send these bytes; return status and error of the response once the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(content)
        return read_response(connection)


def send_endless_body(port: int, head: bytes) -> str:
    """As `send_bytes`, then chunks up to 1 GB until the server closes; also return how many megabytes were sent."""
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head + b"%x\r\n%s\r\n" % (len(part), part))
        sent = 0
        try:
            for _ in range(1024):
                connection.sendall(b"100000\r\n" + b"0" * 0x100000 + b"\r\n")
                sent += 1
        except OSError:
            pass
        return f"{read_response(connection)}, {sent} MB sent"


def read_response(connection: socket.socket) -> str:
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except OSError:
        pass
    if not received:
        return "closed"
    head, _, body = received.partition(b"\r\n\r\n")
    return f"{head.split(maxsplit=2)[1].decode()} {json.loads(body).get('error', '')}"


def trace_beside_slow_clients(port: int, clip: bytes, *, clients: int) -> str:
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(clients)]
    for connection in connections:
        connection.sendall(b"GET / HT")
    response = summarise(trace(port, clip))
    for connection in connections:
        connection.close()
    return response


def memory_mb(pid: int) -> float:
    """Return the resident memory of a process (Linux)."""
    match = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) / 1024 if match else float("nan")


def make_clips(audio: Path | None, count: int) -> list[np.ndarray]:
    """Return `count` different clips of SECONDS."""
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
