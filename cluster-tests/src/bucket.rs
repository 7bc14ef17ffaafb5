//! A real S3 server (versitygw over a folder) behind a link that misbehaves on demand.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{During, Error, Result};
use crate::proxy::{Proxy, Trouble};
use crate::server::free_address;

const READY_LIMIT: Duration = Duration::from_secs(30);
const KEY: &str = "nora-test";
const SECRET: &str = "nora-test-secret";

/// The server, an empty bucket in it, and the way there.
pub struct Bucket {
    child: Child,
    proxy: Proxy,
    config: String,
}

impl Bucket {
    /// Starts `program`; its objects and the nodes' configuration lie in `work`.
    pub fn start(program: &Path, work: &Path) -> Result<Self> {
        // A bucket is a folder.
        let root = work.join("s3");
        std::fs::create_dir_all(root.join("nora")).during(|| "make a bucket".into())?;
        let address = free_address()?;
        let log = std::fs::File::create(work.join("s3.log")).during(|| "log S3".into())?;
        let child = Command::new(program)
            .args(["--port", &address.to_string(), "posix"])
            .arg(&root)
            .env("ROOT_ACCESS_KEY", KEY)
            .env("ROOT_SECRET_KEY", SECRET)
            .stdin(Stdio::null())
            .stdout(log.try_clone().during(|| "log S3".into())?)
            .stderr(log)
            .spawn()
            .during(|| format!("start {}", program.display()))?;
        let proxy = Proxy::start(address)?;
        let mut bucket = Self { child, proxy, config: String::new() };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = bucket.child.try_wait().during(|| "wait for the S3 server".into())?;
            if ended.is_some() || begun.elapsed() > READY_LIMIT {
                let text = format!("no S3 server: see {}", work.join("s3.log").display());
                return Err(Error::Wrong(text));
            }
            thread::sleep(Duration::from_millis(20));
        }
        bucket.config = bucket.make_config(work)?;
        Ok(bucket)
    }

    fn make_config(&self, work: &Path) -> Result<String> {
        let key = work.join("access-key");
        let secret = work.join("secret-key");
        let config = format!(
            "[storage]\nmode = \"s3\"\n[storage.s3]\nbucket = \"nora\"\nendpoint = \"http://{}\"\n\
             access_key = {{ file = \"{}\" }}\nsecret_key = {{ file = \"{}\" }}\n",
            self.proxy.address(),
            key.display(),
            secret.display(),
        );
        for (path, text) in [(&key, KEY), (&secret, SECRET)] {
            std::fs::write(path, text).during(|| format!("write {}", path.display()))?;
        }
        Ok(config)
    }

    /// What the configuration of nodes says that keep their blobs there.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// Sets what is wrong with the way to the server from now on.
    pub fn trouble(&self, trouble: Trouble) {
        self.proxy.set(trouble);
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
