// The page: reads the wishes, draws, and shows each step. One drawing at a time; a new wish ends the one before it.
"use strict";

const $ = (id) => document.getElementById(id);
const frame = () => new Promise((resolve) => setTimeout(resolve));
let model = null, drawing = 0, finished = Promise.resolve(), frames = [];

function wishes() {
  const values = $("steps").dataset.values.split(" ").map(Number), number = (id) => Number($(id)?.value);
  const chosen = document.querySelector("input[name=label]:checked");
  return {
    steps: values[number("steps")], seed: $("seed").value || "0", guidance: $("guidance") ? number("guidance") : 1,
    label: chosen ? Number(chosen.value) : model?.config.no_class,
    temperature: number("temperature"), gap: number("gap"), length: number("length"),
  };
}

function showValues() {
  const now = wishes();
  for (const name of ["guidance", "steps", "temperature", "gap", "length"]) {
    if ($(`${name}-value`)) $(`${name}-value`).textContent = now[name];
  }
  if ($("steps")) $("steps").setAttribute("aria-valuetext", `${now.steps} steps`);
}

function paint(x, sigma) {
  const [channels, height, width] = model.config.shape, plane = height * width;
  const image = new ImageData(width, height), fade = 1 / Math.sqrt(1 + sigma * sigma);
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) {
      const value = x[(channels === 1 ? 0 : c) * plane + i] * fade;
      image.data[4 * i + c] = Math.min(255, Math.max(0, Math.round((value + 1) * 127.5)));
    }
    image.data[4 * i + 3] = 255;
  }
  $("picture").getContext("2d").putImageData(image, 0, 0);
}

function showMoment(index) {
  const { x, sigma } = frames[index];
  paint(x, sigma);
  $("moment-value").textContent = sigma ? `σ = ${sigma.toPrecision(2)}` : "finished";
  $("moment").setAttribute("aria-valuetext", `step ${index} of ${frames.length - 1}, ${$("moment-value").textContent}`);
}

async function image(now, current) {
  const seen = [];
  const x = await drawImage(model, now, async ({ index, count, sigma, x: state }) => {
    if (seen.push({ x: state, sigma }) === 2) performance.mark("first");
    paint(state, sigma);
    say(`Step ${index + 1} of ${count}`, false);
    await frame();
    return current();
  });
  if (!x) return;
  frames = [...seen, { x, sigma: 0 }];
  const moment = $("moment");
  moment.disabled = false;
  moment.max = frames.length - 1;
  moment.value = moment.max;
  showMoment(frames.length - 1);
  const name = model.config.classes[now.label];
  $("picture").setAttribute("aria-label", `A sample${name === undefined ? "" : ` of class ${name}`}, seed ${now.seed}`);
}

async function text(now, current) {
  const show = (tokens) => {
    $("text").replaceChildren(...tokens.map(([id, sure]) => {
      const span = document.createElement("span");
      span.textContent = model.words.decode([id]);
      if (sure < 1) { span.className = "new"; span.style.setProperty("--sure", sure.toFixed(3)); }
      return span;
    }));
  };
  const tokens = await drawText(model, $("prompt").value, now, async (all, index, count) => {
    if (!index) performance.mark("first");
    show(all);
    say(`Step ${index + 1} of ${count}`, false);
    await frame();
    return current();
  });
  if (!tokens) return;
  $("text").textContent = model.words.decode(tokens.map(([id]) => id));
}

/** Progress is shown, and only what is final is said to screen readers. */
function say(message, final = true) {
  $("status").setAttribute("aria-live", final ? "polite" : "off");
  $("status").textContent = message;
}

async function draw() {
  if (!model) return;
  const mine = ++drawing, now = wishes(), current = () => mine === drawing;
  await finished;
  if (!current()) return;
  finished = (async () => {
    const began = performance.now();
    try {
      await (model.config.modality === "images" ? image(now, current) : text(now, current));
      if (current()) say(`Done in ${((performance.now() - began) / 1000).toFixed(1)} s, seed ${now.seed}`);
    } catch (error) {
      say(error instanceof RangeError ? error.message : `This browser cannot run the model: ${error.message}`);
    }
  })();
  await finished;
  performance.mark("image");
  if (current()) document.body.dataset.drawn = now.seed;
}

async function start() {
  performance.mark("scripts");  // benchmarks/playground.py reads the marks
  showValues();
  $("wishes").addEventListener("submit", (event) => { event.preventDefault(); draw(); });
  $("wishes").addEventListener("input", showValues);
  $("wishes").addEventListener("change", () => { if (model?.config.modality === "images") draw(); });
  $("another").addEventListener("click", () => { $("seed").value = Math.floor(Math.random() * 2 ** 31); draw(); });
  $("moment")?.addEventListener("input", () => showMoment(Number($("moment").value)));
  try {
    if (typeof RUNTIME === "undefined" || typeof MODEL === "undefined") throw new Error("runtime.js or model.js is not beside this page.");
    model = await loadModel();
    performance.mark("model");
    if (model.config.modality === "text") model.words = tokenizer(model.config);
  } catch (error) {
    say(`The model did not load: ${error.message}`);
    return;
  }
  await draw();
}
