//! Generates the messages from `proto/`: with protox, so that no protoc needs to be installed.

use std::error::Error;

const FILES: &[&str] = &[
    "nora/name/v1/name.proto",
    "nora/command/v1/command.proto",
    "nora/record/v1/record.proto",
    "nora/raft/v1/raft.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    prost_build::Config::new().bytes([".nora.raft.v1.Entry"]).compile_fds(descriptors)?;
    Ok(())
}
