// Tests how browsers reach the dashboard, in headless Chromium: over plain HTTP, through nginx and Caddy, below a path,
// over TLS, with a token of each role. Also that hostile text and long numbers are shown as they are.
// Started by `scripts/dashboard-test/run`, in an empty folder.
//
// Environment: SILVERD (the binary), CHROMIUM, MODULES (a folder with node_modules/playwright-core), ONLY (a part of the
// names of the ways to try).
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtempSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { send, startDemo, stop, stopChildren, until } from "./processes.mjs";
import { NAME, makeCertificate, startCaddy, startNginx } from "./proxies.mjs";

const { CHROMIUM, MODULES, ONLY } = process.env;
const { chromium } = createRequire(join(MODULES, "x.js"))("playwright-core");
const TIMEOUT_MS = 30_000;
const TOKEN = randomBytes(16).toString("hex"), WALL = randomBytes(16).toString("hex");

let ways = 0, checks = 0, failures = 0;
async function check(name, act) {
  checks += 1;
  try { await act(); } catch (error) {
    failures += 1;
    console.error(`FAILED: ${name}: ${error.stack}`);
  }
}

// ---- silverd: tables in SQL need no plugins
const PIPELINE = String.raw`
[source]
brokers = "localhost:9092"
topic = "events.raw"

[silver.page_view]
match = { field = "event_type", equals = "page_view" }
event_time = "ts"
input = { event_id = "string", ts = "timestamp" }
sql = "SELECT event_id, ts FROM event"

[silver.add_to_cart]
match = { field = "event_type", equals = "add_to_cart" }
event_time = "ts"
input = { event_id = "string", ts = "timestamp" }
sql = "SELECT event_id, ts FROM event"

[silver.order_placed]
match = { field = "event_type", equals = "order_placed" }
event_time = "ts"
input = { event_id = "string", ts = "timestamp", total = "money" }
sql = "SELECT event_id, ts, total FROM event"

[quarantine]
unrouted = "quarantine"

[panel.orders]
chart = "ticker"
refresh = "1s"
sql = "SELECT ingested_at AS time, event_id, total FROM live.order_placed ORDER BY ingested_at DESC LIMIT 5"
`;
// A column of each kind whose digits a double does not hold, and text that would act on a page or a terminal.
const PANELS = String.raw`
[panel.exact]
chart = "table"
sql = """SELECT 2053013552293085303 AS category_id, CAST('123456789012345678.90' AS DECIMAL(38,2)) AS price,
    CAST('-1234567890123456789012345678.0123456789' AS DECIMAL(38,10)) AS rate, 9007199254740993 AS big, 1234567 AS events,
    CAST('12.00' AS DECIMAL(18,2)) AS total, 20240101 AS "orderId", 2024 AS year, 1234.56789 AS share, CAST(NULL AS BIGINT) AS none,
    '<b>x</b>' || chr(8238) || 'txt' || chr(27) || '[31m' || chr(10) AS name"""

[panel.one_number]
chart = "number"
unit = "€"
sql = "SELECT CAST('123456789012345678.90' AS DECIMAL(38,2)) AS revenue, CAST('123456789012345678.80' AS DECIMAL(38,2)) AS before"

[panel.one_id]
chart = "number"
sql = "SELECT 1234567 AS order_id"

[panel.bars]
chart = "bar"
sql = "SELECT 2053013552293085303 AS category_id, 1234567890123 AS events UNION ALL SELECT 2053013552293085304, CAST(NULL AS BIGINT) ORDER BY 1"

[panel.steps]
chart = "funnel"
sql = "SELECT 'all' || chr(8238) AS step, CAST('12345678901234.50' AS DECIMAL(20,2)) AS amount UNION ALL SELECT 'some', CAST('0.50' AS DECIMAL(20,2)) ORDER BY 2 DESC"

[panel.long]
chart = "table"
width = 1
sql = "SELECT repeat('long', 500) AS word, repeat('e' || repeat(chr(769), 60), 3) AS marks, chr(8203) || chr(173) || chr(8288) || chr(65279) AS unseen"
`;

