"""Load on an OpenAI-compatible server: what clients wait for, as lines of JSON.

    python benches/serve/load.py http://127.0.0.1:8080 s1 s3 --document 8000 --clients 8

Nothing beside Python is needed. Scenarios, of /v1/chat/completions, streamed, at temperature 0:

    s1  one client, a prompt of 512 words of text, 128 tokens
    s2  the same for --clients at once, each with a text of its own
    s3  --clients at once ask about one warm text of --document tokens, 64 tokens each; with --name they name a document of cokv's instead
    s4  --clients at once send the same cold text of --document tokens
    s5  four clients stream while a text of --document tokens arrives: the largest gap between two of their tokens
    s6  --chats conversations of --document tokens each, two turns, the second once all have had the first; --clients at a time
"""

import argparse
import asyncio
import json
import random
import time
from urllib.parse import urlparse

WORDS = (
    "river stone cloud paper green winter engine market letter window garden silver bridge candle forest orange "
    "harbour pencil thunder velvet island copper meadow lantern mirror planet shadow ticket valley wagon"
).split()


def text(words: int, seed: int) -> str:
    """Sentences that nobody has read before."""
    draw = random.Random(seed)
    sentences = []
    while words > 0:
        sentences.append(f"The {draw.choice(WORDS)} of {draw.choice(WORDS)} number {draw.randint(0, 9999)} is near the {draw.choice(WORDS)}.")
        words -= 10
    return " ".join(sentences)


async def ask(base: str, messages: list, tokens: int, extra: dict) -> dict:
    """One streamed answer: when each token came, and what the server says it took."""
    url = urlparse(base)
    body = json.dumps({
        "model": "cokv", "messages": messages, "max_tokens": tokens, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True}, "ignore_eos": True, **extra,
    }).encode()
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection(url.hostname, url.port or 80, limit=1 << 24)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    status = int((await reader.readline()).split()[1])
    times, usage, said = [], {}, ""
    while line := await reader.readline():
        line = line.decode().strip()
        if not line.startswith("data: "):
            if status != 200 and line.startswith("{"):
                raise RuntimeError(line)
            continue
        if line == "data: [DONE]":
            break
        event = json.loads(line[6:])
        if "error" in event:
            raise RuntimeError(line)
        usage = event.get("usage") or usage
        for choice in event.get("choices", []):
            if choice["delta"].get("content"):
                times.append(time.perf_counter() - started)
                said += choice["delta"]["content"]
    writer.close()
    gaps = [later - earlier for earlier, later in zip(times, times[1:])]
    return {"first": times[0], "gaps": gaps, "seconds": time.perf_counter() - started, "usage": usage, "said": said}


def cached_tokens(answer: dict):
    """Of the prompt, where the server says it."""
    return answer["usage"].get("prompt_tokens_details", {}).get("cached_tokens")


