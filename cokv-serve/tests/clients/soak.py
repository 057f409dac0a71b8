"""Clients that go at random moments: afterwards nothing runs, and the ledger is right."""

import collections
import json
import random
import socket
import sys
import threading
import time
import urllib.request

PORT = int(sys.argv[1])
SECONDS = int(sys.argv[2]) if len(sys.argv) > 2 else 25


def one(draw):
    body = {
        "model": "any",
        "messages": [{"role": "user", "content": "word " * draw.randint(1, 60)}],
        "stream": draw.random() < 0.7,
        "max_tokens": draw.randint(1, 20),
        "n": draw.randint(1, 3),
    }
    if draw.random() < 0.3:
        body["stop"] = ["e", "\n"]
    data = json.dumps(body).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    stays, until, got = draw.random() < 0.3, time.time() + 2 * draw.random(), b""
    with socket.create_connection(("127.0.0.1", PORT)) as connection:
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        connection.settimeout(0.1)
        while stays or time.time() < until:
            try:
                read = connection.recv(4096)
            except TimeoutError:
                continue
            if not read:
                break
            got += read
    return got[:12].decode()


def many(seed):
    draw, end = random.Random(seed), time.time() + SECONDS
    while time.time() < end:
        heads[one(draw)] += 1


heads = collections.Counter()
threads = [threading.Thread(target=many, args=(seed,)) for seed in range(24)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
time.sleep(3)
with urllib.request.urlopen(f"http://localhost:{PORT}/v1/cokv/status") as answer:
    status = json.load(answer)
print(dict(heads), status["bytes"])
assert set(heads) <= {"", "HTTP/1.1 200", "HTTP/1.1 429"}, heads
assert status["running"] == status["waiting"] == status["bytes"]["ledger_error"] == 0, status