async function startSilverd(http, panels = "") {
  const folder = mkdtempSync(join(process.cwd(), "silverd-"));
  const config = join(folder, "pipeline.toml");
  writeFileSync(config, `${PIPELINE}${panels}
[http]
listen = "127.0.0.1:0"
token = "${TOKEN}"
trusted_proxies = ["127.0.0.1"]
${http}
[http.tokens.wall]
role = "view"
token = "${WALL}"
`);
  const demo = await startDemo("--config", config, "--eps", "20");
  return { ...demo, port: new URL(demo.url).port };
}

// ---- the browser
async function open(browser, options = {}) {
  const context = await browser.newContext({ locale: "en-GB", timezoneId: "UTC", ignoreHTTPSErrors: true, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(TIMEOUT_MS);
  page.problems = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) page.problems.push(`${message.location().url}: ${message.text()}`); });
  page.on("pageerror", (error) => page.problems.push(String(error)));
  page.on("requestfailed", (request) => { if (!request.url().endsWith("/api/stream")) page.problems.push(`${request.url()}: ${request.failure()?.errorText}`); });
  return page;
}

async function logIn(page, token) {
  await page.fill("#token", token);
  await page.click("button");
}

// What the API says to the page, with its cookie.
const ask = (page, path, options) => page.evaluate(async ([path, options]) => {
  const answer = await fetch(path, options);
  const text = await answer.text();
  return { status: answer.status, body: answer.headers.get("content-type")?.includes("json") ? JSON.parse(text) : text };
}, [path, options]);
const filterOf = async (page) => (await ask(page, "api/log")).body.filter;
const put = (filter) => ({ method: "PUT", headers: { "content-type": "application/json" }, body: JSON.stringify({ filter }) });

const isLive = (page) => page.waitForFunction(() => document.querySelectorAll("#tables tbody tr").length >= 5
  && document.querySelector('[data-panel="orders"] tbody tr') && document.querySelector("#link .dot.good"));

