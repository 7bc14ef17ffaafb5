//! Generates messages and services from `proto/`: with protox, so that no protoc needs to be installed.

use std::error::Error;

const FILES: &[&str] = &[
    "nora/name/v1/name.proto",
    "nora/command/v1/command.proto",
    "nora/record/v1/record.proto",
    "nora/record/v1/head.proto",
    "nora/raft/v1/raft.proto",
    "nora/peer/v1/peer.proto",
    "nora/exchange/v1/exchange.proto",
    "nora/v1/admin.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    // What the reflection service tells of.
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure()
        // What may be large is a slice of what was received, not a copy of it.
        .bytes(".nora.record.v1.Body")
        .bytes(".nora.record.v1.Artifact.annotations")
        .bytes(".nora.command.v1.PutArtifact.annotations")
        .bytes(".nora.record.v1.Facts")
        .bytes(".nora.raft.v1.Entry")
        .bytes(".nora.exchange.v1")
        .bytes(".nora.peer.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
