// How numbers, times and the text of events are shown.
"use strict";
const Format = (() => {
  const integer = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
  const decimal = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
  const money = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  const significant = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3 });
  const isNone = (value) => value === null || value === undefined;
  const whole = (n) => (isNone(n) ? "–" : integer.format(n));

  const bytes = (n) => {
    if (isNone(n)) return "–";
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let at = 0;
    while (n >= 1024 && at < units.length - 1) { n /= 1024; at += 1; }
    return `${at < 2 ? integer.format(n) : decimal.format(n)} ${units[at]}`;
  };
  const span = (ms) => {
    if (isNone(ms)) return "–";
    if (ms < 1000) return `${decimal.format(ms)} ms`;
    const s = ms / 1000;
    if (s < 100) return `${decimal.format(s)} s`;
    if (s < 5400) return `${integer.format(s / 60)} min`;
    return s < 172800 ? `${decimal.format(s / 3600)} h` : `${integer.format(s / 86400)} days`;
  };

  // ---- times and days, in the zone of pipeline.toml and not in that of the browser.
  let timeZone = "UTC";
  let parts; // of the local time
  function setTimeZone(name) {
    // A browser may know fewer zones than silverd.
    try { new Intl.DateTimeFormat(undefined, { timeZone: name }); timeZone = name; } catch { timeZone = "UTC"; }
    const two = "2-digit";
    parts = new Intl.DateTimeFormat("en-US", { timeZone, hourCycle: "h23", era: "short", year: "numeric", month: two, day: two, hour: two, minute: two, second: two });
  }
  setTimeZone("UTC");
  const shownZone = () => timeZone;
  const clock = (ms) => new Date(ms).toLocaleTimeString([], { timeZone, hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const local = (ms) => Object.fromEntries(parts.formatToParts(ms).map(({ type, value }) => [type, value]));
  const day = (ms) => { const at = local(ms); return `${at.year}-${at.month}-${at.day}`; };
  const dated = (ms) => (day(ms) === day(Date.now()) ? clock(ms) : `${day(ms)} ${clock(ms)}`);
  // What clocks show, as if they showed UTC.
  const wall = (ms) => { const at = local(ms); return Date.UTC(at.year, at.month - 1, at.day, at.hour, at.minute, at.second) + (((ms % 1000) + 1000) % 1000); };
  // The instant of a text: a day, or a time without a zone, is one of local clocks.
  function instant(text) {
    const isLocal = /^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?$/.test(text);
    const shown = Date.parse(isLocal ? text.replace(" ", "T") + (text.length > 10 ? "Z" : "") : text);
    if (!isLocal || Number.isNaN(shown)) return shown;
    const guess = shown - (wall(shown) - shown);
    return shown - (wall(guess) - guess);
  }
  // For an axis over `span` milliseconds.
  const tick = (ms, span) => (span > 2 * 86400000 ? day(ms) : span > 86400000 ? dated(ms) : clock(ms));

  // ---- cells of panels. Integers and decimals come as text, and no digit of them passes through a double.
  const isNumber = ({ kind }) => kind === "integer" || kind === "decimal" || kind === "number";
  // The digits of ids, years and places are read one by one: they are text, without separators.
  const isId = ({ name }) => /(^|_)(id|key|code|year|offset|partition|version|sku|zip|phone)$/i.test(name.replace(/([a-z0-9])([A-Z])/g, "$1_$2"));

  const ofScale = new Map();
  function exact(digits) {
    if (/^-?\d{16,}$/.test(digits)) return digits;
    const scale = digits.split(".")[1]?.length ?? 0;
    if (!ofScale.has(scale)) ofScale.set(scale, new Intl.NumberFormat(undefined, { minimumFractionDigits: scale, maximumFractionDigits: scale }));
    return ofScale.get(scale).format(digits); // text is formatted digit by digit
  }

  function rounded(n, name, unit) {
    if (unit ? /[€$£¥]/.test(unit) : /total|revenue|price|amount/.test(name)) return !unit || Math.abs(n) < 10000 ? money.format(n) : integer.format(n);
    if (Number.isInteger(n)) return integer.format(n);
    return Math.abs(n) < 10 ? significant.format(n) : decimal.format(n);
  }

  function cell(value, column, unit) {
    if (isNone(value)) return "–";
    if (column.kind === "time" && typeof value === "number") return dated(value);
    if (!isNumber(column) || isId(column)) return String(value);
    return column.kind === "number" ? rounded(value, column.name, unit) : exact(value);
  }

  // ---- text of events. What a browser obeys or does not draw is shown as an escape: controls, marks of direction,
  // characters without width. Selectors of an emoji's form are drawn.
  const obeyed = String.raw`(?![\ufe00-\ufe0f])[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{DI}\ufff9-\ufffb]`;
  const anywhere = new RegExp(`(?:${obeyed})+`, "gu");
  const withinLines = new RegExp(`(?:(?![\\n\\t])${obeyed})+`, "gu");
  const short = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
  const escape = (run) => [...run].map((one) => short[one] ?? `\\u{${one.codePointAt(0).toString(16)}}`).join("");
  const plain = (text) => String(text).replace(anywhere, escape);

  // As nodes, so that an escape looks other than the same characters in the text.
  function marked(text, pattern, escape) {
    const nodes = [];
    let end = 0;
    for (const { 0: run, index } of text.matchAll(pattern)) {
      const node = document.createElement("span");
      node.className = "escape";
      node.textContent = escape(run);
      nodes.push(text.slice(end, index), node);
      end = index + run.length;
    }
    return [...nodes, text.slice(end)].filter((node) => node !== "");
  }
  const inert = (text, keepsLines) => marked(String(text), keepsLines ? withinLines : anywhere, escape);
  const inertBytes = (base64) => marked(atob(base64), /[^\x20-\x7e]+/g, (run) => [...run].map((one) => `\\x${one.charCodeAt(0).toString(16).padStart(2, "0")}`).join(""));

  // For a canvas, which clips no label: stacks of marks and long labels end.
  const label = (text) => {
    const characters = [...plain(text).replace(/(\p{M}{3})\p{M}+/gu, "$1…")];
    return characters.length > 48 ? `${characters.slice(0, 47).join("")}…` : characters.join("");
  };

  return { integer, decimal, whole, bytes, span, setTimeZone, shownZone, clock, dated, instant, tick, isNumber, isId, cell, plain, inert, inertBytes, label };
})();
