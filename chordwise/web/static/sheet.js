// The table of answers: moving between cells, and the document beside the cell with the focus.
"use strict";

(() => {
  const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const TO_CHECK = "tbody .check";
  const OPENING_MS = 120;
  const sheet = document.getElementById("sheet");
  const panel = document.getElementById("panel");
  const menu = document.getElementById("menu");
  let place = null, timer = 0;

  const rows = () => sheet.querySelectorAll("tbody tr[data-document]");

  // The row of the current cell may have been replaced since.
  function current() {
    const row = place && document.getElementById(place.row);
    return row && row.cells[place.index];
  }

  function focus(cell) {
    sheet.querySelector('tbody [tabindex="0"]').tabIndex = -1;
    place = { row: cell.parentElement.id, index: cell.cellIndex };
    cell.tabIndex = 0;
    if (cell !== document.activeElement) cell.focus({ preventScroll: true });
    cell.scrollIntoView({ block: "nearest", inline: "nearest" });
    clearTimeout(timer);
    if (!panel.hidden) timer = setTimeout(open, OPENING_MS);
  }

  const load = (address) => htmx.ajax("GET", address, { source: panel, target: panel, swap: "innerHTML" });
  // The button for the next cell to check of the list in the panel, if any.
  const ahead = () => panel.querySelector("[data-ahead]");

  async function open() {
    const cell = current();
    if (!cell) return;
    const { column = "", list = "" } = sheet.querySelector("thead tr").cells[cell.cellIndex].dataset;
    panel.hidden = false;
    cell.scrollIntoView({ block: "nearest", inline: "nearest" });
    const asked = new URLSearchParams({ document: cell.parentElement.dataset.document, column, list });
    await load(`${sheet.dataset.cell}?${asked}`);
  }

  function close() {
    clearTimeout(timer);
    panel.hidden = true;
    panel.replaceChildren();
    if (current()) current().focus({ preventScroll: true });
  }

  // The next cell to check may be in the list in the panel, or in rows that are not loaded yet; after
  // the last, the first follows.
  async function next() {
    if (ahead()) {
      await load(ahead().getAttribute("hx-get"));
      return;
    }
    const from = current();
    const isAfter = (cell) => !from || from.compareDocumentPosition(cell) & Node.DOCUMENT_POSITION_FOLLOWING;
    const cells = [...sheet.querySelectorAll(TO_CHECK)];
    const cell = cells.find(isAfter);
    const more = sheet.querySelector("tr.more");
    if (!cell && more && await isReplaced(more)) {
      await next();
    } else if (cells.length) {
      focus(cell || cells[0]);
      clearTimeout(timer);
      await open();
      if (ahead()) await next();
    }
  }

  // Loads the rows up to the next cell to check, unless a request for further rows is under way.
  async function isReplaced(more) {
    const address = `${more.getAttribute("hx-get")}&until=check`;
    const isLoading = () => more.classList.contains("htmx-request");
    if (!isLoading()) htmx.ajax("GET", address, { source: more, target: more, swap: "outerHTML" });
    while (isLoading()) await new Promise(requestAnimationFrame);
    return !more.isConnected;
  }

  function move(cell, step) {
    const all = [...rows()];
    const row = all[all.indexOf(cell.parentElement) + step[0]];
    const other = row && row.cells[cell.cellIndex + step[1]];
    if (other) focus(other);
  }

  sheet.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const cell = event.target.closest("tbody th, tbody td");
    if (!cell) return;
    if (STEPS[event.key]) move(cell, STEPS[event.key]);
    else if (event.key === "Enter" && panel.hidden) open();
    else if (event.key === "Enter") (ahead() || panel).focus();
    else return;
    event.preventDefault();
  });

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.defaultPrevented && !panel.hidden) close();
  });

  sheet.addEventListener("click", (event) => {
    const cell = event.target.closest("tbody tr[data-document] > *");
    if (!cell) return;
    focus(cell);
    clearTimeout(timer);
    open();
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-next]")) next();
    if (event.target.closest("[data-closes]")) close();
    const button = event.target.closest("[popovertarget]");
    if (!button) return;
    const box = button.getBoundingClientRect();
    menu.style.left = `${Math.max(8, Math.min(box.left, innerWidth - menu.offsetWidth - 8))}px`;
    menu.style.top = `${box.bottom + 4}px`;
  });

  // A decision replaces the row and the panel, and with them the focus.
  document.addEventListener("htmx:afterSettle", () => {
    const cell = current();
    if (cell) cell.tabIndex = 0;
    const isLost = document.activeElement === document.body || !document.activeElement;
    if (cell && isLost) cell.focus({ preventScroll: true });
  });

  const first = rows()[0];
  if (first) first.cells[0].tabIndex = 0;
})();
