//! Repositories' records; no command is about a repository alone.

use nora_domain::RepositoryRecord;
use nora_proto::record::v1 as record;

fields!(RepositoryRecord => record::Repository {
    created_at,
    revision,
    artifacts,
    versions,
    tags,
    links,
});
