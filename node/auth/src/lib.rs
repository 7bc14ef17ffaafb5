//! Who may do what: the policy, the identities it speaks of, and the one place that decides.
//!
//! A request brings a credential ([`credential`]); the credential is of an [`identity`]; the [`policy`] decides whether
//! that identity may do an [`permission::Action`] to a [`permission::Resource`]. Every format, every node and every kind
//! of credential comes through [`policy::Policy::decide`], which denies whatever nothing allows.
//!
//! Guarantees: no permission comes from anywhere but a rule of the policy or a token that was cut down from one; a deny
//! wins over every allow; a policy is compiled whole or not at all. Must not know: HTTP, gRPC, the replicated state, or
//! a clock (times are arguments).

pub mod credential;
pub mod document;
pub mod identity;
pub mod password;
pub mod permission;
pub mod policy;
pub mod session;
pub mod workload;