// One way to the dashboard: `url` ends with the path below which it is.
async function tryWay(browser, { name, url }) {
  const [checksBefore, failuresBefore] = [checks, failures];
  const checkHere = (what, act) => check(`${name}: ${what}`, act);
  const { protocol, pathname } = new URL(url);
  const page = await open(browser);
  const none = () => assert.deepEqual(page.problems, []);
  ways += 1;

  await checkHere("the page asks for a token", async () => {
    await page.goto(url);
    assert.equal(page.url(), `${url}login`);
    assert.notEqual(await page.evaluate(() => getComputedStyle(document.querySelector(".login main")).display), "block", "the style sheet is missing");
    none();
  });
  await checkHere("a wrong token is refused, with a message", async () => {
    await logIn(page, `${TOKEN}x`);
    await page.locator(".failing").waitFor();
    assert.ok(page.url().startsWith(`${url}login`), page.url());
    assert.deepEqual(await page.context().cookies(), []);
    page.problems.length = 0; // Chromium reports the status
  });
  await checkHere("the right token opens the page", async () => {
    await logIn(page, TOKEN);
    await page.waitForURL(url);
    await isLive(page);
  });
  await checkHere("live updates arrive without a reload", async () => {
    await page.evaluate(() => { window.notReloaded = true; });
    const first = () => document.querySelector('[data-panel="orders"] tbody tr').innerText;
    const before = await page.evaluate(first);
    await page.waitForFunction((text) => document.querySelector('[data-panel="orders"] tbody tr').innerText !== text, before);
    assert.ok(await page.evaluate(() => window.notReloaded));
  });
  await checkHere("the cookie is as narrow as the way permits", async () => {
    const cookies = await page.context().cookies();
    assert.equal(cookies.length, 1);
    const [{ httpOnly, sameSite, secure, path }] = cookies;
    assert.deepEqual({ httpOnly, sameSite, secure }, { httpOnly: true, sameSite: "Strict", secure: protocol === "https:" });
    assert.ok([pathname, pathname.replace(/(.)\/$/, "$1")].includes(path), `Path=${path}`);
  });
  await checkHere("every link and file is found", async () => {
    const links = await page.evaluate(() => [...document.querySelectorAll("[href]:not([href^='#']), [src]")].map((node) => node.href || node.src));
    assert.ok(links.length >= 10);
    for (const link of links) {
      assert.ok(link.startsWith(url), link);
      assert.equal((await ask(page, link)).status, 200, link);
    }
    const manifest = await page.evaluate(() => document.querySelector("link[rel=manifest]").href);
    const { body } = await ask(page, manifest);
    const { start_url, icons } = typeof body === "string" ? JSON.parse(body) : body;
    assert.equal(new URL(start_url, manifest).href, url);
    assert.equal((await ask(page, new URL(icons[0].src, manifest).href)).status, 200);
  });
  await checkHere("the log filter changes", async () => {
    assert.equal(await page.innerText("#session"), "token");
    const before = await filterOf(page);
    for (const filter of ["warn", before]) {
      await page.selectOption("#log", filter);
      await until(async () => await filterOf(page) === filter, `log filter ${filter}`, TIMEOUT_MS);
    }
  });
  await checkHere("the console is empty", none);
  await checkHere("a wrong log filter is shown, and the former one stays", async () => {
    const before = await filterOf(page);
    await page.evaluate(() => document.getElementById("log").append(new Option("a=b=c", "a=b=c")));
    await page.selectOption("#log", "a=b=c");
    await page.waitForFunction(() => document.getElementById("log-problem").textContent !== "");
    assert.equal(await page.inputValue("#log"), before);
    assert.equal(await filterOf(page), before);
  });
  await checkHere("log out forgets the token", async () => {
    await page.click("#logout button");
    await page.waitForURL(`${url}login*`);
    assert.deepEqual(await page.context().cookies(), []);
    await page.goto(url);
    assert.equal(page.url(), `${url}login`);
    assert.equal((await ask(page, "api/status")).status, 401);
  });
  await page.context().close();

  await checkHere("the role `view` sees the page, and cannot change the log", async () => {
    const wall = await open(browser);
    await wall.goto(url);
    await logIn(wall, WALL);
    await wall.waitForURL(url);
    await isLive(wall);
    await wall.waitForFunction(() => document.getElementById("log").disabled && document.getElementById("log").title.includes("operate"));
    assert.deepEqual((await ask(wall, "api/session")).body, { name: "wall", role: "view", can_log_out: true });
    assert.deepEqual(wall.problems, []);
    const before = await filterOf(wall);
    assert.equal((await ask(wall, "api/log", put("trace"))).status, 403);
    assert.equal(await filterOf(wall), before);
    await wall.context().close();
  });
  console.log(`${failures === failuresBefore ? "ok" : "FAILED"}: ${name} (${checks - checksBefore} checks)`);
}

