// Drives the page of a running demo in headless Chromium: panels fill, a bad event appears in the quarantine without a
// reload, nothing is written to the console; and takes the screenshots of the README. Run it by `.ci/page/run`.
//
// Environment: SILVERD (the binary), CHROMIUM, MODULES (a folder with node_modules/playwright-core), SHOTS (where the
// screenshots go; none are taken without it), ASSETS (serve the page's files from there: for work on the page).
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

const { SILVERD, CHROMIUM, MODULES, SHOTS, ASSETS, PAGE } = process.env;
const { chromium } = createRequire(join(MODULES, "x.js"))("playwright-core");
const PATIENCE = 120_000;

const fail = (text) => { throw new Error(text); };
const children = [];
const end = () => Promise.all(children.map((child) => new Promise((ended) => {
  if (child.exitCode !== null) return ended();
  child.once("exit", ended);
  child.kill("SIGTERM");
})));

// ---- the demo, in this folder
async function demo() {
  let log = "";
  const child = spawn(SILVERD, ["demo", "--listen", "127.0.0.1:0"], { stdio: ["ignore", "ignore", "pipe"] });
  children.push(child);
  child.stderr.on("data", (data) => { log += data; });
  const found = (pattern) => log.match(pattern)?.[1];
  const deadline = Date.now() + 600_000; // the plugins may have to be built
  while (!found(/the page: (http:\S+)/)) {
    if (child.exitCode !== null || Date.now() > deadline) fail(`the demo did not start:\n${log}`);
    await new Promise((waited) => setTimeout(waited, 200));
  }
  return { url: found(/the page: (http:\S+)/), broker: found(/embedded broker at (\S+)/) };
}

function send(broker, events) {
  const file = join(mkdtempSync(join(tmpdir(), "silverd-page-")), "events.jsonl");
  writeFileSync(file, events.map((event) => JSON.stringify(event)).join("\n"));
  const child = spawn(SILVERD, ["generate", "--bootstrap", broker, "--topic", "events.raw", "--file", file, "--eps", "0"], { stdio: ["ignore", "ignore", "inherit"] });
  return new Promise((sent, failed) => child.once("exit", (code) => (code === 0 ? sent() : failed(new Error(`silverd generate ended with ${code}`)))));
}

// ---- the browser
async function open(browser, url, options, complaints) {
  const context = await browser.newContext({ locale: "en-GB", timezoneId: "UTC", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) complaints.push(message.text()); });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("requestfailed", (request) => { if (!request.url().endsWith("/api/stream")) complaints.push(`${request.url()}: ${request.failure()?.errorText}`); });
  page.on("response", (response) => { if (response.status() >= 400) complaints.push(`${response.url()}: ${response.status()}`); });
  page.on("request", (request) => { if (!request.url().startsWith(url) && !request.url().startsWith("data:")) complaints.push(`asked elsewhere: ${request.url()}`); });
  if (ASSETS) await fromFolder(page);
  await page.goto(url);
  return page;
}

async function fromFolder(page) {
  const types = { css: "text/css", js: "text/javascript", svg: "image/svg+xml", json: "application/json" };
  const policy = { "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; manifest-src 'self'" };
  await page.route("**/assets/*", (route) => {
    const name = new URL(route.request().url()).pathname.split("/").pop();
    return route.fulfill({ body: readFileSync(join(ASSETS, name)), contentType: types[name.split(".").pop()], headers: policy });
  });
  await page.route((url) => url.pathname === "/", (route) => route.fulfill({ body: readFileSync(join(ASSETS, "page.html")), contentType: "text/html", headers: policy }));
}

/// Waits until every panel shows something: numbers that are no dash, charts that are drawn, rows.
async function filled(page) {
  const names = await page.evaluate(async () => {
    for (;;) {
      const { panels } = await (await fetch("/api/panels")).json();
      if (panels.length && panels.every((panel) => panel.state === "ok" && panel.rows.length)) return panels.map((panel) => panel.name);
      await new Promise((waited) => setTimeout(waited, 500));
    }
  });
  for (const name of names) {
    const card = page.locator(`[data-panel="${name}"]`);
    await card.locator(".number, canvas, tbody tr").first().waitFor();
    if (await card.locator(".failing, .empty").count()) fail(`panel ${name} is empty: ${await card.innerText()}`);
  }
  await page.waitForFunction(() => document.querySelectorAll("#tables tbody tr").length >= 5);
  await page.waitForFunction(() => document.querySelectorAll("[data-plugin][data-digest]:not([data-digest=''])").length >= 3);
  return names;
}

async function shoot(page, name, options = {}) {
  if (SHOTS) await page.screenshot({ path: join(SHOTS, name), ...options });
}

