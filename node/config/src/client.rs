//! `client.toml`: defaults for the commands that speak to a server.

use std::path::PathBuf;

use super::section::section;
use super::setting::SecretSource;

section! {
    /// Defaults for the commands that speak to a server. Its keys stand at the top of the file. A login in it is sent to the address in it alone: not to another one that is given by a flag or variable.
    ClientFile in "" {
        /// The server's address; without it, `http://127.0.0.1:4000`.
        addr: Option<String> = none;
        /// Who is asking.
        username: Option<String> = none;
        /// The password.
        password: Option<SecretSource> = none;
        /// A token, instead of a name and password.
        token: Option<SecretSource> = none;
        /// A PEM file of certificates to trust beside the system's.
        ca_file: Option<PathBuf> = none;
    }
}
