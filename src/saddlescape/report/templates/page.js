// Draws the figures of the page when they come into sight, and saves them. No request is made; nothing is stored.
(() => {
  "use strict";
  const NARROW = 620;
  const night = window.matchMedia("(prefers-color-scheme: dark)");
  const exchange = JSON.parse(document.getElementById("colours").textContent);
  const config = { displaylogo: false, responsive: true, showSendToCloud: false, plotlyServerURL: "", scrollZoom: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "tableRotation", "resetCameraLastSave3d"] };

  // Colours stand in the figures as on a light page; a dark one has a partner for each.
  function themed(value) {
    if (typeof value === "string") {
      if (!night.matches || value[0] !== "#") return value;
      const found = exchange[value.slice(0, 7)];
      return found ? found + value.slice(7) : value;
    }
    if (Array.isArray(value)) return value.length && typeof value.at(-1) === "number" ? value : value.map(themed);
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, themed(inner)]));
    return value;
  }

  // Names come escaped for plotly; elsewhere they are plain text.
  const plain = (text) => String(text).replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
  const SIGNS = { circle: "●", diamond: "◆", square: "■", "triangle-up": "▲", cross: "✚", x: "✖", star: "★", hexagon: "⬢",
    "circle-open": "○", "diamond-open": "◇", "square-open": "□" };
  const element = (name, text) => Object.assign(document.createElement(name), { textContent: text ?? "" });

  // Plotly lies in the page packed, and is unpacked when the first figure comes near or the page has been painted and
  // nothing else is to be done: words and tables are there at once.
  let engine = null;
  const plotly = () => (engine ??= unpack());

  async function unpack() {
    const packed = document.getElementById("engine");
    const bytes = decode(packed.textContent.trim());
    packed.textContent = "";
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    if (!window.Plotly) throw new Error("the drawing library did not start");
    return window.Plotly;
  }

  function decode(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const letters = atob(text), bytes = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
    return bytes;
  }

  class Chart {
    constructor(figure) {
      this.figure = figure;
      this.chart = figure.querySelector(".chart");
      this.choice = figure.querySelector("select.choice");
      this.data = null;
      this.hidden = new Set();
      this.busy = false;
      this.choice?.addEventListener("change", () => this.draw());
      for (const button of figure.querySelectorAll(".step"))
        button.addEventListener("click", () => this.step(Number(button.dataset.step)));
      figure.querySelector("details.table").addEventListener("toggle", () => this.numbers());
      this.chart.addEventListener("keydown", (event) => this.key(event));
    }

    get variant() {
      this.data ??= JSON.parse(this.figure.querySelector("script.data").textContent);
      return this.data.variants[this.choice ? Number(this.choice.value) : this.data.start];
    }

    get narrow() { return this.figure.clientWidth < NARROW; }

    step(by) {
      const total = this.choice.options.length;
      this.choice.value = String((Number(this.choice.value) + by + total) % total);
      this.draw();
    }

    async draw() {
      this.chart.setAttribute("aria-busy", "true");
      let Plotly;
      try { Plotly = await plotly(); } catch (problem) {
        this.chart.textContent = `This browser cannot draw the figures (${problem.message}): a newer one can.`;
        return;
      } finally { this.chart.removeAttribute("aria-busy"); }
      const { figure, text } = this.variant;
      const layout = themed(this.narrow ? figure.narrow : figure.layout);
      if (!this.narrow && this.choice === null) this.chart.style.height = "";
      this.mode = this.narrow;
      const old = this.chart.layout || {};
      for (const scene of this.scenes(layout)) if (old[scene]?.camera) layout[scene].camera = old[scene].camera;
      const data = themed(figure.data).map((trace) =>
        this.hidden.has(trace.legendgroup) ? { ...trace, visible: false } : trace);
      this.chart.style.height = layout.height + "px";
      const first = !this.drawn;
      this.drawn = true;
      await Plotly.react(this.chart, data, layout, config);
      if (first) this.chart.on("plotly_relayout", (change) => this.together(change));
      if (first) this.chart.on("plotly_relayouting", (change) => this.together(change));
      this.figure.querySelector(".description").textContent = text;
      this.legend(figure.legend);
      this.ranges(figure.ranges);
      this.numbers();
      this.figure.dataset.drawn = String(Number(this.figure.dataset.drawn || 0) + 1);
    }

    // A light copy with its legend, whatever the page's colours: a figure for a document.
    async svg() {
      const Plotly = await plotly(), { figure } = this.variant, room = figure.legend.length ? 26 : 0, margin = figure.layout.margin;
      const names = figure.legend.map((entry) => `<span style="color:${entry.colour}">${SIGNS[entry.symbol] || "■"} ${entry.name}</span>`);
      const size = { width: 920, height: figure.layout.height + room };
      const layout = { ...figure.layout, ...size, margin: { ...margin, t: margin.t + room }, paper_bgcolor: "#ffffff",
        title: { text: names.join("   "), font: { size: 12 }, x: 0.02, y: 0.99, yanchor: "top" } };
      const uri = await Plotly.toImage({ data: figure.data, layout }, { format: "svg", ...size });
      save(this.name + ".svg", decodeURIComponent(uri.slice(uri.indexOf(",") + 1)), "image/svg+xml");
    }

    get name() { return this.figure.id.replace(/^s1-/, ""); }

    scenes(layout) { return Object.keys(layout || {}).filter((key) => key.startsWith("scene")); }

    // Surfaces side by side turn together.
    async together(change) {
      const moved = Object.keys(change).find((key) => /^scene\d*\.camera$/.test(key));
      if (!moved || this.busy) return;
      const others = this.scenes(this.chart.layout).filter((scene) => `${scene}.camera` !== moved);
      if (!others.length) return;
      this.busy = true;
      try {
        await Plotly.relayout(this.chart, Object.fromEntries(others.map((scene) => [`${scene}.camera`, change[moved]])));
      } finally { this.busy = false; }
    }

    key(event) {
      const turn = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      const scenes = this.scenes(this.chart.layout);
      if (!turn || !scenes.length || event.target !== this.chart) return;
      event.preventDefault();
      const camera = this.chart._fullLayout[scenes[0]].camera;
      const { x, y, z } = camera.eye;
      const radius = Math.hypot(x, y, z);
      const around = Math.atan2(y, x) + turn[0] * 0.15;
      const up = Math.max(-1.5, Math.min(1.5, Math.asin(z / radius) + turn[1] * 0.12));
      const eye = { x: radius * Math.cos(up) * Math.cos(around), y: radius * Math.cos(up) * Math.sin(around), z: radius * Math.sin(up) };
      Plotly.relayout(this.chart, Object.fromEntries(scenes.map((scene) => [`${scene}.camera`, { ...camera, eye }])));
    }

    legend(entries) {
      const box = this.figure.querySelector(".legend");
      const focused = document.activeElement?.dataset?.name;
      box.replaceChildren(...entries.map((entry) => {
        const button = element("button");
        button.type = "button";
        button.dataset.name = entry.name;
        button.setAttribute("aria-pressed", String(!this.hidden.has(entry.name)));
        button.append(swatch(entry), element("span", plain(entry.name)));
        button.addEventListener("click", () => {
          if (!this.hidden.delete(entry.name)) this.hidden.add(entry.name);
          this.draw();
        });
        return button;
      }));
      if (focused) for (const button of box.children) if (button.dataset.name === focused) button.focus();
    }

    ranges(ranges) {
      const box = this.figure.querySelector(".ranges");
      box.replaceChildren(...Object.entries(ranges).map(([name, ends], index) => {
        const button = element("button", name);
        button.type = "button";
        button.setAttribute("aria-pressed", String(index === 0));
        button.addEventListener("click", () => {
          const axes = Object.keys(this.chart.layout).filter((key) => /^xaxis\d*$/.test(key));
          Plotly.relayout(this.chart, Object.fromEntries(axes.map((axis) => [`${axis}.range`, ends])));
          for (const other of box.children) other.setAttribute("aria-pressed", String(other === button));
        });
        return button;
      }));
    }

    // The numbers as a table, made when it is opened.
    numbers() {
      const details = this.figure.querySelector("details.table");
      const box = details.querySelector(".numbers");
      if (!details.open) return box.replaceChildren();
      const table = element("table"), body = element("tbody"), rows = rowsOf(this.variant.figure);
      const head = element("thead"), line = element("tr");
      for (const name of rows.columns) line.append(Object.assign(element("th", name), { scope: "col" }));
      head.append(line);
      for (const row of rows.rows.slice(0, 400)) {
        const tr = element("tr");
        for (const cell of row) tr.append(element("td", cell));
        body.append(tr);
      }
      table.append(head, body);
      box.replaceChildren(table);
      if (rows.rows.length > 400) box.append(element("p", `The first 400 of ${rows.rows.length} rows; all are in the run's files.`));
    }
  }

  const shown = (value) => (value === null || value === undefined ? "" : typeof value === "number" ? String(+value.toPrecision(5)) : String(value));

  function rowsOf(figure) {
    const titles = (figure.layout.annotations || []).map((note) => plain(note.text)).filter((text) => text.startsWith("<b>")).map((text) => text.slice(3, -4));
    const first = figure.data[0] || {};
    if (first.type === "heatmap") {
      const names = figure.layout.xaxis.ticktext.map(plain);
      return { columns: ["true class \\ predicted as", ...names], rows: first.z.map((row, i) => [plain(figure.layout.yaxis.ticktext[i]), ...row.map(shown)]) };
    }
    if (first.type === "surface") {
      const rows = [];
      for (const trace of figure.data.filter((trace) => trace.type === "surface"))
        trace.z.forEach((line, i) => rows.push([plain(trace.name), shown(trace.y[i]), ...line.map(shown)]));
      const columns = ["run", "along the first \\ second direction", ...first.x.map(shown)];
      for (const trace of figure.data.filter((trace) => trace.type === "scatter"))
        trace.x.forEach((x, i) => rows.push([`${plain(trace.name)}, slice`, shown(x), shown(trace.y[i]), ...columns.slice(3).map(() => "")]));
      return { columns, rows };
    }
    const rows = [];
    for (const trace of figure.data) {
      if (trace.meta === "band" || !trace.y) continue;
      const axis = Number((trace.xaxis || "x").slice(1) || 1);
      const layout = figure.layout[`xaxis${axis === 1 ? "" : axis}`] || {};
      const down = figure.layout[`yaxis${axis === 1 ? "" : axis}`] || {};
      const named = (place, value) => {
        if (!place.ticktext || value === null) return shown(value);
        const near = place.tickvals.findIndex((at) => Math.abs(at - value) < 0.5);
        return near < 0 ? shown(value) : plain(place.ticktext[near]);
      };
      trace.y.forEach((y, i) => {
        const x = trace.x ? trace.x[i] : trace.x0 + i * trace.dx;
        if (y !== null) rows.push([titles[axis - 1] || "", plain(trace.name || ""), named(layout, x), named(down, y)]);
      });
    }
    return { columns: ["panel", "series", "x", "y"], rows };
  }

  // What a series is drawn with, in letters: its line, its point, or a bar.
  function swatch(entry) {
    const line = entry.kind === "bars" || entry.kind === "points" ? "" : { dash: "╌", dot: "┈", dashdot: "┄" }[entry.dash] || "─";
    const sign = entry.kind === "bars" ? "■" : SIGNS[entry.symbol + (entry.hollow ? "-open" : "")] || "";
    const shown = element("i", line + (sign || line) + line);
    shown.style.color = themed(entry.colour);
    shown.setAttribute("aria-hidden", "true");
    return shown;
  }

  // Every table of the page can be copied (into a spreadsheet) and saved.
  const cellsOf = (table) => [...table.rows].map((row) => [...row.cells].flatMap((cell) =>
    [cell.textContent.trim().replace(/\s+/g, " "), ...Array(cell.colSpan - 1).fill("")]));
  const csv = (rows) => rows.map((row) => row.map((cell) => (/[",\n]/.test(cell) ? `"${cell.replace(/"/g, '""')}"` : cell)).join(",")).join("\n") + "\n";

  function save(name, text, type) {
    const url = URL.createObjectURL(new Blob([text], { type }));
    Object.assign(document.createElement("a"), { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  async function copy(text) {
    try { await navigator.clipboard.writeText(text); } catch {
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  }

  async function press(button) {
    const kind = button.dataset.save, card = button.closest(".card"), chart = charts.get(card);
    const table = card.querySelector("table"), script = card.querySelector("pre");
    if (kind === "Copy") await copy(table ? cellsOf(table).map((row) => row.join("\t")).join("\n") : script.textContent);
    else if (kind === "SVG") await chart.svg();
    else if (chart) { const { columns, rows } = rowsOf(chart.variant.figure); save(chart.name + ".csv", csv([columns, ...rows]), "text/csv"); }
    else save("table.csv", csv(cellsOf(table)), "text/csv");
    button.textContent = kind === "Copy" ? "Copied" : "Saved";
    setTimeout(() => { button.textContent = kind; }, 1500);
  }
  for (const button of document.querySelectorAll("button[data-save]")) button.addEventListener("click", () => press(button));

  // A hint below each table that is wider than the screen.
  const widths = new ResizeObserver((entries) => {
    for (const { target } of entries) target.nextElementSibling.hidden = target.scrollWidth <= target.clientWidth;
  });
  for (const box of document.querySelectorAll(".wide .scroll")) widths.observe(box);

  const charts = new Map([...document.querySelectorAll("figure.card")].map((figure) => [figure, new Chart(figure)]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) {
      seen.unobserve(entry.target);
      charts.get(entry.target.closest("figure")).draw();
    }
  }, { rootMargin: "300px 0px" });
  for (const one of charts.values()) seen.observe(one.chart);  // not seen while it is folded
  const idle = window.requestIdleCallback || ((call) => setTimeout(call, 300));
  if (charts.size) requestAnimationFrame(() => idle(() => plotly().catch(() => {}), { timeout: 1500 }));

  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const chart = charts.get(target);
      if (chart.drawn && chart.mode !== chart.narrow) chart.draw();
    }
  });
  for (const figure of charts.keys()) sizes.observe(figure);
  night.addEventListener("change", () => { for (const chart of charts.values()) if (chart.drawn) chart.draw(); });
  window.addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll("figure .fold")) fold.open = true;
    for (const chart of charts.values()) if (!chart.drawn) chart.draw(); });

  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.getAttribute("href").slice(1), link]));
  const places = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) {
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-10% 0px -80% 0px" });
  for (const id of links.keys()) { const place = document.getElementById(id); if (place) places.observe(place); }
})();
