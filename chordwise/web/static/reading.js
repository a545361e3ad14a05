// Values and their quotes: pointing at one, or reaching it by keyboard, marks the other.
"use strict";

// A button with data-copy="SELECTOR" copies the text of that element.
document.addEventListener("click", async (event) => {
  const button = event.target instanceof Element && event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.querySelector(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    button.textContent = "Selected: copy it now";
  }
});

(() => {
  const pane = document.getElementById("pane");
  if (!pane) return;
  let timer = 0;

  // The boxes of quotes are shown together with the picture below them.
  for (const picture of pane.querySelectorAll(".page img")) {
    const page = picture.closest(".page");
    const drawn = () => page.classList.add("drawn");
    const missing = () => {
      page.querySelector("figcaption").append(": this page cannot be shown; its words are in the text view");
    };
    // It may have loaded or failed before this script runs.
    if (picture.complete) (picture.naturalWidth ? drawn : missing)();
    picture.addEventListener("load", drawn);
    picture.addEventListener("error", missing);
  }

  function idsAt(target) {
    const marked = target instanceof Element && target.closest("[data-facts]");
    return marked ? marked.dataset.facts.split(" ") : [];
  }

  function light(ids) {
    for (const each of document.querySelectorAll("[data-facts].lit")) each.classList.remove("lit");
    for (const id of ids) {
      for (const each of document.querySelectorAll(`[data-facts~="${CSS.escape(id)}"]`)) each.classList.add("lit");
    }
  }

  function isSeen(box, frame) {
    return box.top >= frame.top && box.bottom <= frame.bottom;
  }

  // Only the pane is scrolled, so that the values stay where they are.
  function showQuote(id) {
    const quote = document.getElementById(`quote-${id}`);
    if (!quote) return;
    const box = quote.getBoundingClientRect();
    const frame = pane.getBoundingClientRect();
    if (!isSeen(box, frame)) pane.scrollTop += box.top - frame.top - pane.clientHeight / 3;
  }

  function showFact(id) {
    const fact = document.getElementById(`fact-${id}`);
    if (!fact) return;
    const screen = { top: 0, bottom: innerHeight };
    if (!isSeen(fact.getBoundingClientRect(), screen)) fact.scrollIntoView({ block: "center" });
    fact.focus({ preventScroll: true });
  }

  document.addEventListener("pointerover", (event) => {
    const ids = idsAt(event.target);
    light(ids);
    clearTimeout(timer);
    if (ids.length && !pane.contains(event.target)) timer = setTimeout(() => showQuote(ids[0]), 120);
  });

  document.addEventListener("focusin", (event) => {
    const ids = idsAt(event.target);
    if (!ids.length) return;
    light(ids);
    if (!pane.contains(event.target)) showQuote(ids[0]);
  });

  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element && event.target.closest("a[data-show], a.quote");
    if (!link) return;
    const hash = link.getAttribute("href");
    if (!hash.startsWith("#")) return;
    event.preventDefault();
    const id = hash.replace(/^#(quote|fact)-/, "");
    if (link.dataset.show) {
      if (!isSeen(pane.getBoundingClientRect(), { top: -innerHeight / 2, bottom: innerHeight * 1.5 })) pane.scrollIntoView();
      showQuote(id);
    } else {
      showFact(id);
    }
    light([id]);
  });

  // A link to a value opens at its place.
  const wanted = document.querySelector(".fact.wanted");
  if (wanted) {
    const id = wanted.dataset.facts;
    showFact(id);
    showQuote(id);
    light([id]);
  }
})();
