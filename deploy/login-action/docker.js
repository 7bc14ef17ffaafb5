// Docker's login: an entry in its configuration, or `docker login` where a credential helper keeps such entries.
//
// Guarantees: other entries and settings stay as they are; the file is replaced whole and readable by its owner alone;
// what is taken out again is our own entry and no other. Must not know: where the token came from.
"use strict";

const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const crypto = require("node:crypto");
const { spawn } = require("node:child_process");
const { mask, oneLine } = require("./runner.js");

const dockerMilliseconds = 60_000;
// NORA takes the token as the password of any user.
const username = "token";

function folder() {
  return process.env.DOCKER_CONFIG || path.join(os.homedir(), ".docker");
}

// The configuration, and where it really is: a link stays a link.
function read(file) {
  let real = file;
  let text;
  try {
    real = fs.realpathSync(file);
    text = fs.readFileSync(real, "utf8");
  } catch (cause) {
    if (cause.code !== "ENOENT") throw new Error(`cannot read docker's configuration ${file}: ${cause.message}`, { cause });
    return { real, config: {}, existed: false };
  }
  let config;
  try {
    config = JSON.parse(text.trim() === "" ? "{}" : text);
  } catch (cause) {
    // The parser's message may quote what is in the file, and that may be a password.
    throw new Error(`docker's configuration ${file} is not JSON: mend or remove it, docker cannot read it either`);
  }
  const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  if (!isObject(config) || (config.auths !== undefined && config.auths !== null && !isObject(config.auths))) {
    throw new Error(`docker's configuration ${file} is not of the form {"auths": {…}}: mend or remove it`);
  }
  return { real, config, existed: true };
}

// Whole or not at all; readable by its owner alone from the first byte.
function replace(real, config) {
  fs.mkdirSync(path.dirname(real), { recursive: true, mode: 0o700 });
  const part = `${real}.${crypto.randomUUID()}`;
  try {
    fs.writeFileSync(part, `${JSON.stringify(config, null, "\t")}\n`, { mode: 0o600, flag: "wx" });
    fs.renameSync(part, real);
  } catch (cause) {
    fs.rmSync(part, { force: true });
    throw new Error(`cannot write docker's configuration ${real}: ${cause.message}`, { cause });
  }
}

// Logs docker in to `host`. `saved` is called with what `logout` needs before anything is changed: a step that is
// cancelled half-way is cleaned up as well.
async function login(host, token, saved) {
  const file = path.join(folder(), "config.json");
  const { real, config, existed } = read(file);
  const auth = Buffer.from(`${username}:${token}`).toString("base64");
  mask(auth);
  const helper = config.credHelpers?.[host] || config.credsStore;
  if (helper) {
    saved({ host, folder: folder(), helper });
    await docker(["login", "--username", username, "--password-stdin", host], token, helper);
    return;
  }
  const previous = config.auths?.[host];
  maskEntry(previous);
  saved({ host, folder: folder(), auth: fingerprint(auth), previous, existed });
  config.auths = { ...config.auths, [host]: { auth } };
  replace(real, config);
}

// What was there before goes into the state for the post step, which logs may show.
function maskEntry(entry) {
  if (entry === null || typeof entry !== "object") return;
  for (const name of ["auth", "password", "identitytoken", "registrytoken"]) {
    if (typeof entry[name] === "string") mask(entry[name]);
  }
  if (typeof entry.auth === "string") {
    const decoded = Buffer.from(entry.auth, "base64").toString("utf8");
    mask(decoded.slice(decoded.indexOf(":") + 1));
  }
}

const fingerprint = (auth) => crypto.createHash("sha256").update(auth).digest("hex");

// Takes our entry out and puts back what it replaced. Says what it left alone, or nothing.
async function logout(done) {
  process.env.DOCKER_CONFIG = done.folder;
  if (done.helper) {
    await docker(["logout", done.host], "", done.helper);
    return undefined;
  }
  const file = path.join(done.folder, "config.json");
  const { real, config, existed } = read(file);
  const ours = config.auths?.[done.host]?.auth;
  if (!existed || typeof ours !== "string" || fingerprint(ours) !== done.auth) {
    return `docker's login to ${done.host} is no longer the one that this action made: it stays as it is`;
  }
  if (done.previous === undefined) {
    delete config.auths[done.host];
  } else {
    config.auths[done.host] = done.previous;
  }
  const onlyOurs = Object.keys(config).length === 1 && Object.keys(config.auths).length === 0;
  if (!done.existed && onlyOurs) {
    fs.rmSync(real);
  } else {
    replace(real, config);
  }
  return undefined;
}

function docker(args, stdin, helper) {
  return new Promise((resolve, reject) => {
    // A signal and not spawn's own `timeout`: that one keeps this process alive when there is no docker to end.
    const signal = AbortSignal.timeout(dockerMilliseconds);
    const child = spawn("docker", args, { stdio: ["pipe", "ignore", "pipe"], signal });
    let said = "";
    child.stderr.on("data", (piece) => {
      if (said.length < 4096) said += piece;
    });
    // docker may end without reading.
    child.stdin.on("error", () => {});
    child.on("error", (cause) => {
      const why =
        cause.code === "ENOENT" ? "there is no docker here to speak to it"
        : signal.aborted ? `docker ${args[0]} took longer than ${dockerMilliseconds / 1000} seconds`
        : cause.message;
      reject(
        new Error(
          `docker's configuration hands logins to the credential helper "${helper}", and ${why}. Install docker, or set ` +
            "DOCKER_CONFIG to an empty folder for this job",
        ),
      );
    });
    child.on("close", (code) => {
      if (code === 0) resolve();
      else reject(new Error(`docker ${args[0]} failed (${code ?? "ended by a signal"}): ${oneLine(said).slice(0, 500)}`));
    });
    child.stdin.end(stdin);
  });
}

module.exports = { login, logout, username };
