//! The policy's record and command.

use nora_domain::{LimitsRecord, PolicyRecord, SetPolicy, TenantName};
use nora_proto::{command::v1 as command, record::v1 as record};

use super::{Codec, DecodeError, required};

fields!(PolicyRecord => record::Policy { epoch, document, hash, applied_at, applied_by });

fields!(SetPolicy => command::SetPolicy { expected, document, hash, tenants });

impl Codec for (TenantName, LimitsRecord) {
    type Message = command::TenantLimits;

    fn to_proto(&self) -> command::TenantLimits {
        let (tenant, limits) = self;
        command::TenantLimits { tenant: tenant.to_proto(), limits: Some(limits.to_proto()) }
    }

    fn from_proto(message: command::TenantLimits) -> Result<Self, DecodeError> {
        let tenant = Codec::from_proto(message.tenant)?;
        Ok((tenant, required(message.limits, "TenantLimits.limits")?))
    }
}
