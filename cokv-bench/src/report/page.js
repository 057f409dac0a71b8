// Tables that are sorted by a click on a heading and filtered by what is typed above them. The page reads as well without.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  if (rows.length < 3) continue;
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell ? (cell.dataset.value ?? cell.textContent).trim() : "";
  };
  const sort = (heading, column) => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of heading.parentNode.cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyed = rows.map((row) => [value(row, column), row]);
    const filled = keyed.filter(([text]) => text !== "" && text !== "–");
    const empty = keyed.filter(([text]) => text === "" || text === "–");
    const numeric = filled.every(([text]) => !Number.isNaN(Number(text)));
    filled.sort(([a], [b]) => (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true })) * (down ? -1 : 1));
    body.append(...filled.concat(empty).map(([, row]) => row));
  };
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    heading.setAttribute("aria-sort", "none");
    heading.tabIndex = 0;
    heading.title = "sort";
    heading.addEventListener("click", () => sort(heading, column));
    heading.addEventListener("keydown", (event) => {
      if (event.key === "Enter") sort(heading, column);
    });
  });
  if (rows.length < 6) continue;
  const filter = document.createElement("input");
  filter.type = "search";
  filter.className = "filter";
  filter.placeholder = "rows with …";
  filter.setAttribute("aria-label", "show only rows that contain these words");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const cells = [...row.cells].map((cell) => cell.textContent.toLowerCase());
      row.hidden = !words.every((word) => cells.some((cell) => cell.includes(word)));
    }
  });
  table.parentNode.before(filter);
}
