"""What a server meets that no friendly client does: benches/serve/hardships.py COKV MODEL [CHECK …]

    idle      1,000 connections that say nothing, and one that asks
    slow      a client that reads a byte a second, beside one that reads; a head and a body that never come to their end
    soak      a minute of clients that leave at random moments: the memory is as before, and the ledger is the buffers
    save      kill -9 while documents are saved: what is there afterwards is whole, or is not there
    full      a disk that is full (root mounts one of 1 MiB): saving says so, and nothing else ends
    beside    the same answer alone and among 15 others, 200 times

MODEL as `cokv serve --model` takes it. Nothing beside Python is needed. Prints a line of JSON for each; the first thing that is not as it
should be ends it.
"""

import asyncio
import json
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

WORDS = "river stone cloud paper green winter engine market letter window garden silver bridge candle forest orange".split()


def text(words: int, seed: int) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(words))


class Server:
    """A server of its own, at a port that is free."""

    def __init__(self, *options: str):
        command = [sys.argv[1], "serve", "--model", sys.argv[2], "--device", "cpu", "--port", "0", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if found := re.search(r"at http://127.0.0.1:(\d+)/v1", line):
                self.port = int(found[1])
                break
        else:
            sys.exit("the server did not start")
        # Whoever writes to a pipe that nobody reads waits in the end.
        self.drain = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)

    def ask(self, path: str, body=None, timeout: float = 120.0, method: str = None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                said = answer.read().decode()
                return answer.status, json.loads(said) if said.startswith(("{", "[")) else said
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read().decode())

    def complete(self, prompt: str, tokens: int, **more):
        return self.ask("/v1/completions", dict(model="cokv", prompt=prompt, max_tokens=tokens, temperature=0, ignore_eos=True, **more))

    def metric(self, name: str) -> float:
        said = self.ask("/metrics")[1]
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+-]+)$", said, re.M))

    def resident(self) -> int:
        pages = pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * 4096

    def kill(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait()
        self.drain.wait()


def say(check: str, **figures) -> None:
    print(json.dumps({"check": check, **figures}), flush=True)


def must(is_so: bool, what: str) -> None:
    if not is_so:
        sys.exit(f"not as it should be: {what}")


def request(port: int, path: str, body: bytes, length: int = None) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
    return head.encode() + body


def idle() -> None:
    server = Server()
    before = server.resident()
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(1000)]
    started = time.perf_counter()
    status, _ = server.complete("Hello", 8)
    waited = time.perf_counter() - started
    must(status == 200, "somebody asks beside 1,000 who are silent")
    grown = server.resident() - before
    time.sleep(max(0.0, 12.0 - waited))
    started = time.perf_counter()
    must(server.complete("Hello", 8)[0] == 200, "and once more")
    say("idle", connections=len(silent), first_answer_after=round(waited, 2), later=round(time.perf_counter() - started, 3), grown_mib=round(grown / 2**20, 1))
    server.kill()


