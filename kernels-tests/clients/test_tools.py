"""Tool calls that must be made: thirty prompts, thirty valid calls, and the round trip of a call and its result."""
import json
import os
from concurrent.futures import ThreadPoolExecutor

import anthropic
import jsonschema
import ollama
import openai
import pytest

HOST = f"http://{os.environ['OLLAMA_HOST']}"
MODEL = "qwen"

TOOLS = {
    "get_weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1, "maximum": 7},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
    },
    "add": {
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    "send_mail": {
        "type": "object",
        "properties": {
            "to": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,12}@example[.]org$"}, "minItems": 1, "maxItems": 2},
            "subject": {"type": "string", "maxLength": 40},
            "urgent": {"type": "boolean"},
        },
        "required": ["to", "subject"],
        "additionalProperties": False,
    },
}
FUNCTIONS = [
    {"type": "function", "function": {"name": name, "description": name.replace("_", " "), "parameters": schema}}
    for name, schema in TOOLS.items()
]
PROMPTS = (
    [f"What is the weather in {city}?" for city in ("Paris", "Oslo", "Lima", "Cairo", "Tokyo", "Rome", "Quito", "Delhi", "Bern", "Perth")]
    + [f"How much is {a} plus {b}?" for a, b in ((1, 2), (3.5, 4), (-7, 9), (100, 250), (0, 0), (12, 13), (8, 8), (1e6, 1), (2, -3), (5, 6))]
    + [f"Write to {name} about {what}." for name in ("anna", "ben") for what in ("lunch", "the report", "a bug", "holidays")]
    + ["Hello!", "Tell me a joke about trees."]
)


@pytest.fixture(scope="module")
def compatible():
    return openai.OpenAI(base_url=f"{HOST}/v1", api_key="none", max_retries=0)


def test_thirty_required_calls_are_valid(compatible):
    assert len(PROMPTS) == 30

    def ask(prompt):
        return compatible.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": prompt}], tools=FUNCTIONS, tool_choice="required",
            parallel_tool_calls=False, temperature=0.7, seed=1, max_tokens=200,
        ).choices[0]

    with ThreadPoolExecutor(8) as pool:
        choices = list(pool.map(ask, PROMPTS))
    for choice in choices:
        assert choice.finish_reason == "tool_calls" and len(choice.message.tool_calls) == 1, choice
        function = choice.message.tool_calls[0].function
        jsonschema.validate(json.loads(function.arguments), TOOLS[function.name])


def test_one_function_is_called_and_its_result_used(compatible):
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    choice = {"type": "function", "function": {"name": "get_weather"}}
    stream = compatible.chat.completions.create(
        model=MODEL, messages=messages, tools=FUNCTIONS, tool_choice=choice, temperature=0, stream=True
    )
    calls = [call for chunk in stream for call in chunk.choices[0].delta.tool_calls or []]
    assert [call.function.name for call in calls] == ["get_weather"]
    call = calls[0].model_dump(exclude={"index"})
    messages += [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "It is 21 degrees and sunny."},
    ]
    answer = compatible.chat.completions.create(model=MODEL, messages=messages, temperature=0, max_tokens=40)
    assert answer.choices[0].message.content and answer.usage.prompt_tokens > 60
    none = compatible.chat.completions.create(
        model=MODEL, messages=messages[:1], tools=FUNCTIONS, tool_choice="none", temperature=0, max_tokens=20
    )
    assert none.choices[0].message.content and not none.choices[0].message.tool_calls


def test_responses(compatible):
    tool = {"type": "function", "name": "add", "description": "add", "parameters": TOOLS["add"], "strict": True}
    answer = compatible.responses.create(
        model=MODEL, input="How much is 2 plus 3?", tools=[tool], tool_choice="required", parallel_tool_calls=False, temperature=0
    )
    call = answer.output[0]
    assert call.type == "function_call" and json.loads(call.arguments) == {"a": 2, "b": 3}
    items = [
        {"role": "user", "content": "How much is 2 plus 3?"}, call.model_dump(),
        {"type": "function_call_output", "call_id": call.call_id, "output": "5"},
    ]
    with compatible.responses.stream(model=MODEL, input=items, temperature=0, max_output_tokens=40) as stream:
        deltas = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert deltas == final.output_text and "5" in deltas
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"], "additionalProperties": False}
    form = {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}}
    structured = compatible.responses.create(model=MODEL, input="2 plus 3?", text=form, temperature=0)
    jsonschema.validate(json.loads(structured.output_text), schema)


