//! What this node does for those who join, and for members that ask about or change the membership.
//!
//! Guarantee: but for joining, whoever is not a member is refused before anything is done.

use nora_proto::peer::v1 as proto;
use nora_proto::peer::v1::members_server::{Members, MembersServer};
use nora_trust::PeerAddress;
use tonic::{Request, Response, Status};

use super::Roster;
use super::compare::marks_to_proto;
use super::wire::{change_from_proto, changed_to_proto, report_to_proto};

/// A signing request and a profile are far smaller.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

pub(super) fn router(roster: Roster) -> axum::Router {
    let members = MembersServer::new(roster).max_decoding_message_size(MESSAGE_BYTES_MAX);
    // Without a fallback of its own it can be merged with other services'.
    tonic::service::Routes::new(members).into_axum_router().reset_fallback()
}

impl Roster {
    fn member<T>(&self, request: &Request<T>) -> Result<(), Status> {
        match self.0.cluster.peers().refusal(request.extensions()) {
            None => Ok(()),
            Some(refusal) => Err(refusal),
        }
    }
}

#[tonic::async_trait]
impl Members for Roster {
    async fn join(
        &self,
        request: Request<proto::JoinRequest>,
    ) -> Result<Response<proto::JoinResponse>, Status> {
        let address = request.extensions().get::<PeerAddress>().map(|address| address.0);
        self.admit(request.into_inner(), address).await.map(Response::new)
    }

    async fn report(
        &self,
        request: Request<proto::ReportRequest>,
    ) -> Result<Response<proto::ReportResponse>, Status> {
        self.member(&request)?;
        Ok(Response::new(report_to_proto(self.own_report().await)))
    }

    async fn marks(
        &self,
        request: Request<proto::MarksRequest>,
    ) -> Result<Response<proto::MarksResponse>, Status> {
        self.member(&request)?;
        let marks = self.0.cluster.marks().await;
        let marks = marks.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(marks_to_proto(&marks)))
    }

    async fn change(
        &self,
        request: Request<proto::ChangeRequest>,
    ) -> Result<Response<proto::ChangeResponse>, Status> {
        self.member(&request)?;
        let change = change_from_proto(request.get_ref()).ok_or_else(|| {
            Status::invalid_argument("this change is not known: upgrade the node that was asked")
        })?;
        Ok(Response::new(changed_to_proto(self.change_here(change).await)))
    }
}
