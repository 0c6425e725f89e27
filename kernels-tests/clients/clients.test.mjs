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
  assert.deepEqual(models.map((m) => m.name).sort(), ["minilm:latest", "qwen:latest", "smollm2:latest", "tooler:latest"]);
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

const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Get the weather of a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false },
  },
};
const question = [{ role: "user", content: "What is the weather in Paris? Use the tool." }];
const person = {
  type: "object", properties: { name: { type: "string" }, age: { type: "integer" } }, required: ["name", "age"],
  additionalProperties: false,
};
const tom = [{ role: "user", content: "Tom is 7 years old." }];

test("tools and structured output, native", async () => {
  const long = { temperature: 0, num_predict: 60 };
  const request = { model: "tooler", tools: [weather], options: long };
  const { message } = await native.chat({ ...request, messages: question });
  assert.deepEqual(message.tool_calls.map((call) => call.function.name), ["get_weather"]);
  assert.deepEqual(message.tool_calls[0].function.arguments, { city: "Paris" });
  const streamed = [];
  for await (const part of await native.chat({ ...request, messages: question, stream: true })) {
    streamed.push(...(part.message.tool_calls ?? []));
  }
  assert.deepEqual(streamed.map((call) => call.function.arguments), [{ city: "Paris" }]);
  const result = { role: "tool", tool_name: "get_weather", content: "21 degrees" };
  const { message: last } = await native.chat({ ...request, messages: [...question, message, result] });
  assert.match(last.content, /21/);
  const answer = await native.chat({ model: "qwen", messages: tom, format: person, options: long });
  assert.equal(JSON.parse(answer.message.content).age, 7);
});

test("OpenAI tools and structured output", async () => {
  const request = { model: "qwen", temperature: 0, max_tokens: 60 };
  const tools = { tools: [weather], tool_choice: "required", parallel_tool_calls: false };
  const stream = compatible.chat.completions.stream({ ...request, ...tools, messages: question });
  const called = (await stream.finalChatCompletion()).choices[0].message;
  const [call] = called.tool_calls;
  assert.equal(call.function.name, "get_weather");
  assert.equal(typeof JSON.parse(call.function.arguments).city, "string");
  const messages = [...question, called, { role: "tool", tool_call_id: call.id, content: "21 degrees" }];
  assert.ok((await compatible.chat.completions.create({ ...request, messages })).choices[0].message.content);
  const response_format = { type: "json_schema", json_schema: { name: "person", strict: true, schema: person } };
  const answer = await compatible.chat.completions.parse({ ...request, messages: tom, response_format });
  assert.equal(JSON.parse(answer.choices[0].message.content).age, 7);
});

test("OpenAI models", async () => {
  const ids = [];
  for await (const m of compatible.models.list()) ids.push(m.id);
  assert.deepEqual(ids.sort(), ["minilm:latest", "qwen:latest", "smollm2:latest", "tooler:latest"]);
});