def test_anthropic():
    client = anthropic.Anthropic(base_url=HOST, api_key="none", max_retries=0)
    ask = {"model": MODEL, "max_tokens": 60, "messages": [{"role": "user", "content": "Say hello."}], "extra_body": {"temperature": 0}}
    whole = client.messages.create(**ask)
    assert whole.content[0].text and whole.usage.output_tokens > 0
    with client.messages.stream(**ask) as stream:
        assert "".join(stream.text_stream) == whole.content[0].text
        assert stream.get_final_message().usage.input_tokens == whole.usage.input_tokens
    counted = client.messages.count_tokens(model=MODEL, messages=ask["messages"])
    assert counted.input_tokens == whole.usage.input_tokens
    tools = [{"name": name, "description": name, "input_schema": schema} for name, schema in TOOLS.items()]
    forced = {**ask, "tools": tools, "tool_choice": {"type": "tool", "name": "add"}}
    with client.messages.stream(**forced) as stream:
        called = stream.get_final_message()
    assert called.stop_reason == "tool_use"
    use = called.content[0]
    jsonschema.validate(use.input, TOOLS["add"])
    turns = [
        *ask["messages"], {"role": "assistant", "content": [use.model_dump()]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "5"}]},
    ]
    assert client.messages.create(**{**ask, "messages": turns, "tools": tools}).content
    counted = client.messages.count_tokens(model=MODEL, messages=turns, tools=tools).input_tokens
    usage = client.messages.create(**{**ask, "messages": turns, "tools": tools, "max_tokens": 1}).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens
    stopped = client.messages.create(**{**ask, "stop_sequences": [whole.content[0].text[2:4]]})
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", whole.content[0].text[2:4])
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**{**ask, "model": "nosuch"})
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(**{**ask, "max_tokens": 0})


def test_anthropic_streams_a_call_and_takes_its_result():
    client = anthropic.Anthropic(base_url=HOST, api_key="none", max_retries=0)
    tool = {"name": "get_weather", "description": "Get the weather of a city", "input_schema": TOOLS["get_weather"]}
    ask = {"model": "tooler", "max_tokens": 60, "tools": [tool], "extra_body": {"temperature": 0}}
    turns = [{"role": "user", "content": "What is the weather in Paris for 2 days?"}]
    with client.messages.stream(messages=turns, **ask) as stream:
        pieces = [e.partial_json for e in stream if e.type == "input_json"]
        message = stream.get_final_message()
    use = message.content[-1]
    assert message.stop_reason == "tool_use" and use.name == "get_weather" and use.input["city"] == "Paris"
    assert json.loads("".join(pieces)) == use.input
    result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "It is 21 degrees."}]}
    turns += [{"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    answer = client.messages.create(messages=turns, **ask)
    assert "21" in answer.content[0].text and answer.stop_reason == "end_turn"


def test_the_native_client_calls_and_gives_the_result():
    client = ollama.Client(host=HOST)

    def get_weather(city: str) -> str:
        """Get the weather of a city."""
        return f"It is 21 degrees in {city}."

    ask = {"model": "tooler", "tools": [get_weather], "options": {"temperature": 0, "num_predict": 60}}
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    message = client.chat(messages=messages, **ask).message
    (call,) = message.tool_calls
    streamed = [c for part in client.chat(messages=messages, stream=True, **ask) for c in part.message.tool_calls or []]
    assert call.function.arguments == {"city": "Paris"} == streamed[0].function.arguments
    result = {"role": "tool", "tool_name": "get_weather", "content": get_weather(**call.function.arguments)}
    assert "21" in client.chat(messages=[*messages, message, result], **ask).message.content
