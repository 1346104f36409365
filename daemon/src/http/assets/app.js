// The dashboard: all it shows comes from the API below the page's address, and is set as inert text, never as HTML.
"use strict";
(() => {
  const { integer, decimal, whole, bytes, span, clock, isNumber, isId, cell, plain, inert, inertBytes, label } = Format;
  const $ = (id) => document.getElementById(id);
  const el = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "class") node.className = value;
      else if (name === "onclick") node.addEventListener("click", value);
      else node.setAttribute(name, plain(value));
    }
    const keepsLines = tag === "pre" || attributes.class === "failing";
    node.append(...children.filter((child) => child !== null && child !== undefined).flatMap((child) => (child instanceof Node ? child : inert(child, keepsLines))));
    return node;
  };
  const replace = (node, ...children) => node.replaceChildren(...children.filter((child) => child !== null));
  const setText = (node, text) => { if (node.textContent !== plain(text)) node.replaceChildren(...inert(text)); };

  // ---- times
  const lasting = (seconds) => (seconds ? span(seconds * 1000) : "0 s");
  let now = Date.now(); // the server's clock at its last message
  const ago = (ms) => {
    if (ms === null || ms === undefined) return "never";
    const s = Math.max(0, now - ms) / 1000;
    if (s < 2) return "just now";
    return `${span(s < 60 ? Math.round(s) * 1000 : s * 1000)} ago`;
  };

  // ---- colours
  const themes = { auto: ["◐", "follow the system"], light: ["○", "light"], dark: ["●", "dark"] };
  let theme = "auto";
  try { theme = themes[localStorage.getItem("theme")] ? localStorage.getItem("theme") : "auto"; } catch { /* private mode */ }
  function paint() {
    if (theme === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.dataset.theme = theme;
    const [sign, name] = themes[theme];
    setText($("theme"), sign);
    $("theme").title = `Colours: ${name}`;
    $("theme").setAttribute("aria-label", `Colours: ${name}`);
    for (const panel of panels.values()) { drop(panel); show(panel); }
    for (const plot of plots.values()) { if (plot.chart) Charts.destroy(plot.chart); plot.chart = null; }
    plotHistory();
  }
  $("theme").addEventListener("click", () => {
    theme = { auto: "light", light: "dark", dark: "auto" }[theme];
    try { localStorage.setItem("theme", theme); } catch { /* private mode */ }
    paint();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => paint());

  // ---- which days are final
  const DAYS_INTERVAL_MS = 10000, GOLD_DAYS = 3;
  const days = new Map(); // by table, then by day
  const daysOf = (table) => days.get(table) ?? new Map();
  const dayBadge = (text, state, reason) => el("span", { class: `day ${state}`, title: reason || null }, text);
  async function readDays() {
    const answer = await (await fetch("api/days")).json();
    days.clear();
    for (const day of answer.days) {
      if (!days.has(day.table)) days.set(day.table, new Map());
      days.get(day.table).set(day.event_date, day);
    }
    for (const panel of panels.values()) show(panel);
  }
  // The days of a panel's rows: final, if all of them are.
  function panelDays(answer) {
    const at = answer.days_of ? answer.columns.findIndex((column) => column.name === "event_date") : -1;
    if (at < 0) return null;
    const date = (value) => (typeof value === "number" ? new Date(value).toISOString() : String(value)).slice(0, 10);
    const known = daysOf(answer.days_of);
    const shown = [...new Set(answer.rows.map((row) => row[at]).filter((value) => value !== null).map(date))].map((day) => known.get(day));
    const open = shown.filter((day) => day && day.state !== "final");
    if (!open.length && (!shown.length || shown.includes(undefined))) return null; // of older days nothing is known here
    return open.length ? dayBadge("provisional", "provisional", open.map((day) => `${day.event_date}: ${day.may_change_because}`).join("\n")) : dayBadge("final", "final", null);
  }

  // ---- panels
  const panels = new Map();
  const widths = { number: 1, line: 2, bar: 2, funnel: 1, table: 2, ticker: 2 };

  function onPanel(answer) {
    now = Math.max(now, answer.at_ms);
    let panel = panels.get(answer.name);
    if (!panel) {
      panel = { position: answer.position, card: el("article", { class: "card" }), head: el("h3"), body: el("div") };
      panel.card.append(panel.head, panel.body);
      panel.card.dataset.panel = answer.name;
      panels.set(answer.name, panel);
      const after = [...panels.values()].filter((other) => other.position > panel.position).sort((a, b) => a.position - b.position)[0];
      $("panels").insertBefore(panel.card, after ? after.card : null);
    }
    if (panel.answer && (panel.answer.chart !== answer.chart || panel.answer.state !== answer.state)) drop(panel);
    panel.answer = answer;
    show(panel);
  }

  function drop(panel) {
    if (panel.chart) Charts.destroy(panel.chart);
    panel.chart = panel.parts = null;
    panel.body.replaceChildren();
  }

  function show(panel) {
    const answer = panel.answer;
    if (!answer) return;
    const badge = answer.state === "ok" ? panelDays(answer) : null;
    if (isNew(`panel ${answer.name}`, [answer.title, badge?.textContent, badge?.title])) replace(panel.head, ...inert(answer.title), badge);
    panel.card.title = `${answer.name}: the query took ${span(answer.took_ms)} and runs every ${span(answer.refresh_ms)}`;
    const width = answer.width || widths[answer.chart] || 1;
    panel.card.className = `card w${width}${["line", "bar", "funnel"].includes(answer.chart) ? " chart" : ""}`;
    if (answer.state === "failing") {
      drop(panel);
      panel.body.append(el("p", { class: "failing" }, answer.reason), el("p", { class: "note" }, `Edit [panel.${answer.name}] in pipeline.toml. The query runs again every ${span(answer.refresh_ms)}.`));
      return;
    }
    if (answer.state === "waiting" || (answer.rows.length === 0 && answer.chart !== "number")) {
      drop(panel);
      panel.body.append(el("p", { class: "empty" }, answer.state === "waiting" ? `Waiting for the first rows: ${answer.reason}.` : "No rows yet. They appear here automatically."));
      return;
    }
    if (!panel.parts && !panel.chart) panel.body.replaceChildren();
    ({ number, line, bar, funnel, table, ticker: table }[answer.chart] || table)(panel, answer);
  }

  function number(panel, answer) {
    if (!panel.parts) {
      const value = el("span"), unit = el("span", { class: "unit" }), note = el("p", { class: "note" });
      panel.parts = { value, unit, note };
      panel.body.append(el("div", { class: "number" }, value, unit), note);
    }
    const [row, columns] = [answer.rows[0] ?? [], answer.columns];
    const at = (index) => (columns[index] && isNumber(columns[index]) && (row[index] ?? null) !== null ? Number(row[index]) : null);
    const [value, other] = [at(0), at(1)];
    setText(panel.parts.value, columns[0] ? cell(row[0], columns[0], answer.unit) : "–");
    setText(panel.parts.unit, answer.unit || "");
    if (value !== null && other !== null) {
      const share = other === 0 ? null : (value - other) / other;
      const sign = share === null || Math.abs(share) < .005 ? "" : share > 0 ? "▲" : "▼";
      replace(panel.parts.note,
        sign ? el("span", { class: share > 0 ? "up" : "down" }, `${sign} ${Math.abs(share) >= 10 ? "× " + decimal.format(share + 1) : integer.format(Math.abs(share) * 100) + " %"} `) : null,
        ...inert(`${cell(row[1], columns[1], answer.unit)} ${columns[1].name}`));
    } else setText(panel.parts.note, "");
  }

  function canvas(panel, make) {
    if (panel.chart) return;
    panel.canvas = el("canvas", { role: "img" });
    panel.body.append(el("div", { class: "plot" }, panel.canvas));
    panel.chart = make(panel.canvas);
  }

  function line(panel, answer) {
    canvas(panel, Charts.line);
    const [time, ...columns] = answer.columns;
    const x = (value) => (typeof value === "number" ? value : isNumber(time) ? Number(value) : Format.instant(value));
    const y = (value) => (value === null ? null : Number(value));
    const rows = answer.rows.filter((row) => Number.isFinite(x(row[0]))); // a time outside of the calendar has no place
    const text = (row, at) => cell(row[at + 1], columns[at], answer.unit);
    Charts.setLine(panel.chart, columns.map((column, at) => ({ label: label(column.name), points: rows.map((row) => ({ x: x(row[0]), y: y(row[at + 1]), text: text(row, at) })) })), answer.unit);
    const last = rows[rows.length - 1];
    const newest = last ? `${columns.map((column, at) => `${column.name} ${text(last, at)}`).join(", ")} at ${Format.dated(x(last[0]))}` : "no time";
    panel.canvas.setAttribute("aria-label", plain(`${answer.title}: ${newest}`));
  }

  // A bar's length may be rounded; the text next to it is not.
  const labelled = (answer) => {
    const [name, amount] = answer.columns;
    const labels = answer.rows.map((row) => (row[0] === null ? "none" : isNumber(name) ? cell(row[0], name) : label(cell(row[0], name))));
    const numbers = answer.rows.map((row) => Number(row[1]) || 0);
    const texts = answer.rows.map((row) => plain(amount ? cell(row[1], amount, answer.unit) : "–") + (answer.unit ? ` ${answer.unit}` : ""));
    return { labels, numbers, texts };
  };
  const describe = (panel, answer, labels, texts) => panel.canvas.setAttribute("aria-label", `${plain(answer.title)}: ${labels.map((label, at) => `${label} ${texts[at]}`).join(", ")}`);

  function bar(panel, answer) {
    canvas(panel, Charts.bars);
    const { labels, numbers, texts } = labelled(answer);
    Charts.setBars(panel.chart, labels, numbers, texts);
    describe(panel, answer, labels, texts);
  }

  function funnel(panel, answer) {
    canvas(panel, Charts.funnel);
    const { labels, numbers, texts } = labelled(answer);
    const share = (at) => (at && numbers[0] ? `${decimal.format(100 * numbers[at] / numbers[0])} %` : "");
    Charts.setFunnel(panel.chart, labels.map((label, at) => (share(at) ? [label, share(at)] : label)), numbers, texts);
    describe(panel, answer, labels, texts.map((text, at) => `${text} ${share(at)}`));
  }

  // The whole text of a cell that the page may cut.
  const shownCell = (side, value) => el("td", { class: side, title: typeof value === "string" && value.length > 40 && value }, value);

  function table(panel, answer) {
    if (!panel.parts) {
      panel.parts = { table: el("table"), seen: null };
      panel.body.append(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": answer.title }, panel.parts.table));
    }
    const side = (column) => (isNumber(column) && !isId(column) ? "right" : "");
    const keys = answer.rows.map((row) => JSON.stringify(row));
    const ticking = answer.chart === "ticker" && panel.parts.seen !== null;
    const head = el("thead", {}, el("tr", {}, ...answer.columns.map((column) => el("th", { class: side(column), scope: "col" }, column.name.replaceAll("_", " ")))));
    const rows = answer.rows.map((row, at) => el("tr", { class: ticking && !panel.parts.seen.has(keys[at]) ? "fresh" : "" },
      ...row.map((value, col) => shownCell(side(answer.columns[col]), cell(value, answer.columns[col])))));
    if (!panel.parts.seen || keys.some((key) => !panel.parts.seen.has(key)) || keys.length !== panel.parts.seen.size) replace(panel.parts.table, head, el("tbody", {}, ...rows));
    panel.parts.seen = new Set(keys);
  }

  // ---- the pipeline's health
  const plots = new Map([["throughput", { of: (s) => s.events_per_s }], ["latency", { of: (s) => s.ingest_latency_ms }]]);
  let samples = [];

  function plotHistory() {
    for (const [id, plot] of plots) {
      plot.chart ??= Charts.line($(id));
      Charts.setLine(plot.chart, [{ label: id === "latency" ? "from Kafka to Silver" : "events a second", points: samples.map((s) => ({ x: s.at_ms, y: plot.of(s) })) }], id === "latency" ? "ms" : "");
    }
  }

  const tileNodes = new Map();
  function tile(name, value, unit, note) {
    let nodes = tileNodes.get(name);
    if (!nodes) {
      nodes = { value: el("span"), unit: el("span", { class: "unit" }), note: el("p", { class: "note" }) };
      tileNodes.set(name, nodes);
      $("tiles").append(el("article", { class: "card" }, el("h3", {}, name), el("div", { class: "number" }, nodes.value, nodes.unit), nodes.note));
    }
    setText(nodes.value, value);
    setText(nodes.unit, unit);
    setText(nodes.note, note);
  }

  // The names of states of tables, plugins and Gold tables; every other state is shown as one that takes a while.
  const stateDots = { live: "good", ok: "good", retrying: "bad", paused: "bad", failing: "bad" };
  const stateCell = (state, text, seconds) => el("span", { class: "state", title: text },
    el("i", { class: `dot ${stateDots[state] ?? "wait"}` }), el("span", {}, text.length > 46 ? text.slice(0, 45) + "…" : text),
    seconds === undefined ? null : el("span", {}, `for ${lasting(seconds)}`));

  function fill(node, columns, rows) {
    const side = (column) => (column.right ? "right" : column.wrap ? "wrap" : "");
    replace(node,
      el("thead", {}, el("tr", {}, ...columns.map((column) => el("th", { class: side(column), scope: "col", title: column.title }, column.name)))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((value, at) => shownCell(side(columns[at]), value))))));
  }

  function onStatus(health) {
    now = health.at_ms;
    setText($("topic"), health.topic);
    showSign(health);
    showProblems(health.source_problems);
    const silver = health.tables.filter((t) => t.kind === "silver");
    const bronze = health.tables.find((t) => t.kind === "bronze");
    const latencies = silver.map((t) => t.ingest_latency_ms).filter((ms) => ms !== null);
    const newest = Math.max(...silver.map((t) => t.newest_at_ms ?? 0), 0);
    tile("Events a second", decimal.format(health.events_per_s), "", bronze ? `${whole(bronze.events)} since the start` : "");
    tile("Lag", whole(health.lag), "events", silver.length ? `Silver: ${whole(Math.max(...silver.map((t) => t.lag)))}` : "");
    tile("Freshness", newest ? decimal.format(Math.max(0, now - newest) / 1000) : "–", "s", latencies.length ? `${span(Math.max(...latencies))} from Kafka to Silver` : "no row yet");
    tile("Commits", bronze ? decimal.format(bronze.commit_ms_last) : "–", "ms", bronze ? `Bronze; longest ${span(bronze.commit_ms_max)}` : "");
    tile("Memory", decimal.format(health.memory_bytes / 1048576), "MiB", `${decimal.format(health.memory_peak_bytes / 1048576)} MiB at most`);
    if (bronze) {
      samples.push({ at_ms: health.at_ms, events_per_s: health.events_per_s, lag: health.lag, ingest_latency_ms: latencies.length ? Math.max(...latencies) : 0 });
      samples = samples.slice(-300);
      plotHistory();
    }
    showTables(health);
    showUnrouted(health);
    showPlugins(health.plugins);
    showGold(health.gold);
    setText($("about"), `silverd ${health.version} · up ${span(now - health.started_at_ms)} · ${span(health.cpu_seconds * 1000)} of CPU · times in ${Format.shownZone()}`);
  }

  // Green only while the source is read and every table takes the events as they arrive.
  function showSign(health) {
    const rate = `${whole(Math.round(health.events_per_s))}/s`;
    const names = (list) => list.map((one) => one.name).join(", ");
    const failing = health.tables.filter((t) => !t.is_writing).concat(health.gold.filter((g) => g.state === "failing"));
    if (health.source_problems.length) failing.unshift({ name: "source" });
    const behind = health.tables.filter((t) => t.state !== "live");
    const [kind, text] = health.state !== "running" && !failing.length ? ["wait", "starting: connecting to the broker"]
      : failing.length ? ["bad", `failing: ${names(failing)}`]
      : behind.length ? ["wait", `not live: ${names(behind)} · ${rate}`]
      : ["good", `live · ${rate}`];
    showConnection(kind, text);
    document.title = failing.length ? "failing · silverd" : firing ? "alert · silverd" : health.state !== "running" ? "silverd" : `${rate} · silverd`;
  }

  // What has not changed stays as it is, so that its text can be selected.
  const seen = new Map();
  const isNew = (id, value) => {
    const text = JSON.stringify(value);
    return seen.get(id) !== text && seen.set(id, text);
  };

  function showProblems(problems) {
    const box = $("problems");
    if (isNew("problems", problems.map((problem) => problem.text))) {
      box.hidden = !problems.length;
      replace(box, ...problems.map((problem) => el("p", { class: "failing" }, el("b"), problem.text)));
    }
    problems.forEach((problem, at) => setText(box.children[at].firstElementChild, `Records are not read, for ${lasting(problem.seconds)}: `));
  }

  function showUnrouted(health) {
    const sample = health.unrouted_sample;
    if (!isNew("unrouted", [health.unrouted_by_reason, sample])) return;
    setText($("unrouted-sum"), health.unrouted ? `${whole(health.unrouted)} since the start; they are in bronze` : "");
    if (!health.unrouted) {
      replace($("unrouted"), el("p", { class: "empty" }, "None."));
      return;
    }
    const reasons = Object.entries(health.unrouted_by_reason).filter(([, events]) => events);
    const counts = el("table");
    fill(counts, [{ name: "reason" }, { name: "events", right: true }], reasons.map(([reason, events]) => [el("span", { class: "tag" }, reason), whole(events)]));
    replace($("unrouted"), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Events that match no table, by reason" }, counts),
      sample && el("p", { class: "note" }, `The newest one, at ${clock(sample.ingested_at_ms)}: ${sample.topic}, partition ${sample.partition}, offset ${sample.offset}`),
      sample && el("pre", {}, sample.text));
  }

  function showTables(health) {
    const columns = [
      { name: "table" }, { name: "state" }, { name: "events/s", right: true }, { name: "events", right: true }, { name: "rows", right: true },
      { name: "quarantined", right: true }, { name: "dropped", right: true }, { name: "lag", right: true, title: "events that the table has still to process: from Bronze, or for Bronze from Kafka" },
      { name: "last commit", right: true }, { name: "took", right: true }, { name: "files", right: true, title: "data files of the newest version" }, { name: "size", right: true }, { name: "version", right: true },
    ];
    fill($("tables"), columns, health.tables.map((t) => {
      const quarantine = t.kind === "quarantine";
      return [t.name, quarantine ? "" : stateCell(t.state, t.state_text, t.state === "live" ? undefined : t.state_seconds), quarantine ? "" : decimal.format(t.events_per_s), quarantine ? "" : whole(t.events), whole(t.rows),
        t.kind === "silver" ? whole(t.rejected) : "", t.kind === "silver" ? whole(t.dropped) : "", quarantine ? "" : whole(t.lag),
        t.committed_at_ms ? ago(t.committed_at_ms) : "none yet", t.commits ? span(t.commit_ms_last) : "–", whole(t.files), bytes(t.bytes), t.commits ? `v${t.version}` : "–"];
    }));
    const partitions = health.partitions;
    setText($("partitions-sum"), partitions.length ? `${partitions.length}, largest lag ${whole(Math.max(...partitions.map((p) => p.lag)))}` : "none assigned yet");
    if ($("partitions-box").open) fill($("partitions"), [{ name: "partition" }, { name: "end in Kafka", right: true }, { name: "next for Bronze", right: true }, { name: "lag", right: true }],
      partitions.map((p) => [`${p.topic} ${p.partition}`, whole(p.end), whole(p.next), whole(p.lag)]));
  }
  $("partitions-box").addEventListener("toggle", () => fetch("api/status").then((answer) => answer.json()).then(onStatus).catch(() => {}));

  function showPlugins(plugins) {
    if (!plugins.length) {
      replace($("plugin-cards"), el("p", { class: "empty" }, "No Silver table yet: add a [silver.<name>] section and its plugin to pipeline.toml."));
      return;
    }
    replace($("plugin-cards"), ...plugins.map((plugin) => {
      const fact = (name, value, title) => (value === null ? null : [el("dt", {}, name), el("dd", { title }, value)]);
      const facts = [
        fact("interface", plugin.interface ?? "not loaded yet"),
        fact("digest", plugin.digest ? plugin.digest.slice(0, 12) : null, plugin.digest),
        fact("time per event", plugin.ns_per_event === null ? null : `${decimal.format(plugin.ns_per_event / 1000)} µs`),
        fact("loaded", plugin.loaded_at_ms === null ? null : ago(plugin.loaded_at_ms)),
        fact("last swap", plugin.swapped_at_ms === null ? null : `${ago(plugin.swapped_at_ms)}, the table paused for ${decimal.format(plugin.swap_ms_last)} ms`, `${plugin.swaps} swaps since the start`),
        fact("shadow run", plugin.shadow), fact("update rejected", plugin.update_rejected), fact("circuit breaker", plugin.breaker),
      ];
      const card = el("article", { class: "card plugin w1" }, el("h3", {}, plugin.table, stateCell(plugin.state, plugin.state_text)), el("dl", { class: "facts" }, ...facts.flat().filter((node) => node)));
      card.dataset.plugin = plugin.table;
      card.dataset.digest = plugin.digest ?? "";
      return card;
    }));
  }

  function showGold(gold) {
    if (!gold.length) {
      replace($("gold-tables"), el("p", { class: "empty" }, "No Gold table yet: add a [gold.<name>] section with `sql` to pipeline.toml."));
      return;
    }
    const node = el("table");
    fill(node, [{ name: "table" }, { name: "state" }, { name: "up to date", right: true }, { name: "every", right: true }, { name: "rows, of days", right: true, title: "rows of the days that the last refresh rebuilt" }, { name: "took", right: true }, { name: "version", right: true }, { name: "days" }, { name: "", wrap: true }],
      gold.map((g) => [g.name, stateCell(g.state, g.state.replaceAll("_", " ")), g.refreshed_at_ms ? ago(g.refreshed_at_ms) : "not yet", span(g.refresh_ms), g.version === null ? "–" : `${whole(g.rows)} of ${g.days}`, g.version === null ? "–" : span(g.took_ms), g.version === null ? "–" : `v${g.version}`, goldDays(g.name), g.reason ? el("span", { class: g.state === "failing" ? "down" : "muted" }, g.reason) : ""]));
    replace($("gold-tables"), node);
  }

  // The newest days of a Gold table.
  function goldDays(name) {
    const newest = [...daysOf(`gold.${name}`).values()].slice(0, GOLD_DAYS);
    return newest.length ? el("span", {}, ...newest.map((day) => dayBadge(`${day.event_date} ${day.state}`, day.state, day.may_change_because))) : "–";
  }

  // ---- the alerts
  const stamp = (ms) => (ms === null || ms === undefined ? "–" : new Date(ms).toLocaleString([], { timeZone: Format.shownZone(), dateStyle: "medium", timeStyle: "short" }));
  const alertDots = { firing: "bad", pending: "wait" };
  let firing = 0;

  // A table that scrolls within its card.
  function scrolling(name, columns, rows) {
    const node = el("table");
    fill(node, columns, rows);
    return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, node);
  }

  function onAlerts(shown) {
    const none = (text) => el("p", { class: "empty" }, text);
    const fires = shown.alerts.filter((alert) => alert.state === "firing");
    firing = fires.length;
    $("alerts-badge").hidden = !firing;
    setText($("alerts-badge"), `${whole(firing)} firing`);
    if (isNew("alerts-firing", fires.map((alert) => [alert.name, alert.severity, alert.summary, alert.since_ms]))) {
      replace($("alerts-firing"), ...fires.map((alert) => el("p", { class: "failing" }, el("b", {}, `${alert.name} (${alert.severity}), since ${stamp(alert.since_ms)}: `), alert.summary ?? "")));
    }
    const states = { elsewhere: "another silverd evaluates them", failing: "they are not evaluated: the log says why", starting: "starting" };
    setText($("alerts-sum"), states[shown.state] ?? "");
    showAlertList(shown.alerts, none);
    const history = shown.history.map((entry) => [stamp(entry.at_ms), entry.alert, entry.to, entry.summary]);
    if (isNew("alerts-history", history)) {
      replace($("alerts-history"), history.length ? scrolling("History of the alerts", [{ name: "time" }, { name: "alert" }, { name: "became" }, { name: "", wrap: true }], history) : none("No alert was ever pending or fired."));
    }
    showReceivers(shown.receivers, none);
  }

  // Built-in alerts that do not fire are folded away.
  function showAlertList(alerts, none) {
    if (!isNew("alerts-all", alerts.map(({ evaluated_at_ms, took_ms, ...shown }) => shown))) return;
    if (!alerts.length) {
      replace($("alerts-all"), none("No alert yet: add a section [alert.<name>] to pipeline.toml, or [alerts] with built_in = true."));
      return;
    }
    const quiet = (alert) => alert.built_in && alert.state !== "firing" && alert.state !== "pending";
    const columns = [{ name: "alert" }, { name: "state" }, { name: "since" }, { name: "severity" }, { name: "last row", wrap: true }, { name: "notified" }, { name: "", wrap: true }];
    const row = (alert) => [
      el("span", { title: alert.description }, alert.name),
      el("span", { class: "state" }, el("i", { class: `dot ${alert.failures ? "bad" : alertDots[alert.state] ?? "good"}` }), el("span", {}, alert.state)),
      stamp(alert.since_ms), alert.severity,
      Object.entries(alert.values).map(([name, value]) => `${name} = ${value === null ? "none" : typeof value === "object" ? JSON.stringify(value) : value}`).join(", "),
      alert.notified_at_ms === null ? "not yet" : stamp(alert.notified_at_ms),
      alert.reason ? el("span", { class: alert.failures ? "down" : "muted" }, alert.failures ? `cannot be evaluated: ${alert.reason}` : `waits: ${alert.reason}`) : "",
    ];
    const [loud, folded] = [alerts.filter((alert) => !quiet(alert)), alerts.filter(quiet)];
    const wasOpen = $("alerts-all").querySelector("details")?.open;
    const box = folded.length ? el("details", {}, el("summary", {}, `${folded.length} built-in alerts do not fire`), scrolling("Built-in alerts that do not fire", columns, folded.map(row))) : null;
    if (box) box.open = Boolean(wasOpen);
    replace($("alerts-all"), loud.length ? scrolling("Alerts", columns, loud.map(row)) : null, box);
  }

  function showReceivers(receivers, none) {
    if (!isNew("alerts-receivers", receivers)) return;
    const says = (receiver) => (receiver.failing ? el("span", { class: "down" }, `failing since ${stamp(receiver.failing.since_ms)}: ${receiver.failing.error}`) : receiver.quiet_until_ms ? `quiet hours until ${stamp(receiver.quiet_until_ms)}` : "");
    const rows = receivers.map((receiver) => [receiver.name, `${receiver.kind} ${receiver.target}`, whole(receiver.waiting), whole(receiver.delivered), stamp(receiver.last_delivered_ms), says(receiver)]);
    const columns = [{ name: "receiver" }, { name: "by" }, { name: "waiting", right: true }, { name: "delivered", right: true, title: "since the start of silverd" }, { name: "last" }, { name: "", wrap: true }];
    replace($("alerts-receivers"), rows.length ? scrolling("Receivers", columns, rows) : none("Nobody is notified: add a section [notify.<name>] to pipeline.toml."));
  }

  // ---- the quarantine
  const SHOWN_BYTES_MAX = 16384; // so much of an event is sent
  let known = null;
  function onRejects(rejects) {
    setText($("rejects-total"), rejects.total ? `${whole(rejects.total)} events` : "");
    $("rejects-badge").hidden = !rejects.total;
    setText($("rejects-badge"), whole(rejects.total));
    const none = (text) => el("p", { class: "empty" }, text);
    if (!rejects.total) {
      replace($("reject-counts"), none("No event was rejected."));
      replace($("reject-reasons"), none("None."));
      replace($("reject-newest"), none("Events that cannot become a row appear here with the reason."));
      known = new Set();
      return;
    }
    const counts = el("table");
    fill(counts, [{ name: "table" }, { name: "code" }, { name: "events", right: true }, { name: "last", right: true }, { name: "" }],
      rejects.counts.map((c) => [c.table, el("span", { class: "tag" }, c.code), whole(c.events), ago(c.last_at), copy(c.replay, "copy replay", c.replay)]));
    replace($("reject-counts"), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Rejects by table and code" }, counts));
    const reasons = el("table");
    fill(reasons, [{ name: "reason", wrap: true }, { name: "events", right: true }], rejects.reasons.map((r) => [`${r.table}: ${r.reason}`, whole(r.events)]));
    replace($("reject-reasons"), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Reasons" }, reasons));
    const key = (r) => `${r.topic}/${r.partition}/${r.offset}/${r.quarantined_at}/${r.table}`;
    const open = new Set([...document.querySelectorAll(".reject[open]")].map((node) => node.dataset.key));
    replace($("reject-newest"), ...rejects.newest.map((r) => {
      const node = el("details", { class: `reject${known && !known.has(key(r)) ? " fresh" : ""}` },
        el("summary", {}, el("span", { class: "muted" }, clock(r.quarantined_at)), el("b", {}, r.table), el("span", { class: "tag" }, r.code), el("span", { class: "reason", title: r.reason }, r.reason)),
        ...rejected(r),
        el("dl", { class: "facts" }, el("dt", {}, "where"), el("dd", {}, `${r.topic}, partition ${r.partition}, offset ${r.offset}`), el("dt", {}, "why"), el("dd", {}, r.reason), el("dt", {}, "plugin"), el("dd", { class: "mono" }, String(r.plugin_digest).slice(0, 12))));
      node.dataset.key = key(r);
      node.open = open.has(key(r));
      return node;
    }));
    known = new Set(rejects.newest.map(key));
  }

  // The event byte for byte: what its JSON says twice, in another order or with many digits may be why it was rejected.
  function rejected({ value, encoding, bytes: size }) {
    if (value === null) return [el("p", { class: "note" }, "The event has no value.")];
    const isText = encoding === "utf-8";
    return [
      el("pre", { tabindex: "0" }, ...(isText ? [value] : inertBytes(value))),
      el("p", { class: "note" }, copy(value, isText ? "copy event" : "copy as base64"), ` ${size > SHOWN_BYTES_MAX ? `the first ${bytes(SHOWN_BYTES_MAX)} of ${bytes(size)}` : bytes(size)}${isText ? "" : ", not UTF-8"}`),
    ];
  }

  function copy(text, name, title = name) {
    const button = el("button", { type: "button", class: "quiet", title, "aria-label": title }, name);
    button.addEventListener("click", async () => {
      if (await toClipboard(text)) setText(button, "copied"); else prompt(name, text);
      setTimeout(() => setText(button, name), 1500);
    });
    return button;
  }

  async function toClipboard(text) {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* browsers have no such clipboard on plain HTTP */ }
    const put = (event) => { event.clipboardData.setData("text/plain", text); event.preventDefault(); };
    document.addEventListener("copy", put);
    try { return document.execCommand("copy"); } finally { document.removeEventListener("copy", put); }
  }

  // ---- the connection to silverd
  function showConnection(kind, text) {
    $("link").firstElementChild.className = `dot ${kind}`;
    setText($("link").lastElementChild, text);
  }

  let greeting = null;
  function connect() {
    const stream = new EventSource("api/stream");
    const on = (name, act) => stream.addEventListener(name, (message) => act(JSON.parse(message.data)));
    on("hello", (hello) => {
      if (greeting && greeting.version !== hello.version) location.reload(); // another version of silverd has another dashboard
      if (greeting && greeting.started_at_ms !== hello.started_at_ms) samples = [];
      greeting = hello;
      Format.setTimeZone(hello.time_zone);
      fetch("api/history").then((answer) => answer.json()).then((history) => { samples = history.samples; plotHistory(); }).catch(() => {});
      fetch("api/status").then((answer) => answer.json()).then(onStatus).catch(() => {});
      setTimeout(() => { $("no-panels").hidden = panels.size > 0; }, 4000);
    });
    on("status", onStatus);
    on("panel", (answer) => { $("no-panels").hidden = true; onPanel(answer); });
    on("rejects", onRejects);
    on("alerts", onAlerts);
    stream.addEventListener("error", async () => {
      showConnection("bad", "silverd does not answer; retrying");
      if (stream.readyState !== EventSource.CLOSED) return; // the browser connects again
      const answer = await fetch("api/status").catch(() => null);
      if (answer?.status === 401) location.assign("login");
      else setTimeout(connect, 3000);
    });
  }

  // ---- who looks at it
  async function showSession() {
    const { name, role, can_log_out } = await (await fetch("api/session")).json();
    $("session").hidden = name === null;
    setText($("session"), name ?? "");
    $("logout").hidden = !can_log_out;
    $("log").disabled = role !== "operate";
    $("log").title = role === "operate" ? "" : "This needs a token with the role `operate`.";
  }

  async function showLogFilter() {
    const { filter } = await (await fetch("api/log")).json();
    const select = $("log");
    const show = (filter) => {
      if (![...select.options].some((option) => option.value === filter)) select.append(el("option", { value: filter }, filter));
      select.value = filter;
    };
    let former = filter;
    show(filter);
    select.addEventListener("change", async () => {
      const problem = await setLogFilter(select.value);
      setText($("log-problem"), problem ?? "");
      if (problem === null) former = select.value; else show(former);
    });
  }

  // Why it failed, or null.
  async function setLogFilter(filter) {
    try {
      const answer = await fetch("api/log", { method: "PUT", headers: { "content-type": "application/json" }, body: JSON.stringify({ filter }) });
      if (answer.ok) return null;
      const { error } = await answer.json().catch(() => ({}));
      return error ?? `not changed: status ${answer.status}`;
    } catch { return "not changed: silverd does not answer"; }
  }

  paint();
  connect();
  const refreshDays = () => { if (!document.hidden) readDays().catch(() => {}); };
  refreshDays();
  setInterval(refreshDays, DAYS_INTERVAL_MS);
  showSession().catch(() => {});
  showLogFilter().catch(() => {});
})();
