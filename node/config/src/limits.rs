//! `[limits]`: a bound for everything that a client could otherwise make grow.

use std::time::Duration;

use super::section::section;
use super::setting::Size;

section! {
    /// Bounds for whatever a client could otherwise make grow.
    Limits in "limits" {
        /// Connections open at once; more wait to be accepted.
        connections_max: usize = "10000", "1" ..= "1000000";
        /// Connections open at once from one address, or from one /64 of IPv6; further ones are closed at once. An eighth of
        /// them may have shown nothing yet. Trusted proxies have no such limit.
        connections_per_address_max: usize = "1000", "8" ..= "1000000";
        /// The size of a request's line and headers.
        request_header_bytes_max: Size = "\"64KiB\"", "8KiB" ..= "1MiB";
        /// How long a client may take to send a request's headers.
        request_header_timeout: Duration = "\"30s\"", "1s" ..= "1h";
        /// How long a body may stand still, in either direction, before its connection is closed.
        body_idle_timeout: Duration = "\"1m\"", "1s" ..= "1d";
        /// Bytes a second that a request's body must bring, on the average of each `body_idle_timeout` that the node has waited
        /// for it. A slower one is broken off.
        body_rate_min: Size = "\"256B\"", "1B" ..= "1MiB";
        /// How long requests that are under way may take to end when the node is told to stop.
        drain_timeout: Duration = "\"30s\"", "0ms" ..= "1h";
        /// The size of a blob.
        upload_bytes_max: Size = "\"64GiB\"", "1MiB" ..= "16TiB";
        /// Upload sessions open at once on this node. A caller may have as many as could still be opened: half of them, if
        /// nobody else uploads.
        upload_sessions_max: usize = "1024", "1" ..= "1000000";
        /// How long an upload session is kept after its last byte.
        upload_expiry: Duration = "\"24h\"", "1m" ..= "52w";
        /// How long a blob that was pushed, mounted or confirmed is kept while no manifest references it.
        pin_expiry: Duration = "\"24h\"", "1m" ..= "52w";
        /// The size of a manifest.
        manifest_bytes_max: Size = "\"4MiB\"", "64KiB" ..= "16MiB";
        /// Blobs and manifests that one manifest may reference.
        references_max: usize = "1024", "1" ..= "100000";
        /// Entries of one page of a list.
        page_size_max: usize = "1000", "1" ..= "10000";
        /// Failed logins from one address for one name within `login_window`, after which further ones have to wait. Ten times as many for all names together make every login from there wait.
        login_failures_max: usize = "10", "1" ..= "1000";
        /// How long a failed login counts.
        login_window: Duration = "\"5m\"", "1s" ..= "1d";
    }
}
