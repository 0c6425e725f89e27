// npm `ollama` and `openai` against the server that OLLAMA_HOST names.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Ollama } from "ollama";
import OpenAI from "openai";

const host = `http://${process.env.OLLAMA_HOST}`;
const native = new Ollama({ host });
const compatible = new OpenAI({ baseURL: `${host}/v1`, apiKey: "none", maxRetries: 0 });
const model = "smollm2";
const options = { temperature: 0, num_predict: 8 };
const messages = [{ role: "user", content: "Say hello." }];

test("list and show", async () => {
  const { models } = await native.list();
  assert.deepEqual(models.map((m) => m.name).sort(), ["minilm:latest", "qwen:latest", "smollm2:latest"]);
  const shown = await native.show({ model });
  assert.equal(shown.details.quantization_level, "Q4_1");
});

test("embeddings, native and OpenAI's", async () => {
  const input = ["The sky is blue.", "Grass is green."];
  const { embeddings, prompt_eval_count } = await native.embed({ model: "minilm", input });
  assert.deepEqual([embeddings.length, embeddings[0].length, prompt_eval_count], [2, 384, 13]);
  const near = (a, b) => assert.ok(Math.hypot(...a.map((x, i) => x - b[i])) < 1e-5);
  near((await native.embeddings({ model: "minilm", prompt: input[1] })).embedding, embeddings[1]);
  const answer = await compatible.embeddings.create({ model: "minilm", input });
  near(answer.data[1].embedding, embeddings[1]);
  assert.equal(answer.usage.prompt_tokens, 13);
  await assert.rejects(native.embed({ model, input }), /does not support embeddings/);
});

test("generate and its stream agree", async () => {
  const request = { model, prompt: "The capital of France is", raw: true, options };
  const whole = await native.generate(request);
  assert.match(whole.response, /^ Paris/);
  let text = "";
  for await (const part of await native.generate({ ...request, stream: true })) text += part.response;
  assert.equal(text, whole.response);
});

test("chat and its stream agree", async () => {
  const whole = await native.chat({ model, messages, options });
  let text = "";
  for await (const part of await native.chat({ model, messages, options, stream: true })) text += part.message.content;
  assert.equal(text, whole.message.content);
});

test("an aborted stream leaves the server well", async () => {
  const stream = await native.generate({ model, prompt: "Count to one thousand:", raw: true, stream: true });
  const read = async () => {
    for await (const part of stream) if (part.response) stream.abort();
  };
  await assert.rejects(read, { name: "AbortError" });
  assert.ok((await native.generate({ model, prompt: "Hi", options })).done);
});

test("an unknown model is named", async () => {
  await assert.rejects(native.generate({ model: "nosuch", prompt: "x" }), /nosuch/);
});

test("OpenAI chat, stream and errors", async () => {
  const request = { model, messages, temperature: 0, max_tokens: 8 };
  const whole = await compatible.chat.completions.create(request);
  assert.equal(whole.usage.completion_tokens, 8);
  let text = "";
  for await (const chunk of await compatible.chat.completions.create({ ...request, stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? "";
  }
  assert.equal(text, whole.choices[0].message.content);
  await assert.rejects(compatible.chat.completions.create({ ...request, model: "nosuch" }), OpenAI.NotFoundError);
});

test("OpenAI models", async () => {
  const ids = [];
  for await (const m of compatible.models.list()) ids.push(m.id);
  assert.deepEqual(ids.sort(), ["minilm:latest", "qwen:latest", "smollm2:latest"]);
});
