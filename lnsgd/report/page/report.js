"use strict";

const number = (cell) => {
  const text = cell.dataset.v ?? cell.textContent;
  return text === "" || text === "–" ? NaN : Number(text);
};

const collator = new Intl.Collator("en", { numeric: true });

// Rows by a column; what is missing comes last either way. The sort is stable, so that ties keep the order of before.
const sorted = (rows, column, numeric, sign) => {
  const keyed = rows.map((row) => {
    const cell = row.cells[column];
    return { row, key: numeric ? number(cell) : cell.textContent };
  });
  const missing = ({ key }) => (numeric ? Number.isNaN(key) : key === "");
  const compare = numeric ? (a, b) => (a < b ? -1 : a > b ? 1 : 0) : collator.compare;
  keyed.sort((a, b) => missing(a) - missing(b) || (missing(a) ? 0 : sign * compare(a.key, b.key)));
  return keyed.map(({ row }) => row);
};

const setUpTable = (block) => {
  const body = block.querySelector("tbody");
  const scroll = block.querySelector(".scroll");
  const headers = [...block.querySelectorAll("thead th")];
  const pager = block.querySelector(".pager");
  const size = block.querySelector(".size");
  const later = block.querySelector("template");
  let rows = [...body.rows, ...(later ? later.content.querySelectorAll("tr") : [])];
  let first = 0;

  const show = () => {
    const length = Number(size.value) || rows.length;
    const shown = rows.slice(first, first + length);
    body.replaceChildren(...shown);
    scroll.scrollTop = 0;
    const format = (value) => value.toLocaleString("en");
    pager.querySelector(".range").textContent =
      `${format(first + 1)}–${format(first + shown.length)} of ${format(rows.length)}`;
    pager.querySelector(".previous").disabled = first === 0;
    pager.querySelector(".next").disabled = first + length >= rows.length;
  };
  const turn = (direction) => {
    first += direction * Number(size.value);
    show();
  };

  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const ascending = header.ariaSort !== "ascending";
      headers.forEach((other) => (other.ariaSort = "none"));
      header.ariaSort = ascending ? "ascending" : "descending";
      rows = sorted(rows, column, "numeric" in header.dataset, ascending ? 1 : -1);
      first = 0;
      show();
    });
  });
  if (later) {
    pager.hidden = false;
    pager.querySelector(".previous").addEventListener("click", () => turn(-1));
    pager.querySelector(".next").addEventListener("click", () => turn(1));
    size.addEventListener("change", () => {
      first = 0;
      show();
    });
    show();
  }
};

const setUpPictures = () => {
  const dialog = document.getElementById("full-size");
  document.querySelectorAll(".enlarge").forEach((button) => {
    button.addEventListener("click", () => {
      dialog.querySelector("img")?.remove();
      dialog.append(button.querySelector("img").cloneNode());
      dialog.showModal();
    });
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
};

// On a phone the contents are closed until they are asked for, and again once a link was followed.
const setUpContents = () => {
  const contents = document.getElementById("contents");
  const wide = window.matchMedia("(min-width: 70rem)");
  const fit = () => (contents.open = wide.matches);
  wide.addEventListener("change", fit);
  contents.addEventListener("click", (event) => event.target.closest("a") && fit());
  fit();
};

// A link to something inside of closed details opens them.
const reveal = () => {
  let element = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (; element; element = element.parentElement) if (element.tagName === "DETAILS") element.open = true;
};

// In print results are shown though they are folded; configs and plots of layers are not, unless the reader has opened
// them.
const setUpPrint = () => {
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details.more:not([open]), details.part:not([open])")];
    opened.forEach((details) => (details.open = true));
  });
  window.addEventListener("afterprint", () => opened.forEach((details) => (details.open = false)));
};

document.querySelectorAll(".sortable").forEach(setUpTable);
setUpPictures();
setUpContents();
setUpPrint();
window.addEventListener("hashchange", reveal);
reveal();
