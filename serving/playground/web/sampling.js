// Sampling: the graphs do the work, here are the loops around them.
"use strict";

/** Loads ONNX Runtime and the model from the scripts beside the page: nothing is fetched, so file:// will do. */
async function loadModel() {
  const bytes = (text) => { const raw = atob(text), all = new Uint8Array(raw.length); for (let i = 0; i < raw.length; i++) all[i] = raw.charCodeAt(i); return all; };
  const plain = new Blob([bytes(RUNTIME.wasm)]).stream().pipeThrough(new DecompressionStream("gzip"));
  const [wasm, ort] = await Promise.all([
    new Response(plain).arrayBuffer(),
    import(URL.createObjectURL(new Blob([bytes(RUNTIME.module)], { type: "text/javascript" }))),
  ]);
  Object.assign(ort.env.wasm, { wasmBinary: wasm, numThreads: 1 });
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(bytes(MODEL.onnx), { executionProviders: ["wasm"] });
  return { ort, session, config: MODEL.config };
}

const float = (ort, data, dims) => new ort.Tensor("float32", data, dims);
const whole = (ort, data, dims) => new ort.Tensor("int64", BigInt64Array.from(data, BigInt), dims);

/** An image: Float32Array [C H W] in about [-1, 1]. `watch` sees each step, and may stop the drawing by returning false. */
async function drawImage({ ort, session, config }, { label, guidance, steps, seed }, watch) {
  const table = config.tables[steps], size = config.shape.reduce((a, b) => a * b), f = Math.fround;
  const noise = noiseOf(seedOf(seed, "sample", 0));
  let x = noise.normal(size).map((value) => f(table.start) * value), before = null;
  for (const [index, row] of table.rows.entries()) {
    const given = { x: float(ort, x, [1, ...config.shape]), sigma: float(ort, [row.sigma], []), label: whole(ort, [label], [1]),
      guidance: float(ort, [guidance], []), autoguidance: float(ort, [config.autoguidance], []) };
    const { denoised: { data } } = await session.run(Object.fromEntries(session.inputNames.map((name) => [name, given[name]])));
    if (watch && await watch({ index, count: table.rows.length, sigma: row.sigma, x, denoised: data }) === false) return null;
    const [a, b, c, d] = [row.x, row.denoised, row.before, row.noise].map(f);
    const fresh = d ? noise.normal(size) : null, last = before;
    x = x.map((value, i) => f(f(a * value) + f(b * data[i])) + (c ? f(c * last[i]) : 0) + (d ? f(d * fresh[i]) : 0));
    before = data;
  }
  return x;
}

/** A block of `tokens` after `prefix`, given where `known`: [id, share] of each; as core.text.generation.denoise_block. */
async function denoiseBlock({ ort, session, config }, prefix, tokens, known, { steps, temperature }, source, watch) {
  const slots = tokens.length, dims = [1, slots, config.embedding], size = slots * config.embedding;
  const laws = [1, slots, config.vocabulary.length], mixture = config.sampler === "mixture";
  const scalar = (value) => float(ort, [value], []);
  const flags = new ort.Tensor("bool", Uint8Array.from(known), [1, slots]);
  const normals = Array.from({ length: steps }, () => source.normal(size));  // all before the uniforms, as in Python
  let z = normals[0], guess = new Float32Array(size), block = null;
  for (let index = 0; index < steps; index++) {
    const last = index + 1 === steps, noise = last ? new Float32Array(size) : normals[index + 1];
    const out = await session.run({
      prefix: whole(ort, prefix, [1, prefix.length]), tokens: whole(ort, tokens, [1, slots]), known: flags,
      z: float(ort, z, dims), noise: float(ort, noise, dims),
      ...(mixture ? { uniform: float(ort, source.uniform(slots * laws[2]), laws) } : { guess: float(ort, guess, dims) }),
      u: scalar(1 - index / steps), after: scalar(1 - (index + 1) / steps), temperature: scalar(temperature),
    });
    [guess, z] = [out.guess_after?.data, out.z_after.data];
    block = choose(out.logits.data, tokens, known, mixture && last ? Array.from(out.drawn.data, Number) : null);
    if (watch && await watch(block, index) === false) return null;
  }
  return block;
}

/** The `drawn` token of each slot, or the most probable one, with its probability: [id, share], [id, 1] where it is known. */
function choose(logits, tokens, known, drawn) {
  const size = logits.length / tokens.length;
  return tokens.map((token, slot) => {
    if (known[slot]) return [token, 1];
    let best = slot * size, sum = 0;
    for (let i = slot * size; i < (slot + 1) * size; i++) if (logits[i] > logits[best]) best = i;
    for (let i = slot * size; i < (slot + 1) * size; i++) sum += Math.exp(logits[i] - logits[best]);
    const id = drawn ? drawn[slot] : best - slot * size;
    return [id, Math.exp(logits[slot * size + id] - logits[best]) / sum];
  });
}

/** Tokens before a block, as core.text.generation.Prefix reads them: beyond the context from the second half on. */
function read(config, inputs, ids, fresh, room) {
  const longer = [...inputs, ...fresh];
  if (longer.length + room <= config.context + 1) return longer;
  return ids.slice(-Math.max(1, Math.floor((config.context - room) / 2)));
}

/** A text: [id, share] of each token, those of the prompt included. `___` in the prompt is filled in. */
async function drawText(model, prompt, settings, watch) {
  const { config, words } = model, [left, right, more] = prompt.split("___");
  if (more !== undefined) throw new RangeError("One ___ at a time.");
  const sure = (ids) => ids.map((id) => [id, 1]);
  if (right !== undefined) {
    const before = words.encode(left), behind = words.encode(right), after = behind.slice(0, config.largest_block - settings.gap);
    const tokens = [...Array(settings.gap).fill(0), ...after], known = tokens.map((_, i) => i >= settings.gap);
    const source = noiseOf(seedOf(settings.seed, "sample", "infill", 0));
    const prefix = read(config, [], before, [config.start, ...before], tokens.length);
    const all = (block) => [...sure(before), ...block.slice(0, settings.gap), ...sure(behind)];
    const block = await denoiseBlock(model, prefix, tokens, known, settings, source, watch && ((one, index) => watch(all(one), index, settings.steps)));
    return block && all(block);
  }
  const source = noiseOf(seedOf(settings.seed, "sample", "diffusion", 0));
  const start = words.encode(left).slice(-Math.floor(config.context / 2)), done = sure(start), length = start.length + settings.length;
  let inputs = read(config, [], start, [config.start, ...start], config.block);
  const total = Math.ceil(settings.length / config.block) * settings.steps;
  for (let seen = 0; done.length < length; seen += settings.steps) {
    const blank = Array(Math.min(config.block, length - done.length)).fill(0);
    const block = await denoiseBlock(model, inputs, blank, blank.map(() => false), settings, source,
      watch && ((one, index) => watch([...done, ...one], seen + index, total)));
    if (!block) return null;
    done.push(...block);
    inputs = read(config, inputs, done.map(([id]) => id), block.map(([id]) => id), config.block);
  }
  return done;
}
