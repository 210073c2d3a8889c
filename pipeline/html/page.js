"use strict";

// Tables of class "sortable" sort by a click, or Enter, on a column's head: by data-value where a cell has one.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.querySelectorAll("thead th")];
  const body = table.tBodies[0];
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  const value = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const number = "numeric" in head.dataset;
      const order = (a, b) => (number ? Number(a) - Number(b) : compare(a, b));
      const rows = [...body.rows].map((row) => [value(row, column), row]);
      rows.sort((a, b) => (down ? -1 : 1) * order(a[0], b[0]));
      body.append(...rows.map((pair) => pair[1]));
    });
  });
}

// A field of class "filter" leaves the rows of its table that hold its text.
for (const field of document.querySelectorAll("input.filter")) {
  const rows = [...document.getElementById(field.dataset.table).tBodies[0].rows];
  const told = document.getElementById(field.getAttribute("aria-describedby"));
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      shown += row.hidden ? 0 : 1;
    }
    told.textContent = wanted ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
  });
}

// Paper has no folds: what is folded is printed open, and folded again after it.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  opened.forEach((fold) => { fold.open = true; });
});
addEventListener("afterprint", () => opened.forEach((fold) => { fold.open = false; }));
