// Tests the dashboard of a running demo in headless Chromium: panels show data, a rejected event appears in the
// quarantine without a reload, and the console stays empty. Takes the screenshots of the README.
// Started by `scripts/dashboard-test/run`.
//
// Environment: SILVERD (the binary), CHROMIUM, MODULES (a folder with node_modules/playwright-core), SCREENSHOTS (the
// folder for screenshots; none are taken without it), ASSETS (serves the dashboard's files from this folder, for work on
// them), DASHBOARD (`{"url": …, "broker": …}` of a silverd that runs already).
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fail, send, startDemo, stopChildren } from "./processes.mjs";

const { CHROMIUM, MODULES, SCREENSHOTS, ASSETS, DASHBOARD } = process.env;
const { chromium } = createRequire(join(MODULES, "x.js"))("playwright-core");
const TIMEOUT_MS = 120_000;

// ---- the browser
async function open(browser, url, options, problems) {
  const context = await browser.newContext({ locale: "en-GB", timezoneId: "UTC", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(TIMEOUT_MS);
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) problems.push(message.text()); });
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("requestfailed", (request) => { if (!request.url().endsWith("/api/stream")) problems.push(`${request.url()}: ${request.failure()?.errorText}`); });
  page.on("response", (response) => { if (response.status() >= 400) problems.push(`${response.url()}: ${response.status()}`); });
  page.on("request", (request) => { if (!request.url().startsWith(url) && !request.url().startsWith("data:")) problems.push(`request to another host: ${request.url()}`); });
  if (ASSETS) await serveFromFolder(page);
  await page.goto(url);
  return page;
}

async function serveFromFolder(page) {
  const types = { css: "text/css", js: "text/javascript", svg: "image/svg+xml", json: "application/json" };
  const policy = { "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; manifest-src 'self'" };
  await page.route("**/assets/*", (route) => {
    const name = new URL(route.request().url()).pathname.split("/").pop();
    return route.fulfill({ body: readFileSync(join(ASSETS, name)), contentType: types[name.split(".").pop()], headers: policy });
  });
  await page.route((url) => url.pathname === "/", (route) => route.fulfill({ body: readFileSync(join(ASSETS, "dashboard.html")), contentType: "text/html", headers: policy }));
}

