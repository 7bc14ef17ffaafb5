// The way from the job's identity to a registry token, and back: ask GitHub for an ID token, exchange it, revoke.
//
// Guarantees: tokens go to the registry and to nobody else (no redirects, plain http to loopback alone); every request
// has a deadline and every answer a limit; a busy server is asked again, as it wishes, a bounded number of times. Must
// not know: what a token is for.
"use strict";

const { setTimeout: sleep } = require("node:timers/promises");
const { info, mask, oneLine } = require("./runner.js");

const attemptsMax = 5;
const requestMilliseconds = 30_000;
const answerBytesMax = 64 * 1024;
const backoffMilliseconds = 500;
const backoffMillisecondsMax = 15_000;
// A server that wants more patience than this gets an error instead: a job's minutes cost money.
const retryAfterMillisecondsMax = 120_000;

// What may be tried again.
class Busy extends Error {
  constructor(message, retryAfter, cause) {
    super(message, { cause });
    this.retryAfter = retryAfter;
  }
}

// The registry's address as a URL of scheme, host and port; `https` where no scheme is given.
function registryUrl(text) {
  if (!text) throw new Error("the input `registry` is missing: give the registry's address, as https://nora.example.com");
  let url;
  try {
    url = new URL(/^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `https://${text}`);
  } catch (cause) {
    throw new Error(`the input \`registry\` is no address: ${text}. It looks like https://nora.example.com`, { cause });
  }
  if (url.username || url.password) {
    throw new Error("the input `registry` holds a user or password: leave them out, this action needs neither");
  }
  if (url.pathname !== "/" || url.search || url.hash) {
    throw new Error(`the input \`registry\` is ${url.origin} with something behind it: give scheme, host and port alone`);
  }
  mustBePrivate(url, "the input `registry`");
  return url;
}

function mustBePrivate(url, what) {
  const host = url.hostname;
  const loopback = host === "localhost" || host === "[::1]" || /^127(\.\d{1,3}){3}$/.test(host);
  if (url.protocol !== "https:" && !(url.protocol === "http:" && loopback)) {
    throw new Error(`${what} is ${url.protocol}//${url.host}: a token must not travel in the clear, use https`);
  }
}

// One request. An answer that may be better next time is thrown as `Busy`.
async function request(what, url, options) {
  let response;
  let text;
  try {
    response = await fetch(url, {
      ...options,
      redirect: "manual",
      signal: AbortSignal.timeout(requestMilliseconds),
    });
    text = await bounded(what, response);
  } catch (cause) {
    if (cause instanceof Oversized) throw cause;
    const reason = cause.name === "TimeoutError" ? `no answer in ${requestMilliseconds / 1000} seconds` : reasonOf(cause);
    throw new Busy(`${what} at ${url.host} failed: ${reason}`, undefined, cause);
  }
  if (response.status >= 300 && response.status < 400) {
    throw new Error(`${what}: ${url.host} redirects elsewhere, and tokens are not taken elsewhere. Give the address that it redirects to`);
  }
  if (response.status === 429 || response.status >= 500) {
    const said = oneLine(text).slice(0, 300);
    throw new Busy(`${what}: ${url.host} answered ${response.status} ${said}`, retryAfter(response));
  }
  return { status: response.status, text };
}

class Oversized extends Error {}

async function bounded(what, response) {
  const pieces = [];
  let length = 0;
  for await (const piece of response.body ?? []) {
    length += piece.length;
    if (length > answerBytesMax) throw new Oversized(`${what}: the answer is longer than any token: is this a NORA registry?`);
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString("utf8");
}

// What `fetch` says is "fetch failed"; why is in its cause.
function reasonOf(error) {
  const cause = error.cause ?? error;
  return cause.code ?? (cause.message || "unknown reason");
}

// Milliseconds, from seconds or a date.
function retryAfter(response) {
  const header = response.headers.get("retry-after");
  if (header === null) return undefined;
  if (/^\d+$/.test(header.trim())) return Number(header) * 1000;
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}

// Does `work` until it works, fails for good, or was busy `attempts` times.
async function patiently(work, attempts = attemptsMax) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Busy)) throw error;
      if (attempt === attempts) throw new Error(`${error.message} (${attempts} attempts)`, { cause: error });
      const backoff = Math.min(backoffMilliseconds * 2 ** (attempt - 1), backoffMillisecondsMax);
      // Jobs of one matrix start together: half of the wait is chance. What a server asks for is waited for in full.
      const wait = error.retryAfter ?? backoff / 2 + (Math.random() * backoff) / 2;
      if (wait > retryAfterMillisecondsMax) {
        throw new Error(`${error.message}: it asks for ${Math.ceil(wait / 1000)} seconds of patience, which is too long for a job`);
      }
      info(`${error.message}; trying again in ${(wait / 1000).toFixed(1)} s`);
      await sleep(wait);
    }
  }
}

