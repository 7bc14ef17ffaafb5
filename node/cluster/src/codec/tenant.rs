//! Tenants' records and commands.

use nora_domain::{BudgetRecord, LeaseBudget, LimitsRecord, Rate, UsageRecord};
use nora_proto::{command::v1 as command, record::v1 as record};

codes!(Rate => record::Rate { Push, Pull, AnonymousPull });
fields!(UsageRecord => record::Usage {
    bytes,
    artifacts,
    versions,
    tags,
    links,
    unique_bytes,
    reserved_bytes,
    uploads,
});
fields!(LimitsRecord => record::Limits { storage_quota, artifact_quota, push_limit, pull_limit, anonymous_pull_limit, caller_pull_limit });
fields!(BudgetRecord => record::Budget { hour, granted });

fields!(LeaseBudget => command::LeaseBudget { tenant, rate, hour, take, give_back });
