// The theme, local times, confirmation of changes, and live parts of a page.
"use strict";

(() => {
  const root = document.documentElement;
  const systemIsDark = matchMedia("(prefers-color-scheme: dark)");

  function storedTheme() {
    try { return localStorage.getItem("theme"); } catch { return null; }
  }

  // At once, so that the page is not painted in the other theme first.
  const chosen = storedTheme();
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : systemIsDark.matches;
  }

  function setUpTheme() {
    const button = document.getElementById("theme");
    const label = () => { button.textContent = isDark() ? "Light" : "Dark"; };
    button.hidden = false;
    label();
    systemIsDark.addEventListener("change", label);
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try { localStorage.setItem("theme", root.dataset.theme); } catch { /* stays for this page */ }
      label();
      document.dispatchEvent(new Event("chordwise:theme"));
    });
  }

  // On a phone the names of the pages are wider than the screen.
  function showPlace() {
    const nav = document.querySelector(".bar nav");
    const current = nav && nav.querySelector("[aria-current]");
    if (current) nav.scrollLeft = current.offsetLeft + current.offsetWidth / 2 - nav.offsetLeft - nav.clientWidth / 2;
  }

  const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

  function showTimes(part) {
    for (const time of part.querySelectorAll("time[datetime]:not([title])")) {
      time.title = time.textContent;
      time.textContent = clock.format(new Date(time.dateTime));
    }
  }

  // A form with data-confirm asks before it is sent.
  function setUpQuestions() {
    const dialog = document.getElementById("confirm");
    document.addEventListener("submit", (event) => {
      const form = event.target;
      if (!form.dataset.confirm || form.dataset.confirmed) return;
      event.preventDefault();
      event.stopPropagation();
      const button = event.submitter;
      dialog.querySelector("p").textContent = form.dataset.confirm;
      dialog.querySelector("[value=yes]").textContent = button ? button.textContent : "Yes";
      dialog.returnValue = "no";
      dialog.showModal();
      dialog.onclose = () => {
        if (dialog.returnValue !== "yes") return;
        form.dataset.confirmed = "yes";
        form.requestSubmit(button);
        delete form.dataset.confirmed;
      };
    }, true);
  }

  // An element with data-live="ADDRESS" shows the newest event of that stream until it ends; after
  // each event, the element that data-beside="SELECTOR" names is reloaded. A hidden page has no
  // stream, because browsers limit the connections of all tabs to a server.
  function setUpLiveParts() {
    for (const part of document.querySelectorAll("[data-live]")) {
      let stream = null;
      const follow = () => {
        if (stream) stream.close();
        stream = document.hidden || !part.dataset.live ? null : followed(part);
      };
      document.addEventListener("visibilitychange", follow);
      follow();
    }
  }

  const BESIDE_MS = 3000;

  // Returns a function that reloads an element of the page, less often if the page is slow. It does
  // not reload an element that has the focus, or on a hidden page.
  function loaderOf(selector) {
    let at = performance.now() + BESIDE_MS, timer = 0;
    async function load() {
      const part = document.querySelector(selector);
      if (!window.htmx || document.hidden || part.contains(document.activeElement)) return;
      const begun = performance.now();
      await htmx.ajax("GET", location.href, { target: selector, select: selector, swap: "outerHTML" });
      at = performance.now() + Math.max(BESIDE_MS, 20 * (performance.now() - begun));
    }
    return () => {
      clearTimeout(timer);
      timer = setTimeout(load, at - performance.now());
    };
  }

  function followed(part) {
    const stream = new EventSource(part.dataset.live);
    const loadBeside = part.dataset.beside ? loaderOf(part.dataset.beside) : () => {};
    stream.addEventListener("part", (event) => {
      part.innerHTML = event.data;
      showTimes(part);
      const status = document.getElementById("live-status");
      const words = part.firstElementChild ? part.firstElementChild.dataset.status : "";
      if (status && words && status.textContent !== words) status.textContent = words;
      if (window.htmx) window.htmx.process(part);
      loadBeside();
    });
    stream.addEventListener("end", () => {
      stream.close();
      delete part.dataset.live;
      if (part.dataset.then) location.assign(part.dataset.then);
    });
    return stream;
  }

  // Files that are dropped on a form with data-drop, or anywhere beside it, are sent with it.
  function setUpDrop() {
    const form = document.querySelector("form[data-drop]");
    if (!form) return;
    const input = form.querySelector("input[type=file]");
    const hasFiles = (event) => event.dataTransfer && event.dataTransfer.types.includes("Files");
    document.addEventListener("dragover", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      form.classList.add("over");
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) form.classList.remove("over");
    });
    document.addEventListener("drop", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      form.classList.remove("over");
      // Browsers pass a folder as a file that cannot be read.
      const entries = [...event.dataTransfer.items].map((each) => each.webkitGetAsEntry());
      if (entries.some((each) => each && each.isDirectory)) {
        form.querySelector(".sending").textContent = "A folder cannot be dropped. Drop the files in it.";
        return;
      }
      input.files = event.dataTransfer.files;
      form.requestSubmit();
    });
    form.addEventListener("submit", () => {
      const count = input.files.length;
      form.querySelector(".sending").textContent = `Sending ${count} file${count === 1 ? "" : "s"} …`;
    });
  }

  // Ctrl+Enter in a field with data-run sends its form.
  function setUpKeys() {
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      if (!event.target.matches("[data-run]")) return;
      event.preventDefault();
      event.target.form.requestSubmit();
    });
  }

  // Errors of htmx requests are shown in the notice.
  function setUpErrors() {
    document.body.addEventListener("htmx:beforeSwap", (event) => {
      if (event.detail.xhr.status < 400) return;
      event.detail.shouldSwap = true;
      event.detail.target = document.getElementById("notice");
      event.detail.swapOverride = "innerHTML";
    });
    document.body.addEventListener("htmx:sendError", () => {
      document.getElementById("notice").textContent = "The server does not answer. Try again.";
    });
    document.body.addEventListener("htmx:afterSwap", (event) => showTimes(event.detail.target));
  }

  document.addEventListener("DOMContentLoaded", () => {
    setUpTheme();
    showPlace();
    addEventListener("resize", showPlace);
    setUpQuestions();
    setUpLiveParts();
    setUpDrop();
    setUpKeys();
    setUpErrors();
    showTimes(document);
  });
})();