// An ID token from GitHub, made out to `audience`.
async function idToken(audience) {
  const address = process.env.ACTIONS_ID_TOKEN_REQUEST_URL;
  const shown = process.env.ACTIONS_ID_TOKEN_REQUEST_TOKEN;
  if (!address || !shown) {
    throw new Error(
      "GitHub gives this job no ID token. Add to the job (or the workflow): `permissions:` with `id-token: write`, and " +
        "`contents: read` if it checks code out. Jobs for pull requests from forks never get one.",
    );
  }
  mask(shown);
  const url = new URL(address);
  mustBePrivate(url, "ACTIONS_ID_TOKEN_REQUEST_URL");
  url.searchParams.set("audience", audience);
  return patiently(async () => {
    const answer = await request("asking for an ID token", url, {
      headers: { authorization: `bearer ${shown}`, accept: "application/json" },
    });
    const token = answer.status === 200 ? parsed(answer.text).value : undefined;
    if (!isToken(token)) {
      throw new Error(`${url.host} gave no ID token: it answered ${answer.status}. Does the job have \`permissions: id-token: write\`?`);
    }
    mask(token);
    return token;
  });
}

// A registry token in exchange for the job's identity.
//
// Each attempt shows a fresh ID token: the registry takes one once, and an answer may get lost after it was taken.
async function exchange(registry, audience) {
  const url = new URL("/auth/oidc/token", registry);
  return patiently(async () => {
    const subject = await idToken(audience);
    const answer = await request("the exchange", url, {
      method: "POST",
      headers: { accept: "application/json" },
      body: new URLSearchParams({
        grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
        subject_token: subject,
        subject_token_type: "urn:ietf:params:oauth:token-type:id_token",
      }),
    });
    const body = parsed(answer.text);
    if (answer.status !== 200) throw new Error(refusal(registry, answer.status, body, subject));
    if (!isToken(body.access_token)) {
      throw new Error(`${registry.host} answered the exchange with something that is no token: is it a NORA registry?`);
    }
    mask(body.access_token);
    const expiresIn = Number.isFinite(body.expires_in) ? Math.floor(body.expires_in) : undefined;
    return { token: body.access_token, expiresIn, scope: typeof body.scope === "string" ? body.scope : "" };
  });
}

// Why, in the registry's words, and what both sides have to agree about.
function refusal(registry, status, body, subject) {
  if (status === 404) {
    // A registry without `[auth.oidc] enabled = true` answers 403 and says so.
    return `${registry.host} has no /auth/oidc/token. A NORA registry has it even without \`[auth.oidc] enabled = true\`: is this another server?`;
  }
  const said = [body.error, body.error_description].filter((part) => typeof part === "string").join(": ");
  return (
    `${registry.host} refused the exchange (${status}): ${oneLine(said).slice(0, 1000) || "no reason given"}. ` +
    `This job is ${claims(subject)}. Compare that with \`[[auth.oidc.providers]]\` and its rules in nora.toml; ` +
    "`nora auth explain` says which rule and which claim decided."
  );
}

// The claims that rules are written about; none of them is secret, and the token itself is not shown.
function claims(token) {
  const names = ["iss", "aud", "repository", "repository_owner_id", "ref", "ref_protected", "event_name", "environment"];
  const all = parsed(Buffer.from(token.split(".")[1] ?? "", "base64url").toString("utf8"));
  return names.filter((name) => all[name] !== undefined).map((name) => `${name}=${all[name]}`).join(", ") || "unknown";
}

// The registry forgets the token.
async function revoke(registry, token) {
  const url = new URL("/auth/oidc/revoke", registry);
  await patiently(async () => {
    const answer = await request("the revocation", url, { method: "POST", body: new URLSearchParams({ token }) });
    if (answer.status >= 400) throw new Error(`${registry.host} answered the revocation with ${answer.status}`);
  }, 3);
}

// A JSON object, or an empty one: what is missing is reported by who needs it.
function parsed(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
  } catch {
    return {};
  }
}

const isToken = (value) => typeof value === "string" && /^[\x21-\x7e]+$/.test(value);

module.exports = { exchange, registryUrl, revoke };
