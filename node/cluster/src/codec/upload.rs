//! Upload sessions' records and commands.

use nora_domain::{CloseUpload, ExpireUploads, OpenUpload, ShrinkReservation, UploadRecord};
use nora_proto::{command::v1 as command, record::v1 as record};

fields!(UploadRecord => record::Upload { node, opened_at, expires_at, reserved_bytes }
    required { repository });

fields!(OpenUpload => command::OpenUpload { upload, node, lives_millis, reserve }
    required { repository });
fields!(ShrinkReservation => command::ShrinkReservation { tenant, upload, bytes, lease });
fields!(CloseUpload => command::CloseUpload { tenant, upload });
fields!(ExpireUploads => command::ExpireUploads { tenant, uploads });