const complaints = [];
// Gives page_view another version of its plugin, by the file and pipeline.toml alone, and waits until the page shows it.
async function swap(page) {
  const wasm = ["wasm32-unknown-unknown", "wasm32-wasip1"].map((target) => `plugins/target/${target}/release/page_view.wasm`).find(existsSync);
  const card = page.locator('[data-plugin="page_view"]');
  const before = await card.getAttribute("data-digest");
  // A custom section more: the same plugin, and another file.
  const name = Buffer.from("swap");
  writeFileSync("page_view.wasm", Buffer.concat([readFileSync(wasm), Buffer.from([0, name.length + 1, name.length]), name]));
  const text = readFileSync("pipeline.toml", "utf8");
  writeFileSync("pipeline.toml", text.replace('"plugins/page_view"', '"page_view.wasm"'));
  await page.waitForFunction((digest) => {
    const card = document.querySelector('[data-plugin="page_view"]');
    return card.dataset.digest !== digest && card.innerText.includes("last swap");
  }, before, { timeout: 60_000 });
  console.log(`a swap appears without a reload: ${(await card.innerText()).split("\n").slice(-2).join(" ")}`);
}

const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-gpu"] });
try {
  const { url, broker } = PAGE ? JSON.parse(PAGE) : await demo();
  const page = await open(browser, url, { viewport: { width: 1280, height: 860 }, colorScheme: "light" }, complaints);
  const names = await filled(page);
  console.log(`${names.length} panels fill: ${names.join(", ")}`);

  // Numbers move without a reload.
  await page.evaluate(() => { window.notReloaded = true; });
  const ticker = page.locator('[data-panel="orders"] tbody tr').first();
  const before = await ticker.innerText();
  await page.waitForFunction((text) => document.querySelector('[data-panel="orders"] tbody tr').innerText !== text, before);
  console.log("orders tick");

  const total = () => page.locator("#rejects-total").innerText();
  const rejected = await total();
  const marker = `bad-${Date.now()}`;
  await send(broker, [
    { event_type: "page_view", event_id: marker, user_id: "user-7", ts: "the day before yesterday", url: "/cart" },
    { event_type: "add_to_cart", event_id: `${marker}-2`, user_id: "user-8", ts: new Date().toISOString(), sku: "SKU-00001", qty: -1, price: 9.5 },
    { event_type: "order_placed", event_id: `${marker}-3`, order_id: "o-1", user_id: "user-9", ts: new Date().toISOString(), total: 12.0, line_items: [] },
  ]);
  const reject = page.locator(".reject", { hasText: "the day before yesterday" }).first();
  await reject.waitFor({ state: "attached" });
  await reject.locator("summary").click();
  await reject.locator("pre", { hasText: marker }).waitFor();
  if (await total() === rejected) fail("the count of rejects did not move");
  if (!(await page.locator('button[title^="silverd quarantine replay --table"]').count())) fail("no replay command");
  console.log("a bad event appears in the quarantine, whole, without a reload");

  if (!PAGE) await swap(page);
  if (!(await page.evaluate(() => window.notReloaded))) fail("the page was reloaded");

  await page.waitForTimeout(SHOTS ? 45_000 : 0); // charts with some past, for the pictures
  await page.evaluate(() => scrollTo(0, 0));
  await page.mouse.move(2, 2);
  await shoot(page, "page-light.png");
  await page.locator("#pipeline").scrollIntoViewIfNeeded();
  await page.evaluate(() => document.getElementById("pipeline").scrollIntoView());
  await page.waitForTimeout(800);
  await shoot(page, "pipeline-light.png");
  await page.evaluate(() => document.getElementById("quarantine").scrollIntoView());
  await page.waitForTimeout(800);
  await shoot(page, "quarantine-light.png");

  const dark = await open(browser, url, { viewport: { width: 1280, height: 860 }, colorScheme: "dark" }, complaints);
  await filled(dark);
  await dark.waitForTimeout(1500);
  await shoot(dark, "page-dark.png");
  await dark.context().close();

  const phone = await open(browser, url, { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true, colorScheme: "light" }, complaints);
  await filled(phone);
  await phone.waitForTimeout(1500);
  const wider = await phone.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  if (wider) fail("the page is wider than the phone");
  await shoot(phone, "page-phone.png");
  await phone.context().close();

  if (complaints.length) fail(`the browser complains:\n${complaints.join("\n")}`);
  console.log("light, dark and on a phone; no complaint in the console, and nothing asked elsewhere");
} catch (error) {
  console.error(error);
  if (complaints.length) console.error("the browser complains:", complaints);
  process.exitCode = 1;
} finally {
  await browser.close();
  await end();
}
