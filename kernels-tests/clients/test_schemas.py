"""300 schemas and a real model: every finished answer parses and validates with an independent validator."""
import json
import os
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import ollama

from schemas import FORMATS, SCHEMAS

CLIENT = ollama.Client(host=f"http://{os.environ['OLLAMA_HOST']}")
PROMPT = [{"role": "user", "content": "Give me a short example of a record as JSON."}]


def answer(name):
    options = {"temperature": 0.7, "seed": 3, "num_predict": 120}
    return name, CLIENT.chat("smollm2", PROMPT, format=SCHEMAS[name], options=options)


def test_finished_answers_validate():
    assert len(SCHEMAS) == 300
    with ThreadPoolExecutor(8) as pool:
        answers = dict(pool.map(answer, SCHEMAS))
    problems, finished = [], 0
    for name, reply in answers.items():
        if reply.done_reason == "length":
            continue
        finished += 1
        try:
            validator = jsonschema.Draft202012Validator(SCHEMAS[name], format_checker=FORMATS)
            validator.validate(json.loads(reply.message.content))
        except (ValueError, jsonschema.ValidationError) as error:
            problems.append(f"{name}: {reply.message.content!r}: {str(error).splitlines()[0]}")
    assert not problems, "\n".join(problems)
    # Recursion and open-ended values may well run into the limit.
    assert finished >= 240, finished