// Waits until every panel shows data: a number, a chart or rows.
async function waitForPanels(page) {
  const names = await page.evaluate(async () => {
    for (;;) {
      const { panels } = await (await fetch("api/panels")).json();
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

async function takeScreenshot(page, name) {
  if (SCREENSHOTS) await page.screenshot({ path: join(SCREENSHOTS, name) });
}

// Deploys another version of the plugin of page_view by pipeline.toml, and waits until the dashboard shows it.
async function swapPlugin(page) {
  const wasm = ["wasm32-unknown-unknown", "wasm32-wasip1"].map((target) => `plugins/target/${target}/release/page_view.wasm`).find(existsSync);
  const card = page.locator('[data-plugin="page_view"]');
  const before = await card.getAttribute("data-digest");
  // The same plugin with one more custom section is another version.
  const section = Buffer.from("swap");
  writeFileSync("page_view.wasm", Buffer.concat([readFileSync(wasm), Buffer.from([0, section.length + 1, section.length]), section]));
  const text = readFileSync("pipeline.toml", "utf8");
  writeFileSync("pipeline.toml", text.replace('"plugins/page_view"', '"page_view.wasm"'));
  await page.waitForFunction((digest) => {
    const card = document.querySelector('[data-plugin="page_view"]');
    return card.dataset.digest !== digest && card.innerText.includes("last swap");
  }, before, { timeout: 60_000 });
  console.log(`the plugin swap appears without a reload: ${(await card.innerText()).split("\n").slice(-2).join(" ")}`);
}

// Adds an alert to pipeline.toml, waits until the dashboard shows that it fires, and removes it.
async function fireAlert(page) {
  const before = readFileSync("pipeline.toml", "utf8");
  const sql = `SELECT count(*) AS views, '<b>bold</b>' AS name FROM live.page_view`;
  writeFileSync("pipeline.toml", `${before}\n[alert.views]\nsql = "${sql}"\nwhen = "views > 0"\nevery = "1s"\nsummary = "{views} views of {name}"\n`);
  const firing = page.locator("#alerts-firing .failing", { hasText: "views (warning), since" });
  await firing.waitFor();
  const text = await firing.innerText();
  if (!/\d+ views of <b>bold<\/b>/.test(text)) fail(`the alert's summary is not inert text: ${text}`);
  const badge = await page.locator("#alerts-badge").innerText();
  if (badge !== "1 firing") fail(`the badge of the alerts is ${badge}`);
  await page.locator("#alerts-all tbody tr", { hasText: "name = <b>bold</b>" }).waitFor();
  await page.locator("#alerts-history tbody tr", { hasText: "firing" }).first().waitFor();
  writeFileSync("pipeline.toml", before);
  await firing.waitFor({ state: "detached" });
  if (await page.locator("#alerts-badge").isVisible()) fail("the badge of the alerts does not go");
  console.log("an alert fires and ends without a reload");
}

const problems = [];
const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-gpu"] });
try {
  const { url, broker } = DASHBOARD ? JSON.parse(DASHBOARD) : await startDemo("--listen", "127.0.0.1:0");
  const page = await open(browser, url, { viewport: { width: 1280, height: 860 }, colorScheme: "light" }, problems);
  const names = await waitForPanels(page);
  console.log(`${names.length} panels show data: ${names.join(", ")}`);

  // Numbers move without a reload.
  await page.evaluate(() => { window.notReloaded = true; });
  const ticker = page.locator('[data-panel="orders"] tbody tr').first();
  const before = await ticker.innerText();
  await page.waitForFunction((text) => document.querySelector('[data-panel="orders"] tbody tr').innerText !== text, before);
  console.log("the orders change without a reload");

  const total = () => page.locator("#rejects-total").innerText();
  const rejected = await total();
  const marker = `bad-${Date.now()}`;
  await send(broker, [
    { event_type: "page_view", event_id: marker, user_id: "user-7", ts: "the day before yesterday", url: "/cart" },
    { event_type: "add_to_cart", event_id: `${marker}-2`, user_id: "user-8", ts: new Date().toISOString(), sku: "SKU-00001", qty: -1, price: 9.5 },
    { event_type: "order_placed", event_id: `${marker}-3`, order_id: "o-1", user_id: "user-9", ts: new Date().toISOString(), total: 12.0, line_items: [] },
  ].map((event) => JSON.stringify(event)));
  const reject = page.locator(".reject", { hasText: "the day before yesterday" }).first();
  await reject.waitFor({ state: "attached" });
  await reject.locator("summary").click();
  await reject.locator("pre", { hasText: marker }).waitFor();
  if (await total() === rejected) fail("the number of rejected events did not change");
  if (!(await page.locator('button[title^="silverd quarantine replay --table"]').count())) fail("the replay command is missing");
  console.log("a rejected event appears in the quarantine without a reload");

  if (!DASHBOARD) {
    await swapPlugin(page);
    await fireAlert(page);
  }
  if (!(await page.evaluate(() => window.notReloaded))) fail("the dashboard was reloaded");

  await page.waitForTimeout(SCREENSHOTS ? 45_000 : 0); // the charts of the screenshots need some history
  await page.evaluate(() => scrollTo(0, 0));
  await page.mouse.move(2, 2);
  await takeScreenshot(page, "page-light.png");
  await page.locator("#pipeline").scrollIntoViewIfNeeded();
  await page.evaluate(() => document.getElementById("pipeline").scrollIntoView());
  await page.waitForTimeout(800);
  await takeScreenshot(page, "pipeline-light.png");
  await page.evaluate(() => document.getElementById("quarantine").scrollIntoView());
  await page.waitForTimeout(800);
  await takeScreenshot(page, "quarantine-light.png");

  const dark = await open(browser, url, { viewport: { width: 1280, height: 860 }, colorScheme: "dark" }, problems);
  await waitForPanels(dark);
  await dark.waitForTimeout(1500);
  await takeScreenshot(dark, "page-dark.png");
  await dark.context().close();

  const phone = await open(browser, url, { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true, colorScheme: "light" }, problems);
  await waitForPanels(phone);
  await phone.waitForTimeout(1500);
  const wider = await phone.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  if (wider) fail("the dashboard is wider than the screen of a phone");
  await takeScreenshot(phone, "page-phone.png");
  await phone.context().close();

  if (problems.length) fail(`the browser reports:\n${problems.join("\n")}`);
  console.log("light, dark and on a phone; no message in the console, no request to another host");
} catch (error) {
  console.error(error);
  if (problems.length) console.error("the browser reports:", problems);
  process.exitCode = 1;
} finally {
  await browser.close();
  await stopChildren();
}
