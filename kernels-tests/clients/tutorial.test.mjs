// What a beginner's tutorial does with Node's own fetch: streams by lines, aborted ones, embeddings and their cosine.
import assert from "node:assert/strict";
import { test } from "node:test";

const base = `http://${process.env.OLLAMA_HOST}`;
const options = { temperature: 0, num_predict: 8 };
const post = (path, body, more = {}) =>
  fetch(`${base}${path}`, { method: "POST", body: JSON.stringify(body), ...more });

async function* lines(response) {
  let rest = "";
  for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + chunk).split("\n");
    rest = parts.pop();
    for (const line of parts) yield JSON.parse(line);
  }
  assert.equal(rest, "");
}

test("generate and chat by lines", async () => {
  const request = { model: "smollm2", prompt: "The capital of France is", raw: true, options };
  let text = "";
  let last;
  for await (const part of lines(await post("/api/generate", request))) {
    text += part.response;
    last = part;
  }
  assert.match(text, /^ Paris/);
  assert.deepEqual([last.done, last.done_reason, last.eval_count], [true, "length", 8]);
  const messages = [{ role: "user", content: "Say hello." }];
  let chat = "";
  for await (const part of lines(await post("/api/chat", { model: "smollm2", messages, options }))) {
    chat += part.message.content;
  }
  const whole = await (await post("/api/chat", { model: "smollm2", messages, options, stream: false })).json();
  assert.equal(chat, whole.message.content);
});

test("a stream that is aborted", async () => {
  const controller = new AbortController();
  const request = { model: "smollm2", prompt: "Count:", raw: true, options: { num_predict: -1 } };
  const response = await post("/api/generate", request, { signal: controller.signal });
  await assert.rejects(async () => {
    for await (const part of lines(response)) if (!part.done) controller.abort();
  }, { name: "AbortError" });
  assert.equal((await post("/api/generate", { model: "smollm2", prompt: "Hi", stream: false, options })).status, 200);
});

test("the cosine of two texts", async () => {
  const input = ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose again."];
  const { embeddings } = await (await post("/api/embed", { model: "minilm", input })).json();
  const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
  const cosine = (a, b) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  assert.ok(cosine(embeddings[0], embeddings[1]) > 0.4);
  assert.ok(cosine(embeddings[0], embeddings[2]) < 0.2);
});

test("a page of this machine may ask, others may not", async () => {
  const from = (origin) => fetch(`${base}/api/tags`, { headers: { origin } });
  const own = await from("http://localhost:3000");
  assert.equal(own.headers.get("access-control-allow-origin"), "http://localhost:3000");
  assert.equal((await from("https://evil.example")).status, 403);
});
