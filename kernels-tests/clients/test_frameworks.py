"""Frameworks over the clients: PyPI langchain-ollama, llama-index-llms-ollama, litellm."""
import json
import os

import litellm
import ollama
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_ollama import ChatOllama, OllamaEmbeddings
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.ollama import OllamaEmbedding
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
    with pytest.raises(ollama.ResponseError, match="not found"):
        ChatOllama(model="nosuch", base_url=HOST).invoke("x")


def test_langchain_tools():
    chat = ChatOllama(model="tooler", base_url=HOST, temperature=0, num_predict=60).bind_tools([get_weather])
    question = HumanMessage("What is the weather in Paris?")
    called = chat.invoke([question])
    (call,) = called.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
    chunks = list(chat.stream([question]))
    assert [c["args"] for c in sum(chunks[1:], chunks[0]).tool_calls] == [{"city": "Paris"}]
    result = ToolMessage(get_weather(**call["args"]), tool_call_id=call["id"])
    assert "21" in chat.invoke([question, called, result]).content


def test_llama_index():
    llm = Ollama(model=MODEL, base_url=HOST, temperature=0, request_timeout=120, additional_kwargs={"num_predict": 8})
    message = [ChatMessage(role="user", content="Say hello.")]
    whole = llm.chat(message).message.content
    assert whole
    assert list(llm.stream_chat(message))[-1].message.content == whole
    assert llm.complete("Say hello.").text
    qwen = Ollama(model="qwen", base_url=HOST, temperature=0, request_timeout=120, additional_kwargs={"num_predict": 60})
    assert qwen.as_structured_llm(Person).chat([ChatMessage(role="user", content="Tom is 7 years old.")]).raw.age == 7


def test_llama_index_tools_embeddings_and_errors():
    llm = Ollama(model="tooler", base_url=HOST, temperature=0, request_timeout=120, additional_kwargs={"num_predict": 60})
    tool = FunctionTool.from_defaults(get_weather)
    question = ChatMessage(role="user", content="What is the weather in Paris?")
    called = llm.chat_with_tools([tool], user_msg=question)
    (call,) = llm.get_tool_calls_from_response(called)
    assert (call.tool_name, call.tool_kwargs) == ("get_weather", {"city": "Paris"})
    streamed = list(llm.stream_chat_with_tools([tool], user_msg=question))[-1]
    assert [c.tool_kwargs for c in llm.get_tool_calls_from_response(streamed)] == [{"city": "Paris"}]
    result = ChatMessage(role="tool", content=tool(**call.tool_kwargs).content, additional_kwargs={"tool_name": "get_weather"})
    assert "21" in llm.chat([question, called.message, result]).message.content
    embedder = OllamaEmbedding(model_name="minilm", base_url=HOST)
    one, two = embedder.get_text_embedding_batch(["a", "b"])
    assert (len(one), len(two)) == (384, 384) and one != two
    with pytest.raises(ollama.ResponseError, match="not found"):
        Ollama(model="nosuch", base_url=HOST).complete("x")


@pytest.mark.parametrize("provider", ["ollama_chat", "openai", "anthropic"])
def test_litellm(provider):
    base = f"{HOST}/v1" if provider == "openai" else HOST
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


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather", "description": "Get the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.mark.parametrize("provider", ["ollama_chat", "openai", "anthropic"])
def test_litellm_tools(provider):
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    ask = {
        "model": f"{provider}/tooler", "api_base": f"{HOST}/v1" if provider == "openai" else HOST, "api_key": "none",
        "temperature": 0, "max_tokens": 60, "tools": [WEATHER],
    }
    message = litellm.completion(messages=messages, **ask).choices[0].message
    (call,) = message.tool_calls
    assert call.function.name == "get_weather" and json.loads(call.function.arguments) == {"city": "Paris"}
    chunks = list(litellm.completion(messages=messages, stream=True, **ask))
    (streamed,) = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls
    assert json.loads(streamed.function.arguments) == {"city": "Paris"}
    messages += [message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}]
    assert "21" in litellm.completion(messages=messages, **ask).choices[0].message.content


@pytest.mark.parametrize("provider", ["ollama_chat", "openai"])
def test_litellm_structured_output_and_embeddings(provider):
    base = {"api_base": HOST if provider == "ollama_chat" else f"{HOST}/v1", "api_key": "none"}
    answer = litellm.completion(
        model=f"{provider}/qwen", messages=[{"role": "user", "content": "Tom is 7 years old."}], response_format=Person,
        temperature=0, max_tokens=60, **base,
    )
    assert Person.model_validate_json(answer.choices[0].message.content).age == 7
    # Its provider for Ollama knows no format.
    embedder, form = ("ollama/minilm", {}) if provider == "ollama_chat" else ("openai/minilm", {"encoding_format": "float"})
    vectors = litellm.embedding(model=embedder, input=["a", "b"], **form, **base)
    assert [len(v["embedding"]) for v in vectors.data] == [384, 384]