def show(scenario: str, answers: list, seconds: float, **more) -> None:
    """A line of JSON."""
    gaps = sorted(gap for answer in answers for gap in answer["gaps"]) or [0.0]
    firsts = sorted(answer["first"] for answer in answers)
    generated = sum(answer["usage"].get("completion_tokens", len(answer["gaps"]) + 1) for answer in answers)
    cached = [cached_tokens(answer) for answer in answers]
    print(json.dumps({
        "scenario": scenario, "clients": len(answers), "seconds": round(seconds, 3),
        "requests_per_second": round(len(answers) / seconds, 3), "tokens_per_second": round(generated / seconds, 1),
        "first_token_median": round(firsts[len(firsts) // 2], 3), "first_token_last": round(firsts[-1], 3),
        "gap_median_ms": round(1000 * gaps[len(gaps) // 2], 1), "gap_99_ms": round(1000 * gaps[int(len(gaps) * 0.99)], 1),
        "gap_largest_ms": round(1000 * gaps[-1], 1), "prompt_tokens": answers[0]["usage"].get("prompt_tokens"), "cached": cached, **more,
    }), flush=True)


async def together(asked: list) -> tuple:
    started = time.perf_counter()
    answers = await asyncio.gather(*asked)
    return list(answers), time.perf_counter() - started


async def chats(options, seed: int, turn: int) -> None:
    """Conversations in two turns: how much of the second was there already, and what failed."""
    failed, said = 0, {}
    at_once = asyncio.Semaphore(options.clients)

    async def one(chat: int, messages: list) -> dict:
        nonlocal failed
        async with at_once:
            try:
                return await ask(options.server, messages, 16, {})
            except RuntimeError as error:
                failed += 1
                print(error)
                return {}

    begun = lambda chat: [{"role": "user", "content": text(int(options.document / 1.45), seed * 1000 + chat) + "\n\nSum it up."}]
    started = time.perf_counter()
    for chat, answer in enumerate(await asyncio.gather(*(one(chat, begun(chat)) for chat in range(options.chats)))):
        said[chat] = answer.get("said", "")
    more = lambda chat: begun(chat) + [{"role": "assistant", "content": said[chat]}, {"role": "user", "content": "And in a word?"}]
    answers = [answer for answer in await asyncio.gather(*(one(chat, more(chat)) for chat in range(options.chats))) if answer]
    seconds = time.perf_counter() - started
    prompts = sum(answer["usage"]["prompt_tokens"] for answer in answers)
    cached = [cached_tokens(answer) or 0 for answer in answers]
    hits = sum(tokens > options.document / 2 for tokens in cached)
    print(json.dumps({
        "scenario": "s6", "chats": options.chats, "failed": failed, "seconds": round(seconds, 1), "second_turns_that_went_on": hits,
        "cached_share_of_second_turns": round(sum(cached) / max(prompts, 1), 3), "prompt_tokens": prompts // max(len(answers), 1), "round": turn,
    }), flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server")
    parser.add_argument("scenarios", nargs="+", choices=["s1", "s2", "s3", "s4", "s5", "s6"])
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--chats", type=int, default=64)
    parser.add_argument("--document", type=int, default=8000, help="tokens, about")
    parser.add_argument("--name", help="a document of cokv's to ask about in s3")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    seed = options.seed
    # A sentence of ten words has about thirteen tokens.
    document = text(int(options.document / 1.45), seed)
    user = lambda content: [{"role": "user", "content": content}]
    extra = {"cokv": {"document": options.name}} if options.name else {}
    for scenario in options.scenarios:
        if scenario == "s3":
            await ask(options.server, user("Hello.") if options.name else user(document + "\n\nHello."), 1, extra)
        for turn in range(options.rounds):
            seed += 1
            if scenario == "s1":
                answers, seconds = await together([ask(options.server, user(text(350, seed)), 128, {})])
            elif scenario == "s2":
                asked = [ask(options.server, user(text(350, seed * 100 + client)), 128, {}) for client in range(options.clients)]
                answers, seconds = await together(asked)
            elif scenario == "s3":
                question = lambda client: text(40, seed * 100 + client) + " What is near the river?"
                say = lambda client: question(client) if options.name else f"{document}\n\n{question(client)}"
                answers, seconds = await together([ask(options.server, user(say(client)), 64, extra) for client in range(options.clients)])
            elif scenario == "s4":
                cold = text(int(options.document / 1.45), seed * 7919)
                answers, seconds = await together([ask(options.server, user(f"{cold}\n\nWhat is near the {WORDS[client]}?"), 16, {}) for client in range(options.clients)])
            elif scenario == "s6":
                await chats(options, seed, turn)
                continue
            else:
                streams = [asyncio.create_task(ask(options.server, user(text(50, seed * 100 + client)), 400, {})) for client in range(4)]
                await asyncio.sleep(2)
                long, _ = await together([ask(options.server, user(text(int(options.document / 1.45), seed * 104729) + "\n\nWhat?"), 4, {})])
                answers, seconds = await together(streams)
                show(scenario, answers, seconds, round=turn, long_first_token=round(long[0]["first"], 3), long_prompt_tokens=long[0]["usage"].get("prompt_tokens"))
                continue
            show(scenario, answers, seconds, round=turn)


asyncio.run(main())
