//! Blobs' records and commands.

use nora_domain::{
    AddHolder, BlobRecord, CommitBlob, DropHolder, LinkRecord, LoseObject, MountBlob, PinBlob,
    Placement, TenantBlobRecord, UnlinkBlob,
};
use nora_proto::record::v1::placement::Place;
use nora_proto::{command::v1 as command, record::v1 as record};

use super::{Codec, DecodeError};

fields!(BlobRecord => record::Blob { size, chunk_root, tenants, unheld_at }
    required { generation, placement });
fields!(TenantBlobRecord => record::TenantBlob {
    size,
    links,
    references,
    unreferenced_at,
    relied_on_at,
});
fields!(LinkRecord => record::Link { size, linked_at, pinned_until, unreferenced_at });

fields!(CommitBlob => command::CommitBlob { size, node, chunk_root, upload, pin_millis }
    required { repository, digest, generation, placement });
fields!(MountBlob => command::MountBlob { pin_millis } required { from, to, digest });
fields!(PinBlob => command::PinBlob { pin_millis } required { repository, digest });
fields!(UnlinkBlob => command::UnlinkBlob {} required { repository, digest });
fields!(AddHolder => command::AddHolder { node } required { digest, generation });
fields!(DropHolder => command::DropHolder { node, keep } required { digest, generation });
fields!(LoseObject => command::LoseObject {} required { digest, generation });

impl Codec for Placement {
    type Message = record::Placement;

    fn to_proto(&self) -> record::Placement {
        let place = match self {
            Self::Nodes(nodes) => Place::Nodes(record::Nodes { nodes: nodes.to_proto() }),
            Self::Object(name) => Place::Object(name.to_proto()),
        };
        record::Placement { place: Some(place) }
    }

    fn from_proto(message: record::Placement) -> Result<Self, DecodeError> {
        Ok(match message.place.ok_or(DecodeError::Unknown("Placement.place"))? {
            Place::Nodes(nodes) => Self::Nodes(Codec::from_proto(nodes.nodes)?),
            Place::Object(name) => Self::Object(Codec::from_proto(name)?),
        })
    }
}
