/* The theme searches in a worker, which browsers refuse to pages that are opened as files: a box that finds nothing is
   not shown. */
if (location.protocol === "file:") document.documentElement.classList.add("from-file");

/* Tables that are wider than the page scroll by keyboard too. */
addEventListener("load", () => setTimeout(() => {
  for (const wide of document.querySelectorAll(".md-typeset__scrollwrap")) {
    if (wide.scrollWidth <= wide.clientWidth) continue;
    wide.tabIndex = 0;
    wide.setAttribute("role", "region");
    wide.setAttribute("aria-label", "Table, scrolls sideways");
  }
}, 50));
