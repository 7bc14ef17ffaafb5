//! The sessions of `nora.v1.Identity`: logins with a password whose clients keep a refresh token.
//!
//! Guarantees: whoever is no administrator sees and ends only their own, and only with their password. Must not know: how a
//! session is signed.

use nora_app::refresh_tokens::OwnedRefreshToken;
use nora_domain::{About, Deed, OwnerName, Reason, TokenId, Verb};
use nora_proto::v1 as proto;
use tonic::{Request, Status};

use super::identity::{malformed, own};
use super::{Admin, caller_of, not_permitted, page_rows, refused, to_the_end};

const NO_SESSION: &str = "there is no such session; it may be over already";

fn to_proto((owner, token, record): OwnedRefreshToken) -> proto::Session {
    proto::Session {
        id: format!("{owner}/{:032x}", token.0),
        owner: owner.to_string(),
        created_at: record.created_at.0,
        expires_at: record.expires_at.0,
        address: record.address,
    }
}

fn owner_name(text: &str) -> Result<OwnerName, Status> {
    OwnerName::parse(text).map_err(|error| malformed("owner", error))
}

/// The owner and the session that a text names; no session if it names an owner.
fn session_named(text: &str) -> Result<(OwnerName, Option<TokenId>), Status> {
    let Some((owner, id)) = text.split_once('/') else { return Ok((owner_name(text)?, None)) };
    let id = u128::from_str_radix(id, 16).map_err(|_| {
        Status::invalid_argument(
            "name the session by its id, user:alice/ and 32 hexadecimal digits, or an owner, as user:alice, for all of them",
        )
    })?;
    Ok((owner_name(owner)?, Some(TokenId(id))))
}

impl Admin {
    pub(super) async fn sessions(
        &self,
        request: Request<proto::ListSessionsRequest>,
    ) -> Result<proto::ListSessionsResponse, Status> {
        let caller = caller_of(&request)?;
        let proto::ListSessionsRequest { after, page_size, owner } = request.into_inner();
        let registry = &self.api.registry;
        let owner = match owner.as_str() {
            "" if caller.administers() => None,
            "" => Some(own(&caller)),
            owner => Some(owner.to_owned()),
        };
        if let Some(owner) = owner {
            let is_own = owner == own(&caller) && caller.is_in_person();
            if !is_own && !caller.administers() {
                return Err(not_permitted(&caller, "admin:*"));
            }
            let listed =
                registry.refresh_tokens().of(owner_name(&owner)?).await.map_err(refused)?;
            let sessions = listed.into_iter().map(to_proto).collect();
            return Ok(proto::ListSessionsResponse { sessions, more: false });
        }
        let after = match after.as_str() {
            "" => None,
            id => match session_named(id)? {
                (owner, Some(token)) => Some((owner, token)),
                (_, None) => return Err(malformed("after", "it is the id of no session")),
            },
        };
        let page =
            registry.refresh_tokens().list(after, page_rows(page_size)).await.map_err(refused)?;
        let sessions = page.items.into_iter().map(to_proto).collect();
        Ok(proto::ListSessionsResponse { sessions, more: page.more })
    }

    pub(super) async fn end_sessions(
        &self,
        request: Request<proto::RevokeSessionsRequest>,
    ) -> Result<proto::RevokeSessionsResponse, Status> {
        let caller = caller_of(&request)?;
        let (owner, token) = session_named(&request.into_inner().session)?;
        let is_own = owner.as_str() == own(&caller) && caller.is_in_person();
        if !is_own && !caller.administers() {
            let about = About::Session(owner.as_str().into(), token);
            caller.note_refusal(Deed::new(Verb::SessionRevoke, about), Reason::NotPermitted);
            // Others' sessions are as good as absent.
            return Err(Status::not_found(NO_SESSION));
        }
        let registry = self.registry_of(caller);
        let ended = to_the_end(async move { registry.refresh_tokens().revoke(owner, token).await });
        let sessions = ended.await?.map_err(refused)?;
        Ok(proto::RevokeSessionsResponse { sessions })
    }
}
