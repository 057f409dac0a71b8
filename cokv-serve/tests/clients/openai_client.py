"""openai-python, strict: answers, streams, log-probabilities, tools, errors, a client that goes, a document."""

import json
import sys
import urllib.request
from typing import Literal

import openai
import pydantic

BASE = sys.argv[1]
client = openai.OpenAI(base_url=f"{BASE}/v1", api_key="any", _strict_response_validation=True)
MODEL = client.models.list().data[0].id
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}]}
create = client.chat.completions.create

assert client.models.retrieve(MODEL).id == MODEL
whole = create(**ASK, max_tokens=8, temperature=0).choices[0].message.content

two = create(**ASK, max_tokens=4, n=2, logprobs=True, top_logprobs=3)
assert len(two.choices) == 2 and len(two.choices[0].logprobs.content[0].top_logprobs) == 3

text, usage = "", None
for chunk in create(**ASK, max_tokens=8, temperature=0, stream=True, stream_options={"include_usage": True}):
    usage = chunk.usage or usage
    text += "".join(choice.delta.content or "" for choice in chunk.choices)
assert text == whole and usage.completion_tokens == 8 and usage.prompt_tokens_details.cached_tokens > 0

with client.chat.completions.stream(**ASK, max_tokens=200, temperature=0) as stream:
    list(stream)
    assert stream.get_final_completion().choices[0].finish_reason == "stop"

raw = client.chat.completions.with_raw_response.create(**ASK, max_tokens=2)
assert raw.headers["x-request-id"] and raw.parse().choices

parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
tool = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": parameters}}
assert create(**ASK, tools=[tool], max_tokens=16).choices

for choice in ["required", {"type": "function", "function": {"name": "get_weather"}}]:
    called = create(**ASK, tools=[tool], tool_choice=choice, temperature=0, max_tokens=64).choices[0]
    (call,) = called.message.tool_calls
    assert called.finish_reason == "tool_calls" and list(json.loads(call.function.arguments)) == ["city"]
    chunks = create(**ASK, tools=[tool], tool_choice=choice, temperature=0, max_tokens=64, stream=True)
    told = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert [call.function.arguments for call in told] == [call.function.arguments]


class Greeting(pydantic.BaseModel):
    language: Literal["English", "French"]
    words: list[Literal["hello", "bonjour"]] = pydantic.Field(min_length=1, max_length=3)


parsed = client.chat.completions.parse(**ASK, response_format=Greeting, n=2, temperature=0.5, seed=1, max_tokens=100)
assert all(isinstance(choice.message.parsed, Greeting) for choice in parsed.choices)
with client.chat.completions.stream(**ASK, response_format=Greeting, temperature=0, max_tokens=100) as stream:
    list(stream)
    assert isinstance(stream.get_final_completion().choices[0].message.parsed, Greeting)

assert len(client.completions.create(model=MODEL, prompt=["a", "b"], max_tokens=4, logprobs=2).choices) == 2


def refused(kind, code, **more):
    try:
        create(**ASK, **more)
    except kind as error:
        assert error.code == code, error
    else:
        raise AssertionError(code)


refused(openai.BadRequestError, "invalid_value", temperature=3)
refused(openai.BadRequestError, "unsupported", extra_body={"guided_json": {}})
refused(openai.BadRequestError, "invalid_schema", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}})
refused(openai.BadRequestError, "context_length_exceeded", max_tokens=10**7)
refused(openai.NotFoundError, "document_not_found", extra_body={"cokv": {"document": "none"}})

try:
    client.with_options(timeout=0.05, max_retries=0).chat.completions.create(**ASK, max_tokens=400, extra_body={"ignore_eos": True})
except openai.APITimeoutError:
    pass

left = create(**ASK, max_tokens=200, stream=True, extra_body={"ignore_eos": True})
next(iter(left))
left.close()

document = {"id": "sky", "text": "The sky is blue because air scatters blue light. " * 8, "compress": {"compressor": "keydiff", "budget": "50%"}}
request = urllib.request.Request(f"{BASE}/v1/cokv/documents", json.dumps(document).encode(), {"Content-Type": "application/json"})
made = json.load(urllib.request.urlopen(request))
asked = create(**ASK, max_tokens=8, extra_body={"cokv": {"document": "sky"}})
assert asked.usage.prompt_tokens_details.cached_tokens == made["tokens"]
assert asked.model_extra["cokv"]["cache"]["state"] == "compressed"
print("openai-python is content")
