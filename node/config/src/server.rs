//! `[server]`: how this node is reached over HTTP.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::section::section;
use super::setting::{Network, PublicUrl};

section! {
    /// This node's HTTP side: everything that registry clients and browsers use.
    Server in "server" {
        /// Where to listen for HTTP, or for HTTPS if `tls` is set.
        listen: SocketAddr = "\"127.0.0.1:4000\"";
        /// The address clients use, if it is not the one they connect to: behind a proxy, say. A node that asks for no login answers under no other public host name than this one.
        public_url: Option<PublicUrl> = none;
        /// Proxies and load balancers whose word is taken for a client's address (`X-Forwarded-For`), which the access log, the audit and the count of failed logins go by, and for `https` (`X-Forwarded-Proto`, or `Forwarded` without one) in the login challenge. Nobody else's is. Behind one that is not named here all clients share one address, and failed logins of one make all wait.
        trusted_proxies: Vec<Network> = "[]";
        /// Networks in which this node may call issuers of identity tokens and the audit webhook, beside public addresses. A list of your own replaces this one. A name that resolves to any other address, such as this machine's, is not called, and neither is a cloud's metadata service at all.
        egress_networks: Vec<Network> = "[\"10.0.0.0/8\", \"172.16.0.0/12\", \"192.168.0.0/16\", \"fc00::/7\"]";
    }
    tables {
        /// Serve HTTPS with this certificate.
        tls: Tls;
    }
}

section! {
    /// Serve HTTPS with this certificate. Without it, NORA speaks plain HTTP, and TLS may end before it.
    Tls in "server.tls" {
        /// The certificate and its chain, as PEM.
        cert: PathBuf = required;
        /// Its private key, as PEM.
        key: PathBuf = required;
    }
}
