// The processes that the tests start, among them silverd with its embedded broker, and how they end.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const { SILVERD } = process.env;

export const fail = (text) => { throw new Error(text); };

const children = new Set();
export function start(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ["ignore", "ignore", "pipe"], ...options });
  child.log = "";
  child.stderr?.on("data", (data) => { child.log += data; });
  child.once("error", (error) => { child.log += error; });
  children.add(child);
  return child;
}

const hasEnded = (child) => child.exitCode !== null || child.signalCode !== null || child.pid === undefined;
export const stop = (child) => new Promise((ended) => {
  children.delete(child);
  if (hasEnded(child)) return ended();
  child.once("exit", ended);
  child.kill("SIGTERM");
});
export const stopChildren = () => Promise.all([...children].map(stop));

// Waits until `found` gives something.
export async function until(found, what, timeout_ms = 60_000, child = null) {
  for (const deadline = Date.now() + timeout_ms; ; await new Promise((waited) => setTimeout(waited, 200))) {
    const value = await found();
    if (value) return value;
    if (Date.now() > deadline || (child && hasEnded(child))) fail(`no ${what}${child ? `:\n${child.log}` : ""}`);
  }
}

// `silverd demo` with the pipeline.toml of the current folder, or another.
export async function startDemo(...args) {
  const child = start(SILVERD, ["demo", ...args]);
  const found = (pattern) => child.log.match(pattern)?.[1];
  const url = await until(() => found(/dashboard: (https?:\S+)/), "demo", 600_000, child); // the plugins may have to be built
  return { child, url, broker: found(/embedded broker at (\S+)/) };
}

// Each event is a text or bytes on one line.
export async function send(broker, events) {
  const folder = mkdtempSync(join(tmpdir(), "silverd-dashboard-"));
  const file = join(folder, "events.jsonl");
  writeFileSync(file, Buffer.concat(events.flatMap((event) => [Buffer.from(event), Buffer.from("\n")])));
  const child = start(SILVERD, ["generate", "--bootstrap", broker, "--topic", "events.raw", "--file", file, "--eps", "0"], { stdio: ["ignore", "ignore", "inherit"] });
  const code = await new Promise((ended) => child.once("exit", ended));
  rmSync(folder, { recursive: true });
  if (code !== 0) fail(`silverd generate ended with ${code}`);
}
