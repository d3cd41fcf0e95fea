/* Players. `position` is a real number over the frames; images fade between two of them. */
const imagePainter = (player, { frames }) => {
  const canvas = one("canvas", player), still = one(".plate img", player), pen = canvas.getContext("2d");
  const pictures = frames.map((source) => { const picture = new Image(); picture.src = source; return picture; });
  const ready = Promise.all(pictures.map((picture) => picture.decode().catch(() => {})));
  const paint = (position) => {
    const low = Math.floor(position), share = position - low;
    pen.globalAlpha = 1;
    pen.drawImage(pictures[low], 0, 0, canvas.width, canvas.height);
    if (share > 0 && low + 1 < pictures.length) { pen.globalAlpha = share; pen.drawImage(pictures[low + 1], 0, 0, canvas.width, canvas.height); }
  };
  return { ready: ready.then(() => { canvas.hidden = false; still.hidden = true; }), paint, smooth: true };
};
const SIGNS = "·:;+*=%#&@$?/|~^<>";
/* What is not yet a word: signs that stand for noise, others in each frame. */
const noise = (length, at, frame) => Array.from({ length: Math.max(1, length) }, (_, place) => SIGNS[(Math.imul(at * 31 + place * 17 + frame * 7 + 1, 2654435761) >>> 8) % SIGNS.length]).join("");
const textPainter = (player, { texts }) => {
  const boxes = all(".plate p", player), final = texts.at(-1);
  const paint = (position) => boxes.forEach((box, index) => {
    const frame = Math.round(position), pieces = texts[frame][index];
    box.replaceChildren();
    let run = "", settled = true;
    const flush = () => { if (!run) return; const part = settled ? document.createTextNode(run) : Object.assign(document.createElement("span"), { textContent: run }); box.append(part); run = ""; };
    final[index].forEach((last, at) => {
      const piece = pieces[at] ?? "", same = piece === last; /* a block that has not begun has no pieces yet */
      if (same !== settled) { flush(); settled = same; }
      run += same ? piece : piece.trim() ? piece.replace(/\n/g, " ") : noise(last.length, at, frame); /* noise would break the lines */
    });
    flush();
  });
  return { ready: Promise.resolve(), paint, smooth: false };
};

