// The theme, times on the clock of the browser, questions before changes, and live parts of a page.
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

  // An element with data-live="ADDRESS" shows the newest event of that stream, until its end.
  function setUpLiveParts() {
    for (const part of document.querySelectorAll("[data-live]")) {
      const stream = new EventSource(part.dataset.live);
      stream.addEventListener("part", (event) => {
        part.innerHTML = event.data;
        showTimes(part);
        if (window.htmx) window.htmx.process(part);
      });
      stream.addEventListener("end", () => {
        stream.close();
        if (part.dataset.then) location.assign(part.dataset.then);
      });
    }
  }

  // A button with data-copy="SELECTOR" copies the text of that element.
  function setUpCopying() {
    document.addEventListener("click", async (event) => {
      const button = event.target.closest("[data-copy]");
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
  }

  // What went wrong with a request of htmx is said in the notice.
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
    setUpQuestions();
    setUpLiveParts();
    setUpErrors();
    setUpCopying();
    showTimes(document);
  });
})();
