// Draws the plots of a page: each element with data-plot="ID" shows the JSON of the script ID.
"use strict";

(() => {
  const HEIGHT = 200;
  const drawn = [];

  // A custom property may hold light-dark(), which only a used color resolves.
  function colorOf(element, style) {
    const probe = document.createElement("span");
    probe.style.color = `var(${style})`;
    element.append(probe);
    const color = getComputedStyle(probe).color;
    probe.remove();
    return color;
  }

  const number = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 4 });
  const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumSignificantDigits: 3 });

  function written(value, unit, format = number) {
    if (value === null || value === undefined) return "–";
    if (unit === "share") return `${format.format(value * 100)} %`;
    if (unit === "usd") return `${value < 0 ? "-" : ""}$${format.format(Math.abs(value))}`;
    if (unit === "seconds") return `${format.format(value)} s`;
    return format.format(value);
  }

  function day(seconds) {
    return new Date(seconds * 1000).toISOString().slice(0, 10);
  }

  // A line through fewer than three places is hard to see without them.
  function pointsOf(data, values) {
    const there = values.map((one, index) => (one || (one === 0 && data.unit !== "count") ? index : -1)).filter((index) => index >= 0);
    if (data.isCurve) return { show: true, size: 6 };
    return { show: there.length < 3, size: 6, filter: (_, __, isShown) => (isShown ? there : []) };
  }

  const WHOLE = [...Array(13).keys()].flatMap((power) => [1, 2, 5].map((step) => step * 10 ** power));

  function options(element, data, width) {
    const ink = colorOf(element, "--quiet");
    const line = colorOf(element, "--line");
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    const series = data.series.map((each, index) => ({
      label: each.name,
      stroke: colorOf(element, `--series-${index + 1}`),
      width: 2,
      spanGaps: true,
      points: pointsOf(data, each.values),
    }));
    if (data.isCurve) series.push({ label: "as claimed", stroke: ink, width: 1, dash: [4, 4], points: { show: false } });
    return {
      width,
      height: HEIGHT,
      legend: { show: false },
      cursor: { drag: { x: false, y: false } },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      scales: {
        x: data.isCurve ? { time: false, range: [0, 1] } : { time: true },
        y: { range: (_, low, high) => data.isCurve ? [0, 1] : [Math.min(0, low), high > 0 ? high * 1.08 : 1] },
      },
      axes: [
        { ...axis, size: 30, values: (_, ticks) => ticks.map((tick) => data.isCurve ? written(tick, "share", short) : day(tick).slice(5)) },
        {
          ...axis,
          size: 62,
          values: (_, ticks) => ticks.map((tick) => written(tick, data.unit, short)),
          ...(data.unit === "count" ? { incrs: WHOLE } : {}),
        },
      ],
      series: [{}, ...series],
      hooks: { setCursor: [(plot) => read(element, data, plot.cursor.idx)] },
    };
  }

  // Shows the values at the cursor, in the colors and the order of the legend.
  function read(element, data, index) {
    const line = element.parentElement.querySelector(".reading");
    if (index === null || index === undefined) {
      line.textContent = "\u00a0";
      return;
    }
    const where = data.isCurve ? written(data.x[index], "share") : day(data.x[index]);
    line.textContent = where;
    data.series.forEach((each, number) => {
      if (each.values[index] === null) return;
      const value = document.createElement("b");
      value.className = `series-${number + 1}`;
      value.textContent = ` ${written(each.values[index], data.unit)}`;
      line.append(value);
    });
  }

  function draw(element) {
    const data = JSON.parse(document.getElementById(element.dataset.plot).textContent);
    const columns = [data.x, ...data.series.map((each) => each.values)];
    if (data.isCurve) columns.push(data.x);
    const plot = new uPlot(options(element, data, element.clientWidth), columns, element);
    drawn.push({ element, plot });
  }

  function drawAll() {
    for (const { plot } of drawn.splice(0)) plot.destroy();
    for (const element of document.querySelectorAll("[data-plot]")) draw(element);
  }

  function isDrawn(element) {
    return drawn.some((each) => each.element === element);
  }

  function start() {
    drawAll();
    // Plots that are added to the page later.
    document.addEventListener("htmx:load", (event) => {
      for (const element of event.detail.elt.querySelectorAll("[data-plot]")) {
        if (!isDrawn(element)) draw(element);
      }
    });
    new ResizeObserver(() => {
      for (const { element, plot } of drawn) {
        if (element.clientWidth !== plot.width) plot.setSize({ width: element.clientWidth, height: HEIGHT });
      }
    }).observe(document.body);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
    document.addEventListener("chordwise:theme", drawAll);
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
