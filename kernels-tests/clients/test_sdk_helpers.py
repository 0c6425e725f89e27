"""What the SDKs of OpenAI and Anthropic offer above plain requests: answers as types, event streams, runners of tools,
asynchronous and raw clients, pages of models, counts of tokens."""
import asyncio
import os

import anthropic
import ollama
import openai
import pytest
from pydantic import BaseModel

HOST = f"http://{os.environ['OLLAMA_HOST']}"
TOM = [{"role": "user", "content": "Tom is 7 years old."}]
HELLO = [{"role": "user", "content": "Say hello."}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

# A small model that reasons: it is shown once how, and the template begins its reasoning where that is wanted.
THINKER = """{{- if .Tools }}<|im_start|>system
You may call one or more functions to assist with the user query.

The functions:
{{- range .Tools }}
{{ .Function.Name }}: {{ .Function.Description }}. Arguments: {{ range $name, $_ := .Function.Parameters.Properties }}{{ $name }} {{ end }}
{{- end }}

For each function call, return a json object with function name and arguments:
{"name": <function-name>, "arguments": <args-json-object>}<|im_end|>
{{ if .Think }}<|im_start|>user
Who is Tom?<|im_end|>
<|im_start|>assistant
<think>
I look up Tom.
</think>
{"name": "find_person", "arguments": {"name": "Tom"}}<|im_end|>
{{ end }}
{{- end }}
{{- range .Messages }}
{{- if eq .Role "assistant" }}<|im_start|>assistant
{{ if .Thinking }}<think>
{{ .Thinking }}
</think>
{{ end }}{{ .Content }}
{{- range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}{{ end }}<|im_end|>
{{ else if eq .Role "tool" }}<|im_start|>user
Result of the function: {{ .Content }}. Answer my question in words.<|im_end|>
{{ else }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}
{{- end }}<|im_start|>assistant
{{ if .Think }}<think>
{{ end }}"""


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def thinker():
    client = ollama.Client(host=HOST)
    client.create(model="thinker", from_="qwen", template=THINKER)
    yield "thinker"
    client.delete("thinker")


@pytest.fixture(scope="module")
def gpt():
    return openai.OpenAI(base_url=f"{HOST}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def claude():
    return anthropic.Anthropic(base_url=HOST, api_key="none", max_retries=0)


def test_openai_parses_into_types(gpt):
    ask = {"model": "qwen", "temperature": 0}
    chat = gpt.chat.completions.parse(messages=TOM, response_format=Person, **ask)
    assert chat.choices[0].message.parsed.age == 7
    with gpt.chat.completions.stream(messages=TOM, response_format=Person, **ask) as stream:
        kinds = {event.type for event in stream}
        assert stream.get_final_completion().choices[0].message.parsed.age == 7
    assert {"content.delta", "content.done"} <= kinds
    tool = openai.pydantic_function_tool(Person)
    called = gpt.chat.completions.parse(messages=TOM, tools=[tool], tool_choice="required", max_tokens=100, **ask)
    assert called.choices[0].message.tool_calls[0].function.parsed_arguments.age == 7
    assert gpt.responses.parse(input=TOM[0]["content"], text_format=Person, **ask).output_parsed.age == 7
    with gpt.responses.stream(input=TOM[0]["content"], text_format=Person, **ask) as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_parsed.age == 7
    assert kinds[:2] == ["response.created", "response.in_progress"] and kinds[-1] == "response.completed"


def test_openai_streams_reasoning_and_a_call(gpt, thinker):
    flat = {"type": "function", "name": "get_weather", "description": "Get the weather of a city", "parameters": CITY}
    ask = {"model": thinker, "temperature": 0}
    with gpt.responses.stream(input=WEATHER, tools=[flat], max_output_tokens=200, **ask) as stream:
        events = list(stream)
        final = stream.get_final_response()
    reasoning, call = final.output
    assert (reasoning.type, call.type, call.name) == ("reasoning", "function_call", "get_weather")
    deltas = [event.delta for event in events if event.type == "response.reasoning_summary_text.delta"]
    assert "".join(deltas) == reasoning.summary[0].text and len(deltas) > 1
    assert final.usage.output_tokens_details.reasoning_tokens > 0
    nested = {"type": "function", "function": {key: flat[key] for key in ("name", "description", "parameters")}}
    chunks = list(gpt.chat.completions.create(messages=WEATHER, tools=[nested], max_tokens=200, stream=True, **ask))
    thought = "".join(getattr(c.choices[0].delta, "reasoning", None) or "" for c in chunks)
    calls = [call for c in chunks for call in c.choices[0].delta.tool_calls or []]
    assert thought == reasoning.summary[0].text and [c.function.arguments for c in calls] == [call.arguments]


def test_reasoning_comes_before_a_format(gpt, thinker):
    once = {"role": "user", "content": "Ann is 5 years old."}
    thought, answer = "I write down the name and the age of Ann.", '{"name": "Ann", "age": 5}'
    schema = Person.model_json_schema()
    turns = [once, {"role": "assistant", "thinking": thought, "content": answer}, *TOM]
    options = {"temperature": 0, "num_predict": 200}
    ask = {"model": thinker, "messages": turns, "think": True, "format": schema, "options": options}
    whole = ollama.Client(host=HOST).chat(**ask).message
    assert whole.thinking and Person.model_validate_json(whole.content).age == 7
    parts = [chunk.message for chunk in ollama.Client(host=HOST).chat(**ask, stream=True)]
    assert "".join(part.thinking or "" for part in parts) == whole.thinking
    assert "".join(part.content for part in parts) == whole.content
    began = next(i for i, part in enumerate(parts) if part.content)
    assert began > 1 and not any(part.thinking for part in parts[began + 1:])
    turns = [once, {"role": "assistant", "reasoning": thought, "content": answer}, *TOM]
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    ask = {"model": thinker, "messages": turns, "response_format": form, "temperature": 0, "max_tokens": 200}
    same = gpt.chat.completions.create(**ask, reasoning_effort="medium").choices[0].message
    assert same.reasoning and Person.model_validate_json(same.content).age == 7


def test_openai_log_probabilities_and_counts_of_responses(gpt):
    ask = {"model": "qwen", "input": "Say hello."}
    answer = gpt.responses.create(
        **ask, temperature=0, max_output_tokens=4, include=["message.output_text.logprobs"], top_logprobs=2
    )
    part = answer.output[0].content[0]
    assert "".join(entry.token for entry in part.logprobs) == part.text
    assert [len(entry.top_logprobs) for entry in part.logprobs] == [2] * 4
    assert gpt.responses.input_tokens.count(**ask).input_tokens == answer.usage.input_tokens
    with pytest.raises(openai.BadRequestError, match="input is required"):
        gpt.responses.create(model="qwen")


def test_raw_and_asynchronous_clients(gpt):
    ask = {"model": "qwen", "messages": HELLO, "max_tokens": 4}
    with gpt.chat.completions.with_streaming_response.create(**ask) as response:
        assert response.headers["content-type"] == "application/json"
        assert response.parse().usage.completion_tokens == 4

    async def both():
        async with openai.AsyncOpenAI(base_url=f"{HOST}/v1", api_key="none", max_retries=0) as client:
            answers = [client.responses.create(model="qwen", input="Say hello.", max_output_tokens=4) for _ in range(4)]
            statuses = [answer.status for answer in await asyncio.gather(*answers)]
            stream = await client.chat.completions.create(**ask, stream=True)
            reasons = [chunk.choices[0].finish_reason async for chunk in stream]
        async with anthropic.AsyncAnthropic(base_url=HOST, api_key="none", max_retries=0) as client:
            async with client.messages.stream(**ask) as stream:
                text = "".join([piece async for piece in stream.text_stream])
                final = await stream.get_final_message()
        return statuses, reasons[-1], (text, final.content[0].text)

    statuses, reason, (text, whole) = asyncio.run(both())
    assert (statuses, reason) == (["incomplete"] * 4, "length") and text == whole


def test_anthropic_parses_into_types(claude):
    ask = {"model": "qwen", "max_tokens": 60, "messages": TOM, "output_format": Person}
    assert claude.messages.parse(**ask).parsed_output.age == 7
    with claude.messages.stream(**ask) as stream:
        assert stream.get_final_message().parsed_output.age == 7


def test_anthropic_runs_tools(claude):
    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """Get the weather of a city."""
        return f"It is 21 degrees in {city}."

    runner = claude.beta.messages.tool_runner(
        model="tooler", max_tokens=60, tools=[get_weather], messages=WEATHER, extra_body={"temperature": 0}
    )
    call, answer = runner
    assert [block.type for block in call.content] == ["tool_use"] and "21" in answer.content[0].text


def test_anthropic_streams_thinking_and_a_call(claude, thinker):
    tool = {"name": "get_weather", "description": "Get the weather of a city", "input_schema": CITY}
    prompt = {"model": thinker, "tools": [tool], "thinking": {"type": "enabled", "budget_tokens": 1024}}
    ask = {**prompt, "max_tokens": 200, "extra_body": {"temperature": 0}}
    turns = list(WEATHER)
    with claude.messages.stream(messages=turns, **ask) as stream:
        events = list(stream)
        message = stream.get_final_message()
    thought, use = message.content
    assert (thought.type, use.type, use.input) == ("thinking", "tool_use", {"city": "Paris"})
    assert message.stop_reason == "tool_use" and isinstance(thought.signature, str)
    assert "".join(event.thinking for event in events if event.type == "thinking") == thought.thinking
    kinds = [event.type for event in events if event.type.startswith("content_block_st") or event.type == "input_json"]
    block = ["content_block_start", "content_block_stop"]
    assert kinds == [*block, block[0], "input_json", block[1]]
    for messages, usage in [(turns, message.usage), (answered(turns, message), None)]:
        usage = usage or claude.messages.create(messages=messages, **ask).usage
        counted = claude.messages.count_tokens(messages=messages, **prompt).input_tokens
        assert counted == usage.input_tokens + usage.cache_read_input_tokens


def answered(turns, message):
    """The conversation with the call in it, reasoning and all, and its result."""
    result = {"type": "tool_result", "tool_use_id": message.content[-1].id, "content": "It is 21 degrees."}
    return [*turns, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]


def test_anthropic_models(claude):
    page = claude.models.list()
    assert {"qwen:latest", "smollm2:latest"} <= {model.id for model in page} and page.has_more is False
    assert all(model.type == "model" and model.created_at.year >= 2025 and model.display_name for model in page)
    assert claude.models.retrieve("qwen").id == "qwen"
    with pytest.raises(anthropic.NotFoundError):
        claude.models.retrieve("nosuch")
