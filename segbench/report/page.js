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

  // one class alone: its pixels in blue, the others faded; who cannot tell the colours apart sees the classes all the same
  async function highlight(image, color) {
    image.dataset.full = image.dataset.full || image.src;
    if (!color) { image.src = image.dataset.full; return; }
    const full = new Image();
    full.src = image.dataset.full;
    await full.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: full.naturalWidth, height: full.naturalHeight });
    const context = canvas.getContext("2d");
    context.drawImage(full, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    const data = pixels.data;
    for (let i = 0; i < data.length; i += 4) {
      const isChosen = color.every((value, channel) => data[i + channel] === value);
      for (let channel = 0; channel < 3; channel++)
        data[i + channel] = isChosen ? [0, 114, 178][channel] : 235 + 0.08 * (data[i + channel] - 128);
    }
    context.putImageData(pixels, 0, 0);
    image.src = canvas.toDataURL();
  }
  document.querySelectorAll("ul.legend").forEach((legend) => {
    const buttons = [...legend.querySelectorAll("button")];
    const images = [];
    for (let next = legend.nextElementSibling; next && next.matches(".scene"); next = next.nextElementSibling)
      images.push(...next.querySelectorAll("img.labels"));
    buttons.forEach((button) => button.addEventListener("click", () => {
      const isOn = button.getAttribute("aria-pressed") !== "true";
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(isOn && other === button)));
      images.forEach((image) => highlight(image, isOn ? button.dataset.color.split(",").map(Number) : null));
    }));
  });

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
