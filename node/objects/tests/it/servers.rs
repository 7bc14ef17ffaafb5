//! Real S3 servers, one for each test: started on a free port with a folder of its own, ended with the test.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};

pub(crate) const ACCESS_KEY: &str = "nora-test-key";
pub(crate) const SECRET_KEY: &str = "nora-test-secret";
pub(crate) const REGION: &str = "us-east-1";
pub(crate) const BUCKET: &str = "blobs-of-nora";

const START: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Versitygw,
    Minio,
}

/// A server that runs, with the bucket in it.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: String,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A server's program: named by a variable, or where `deploy/dev/tools.sh` puts it.
fn program(name: &str) -> PathBuf {
    let variable = format!("NORA_TEST_{}", name.to_uppercase());
    if let Some(path) = std::env::var_os(&variable) {
        return path.into();
    }
    let cache = std::env::var_os("NORA_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/nora"),
        PathBuf::from,
    );
    let folders = std::fs::read_dir(cache.join("tools")).into_iter().flatten().flatten();
    let programs = folders
        .filter(|folder| folder.file_name().to_string_lossy().starts_with(&format!("{name}-")))
        .map(|folder| folder.path().join(name));
    programs.filter(|program| program.is_file()).max().unwrap_or_else(|| {
        panic!(
            "the S3 server {name} is not on this machine: run `. deploy/dev/setup.sh; \
             . deploy/dev/tools.sh; need {name}` in bash, or name its program in {variable}"
        )
    })
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Starts a server and waits until it serves the bucket.
pub(crate) async fn start(kind: Kind) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut command = match kind {
        Kind::Versitygw => {
            let mut command = Command::new(program("versitygw"));
            command.args(["--quiet", "--port", &address, "posix"]).arg(folder.path());
            command.env("ROOT_ACCESS_KEY_ID", ACCESS_KEY).env("ROOT_SECRET_ACCESS_KEY", SECRET_KEY);
            command
        }
        Kind::Minio => {
            let mut command = Command::new(program("minio"));
            command.args(["server", "--quiet", "--address", &address]).arg(folder.path());
            command.env("MINIO_ROOT_USER", ACCESS_KEY).env("MINIO_ROOT_PASSWORD", SECRET_KEY);
            command.env("MINIO_BROWSER", "off").env("MINIO_CI_CD", "1");
            command
        }
    };
    let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let server = Server { process, address, _folder: folder };
    let began = Instant::now();
    while let Err(error) = server.client().create_bucket().bucket(BUCKET).send().await {
        assert!(began.elapsed() < START, "{kind:?} does not serve: {error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server
}

impl Server {
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client beside the store, to see what is in the bucket and to damage it.
    pub(crate) fn client(&self) -> Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
            .endpoint_url(self.endpoint())
            .force_path_style(true);
        Client::from_conf(config.build())
    }

    /// All keys in the bucket.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let listed = self.client().list_objects_v2().bucket(BUCKET).send().await.unwrap();
        listed.contents().iter().map(|object| object.key().unwrap().to_owned()).collect()
    }

    /// Multipart uploads for a key that nobody completed. Not every server lists those of all keys.
    pub(crate) async fn unfinished(&self, id: u128) -> usize {
        let key = format!("some/prefix/blobs/{:02x}/{id:032x}", id as u8);
        let listed = self.client().list_multipart_uploads().bucket(BUCKET).prefix(key).send().await;
        listed.unwrap().uploads().len()
    }
}

/// Makes a test of a scenario for each server.
macro_rules! on_both {
    ($($scenario:ident),* $(,)?) => {$(
        mod $scenario {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn versitygw() {
                super::$scenario(&crate::servers::start(crate::servers::Kind::Versitygw).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn minio() {
                super::$scenario(&crate::servers::start(crate::servers::Kind::Minio).await).await;
            }
        }
    )*};
}
pub(crate) use on_both;
