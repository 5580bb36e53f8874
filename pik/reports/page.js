"use strict";
// Tables sort by a column and filter by a text. Without script they stand as they are.
const onPaper = [];
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  const headings = [...table.tHead.rows[0].cells];
  const text = (row, column) => row.cells[column].textContent;
  const number = (row, column) => Number(text(row, column).replace(/[^0-9.eE+-]/g, "") || NaN);
  const numbers = (a, b) => (isNaN(a) || isNaN(b) ? isNaN(a) - isNaN(b) : a - b);
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") !== "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const compare = heading.classList.contains("number")
        ? (a, b) => numbers(number(a, column), number(b, column))
        : (a, b) => text(a, column).localeCompare(text(b, column));
      body.append(...[...body.rows].sort((a, b) => (up ? compare(a, b) : compare(b, a))));
    });
    // A heading with a button in it is not repeated on the next sheet.
    onPaper.push([() => heading.replaceChildren(button.textContent), () => heading.replaceChildren(button)]);
  });
  if (body.rows.length > 10) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    label.className = "filter";
    input.type = "search";
    label.append("Rows with ", input);
    table.parentNode.before(label);
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase();
      for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    });
  }
}
for (const box of document.querySelectorAll("details")) {
  let open;
  onPaper.push([() => { open = box.open; box.open = true; }, () => { box.open = open; }]);
}
addEventListener("beforeprint", () => onPaper.forEach(([change]) => change()));
addEventListener("afterprint", () => onPaper.forEach(([, restore]) => restore()));
