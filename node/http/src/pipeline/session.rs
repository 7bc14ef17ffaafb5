//! Whose an upload session is. Where logins are asked for, its address carries a proof that only the cluster can make, so
//! that it opens for the caller who began it and for nobody else.

use axum::extract::Request;
use nora_domain::UploadId;
use nora_identity::Caller;

use crate::Api;

/// The query parameter that carries the proof.
const PROOF: &str = "_session";

/// The parameter that a session's address needs, if it needs one.
pub(crate) fn session_proof(
    api: &Api,
    caller: &Caller,
    query: &[(String, String)],
    id: UploadId,
) -> Option<(&'static str, String)> {
    // Where another member has let the request through, it has looked at the proof as well.
    let shown = query.iter().find(|(key, _)| key == PROOF).map(|(_, value)| value);
    let shown = shown.filter(|shown| shown.bytes().all(|b| b.is_ascii_hexdigit()));
    let own = api.guard.session_proof(caller, id);
    Some((PROOF, own.or_else(|| shown.cloned())?))
}

/// Whether the caller may go on with an upload session: with what it was opened with, or not at all.
pub(super) fn is_own(api: &Api, caller: &Caller, request: &Request, id: UploadId) -> bool {
    if !api.guard.asks_for_proofs() {
        return true;
    }
    if caller.is_exempt() {
        return true;
    }
    let query = form_urlencoded::parse(request.uri().query().unwrap_or("").as_bytes());
    let mut shown = query.filter(|(key, _)| key == PROOF).map(|(_, value)| value);
    shown.next().is_some_and(|shown| api.guard.is_session_proof(caller, id, &shown))
}
