//! `nora.v1.Content`: the same use cases that the HTTP surface calls.

use std::sync::Arc;

use nora_auth::permission::Action;
use nora_domain::{
    About, Deed, Digest, Format, Reason, Reference, RepositoryKey, RepositoryPath, TagName, Verb,
};
use nora_proto::v1 as proto;
use nora_proto::v1::content_server::Content;
use tonic::{Request, Response, Status};

use super::{Admin, caller_of, not_permitted, page_rows, refused, to_the_end};
use nora_identity::{Caller, Spends};

fn malformed(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

fn reference(text: &str) -> Result<Reference, Status> {
    match Digest::parse(text) {
        Ok(digest) => Ok(Reference::Digest(digest)),
        // A colon is no tag's: that was to be a digest.
        Err(error) if text.contains(':') => Err(malformed(error)),
        Err(_) => Ok(Reference::Tag(TagName::parse(text).map_err(malformed)?)),
    }
}

fn texts(digests: &[Digest]) -> Vec<String> {
    digests.iter().map(Digest::to_string).collect()
}

impl Admin {
    /// The repository of that name, for a caller who may do that to it. One that may not be pulled from is as good as
    /// absent.
    fn repository(
        &self,
        caller: &Caller,
        action: Action,
        path: &str,
    ) -> Result<RepositoryKey, Status> {
        let path = RepositoryPath::parse(path).map_err(malformed)?;
        let repository = self.api.registry.repository(Format::Oci, path);
        if caller.may_in(action, &repository) {
            return Ok(repository);
        }
        if action == Action::Pull {
            return Err(refused(nora_app::Error::RepositoryUnknown));
        }
        let verb = match action {
            Action::Delete => Verb::ArtifactDelete,
            _ => Verb::ArtifactPush,
        };
        let deed = Deed::new(verb, About::Repository(repository.clone()));
        caller.note_refusal(deed, Reason::NotPermitted);
        Err(not_permitted(caller, &format!("{}:{}", action.name(), repository.path)))
    }
}

#[tonic::async_trait]
impl Content for Admin {
    async fn list_repositories(
        &self,
        request: Request<proto::ListRepositoriesRequest>,
    ) -> Result<Response<proto::ListRepositoriesResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let after = match request.after.as_str() {
            "" => None,
            path => Some(RepositoryPath::parse(path).map_err(malformed)?),
        };
        let rows = page_rows(request.page_size);
        let listed = caller.listed(Format::Oci);
        let page = self
            .api
            .registry
            .repositories()
            .list(Format::Oci, after, rows, &listed)
            .await
            .map_err(refused)?;
        let paths = page.items.iter().map(|path| path.as_str().to_owned()).collect();
        Ok(Response::new(proto::ListRepositoriesResponse { paths, more: page.more }))
    }

    async fn list_tags(
        &self,
        request: Request<proto::ListTagsRequest>,
    ) -> Result<Response<proto::ListTagsResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let repository = self.repository(&caller, Action::Pull, &request.repository)?;
        let after = match request.after.as_str() {
            "" => None,
            tag => Some(TagName::parse(tag).map_err(malformed)?),
        };
        let rows = page_rows(request.page_size);
        let page =
            self.api.registry.tags().list(&repository, after, rows).await.map_err(refused)?;
        let tags = page.items.iter().map(|tag| tag.as_str().to_owned()).collect();
        Ok(Response::new(proto::ListTagsResponse { tags, more: page.more }))
    }

    async fn get_artifact(
        &self,
        request: Request<proto::GetArtifactRequest>,
    ) -> Result<Response<proto::GetArtifactResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let repository = self.repository(&caller, Action::Pull, &request.repository)?;
        let reference = reference(&request.reference)?;
        let artifact =
            self.api.registry.artifacts().get(&repository, &reference).await.map_err(refused)?;
        Ok(Response::new(proto::GetArtifactResponse {
            digest: artifact.digest.to_string(),
            media_type: artifact.media_type.as_str().to_owned(),
            size: artifact.size,
            blobs: texts(&artifact.blobs),
            children: texts(&artifact.children),
        }))
    }

    async fn set_tag(
        &self,
        request: Request<proto::SetTagRequest>,
    ) -> Result<Response<proto::SetTagResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let repository = self.repository(&caller, Action::Push, &request.repository)?;
        let tag = TagName::parse(&request.tag).map_err(malformed)?;
        let to = reference(&request.reference)?;
        let spent = self.api.guard.spend(&caller, &repository.tenant, Spends::Push);
        if spent.await.is_err() {
            let deed = Deed::new(Verb::ArtifactPush, About::Repository(repository));
            caller.note_refusal(deed, Reason::OverHourlyLimit);
            return Err(Status::resource_exhausted(
                "the hour's limit of pushes to this namespace is reached; wait for the next hour",
            ));
        }
        let registry = self.api.registry.by(Arc::new(caller));
        let set = to_the_end(async move { registry.tags().set(repository, tag, to).await });
        let digest = set.await?.map_err(refused)?.to_string();
        Ok(Response::new(proto::SetTagResponse { digest }))
    }

    async fn delete_tag(
        &self,
        request: Request<proto::DeleteTagRequest>,
    ) -> Result<Response<proto::DeleteTagResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let repository = self.repository(&caller, Action::Delete, &request.repository)?;
        let tag = TagName::parse(&request.tag).map_err(malformed)?;
        let registry = self.api.registry.by(Arc::new(caller));
        let deleted = to_the_end(async move { registry.tags().delete(repository, tag).await });
        let digest = deleted.await?.map_err(refused)?.to_string();
        Ok(Response::new(proto::DeleteTagResponse { digest }))
    }

    async fn delete_artifact(
        &self,
        request: Request<proto::DeleteArtifactRequest>,
    ) -> Result<Response<proto::DeleteArtifactResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let repository = self.repository(&caller, Action::Delete, &request.repository)?;
        let digest = Digest::parse(&request.digest).map_err(malformed)?;
        let registry = self.api.registry.by(Arc::new(caller));
        let deleted =
            to_the_end(async move { registry.artifacts().delete(repository, digest).await });
        let tags = deleted.await?.map_err(refused)?;
        let tags = tags.iter().map(|tag| tag.as_str().to_owned()).collect();
        Ok(Response::new(proto::DeleteArtifactResponse { tags }))
    }
}
