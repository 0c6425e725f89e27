"""Frameworks over the clients: PyPI langchain-ollama, llama-index-llms-ollama, litellm."""
import os

import litellm
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_ollama import ChatOllama, OllamaEmbeddings
from llama_index.core.llms import ChatMessage
from llama_index.llms.ollama import Ollama
from pydantic import BaseModel

HOST = f"http://{os.environ['OLLAMA_HOST']}"
MODEL = "smollm2"


class Person(BaseModel):
    name: str
    age: int


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"It is 21 degrees in {city}."


def test_langchain():
    chat = ChatOllama(model=MODEL, base_url=HOST, temperature=0, num_predict=8)
    whole = chat.invoke("Say hello.")
    assert whole.content and whole.usage_metadata["output_tokens"] == 8
    assert "".join(c.content for c in chat.stream("Say hello.")) == whole.content
    structured = ChatOllama(model="qwen", base_url=HOST, temperature=0, num_predict=60).with_structured_output(Person)
    assert structured.invoke("Tom is 7 years old.").age == 7
    vectors = OllamaEmbeddings(model="minilm", base_url=HOST).embed_documents(["a", "b"])
    assert [len(v) for v in vectors] == [384, 384]


def test_langchain_tools():
    chat = ChatOllama(model="qwen", base_url=HOST, temperature=0, num_predict=60).bind_tools([get_weather])
    question = HumanMessage("What is the weather in Paris? Use the tool.")
    called = chat.invoke([question])
    for call in called.tool_calls:
        assert call["name"] == "get_weather"
    results = [ToolMessage(get_weather("Paris"), tool_call_id=call["id"]) for call in called.tool_calls]
    assert chat.invoke([question, called, *results]).response_metadata["done"]


def test_llama_index():
    llm = Ollama(model=MODEL, base_url=HOST, temperature=0, request_timeout=120, additional_kwargs={"num_predict": 8})
    message = [ChatMessage(role="user", content="Say hello.")]
    whole = llm.chat(message).message.content
    assert whole
    assert list(llm.stream_chat(message))[-1].message.content == whole
    assert llm.complete("Say hello.").text
    qwen = Ollama(model="qwen", base_url=HOST, temperature=0, request_timeout=120, additional_kwargs={"num_predict": 60})
    assert qwen.as_structured_llm(Person).chat([ChatMessage(role="user", content="Tom is 7 years old.")]).raw.age == 7


@pytest.mark.parametrize("provider", ["ollama_chat", "openai"])
def test_litellm(provider):
    base = HOST if provider == "ollama_chat" else f"{HOST}/v1"
    ask = {
        "model": f"{provider}/{MODEL}", "api_base": base, "api_key": "none", "temperature": 0, "max_tokens": 8,
        "messages": [{"role": "user", "content": "Say hello."}],
    }
    whole = litellm.completion(**ask)
    assert whole.choices[0].message.content and whole.usage.completion_tokens == 8
    stream = litellm.completion(**ask, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in stream) == whole.choices[0].message.content
    with pytest.raises(litellm.exceptions.NotFoundError):
        litellm.completion(**{**ask, "model": f"{provider}/nosuch"})


def test_litellm_anthropic():
    reply = litellm.completion(
        model=f"anthropic/{MODEL}", api_base=HOST, api_key="none", max_tokens=8, temperature=0,
        messages=[{"role": "user", "content": "Say hello."}],
    )
    assert reply.choices[0].message.content and reply.usage.completion_tokens == 8
