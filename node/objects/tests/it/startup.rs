//! The check at the start tells each mistake in the configuration by its name.

use nora_objects::{ObjectBlobsConfig, ObjectError};

use crate::proxy::{Proxy, refusal};
use crate::servers::{Server, on_both};
use crate::support::{config, opened, store};

on_both!(mistakes_are_told_by_name, a_store_that_works_passes);

async fn checked(
    server: &Server,
    change: impl FnOnce(&mut ObjectBlobsConfig),
) -> Result<(), ObjectError> {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&server.endpoint(), dir.path());
    change(&mut config);
    opened(&config)?.check(1).await
}

async fn mistakes_are_told_by_name(server: &Server) {
    let missing = checked(server, |config| config.bucket = "no-such-bucket".to_owned()).await;
    assert!(
        matches!(&missing, Err(ObjectError::BucketMissing { bucket, .. }) if bucket == "no-such-bucket"),
        "{missing:?}"
    );
    for refused in [
        checked(server, |config| config.access_key = Some("another-key".to_owned())).await,
        checked(server, |config| config.secret_key = Some("another-secret".to_owned())).await,
    ] {
        assert!(matches!(refused, Err(ObjectError::CredentialsRefused { .. })), "{refused:?}");
    }
    let half = checked(server, |config| config.secret_key = None).await;
    assert!(matches!(half, Err(ObjectError::Setup { .. })), "{half:?}");
    // Nothing listens on the discard port.
    let nobody =
        checked(server, |config| config.endpoint = Some("http://127.0.0.1:9".to_owned())).await;
    assert!(
        matches!(&nobody, Err(error @ ObjectError::Unreachable { .. }) if error.to_string().contains("127.0.0.1:9")),
        "{nobody:?}"
    );
}

async fn a_store_that_works_passes(server: &Server) {
    let (dir, proxy) = (tempfile::tempdir().unwrap(), Proxy::start(&server.address).await);
    let store = store(&proxy.endpoint(), dir.path());
    store.check(7).await.unwrap();
    assert_eq!(server.keys().await, Vec::<String>::new());
    store.probe().await.unwrap();

    // One hour behind what the server says.
    let skewed =
        refusal("403 Forbidden", "Date: Fri, 01 Jan 2100 00:00:00 GMT\r\n", "RequestTimeTooSkewed");
    proxy.plan(1, &["GET"], &skewed);
    let error = store.probe().await.unwrap_err();
    let behind = matches!(error, ObjectError::ClockSkew { skew_seconds: Some(..0), .. });
    assert!(behind && error.to_string().contains("s behind"), "{error}");
    proxy.plan(1, &["PUT", "checks/"], &refusal("403 Forbidden", "", "AccessDenied"));
    let error = store.check(8).await.unwrap_err();
    assert!(
        matches!(&error, ObjectError::AccessDenied { step: "write an object", place } if place.ends_with("some/prefix")),
        "{error}"
    );
    proxy.plan(100, &["HTTP/1.1"], &refusal("503 Slow Down", "", "SlowDown"));
    let error = store.probe().await.unwrap_err();
    assert!(matches!(&error, ObjectError::Busy { code, .. } if code == "SlowDown"), "{error}");
    assert!(error.is_transient());
}
