"""Structured output: whatever a small model wants to write, what it writes validates."""
import json
import os
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import ollama
import openai
import pytest

from schemas import FORMATS

HOST = f"http://{os.environ['OLLAMA_HOST']}"
MODEL = "smollm2"


def obj(properties, required=None, **more):
    required = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": required, **more}


STRING, INTEGER, NUMBER, BOOLEAN = ({"type": t} for t in ("string", "integer", "number", "boolean"))
WORD = {"type": "string", "pattern": "^[A-Z][a-z]{1,9}$"}
TREE = {
    "$defs": {"node": obj({"id": INTEGER, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2}})},
    "$ref": "#/$defs/node",
}

SCHEMAS = {
    "nested": obj({"a": obj({"b": obj({"c": WORD})})}),
    "enum": obj({"x": {"enum": ["red", 7, None, True, ["a"], {"k": 1}]}}),
    "const": obj({"x": {"const": {"deep": [1, "two"]}}}),
    "any of": obj({"x": {"anyOf": [WORD, INTEGER, obj({"y": BOOLEAN})]}}),
    "one of": obj({"x": {"oneOf": [{"type": "null"}, BOOLEAN]}}),
    "all of": {"allOf": [obj({"a": INTEGER}), obj({"b": WORD})]},
    "type list": obj({"x": {"type": ["integer", "null"]}}),
    "ints": obj({"x": {"type": "integer", "minimum": 3, "maximum": 17}}),
    "exclusive": obj({"x": {"type": "integer", "exclusiveMinimum": -2, "exclusiveMaximum": 2}}),
    "numbers": obj({"x": {"type": "number", "minimum": 0, "maximum": 1}}),
    "multiple": obj({"x": {"type": "integer", "multipleOf": 5, "minimum": 1, "maximum": 99}}),
    "bounded array": obj({"x": {"type": "array", "items": INTEGER, "minItems": 2, "maxItems": 4}}),
    "tuple": obj({"x": {"type": "array", "prefixItems": [WORD, INTEGER], "items": False, "minItems": 2}}),
    "top array": {"type": "array", "items": WORD, "minItems": 1, "maxItems": 3},
    "pattern": obj({"x": {"type": "string", "pattern": "^[0-9]{3}-[0-9]{4}$"}}),
    "lengths": obj({"x": {"type": "string", "minLength": 2, "maxLength": 6}}),
    "date": obj({"x": {"type": "string", "format": "date"}}),
    "date-time": obj({"x": {"type": "string", "format": "date-time"}}),
    "uuid": obj({"x": {"type": "string", "format": "uuid"}}),
    "ipv4": obj({"x": {"type": "string", "format": "ipv4"}}),
    "recursion": TREE,
    "optional": obj({"a": WORD, "b": INTEGER, "c": BOOLEAN}, required=["b"]),
    "map": {"type": "object", "additionalProperties": INTEGER, "minProperties": 1, "maxProperties": 3},
    "pattern properties": {"type": "object", "patternProperties": {"^n[0-9]$": INTEGER}, "additionalProperties": False,
                           "minProperties": 1, "maxProperties": 2},
    "unicode keys": obj({"größe": INTEGER, "名": WORD}),
    "escapes": obj({'a"b\\c': BOOLEAN}),
    "definitions": {"definitions": {"p": obj({"n": WORD})}, **obj({"x": {"$ref": "#/definitions/p"}})},
    "boolean schema": obj({"x": True}, additionalProperties=False),
}


@pytest.fixture(scope="module")
def answers():
    """One answer to every schema, by a greedy and by a hot model, eight at a time."""
    client = ollama.Client(host=HOST)

    def ask(case):
        name, temperature = case
        options = {"temperature": temperature, "seed": 1, "num_predict": 160}
        prompt = [{"role": "user", "content": "Give me an example of a record."}]
        return case, client.chat(MODEL, prompt, format=SCHEMAS[name], options=options)

    cases = [(name, temperature) for name in SCHEMAS for temperature in (0.0, 1.2)]
    with ThreadPoolExecutor(8) as pool:
        return dict(pool.map(ask, cases))


@pytest.mark.parametrize("name", SCHEMAS)
def test_finished_answers_validate(answers, name):
    finished = 0
    for temperature in (0.0, 1.2):
        answer = answers[name, temperature]
        if answer.done_reason == "stop":
            finished += 1
            validator = jsonschema.Draft202012Validator(SCHEMAS[name], format_checker=FORMATS)
            validator.validate(json.loads(answer.message.content))
        else:
            assert answer.done_reason == "length"
    assert finished or name == "recursion", "neither answer ended"


def test_properties_come_in_the_order_of_the_schema(answers):
    assert list(json.loads(answers["unicode keys", 0.0].message.content)) == ["größe", "名"]


def test_json_mode_gives_objects():
    answer = ollama.Client(host=HOST).generate(
        MODEL, "Give a JSON object with the key a and the value 1.", format="json",
        options={"temperature": 0, "num_predict": 80},
    )
    assert answer.done_reason == "stop"
    assert isinstance(json.loads(answer.response), dict)


@pytest.mark.parametrize("grammar", ["/(Yes|No)[.]/", 'start: WORD "."\nWORD: "Yes" | "No"\n'])
def test_a_grammar_restricts_the_answer(grammar):
    body = {"model": MODEL, "prompt": "Is the sky blue?", "stream": False, "options": {"grammar": grammar, "temperature": 0}}
    with urllib.request.urlopen(f"{HOST}/api/generate", json.dumps(body).encode()) as reply:
        assert json.load(reply)["response"] in ("Yes.", "No.")


def test_openai_json_schema_and_object():
    client = openai.OpenAI(base_url=f"{HOST}/v1", api_key="none", max_retries=0)
    ask = [{"role": "user", "content": "Tom is 7 years old."}]
    schema = obj({"name": STRING, "age": INTEGER})
    schema["properties"]["name"] = WORD
    answer = client.chat.completions.create(
        model=MODEL, messages=ask, temperature=0, max_tokens=60,
        response_format={"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": schema}},
    )
    jsonschema.validate(json.loads(answer.choices[0].message.content), schema)
    answer = client.chat.completions.create(
        model=MODEL, messages=ask, temperature=0, max_tokens=120, response_format={"type": "json_object"}
    )
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)


def test_what_cannot_be_enforced_is_named():
    with pytest.raises(ollama.ResponseError) as error:
        ollama.Client(host=HOST).generate(MODEL, "x", format={"not": {"type": "string"}})
    assert error.value.status_code == 400 and "not" in error.value.error
