//! Names and their addresses, of which none may be one that must not be called.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::{Allowed, check};

type Answer = Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>>;

/// Resolves names for the client. The client dials the addresses that this gives, and asks for no others.
pub(crate) struct Names {
    allowed: Allowed,
    ask: Arc<dyn Fn(String) -> Answer + Send + Sync>,
}

impl Names {
    pub(crate) fn of_the_system(allowed: Allowed) -> Self {
        Self::of(allowed, |host| {
            Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) })
        })
    }

    pub(crate) fn of(
        allowed: Allowed,
        ask: impl Fn(String) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self { allowed, ask: Arc::new(ask) }
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let (allowed, answer) = (self.allowed.clone(), (self.ask)(host.clone()));
        Box::pin(async move {
            let addresses = answer.await?;
            if addresses.is_empty() {
                return Err(format!("{host} has no address").into());
            }
            // One that must not be called condemns the others: its DNS could answer with that address alone.
            for address in &addresses {
                check(&allowed, &host, address.ip())?;
            }
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}
