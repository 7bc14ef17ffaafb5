// The login action's steps, as a runner runs them, against a real issuer: what they send, what they leave behind, what
// they show. Run by run.sh.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { Runner, answer, exchangeGrant, idTokenType, startIssuer, startRegistry } from "./stage.mjs";

const realRegistry = process.env.REGISTRY_URL?.replace(/\/$/, "");
// A check that needs to know or to script what the registry does.
const scripted = { skip: realRegistry ? "needs a scripted registry, and REGISTRY_URL names a real one" : false };
// A check that needs a registry whose tokens mean something.
const real = { skip: realRegistry ? false : "needs a real registry: REGISTRY_URL is not set" };

let issuer;
let registry;
let runner;

before(async () => {
  issuer = await startIssuer();
});
after(() => issuer?.end());

beforeEach(async () => {
  runner = new Runner(issuer);
  await issuer.post("/fault", { fault: "none" });
  await issuer.post("/claims", {});
  registry = realRegistry
    ? { url: realRegistry, host: new URL(realRegistry).host, idTokens: [], tokens: [], end() {} }
    : await startRegistry(issuer);
});
afterEach(() => {
  runner.end();
  registry.end();
});

const base64 = (text) => Buffer.from(text).toString("base64");

// Nothing that is secret is in a log, and whatever could still get there is masked.
function keepsSecrets(step, more = []) {
  const tokens = [...registry.tokens, step.outputs.token].filter(Boolean);
  const secrets = [issuer.requestToken, ...registry.idTokens, ...tokens, ...tokens.map((token) => base64(`token:${token}`)), ...more];
  for (const secret of secrets) {
    for (const line of step.log) assert.ok(!line.includes(secret), `a secret is in the log: ${line}`);
    if (secret !== issuer.requestToken) assert.ok(runner.masks.has(secret), "a secret is not masked");
  }
  for (const line of step.log) assert.doesNotMatch(line, /eyJ[\w-]+\.eyJ|nora_wl_/, "a token is in the log");
}

function succeeded(step) {
  assert.equal(step.code, 0, step.log.join("\n"));
  assert.deepEqual(step.errors, []);
}

function failed(step, pattern) {
  assert.equal(step.code, 1, step.log.join("\n"));
  assert.equal(step.errors.length, 1, step.log.join("\n"));
  assert.match(step.errors[0], pattern);
  assert.deepEqual(step.outputs, {});
}

test("a job is logged in, and logged out when it ends", async () => {
  const step = await runner.main({ registry: registry.url });
  succeeded(step);
  keepsSecrets(step);
  const { token } = step.outputs;
  assert.equal(step.outputs.username, "token");
  assert.ok(Number(step.outputs["expires-in"]) > 0, step.outputs["expires-in"]);
  assert.deepEqual(runner.config(), { auths: { [registry.host]: { auth: base64(`token:${token}`) } } });
  assert.equal(fs.statSync(runner.configFile).mode & 0o777, 0o600);
  assert.deepEqual(fs.readdirSync(path.dirname(runner.configFile)), ["config.json"], "no part is left");

  const post = await runner.post();
  succeeded(post);
  keepsSecrets(post);
  assert.deepEqual(post.warnings, []);
  assert.ok(!fs.existsSync(runner.configFile), "what was not there before is gone");
});

test("what is sent is the exchange of RFC 8693, and the revocation of that token", scripted, async () => {
  const step = await runner.main({ registry: registry.url });
  succeeded(step);
  assert.equal(step.outputs["expires-in"], "900");
  await runner.post();
  const [exchange, revocation] = registry.seen;
  assert.equal(registry.seen.length, 2);
  assert.deepEqual([exchange.method, exchange.path], ["POST", "/auth/oidc/token"]);
  assert.match(exchange.type, /^application\/x-www-form-urlencoded/);
  assert.equal(exchange.form.grant_type, exchangeGrant);
  assert.equal(exchange.form.subject_token_type, idTokenType);
  assert.deepEqual([revocation.method, revocation.path], ["POST", "/auth/oidc/revoke"]);
  assert.deepEqual(revocation.form, { token: step.outputs.token });
  assert.deepEqual(registry.revoked, [step.outputs.token]);
});

