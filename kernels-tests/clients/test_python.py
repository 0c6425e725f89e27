"""PyPI `ollama` and `openai` against the server that OLLAMA_HOST names."""
import os

import ollama
import openai
import pytest

HOST = f"http://{os.environ['OLLAMA_HOST']}"
MODEL = "smollm2"
GREEDY = {"temperature": 0, "num_predict": 8}
CAPITAL = "The capital of France is"


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


@pytest.fixture(scope="module")
def native():
    return ollama.Client(host=HOST)


@pytest.fixture(scope="module")
def compatible():
    return openai.OpenAI(base_url=f"{HOST}/v1", api_key="none", max_retries=0)


def test_list_names_the_model(native):
    models = {m.model: m for m in native.list().models}
    assert sorted(models) == ["minilm:latest", "qwen:latest", "smollm2:latest", "tooler:latest"]
    assert models["smollm2:latest"].size > 90_000_000
    assert models["smollm2:latest"].details.family == "llama"


def test_show_has_metadata_and_template(native):
    shown = native.show(MODEL)
    assert shown.modelinfo["llama.block_count"] == 30
    assert "completion" in shown.capabilities
    assert shown.modelfile.startswith("# Modelfile")


def test_embed_a_batch(native):
    texts = ["A man is eating food.", "A man is eating bread.", "The girl carries a baby."]
    answer = native.embed("minilm", texts)
    a, b, c = answer.embeddings
    assert len(a) == 384 and abs(dot(a, a) - 1) < 1e-5
    assert dot(a, b) > 0.7 > dot(a, c)
    assert answer.prompt_eval_count == 8 + 8 + 8
    assert answer.total_duration >= answer.load_duration > 0
    assert native.embed("minilm", texts[0], dimensions=8).embeddings[0][0] / a[0] > 1
    old = native.embeddings("minilm", texts[0]).embedding
    assert dot(old, a) > 0.99999


def test_embed_cuts_long_texts_unless_told_not_to(native):
    text = "word " * 600
    assert native.embed("minilm", text).prompt_eval_count == 512
    with pytest.raises(ollama.ResponseError) as failed:
        native.embed("minilm", text, truncate=False)
    assert failed.value.status_code == 400
    assert failed.value.error == "the input length exceeds the context length"


def test_generate_and_its_metrics(native):
    answer = native.generate(MODEL, CAPITAL, raw=True, options=GREEDY)
    assert answer.response.startswith(" Paris")
    assert answer.done and answer.done_reason == "length"
    assert answer.eval_count == 8 and answer.prompt_eval_count == 5
    assert answer.total_duration >= answer.eval_duration > 0


def test_a_stream_joins_to_the_whole(native):
    whole = native.generate(MODEL, CAPITAL, raw=True, options=GREEDY).response
    parts = list(native.generate(MODEL, CAPITAL, raw=True, options=GREEDY, stream=True))
    assert "".join(p.response for p in parts) == whole
    assert len(parts) > 4
    assert [p.done for p in parts] == [False] * (len(parts) - 1) + [True]


def test_chat_and_its_stream(native):
    messages = [{"role": "user", "content": "Say hello."}]
    whole = native.chat(MODEL, messages, options=GREEDY)
    assert whole.message.role == "assistant" and whole.message.content
    stream = native.chat(MODEL, messages, options=GREEDY, stream=True)
    assert "".join(p.message.content for p in stream) == whole.message.content


def test_a_seed_repeats_and_another_differs(native):
    def answer(seed):
        options = {"temperature": 0.9, "seed": seed, "num_predict": 24}
        return native.generate(MODEL, "Once upon a time", raw=True, options=options).response

    assert answer(1) == answer(1)
    assert len({answer(seed) for seed in range(4)}) > 1


def test_stop_strings_end_the_text(native):
    options = {**GREEDY, "num_predict": 40, "stop": ["is"]}
    answer = native.generate(MODEL, CAPITAL, raw=True, options=options)
    assert answer.done_reason == "stop" and "is" not in answer.response


def test_copy_and_delete(native):
    native.copy(MODEL, "smollm2-copy")
    assert len(native.list().models) == 5
    native.delete("smollm2-copy")
    assert len(native.list().models) == 4


def test_create_from_a_model(native):
    native.create(model="brief", from_=MODEL, system="You are brief.", parameters={"temperature": 0})
    assert native.show("brief").modelfile.count("SYSTEM You are brief.") == 1
    native.delete("brief")


def test_running_models(native):
    native.generate(MODEL, keep_alive="5m")
    assert "smollm2:latest" in [m.model for m in native.ps().models]


def test_an_unknown_model_is_a_404(native):
    with pytest.raises(ollama.ResponseError) as error:
        native.generate("nosuch", "x")
    assert error.value.status_code == 404 and "nosuch" in error.value.error


def test_openai_chat(compatible):
    answer = compatible.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Say hello."}], temperature=0, max_tokens=8
    )
    choice = answer.choices[0]
    assert choice.message.content and choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8


def test_openai_stream(compatible):
    stream = compatible.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Say hello."}],
        temperature=0,
        max_tokens=8,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text
    assert chunks[-1].usage.completion_tokens == 8


def test_openai_models(compatible):
    assert sorted(m.id for m in compatible.models.list()) == ["minilm:latest", "qwen:latest", "smollm2:latest", "tooler:latest"]
    assert compatible.models.retrieve(MODEL).id == MODEL


def test_openai_errors(compatible):
    with pytest.raises(openai.NotFoundError):
        compatible.chat.completions.create(model="nosuch", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.BadRequestError):
        compatible.chat.completions.create(model=MODEL, messages=[])


def test_openai_embeddings(compatible):
    # The client asks for base64 unless it is told a format.
    answer = compatible.embeddings.create(model="minilm", input=["The sky is blue.", "Grass is green."])
    plain = compatible.embeddings.create(model="minilm", input="The sky is blue.", encoding_format="float")
    assert [d.index for d in answer.data] == [0, 1]
    assert dot(answer.data[0].embedding, plain.data[0].embedding) > 0.99999
    assert (answer.usage.prompt_tokens, plain.usage.total_tokens) == (13, 7)
    cut = compatible.embeddings.create(model="minilm", input="x", dimensions=5)
    assert len(cut.data[0].embedding) == 5
    with pytest.raises(openai.NotFoundError):
        compatible.embeddings.create(model="nosuch", input="x")
    with pytest.raises(openai.BadRequestError):
        compatible.embeddings.create(model="minilm", input=[[1, 2]])
