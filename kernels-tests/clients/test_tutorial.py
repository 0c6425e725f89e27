"""What a beginner's tutorial does with `httpx` alone: streams by lines, options, embeddings and their cosine."""
import json
import math
import os

import httpx

BASE = f"http://{os.environ['OLLAMA_HOST']}"
CAPITAL = {"model": "smollm2", "prompt": "The capital of France is", "raw": True}


def generate(**options):
    answer = httpx.post(f"{BASE}/api/generate", json={**CAPITAL, "stream": False, "options": options}, timeout=60)
    answer.raise_for_status()
    return answer.json()


def lines(path, body):
    with httpx.stream("POST", f"{BASE}{path}", json=body, timeout=60) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in answer.iter_lines()]


def test_generate_by_lines():
    options = {"temperature": 0, "num_predict": 8}
    parts = lines("/api/generate", {**CAPITAL, "options": options})
    assert [part["done"] for part in parts] == [False] * (len(parts) - 1) + [True]
    assert "".join(part["response"] for part in parts) == generate(**options)["response"]
    assert parts[-1]["eval_count"] == 8 and parts[-1]["done_reason"] == "length"


def test_chat_by_lines():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}]
    options = {"temperature": 0, "num_predict": 8}
    parts = lines("/api/chat", {"model": "smollm2", "messages": messages, "options": options})
    assert {part["message"]["role"] for part in parts} == {"assistant"}
    assert "".join(part["message"]["content"] for part in parts).strip()
    assert parts[-1]["done"] and "message" in parts[-1]


def test_options_change_what_they_say():
    assert generate(temperature=0, num_predict=3)["eval_count"] == 3
    hot = {"temperature": 1.5, "top_p": 1.0, "num_predict": 24}
    first, again, other = (generate(seed=seed, **hot)["response"] for seed in (7, 7, 8))
    assert first == again != other
    # Of a small enough share of the probability only the best token is left.
    greedy = generate(temperature=0, num_predict=24)["response"]
    assert generate(seed=7, **{**hot, "top_p": 1e-6})["response"] == greedy
    body = {**CAPITAL, "prompt": "word " * 1000, "stream": False, "options": {"num_ctx": 256, "num_predict": 1}}
    assert httpx.post(f"{BASE}/api/generate", json=body, timeout=60).json()["prompt_eval_count"] < 256
    running = {m["name"]: m for m in httpx.get(f"{BASE}/api/ps").json()["models"]}
    assert running["smollm2:latest"]["context_length"] == 256


def test_embeddings_and_their_cosine():
    texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose again."]
    body = {"model": "minilm", "input": texts}
    vectors = httpx.post(f"{BASE}/api/embed", json=body, timeout=60).json()["embeddings"]

    def cosine(a, b):
        dot = sum(x * y for x, y in zip(a, b))
        return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))

    near, far = cosine(vectors[0], vectors[1]), cosine(vectors[0], vectors[2])
    assert near > 0.4 > 0.2 > far
    old = httpx.post(f"{BASE}/api/embeddings", json={"model": "minilm", "prompt": texts[0]}, timeout=60)
    assert cosine(old.json()["embedding"], vectors[0]) > 0.99999


def test_errors_have_a_status_and_a_text():
    for body, status, text in [
        ({"model": "nosuch", "prompt": "x"}, 404, "model 'nosuch' not found"),
        ({**CAPITAL, "options": {"temperature": "hot"}}, 500, 'option "temperature" must be of type float32'),
        ({**CAPITAL, "keep_alive": "10"}, 400, 'time: missing unit in duration "10"'),
    ]:
        answer = httpx.post(f"{BASE}/api/generate", json=body, timeout=60)
        assert (answer.status_code, answer.json()) == (status, {"error": text})