test("the token is the registry's, and is none after the job", real, async () => {
  const step = await runner.main({ registry: registry.url });
  succeeded(step);
  const ping = () =>
    fetch(`${registry.url}/v2/`, { headers: { authorization: `Basic ${base64(`token:${step.outputs.token}`)}` } });
  assert.equal((await ping()).status, 200);
  succeeded(await runner.post());
  assert.equal((await ping()).status, 401);
});

test("a repository that no rule is about is refused, with a hint and its claims", async () => {
  await issuer.post("/claims", { repository: "my-org-evil/app", repository_owner: "my-org-evil" });
  if (!realRegistry) {
    registry.script.push((response) =>
      answer(response, 403, { error: "access_denied", error_description: "no rule of provider github-actions matches" }),
    );
  }
  const step = await runner.main({ registry: registry.url });
  failed(step, /refused the exchange \(40[03]\): \w+: .*repository=my-org-evil\/app.*nora auth explain/);
  if (!realRegistry) assert.match(step.errors[0], /access_denied: no rule of provider github-actions matches/);
  keepsSecrets(step);
  assert.ok(!fs.existsSync(runner.configFile));
});

test("other logins and settings stay, and what was there before comes back", async () => {
  const before = {
    auths: { "ghcr.io": { auth: base64("me:other-secret") }, [registry.host]: { auth: base64("me:former-secret") } },
    HttpHeaders: { "X-Meta": "1" },
    credHelpers: { "gcr.io": "gcloud" },
  };
  runner.writeConfig(before);
  const step = await runner.main({ registry: registry.url });
  succeeded(step);
  const mine = { auth: base64(`token:${step.outputs.token}`) };
  assert.deepEqual(runner.config(), { ...before, auths: { ...before.auths, [registry.host]: mine } });
  // The former login is in the state, which a debug log shows: it is masked in both forms.
  keepsSecrets(step, [base64("me:former-secret"), "former-secret"]);
  const post = await runner.post();
  succeeded(post);
  keepsSecrets(post);
  assert.deepEqual(runner.config(), before);
  assert.equal(fs.statSync(runner.configFile).mode & 0o777, 0o600);
});

test("a configuration with no login of ours keeps its file", async () => {
  runner.writeConfig({ auths: {} });
  succeeded(await runner.main({ registry: registry.url }));
  succeeded(await runner.post());
  assert.deepEqual(runner.config(), { auths: {} });
});

test("a link to the configuration stays a link", async () => {
  const real = path.join(runner.home, "real.json");
  runner.writeConfig({});
  fs.renameSync(runner.configFile, real);
  fs.symlinkSync(real, runner.configFile);
  succeeded(await runner.main({ registry: registry.url }));
  assert.ok(fs.lstatSync(runner.configFile).isSymbolicLink());
  assert.ok(runner.config().auths[registry.host].auth);
});

test("a login that somebody else made meanwhile is left alone, and the token revoked", async () => {
  succeeded(await runner.main({ registry: registry.url }));
  const theirs = { auths: { [registry.host]: { auth: base64("you:your-secret") } } };
  runner.writeConfig(theirs);
  const post = await runner.post();
  succeeded(post);
  assert.match(post.warnings[0], /no longer the one that this action made/);
  assert.deepEqual(runner.config(), theirs);
  if (!realRegistry) assert.deepEqual(registry.revoked, registry.tokens);
});