// ---- numbers and text
async function tryText(browser, { broker, port }) {
  const name = "numbers and text";
  const page = await open(browser);
  const url = `http://127.0.0.1:${port}/`;
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"], { origin: new URL(url).origin });
  const checkHere = (what, act) => check(`${name}: ${what}`, act);
  const panel = (name) => page.locator(`[data-panel="${name}"]`);
  const checksBefore = checks, failuresBefore = failures;
  await page.goto(url);
  await logIn(page, TOKEN);

  await checkHere("a table has every digit, and its text does nothing", async () => {
    await panel("exact").locator("tbody tr").waitFor();
    assert.deepEqual(await panel("exact").locator("td").allTextContents(), [
      "2053013552293085303", "123,456,789,012,345,678.90", "-1,234,567,890,123,456,789,012,345,678.0123456789", "9007199254740993", "1,234,567",
      "12.00", "20240101", "2024", "1,234.6", "–", String.raw`<b>x</b>\u{202e}txt\u{1b}[31m\n`]);
    assert.deepEqual(await panel("exact").locator(".escape").allTextContents(), [String.raw`\u{202e}`, String.raw`\u{1b}`, String.raw`\n`]);
    assert.equal(await panel("exact").locator("td b").count(), 0);
  });
  await checkHere("single numbers have every digit", async () => {
    await panel("one_number").locator(".number").waitFor();
    assert.equal(await panel("one_number").locator(".number").textContent(), "123,456,789,012,345,678.90€");
    assert.equal(await panel("one_number").locator(".note").textContent(), "123,456,789,012,345,678.80 before");
    assert.equal(await panel("one_id").locator(".number").textContent(), "1234567");
  });
  await checkHere("the texts of bars and steps are exact", async () => {
    const label = async (name) => (await panel(name).locator("canvas").getAttribute("aria-label")).replace(/^[^:]*: /, "");
    assert.equal(await label("bars"), "2053013552293085303 1,234,567,890,123, 2053013552293085304 –");
    assert.equal(await label("steps"), String.raw`all\u{202e} 12,345,678,901,234.50 , some 0.50 0 %`);
  });
  await checkHere("unseen characters are seen", async () => {
    assert.equal(await panel("long").locator("td").nth(2).textContent(), String.raw`\u{200b}\u{ad}\u{2060}\u{feff}`);
  });

  const marker = `bad-${Date.now()}`;
  const lines = {
    text: `{"event_type":"order_placed", "zeta":2053013552293085303,"alpha":1.10,"alpha":1.1e0 ,"event_id":"${marker}","note":"<i>\u202eevil\u202c</i>\u200b\u2067","ts":"<img src=x>\u202e"}`,
    long: `{"event_type":"order_placed","event_id":"${marker}-long","ts":"${"x".repeat(20_000)}"}`,
    bytes: Buffer.concat([Buffer.from([0xff, 0xfe, 0x00, 0x1b]), Buffer.from(`"é" \\x41 ${marker}-bytes`)]),
  };
  await send(broker, Object.values(lines));
  const reject = async (text) => {
    const node = page.locator(".reject", { has: page.locator("pre", { hasText: text }) }).first();
    await node.waitFor({ state: "attached" });
    await node.locator("summary").click();
    return node;
  };
  await checkHere("a rejected event is shown byte for byte", async () => {
    const node = await reject(`"${marker}"`);
    const shown = lines.text.replace(/[\u200b\u202c\u202e\u2067]/g, (one) => `\\u{${one.codePointAt(0).toString(16)}}`);
    assert.equal(await node.locator("pre").textContent(), shown);
    assert.equal(await node.locator("i, img").count(), 0);
    await node.locator("button", { hasText: "copy event" }).click();
    await node.locator("button", { hasText: "copied" }).waitFor();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), lines.text);
  });
  await checkHere("the beginning of a long event is shown", async () => {
    const node = await reject(`${marker}-long`);
    assert.equal(await node.locator("pre").textContent(), lines.long.slice(0, 16384));
    assert.match(await node.innerText(), /the first 16 KiB of 20 KiB/);
  });
  await checkHere("bytes that are no text are shown as such", async () => {
    const node = await reject(`${marker}-bytes`);
    assert.equal(await node.locator("pre").textContent(), String.raw`\xff\xfe\x00\x1b"\xc3\xa9" \x41 ${marker}-bytes`);
    assert.deepEqual(await node.locator(".escape").allTextContents(), [String.raw`\xff\xfe\x00\x1b`, String.raw`\xc3\xa9`]);
  });
  await checkHere("no text widens the page", async () => {
    for (const width of [1280, 390]) {
      await page.setViewportSize({ width, height: 800 });
      await page.waitForTimeout(300);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `${wide} of ${width} pixels`);
    }
  });
  await checkHere("the console is empty", () => assert.deepEqual(page.problems, []));
  await page.context().close();
  console.log(`${failures === failuresBefore ? "ok" : "FAILED"}: ${name} (${checks - checksBefore} checks)`);
}

