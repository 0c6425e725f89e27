// llama.cpp's Vulkan and CPU backends (the build of the npm package node-llama-cpp), to compare with in the same run as
// `cargo bench --bench peer`.
//
// usage: GGML_VK_VISIBLE_DEVICES=0 node vulkan.mjs cpu|vulkan MODEL.gguf [PROMPT=64] [DECODE=8] [RUNS=3] [THREADS=2]
//
// `scripts/peers.sh` installs what it needs. Prints one JSON object of medians; each decoded token crosses JavaScript, which
// costs some 0.1 ms.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.env.OLLAMA_WGPU_PEERS + "/");
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(require.resolve("node-llama-cpp")));

const [backend, modelPath, ...numbers] = process.argv.slice(2);
const [nPrompt = 64, nDecode = 8, nRuns = 3, threads = 2] = numbers.map(Number);
const llama = await getLlama({
  gpu: backend === "vulkan" && "vulkan", build: "never", progressLogs: false, maxThreads: threads, logLevel: LlamaLogLevel.error,
});
const start = performance.now();
const model = await llama.loadModel({ modelPath, gpuLayers: backend === "vulkan" ? "max" : 0 });
const context = await model.createContext({ contextSize: nPrompt + nDecode + 64, batchSize: 512, threads });
const load_ms = Math.round(performance.now() - start);
const sequence = context.getSequence();
const prompt = model.tokenize("Seven wizards quietly mix a potion while the cat looks on. ".repeat(nPrompt)).slice(0, nPrompt);

const prefill = [], decode = [];
for (let run = 0; run <= nRuns; run++) {
  const begin = performance.now();
  let first, n = 0;
  for await (const _ of sequence.evaluate(prompt, { temperature: 0 })) {
    first ??= performance.now();
    if (++n > nDecode) break;
  }
  if (run > 0) { // the first one warms up
    prefill.push(nPrompt / (first - begin) * 1e3);
    decode.push((n - 1) / (performance.now() - first) * 1e3);
  }
  await sequence.clearHistory();
}
const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
console.log(JSON.stringify({
  peer: "node-llama-cpp", device: (await llama.getGpuDeviceNames())[0] ?? "cpu", load_ms, prefill_tps: median(prefill),
  decode_tps: median(decode),
}));
process.exit(0);