test("a configuration that is broken is not touched, quoted or fatal to the revocation", async () => {
  const text = '{"auths": {"a": {"auth": "c2VjcmV0"';
  runner.writeConfig(text);
  const step = await runner.main({ registry: registry.url });
  failed(step, /docker's configuration .*config\.json is not JSON/);
  assert.doesNotMatch(step.log.join("\n"), /c2VjcmV0/);
  succeeded(await runner.post());
  assert.equal(fs.readFileSync(runner.configFile, "utf8"), text);
  if (!realRegistry) assert.deepEqual(registry.revoked, registry.tokens);
});

test("a credential helper is spoken to by docker itself", async () => {
  runner.writeConfig({ credsStore: "secretservice" });
  const calls = runner.fakeDocker();
  const step = await runner.main({ registry: registry.url });
  succeeded(step);
  keepsSecrets(step);
  const { token } = step.outputs;
  assert.equal(calls(), `login --username token --password-stdin ${registry.host}\n${token}\n`, "the token is no argument");
  assert.deepEqual(runner.config(), { credsStore: "secretservice" });
  succeeded(await runner.post());
  assert.match(calls(), new RegExp(`\nlogout ${registry.host}\n`));
});

test("a credential helper without docker, or one that fails, is explained", async () => {
  runner.writeConfig({ credHelpers: { [registry.host]: "desktop" } });
  runner.path = path.join(runner.home, "nothing");
  failed(await runner.main({ registry: registry.url }), /credential helper "desktop".*no docker here.*DOCKER_CONFIG/);
  runner.fakeDocker(3);
  const step = await runner.main({ registry: registry.url });
  failed(step, /docker login failed \(3\): no such helper/);
  const post = await runner.post();
  succeeded(post);
  assert.match(post.warnings[0], /docker logout failed/);
});

test("a job without the permission is told which one", async () => {
  runner.permitted = false;
  const step = await runner.main({ registry: registry.url });
  failed(step, /`permissions:` with `id-token: write`.*forks/);
  if (!realRegistry) assert.equal(registry.seen.length, 0);
  const post = await runner.post();
  succeeded(post);
  assert.deepEqual(post.warnings, [], "where there was no login, nothing is cleaned up");
});

test("a busy registry is asked again as it wishes, each time with a fresh ID token", scripted, async () => {
  const busy = (response) => answer(response, 429, { error: "slow_down" }, { "retry-after": "1" });
  registry.script.push(busy, busy);
  const step = await runner.main({ registry: registry.url });
  succeeded(step);
  keepsSecrets(step);
  assert.ok(step.milliseconds >= 2000, `waited ${step.milliseconds} ms for two answers that ask for a second each`);
  assert.equal(new Set(registry.idTokens).size, 3, "an ID token is good once");
});

test("a registry that asks for too much patience, or never recovers, is given up", scripted, async () => {
  registry.script.push((response) => answer(response, 429, {}, { "retry-after": "3600" }));
  failed(await runner.main({ registry: registry.url }), /429.*3600 seconds of patience/);
  const tries = registry.seen.length;
  for (let n = 0; n < 5; n += 1) registry.script.push((response) => answer(response, 503, {}, { "retry-after": "0" }));
  failed(await runner.main({ registry: registry.url }), /503.*5 attempts/);
  assert.equal(registry.seen.length - tries, 5);
});

test("a lost answer and a 502 are tried again", scripted, async () => {
  registry.script.push((response) => response.destroy(), (response) => answer(response, 502, {}));
  succeeded(await runner.main({ registry: registry.url }));
});

test("an issuer that is overloaded is asked again, one that is broken is reported", async () => {
  await issuer.post("/fault", { fault: "too-many", retry_after: 0, times: 2 });
  succeeded(await runner.main({ registry: registry.url }));
  await issuer.post("/fault", { fault: "not-json" });
  failed(await runner.main({ registry: registry.url }), /gave no ID token.*id-token: write/);
  await issuer.post("/fault", { fault: "redirect", url: "http://127.0.0.1:1/" });
  failed(await runner.main({ registry: registry.url }), /redirects elsewhere/);
});

test("a redirect takes no token along", scripted, async (context) => {
  const elsewhere = await startRegistry(issuer);
  context.after(() => elsewhere.end());
  registry.script.push((response) => answer(response, 307, {}, { location: `${elsewhere.url}/auth/oidc/token` }));
  failed(await runner.main({ registry: registry.url }), /redirects elsewhere/);
  assert.equal(elsewhere.seen.length, 0);
});

test("an answer that is no token, or endless, is not taken for one", scripted, async () => {
  const page = (response) => response.end("<html>hello</html>");
  const command = (response) => answer(response, 200, { access_token: "a\n::error::b" });
  const endless = (response) => response.end("x".repeat(1 << 20));
  for (const [reply, pattern] of [[page, /no token: is it a NORA/], [command, /no token: is it a NORA/], [endless, /longer than any token/]]) {
    registry.script.push(reply);
    failed(await runner.main({ registry: registry.url }), pattern);
  }
  registry.script.push((response) => answer(response, 404, {}));
  failed(await runner.main({ registry: registry.url }), /no \/auth\/oidc\/token.*enabled = true/);
});

test("what a registry says never becomes a command to the runner", scripted, async () => {
  const evil = "no\r\n::add-mask::x\n::warning::y%0A::error::z";
  registry.script.push((response) => answer(response, 403, { error: "access_denied", error_description: evil }));
  const step = await runner.main({ registry: registry.url });
  failed(step, /access_denied: no ::add-mask::x ::warning::y%0A::error::z/);
  assert.equal(step.log.length, 1);
  assert.ok(!runner.masks.has("x"));
});

test("an audience of its own is what the ID token is made out to", scripted, async () => {
  failed(await runner.main({ registry: registry.url, audience: "https://else.example" }), /audience https:\/\/else\.example/);
  succeeded(await runner.main({ registry: `${registry.url}/` }));
});

test("formats that this release cannot log in are refused before anything is asked for", async () => {
  for (const format of ["npm", "pip", "cargo", "maven"]) {
    const step = await runner.main({ registry: registry.url, formats: `docker, ${format}` });
    failed(step, new RegExp(`the format ${format} cannot be logged in yet: its settings come with that format`));
  }
  failed(await runner.main({ registry: registry.url, formats: "dokcer" }), /there is no format dokcer/);
  assert.equal(registry.idTokens.length, 0);
});

test("without formats the token is given out and nothing is written", async () => {
  const step = await runner.main({ registry: registry.url, formats: "" });
  succeeded(step);
  assert.ok(step.outputs.token);
  assert.ok(!fs.existsSync(runner.configFile));
  succeeded(await runner.post());
});

test("addresses that are none, or that a token must not go to, are refused", async () => {
  for (const [address, pattern] of [
    ["", /`registry` is missing/],
    ["http://registry.example", /must not travel in the clear, use https/],
    ["http://127.0.0.1.evil.example", /in the clear/],
    ["ftp://registry.example", /in the clear/],
    ["https://me:secret-word@registry.example", /user or password/],
    ["https://registry.example/v2", /something behind it/],
    ["https://", /no address/],
  ]) {
    const step = await runner.main({ registry: address });
    failed(step, pattern);
    assert.doesNotMatch(step.log.join("\n"), /secret-word/);
  }
  assert.equal(registry.idTokens.length, 0);
});

test("post warns and never fails", async () => {
  const empty = await runner.post();
  succeeded(empty);
  assert.match(empty.log.join("\n"), /nothing to clean up/);
  succeeded(await runner.main({ registry: registry.url }));
  const { docker } = runner.state;
  runner.state.docker = "{";
  const post = await runner.post();
  succeeded(post);
  assert.match(post.warnings[0], /may still be in its configuration/);
  if (!realRegistry) assert.deepEqual(registry.revoked, registry.tokens, "it is revoked nevertheless");
  runner.state.docker = docker;
});

test("a revocation that fails is a warning, and the login goes nevertheless", scripted, async () => {
  succeeded(await runner.main({ registry: registry.url }));
  registry.script.push((response) => answer(response, 400, {}));
  const post = await runner.post();
  succeeded(post);
  keepsSecrets({ ...post, outputs: {} });
  assert.match(post.warnings[0], /400.*ends by itself when it expires/);
  assert.ok(!fs.existsSync(runner.configFile));
});

test("values of any form survive the runner's files", scripted, async () => {
  // The delimiter is random: a value with lines that look like one does not end early.
  const previous = { auth: base64("a:b"), note: `x\n<<end-${crypto.randomUUID()}\ny%0A` };
  runner.writeConfig({ auths: { [registry.host]: previous } });
  succeeded(await runner.main({ registry: registry.url }));
  succeeded(await runner.post());
  assert.deepEqual(runner.config().auths[registry.host], previous);
});