// ---- a certificate that is replaced
const fingerprint = (port) => new Promise((found, failed) => {
  const socket = connectTls({ port, host: "127.0.0.1", servername: NAME, rejectUnauthorized: false }, () => {
    found(socket.getPeerCertificate().fingerprint256);
    socket.destroy();
  });
  socket.once("error", failed);
});

async function tryReplacedCertificate(browser, port, folder) {
  await check("a replaced certificate is served", async () => {
    const before = await fingerprint(port);
    makeCertificate(folder);
    await until(async () => await fingerprint(port) !== before, "new certificate", 60_000);
    const page = await open(browser);
    await page.goto(`https://${NAME}:${port}/`);
    await logIn(page, TOKEN);
    await isLive(page);
    assert.deepEqual(page.problems, []);
    await page.context().close();
    console.log("ok: a certificate that is replaced while silverd runs is that of new connections");
  });
}

// ---- all ways
const isAsked = (name) => !ONLY || name.includes(ONLY);
const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-gpu", `--host-resolver-rules=MAP ${NAME} 127.0.0.1`] });
try {
  const tls = makeCertificate(join(process.cwd(), "proxy-tls"));
  // Each proxy runs for its own way only.
  const through = async (name, startProxy, path = "/", scheme = "http") => {
    if (!isAsked(name)) return;
    const { child, port } = await startProxy();
    await tryWay(browser, { name, url: `${scheme}://${NAME}:${port}${path}` });
    await stop(child);
  };
  const direct = (name, url) => isAsked(name) && tryWay(browser, { name, url });
  const nginx = (path, to, host, tls) => () => startNginx(`location ${path} {
      proxy_pass ${to};
      proxy_http_version 1.1;
      proxy_buffering off; # events of the stream are sent on as they come
      proxy_set_header ${host} $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
    }`, tls);

  const plain = await startSilverd("", PANELS);
  const to = `http://127.0.0.1:${plain.port}`;
  await direct("plain HTTP, 127.0.0.1", `${to}/`);
  await direct("plain HTTP, another name", `http://${NAME}:${plain.port}/`);
  await through("nginx, Host kept", nginx("/", to, "Host"));
  await through("nginx, Host rewritten", nginx("/", to, "X-Forwarded-Host"));
  await through("nginx, TLS", nginx("/", to, "Host", tls), "/", "https");
  if (isAsked("numbers and text")) await tryText(browser, plain);
  await stop(plain.child);

  const below = await startSilverd(`base_path = "/silverd"`);
  const toBelow = `http://127.0.0.1:${below.port}`;
  const caddy = (handle) => () => startCaddy(`${handle} /silverd/* {\n    reverse_proxy ${toBelow.slice("http://".length)}\n  }`, tls);
  await through("nginx, prefix kept", nginx("/silverd/", toBelow, "Host"), "/silverd/");
  await through("nginx, prefix stripped", nginx("/silverd/", `${toBelow}/`, "Host"), "/silverd/");
  await through("nginx, TLS, prefix stripped", nginx("/silverd/", `${toBelow}/`, "X-Forwarded-Host", tls), "/silverd/", "https");
  await through("Caddy, TLS, prefix kept", caddy("handle"), "/silverd/", "https");
  await through("Caddy, TLS, prefix stripped", caddy("handle_path"), "/silverd/", "https");
  await stop(below.child);

  if (isAsked("TLS of silverd")) {
    const folder = join(process.cwd(), "silverd-tls");
    const { certificate, key } = makeCertificate(folder);
    const own = await startSilverd(`[http.tls]\ncertificate = "${certificate}"\nkey = "${key}"`);
    await direct("TLS of silverd", `https://${NAME}:${own.port}/`);
    await tryReplacedCertificate(browser, own.port, folder);
    await stop(own.child);
  }
} catch (error) {
  failures += 1;
  console.error(error);
} finally {
  await browser.close();
  await stopChildren();
}
console.log(`${ways} ways, ${checks} checks, ${failures} failures`);
process.exitCode = failures ? 1 : 0;
