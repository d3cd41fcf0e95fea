/* What every page has: theme, and the ruler that marks the section being read. */
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);
const data = (root) => JSON.parse(one(":scope > script[type='application/json']", root).textContent);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/* Theme: the system's, until the reader chooses. A sandboxed frame may refuse storage. */
const theme = one("#theme"), root = document.documentElement;
const stored = { get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
                 set: (value) => { try { localStorage.setItem("theme", value); } catch { /* not kept */ } } };
const system = matchMedia("(prefers-color-scheme: dark)");
const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
const name = () => { theme.textContent = dark() ? "Light theme" : "Dark theme"; };
if (["light", "dark"].includes(stored.get())) root.dataset.theme = stored.get();
theme.hidden = false;
name();
system.addEventListener("change", name);
theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; stored.set(root.dataset.theme); name(); });

/* The ruler marks the section being read. */
const links = new Map(all(".marks a").map((link) => [link.hash.slice(1), link]));
const mark = () => {
  let current = "top";
  for (const section of all("main > section[id]")) if (scrollY > 40 && section.getBoundingClientRect().top < innerHeight * 0.35) current = section.id;
  if (innerHeight + scrollY >= document.body.scrollHeight - 4 && scrollY > 0) current = all("main > section[id]").at(-1).id;
  links.forEach((link, id) => (id === current ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
};
let due = false;
addEventListener("scroll", () => { if (!due) { due = true; requestAnimationFrame(() => { due = false; mark(); }); } }, { passive: true });
mark();
