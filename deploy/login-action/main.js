// Logs the job in: exchanges its identity for a registry token and hands that to the clients that were asked for.
"use strict";

const { exchange, registryUrl } = require("./exchange.js");
const docker = require("./docker.js");
const { error, info, input, saveState, setOutput } = require("./runner.js");

const later = ["npm", "pip", "cargo", "maven"];

function formats(text) {
  const names = text.split(/[\s,]+/).filter(Boolean).map((name) => name.toLowerCase());
  for (const name of names) {
    if (later.includes(name)) {
      throw new Error(`the format ${name} cannot be logged in yet: its settings come with that format. This release knows docker`);
    }
    if (name !== "docker") {
      throw new Error(`there is no format ${name}: this release knows docker`);
    }
  }
  return new Set(names);
}

async function main() {
  const registry = registryUrl(input("registry"));
  const wanted = formats(input("formats"));
  const audience = input("audience") || registry.origin;

  const { token, expiresIn, scope } = await exchange(registry, audience);
  // First of all: whatever fails from here on, the token is revoked when the job ends.
  saveState("registry", registry.origin);
  saveState("token", token);

  if (wanted.has("docker")) {
    await docker.login(registry.host, token, (done) => saveState("docker", JSON.stringify(done)));
  }
  setOutput("token", token);
  setOutput("expires-in", expiresIn ?? "");
  setOutput("username", docker.username);
  const what = scope ? `, may ${scope}` : "";
  const until = expiresIn === undefined ? "" : `, for ${expiresIn} seconds`;
  info(`logged in to ${registry.host}${until}${what}`);
}

main().catch((cause) => {
  error(cause.message);
  process.exitCode = 1;
});
