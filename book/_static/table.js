// Tables that readers can sort, filter and copy. Without JavaScript they stay plain tables.
"use strict";

const text = (cell) => cell.innerText.trim();

// The first number of a cell, so that '0.988 ± 0.002' sorts by its mean; NaN for words. The minus is a true one.
const number = (cell) => {
  const found = text(cell).match(/^[−+]?\d[\d,]*\.?\d*/);
  return found ? Number(found[0].replace("−", "-").replaceAll(",", "")) : NaN;
};

// Last rows that are means stay at the bottom whatever the order.
const isMean = (row) => /^mean\b/.test(text(row.cells[0]));

function sort(table, column, descending) {
  const body = table.tBodies[0];
  const rows = [...body.rows].filter((row) => !isMean(row));
  const means = [...body.rows].filter(isMean);
  const direction = descending ? -1 : 1;
  rows.sort((one, other) => {
    const a = number(one.cells[column]), b = number(other.cells[column]);
    if (Number.isNaN(a) !== Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1; // words last
    if (!Number.isNaN(a)) return direction * (a - b);
    return direction * text(one.cells[column]).localeCompare(text(other.cells[column]));
  });
  body.append(...rows, ...means);
}

const NUMBERS = /^[−+\d][−+±\d.,%†‡<\s]*(?:(?:to|of)[−+±\d.,\s]*)*$/;

// Columns of numbers are set to the right; blank cells do not count.
function alignNumbers(table) {
  [...table.tHead.rows[0].cells].slice(1).forEach((head, place) => {
    const column = [...table.tBodies[0].rows].map((row) => row.cells[place + 1]);
    const filled = column.map(text).filter(Boolean);
    if (!filled.length || !filled.every((words) => NUMBERS.test(words))) return;
    for (const cell of [head, ...column]) cell.classList.add("number");
  });
}

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sort(table, column, descending);
    });
  });
}

const visible = (table) => [...table.rows].filter((row) => !row.hidden);
const cells = (row) => [...row.cells].map((cell) => text(cell).replace(/\s+/g, " "));
const quote = (value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value.replace(/^−(?=\d)/, "-"));
const escapes = { "\\": "\\textbackslash{}", "±": "$\\pm$", "→": "$\\to$", "−": "$-$" };
const latex = (value) => value.replace(/[\\±→−]|[&%$#_{}]/g, (sign) => escapes[sign] ?? `\\${sign}`);

const asCsv = (table) => visible(table).map((row) => cells(row).map(quote).join(",")).join("\n") + "\n";

function asLatex(table) {
  const [head, ...rows] = visible(table).map((row) => cells(row).map(latex).join(" & ") + " \\\\");
  const columns = "l" + "r".repeat(table.tHead.rows[0].cells.length - 1);
  return [`\\begin{tabular}{${columns}}`, "\\toprule", head, "\\midrule", ...rows, "\\bottomrule", "\\end{tabular}"]
    .join("\n") + "\n";
}

// Copies the table, or shows its text, selected, where the browser keeps the clipboard closed (http, old browsers).
function copyButton(name, table, content, tools, status) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = `Copy ${name}`;
  button.addEventListener("click", async () => {
    tools.querySelector("textarea")?.remove();
    try {
      await navigator.clipboard.writeText(content(table));
      status.textContent = `${name} copied`;
    } catch {
      const field = document.createElement("textarea");
      field.readOnly = true;
      field.rows = 8;
      field.value = content(table);
      field.setAttribute("aria-label", `${name} of: ${text(table.caption)}`);
      tools.append(field);
      field.select();
      status.textContent = `${name} below, ready to copy`;
    }
  });
  return button;
}

function filterField(table) {
  const field = document.createElement("input");
  field.type = "search";
  field.placeholder = "Filter rows";
  field.setAttribute("aria-label", `Filter rows of: ${text(table.caption)}`);
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    for (const row of table.tBodies[0].rows) row.hidden = !row.innerText.toLowerCase().includes(wanted);
  });
  return field;
}

function addTools(box, table) {
  const tools = document.createElement("div");
  tools.className = "table-tools";
  const status = document.createElement("span");
  status.setAttribute("role", "status");
  if (table.tBodies[0].rows.length > 9) tools.append(filterField(table));
  for (const [name, content] of [["CSV", asCsv], ["LaTeX", asLatex]]) {
    tools.append(copyButton(name, table, content, tools, status));
  }
  tools.append(status);
  box.after(tools);
}

document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll(".table-scroll")) {
    const table = box.querySelector("table.dataframe");
    if (!table?.tHead || !table.caption) continue;
    alignNumbers(table);
    new ResizeObserver(() => box.classList.toggle("wide", box.scrollWidth > box.clientWidth + 1)).observe(box);
    if (table.tBodies[0].rows.length < 2) continue;
    makeSortable(table);
    addTools(box, table);
  }
});
