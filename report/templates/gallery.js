/* The gallery: finding runs, one run from its template, two runs side by side. */
for (const part of all("[data-show], .pick, .chooser, .sides, form.finder")) part.hidden = false;
const cards = all(".card");

/* One run */
const which = one("#which"), closer = one(".closer");
const look = (id, move) => {
  const template = all("#closer template").find((one) => one.dataset.id === id);
  if (!template) return false;
  which.value = id;
  closer.replaceChildren(template.content.cloneNode(true));
  enliven(closer);
  if (move) {
    one("#closer").scrollIntoView();
    one("#closer-title").focus({ preventScroll: true });
  }
  return true;
};
const written = (hash) => { try { return decodeURIComponent(hash); } catch { return ""; } }; /* somebody wrote a % into the address */
const follow = () => { const id = written(location.hash); if (id.startsWith("#run-")) look(id.slice(5), true); };
if (which) {
  which.addEventListener("change", () => look(which.value, false));
  for (const card of cards) one("[data-show]", card).addEventListener("click", () => look(card.dataset.id, true));
  const templates = all("#closer template"), lively = templates.find((template) => one(".player", template.content)) || templates[0];
  look(lively.dataset.id, false); /* the newest run that there is something to see of */
  addEventListener("hashchange", follow);
  follow();
}

for (const part of all("#curves")) enliven(part);

/* Finding */
const form = one("form.finder");
if (form) {
  const words = one("#find"), job = one("#job"), status = one("[role=status]", form);
  const filter = () => {
    const wanted = words.value.trim().toLowerCase();
    let hits = 0;
    for (const card of cards) {
      card.hidden = !((!job.value || card.dataset.job === job.value) && `${card.dataset.id} ${card.textContent}`.toLowerCase().includes(wanted));
      hits += !card.hidden;
    }
    status.textContent = wanted || job.value ? `${hits} of ${cards.length} runs` : "";
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  words.addEventListener("input", filter);
  job.addEventListener("change", filter);
}

/* Comparing */
const compare = one("#compare");
if (compare) {
  const runs = new Map(data(compare).map((run) => [run.id, run])), selects = [one("#first"), one("#second")];
  const cell = (text, kind, label) => { const made = document.createElement("td"); made.textContent = text || "–"; if (kind) made.className = kind; if (label) made.dataset.label = label; return made; };
  const row = (title, code, cells) => {
    const made = document.createElement("tr"), head = Object.assign(document.createElement("th"), { scope: "row" });
    if (title) head.append(Object.assign(document.createElement("span"), { className: "title", textContent: title }), " ");
    head.append(Object.assign(document.createElement("code"), { textContent: code }));
    made.append(head, ...cells);
    return made;
  };
  const judgement = (before, after) => {
    if (!before || !after) return "";
    const [, , first, , better, old] = before, [, , second, , , now] = after;
    if (first === second || !["lower", "higher"].includes(better)) return first === second ? "the same" : "";
    return now < old === (better === "lower") ? "better" : "worse";
  };
  const show = () => {
    const [left, right] = selects.map((select) => runs.get(select.value));
    all(".shown", compare).forEach((place, side) => {
      const card = cards.find((card) => card.dataset.id === selects[side].value);
      place.replaceChildren(one(".thumb", card).cloneNode(true), one(".state", card).cloneNode(true));
    });
    const old = new Map(left.metrics.map((metric) => [metric[0], metric])), now = new Map(right.metrics.map((metric) => [metric[0], metric]));
    const rows = [...new Set([...old.keys(), ...now.keys()])].map((name) => {
      const before = old.get(name), after = now.get(name), word = judgement(before, after);
      return row((after || before)[1], name, [cell(before?.[2], "num value", "First"), cell(after?.[2], "num value", "Second"), cell((after || before)[3], "num", "Floor"), cell(word, `word ${word}`, "Second is")]);
    });
    one(".both tbody", compare).replaceChildren(...rows);
    one(".both", compare).hidden = !rows.length;
    const keys = [...new Set([...Object.keys(left.settings), ...Object.keys(right.settings)])].filter((key) => left.settings[key] !== right.settings[key]).sort();
    one(".settings tbody", compare).replaceChildren(...keys.map((key) => row("", key, [cell(left.settings[key], "", "First"), cell(right.settings[key], "", "Second")])));
    one(".settings", compare).hidden = one(".differ", compare).hidden = !keys.length;
    one(".alike", compare).textContent = left === right ? "Choose two different runs."
      : !rows.length ? "Neither run was evaluated."
      : left.key && right.key && left.key !== right.key ? "These two were not judged alike (their evaluation keys differ), so the gate would not compare them."
      : keys.length ? "" : "The same settings, code and image.";
  };
  const choose = (first, second) => { [selects[0].value, selects[1].value] = [first, second]; show(); };
  const listed = [...runs.values()].sort((a, b) => Boolean(b.metrics.length) - Boolean(a.metrics.length)), before = (run) => listed.find((other, at) => other.job === run.job && at > listed.indexOf(run));
  const newest = listed.find(before) || listed[0]; /* the newest judged run that has another of its job before it */
  choose((before(newest) || listed[1]).id, newest.id);
  selects.forEach((select) => select.addEventListener("change", show));
  const picks = [];
  for (const box of all(".pick input")) box.addEventListener("change", () => {
    const at = picks.indexOf(box);
    if (at >= 0) picks.splice(at, 1);
    if (box.checked) picks.push(box);
    if (picks.length > 2) picks.shift().checked = false;
    if (picks.length < 2) return;
    const order = cards.map((card) => card.dataset.id), [first, second] = picks.map((one) => one.value).sort((a, b) => order.indexOf(b) - order.indexOf(a));
    choose(first, second);
    compare.scrollIntoView();
    one("#compare-title").focus({ preventScroll: true });
  });
}
for (const link of all(".contents a")) link.addEventListener("click", () => { one(".contents").open = false; });
