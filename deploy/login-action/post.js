// Cleans up when the job ends: the token is revoked and docker's login is what it was before.
//
// Guarantees: never fails a job whose work is done; what did not work is a warning, and does not keep the rest from being
// done.
"use strict";

const { registryUrl, revoke } = require("./exchange.js");
const docker = require("./docker.js");
const { info, mask, state, warning } = require("./runner.js");

async function attempt(work, otherwise) {
  try {
    await work();
  } catch (cause) {
    warning(`${cause.message}. ${otherwise}`);
  }
}

async function post() {
  const token = state("token");
  if (!token) {
    info("there was no login, so there is nothing to clean up");
    return;
  }
  mask(token);
  await attempt(async () => {
    const done = state("docker");
    const left = done ? await docker.logout(JSON.parse(done)) : undefined;
    if (left) warning(left);
  }, "Docker's login may still be in its configuration; the token in it is of no use once it is revoked or has expired.");
  await attempt(async () => {
    await revoke(registryUrl(state("registry")), token);
    info("the token is revoked");
  }, "The token was not revoked: it ends by itself when it expires.");
}

post().catch((cause) => warning(cause.message));
