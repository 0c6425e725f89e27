// npm `ai` with an Ollama provider against the server that OLLAMA_HOST names.
import assert from "node:assert/strict";
import { test } from "node:test";
import { embed, generateText, jsonSchema, Output, stepCountIs, streamText, tool } from "ai";
import { createOllama } from "ollama-ai-provider-v2";

const ollama = createOllama({ baseURL: `http://${process.env.OLLAMA_HOST}/api` });
const prompt = "Say hello.";
// The provider does not hand `maxOutputTokens` on, and its own options replace the rest.
const options = (num_predict) => ({ maxRetries: 0, providerOptions: { ollama: { options: { temperature: 0, num_predict } } } });
const brief = options(8);
const long = options(60);

test("text, whole and streamed", async () => {
  const { text, usage } = await generateText({ model: ollama("smollm2"), prompt, ...brief });
  assert.ok(text);
  assert.equal(usage.outputTokens, 8);
  let streamed = "";
  for await (const part of streamText({ model: ollama("smollm2"), prompt, ...brief }).textStream) streamed += part;
  assert.equal(streamed.trim(), text.trim());
});

test("structured output", async () => {
  const schema = jsonSchema({
    type: "object",
    properties: { name: { type: "string" }, age: { type: "integer" } },
    required: ["name", "age"],
    additionalProperties: false,
  });
  const { output } = await generateText({
    model: ollama("qwen"), prompt: "Tom is 7 years old.", output: Output.object({ schema }), ...long,
  });
  assert.equal(output.age, 7);
});

test("tools", async () => {
  const weather = tool({
    description: "Get the weather of a city",
    inputSchema: jsonSchema({ type: "object", properties: { city: { type: "string" } }, required: ["city"] }),
    execute: async ({ city }) => `It is 21 degrees in ${city}.`,
  });
  const ask = { model: ollama("tooler"), prompt: "What is the weather in Paris?", tools: { get_weather: weather }, stopWhen: stepCountIs(2), ...long };
  const { steps, text } = await generateText(ask);
  assert.deepEqual(steps.flatMap((step) => step.toolCalls).map((call) => call.input), [{ city: "Paris" }]);
  assert.match(text, /21/);
  const parts = [];
  for await (const part of streamText(ask).fullStream) parts.push(part);
  const of = (type) => parts.filter((part) => part.type === type);
  assert.deepEqual(of("tool-call").map((part) => part.input), [{ city: "Paris" }]);
  assert.equal(of("tool-result")[0].output, "It is 21 degrees in Paris.");
  assert.match(of("text-delta").map((part) => part.text).join(""), /21/);
  assert.equal(of("error").length, 0);
});

test("structured output, streamed", async () => {
  const schema = jsonSchema({ type: "object", properties: { age: { type: "integer" } }, required: ["age"], additionalProperties: false });
  const { partialOutputStream } = streamText({
    model: ollama("qwen"), prompt: "Tom is 7 years old.", output: Output.object({ schema }), ...long,
  });
  let last;
  for await (const part of partialOutputStream) last = part;
  assert.equal(last.age, 7);
});

test("embeddings", async () => {
  const { embedding } = await embed({ model: ollama.textEmbeddingModel("minilm"), value: "The sky is blue.", maxRetries: 0 });
  assert.equal(embedding.length, 384);
});

test("errors", async () => {
  await assert.rejects(generateText({ model: ollama("nosuch"), prompt, ...brief }), /not found/i);
});
