"""Writes conversations.json and rendered.json into a folder: conversations, and what transformers' `apply_chat_template` makes of them, template by
template."""

import json
import sys
from pathlib import Path

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

HERE = Path(__file__).parent
TOKENS = {
    "llama2": ("<s>", "</s>"),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>"),
    "llama3_1": ("<|begin_of_text|>", "<|eot_id|>"),
    "llama3_2": ("<|begin_of_text|>", "<|eot_id|>"),
    "mistral_nemo": ("<s>", "</s>"),
    "qwen2_5": (None, "<|im_end|>"),
    "qwen3": (None, "<|im_end|>"),
    "smollm2": ("<|im_start|>", "<|im_end|>"),
}


def said(role, content, **more):
    return {"role": role, "content": content, **more}


def tool(name, description, properties, **more):
    parameters = {"type": "object", "properties": properties, "required": list(properties)[:1]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters, **more}}


def call(name, arguments, id="a1B2c3D4e"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = said("system", "  You answer in one sentence.\n")
WEATHER = tool("weather", "The weather <now> & \"here\": 'é'", {
    "city": {"type": "string", "description": "Zürich, 東京 …"},
    "days": {"type": "number", "minimum": 0.5, "maximum": 1e16, "enum": [1e-7, 2, 3.0], "default": None},
    "at": {"type": "object", "properties": {}, "additionalProperties": False},
})
NOW = tool("now", "The time", {"zone": {"type": "string"}})
QUESTION = said("user", "How is the weather in Zürich?\n\n")
CALLED = said("assistant", "", tool_calls=[call("weather", {"city": "Zürich", "days": 1.5, "at": {}})])
RESULT = said("tool", '{"sky": "blue"}', tool_call_id="a1B2c3D4e", name="weather")

CONVERSATIONS = {
    "one message": {"messages": [said("user", "Hello, who are you?")]},
    "white space and lines": {"messages": [said("user", "\n  one\n\n\ttwo 'q' \"d\" <b>&amp;\\n {{ x }} \u00a0 ")]},
    "a system message": {"messages": [SYSTEM, said("user", "Why?")]},
    "several turns": {"messages": [
        SYSTEM, said("user", "One?"), said("assistant", " Yes. "), said("user", "Zwei?"),
        said("assistant", "<think>\nhm\n</think>\n\nJa."), said("user", "trois ? 三？ 🤗"),
    ]},
    "no answer follows": {"messages": [said("user", "One?"), said("assistant", "Yes.")], "add_generation_prompt": False},
    "an answer goes on": {
        "messages": [said("user", "Count."), said("assistant", "one, two,")],
        "add_generation_prompt": False, "continue_final_message": True,
    },
    "an answer goes on behind a space": {
        "messages": [said("user", "Count."), said("assistant", "one, two, ")],
        "add_generation_prompt": False, "continue_final_message": True,
    },
    "a tool": {"messages": [QUESTION], "tools": [WEATHER]},
    "tools and a system message": {"messages": [SYSTEM, QUESTION], "tools": [WEATHER, NOW]},
    "a call and its result": {"messages": [QUESTION, CALLED, RESULT], "tools": [WEATHER]},
    "a call, its result, and an answer": {
        "messages": [SYSTEM, QUESTION, CALLED, RESULT, said("assistant", "It is blue."), said("user", "Thanks.")],
        "tools": [WEATHER, NOW],
    },
    "two calls": {"messages": [
        QUESTION,
        said("assistant", "Let me see.", tool_calls=[call("weather", {"city": "Bern"}), call("now", {}, "F5g6H7i8J")]),
        RESULT, said("tool", "noon", tool_call_id="F5g6H7i8J", name="now"),
    ], "tools": [WEATHER, NOW]},
    "without thinking": {"messages": [said("user", "Why?")], "kwargs": {"enable_thinking": False, "nobody_asks": [1]}},
    "reasoning": {"messages": [
        said("user", "Why?"), said("assistant", "So.", reasoning_content="Because?"), said("user", "And?"),
    ]},
    "no messages of a user": {"messages": [said("assistant", "Hello.")]},
}


def run(template, name):
    bos, eos = TOKENS[template]
    conversation = {"add_generation_prompt": True, **json.loads(json.dumps(CONVERSATIONS[name]))}
    tokens = {"bos_token": bos, "eos_token": eos} if bos else {"eos_token": eos}
    case = {"template": template, "special": tokens, "conversation": name}
    source = (HERE / "templates" / f"{template}.jinja").read_text()
    messages, tools = conversation.pop("messages"), conversation.pop("tools", None)
    seen = conversation.pop("kwargs", {}) | tokens | {"date_string": "26 Jul 2024"}
    try:
        rendered, _ = render_jinja_template([messages], tools=tools, chat_template=source, **conversation, **seen)
        return case | {"rendered": rendered[0]}
    except (jinja2.exceptions.TemplateError, TypeError, ValueError) as error:
        return case | {"refused": str(error)}


if __name__ == "__main__":
    cases = [run(template, name) for template in TOKENS for name in CONVERSATIONS]
    for name, value in [("conversations", CONVERSATIONS), ("rendered", cases)]:
        with open(f"{sys.argv[1]}/{name}.json", "w") as file:
            json.dump(value, file, ensure_ascii=False, indent=1)
            file.write("\n")
