"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const root = document.documentElement;
  const views = new Map();

  function theme() {
    const css = getComputedStyle(root);
    const [text, quiet, line] = ["--text", "--quiet", "--line"].map((name) => css.getPropertyValue(name).trim());
    const axis = { labelColor: quiet, titleColor: quiet, gridColor: line, domainColor: line, tickColor: line,
      labelFontSize: 11, titleFontSize: 11, titleFontWeight: "normal", gridOpacity: 0.6 };
    return { background: null, font: "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif",
      view: { stroke: null }, axis, text: { color: text }, rule: { color: quiet },
      legend: { labelColor: quiet, titleColor: quiet, labelFontSize: 11, titleFontSize: 11, titleFontWeight: "normal" },
      style: { "guide-label": { fill: quiet } } };
  }

  async function draw(element) {
    const spec = specs[element.id];
    const wide = (spec.usermeta || {}).minWidth;
    if (wide) element.style.minWidth = wide + "px";
    const old = views.get(element.id);
    if (old) old.finalize();
    const dark = root.dataset.theme === "dark";
    const result = await vegaEmbed(element, spec,
      { actions: false, renderer: "svg", config: theme(), tooltip: { theme: dark ? "dark" : "light" } });
    views.set(element.id, result);
    element.dataset.drawn = "true";
  }

  // a chart is drawn when it comes near the window, so that a thousand trials open at once
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      observer.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "400px" });
  document.querySelectorAll(".chart").forEach((element) => observer.observe(element));

  function setTheme(name) {
    root.dataset.theme = name;
    for (const id of views.keys()) draw(document.getElementById(id));
  }
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  setTheme(prefersDark.matches ? "dark" : "light");
  prefersDark.addEventListener("change", (event) => setTheme(event.matches ? "dark" : "light"));
  document.getElementById("theme").addEventListener("click", () =>
    setTheme(root.dataset.theme === "dark" ? "light" : "dark"));
  addEventListener("beforeprint", () => document.querySelectorAll(".chart:not([data-drawn])").forEach(draw));

  function key(row, column) {
    const cell = row.cells[column];
    return cell.dataset.key === undefined ? cell.textContent : Number(cell.dataset.key);
  }
  document.querySelectorAll("table.sortable").forEach((table) => {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      head.tabIndex = 0;
      const sort = () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [key(a, column), key(b, column)];
          return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
        });
        body.append(...rows);
      };
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
    });
  });
})();
