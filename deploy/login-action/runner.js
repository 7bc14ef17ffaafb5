// The runner's side of an action: inputs, outputs, state for the post step, masks, and messages.
//
// Guarantees: nothing that others wrote (a registry's error text, say) can become a command to the runner, because
// control characters never reach a line of output. Must not know: registries and tokens.
"use strict";

const fs = require("node:fs");
const os = require("node:os");
const crypto = require("node:crypto");

function write(line) {
  // Synchronous: a mask must be out before anything that follows it.
  fs.writeSync(1, `${line}\n`);
}

// The runner's own escapes for what follows `::command::`.
function escaped(text) {
  return String(text).replace(/%/g, "%25").replace(/\r/g, "%0D").replace(/\n/g, "%0A");
}

// One line of text, whatever it was.
function oneLine(text) {
  return String(text).replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, " ").trim();
}

function input(name) {
  return (process.env[`INPUT_${name.toUpperCase().replace(/ /g, "_")}`] ?? "").trim();
}

// From here on the runner shows `***` wherever this text would be in a log.
function mask(secret) {
  if (secret) write(`::add-mask::${escaped(secret)}`);
}

function info(text) {
  // A space in front: a line that begins with `::` would be a command.
  const line = oneLine(text);
  write(line.startsWith("::") ? ` ${line}` : line);
}

function warning(text) {
  write(`::warning::${escaped(oneLine(text))}`);
}

function error(text) {
  write(`::error::${escaped(oneLine(text))}`);
}

// Appends `name` to the file that the runner named in `variable`. The delimiter is random, so that no value can end it.
function append(variable, name, value) {
  const file = process.env[variable];
  if (!file) {
    throw new Error(`${variable} is not set: this action runs on GitHub Actions, or on a runner that works as it does`);
  }
  const end = `end-${crypto.randomUUID()}`;
  fs.appendFileSync(file, [`${name}<<${end}`, String(value), end, ""].join(os.EOL));
}

const setOutput = (name, value) => append("GITHUB_OUTPUT", name, value);
const saveState = (name, value) => append("GITHUB_STATE", name, value);
const state = (name) => process.env[`STATE_${name}`] ?? "";

module.exports = { error, info, input, mask, oneLine, saveState, setOutput, state, warning };
