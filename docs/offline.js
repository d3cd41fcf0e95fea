/* The theme searches in a worker, which browsers refuse to pages that are opened as files: a box that finds nothing is not shown. */
if (location.protocol === "file:") document.documentElement.classList.add("from-file");
