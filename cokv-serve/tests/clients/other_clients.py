"""Clients that many programs are written against: litellm, langchain-openai and llm, each one answer and one stream."""

import os
import sys
import tempfile

BASE = f"{sys.argv[1]}/v1"
ASK = "Say hello."
os.environ["LLM_USER_PATH"] = tempfile.mkdtemp()
# It asks GitHub what models cost.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


def of_litellm():
    import litellm

    asked = {"model": "openai/cokv", "api_base": BASE, "api_key": "any", "messages": [{"role": "user", "content": ASK}], "max_tokens": 8, "temperature": 0}
    whole = litellm.completion(**asked).choices[0].message.content
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(**asked, stream=True))
    return whole, streamed


def of_langchain():
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model="cokv", base_url=BASE, api_key="any", max_tokens=8, temperature=0)
    return model.invoke(ASK).content, "".join(chunk.content for chunk in model.stream(ASK))


def of_llm():
    from llm.default_plugins.openai_models import Chat

    model = Chat("cokv", model_name="cokv", api_base=BASE)
    model.key = "any"
    options = {"max_tokens": 8, "temperature": 0}
    return model.prompt(ASK, stream=False, **options).text(), "".join(model.prompt(ASK, stream=True, **options))


for client in [of_litellm, of_langchain, of_llm]:
    whole, streamed = client()
    assert whole and whole == streamed, (client.__name__, whole, streamed)
    print(client.__name__, "is content")