def slow() -> None:
    server = Server()
    body = json.dumps(dict(model="cokv", prompt="Once", max_tokens=200, temperature=0, ignore_eos=True, stream=True)).encode()
    alone = timed(lambda: server.complete("Once upon", 100))
    lazy = socket.socket()
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    lazy.connect(("127.0.0.1", server.port))
    lazy.sendall(request(server.port, "/v1/completions", body))
    read = 0
    for _ in range(3):
        read += len(lazy.recv(1))
        time.sleep(1)
    beside = timed(lambda: server.complete("Once upon", 100))
    running = server.metric("cokv_requests_running")
    must(running == 0, "an answer is written whether it is read or not")
    for name, sent in [("head", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-A: "), ("body", request(server.port, "/v1/completions", b"{", 100))]:
        started = time.perf_counter()
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        connection.sendall(sent)
        answer = connection.recv(4096)
        say("slow", what=f"a {name} that never ends", seconds=round(time.perf_counter() - started, 1), answer=answer.split(b"\r\n")[0].decode())
    say("slow", what="a byte a second", bytes_read=read, alone=round(alone, 2), beside=round(beside, 2))
    lazy.close()
    server.kill()


def timed(work) -> float:
    started = time.perf_counter()
    must(work()[0] == 200, "an answer")
    return time.perf_counter() - started


async def leaves(port: int, draw: random.Random, until: float, counts: dict) -> None:
    """Asks, and leaves: before, while or after it is answered."""
    while time.perf_counter() < until:
        prompt = text(draw.randint(5, 400), draw.randint(0, 30))
        stream, choices = draw.random() < 0.7, draw.choice([1, 1, 1, 3])
        asked = dict(model="cokv", prompt=prompt, max_tokens=draw.randint(1, 120), stream=stream, n=choices, temperature=draw.choice([0, 1]))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sent = request(port, "/v1/completions", json.dumps(asked).encode())
        writer.write(sent[: draw.randint(1, len(sent))] if draw.random() < 0.05 else sent)
        patience = draw.choice([0.0, 0.01, 0.1, 0.5, 2.0, 60.0])
        try:
            await asyncio.wait_for(until_the_end(reader), patience)
            counts["ended"] += 1
        except asyncio.TimeoutError:
            counts["left"] += 1
        writer.close()


async def until_the_end(reader) -> None:
    while line := await reader.readline():
        if line.startswith(b"data: [DONE]") or line.startswith(b"HTTP/1.1 4"):
            return
        if line.lower().startswith(b"content-length:"):
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(line.split(b":")[1]))
            return


def soak(seconds: float = 60.0) -> None:
    server = Server("--cache-memory", "64 MiB")
    server.complete("Hello", 8)
    before, counts = server.resident(), dict(ended=0, left=0)

    async def all_of_them() -> None:
        until = time.perf_counter() + seconds
        await asyncio.gather(*(leaves(server.port, random.Random(seed), until, counts) for seed in range(24)))

    asyncio.run(all_of_them())
    for _ in range(100):
        if server.metric("cokv_requests_running") == 0 and server.metric("cokv_requests_waiting") == 0:
            break
        time.sleep(0.1)
    must(server.metric("cokv_requests_running") == 0, "nobody runs any more")
    must(server.metric("cokv_ledger_error_bytes") == 0, "the ledger is the buffers")
    must(server.complete("Hello", 8)[0] == 200, "the server answers")
    grown = server.resident() - before
    say("soak", seconds=seconds, **counts, ledger_error=0, grown_mib=round(grown / 2**20, 1), cache_mib=64)
    server.kill()


def save(kills: int = 20) -> None:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cokv-saves-"))
    whole = absent = partial = 0
    for turn in range(kills):
        server = Server("--cache-dir", str(folder))
        name = f"document-{turn}"
        made = server.ask("/v1/cokv/documents", dict(id=name, text=text(300, turn)))
        must(made[0] == 201, f"a document is made: {made}")
        body = request(server.port, f"/v1/cokv/documents/{name}/save", json.dumps(dict(name=name)).encode())
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.sendall(body)
        time.sleep(random.uniform(0.0, 0.4))
        server.kill()
        partial += sum(1 for file in folder.iterdir() if not file.name.endswith(".cokv.safetensors"))
        server = Server("--cache-dir", str(folder))
        status, said = server.ask("/v1/cokv/documents/load", dict(name=name))
        is_absent = status == 400 and "no such file" in said["error"]["message"]
        whole, absent = whole + (status in (200, 201)), absent + is_absent
        must(status in (200, 201) or is_absent, f"a document is whole or absent: {said}")
        server.kill()
    say("save", kills=kills, whole=whole, absent=absent, parts_left_behind=partial)
    shutil.rmtree(folder)


def full() -> None:
    folder = tempfile.mkdtemp(prefix="cokv-full-")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    try:
        server = Server("--cache-dir", folder)
        made = server.ask("/v1/cokv/documents", dict(id="long", text=text(300, 1)))
        must(made[0] == 201, f"a document is made: {made}")
        status, said = server.ask("/v1/cokv/documents/long/save", dict(name="long"))
        must(status >= 400 and not list(pathlib.Path(folder).iterdir()), f"what does not fit is said, and leaves nothing: {said}")
        must(server.complete("Hello", 8)[0] == 200, "the server answers")
        say("full", status=status, said=said["error"]["message"])
        server.kill()
    finally:
        subprocess.run(["umount", folder])


def beside(trials: int = 200) -> None:
    server = Server("--parallel", "16", "--queue", "64")
    differ = 0

    async def trial(seed: int) -> None:
        nonlocal differ
        prompt = text(60 + seed % 50, 10_000 + seed)
        loop = asyncio.get_running_loop()
        ask = lambda prompt, tokens: loop.run_in_executor(None, lambda: server.complete(prompt, tokens, cokv=dict(store=False)))
        alone = (await ask(prompt, 24))[1]["choices"][0]["text"]
        others = [ask(text(random.Random(seed * 100 + other).randint(5, 120), seed * 100 + other), 24) for other in range(15)]
        among = (await ask(prompt, 24))[1]["choices"][0]["text"]
        await asyncio.gather(*others)
        differ += alone != among

    async def all_of_them() -> None:
        for seed in range(trials):
            await trial(seed)

    asyncio.run(all_of_them())
    say("beside", trials=trials, differ=differ)
    must(differ == 0, "an answer does not depend on who else is answered")
    server.kill()


CHECKS = dict(idle=idle, slow=slow, soak=soak, save=save, full=full, beside=beside)
for wanted in sys.argv[3:] or CHECKS:
    CHECKS[wanted]()
