// What the checks stand on: the issuer's process, a registry that exchanges tokens, and a runner that runs steps.
//
// The registry verifies what it is shown with the issuer's published keys, as a real one does, so that a step that sends
// anything else fails. The runner keeps to what GitHub documents: environment in, files and commands out.
import { spawn } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { fileURLToPath } from "node:url";

const action = fileURLToPath(new URL("../../deploy/login-action/", import.meta.url));
const stepMilliseconds = 60_000;

export const exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange";
export const idTokenType = "urn:ietf:params:oauth:token-type:id_token";

// The issuer: `url`, `requestUrl`, `requestToken`, `post(path, body)`, `end()`.
export async function startIssuer() {
  const post = (url) => async (where, body) => {
    const answer = await fetch(`${url}${where}`, { method: "POST", body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`the issuer refuses ${where}: ${await answer.text()}`);
  };
  if (process.env.ISSUER_URL) {
    const url = process.env.ISSUER_URL.replace(/\/$/, "");
    const requestToken = process.env.ISSUER_REQUEST_TOKEN;
    if (!requestToken) throw new Error("ISSUER_URL is set and ISSUER_REQUEST_TOKEN is not: the issuer prints both when it starts");
    return { url, requestToken, requestUrl: `${url}/actions/idtoken?api-version=2.0`, post: post(url), end() {} };
  }
  const program = process.env.NORA_TEST_ISSUER;
  if (!program) throw new Error("NORA_TEST_ISSUER is not set: cluster-tests/login-action/run.sh builds the issuer and sets it");
  const child = spawn(program, ["--until-stdin-closes"], { stdio: ["pipe", "pipe", "inherit"] });
  const line = await new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", (code) => reject(new Error(`${program} ended (${code}) before it was ready`)));
    readline.createInterface({ input: child.stdout }).once("line", resolve);
  });
  const said = JSON.parse(line);
  return {
    url: said.issuer,
    requestUrl: said.request_url,
    requestToken: said.request_token,
    post: post(said.issuer),
    end: () => child.stdin.end(),
  };
}

// A registry: answers are taken from `script` first (functions of request and response), then it does what NORA does.
export async function startRegistry(issuer) {
  const registry = { script: [], seen: [], idTokens: [], tokens: [], revoked: [] };
  const server = http.createServer(async (request, response) => {
    let body = "";
    for await (const piece of request) body += piece;
    const form = Object.fromEntries(new URLSearchParams(body));
    registry.seen.push({ method: request.method, path: request.url, type: request.headers["content-type"], form });
    if (form.subject_token) registry.idTokens.push(form.subject_token);
    const scripted = registry.script.shift();
    if (scripted) return scripted(response);
    if (request.method === "POST" && request.url === "/auth/oidc/token") return exchange(form, response);
    if (request.method === "POST" && request.url === "/auth/oidc/revoke") {
      registry.revoked.push(form.token);
      return answer(response, 200, {});
    }
    return answer(response, 404, { error: "not_found" });
  });
  async function exchange(form, response) {
    const problem =
      form.grant_type !== exchangeGrant || form.subject_token_type !== idTokenType
        ? "the form is not a token exchange"
        : await wrong(issuer, form.subject_token, registry.url);
    if (problem) return answer(response, 400, { error: "invalid_request", error_description: problem });
    const token = `nora_wl_${crypto.randomBytes(24).toString("hex")}`;
    registry.tokens.push(token);
    return answer(response, 200, {
      access_token: token,
      issued_token_type: "urn:ietf:params:oauth:token-type:access_token",
      token_type: "Bearer",
      expires_in: 900,
      scope: "push:my-org/*",
    });
  }
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  registry.host = `127.0.0.1:${server.address().port}`;
  registry.url = `http://${registry.host}`;
  registry.end = () => {
    server.closeAllConnections();
    server.close();
  };
  return registry;
}

export function answer(response, status, body, headers = {}) {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(body));
}

// What is wrong with an ID token; nothing if it is the issuer's, unexpired and made out to `audience`.
async function wrong(issuer, token, audience) {
  const [header, claims, signature] = token.split(".");
  const decode = (part) => JSON.parse(Buffer.from(part, "base64url"));
  const { keys } = await (await fetch(`${issuer.url}/jwks`)).json();
  const jwk = keys.find((key) => key.kid === decode(header).kid);
  if (!jwk) return "unknown key";
  const key = crypto.createPublicKey({ key: jwk, format: "jwk" });
  const signed = Buffer.from(`${header}.${claims}`);
  if (!crypto.verify("sha256", signed, key, Buffer.from(signature, "base64url"))) return "wrong signature";
  const said = decode(claims);
  if (said.iss !== issuer.url) return `issuer ${said.iss}`;
  if (said.aud !== audience) return `audience ${said.aud}, not ${audience}`;
  return said.exp * 1000 > Date.now() ? undefined : "expired";
}

