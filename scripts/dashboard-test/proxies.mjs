// nginx and Caddy for the tests, on loopback, with all their files in folders below the current one.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { fail, start, until } from "./processes.mjs";

export const NAME = "silverd.example.org"; // Chromium resolves it to this machine
const TIMEOUT_MS = 30_000;

async function freePort() {
  const server = createServer();
  await new Promise((listens) => server.listen(0, "127.0.0.1", listens));
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

const answers = (port) => new Promise((answered) => {
  const socket = connect(port, "127.0.0.1");
  socket.once("connect", () => { socket.destroy(); answered(true); });
  socket.once("error", () => answered(false));
});

export function makeCertificate(folder) {
  mkdirSync(folder, { recursive: true });
  const [certificate, key] = [join(folder, "cert.pem"), join(folder, "key.pem")];
  const made = spawnSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
    "-subj", `/CN=${NAME}`, "-addext", `subjectAltName=DNS:${NAME},DNS:localhost,IP:127.0.0.1`, "-keyout", key, "-out", certificate]);
  if (made.status !== 0) fail(`openssl: ${made.stderr}`);
  return { certificate, key };
}

export async function startNginx(server, tls) {
  const folder = mkdtempSync(join(process.cwd(), "nginx-"));
  const port = await freePort();
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `${kind}_temp_path ${folder}/${kind};`).join(" ");
  writeFileSync(join(folder, "nginx.conf"), `
daemon off;
master_process off;
pid ${folder}/pid;
error_log ${folder}/error.log;
events {}
http {
  access_log off;
  ${temporary}
  server {
    listen 127.0.0.1:${port}${tls ? " ssl http2" : ""};
    ${tls ? `ssl_certificate ${tls.certificate}; ssl_certificate_key ${tls.key};` : ""}
    ${server}
  }
}`);
  const child = start("nginx", ["-p", folder, "-c", join(folder, "nginx.conf"), "-e", join(folder, "error.log")]);
  await until(() => answers(port), "nginx", TIMEOUT_MS, child);
  return { child, port };
}

export async function startCaddy(site, tls) {
  const folder = mkdtempSync(join(process.cwd(), "caddy-"));
  const port = await freePort();
  writeFileSync(join(folder, "Caddyfile"), `
{
  admin off
  auto_https disable_redirects
  storage file_system ${folder}
  servers {
    protocols h1 h2
  }
}
https://${NAME}:${port} {
  bind 127.0.0.1
  tls ${tls.certificate} ${tls.key}
  ${site}
}
`);
  const environment = { ...process.env, HOME: folder, XDG_CONFIG_HOME: folder, XDG_DATA_HOME: folder };
  const child = start("caddy", ["run", "--config", join(folder, "Caddyfile"), "--adapter", "caddyfile"], { env: environment });
  await until(() => answers(port), "Caddy", TIMEOUT_MS, child);
  return { child, port };
}
