-- The document of the status page, in parts. Nothing in it is put together with what a filter or client chose.

local _M = {}

_M.style = [[
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--fg:#1b2430;--dim:#5c6878;--line:#d9dee5;--mark:#2563eb;
--ok:#137a41;--bad:#b42318;--soft:#dbe6fd}
@media(prefers-color-scheme:dark){:root{--bg:#12161c;--card:#1b2129;--fg:#e6eaf0;--dim:#9aa7b7;--line:#323b47;
--mark:#7aa5ff;--ok:#5fd38f;--bad:#ff8a80;--soft:#24344f}}
*{box-sizing:border-box}
body{margin:0;padding:1rem;background:var(--bg);color:var(--fg);font:15px/1.45 system-ui,sans-serif}
header,main{max-width:70rem;margin:0 auto}
h1{font-size:1.3rem;margin:0 0 .25rem}
h2{font-size:1.05rem;margin:0;overflow-wrap:anywhere}
h3{font-size:.8rem;margin:.9rem 0 .3rem;color:var(--dim);font-weight:600}
.dim{color:var(--dim)}
.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.9rem;margin:.8rem 0}
.top{display:flex;flex-wrap:wrap;gap:.4rem .8rem;align-items:baseline}
.cols{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:0 1.5rem}
.badge{border-radius:1rem;padding:0 .6rem;font-size:.8rem;border:1px solid currentColor}
.running{color:var(--ok)}.failing{color:var(--bad)}.loading{color:var(--mark)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.15rem .5rem;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}
th{font-weight:600;color:var(--dim);font-size:.8rem}
td.text{text-align:left;white-space:normal;overflow-wrap:anywhere}
svg{display:block;width:100%;height:3.5rem}
.bar{fill:var(--mark)}.plot{fill:none;stroke:var(--mark);stroke-width:1.5}
.meter{height:.5rem;border-radius:.25rem;background:var(--soft);overflow:hidden}
.meter div{height:100%;background:var(--mark)}
.error{color:var(--bad);overflow-wrap:anywhere}
]]

_M.body = [[
<header><h1>Wasm filters</h1><p class="dim" id="about" role="status">Loading …</p></header>
<main id="main"><noscript>This page needs a script. The same numbers are at ?format=json.</noscript></main>
]]

_M.script = [[
"use strict";
const EVERY = 2000, KEPT = 150, SVG = "http://www.w3.org/2000/svg";
const rates = new Map();
let before = null;

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}
function add(parent, ...children) { parent.append(...children); return parent; }
function drawn(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
function bytes(number) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (number < 1024 || unit === "GiB") return (unit === "B" ? number : number.toFixed(1)) + " " + unit;
    number /= 1024;
  }
}
function seconds(number) {
  if (number === 0) return "0 s";
  if (number < 1e-3) return +(number * 1e6).toPrecision(3) + " µs";
  if (number < 1) return +(number * 1e3).toPrecision(3) + " ms";
  return +number.toPrecision(3) + " s";
}
function count(number) { return number < 10 ? +number.toFixed(2) + "" : Math.round(number).toLocaleString("en"); }
function clock(time) { return new Date(time * 1000).toLocaleTimeString(); }

function of(answer, name, plugin) {
  return answer.metrics.filter(m => m.name === name && (plugin === undefined || m.labels.plugin === plugin));
}
function sum(list) { return list.reduce((total, m) => total + m.value, 0); }

function table(heads, rows) {
  const made = element("table"), head = element("tr");
  heads.forEach(text => head.append(element("th", "", text)));
  made.append(add(element("thead"), head));
  const body = element("tbody");
  for (const row of rows) {
    const line = element("tr");
    row.forEach(cell => line.append(cell instanceof Node ? cell : element("td", "", cell)));
    body.append(line);
  }
  made.append(body);
  return add(element("div", "scroll"), made);
}
function meter(part, whole, label) {
  const inner = element("div"), outer = add(element("div", "meter"), inner);
  const percent = whole > 0 ? Math.min(100, 100 * part / whole) : 0;
  inner.style.width = percent + "%";
  outer.setAttribute("role", "meter");
  outer.setAttribute("aria-valuenow", percent.toFixed(0));
  outer.setAttribute("aria-valuemin", "0");
  outer.setAttribute("aria-valuemax", "100");
  outer.setAttribute("aria-label", label);
  return outer;
}
function sparkline(values, label) {
  const made = drawn("svg", { viewBox: "0 0 150 40", preserveAspectRatio: "none", role: "img", "aria-label": label });
  const most = Math.max(1e-9, ...values);
  const points = values.map((value, at) => (KEPT - values.length + at) + "," + (39 - 37 * value / most));
  made.append(drawn("polyline", { points: points.join(" "), class: "plot", "vector-effect": "non-scaling-stroke" }));
  return made;
}
function histogram(metric) {
  const counts = metric.buckets.map((bucket, at) => bucket.count - (at ? metric.buckets[at - 1].count : 0));
  const most = Math.max(1, ...counts), wide = 100 / counts.length;
  const made = drawn("svg", { viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img",
    "aria-label": "Time of callbacks" });
  counts.forEach((number, at) => {
    const high = number ? Math.max(1, 38 * number / most) : 0;
    const bar = drawn("rect", { x: at * wide + 0.5, y: 40 - high, width: wide - 1, height: high, class: "bar" });
    const end = metric.buckets[at].le;
    const title = drawn("title", {});
    title.textContent = (end === "inf" ? "more" : "up to " + seconds(end)) + ": " + number;
    bar.append(title);
    made.append(bar);
  });
  return made;
}

function keep(answer) {
  if (before && answer.now > before.now) {
    for (const plugin of answer.plugins) {
      const total = sum(of(answer, "proxy_wasm_callbacks_total", plugin.name));
      const last = sum(of(before, "proxy_wasm_callbacks_total", plugin.name));
      const list = rates.get(plugin.name) || [];
      list.push(Math.max(0, total - last) / (answer.now - before.now));
      rates.set(plugin.name, list.slice(-KEPT));
    }
  }
  before = answer;
}

function state(answer, worker) {
  if (!worker.loading_since) return worker.state;
  const since = Math.max(0, Math.round(answer.now - worker.loading_since));
  const made = element("td", "", worker.loading_stage + " for " + since + " s");
  if (worker.functions) {
    made.append(": " + count(worker.functions_compiled) + " of " + count(worker.functions) + " functions",
      meter(worker.functions_compiled, worker.functions, "functions compiled in " + worker.pid));
  }
  return made;
}
function card(answer, plugin) {
  const name = plugin.name, made = element("section", "card"), workers = plugin.workers;
  const top = add(element("div", "top"), element("h2", "", name));
  for (const state of new Set(workers.map(worker => worker.state))) {
    const such = workers.filter(worker => worker.state === state);
    top.append(element("span", "badge " + state, state + (such.length < workers.length ? " in " + such.length : "")));
  }
  const digests = new Set(workers.filter(worker => worker.digest).map(worker => worker.digest.slice(0, 12)));
  top.append(element("span", "dim", "module " + [...digests].join(", ") + ", version "
    + [...new Set(workers.map(worker => worker.version))].join(", ")));
  made.append(top);

  const list = rates.get(name) || [], cols = element("div", "cols");
  const rate = element("div"), time = element("div"), other = element("div");
  rate.append(element("h3", "", "Callbacks per second, last " + Math.round(KEPT * EVERY / 60000) + " minutes"),
    element("div", "", list.length ? count(list[list.length - 1]) : "…"), sparkline(list, "Callbacks per second"));
  const times = of(answer, "proxy_wasm_callback_seconds", name)[0];
  if (times && times.count) {
    time.append(element("h3", "", "Time of callbacks, " + seconds(times.buckets[0].le) + " to "
      + seconds(times.buckets[times.buckets.length - 2].le)),
      element("div", "", "mean " + seconds(times.sum / times.count)), histogram(times));
  }
  const limits = of(answer, "proxy_wasm_limits_total", name).filter(m => m.value)
    .map(m => m.labels.limit + " " + count(m.value));
  const calls = of(answer, "proxy_wasm_calls_total", name).filter(m => m.value).map(m => {
    const failed = of(answer, "proxy_wasm_failed_calls_total", name).filter(f => f.labels.kind === m.labels.kind);
    return m.labels.kind + " " + count(m.value) + " (" + count(sum(failed)) + " failed)";
  });
  const loads = of(answer, "proxy_wasm_loads_total", name).filter(m => m.value)
    .map(m => m.labels.origin + " " + count(m.value));
  const starts = of(answer, "proxy_wasm_vm_start_seconds", name)[0];
  other.append(element("h3", "", "Totals"), table(["", ""], [
    ["VMs started", starts && starts.count ? count(starts.count) + ", in " + seconds(starts.sum / starts.count) : "0"],
    ["VMs lost", count(sum(of(answer, "proxy_wasm_traps_total", name)))],
    ["limits", limits.join(", ") || "none"],
    ["calls", calls.join(", ") || "none"],
    ["code from", loads.join(", ") || "none"],
  ]));
  made.append(add(cols, rate, time, other));

  const upstreams = of(answer, "proxy_wasm_upstream_calls_total", name);
  if (upstreams.length) {
    const columns = ["upstream", "kind", "calls", "failed"];
    made.append(element("h3", "", "Calls by upstream"), table(columns, upstreams.map(m => {
      const failed = of(answer, "proxy_wasm_upstream_failed_calls_total", name)
        .filter(f => f.labels.upstream === m.labels.upstream && f.labels.kind === m.labels.kind);
      return [m.labels.upstream, m.labels.kind, count(m.value), count(sum(failed))];
    })));
  }

  made.append(element("h3", "", "Workers"), table(
    ["pid", "state", "since", "contexts", "streams", "memory", "of", "VMs lost"],
    workers.map(worker => [worker.pid, state(answer, worker),
      worker.since ? clock(worker.since) : "", worker.contexts, worker.streams,
      bytes(worker.memory), add(element("td"), document.createTextNode(bytes(worker.memory_limit)),
        meter(worker.memory, worker.memory_limit, "memory of " + worker.pid)), worker.traps])));
  for (const worker of workers.filter(worker => worker.last_error)) {
    made.append(element("p", "error", worker.pid + ", " + clock(worker.last_error_at) + ": " + worker.last_error));
  }
  return made;
}

function shared(answer) {
  const size = sum(of(answer, "proxy_wasm_shared_memory_bytes"));
  const used = sum(of(answer, "proxy_wasm_shared_memory_used_bytes"));
  return add(element("section", "card"), element("h2", "", "Shared memory"),
    element("p", "", bytes(used) + " of " + bytes(size)), meter(used, size, "shared memory"));
}

function queues(answer) {
  const rows = of(answer, "proxy_wasm_queue_messages").map(m => {
    const came = of(answer, "proxy_wasm_queue_messages_total").filter(other => other.labels.id === m.labels.id);
    return [m.labels.queue, m.labels.vm_id || "-", count(m.value), count(sum(came))];
  });
  if (!rows.length) return [];
  return [add(element("section", "card"), element("h2", "", "Queues"),
    table(["queue", "vm_id", "waiting", "came"], rows))];
}

function show(answer) {
  keep(answer);
  const main = document.getElementById("main");
  main.replaceChildren(...answer.plugins.map(plugin => card(answer, plugin)), ...queues(answer), shared(answer));
  if (!answer.plugins.length) main.prepend(element("p", "", "No worker has a filter."));
  about("version " + answer.version + ", " + new Date(answer.now * 1000).toLocaleString());
}
function about(text, failed) {
  const line = document.getElementById("about");
  line.textContent = text;
  line.className = failed ? "error" : "dim";
}
async function update() {
  try {
    const answer = await fetch("?format=json", { cache: "no-store" });
    if (!answer.ok) throw new Error("HTTP status " + answer.status);
    show(await answer.json());
  } catch (error) {
    about("No news: " + error.message, true);
  }
  setTimeout(update, EVERY);
}
update();
]]

return _M