/* Brings players, previews, charts and switches inside `scope` to life. */
const enliven = (scope) => {
  for (const player of all(".player", scope)) {
    const facts = data(player), last = facts.labels.length - 1;
    const painter = (player.dataset.kind === "images" ? imagePainter : textPainter)(player, facts);
    const slider = one("input", player), button = one(".play", player), level = one(".level", player), step = one(".step", player);
    let position = last, timer = 0, before = 0;
    const show = (where) => {
      position = clamp(where, 0, last);
      const frame = Math.round(position), label = facts.labels[frame];
      painter.paint(painter.smooth ? position : frame);
      slider.value = frame;
      level.textContent = label ? `${facts.symbol} = ${label}` : "";
      const said = `step ${facts.steps[frame]} of ${facts.steps.at(-1)}`;
      step.textContent = said;
      slider.setAttribute("aria-valuetext", `${level.textContent ? level.textContent + ", " : ""}${said}`);
    };
    const stop = () => { cancelAnimationFrame(timer); timer = 0; player.classList.remove("playing"); button.setAttribute("aria-label", "Play"); };
    const tick = (now) => {
      const rate = last / Math.max(3.5, Math.min(9, last * 0.16));
      const next = position + Math.min(100, now - before) / 1000 * rate;
      before = now;
      if (calm.matches) show(Math.floor(next) > Math.floor(position) ? Math.floor(next) : (position = next)); else show(next);
      if (next >= last) stop(); else timer = requestAnimationFrame(tick);
    };
    const play = () => { if (position >= last) show(0); before = performance.now(); player.classList.add("playing"); button.setAttribute("aria-label", "Pause"); timer = requestAnimationFrame(tick); };
    painter.ready.then(() => {
      show(last);
      let seen = null; /* plays once when it comes into view, unless someone took hold of it first */
      const hold = () => { seen?.disconnect(); stop(); };
      const toggle = () => { const playing = timer; hold(); if (!playing) play(); };
      button.addEventListener("click", toggle);
      slider.addEventListener("input", () => { hold(); show(Number(slider.value)); });
      player.addEventListener("keydown", (event) => {
        if (event.target !== slider || event.key === "Tab") return;
        if (event.key === " ") { event.preventDefault(); toggle(); }
        else hold(); /* Home at the first step changes nothing, so there is no `input` */
      });
      if (!calm.matches && !location.hash.includes("still")) {
        seen = new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) { seen.disconnect(); play(); } }, { threshold: 0.5 });
        seen.observe(player);
      }
    });
  }

  /* Previews over training */
  for (const strip of all(".strip", scope)) {
    const slider = one("input", strip);
    if (!slider) continue;
    const labels = data(strip), pictures = all(".stage > *", strip), reading = one(".reading", strip);
    one(".scrub", strip).hidden = false;
    slider.addEventListener("input", () => {
      pictures.forEach((picture, index) => { picture.hidden = index !== Number(slider.value); });
      reading.textContent = labels[slider.value];
      slider.setAttribute("aria-valuetext", labels[slider.value]);
    });
  }

  /* Charts: the nearest point to the pointer, or the next one by arrow key. */
  for (const plot of all(".plot", scope)) {
    const curves = data(plot), frame = one(".frame", plot), cross = one(".cross", plot), tip = one(".tip", plot);
    const stops = [...new Set(curves.flatMap((curve) => curve.points.map((point) => point[0])))].sort((a, b) => a - b);
    if (!stops.length) continue;
    let at = -1;
    tip.setAttribute("role", "status");
    const show = (x) => {
      at = stops.reduce((best, stop, index) => (Math.abs(stop - x) < Math.abs(stops[best] - x) ? index : best), 0);
      const lines = [];
      let label = "";
      for (const curve of curves) {
        const point = curve.points.reduce((best, candidate) => (Math.abs(candidate[0] - stops[at]) < Math.abs(best[0] - stops[at]) ? candidate : best));
        if (Math.abs(point[0] - stops[at]) > 2) continue;
        if (!label || point[0] === stops[at]) label = point[2];
        lines.push([curve.name, point[3]]);
      }
      tip.replaceChildren(Object.assign(document.createElement("em"), { textContent: label }));
      for (const [curve, value] of lines) {
        const line = document.createElement("div");
        line.append(Object.assign(document.createElement("b"), { textContent: value }), ` ${curve}`);
        tip.append(line);
      }
      cross.hidden = tip.hidden = false;
      cross.style.left = `${stops[at]}%`;
      const room = frame.clientWidth, left = (stops[at] / 100) * room;
      tip.style.left = `${clamp(left > room / 2 ? left - tip.offsetWidth - 10 : left + 10, 0, Math.max(0, room - tip.offsetWidth))}px`;
    };
    const hide = () => { cross.hidden = tip.hidden = true; at = -1; };
    frame.addEventListener("pointermove", (event) => { const box = frame.getBoundingClientRect(); show(((event.clientX - box.left) / box.width) * 100); });
    frame.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity, PageDown: 10, PageUp: -10 }[event.key];
      if (event.key === "Escape") return hide();
      if (move === undefined) return;
      event.preventDefault();
      show(stops[at < 0 && Number.isFinite(move) ? (move > 0 ? 0 : stops.length - 1) : clamp(at + move, 0, stops.length - 1)]);
    });
  }
  for (const group of all(".switch", scope)) {
    const variants = all(".variant", group.closest("figure")), buttons = all("button", group);
    group.hidden = false;
    buttons.forEach((button, index) => button.addEventListener("click", () => {
      buttons.forEach((other, place) => other.setAttribute("aria-pressed", String(place === index)));
      variants.forEach((variant, place) => { variant.hidden = place !== index; });
    }));
  }

  /* Fusion: the slider steps through the weights that were measured, and shades the held-out tokens by it. */
  for (const explorer of all(".explorer", scope)) {
    const { methods, shades } = data(explorer), slider = one(".turn input", explorer), reading = one(".turn .reading", explorer);
    const variants = all(".variant", explorer), texts = all("blockquote", explorer);
    const show = () => {
      const which = Math.max(0, variants.findIndex((variant) => !variant.hidden)), [key, readings] = methods[which];
      slider.max = readings.length - 1;
      const at = Number(slider.value);
      const cross = one(".cross", variants[which]), point = data(one(".plot", variants[which]))[0].points[at];
      cross.hidden = false;
      cross.style.left = `${point[0]}%`;
      reading.textContent = readings[at];
      slider.setAttribute("aria-valuetext", readings[at]);
      texts.forEach((text, index) => {
        const shade = shades[index][key][at];
        if (shade) all("mark", text).forEach((token, place) => { token.style.setProperty("--sure", shade[place]); token.title = `${Math.round(100 * shade[place])} %`; });
      });
    };
    all(".turn", explorer).forEach((part) => { part.hidden = false; });
    explorer.classList.add("live");
    slider.addEventListener("input", show);
    all(".switch button", explorer).forEach((button) => button.addEventListener("click", () => queueMicrotask(show)));
    show();
  }

  for (const button of all("[data-more]", scope)) {
    const section = button.closest("section");
    const watch = new ResizeObserver(() => {  // where nothing is cut off there is no more to show
      const cut = all(".tiles", section).some((row) => row.scrollHeight > row.clientHeight + 1);
      button.hidden = !cut && !section.classList.contains("open");
    });
    all(".tiles", section).forEach((row) => watch.observe(row));
    button.addEventListener("click", () => {
      const open = section.classList.toggle("open");
      button.setAttribute("aria-expanded", String(open));
      button.textContent = open ? "Show fewer" : "Show all";
    });
  }
};
