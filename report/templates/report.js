enliven(document);

/* Configuration */
const find = one("#find");
if (find) {
  const finder = find.closest(".finder"), status = one("[role=status]", finder);
  const opened = all(".config details").map((group) => group.open);
  finder.hidden = false;
  find.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    let hits = 0;
    all(".config details").forEach((group, index) => {
      const prefix = one("summary", group).firstChild.textContent.trim().toLowerCase();
      const rows = all("dl > div", group);
      rows.forEach((row) => { row.hidden = !`${prefix}.${row.textContent.toLowerCase()}`.includes(wanted); hits += !row.hidden; });
      group.hidden = rows.every((row) => row.hidden);
      group.open = wanted ? !group.hidden : opened[index];
    });
    status.textContent = wanted ? `${hits} setting${hits === 1 ? "" : "s"} found` : "";
  });
  one("#copy").addEventListener("click", async () => {
    const text = JSON.stringify(JSON.parse(one("#config-json").textContent), null, 2);
    try { await navigator.clipboard.writeText(text); status.textContent = "Copied"; } catch { status.textContent = "This browser does not allow copying here"; }
  });
}
for (const link of all(".contents a")) link.addEventListener("click", () => { one(".contents").open = false; });
addEventListener("beforeprint", () => all(".config details").forEach((group) => { group.open = true; }));
