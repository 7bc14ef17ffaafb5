//! Keeps web pages from using a node that asks nobody for a login.
//!
//! Such a node listens on the loopback address alone, but a browser on this machine reaches it on behalf of any page. A
//! page may send simple requests to another origin, which the browser marks. Or its own host name may come to resolve to
//! this machine (DNS rebinding); then the browser takes the node for the page's own origin, and only the host name tells.
//!
//! Guarantees: a request is let through only under a name that no public DNS server gives out, or under that of
//! `server.public_url`; one that a browser sends for a page of another origin changes nothing. Must not know: who asks.

use axum::extract::Request;
use http::header::{HOST, HeaderName, ORIGIN};
use http::uri::Authority;
use http::{Method, StatusCode, Uri};

use crate::ApiSettings;
use crate::problem::{Kind, Problem};

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Top-level domains that belong to nobody: the machine itself, and names that organisations keep for themselves.
const PRIVATE_DOMAINS: [&str; 2] = ["localhost", "internal"];

/// Refuses what a web page may have sent to a node that is open.
pub(super) fn check(settings: &ApiSettings, request: &Request) -> Result<(), Problem> {
    let asked = asked_authority(request);
    if let Some(asked) = &asked
        && !is_own(settings.public_url.as_deref(), asked.host())
    {
        let text = format!(
            "this registry asks for no login, so it answers only under names of this machine, as localhost, and not as {}: \
             use such a name, set server.public_url, or let it ask for logins with [auth]",
            asked.host()
        );
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, Kind::Denied, text));
    }
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if changes && is_of_another_page(request, asked.as_ref()) {
        let text = "a web page of another site may not change this registry; it asks for no login, so it takes changes \
                    from programs and from its own pages alone";
        return Err(Problem::new(StatusCode::FORBIDDEN, Kind::Denied, text));
    }
    Ok(())
}

/// Under which name the client asks. HTTP/1.0 may leave it out.
fn asked_authority(request: &Request) -> Option<Authority> {
    let host = || Authority::try_from(request.headers().get(HOST)?.as_bytes()).ok();
    request.uri().authority().cloned().or_else(host)
}

/// Whether no web page can have this host name: an address, a name without a dot, one of a domain that is nobody's, or the
/// name that the operator gave.
fn is_own(public_url: Option<&str>, host: &str) -> bool {
    let host = host.trim_end_matches('.');
    let is_address = host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
    let is_private = host.rsplit_once('.').is_none_or(|(_, domain)| {
        PRIVATE_DOMAINS.iter().any(|private| domain.eq_ignore_ascii_case(private))
    });
    let public = || public_url.and_then(|url| url.parse::<Uri>().ok());
    is_address
        || is_private
        || public().and_then(|url| Some(url.host()?.eq_ignore_ascii_case(host))).unwrap_or(false)
}

/// Whether a browser says that a page of another origin sends the request. Other programs say nothing of the kind.
fn is_of_another_page(request: &Request, asked: Option<&Authority>) -> bool {
    let site = request.headers().get(&SEC_FETCH_SITE).map(|site| site.as_bytes());
    if site.is_some_and(|site| !matches!(site, b"same-origin" | b"none")) {
        return true;
    }
    let Some(origin) = request.headers().get(ORIGIN) else { return false };
    let origin =
        Uri::try_from(origin.as_bytes()).ok().and_then(|origin| origin.into_parts().authority);
    // An origin that cannot be read, as `null`, is nobody's here.
    origin.is_none_or(|origin| asked.is_none_or(|asked| *asked != origin))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::response::IntoResponse;

    use super::*;
    use crate::testkit;

    fn status(method: &str, host: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri("/v2/").header(HOST, host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let settings = ApiSettings {
            public_url: Some("https://registry.example/".to_owned()),
            ..testkit::settings(Vec::new())
        };
        let refused = check(&settings, &request).err();
        refused.map_or(200, |error| error.into_response().status().as_u16())
    }

    #[test]
    fn a_public_name_is_answered_only_if_the_operator_gave_it() {
        for own in [
            "localhost",
            "LOCALHOST:4000",
            "app.localhost",
            "127.0.0.1:4000",
            "[::1]:4000",
            "192.0.2.1",
            "nora",
            "nora:80",
            "host.docker.internal:4000",
            "registry.example",
            "Registry.Example:443",
        ] {
            assert_eq!(status("GET", own, &[]), 200, "{own}");
        }
        for foreign in [
            "evil.example",
            "evil.example:4000",
            "evil.example.",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "x.registry.example",
        ] {
            assert_eq!(status("GET", foreign, &[]), 421, "{foreign}");
            assert_eq!(status("POST", foreign, &[("origin", "http://evil.example")]), 421);
        }
    }

    #[test]
    fn a_page_of_another_origin_changes_nothing() {
        let own = "localhost:4000";
        for another in [
            &[("origin", "http://evil.example")][..],
            &[("origin", "http://localhost:3000")],
            &[("origin", "null")],
            &[("origin", "")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "cross-site"), ("origin", "http://localhost:4000")],
        ] {
            for method in ["POST", "PUT", "PATCH", "DELETE"] {
                assert_eq!(status(method, own, another), 403, "{method} {another:?}");
            }
            // What it reads, the browser keeps from it.
            assert_eq!(status("GET", own, another), 200, "{another:?}");
        }
        for its_own in [
            &[][..],
            &[("origin", "http://localhost:4000")],
            &[("sec-fetch-site", "same-origin"), ("origin", "http://localhost:4000")],
            &[("sec-fetch-site", "none")],
        ] {
            assert_eq!(status("POST", own, its_own), 200, "{its_own:?}");
        }
    }
}