// A runner with a home of its own.
export class Runner {
  constructor(issuer) {
    this.home = fs.mkdtempSync(path.join(os.tmpdir(), "nora-login-action-"));
    this.configFile = path.join(this.home, ".docker", "config.json");
    this.state = {};
    this.masks = new Set();
    this.issuer = issuer;
    this.permitted = true;
    this.path = process.env.PATH;
  }

  end() {
    fs.rmSync(this.home, { recursive: true, force: true });
  }

  writeConfig(config) {
    fs.mkdirSync(path.dirname(this.configFile), { recursive: true });
    fs.writeFileSync(this.configFile, typeof config === "string" ? config : JSON.stringify(config));
  }

  config() {
    return JSON.parse(fs.readFileSync(this.configFile, "utf8"));
  }

  // A program named `docker` that notes how it was called; nothing else is on the path.
  fakeDocker(exitCode = 0) {
    const bin = path.join(this.home, "bin");
    fs.mkdirSync(bin);
    const notes = path.join(this.home, "docker-calls");
    const script = `#!/bin/sh\n{ echo "$@"; /bin/cat; echo; } >>'${notes}'\necho no such helper >&2\nexit ${exitCode}\n`;
    fs.writeFileSync(path.join(bin, "docker"), script, { mode: 0o755 });
    this.path = bin;
    return () => fs.readFileSync(notes, "utf8");
  }

  main(inputs) {
    return this.run("main.js", { audience: "", formats: "docker", ...inputs });
  }

  post() {
    return this.run("post.js", {});
  }

  // Runs a step. Returns its exit code, what a log would show, its messages, outputs, and the masks it asked for.
  async run(script, inputs) {
    const files = { GITHUB_OUTPUT: path.join(this.home, "output"), GITHUB_STATE: path.join(this.home, "state") };
    Object.values(files).forEach((file) => fs.writeFileSync(file, ""));
    const env = { PATH: this.path, HOME: this.home, RUNNER_TEMP: this.home, ...files };
    if (this.permitted) {
      env.ACTIONS_ID_TOKEN_REQUEST_URL = this.issuer.requestUrl;
      env.ACTIONS_ID_TOKEN_REQUEST_TOKEN = this.issuer.requestToken;
    }
    for (const [name, value] of Object.entries(inputs)) env[`INPUT_${name.toUpperCase()}`] = value;
    for (const [name, value] of Object.entries(this.state)) env[`STATE_${name}`] = value;
    const begun = Date.now();
    const { code, stdout, stderr } = await ran(script, env);
    const step = { code, log: [], errors: [], warnings: [], milliseconds: Date.now() - begun };
    for (const line of stdout.split("\n").filter(Boolean)) this.take(line, step);
    if (stderr) step.log.push(...stderr.split("\n"));
    step.outputs = fields(files.GITHUB_OUTPUT);
    Object.assign(this.state, fields(files.GITHUB_STATE));
    return step;
  }

  take(line, step) {
    const [, command, text] = /^::([a-z-]+)[^:]*::(.*)$/.exec(line) ?? [];
    if (command === "add-mask") {
      this.masks.add(unescaped(text));
      return;
    }
    if (command === "error") step.errors.push(unescaped(text));
    else if (command === "warning") step.warnings.push(unescaped(text));
    else if (command) throw new Error(`the step gave the command ${command}`);
    step.log.push(line);
  }
}

const unescaped = (text) => text.replace(/%0D/g, "\r").replace(/%0A/g, "\n").replace(/%25/g, "%");

function ran(script, env) {
  return new Promise((resolve, reject) => {
    const options = { env, stdio: ["ignore", "pipe", "pipe"], timeout: stepMilliseconds };
    const child = spawn(process.execPath, [path.join(action, script)], options);
    const said = { stdout: "", stderr: "" };
    for (const stream of ["stdout", "stderr"]) child[stream].on("data", (piece) => (said[stream] += piece));
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, ...said }));
  });
}

// The runner's file format: `name<<END`, lines, `END`.
function fields(file) {
  const found = {};
  const lines = fs.readFileSync(file, "utf8").split("\n");
  while (lines.length > 1) {
    const [name, end] = lines.shift().split("<<");
    const value = [];
    while (lines[0] !== end) value.push(lines.shift());
    lines.shift();
    found[name] = value.join("\n");
  }
  return found;
}
