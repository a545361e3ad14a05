// Decisions by keyboard, values from selected text, and filters that apply at once.
"use strict";

(() => {
  const INTERACTIVE = "a, button, summary, input, select, textarea";

  function isWriting(element) {
    return element.matches("input, select, textarea") || Boolean(element.closest("dialog[open]"));
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const focused = document.activeElement || document.body;
    const correction = focused.closest(".correction");
    if (event.key === "Escape" && correction) {
      event.preventDefault();
      show(correction, false);
      return;
    }
    if (event.key === "Enter" && focused.matches(".correction select")) {
      focused.form.requestSubmit();
      return;
    }
    if (isWriting(focused)) return;
    if (event.key === " " && focused.matches(INTERACTIVE)) return;
    const element = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
    if (!element) return;
    event.preventDefault();
    element.click();
  });

  // Returns the text selected in the excerpt, and its offsets in the document, in code points.
  function selected() {
    const selection = getSelection();
    const excerpt = document.querySelector(".excerpt");
    if (!excerpt || !selection.rangeCount || !excerpt.contains(selection.anchorNode)) return null;
    const range = selection.getRangeAt(0);
    const pieces = [...excerpt.querySelectorAll("[data-start]")].filter((each) => range.intersectsNode(each));
    const text = String(selection).replace(/\s+/g, " ").trim();
    if (!text || !pieces.length) return null;
    const first = pieces[0], last = pieces[pieces.length - 1];
    return {
      text,
      start: first.contains(range.startContainer) ? placeIn(first, range.startContainer, range.startOffset) : first.dataset.start,
      end: last.contains(range.endContainer) ? placeIn(last, range.endContainer, range.endOffset) : last.dataset.end,
    };
  }

  function placeIn(piece, node, offset) {
    const before = new Range();
    before.setStart(piece, 0);
    before.setEnd(node, offset);
    return Math.min(Number(piece.dataset.start) + [...String(before)].length, piece.dataset.end);
  }

  // Fills the selected text and its offsets into the form of a correction.
  function take(form, found) {
    const field = form.querySelector("input[name=value]");
    if (found && field) field.value = found.text;
    form.elements.start_char.value = found ? found.start : "";
    form.elements.end_char.value = found ? found.end : "";
    const shown = form.querySelector("[data-selected]");
    shown.hidden = !found;
    shown.querySelector("q").textContent = found ? found.text : "";
  }

  function show(form, isOpen, found = selected()) {
    form.hidden = !isOpen;
    const button = document.querySelector(`[data-opens="${form.id}"]`);
    button.setAttribute("aria-expanded", String(isOpen));
    if (!isOpen) {
      button.focus();
      return;
    }
    const field = form.querySelector("[name=value]");
    take(form, found);
    field.focus();
    if (field.matches("input")) field.select();
  }

  document.addEventListener("click", (event) => {
    const forgetting = event.target.closest("[data-forgets]");
    if (forgetting) take(forgetting.form, null);
    const taking = event.target.closest("[data-takes]");
    if (taking) {
      const { takes, start, end } = taking.dataset;
      const text = taking.parentElement.querySelector("q").textContent.replace(/\s+/g, " ");
      show(document.getElementById(takes), true, { text, start, end });
    }
    const button = event.target.closest("[data-opens]");
    if (!button) return;
    const form = document.getElementById(button.dataset.opens);
    show(form, form.hidden);
  });

  document.addEventListener("selectionchange", () => {
    const form = document.querySelector(".correction:not([hidden])");
    const found = form && selected();
    if (found) take(form, found);
  });

  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-submits]")) event.target.form.requestSubmit();
  });

  // After a swap, the next question gets the focus. A refused change is shown in the notice and does
  // not move the focus.
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.xhr.status >= 400) event.detail.selectOverride = ".message";
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.detail.target.id === "review") document.getElementById("asked")?.focus();
  });
})();
